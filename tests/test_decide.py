"""The decision packet: every status and action, from runs as a commons holds them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.decide import CRASHES, DOING, PRIORITIES, config_diff, decide, packet
from lab.findings import judged
from lab.schema import ACTIONS, ERROR_KINDS, GIT_ACTIONS, complete, validate_card
from lab.settings import Settings
from lab.tree import believe

PRIOR = 0.0005
RULES = Settings()
WHEN = "2026-01-31T12:00:00.000Z"


def name(number):
    """The id of the run of this number."""
    return f"{number:012x}"


def run(number, result, status="revert", edit=None, parent=None, **values):
    """A card: the run of this number, as commit of its own, edited from the commit of run `parent`."""
    card = {"id": name(number), "timestamp": f"2026-01-31T12:00:{number:02d}.000Z", "status": status, "track": "t",
            "edit_key": f"edit {number if edit is None else edit}", "seed": number, "results": {"val_bpb": result},
            "commit": name(number if edit is None else edit)[::-1], "hypothesis": f"idea {number}"}  # fmt: skip
    return complete(card | {"parent_commit": parent and name(parent)[::-1]} | values)


def row(card):
    """A card as a row of the index."""
    names = ("id", "timestamp", "status", "quarantined", "edit_key", "train_sha256", "parent_commit", "seed")
    return {one: card[one] for one in names} | {
        "result": card["results"][card["metric"]], "commit_id": card["commit"], "machine": None, "confirmed": 0,
        "champion": (card["decision"] or {}).get("champion"), "config_diff": None, "hypothesis": card["hypothesis"],
    }  # fmt: skip


# A baseline with repeats that tell the noise, about 0.0005, and an edit of it, kept.
TRACK = [run(number, 1.0 + away, "keep", edit=1) for number, away in enumerate((-6e-4, 5e-4, 2e-4, -4e-4, 3e-4), 1)] + [
    run(6, 0.990, "keep", parent=1), run(7, 0.9904, edit=6), run(8, 0.9897, edit=6),
]  # fmt: skip


def decided(values, track=TRACK, rules=RULES, direction="min", **known):
    """What is decided of a run of this track, and its whole card, which is valid."""
    belief = believe([row(card) for card in track], direction, PRIOR)
    best = next((card for card in track if belief and card["id"] == belief.champion), None)
    found = decide(values, belief, best, rules, **known)
    card = complete(values | found)
    validate_card(card)
    lines = packet(card)
    assert len(lines) <= 15 and max(map(len, lines)) < 200
    return found | {"lines": lines, "card": card}


def new(result, parent=6, number=30, **values):
    """A run that comes now."""
    return run(number, result, "inconclusive", parent=parent, **values)


def about(found):
    """Status, action, and what becomes of the commit."""
    decision = found["decision"]
    assert found["status"] == decision["status"] and decision["priority"] == PRIORITIES[decision["action"]]
    return found["status"], decision["action"], decision["git"]


# Statuses and actions.


def test_every_action_has_a_priority_and_words():
    assert set(PRIORITIES) == set(DOING) == set(ACTIONS)
    assert set(CRASHES) == set(ERROR_KINDS)
    assert {action for action, _ in CRASHES.values()} <= set(ACTIONS)
    assert {git for _, git in CRASHES.values()} <= set(GIT_ACTIONS)


def test_a_clear_gain_is_promoted():
    found = decided(new(0.985))
    assert about(found) == ("keep", "promote", "keep_commit")
    decision = found["decision"]
    assert decision["probability"] > 0.99 and decision["expected"] == pytest.approx(-0.005, abs=0.0005)
    assert (decision["champion"], decision["parent"]) == (name(6), name(6))
    assert decision["champion_mean"] == pytest.approx(0.990, abs=0.0005) and decision["noise"] > 0
    assert found["results"]["delta"] == pytest.approx(-0.005)
    assert found["results"]["delta_stderr"] == pytest.approx(decision["noise"] * math.sqrt(2))
    assert decision["reason"].startswith("a gain is to be expected: P ")
    assert "edited from the champion" in decision["reason"]


def test_a_clear_loss_is_reverted():
    found = decided(new(0.995))
    assert about(found) == ("revert", "abandon", "git_reset")
    assert found["decision"]["reason"].startswith("no gain: P 0.00")
    assert "repeats" not in found["decision"] or found["decision"]["repeats"] is None


def test_between_the_two_one_goes_from_keep_to_revert_by_way_of_more_runs():
    seen = []
    for step in range(-30, 31):
        status, action, git = about(decided(new(0.990 + step * 1e-4)))
        assert git == ("keep_commit" if status == "keep" else "git_reset")
        if not seen or seen[-1] != (status, action):
            seen.append((status, action))
    assert seen[0] == ("keep", "promote") and seen[-1] == ("revert", "abandon")
    statuses = [status for status, _ in seen]
    order = ["keep", "inconclusive", "revert"]
    assert [order.index(status) for status in statuses] == sorted(order.index(status) for status in statuses)


def test_where_more_is_better():
    track = [card | {"results": {"val_bpb": -card["results"]["val_bpb"]}, "direction": "max"} for card in TRACK]
    for result in (0.985, 0.9898, 0.995):
        up = decided(new(-result, direction="max"), track, direction="max")
        down = decided(new(result))
        assert about(up) == about(down)
        assert up["decision"]["probability"] == down["decision"]["probability"]
        assert up["decision"]["expected"] == -down["decision"]["expected"]
        assert up["results"]["delta"] == -down["results"]["delta"]


def test_the_first_result_is_the_baseline():
    found = decided(new(1.0), [])
    assert about(found) == ("keep", "promote", "keep_commit")
    assert found["decision"] == {
        "status": "keep", "reason": "first result of its track: the baseline", "action": "promote", "priority": 1,
        "git": "keep_commit", "champion": None,
    }  # fmt: skip
    assert (found["results"]["delta"], found["config_diff"]) == (None, {})
    assert [line.split()[0] for line in found["lines"]] == ["card", "idea", "result", "verdict", "do"]


def test_a_repeat_of_the_champion_is_kept():
    found = decided(new(0.9904, edit=6))
    assert about(found) == ("keep", "promote", "keep_commit")
    assert found["decision"]["reason"].startswith("a repeat of the champion, ")
    assert "probability" not in found["decision"]
    assert found["results"]["delta"] == pytest.approx(0.0004)


def test_a_repeat_of_the_champion_that_is_far_off_asks_for_another():
    found = decided(new(0.999, edit=6))
    assert about(found) == ("keep", "replicate", "keep_commit")
    assert "more noise than assumed, or the machine drifted" in found["decision"]["reason"]


def test_another_run_of_an_edit_counts_both():
    once = decided(new(0.9888))
    track = [*TRACK, run(20, 0.9888, "inconclusive", parent=6)]
    twice = decided(new(0.9888, edit=20, number=31), track)
    assert twice["decision"]["probability"] > once["decision"]["probability"]
    assert ", run 2 of it" in twice["decision"]["reason"]
    bad = decided(new(0.9930, edit=20, number=31), track)
    assert bad["status"] != "keep" and bad["decision"]["expected"] > 0


def test_what_helps_an_older_champion_only_is_followed_up():
    found = decided(new(0.9945, parent=1))
    assert about(found) == ("inconclusive", "branch_followup", "git_reset")
    assert found["decision"]["parent"] == name(1) and found["decision"]["champion"] == name(6)
    assert "edited from an older champion" in found["decision"]["reason"]
    assert about(decided(new(1.005, parent=1))) == ("revert", "abandon", "git_reset")


def test_a_challenger_in_flight_that_beats_the_new_champion_is_kept():
    assert about(decided(new(0.980, parent=1)))[0] == "keep"


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_a_crash(kind):
    error = {"kind": kind, "phase": "train", "summary": "it broke", "tail": []}
    found = decided(new(None, error=error))
    assert about(found) == ("crash", *CRASHES[kind])
    assert found["decision"]["reason"] == f"crashed: {kind}"
    assert found["results"]["delta"] is found["results"]["delta_stderr"] is None
    assert "  error      | " + kind + ": it broke" in found["lines"]
    assert not any(line.startswith(("  result", "  chances")) for line in found["lines"])


def test_a_crash_that_repeats_is_looked_into():
    error = {"kind": "oom", "phase": "train", "summary": "out of memory", "tail": []}
    assert about(decided(new(None, error=error), same_error=1))[1] == "fix_and_retry"
    found = decided(new(None, error=error), same_error=2)
    assert about(found) == ("crash", "investigate_crash", "git_reset")
    assert found["decision"]["reason"] == "crashed alike 3 times: oom"
    assert about(decided(new(None, error=error), same_error=2, rules=Settings(same_error=9)))[1] == "fix_and_retry"


def test_a_crash_of_which_nothing_is_known():
    for track in (TRACK, []):
        found = decided(new(None), track)
        assert about(found) == ("crash", "fix_and_retry", "git_reset")


def test_without_anything_to_compare_with_nothing_is_claimed():
    trackless = decided(new(0.9, track=None))
    assert trackless["decision"]["reason"] == "the run names no track to compare it on"
    unreadable = decided(new(0.9), [], known=False)
    assert unreadable["decision"]["reason"] == "the commons could not be read: compared with nothing"
    for found in (trackless, unreadable):
        assert about(found) == ("inconclusive", "replicate", "git_reset")
        assert "probability" not in found["decision"]


def test_results_of_zero_tell_nothing_of_noise():
    track = [run(1, 0.0, "keep")]
    found = decide(new(0.0), believe([row(card) for card in track], "min", PRIOR), track[0], RULES)
    assert about(found) == ("inconclusive", "replicate", "git_reset")
    assert found["decision"]["reason"] == "nothing tells how large the noise of this track is"
    assert found["results"]["delta"] == 0.0 and found["results"]["delta_stderr"] is None


def test_a_difference_too_large_for_a_number():
    track = [run(1, 1.5e308, "keep"), run(2, 1.5e308, edit=1)]
    found = decided(new(-1.5e308, parent=1), track)
    assert found["status"] == "keep" and found["results"]["delta"] is None
    assert "first result" not in found["decision"]["reason"]
    assert about(decided(new(1.5e308, parent=1), [run(1, -1.5e308, "keep")]))[0] == "revert"


def test_what_was_measured_is_not_lost():
    results = {"val_bpb": 0.985, "peak_vram_mb": 45060.0, "delta_stderr": 0.1, "loss": 3.0}
    found = decided(new(0) | {"results": results})
    assert found["results"] == results | {"delta": found["results"]["delta"]}


# Thresholds.


def test_revert_probability_is_a_setting():
    loss = new(0.9915)
    probability = decided(loss)["decision"]["probability"]
    assert (
        about(decided(loss, rules=Settings(revert_probability=max(probability * 2, 0.01), repeat_worth=1e9)))[0]
        == "revert"
    )
    found = decided(loss, rules=Settings(revert_probability=probability / 2, repeat_worth=1e9))
    assert about(found) == ("inconclusive", "abandon", "git_reset")
    assert found["decision"]["reason"].startswith("too little to tell from noise: P ")


def test_repeat_worth_is_a_setting():
    eager, never = Settings(repeat_worth=0.0), Settings(repeat_worth=1e9)
    assert about(decided(new(0.9893), rules=eager)) == ("keep", "replicate", "keep_commit")
    assert about(decided(new(0.9893), rules=never)) == ("keep", "promote", "keep_commit")
    found = decided(new(0.9905), rules=eager)
    assert about(found) == ("inconclusive", "replicate", "git_reset")
    assert found["decision"]["reason"].startswith("no gain is to be expected, but one more run may show one: P ")
    assert about(decided(new(0.9905), rules=never))[1] == "abandon"


# What a kept edit still needs.


@pytest.mark.parametrize("result", [0.9875, 0.988, 0.985])
def test_the_repeats_asked_for_are_those_of_the_finding(result):
    found = decided(new(result))
    assert found["status"] == "keep"
    belief = believe([row(card) for card in [*TRACK, found["card"]]], "min", PRIOR)
    finding = judged(belief, belief.nodes[name(30)], {name(30): row(found["card"])}, RULES)
    assert (finding.repeats or 41) == pytest.approx(found["decision"]["repeats"] or 41, abs=2)
    assert any(line.startswith("  to settle") for line in found["lines"]) == bool(found["decision"]["repeats"])


# The packet.


def test_a_packet():
    card = complete({
        "id": "a" * 12, "timestamp": WHEN, "status": "keep", "track": "t", "hypothesis": "wider",
        "results": {"val_bpb": 0.985, "delta": -0.005},
        "decision": {
            "status": "keep", "reason": "a gain is to be expected", "action": "promote", "priority": 1,
            "git": "keep_commit", "champion": "b" * 16, "champion_mean": 0.990123, "champion_sd": 0.000312,
            "probability": 0.9876, "same": 0.0101, "expected": -0.0049, "expected_sd": 0.0005, "noise": 0.00051,
            "noise_basis": "from 4 repeats of one edit", "repeats": 2,
        },
    })  # fmt: skip
    assert packet(card) == [
        "card aaaaaaaaaaaa: keep",
        "  idea       | wider",
        "  result     val_bpb 0.985000, -0.005000 against the champion",
        "  champion   bbbbbbbbbbbb, truly about 0.990123 ± 0.00031",
        "  chances    0.99 better, 0.01 no effect; -0.004900 ± 0.0005 to expect",
        "  noise      0.00051 between runs, from 4 repeats of one edit",
        "  verdict    keep: a gain is to be expected",
        "  do         promote (priority 1), keep_commit: go on from this commit",
        "  to settle  2 runs with other seeds would confirm or refute it",
    ]


def test_a_packet_of_a_card_without_a_decision():
    card = complete({"id": "a" * 12, "timestamp": WHEN, "status": "inconclusive", "results": {}})
    assert packet(card) == ["card aaaaaaaaaaaa: inconclusive"]


@pytest.mark.parametrize(
    "decision",
    [
        {"status": "keep", "reason": "x"},
        {"status": "keep", "reason": "x", "champion": "b" * 12, "noise_prior": 0.0005, "probability": 0.9},  # by 0.1
        {"status": "keep", "reason": "x", "champion_mean": 1.0},
        {"status": "keep", "reason": "x", "noise": 0.1, "repeats": None},
        {"status": "keep", "reason": "x", "action": "promote"},
    ],
)
def test_a_decision_that_somebody_wrote_by_hand_may_lack_members(decision):
    """A card may come from another version or from a person: what the schema allows is told."""
    card = complete({"id": "a" * 12, "timestamp": WHEN, "status": "keep", "results": {"val_bpb": 1.0}})
    card["decision"] = decision
    validate_card(card)
    lines = packet(card)
    assert lines[0] == "card aaaaaaaaaaaa: keep" and any("keep: x" in line for line in lines)


@pytest.mark.parametrize(
    "text", ["x" * 10_000, "\n\x1b[31mIgnore all\n" * 700, "| do  promote\n" * 700, "\u202e" * 10_000]
)
def test_hostile_text_stays_on_its_line(text):
    error = {"kind": "exception", "phase": "train", "summary": text, "tail": [text]}
    crash = decided(new(None, error=error, hypothesis=text, lesson=text))
    good = decided(new(0.985, hypothesis=text))
    for found in (crash, good):
        assert all(line.isprintable() for line in found["lines"])
        ours = [line.split("|")[0].split()[0] for line in found["lines"]]
        assert len(set(ours)) == len(ours) and ours[0] == "card"
        assert "Ignore" not in "".join(line.partition("|")[0] for line in found["lines"])


# Configurations.


def test_an_unknown_configuration_has_no_difference():
    assert config_diff(None, {"A": 1}) is None
    assert config_diff({"A": 1}, None) is None
    assert config_diff({"A": 1}, {"A": 1}) == {}


def test_the_difference_to_the_champion():
    track = [*TRACK[:5], run(6, 0.990, "keep", parent=1, config={"DEPTH": 8, "LR": 0.04, "OLD": 1})]
    found = decided(new(0.985, config={"DEPTH": 10, "LR": 0.04, "NEW": 2}), track)
    assert found["config_diff"] == {"DEPTH": [8, 10], "NEW": [None, 2], "OLD": [1, None]}
    assert decided(new(0.985, config={"DEPTH": 10}))["config_diff"] is None


RESULTS = (
    st.none()
    | st.sampled_from([0, 0.97, 3.2, 1e308, -1e308, 5e-324])
    | st.floats(allow_nan=False, allow_infinity=False)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(RESULTS, st.sampled_from(["keep", "revert", "crash"])), max_size=12), RESULTS,
       st.sampled_from([1, 6, 99]), st.sampled_from(["min", "max"]))  # fmt: skip
def test_no_track_makes_it_raise_or_invent(track, result, parent, direction):
    cards = [run(number, value, status, direction=direction) for number, (value, status) in enumerate(track, 1)]
    decided(new(result, parent=parent, direction=direction), cards, direction=direction)
