"""The posterior of a track, against exact solutions where there are any, against simulated nights, and hostile runs."""

import itertools
import json
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.belief import as_json, from_json
from lab.effects import Effect
from lab.stats import Noise, repeats
from lab.tree import MIN_STEPS, Tree, believe

PRIOR = 0.0005


def row(number, result, status="revert", **values):
    """A row of the index: the run of this number, of an edit of its own, as a commit of its own."""
    row = {"id": f"{number:012x}", "timestamp": f"{number:08d}", "status": status, "quarantined": None}
    row |= {"result": result, "edit_key": f"edit {number}", "train_sha256": None, "commit_id": None}
    row |= {"parent_commit": None, "champion": None, "seed": number, "machine": None}
    return row | values


def card(number):
    """The id of the run of this number."""
    return f"{number:012x}"


def climb(chance, runs, sigma=0.001, **values):
    """A track: ideas of the size of the noise around the best kept so far, two runs of some; greedy."""
    best = truth = 1.0
    champion, rows = None, []
    for number in range(runs):
        true = truth + chance.choice([0.0, 0.0, -0.003, 0.002, 0.004]) * (number > 0)
        result = true + chance.gauss(0, sigma)
        kept = number == 0 or result < best
        rows.append(row(number, result, "keep" if kept else "revert", champion=champion, **values))
        if number % 7 == 3:
            rows.append(row(1000 + number, true + chance.gauss(0, sigma), edit_key=f"edit {number}", champion=champion))
        if kept:
            best, truth, champion = result, true, card(number)
    return rows


# Against exact solutions.


def tree_of(parents, looks, effects, variance=1.0):
    """The tree where node n was edited from parents[n] and its runs showed looks[n], in units of the model."""
    rows, number = [], itertools.count(1)
    first = {}
    for node, (parent, values) in enumerate(zip(parents, looks, strict=True)):
        for value in values:
            this = next(number)
            first.setdefault(node, this)
            rows.append(row(this, value, edit_key=f"node {node}", champion=card(first[parent]) if node else None))
    tree = Tree(rows, repeats(rows), 0.0, 1.0, "min")
    assert tree.parent == [-1, *parents[1:]]
    tree.effects, tree.variance = effects, variance
    tree._reset()
    tree._spread()
    tree._spread()
    return tree.nodes()


def dense(parents, looks, steps, variance, without=None):
    """(means, covariance, log of the density) of all configurations, by solving for them at once.

    `steps` has (mean, variance) of every step; the step to node `without` is left out.
    """
    size = len(parents)
    precision, lean, logs = np.zeros((size, size)), np.zeros(size), 0.0
    for node, values in enumerate(looks):
        precision[node, node] += len(values) / variance
        lean[node] += sum(values) / variance
    for node in range(1, size):
        if node != without:
            mean, spread = steps[node]
            ends = np.zeros(size)
            ends[[node, parents[node]]] = 1, -1
            precision += np.outer(ends, ends) / spread
            lean += ends * mean / spread
            logs -= (mean**2 / spread + math.log(spread)) / 2
    covariance = np.linalg.inv(precision)
    logs += (lean @ covariance @ lean + np.linalg.slogdet(covariance)[1]) / 2
    return covariance @ lean, covariance, logs


def some_tree(seed, size):
    """(parents, looks) of a random tree."""
    chance = random.Random(seed)
    parents = [-1] + [chance.randrange(node) for node in range(1, size)]
    return parents, [[chance.gauss(0, 3) for _ in range(chance.randint(1, 3))] for _ in range(size)]


@pytest.mark.parametrize("seed", range(5))
def test_with_normal_effects_it_is_the_exact_solution(seed):
    parents, looks = some_tree(seed, 25)
    nodes = tree_of(parents, looks, [Effect(1.0, 0.7, 4.0)], 1.5)
    means, covariance, _ = dense(parents, looks, [(0.7, 4.0)] * 25, 1.5)
    assert [node.mean for node in nodes] == pytest.approx(means, rel=1e-6, abs=1e-6)
    assert [node.variance for node in nodes] == pytest.approx(np.diag(covariance), rel=1e-6)
    for number in range(1, 25):  # what is known of both ends without the step between them
        means, covariance, _ = dense(parents, looks, [(0.7, 4.0)] * 25, 1.5, without=number)
        for end, known in ((number, nodes[number].alone), (parents[number], nodes[number].from_parent)):
            assert known == pytest.approx((means[end], covariance[end, end]), rel=1e-6, abs=1e-6)


