"""What an audit says of ledgers whose truth is known, and of the ones that say nothing."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.audit import audit
from lab.cli_audit import audit_file
from lab.confirming import ENOUGH, MAX_RUNS, plan
from lab.scatter import chi_square, of_late_runs, of_repeats, weigh, with_repeats

HEADER = "commit\tval_bpb\tstatus\tdescription\n"


def ledger(tmp_path, lines, header=HEADER):
    file = tmp_path / "results.tsv"
    file.write_text(header + "".join("\t".join(map(str, line)) + "\n" for line in lines))
    return file


def rows(*runs):
    """Rows as `with_repeats` takes them, of (result, status, description)."""
    return [
        {
            "id": f"{at:09d}", "timestamp": f"{at:09d}", "status": status, "quarantined": None, "result": result,
            "edit_key": None, "train_sha256": None, "commit_id": None, "parent_commit": None, "champion": None,
            "seed": None, "machine": None, "hypothesis": words,
        }
        for at, (result, status, words) in enumerate(runs)
    ]  # fmt: skip


def night(seed, sd, count=126, repeats=0):
    """A greedy night: (lines of a ledger, true values). A third of the ideas do nothing, the others help or hurt."""
    chance = random.Random(seed)
    true, best, lines, values = 1.0, 1.0 + chance.gauss(0, sd), [], []
    lines.append(("a0", best, "keep", "baseline"))
    values.append(true)
    for at in range(1, count):
        again = at <= repeats
        effect = 0.0 if again or chance.random() < 0.35 else chance.choice([-0.001, 0.002]) * chance.expovariate(1)
        value = true + effect + chance.gauss(0, sd)
        kept = value < best and not again
        lines.append((f"a{at}", value, "keep" if kept else "discard", f"seed {at}" if again else f"idea {'x' * at}"))
        values.append(true + effect)
        if kept:
            true, best = true + effect, value
    return lines, values


def pairs_of(*runs):
    return [(pair.first, pair.again) for pair in with_repeats(rows(*runs))[1]]


@pytest.mark.parametrize(
    "words",
    [
        "random seed 42 to 137",
        "rerun champion",
        "re-run best (noise check)",
        "no-op",
        "repeat",
        "same config, new seed",
    ],
)
def test_words_that_say_repeat_make_a_repeat_of_the_champion(words):
    runs = [(1.0, "keep", "baseline"), (0.9, "keep", "depth 8 to 9"), (0.91, "discard", words)]
    assert pairs_of(*runs) == [(1, 2)]


def test_a_baseline_run_again_repeats_the_first():
    assert pairs_of((1.0, "keep", "start"), (0.9, "keep", "depth 9"), (1.01, "discard", "baseline again")) == [(0, 2)]


@pytest.mark.parametrize("words", ["SwiGLU with seed 137", "try SwiGLU again", "repeat kv heads 2 times", "", "(seed)"])
def test_other_words_make_none(words):
    assert pairs_of((1.0, "keep", "baseline"), (0.9, "keep", "depth 9"), (0.91, "discard", words)) == []


@pytest.mark.parametrize(
    ("first", "second", "repeat"),
    [
        ("warmdown 0.5 to 0.7", "warmdown 0.5 to 0.7", True),
        ("embedding LR 0.6 to 0.8", "raise embedding learning rate 0.6 to 0.8", True),
        ("warmdown 0.5 to 0.7", "warmdown 0.7 to 0.5", False),
        ("warmdown 0.5 to 0.7", "warmdown 0.5 to 0.8", False),
        ("warmdown 0.5 to 0.7", "warmup 0.5 to 0.7", False),
        ("tune the learning rate", "tune the learning rate", False),  # neither says to what
    ],
)
def test_an_idea_and_a_value_tried_twice_on_one_champion_is_a_repeat(first, second, repeat):
    runs = [(1.0, "keep", "baseline"), (1.1, "discard", first), (1.2, "discard", second)]
    assert pairs_of(*runs) == ([(1, 2)] if repeat else [])
    runs[2:2] = [(0.9, "keep", "depth 9")]  # on another champion it is another configuration
    assert pairs_of(*runs) == []


@pytest.mark.parametrize(
    ("share", "freedom", "quantile"),
    [(0.025, 1, 0.000982), (0.975, 1, 5.0239), (0.025, 2, 0.050636), (0.975, 5, 12.8325), (0.025, 10, 3.2470),
     (0.5, 30, 29.3360), (0.975, 100, 129.5612), (0.025, 1000, 914.2572)],
)  # fmt: skip
def test_chi_square_is_that_of_the_tables(share, freedom, quantile):
    assert chi_square(share, freedom) == pytest.approx(quantile, rel=5e-4)


def test_repeats_have_the_interval_of_chi_square():
    seen, _ = with_repeats(rows((1.0, "keep", "baseline"), (1.002, "discard", "seed 2"), (1.004, "discard", "seed 3")))
    look = of_repeats(seen)
    assert look.sd == pytest.approx(0.002)
    assert (look.low, look.high) == pytest.approx(
        (0.002 * math.sqrt(2 / 7.3778), 0.002 * math.sqrt(2 / 0.050636)), rel=1e-3
    )
    assert look.behind == 2


@pytest.mark.parametrize("sd", [0.0002, 0.002])
def test_late_runs_bound_the_noise_from_above(sd):
    for seed in range(10):
        lines, _ = night(seed, sd)
        seen, _ = with_repeats(rows(*[(value, status, words) for _, value, status, words in lines]))
        assert of_late_runs(seen).high > 0.8 * sd


def test_the_noise_stays_within_what_repeats_and_scatter_allow():
    for seed in range(5):
        lines, _ = night(seed, 0.001, repeats=8)
        seen, _ = with_repeats(rows(*[(value, status, words) for _, value, status, words in lines]))
        _, noise = weigh(seen, "min")
        assert noise.low <= noise.sd <= noise.high <= noise.late.high
        assert noise.repeats.behind == 8


@pytest.mark.slow
def test_the_total_is_more_honest_than_the_claim(tmp_path):
    claimed = believed = inside = 0.0
    for seed in range(16):
        lines, true = night(seed, 0.002)
        total = audit_file(ledger(tmp_path, lines), sigma=0.002)["total"]
        truth = true[total["to"] - 2] - true[0]
        claimed += abs(total["claimed"] - truth)
        believed += abs(total["expected"] - truth)
        inside += total["low"] <= truth <= total["high"]
    assert believed < 0.7 * claimed
    assert inside >= 13


def test_keeps_stand_as_their_probability_says(tmp_path):
    lines, _ = night(3, 0.0005)
    found = audit_file(ledger(tmp_path, lines))
    for keep in found["keeps"]:
        limits = {"supported": (0.9, 1), "doubtful": (0.5, 0.9), "noise": (0, 0.5)}[keep["standing"]]
        assert limits[0] <= keep["probability"] <= limits[1]
    luckiest = max(found["keeps"], key=lambda keep: keep["luck"])
    assert found["luckiest"] == luckiest["line"]
    assert found["standings"] == {
        name: sum(keep["standing"] == name for keep in found["keeps"]) for name in ("supported", "doubtful", "noise")
    }
    assert sum(keep["claimed"] for keep in found["keeps"]) == pytest.approx(found["total"]["claimed"])


def test_less_noise_supports_more(tmp_path):
    file = ledger(tmp_path, night(3, 0.0005)[0])
    supported = [audit_file(file, sigma=sd)["standings"]["supported"] for sd in (0.0001, 0.0005, 0.005)]
    assert supported[0] > supported[1] > supported[2]


def test_a_larger_value_is_better_where_it_is_said(tmp_path):
    lines, _ = night(3, 0.0005)
    mirrored = [(commit, 2 - value, status, words) for commit, value, status, words in lines]
    found = audit_file(ledger(tmp_path, lines))
    other = audit_file(ledger(tmp_path, mirrored, HEADER.replace("val_bpb", "accuracy")))
    assert other["direction"] == "max"
    assert other["standings"] == found["standings"]
    assert other["total"]["expected"] == pytest.approx(-found["total"]["expected"], rel=1e-6)


def test_repeats_are_planned_cheapest_first_and_only_where_they_settle(tmp_path):
    lines, _ = night(5, 0.0005)
    seen, _ = with_repeats(rows(*[(value, status, words) for _, value, status, words in lines]))
    belief, _ = weigh(seen, "min", 0.0005)
    chances = {card: belief.step(card).better for card, node in belief.nodes.items() if node.kept and node.parent}
    steps, rest = plan(belief, chances)
    assert steps and rest
    assert all(step.cost <= MAX_RUNS and step.chance >= ENOUGH for step in steps)
    unsettled = {card for card, chance in chances.items() if 0.05 < chance < 0.99}
    assert {step.card for step in steps} | set(rest) == unsettled
    assert 0 < steps[0].cost == min(step.cost for step in steps if step.repeats)


def test_planned_repeats_settle_as_often_as_they_promise(tmp_path):
    """The runs are drawn from what is believed, made, and judged anew."""
    seen = rows((1.0, "keep", "baseline"), (0.9978, "keep", "an idea"))
    seen, _ = with_repeats(seen)
    belief, _ = weigh(seen, "min", 0.0005)
    (card,) = [card for card, node in belief.nodes.items() if node.parent]
    (step,), _ = plan(belief, {card: belief.step(card).better})
    chance, settled = random.Random(1), 0
    verdict = belief.step(card)
    for _ in range(100):
        effect = chance.gauss(verdict.expected, verdict.sd)
        middle = chance.gauss(0.99925, 0.0005 / math.sqrt(2))
        again = []
        for name, count in step.repeats.items():
            true = middle + (effect / 2 if name == card else -effect / 2)
            again += [(seen[int(name)], true + chance.gauss(0, 0.0005)) for _ in range(count)]
        more = [
            row | {"result": value, "id": f"{at:09d}", "timestamp": f"{at:09d}", "status": "revert"}
            for at, (row, value) in enumerate(again, 10)
        ]
        after, _ = weigh([*seen, *more], "min", 0.0005)
        better = after.step(card).better
        settled += better >= 0.99 or better <= 0.05
    assert settled / 100 >= ENOUGH - 0.2


def test_repeated_ideas_are_told_with_what_came_out(tmp_path):
    lines = [("a", 1.0, "keep", "baseline"), ("b", 1.1, "discard", "warmdown 0.5 to 0.7"),
             ("c", 0.9, "keep", "depth 8 to 9"), ("d", 0.95, "discard", "set warmdown 0.5 -> 0.7")]  # fmt: skip
    (group,) = audit_file(ledger(tmp_path, lines))["repeated"]
    assert [(row["line"], row["delta"]) for row in group] == [(3, 0.1), (5, 0.05)]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([("a", 1.0, "keep", "x")], "there is one result"),
        ([(f"a{at}", 1.0, "keep", f"idea {at}") for at in range(50)], "all 50 results are equal"),
        ([(f"a{at}", 1 - at / 100, "keep", f"idea {at}") for at in range(9)],
         "nothing repeats, and 5 late runs are too few or too equal"),
        ([("a", 1.0, "keep", "x"), ("b", 1.1, "discard", "new seed")],
         "1 repeat (3 would do), and 1 late runs are too few or too equal"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_null(tmp_path, lines, why):
    found = audit_file(ledger(tmp_path, lines))
    assert found["noise"]["sd"] is None
    assert found["noise"]["basis"] == why
    assert found["total"]["expected"] is None
    assert found["standings"] == {} or not found["keeps"]
    assert found["plan"] is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, -1.0, 1e308, -1e308, 5e-324, 1.0, 1.001, 0.999, 0.5]) | st.floats(-2, 2),
            st.sampled_from(["keep", "discard", "crash"]),
            st.sampled_from(["baseline", "new seed", "lr 0.1 to 0.2", "", "no-op"]),
        ),
        max_size=60,
    ),
    st.sampled_from([None, 1e-300, 0.001, 1e300]),
    st.sampled_from(["min", "max"]),
)
def test_no_number_breaks_an_audit(tmp_path_factory, lines, sigma, direction):
    file = ledger(tmp_path_factory.mktemp("audit"), [(f"a{at}", *line) for at, line in enumerate(lines)])
    found = audit_file(file, "val_bpb", direction, sigma)

    def walk(value):
        if isinstance(value, float):
            assert math.isfinite(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
            walk(inner)

    walk(found)


def test_an_audit_of_nothing():
    found = audit([], "val_bpb", "min")
    assert (found["compared"], found["total"], found["keeps"], found["plan"]) == (0, None, [], None)
