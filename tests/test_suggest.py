"""What to try next, from a world made by hand: numbers, ideas, pairs, removals, and which of them come first."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.bandit import Trial, Turn
from lab.catalogue import Idea
from lab.effects import prior_effects
from lab.suggest import choose, suggestions
from lab.tree import believe
from lab.world import Suggestion, World

CONFIG = {"MATRIX_LR": 0.04, "EMBEDDING_LR": 0.6, "WARMUP_RATIO": 0.0, "DEPTH": 8, "WINDOW_PATTERN": "SSSL", "SEED": 42}
NOISE = 2e-7


def idea(target, direction, *, factor=None, value=None, promise="medium", category="optimizer"):
    """A line of the catalogue."""
    text = f"{direction} {target} as {promise}"
    return Idea(text, category, target, direction, factor, value, "any", promise, text, "somebody 2020")


def trial(name, old, new, effect, *, track=None, kept=False, category="optimizer", subject="", text=""):
    """A run that turned a constant."""
    direction = "up" if new > old else "down"
    turn = Turn(subject or name, direction, float(old), float(new), name)
    return Trial(f"{name} to {new}", category, turn, effect, NOISE, track, kept, text)


def world(trials=(), ideas=(), *, config=CONFIG, conservative=False, belief=None, edits=None):
    """What suggestions are made from, at a champion of 1.0 and six minutes a run."""
    return World(trials, config, belief, edits or {}, ideas, prior_effects(0.001), 1.0, NOISE, 6.0, conservative)


def of(found, target):
    """The suggestions about a target, the best first."""
    return sorted((one for one in found if one.target == target), key=lambda one: -one.expected)


ARCHITECTURE = idea("mlp activation", "replace", category="activation")
LRS = [idea("MATRIX_LR", "up", factor=1.25), idea("EMBEDDING_LR", "up", factor=1.5, promise="high")]


# Numbers.


@pytest.mark.parametrize(("factor", "value"), [(0.947, 0.9), (1.021, 0.97)])
def test_a_factor_of_the_catalogue_is_of_the_value_near_one_too(factor, value):
    bet = idea("MUON_MOMENTUM", "up" if factor > 1 else "down", factor=factor, promise="high")
    found = suggestions(world(ideas=[bet], config={"MUON_MOMENTUM": 0.95}))
    assert {"MUON_MOMENTUM": value} in [one.changes for one in found]


def test_without_a_catalogue_every_number_of_the_champion_can_be_turned():
    found = suggestions(world(config={"RUN": 4, "SKIP": False, "SEED": 42}))
    assert [one.description for one in found] and {next(iter(one.changes)) for one in found} == {"RUN"}
    assert {one.category for one in found} == {"hyperparams"}


def test_a_number_gets_a_value_and_says_what_it_rests_on():
    runs = [trial("MATRIX_LR", 0.04, 0.03, 0.001, subject="lr matrix")]
    found = of(suggestions(world(runs, LRS)), "lr matrix")
    assert found[0].description == "raise MATRIX_LR from 0.04 to 0.08 (x2)"
    assert (found[0].changes, found[0].direction, found[0].mode) == ({"MATRIX_LR": 0.08}, "up", "explore")
    assert found[0].cards == (runs[0].card,) and found[0].source is None
    assert found[0].why.startswith("P 0.") and found[0].why.endswith(" that it helps; 1 run of it here")
    assert found[0].per_minute == pytest.approx(found[0].expected / 6)
    assert [one.direction for one in found] == ["up", "down"]


def test_only_numbers_that_the_catalogue_or_a_run_names_are_turned():
    found = suggestions(world([trial("DEPTH", 8, 9, 0.0, subject="depth")], [LRS[0]]))
    assert {one.target for one in found} == {"lr matrix", "depth"}
    assert all(type(one.changes["DEPTH"]) is int for one in of(found, "depth"))


def test_of_a_project_that_the_catalogue_is_not_about_all_numbers_are_turned():
    found = suggestions(world(config={"RUN": 4, "MARGIN": 0.5, "ORDERED": False, "NAME": "merge", "SEED": 42}))
    assert {one.target for one in found} == {"RUN", "MARGIN"}
    assert all(type(one.changes["RUN"]) is int and one.category == "hyperparams" for one in of(found, "RUN"))


def test_a_number_nobody_has_turned_gets_the_value_that_the_catalogue_bets_on():
    up, down = of(suggestions(world((), [idea("MATRIX_LR", "up", factor=3.0, promise="high")])), "lr matrix")
    assert (up.changes, up.source) == ({"MATRIX_LR": 0.12}, "somebody 2020")
    assert up.why == "P 0.36 that it helps; the catalogue's bet is high, 0 runs of it here"
    assert (down.changes, down.source) == ({"MATRIX_LR": 0.032}, None)


def test_a_way_that_was_kept_is_exploited_and_a_bet_on_the_first_value_is_off():
    kept = trial("MATRIX_LR", 0.03, 0.04, -0.003, kept=True, subject="lr matrix")
    found = {one.direction: one for one in of(suggestions(world([kept], LRS)), "lr matrix")}
    assert (found["up"].mode, found["up"].source) == ("exploit", None)


def test_a_high_bet_is_worth_more_than_a_low_one():
    high, low = (
        of(suggestions(world((), [idea("MATRIX_LR", "up", factor=1.25, promise=bet)])), "lr matrix")[0]
        for bet in ("high", "low")
    )
    assert high.expected > 1.5 * low.expected and high.direction == "up"


def test_a_number_that_is_zero_gets_a_first_value_and_then_others():
    hint = idea("WARMUP_RATIO", "set", value=0.01, category="scheduling")
    first = of(suggestions(world((), [hint])), "warmup")[0]
    assert first.description == "raise WARMUP_RATIO from 0 to 0.01" and first.changes == {"WARMUP_RATIO": 0.01}
    tries = [trial("WARMUP_RATIO", 0, value, 0.002, subject="warmup", category="scheduling") for value in (0.01, 0.02)]
    (second,) = of(suggestions(world(tries, [hint])), "warmup")
    assert second.changes == {"WARMUP_RATIO": 0.05} and second.expected < first.expected / 2
    tries.append(trial("WARMUP_RATIO", 0, 0.05, 0.002, subject="warmup", category="scheduling"))
    assert of(suggestions(world(tries, [hint])), "warmup") == []


def test_a_whole_number_stays_whole():
    buckets = idea("BIGRAM_BUCKETS", "set", value=40960.0, category="embedding")
    (found,) = suggestions(world((), [buckets], config={"BIGRAM_BUCKETS": 0}))
    assert found.changes == {"BIGRAM_BUCKETS": 40960} and type(found.changes["BIGRAM_BUCKETS"]) is int
    assert found.description == "raise BIGRAM_BUCKETS from 0 to 40960"


def test_numbers_of_a_ledger_in_words_are_followed_to_their_present_value():
    runs = [
        trial("embedding LR", 0.6, 0.8, -0.002, kept=True, subject="embedding lr"),
        trial("embedding LR", 0.8, 1.0, 0.0005, subject="embedding lr"),
    ]
    found = of(suggestions(world(runs, config={})), "embedding lr")
    assert all(one.description.split(" from ")[1].startswith("0.8 to ") and one.changes is None for one in found)
    named = of(suggestions(world(runs, LRS, config={})), "embedding lr")
    assert named[0].description.split()[1] == "EMBEDDING_LR"  # as the catalogue spells it


def test_another_track_says_which_way_but_this_one_says_more():
    there = [trial("MATRIX_LR", 0.02, 0.03, -0.004, track="b", subject="lr matrix")]
    here = [trial("MATRIX_LR", 0.04, 0.05, 0.004, subject="lr matrix")]
    assert of(suggestions(world(there, LRS[:1])), "lr matrix")[0].direction == "up"
    both = {one.direction: one.expected for one in of(suggestions(world(there + here, LRS[:1])), "lr matrix")}
    alone = {one.direction: one.expected for one in of(suggestions(world(there, LRS[:1])), "lr matrix")}
    assert both.get("up", 0.0) < alone["up"] / 2


def test_runs_that_changed_another_constant_of_the_same_words_do_not_count():
    other = [trial("MATRIX_LR_B", 0.04, 0.05, 0.004, subject="lr matrix")]
    assert of(suggestions(world(other, LRS[:1])), "lr matrix")[0].why.endswith("0 runs of it here")


def test_conservative_is_small_steps_of_numbers():
    found = suggestions(world((), [*LRS, ARCHITECTURE], conservative=True))
    assert {one.target for one in found} == {"lr matrix", "embedding lr"}
    for one in found:
        ((name, value),) = one.changes.items()
        assert 1 / 1.26 <= value / CONFIG[name] <= 1.26


# Ideas in words.


def test_an_idea_of_the_catalogue_keeps_its_sentence_and_its_source():
    (found,) = suggestions(world((), [ARCHITECTURE]))
    assert found.description == ARCHITECTURE.idea and found.changes is None and found.source == "somebody 2020"
    assert found.why == "P 0.24 that it helps; the catalogue's bet is medium, 0 runs of it here"


def test_a_constant_that_is_no_number_is_set_where_it_differs():
    pattern = idea("WINDOW_PATTERN", "set", value="SSSSL", category="attention")
    (found,) = suggestions(world((), [pattern]))
    assert found.changes == {"WINDOW_PATTERN": "SSSSL"}
    assert suggestions(world((), [pattern], config=CONFIG | {"WINDOW_PATTERN": "SSSSL"})) == []
    assert suggestions(world((), [idea("NO_SUCH_CONSTANT", "up", factor=2.0)])) == []


def test_removals_are_ablations_and_promise_less():
    removal, low = suggestions(world((), [idea("qk norm", "remove"), idea("norm gain", "add", promise="low")]))
    assert (removal.mode, low.mode) == ("ablation", "explore") and removal.expected < low.expected


def test_switching_a_constant_off_is_an_ablation_that_constants_say():
    off = idea("WEIGHT_DECAY", "set", value=0.0, category="ablation")
    more = idea("WEIGHT_DECAY", "up", factor=2.0, category="regularization")
    found = suggestions(world((), [more, off], config={"WEIGHT_DECAY": 0.2}))
    assert [one.changes for one in found if one.mode == "ablation"] == [{"WEIGHT_DECAY": 0.0}]
    assert {one.category for one in found if one.mode != "ablation"} == {"regularization"}  # as the first idea has it
    found = suggestions(world((), [off], config={"WEIGHT_DECAY": 0.0}))
    assert [one for one in found if one.mode == "ablation"] == []


def test_what_was_refuted_falls_below_what_was_not():
    refuted = Trial("a" * 12, "activation", Turn("activation", "replace", None, None, "x"), 0.003, NOISE, None, False)
    fresh = idea("mlp dropout", "add", category="regularization")
    first, second = choose(
        suggestions(world([refuted, refuted], [ARCHITECTURE, fresh])), "explore", 2, lambda one: True
    )
    assert (first.target, second.target) == ("dropout mlp", "activation") and second.cards == ("a" * 12,) * 2


def test_what_helped_elsewhere_and_was_not_tried_here_is_suggested_in_its_own_words():
    turn = Turn("swiglu", "add", None, None, "swiglu")
    there = Trial("b" * 12, "activation", turn, -0.002, NOISE, "other", False, "use SwiGLU\nin the MLP")
    (found,) = suggestions(world([there], config={}))
    assert (found.mode, found.description, found.cards) == ("exploit", "use SwiGLU in the MLP", ("b" * 12,))
    assert found.why.endswith(", as it did on 1 other track")
    assert suggestions(world([there, there._replace(track=None, effect=0.001)], config={})) == []
    assert suggestions(world([there._replace(effect=0.001)], config={})) == []


# Edits that were made.


def row(number, result, status="revert", parent=0):
    """A row of the index."""
    return {
        "id": f"{number:012x}", "timestamp": f"2026-01-01T00:00:{number:02d}.000Z", "status": status,
        "quarantined": None, "metric": "val_bpb", "result": result, "direction": "min", "edit_key": f"edit {number}",
        "train_sha256": None, "commit_id": f"{number:07x}", "parent_commit": None if number == 0 else f"{parent:07x}",
        "champion": None, "seed": 42, "machine": "m", "hypothesis": f"idea {number}", "preset": "gpu",
        "device": "cuda", "confirmed": None, "tokens_per_second": None,
    }  # fmt: skip


def made():
    """A champion of one edit, and four near misses beside it: two constants, one of them again, and words."""
    rows = [row(0, 1.0, "keep"), row(1, 0.998, "keep"), *(row(n, 0.9981, parent=1) for n in range(2, 6))]
    diffs = [{}, {"DEPTH": [6, 8]}, {"MATRIX_LR": [0.04, 0.05]}, {"EMBEDDING_LR": [0.6, 0.7]},
             {"MATRIX_LR": [0.04, 0.06]}, {}]  # fmt: skip
    words = ["baseline", "deeper", "a", "b", "c", "a smear gate"]
    edits = {
        one["id"]: {"hypothesis": text, "category": "other", "config_diff": diff}
        for one, text, diff in zip(rows, words, diffs, strict=True)
    }
    return world(belief=believe(rows, "min", 0.0005), edits=edits)


def test_near_misses_that_touch_different_constants_are_combined():
    pairs = [one for one in suggestions(made()) if one.mode == "combine"]
    assert {tuple(sorted(one.changes)) for one in pairs if one.changes} == {("EMBEDDING_LR", "MATRIX_LR")}
    whole = next(one for one in pairs if one.changes and one.changes["MATRIX_LR"] == 0.05)
    assert whole.changes["EMBEDDING_LR"] == 0.7
    assert whole.description == "combine two near misses: EMBEDDING_LR 0.6 -> 0.7; MATRIX_LR 0.04 -> 0.05"
    assert whole.cards == ("000000000003", "000000000002") and whole.target == "embedding lr + lr matrix"
    assert any(
        "a smear gate" in one.description and one.changes is None for one in pairs
    )  # words for what is structural


def test_a_near_miss_whose_constant_has_moved_since_is_left_out():
    old = made()
    moved = old._replace(config=CONFIG | {"MATRIX_LR": 0.045})
    assert not any("MATRIX_LR" in one.description for one in suggestions(moved) if one.mode == "combine")


def test_an_ablation_takes_an_edit_of_the_champion_back():
    rows = [row(0, 1.0, "keep"), row(1, 0.9992, "keep")]
    unsure = made()._replace(belief=believe(rows, "min", 0.0005))
    (found,) = [one for one in suggestions(unsure) if one.mode == "ablation"]
    assert found.description == "take out again: DEPTH 6 -> 8" and found.changes == {"DEPTH": 6}
    assert (found.target, found.cards) == ("depth", ("000000000001",))
    assert found.why == "P 0.31 that it helps where it is"
    turned = unsure._replace(config=CONFIG | {"DEPTH": 9})
    assert [one for one in suggestions(turned) if one.mode == "ablation"] == []  # it is no more as that edit left it


# Which come first.


def suggestion(mode, worth, category="optimizer", target="", **more):
    """One to choose from."""
    text = f"{mode} {worth} {category}"
    return Suggestion(mode, category, target or text, "up", text, None, (), worth, worth / 6, "", **more)


def test_the_mode_comes_first_and_the_others_fill_up_by_worth():
    found = [
        suggestion("explore", 5),
        suggestion("combine", 1, "a"),
        suggestion("combine", 2, "b"),
        suggestion("ablation", 9),
    ]
    assert [one.expected for one in choose(found, "combine", 3, lambda one: True)] == [2, 1, 9]


def test_the_next_of_a_category_counts_less():
    found = [suggestion("explore", worth) for worth in (10, 9, 8)] + [suggestion("explore", 7, "attention")]
    assert [one.expected for one in choose(found, "explore", 4, lambda one: True)] == [10, 9, 7, 8]


def test_one_for_each_thing_that_is_turned_and_nothing_that_is_not_allowed():
    found = [suggestion("explore", 3, target="a"), suggestion("explore", 2, "b", target="a"),
             suggestion("explore", 1, "c", target="b")]  # fmt: skip
    assert [one.expected for one in choose(found, "explore", 3, lambda one: True)] == [3, 1]
    assert [one.expected for one in choose(found, "explore", 3, lambda one: one.expected < 3)] == [2, 1]


def test_pairs_share_no_part_but_repeats_of_one_card_are_many():
    pairs = [suggestion("combine", 3, target="a + b"), suggestion("combine", 2, "x", target="b + c"),
             suggestion("combine", 1, "y", target="c + d")]  # fmt: skip
    assert [one.expected for one in choose(pairs, "combine", 3, lambda one: True)] == [3, 1]
    repeats = [suggestion("replicate", worth, target="x", replicates="x") for worth in (2, 1)]
    assert len(choose(repeats, "replicate", 3, lambda one: True)) == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30), st.booleans())
def test_any_world_is_ranked_the_same_way_whatever_the_order(seed, runs, conservative):
    chance = random.Random(seed)
    names = [("MATRIX_LR", "lr matrix"), ("EMBEDDING_LR", "embedding lr"), ("WARMUP_RATIO", "warmup"), ("x", "x")]
    trials = []
    for _ in range(runs):
        name, subject = chance.choice(names)
        effect = chance.choice([None, 0.0, chance.gauss(0, 0.002), -1e3, 1e3])
        old, new = chance.choice([0.0, 0.5, 1e-9]), chance.choice([1e9, 0.04, 0.1])
        trials.append(trial(name, old, new, effect, subject=subject, track=chance.choice([None, "b"]), text="y"))
    ideas = [*LRS, ARCHITECTURE, idea("WARMUP_RATIO", "set", value=0.01)]
    found = suggestions(world(trials, ideas, conservative=conservative))
    first = choose(found, "explore", 10, lambda one: True)
    random.Random(1).shuffle(found)
    assert choose(found, "explore", 10, lambda one: True) == first
    assert all(one.expected > 0 and one.description for one in first)