EFFECTS = [Effect(0.4, 0.0, 1e-8), Effect(0.2, -2.0, 1.0), Effect(0.4, 3.0, 4.0)]


@pytest.mark.parametrize("seed", range(6))
def test_with_a_mixture_it_is_close_to_what_trying_all_combinations_gives(seed):
    parents, looks = some_tree(100 + seed, 6)
    parts = []
    for choice in itertools.product(EFFECTS, repeat=5):
        steps = [(0.0, 1.0)] + [(effect.mean, effect.variance) for effect in choice]
        means, covariance, logs = dense(parents, looks, steps, 1.0)
        parts.append((logs + sum(math.log(effect.weight) for effect in choice), means, np.diag(covariance)))
    top = max(logs for logs, _, _ in parts)
    weights = np.array([math.exp(logs - top) for logs, _, _ in parts])
    weights /= weights.sum()
    mean = sum(weight * means for weight, (_, means, _) in zip(weights, parts, strict=True))
    spread = sum(w * (variance + (means - mean) ** 2) for w, (_, means, variance) in zip(weights, parts, strict=True))
    nodes = tree_of(parents, looks, EFFECTS)
    for node, exact, variance in zip(nodes, mean, spread, strict=True):
        assert abs(node.mean - exact) < 0.25 * math.sqrt(variance)
        assert node.variance == pytest.approx(variance, rel=0.4)


def test_the_chances_of_a_first_edit_are_exact():
    belief = believe([row(1, 1.0, "keep")], "min", PRIOR)
    parts = []
    for result in (0.9985, 0.9999, 1.0005):
        verdict = belief.verdict(result, belief.champion)
        seen, spread = belief.inside(result), 2 * belief.variance  # two runs, each with the noise
        weights, means, better = [], [], []
        for weight, mean, variance in belief.effects:
            trust = variance / (variance + spread)
            weights.append(
                weight * math.exp(-((seen - mean) ** 2) / 2 / (variance + spread)) / math.sqrt(variance + spread)
            )
            means.append(mean + trust * (seen - mean))
            better.append(math.erfc(means[-1] / math.sqrt(2 * trust * spread)) / 2 if variance else 0.0)
        parts = np.array(weights) / sum(weights)
        assert verdict.better == pytest.approx(parts @ better, rel=1e-6)
        assert verdict.same == pytest.approx(parts[0], rel=1e-6)
        assert verdict.expected == pytest.approx(parts @ means * belief.unit, rel=1e-6)


# What does not matter.


def test_the_order_of_the_rows_does_not_matter():
    rows = climb(random.Random(1), 60)
    belief = believe(rows, "min", PRIOR)
    for seed in range(3):
        assert believe(random.Random(seed).sample(rows, len(rows)), "min", PRIOR) == belief


@pytest.mark.parametrize(
    "gone", [{"status": "retracted"}, {"quarantined": "slow"}, {"result": None, "status": "crash"}]
)
def test_what_takes_no_part_leaves_no_trace(gone):
    rows = climb(random.Random(2), 50)
    out = set(random.Random(3).sample(range(len(rows)), 10))
    marked = [one | gone if place in out else one for place, one in enumerate(rows)]
    never = [one for place, one in enumerate(rows) if place not in out]
    assert believe(marked, "min", PRIOR) == believe(never, "min", PRIOR)


def test_more_is_better_is_the_mirror_image():
    rows = climb(random.Random(4), 40)
    least = believe(rows, "min", PRIOR)
    most = believe([one | {"result": -one["result"]} for one in rows], "max", PRIOR)
    assert (most.nodes, most.champion, most.noise, most.effects) == (
        least.nodes, least.champion, least.noise, least.effects,
    )  # fmt: skip
    assert most.centre == -least.centre
    best, sd = least.value(least.champion)
    assert most.value(most.champion) == (-best, sd)
    up, down = most.verdict(-0.99, most.champion), least.verdict(0.99, least.champion)
    assert up == down._replace(expected=-down.expected)
    runs = [one["id"] for one in rows]
    assert [(-mean, sd) for mean, sd in most.path(runs)] == least.path(runs)


