"""What has been found out: only runs that had no part in choosing an edit confirm or refute it."""

import random

import pytest

from lab.findings import MAX_REPEATS, judged, pooled, random_effects, repeats_needed
from lab.settings import Settings
from lab.tree import believe

PRIOR = 0.0005
RULES = Settings()


def row(number, result, status="revert", **values):
    """A row of the index: the run of this number, with its own seed, of an edit of its own."""
    row = {"id": f"{number:012x}", "timestamp": f"{number:08d}", "status": status, "quarantined": None}
    row |= {"result": result, "edit_key": f"edit {number}", "train_sha256": None, "commit_id": None, "metric": "bpb"}
    row |= {"parent_commit": None, "champion": None, "seed": number, "machine": None, "confirmed": 0}
    return row | {"hypothesis": f"idea {number}", "config_diff": None} | values


def card(number):
    """The id of the run of this number."""
    return f"{number:012x}"


BASELINE = [row(number, 1.0 + (number - 2) * 0.0003, "keep", edit_key="base") for number in range(4)]
NOISE = [row(100 * edit + run, 1.01 + edit * 0.003 + away, edit_key=f"noise {edit}", champion=card(0))
         for edit in range(1, 9) for run, away in enumerate((-0.0005, 0.0005, 0.0002, -0.0002))]  # fmt: skip


def found(result, again=(), status="keep", rows=(), rules=RULES, direction="min", **first):
    """The finding of an edit whose first run showed this; `again` are (result, values) of its other runs."""
    runs = [row(50, result, status, edit_key="it", champion=card(0), **first)]
    runs += [row(51 + place, value, edit_key="it", champion=card(0), **values)
             for place, (value, values) in enumerate(again)]  # fmt: skip
    everything = [*BASELINE, *NOISE, *runs, *rows]
    if direction == "max":
        everything = [one | {"result": -one["result"]} for one in everything]
    belief = believe(everything, direction, PRIOR)
    (node,) = (node for node in belief.nodes.values() if node.key == "it")
    ours = {one["id"]: one for one in everything if one["id"] in node.runs}
    return judged(belief, node, ours, rules)


GOOD = (0.995, {})  # ten times the noise better than the baseline


@pytest.mark.parametrize("direction", ["min", "max"])
def test_two_fresh_seeds_confirm(direction):
    none, one, two, three = (found(0.995, [GOOD] * count, direction=direction) for count in range(4))
    assert [one.standing for one in (none, one, two, three)] == ["likely", "likely", "confirmed", "confirmed"]
    assert [one.fresh for one in (none, one, two, three)] == [0, 1, 2, 3]
    assert two.probability > 0.99 and two.repeats == 0
    assert two.expected == pytest.approx(-0.005 if direction == "min" else 0.005, abs=0.001)
    assert (two.card, two.change, two.row["id"]) == (card(50), "idea 50", card(50))


def test_the_run_that_chose_it_never_counts():
    lucky, honest = (found(result, [(1.0, {}), (1.0, {})]) for result in (0.995, 0.9995))
    assert lucky.fresh == honest.fresh == 2 and lucky.standing == honest.standing == "refuted"
    assert (lucky.probability, lucky.expected) == pytest.approx((honest.probability, honest.expected), abs=0.1)


def test_enough_fresh_runs_decide_what_is_likely():
    """All runs together would say that it helps, by the luck of the first."""
    finding = found(0.98, [(0.9995, {})] * 2)
    assert finding.standing == "unclear" and 0.05 < finding.probability < 0.9


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({}, [{"seed": None}] * 4),  # a repeat that names no seed may share the first one's
        ({"seed": None}, [{}] * 4),
        ({}, [{"seed": 50}] * 4),  # the same seed again
        ({"seed": 0}, [{"seed": 0}] * 4),
    ],
)
def test_a_seed_that_is_not_new_is_no_evidence(first, again):
    finding = found(0.995, [(0.995, values) for values in again], **first)
    assert (finding.fresh, finding.standing) == (0, "likely")