def test_the_scale_of_the_metric_does_not_matter():
    rows = climb(random.Random(5), 40)
    small = believe(rows, "min", PRIOR)
    large = believe([one | {"result": one["result"] * 1000} for one in rows], "min", PRIOR)
    assert large.champion == small.champion
    assert large.noise.sd == pytest.approx(1000 * small.noise.sd)
    assert large.value(large.champion) == pytest.approx([1000 * one for one in small.value(small.champion)])
    one, other = small.verdict(0.985, small.champion), large.verdict(985, large.champion)
    assert other == pytest.approx(one._replace(expected=1000 * one.expected, sd=1000 * one.sd))


def test_it_survives_json():
    rows = [*climb(random.Random(6), 40, machine="m"), row(5000, 3.0, parent_commit="abc", commit_id="def0123456")]
    belief = believe(rows, "min", PRIOR, [(-0.01, 0.001), (0.002, 0.001)])
    again = from_json(json.loads(json.dumps(as_json(belief))))
    assert again == belief
    assert again.verdict(0.99, again.champion) == belief.verdict(0.99, belief.champion)


# The champion.


def test_the_champion_is_not_the_luckiest():
    """One run of another edit shows a little more than five runs of the first do."""
    steady = [row(number, result, "keep" if number == 4 else "revert", edit_key="steady", champion=card(1))
              for number, result in enumerate([0.9976, 0.9992, 0.9984, 0.9980, 0.9988], 2)]  # fmt: skip
    belief = believe([row(1, 1.0, "keep"), *steady, row(7, 0.9983, "keep", champion=card(1))], "min", PRIOR)
    assert belief.champion == card(4)  # of its runs the first that was kept stands for it
    assert belief.nodes[card(4)].runs == tuple(map(card, range(2, 7)))
    assert 0.9983 < belief.value(card(4))[0] < belief.value(card(7))[0] < 1.0


def test_a_run_that_was_not_kept_is_no_champion_however_good():
    belief = believe([row(1, 1.0, "keep"), row(2, 0.9), row(3, 0.8, "inconclusive")], "min", PRIOR)
    assert belief.champion == card(1)
    assert believe([row(1, 1.0)], "min", PRIOR).champion is None
    assert believe([row(1, 1.0)], "min", PRIOR).verdict(0.9, None) is None


def test_repeats_of_the_champion_narrow_it():
    rows = [row(1, 1.0, "keep"), row(2, 0.99, "keep", champion=card(1))]
    widths = []
    for number in range(3, 9):
        rows.append(row(number, 0.99 + 0.0004 * (-1) ** number, edit_key="edit 2"))
        belief = believe(rows, "min", PRIOR)
        assert belief.champion == card(2) and belief.verdict(None, None, belief.nodes[card(2)]) is None
        widths.append(belief.nodes[card(2)].variance / belief.variance)
    assert widths == sorted(widths, reverse=True) and widths[-1] < 0.6 * widths[0]


def test_failed_edits_of_the_champion_say_that_it_was_lucky():
    rows = [row(1, 1.0, "keep"), row(2, 0.9985, "keep", champion=card(1))]
    before, _ = believe(rows, "min", PRIOR).value(card(2))
    # Six edits that are all worse than it looked, as good as what it came from.
    rows += [row(number, 1.0 + number / 1e5, champion=card(2)) for number in range(3, 9)]
    after, _ = believe(rows, "min", PRIOR).value(card(2))
    assert 0.9985 < before < after < 1.0


def test_broken_runs_do_not_move_the_champion():
    rows = climb(random.Random(7), 40)
    belief = believe(rows, "min", PRIOR)
    broken = [row(2000 + number, 3.2 + number / 10, champion=belief.champion) for number in range(3)]
    after = believe(rows + broken, "min", PRIOR)
    assert after.champion == belief.champion
    mean, sd = belief.value(belief.champion)
    assert after.value(belief.champion) == pytest.approx((mean, sd), abs=0.3 * sd)
    assert after.noise.sd == pytest.approx(belief.noise.sd, rel=0.3)


def test_the_path_of_the_champion():
    rows = [row(1, 1.01), row(2, 1.0, "keep"), row(3, 1.02), row(4, 0.99, "keep", champion=card(2)), row(5, 0.995)]
    belief = believe(rows, "min", PRIOR)
    path = belief.path([one["id"] for one in rows] + ["f" * 12])
    assert all(map(math.isnan, path[0]))
    assert path[1:] == [belief.value(card(2))] * 2 + [belief.value(card(4))] * 3


# What a run was edited from.

FAMILY = [
    row(1, 1.0, "keep", commit_id="a" * 40),
    row(2, 0.99, "keep", commit_id="b" * 40, parent_commit="a" * 40, champion=card(1)),
    row(3, 0.995, commit_id="c" * 40, parent_commit="aaaaaaa", champion=card(2)),  # began when 1 was the champion
    row(4, 0.994, commit_id="b" * 40, parent_commit="a" * 40),  # an edit of b that was not committed
    row(5, 0.996, commit_id="d" * 40, parent_commit="f" * 40, champion=card(1)),  # whose parent nobody ran
    row(6, 0.997),
]  # fmt: skip


def test_the_parents():
    belief = believe(FAMILY, "min", PRIOR)
    parents = {number: belief.nodes[card(number)].parent for number in range(1, 7)}
    assert parents == {1: None, 2: card(1), 3: card(1), 4: card(2), 5: card(1), 6: card(2)}
    assert belief.commits == {"a" * 7: card(1), "b" * 7: card(2), "c" * 7: card(3), "d" * 7: card(5)}


@pytest.mark.parametrize(
    ("values", "known", "parent"),
    [
        ({"edit_key": "edit 3"}, 3, 1),
        ({"edit_key": "new", "commit_id": "c" * 40, "parent_commit": "a" * 40}, None, 3),
        ({"edit_key": None, "commit_id": "c" * 40, "parent_commit": "a" * 40}, None, 1),
        ({"edit_key": "new", "commit_id": "e" * 40, "parent_commit": "dddddddd"}, None, 5),
        ({"edit_key": "new", "commit_id": "e" * 40, "parent_commit": "e" * 40}, None, 2),
        ({"edit_key": "new"}, None, 2),
    ],
)
def test_where_a_new_run_belongs(values, known, parent):
    belief = believe(FAMILY, "min", PRIOR)
    node, mother = belief.place(row(9, None) | values)
    assert (node and node.card, mother) == (known and card(known), card(parent))


def test_a_challenger_from_an_older_champion_is_measured_against_that_one():
    belief = believe(FAMILY, "min", PRIOR)
    # 0.9895: ten times the noise better than the first, as good as the second.
    sibling, child = belief.verdict(0.9895, card(1)), belief.verdict(0.9895, card(2))
    assert child.same > 0.1 and sibling.same == 0.0  # only an edit of the champion can have done nothing to it
    assert sibling.better == pytest.approx(0.7, abs=0.25)
    worse = belief.verdict(0.995, card(1))
    assert worse.better < 0.01 and worse.expected == pytest.approx(0.005, abs=0.001)
    assert belief.step(card(3)).better > 0.99  # it did help what it was made from
    assert belief.step(card(1)) is None


@pytest.mark.parametrize(
    "commits",
    [
        {1: ("aaaaaaa", "aaaaaaa"), 2: ("bbbbbbb", "bbbbbbb"), 3: ("ccccccc", "ccccccc")},
        {1: ("aaaaaaa", "ccccccc"), 2: ("bbbbbbb", "aaaaaaa"), 3: ("ccccccc", "bbbbbbb")},
        {1: ("aaaaaaa", "bbbbbbb"), 2: ("aaaaaaa", "aaaaaaa"), 3: ("aaaaaaa", "aaaaaaa")},
        {1: (None, "0000000"), 2: ("", ""), 3: ("x", None)},
    ],
)
def test_parents_that_lead_nowhere_or_in_a_circle(commits):
    rows = [row(number, 1.0 - number / 100, "keep", commit_id=commit, parent_commit=parent, champion=card(number))
            for number, (commit, parent) in commits.items()]  # fmt: skip
    belief = believe(rows, "min", PRIOR)
    assert belief.champion == card(3) and belief.nodes[card(1)].parent is None
    for node in belief.nodes.values():
        assert node.parent is None or node.parent < node.card