def test_the_same_new_seed_twice_counts_once():
    assert found(0.995, [(0.995, {"seed": 7})] * 5).fresh == 1
    finding = found(0.995, [(0.995, {"seed": 0}), (0.9955, {"seed": 0}), (0.995, {"seed": 8})])
    assert (finding.fresh, finding.standing) == (2, "confirmed")


def test_retracted_and_suspect_repeats_do_not_count():
    assert found(0.995, [GOOD, (0.995, {"status": "retracted"}), (0.995, {"quarantined": "slow"})]).fresh == 1


def test_repeats_that_led_to_the_keep_are_not_fresh():
    """The first run was not enough to keep it, the second was: both chose it."""
    again = [(0.995, {"status": "keep"}), GOOD]
    assert found(0.997, again, status="inconclusive").fresh == 1
    finding = found(0.997, [*again, GOOD], status="inconclusive")
    assert (finding.fresh, finding.standing, finding.card) == (2, "confirmed", card(51))


def test_fresh_runs_may_refute():
    finding = found(0.990, [(1.01, {}), (1.01, {})])
    assert (finding.standing, finding.repeats) == ("refuted", 0)
    assert finding.probability <= RULES.refute_probability and finding.expected > 0
    assert found(0.990, [(1.01, {})]).standing != "refuted"  # not by one


def test_an_edit_that_was_not_kept_may_be_refuted_or_confirmed_too():
    assert found(1.01, [(1.01, {})] * 2, status="revert").standing == "refuted"
    assert found(1.0, [GOOD] * 3, status="revert").standing == "confirmed"


def test_somebody_may_stand_up_for_it():
    finding = found(1.0005, confirmed=1)
    assert (finding.standing, finding.fresh, finding.repeats) == ("confirmed", 0, 0)
    assert finding.probability < 0.9  # which is told all the same


def test_the_thresholds_are_settings():
    assert found(0.995, [GOOD], rules=Settings(confirm_repeats=1)).standing == "confirmed"
    assert found(0.995, [GOOD] * 2, rules=Settings(confirm_repeats=3)).standing == "likely"
    close = [(0.9996, {})] * 2
    assert found(0.9996, close).standing == "unclear"
    assert found(0.9996, close, rules=Settings(likely_probability=0.01)).standing == "likely"
    assert found(0.9996, close, rules=Settings(confirm_probability=0.01)).standing == "confirmed"
    assert found(0.9996, close, rules=Settings(refute_probability=0.999)).standing == "refuted"


def test_a_baseline_is_no_edit():
    belief = believe(BASELINE, "min", PRIOR)
    with pytest.raises(ValueError, match="is a baseline, no edit"):
        judged(belief, belief.nodes[card(0)], {one["id"]: one for one in BASELINE}, RULES)


def test_fresh_runs_of_another_machine_weigh_less_where_machines_differ():
    chance = random.Random(1)
    pairs = [row(900 + 2 * edit + run, 1.1 + edit / 100 + run * chance.gauss(0, 0.01), edit_key=f"pair {edit}",
                 machine=machine) for edit in range(6) for run, machine in enumerate(("here", "there"))]  # fmt: skip
    here, there = (
        found(0.997, [(0.997, {"machine": name})] * 2, machine="here", rows=pairs) for name in ("here", "there")
    )
    assert here.fresh == there.fresh == 2
    assert here.probability > there.probability


# Repeats that would settle it.