# Noise.


def test_what_the_noise_rests_on():
    assert believe([row(1, 2.0)], "min", PRIOR).noise == Noise(2.0 * PRIOR, "assumed; no repeats yet")
    assert believe([row(1, -2.0), row(2, -2.0, edit_key="x")], "max", PRIOR).noise.sd > 0
    again = [row(number, 1.0 + number / 1000, edit_key="a") for number in range(4)]
    assert believe(again, "min", PRIOR).noise.basis == "from 4 repeats of one edit"
    track = [row(number, 1.0 + number / 1000, "keep" if number == 9 else "revert") for number in range(9, 50)]
    assert believe(track, "min", PRIOR).noise.basis == "from the scatter of 41 runs; no repeats yet"
    assert believe(track + again, "min", PRIOR).noise.basis == "from 4 repeats of one edit and the scatter of 45 runs"
    assert believe(track[:MIN_STEPS], "min", PRIOR).noise.basis == "assumed; no repeats yet"


@pytest.mark.parametrize("sigma", [0.0002, 0.002])
def test_the_noise_is_learnt_from_repeats(sigma):
    chance = random.Random(9)
    rows = [row(4 * edit + run, 1.0 + 0.002 * edit + chance.gauss(0, sigma), edit_key=f"e{edit}", seed=run)
            for edit in range(15) for run in range(4)]  # fmt: skip
    assert believe(rows, "min", PRIOR).noise.sd == pytest.approx(sigma, rel=0.3)


@pytest.mark.parametrize("sigma", [0.0002, 0.002])
def test_the_noise_is_learnt_from_scatter_within_a_factor(sigma):
    chance = random.Random(10)
    rows = [row(0, 1.0, "keep")]
    for number in range(1, 150):
        effect = 0.0 if chance.random() < 0.35 else chance.expovariate(1 / 0.003)
        rows.append(row(number, 1.0 + effect + chance.gauss(0, sigma), champion=card(0)))
    assert 1 / 2 < believe(rows, "min", PRIOR).noise.sd / sigma < 2


def test_repeats_of_one_seed_are_one_look():
    first = row(1, 1.0, "keep", seed=1)
    once = believe([first], "min", PRIOR).nodes[card(1)]
    alike = believe([first, row(2, 1.0, edit_key="edit 1", seed=1)], "min", PRIOR).nodes[card(1)]
    other = believe([first, row(2, 1.0, edit_key="edit 1", seed=2)], "min", PRIOR).nodes[card(1)]
    unknown = believe([first, row(2, 1.0, edit_key="edit 1", seed=None)], "min", PRIOR).nodes[card(1)]
    assert alike.variance == once.variance
    assert other.variance == unknown.variance < 0.6 * once.variance


def test_another_machine_is_trusted_less_when_machines_differ():
    chance = random.Random(11)
    rows = []
    for edit in range(6):
        for run in range(4):
            machine = "main" if run < 3 else "other"
            away = 0.0 if run < 3 else chance.gauss(0, 0.02)
            rows.append(
                row(10 * edit + run, 1.0 + away + chance.gauss(0, 0.0005), edit_key=f"e{edit}", machine=machine)
            )
    here, there = (
        believe([*rows, row(99, 1.0, machine=name)], "min", PRIOR).nodes[card(99)] for name in ("main", "other")
    )
    assert there.alone[1] > 100 * here.alone[1]


def test_what_edits_did_elsewhere_tells_what_to_expect_here():
    rows = [row(1, 1.0, "keep")]
    gains = believe(rows, "min", PRIOR, [(-0.002, 0.0007)] * 60).verdict(0.9985, card(1))
    nothing = believe(rows, "min", PRIOR, [(0.0, 0.0007)] * 60).verdict(0.9985, card(1))
    assert gains.better > nothing.better + 0.1 and gains.expected < nothing.expected < 0


def test_noise_on_other_tracks_is_not_taken_for_effects():
    chance = random.Random(3)
    rows = [row(1, 1.0, "keep")] + [row(n, 1.0 + chance.gauss(0.001, 0.001), champion=card(1)) for n in range(2, 30)]
    alone = believe(rows, "min", PRIOR).verdict(0.9995, card(1))
    nulls = [(chance.gauss(0, 0.007), 0.007) for _ in range(300)]  # ten times as noisy, and nothing there
    assert believe(rows, "min", PRIOR, nulls).verdict(0.9995, card(1)).better < alone.better + 0.1


# Verdicts.


def test_the_same_seed_again_is_no_second_look():
    rows = [row(1, 1.0, "keep", seed=42, machine="m"), row(2, 0.9995, champion=card(1), seed=42, machine="m")]
    belief = believe(rows, "min", PRIOR)
    node = belief.nodes[card(2)]
    once = belief.verdict(None, card(1), node)
    again = belief.verdict(0.999, card(1), node, {"seed": 42, "machine": "m"})
    fresh = belief.verdict(0.999, card(1), node, {"seed": 43, "machine": "m"})
    assert again == once and fresh.better > once.better


def test_verdicts_follow_the_result():
    belief = believe(climb(random.Random(12), 40), "min", PRIOR)
    best, _ = belief.value(belief.champion)
    verdicts = [belief.verdict(best + step * belief.noise.sd, belief.champion) for step in range(-12, 13)]
    expected = [verdict.expected for verdict in verdicts]
    assert expected == sorted(expected) and expected[0] < 0 < expected[-1]
    better = [verdict.better for verdict in verdicts]
    assert better == sorted(better, reverse=True) and better[0] > 0.99 and better[-1] < 0.01
    assert all(0 <= verdict.better + verdict.same <= 1 + 1e-9 for verdict in verdicts)
    pays = [verdict.repeat_pays for verdict in verdicts]  # most where it is open, nothing where it is clear
    assert 0 < max(range(25), key=pays.__getitem__) < 24 and pays[-1] < 0.05 > pays[0]


def test_more_looks_make_a_step_surer():
    belief = believe([row(1, 1.0, "keep"), row(2, 0.9985, "keep", champion=card(1))], "min", PRIOR)
    one, four = (belief.step(card(2), [(0.9985, 1.0)] * count) for count in (1, 4))
    assert belief.step(card(2)) == pytest.approx(one)
    assert four.better > one.better and four.sd < one.sd
    assert belief.step(card(2), [(0.9985, 2.0)] * 8) == pytest.approx(four)  # twice the variance, half as much
    assert belief.step(card(2), [(1.0085, 1.0)]).better < 0.1


# Calibration: a simulation where the truth is known.

SIGMA = 0.001


def idea(chance):
    """Fifteen of a hundred help, 35 do nothing, half of them hurt."""
    place = chance.random()
    if place < 0.15:
        return -chance.expovariate(1 / 0.0015)
    return 0.0 if place < 0.5 else chance.expovariate(1 / 0.002)


def night(seed):
    """One night: the rows, the true value of every edit, and the belief at its end."""
    chance, true, rows = random.Random(seed), {0: 1.0}, []
    rows += [row(number, chance.gauss(1.0, SIGMA), "keep", edit_key="edit 0") for number in range(3)]
    belief = believe(rows, "min", SIGMA)
    for number in range(3, 40):
        champion = belief.champion
        true[number] = true[3 if champion == card(3) else int(champion, 16)] + idea(chance)
        result = chance.gauss(true[number], SIGMA)
        kept = belief.verdict(result, champion).expected < 0
        rows.append(row(number, result, "keep" if kept else "revert", champion=champion))
        if kept or number % 10 == 0:
            belief = believe(rows, "min", SIGMA)
    return chance, rows, true, believe(rows, "min", SIGMA)