@pytest.mark.parametrize("gained", [0.0015, 0.002, 0.004])
def test_so_many_repeats_settle_an_effect_of_that_size(gained):
    """As many fresh runs as were asked for, all as good as expected: sure, and far fewer would not do."""
    finding = found(1.0 - gained)
    assert finding.standing != "confirmed" and finding.repeats is not None
    as_expected = (1.0 + finding.expected, {})
    assert found(1.0 - gained, [as_expected] * finding.repeats).probability > 0.97
    if finding.repeats > 4:
        assert found(1.0 - gained, [as_expected] * (finding.repeats // 4)).probability < 0.99


def test_every_fresh_run_leaves_one_less_to_go_and_never_none():
    counts = [found(0.9985, [(0.9985, {})] * count).repeats for count in range(3)]
    assert counts == sorted(counts, reverse=True) and counts[-1] >= 0


def test_what_lies_between_a_clear_gain_and_nothing_needs_most():
    belief = believe(BASELINE + NOISE, "min", PRIOR)
    mother = belief.nodes[card(0)].variance
    needed = [repeats_needed(belief, mother, -share * belief.noise.sd, RULES) for share in (20, 5, 3, 2.5, 2, 0, -20)]
    assert (needed[0], needed[-2], needed[-1]) == (2, 2, 2)
    between = [MAX_REPEATS + 1 if count is None else count for count in needed[1:-2]]
    assert max(between) > 5 and min(between) >= 2
    assert (
        repeats_needed(belief, 1e6, -5 * belief.noise.sd, RULES) is None
    )  # of what it was made from too little is known


# Over several tracks.


def test_random_effects_by_hand():
    """Weights 10, 5, 10, mean -0.8, Q 14, scale 16, so 0.75 between tracks; then weights 1/0.85, 1/0.95, 1/0.85."""
    assert random_effects([-1.0, -2.0, 0.0], [0.1, 0.2, 0.1]) == pytest.approx((-0.963636, 0.541881), rel=1e-5)


def test_random_effects_that_agree_are_pooled_by_precision():
    assert random_effects([-1.0, -1.0], [0.5, 0.25]) == pytest.approx((-1.0, (1 / 6) ** 0.5))
    assert random_effects([-3.0], [4.0]) == (-3.0, 2.0)


def track(result, fresh=0, direction="min", name="wider", **values):
    """A belief and its one finding: a change that showed this against a baseline of 1.0."""
    sign = 1 if direction == "min" else -1
    runs = [row(50, result, "keep", edit_key="it", champion=card(0), hypothesis=name, **values)]
    runs += [row(51 + place, result, edit_key="it", champion=card(0), **values) for place in range(fresh)]
    everything = [one | {"result": sign * one["result"]} for one in [*BASELINE, *NOISE, *runs]]
    belief = believe(everything, direction, PRIOR)
    ours = {one["id"]: one for one in everything if one["id"] in belief.nodes[card(50)].runs}
    return belief, judged(belief, belief.nodes[card(50)], ours, RULES)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_a_change_is_pooled_over_tracks(direction):
    (one,) = pooled([
        ("a/H100", *track(0.995, 2, direction)), ("b/H100", *track(0.996, 2, direction, "Wider")),
        ("a/cpu", *track(0.99, 0, direction)), ("a/M4", *track(1.002, 0, direction)),
        ("a/cpu", *track(0.9, 0, direction, "only once")),
    ])  # fmt: skip
    assert (one.change, one.holds, one.tried, one.tracks) == ("wider", 2, 3, 4)
    assert 0.5 < one.probability < 1 and one.sd > 0.001  # they disagree
    assert (one.effect < 0) == (direction == "min") and abs(one.effect) == pytest.approx(0.005, abs=0.003)


def test_the_surest_comes_first():
    agreed = [(name, *track(0.995, 2, name="agreed")) for name in ("a/x", "a/y")]
    vague = [(name, *track(0.9999, 0, name="vague")) for name in ("a/x", "a/y")]
    assert [one.change for one in pooled(vague + agreed)] == ["agreed", "vague"]


def test_pooled_counts_tracks():
    twice = [("a/x", *track(0.995)), ("a/x", *track(0.996)), ("a/y", *track(0.995))]
    assert [(one.tracks, one.tried) for one in pooled(twice)] == [(2, 2)]


def test_other_metrics_are_not_pooled():
    assert pooled([("a/x", *track(0.995)), ("a/y", *track(0.995, direction="max"))]) == []
    assert pooled([("a/x", *track(0.995)), ("a/y", *track(0.995, metric="loss"))]) == []


def test_changes_without_a_name_are_not_pooled():
    assert pooled([(name, *track(0.995, name=None)) for name in ("a/x", "a/y")]) == []