@pytest.mark.slow
def test_stated_probabilities_are_observed_frequencies_and_claims_are_no_boasts():
    stated, claimed, lucky = [], [], []
    for seed in range(60):
        chance, rows, true, belief = night(seed)
        best = int(belief.champion, 16)
        claimed.append(belief.value(belief.champion)[0] - true[best])
        kept = min((one for one in rows if one["status"] == "keep"), key=lambda one: one["result"])
        lucky.append(kept["result"] - true.get(int(kept["id"], 16), 1.0))
        for _ in range(25):
            effect = idea(chance)
            verdict = belief.verdict(chance.gauss(true[best] + effect, SIGMA), belief.champion)
            stated.append((verdict.better, effect < 0))
    for low, high in ((0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.8), (0.8, 1.01)):
        cases = [(better, helped) for better, helped in stated if low <= better < high]
        assert len(cases) > 20
        said, happened = (statistics.fmean(column) for column in zip(*cases, strict=True))
        assert happened == pytest.approx(said, abs=0.05 + 2 * math.sqrt(said * (1 - said) / len(cases))), (low, high)
    assert abs(statistics.fmean(claimed)) < 0.3 * SIGMA < -statistics.fmean(lucky)


# Hostile runs.


@pytest.mark.parametrize(
    "results",
    [[0.0], [0, 0, 0], [None, None], []],
)
def test_nothing_tells_the_scale(results):
    assert believe([row(number, result, "keep") for number, result in enumerate(results)], "min", PRIOR) is None


@pytest.mark.parametrize(
    "results",
    [[1.0], [1.0, None, None], [1.0] * 30, [-3.0, -3.1, -2.9], [0.0, 1.0, 0.0], [1e308] * 3, [1e308, -1e308, 0.0],
     [1e-290, 2e-290], [1.0, 1e308], [1.0, 1e-308, 1e308], [3.2, 0.97, 3.2, 0.97]],
)  # fmt: skip
@pytest.mark.parametrize("direction", ["min", "max"])
def test_sensible_answers_to_odd_results(results, direction):
    rows = [row(number, result, "keep") for number, result in enumerate(results)]
    check(believe(rows, direction, PRIOR), rows)


def check(belief, rows):
    """Finite answers, or None."""
    if belief is None:
        return
    numbers = [belief.noise.sd, belief.unit, belief.centre, belief.variance]
    for node in belief.nodes.values():
        numbers += [*belief.value(node.card), node.mean, node.variance, *node.alone, *(node.from_parent or ())]
        for verdict in (belief.verdict(None, node.parent, node), belief.step(node.card)):
            if verdict:
                assert -1e-9 <= verdict.better <= 1 + 1e-9 and -1e-9 <= verdict.same <= 1 + 1e-9
                numbers += verdict
    for one in rows:
        verdict = belief.verdict(one["result"], belief.champion) if one["result"] is not None else None
        numbers += verdict or ()
    assert all(map(math.isfinite, numbers)) and all(node.variance > 0 for node in belief.nodes.values())
    assert belief.noise.sd > 0
    assert from_json(json.loads(json.dumps(as_json(belief), allow_nan=False))) == belief


RESULTS = (
    st.none()
    | st.sampled_from([0, 1, 0.97, 0.971, 0.972, 3.2, -1.0, 1e308, -1e308, 1e-308, 5e-324])
    | st.floats(allow_nan=False, allow_infinity=False)
)
COMMITS = st.sampled_from([None, "", "aaaaaaa", "bbbbbbbbbb", "ccccccc"])
HOSTILE = st.fixed_dictionaries({
    "result": RESULTS, "status": st.sampled_from(["keep", "revert", "crash", "retracted"]),
    "edit_key": st.sampled_from([None, "a", "b", "c"]), "train_sha256": st.sampled_from([None, "x"]),
    "commit_id": COMMITS, "parent_commit": COMMITS, "seed": st.sampled_from([None, 1, 2]),
    "machine": st.sampled_from([None, "m", "n"]), "champion": st.sampled_from([None, *map(card, range(6))]),
    "timestamp": st.sampled_from(["1", "2", "3"]), "quarantined": st.sampled_from([None, None, "slow"]),
})  # fmt: skip


ELSEWHERE = st.lists(st.tuples(st.floats(-1e308, 1e308), st.floats(0, 1e308)), max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.lists(HOSTILE, max_size=30), st.sampled_from(["min", "max"]), ELSEWHERE)
def test_no_runs_make_it_raise_or_answer_without_a_number(hostile, direction, elsewhere):
    rows = [row(number, None) | values for number, values in enumerate(hostile)]
    check(believe(rows, direction, PRIOR, elsewhere), rows)
