"""The ledger of repeats, against REML and simulations, and the small arithmetic that everything else rests on."""

import itertools
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from lab.stats import (
    MAX_PAIRED,
    MIN_PAIRS,
    Repeats,
    below_zero,
    configuration,
    counts,
    gain,
    magnitude,
    median,
    noise_prior,
    repeats,
    saturated,
    unchosen,
)

NUMBER = itertools.count()


def row(result, edit_key="a", seed=None, machine=None, status="revert", quarantined=None, **values):
    """A row of the index."""
    row = {"id": f"{next(NUMBER):012x}", "result": result, "edit_key": edit_key, "seed": seed, "machine": machine}
    row |= {"status": status, "quarantined": quarantined, "train_sha256": None, "commit_id": None}
    return row | values


def simulated(chance, groups, terms):
    """Runs with these terms of noise; `groups` has, for every configuration, (runs of a seed, ...) by machine."""
    same, seeds, machines = terms
    rows, seed = [], itertools.count()
    for number, group in enumerate(groups):
        true = chance.gauss(1.0, 0.1)
        for machine, runs_of_seeds in enumerate(group):
            there = true + chance.gauss(0, machines)
            for runs in runs_of_seeds:
                value, name = there + chance.gauss(0, seeds), next(seed)
                rows += [row(value + chance.gauss(0, same), f"e{number}", name, f"m{machine}") for _ in range(runs)]
    return rows


# The ledger.


def test_without_repeats_nothing_is_known():
    unknown = Repeats(0, 0, (0, 0, 0), None, None, None, ())
    assert repeats([]) == repeats([row(None), row(1.0, "a"), row(2.0, "b")]) == unknown
    assert unknown.seed_share == 1.0


def test_one_term_is_the_pooled_variance():
    groups = [[1.0, 1.2, 1.1, 1.3], [5.0, 5.1, 5.3, 4.8], [-2.0, -2.2, -1.9, -2.4]]
    found = repeats(row(value, str(number), seed) for number, group in enumerate(groups)
                    for seed, value in enumerate(group))  # fmt: skip
    assert found == (12, 3, (0, 18, 0), None, found.between_seeds, None, ())
    assert found.between_seeds**2 == pytest.approx(statistics.fmean(map(statistics.variance, groups)))


def restricted_likelihood(logs, rows):
    """Minus the restricted log likelihood of (same seed, seeds, machines) variances, with a mean per configuration."""
    same, seeds, machines = np.exp(logs)
    total = 0.0
    for _, group in itertools.groupby(rows, key=lambda row: row["edit_key"]):
        members = list(group)
        values = np.array([row["result"] for row in members])
        alike = {name: np.array([[one[name] == other[name] for one in members] for other in members])
                 for name in ("seed", "machine")}  # fmt: skip
        covariance = same * np.eye(len(members)) + seeds * alike["seed"] + machines * alike["machine"]
        inverse, ones = np.linalg.inv(covariance), np.ones(len(members))
        mean = ones @ inverse @ values / (ones @ inverse @ ones)
        residual = values - mean
        total += np.linalg.slogdet(covariance)[1] + np.log(ones @ inverse @ ones) + residual @ inverse @ residual
    return total / 2


def test_the_terms_are_those_of_reml_where_all_configurations_have_as_many_runs():
    rows = simulated(random.Random(4), [[[2, 2, 2], [2, 2, 2], [2, 2, 2]]] * 4, (0.001, 0.002, 0.003))
    found = repeats(rows)
    assert found[:3] == (72, 4, (36, 144, 432))
    start = np.log([2e-6, 2e-6, 2e-6])
    fitted = minimize(restricted_likelihood, start, (rows,), "Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    assert found[3:6] == pytest.approx(np.exp(fitted.x / 2), rel=1e-3)


def test_the_terms_are_right_on_average_however_unbalanced_the_runs_are():
    chance, truth, found = random.Random(5), (0.001, 0.002, 0.003), []
    for _ in range(150):
        groups = [
            [[chance.randint(1, 3) for _ in range(chance.randint(1, 3))] for _ in range(chance.randint(1, 3))]
            for _ in range(40)
        ]
        found.append([term**2 for term in repeats(simulated(chance, groups, truth))[3:6]])
    assert [statistics.fmean(terms) for terms in zip(*found, strict=True)] == pytest.approx(
        [term**2 for term in truth], rel=0.06
    )


def test_runs_without_seed_or_machine_are_taken_to_have_seeds_of_their_own_on_one_machine():
    assert repeats([row(1.0), row(1.0, seed=1), row(1.2), row(1.1, seed=2)]).pairs == (0, 6, 0)
    assert repeats([row(1.0, seed=1), row(1.0, seed=1), row(1.2, seed=1, machine="a")]).pairs == (1, 0, 2)


def test_a_term_that_would_be_negative_is_zero():
    seeds = [row(value, "a", seed) for seed in (1, 2, 3) for value in (0.9, 1.1)]
    found = repeats(seeds)
    assert found.same_seed == pytest.approx(math.sqrt(0.02)) and found.between_seeds == 0.0
    assert found.seed_share == 0.0


def test_repeats_of_a_seed_are_one_look_until_pairs_tell():
    alike = [row(1.0 + seed / 10, "a", seed) for seed in range(MIN_PAIRS) for _ in range(2)]
    assert repeats(alike[:-2]).seed_share == 1.0  # a pair too few
    assert repeats(alike).seed_share == 1.0  # enough, and they say that all comes from the seed
    mixed = repeats(simulated(random.Random(6), [[[2] * 60]], (0.001, 0.002, 0.0)))
    assert mixed.seed_share == pytest.approx(0.8, abs=0.1)


def test_the_run_that_was_kept_because_it_looked_lucky_is_left_out():
    """Of twenty tries of no effect the best is kept and run three times more: all of its runs would show too much."""
    chance, rows, lucky = random.Random(7), [], []
    for edit in range(300):
        best = min(chance.gauss(1.0, 0.001) for _ in range(20))
        again = [row(chance.gauss(1.0, 0.001), f"e{edit}", seed) for seed in (1, 2, 3)]
        rows += [row(best, f"e{edit}", 0, status="keep"), *again]
        lucky += [row(best, f"e{edit}", 0), *again]
    assert repeats(rows).between_seeds == pytest.approx(0.001, rel=0.05)
    assert repeats(lucky).between_seeds > 0.0012
    # Of two runs both are needed, and of the kept ones only the first was chosen.
    pair = [row(1.0, status="keep", seed=1), row(1.2, status="keep", seed=2)]
    assert repeats(pair).pairs == (0, 1, 0)
    assert [one["seed"] for one in unchosen([row(1.1, seed=0), *pair, row(1.3, seed=3)])] == [0, 2, 3]


def test_what_takes_no_part():
    kept = [row(1.0, seed=1), row(1.2, seed=2)]
    out = [row(9.0, status="retracted"), row(9.0, quarantined="slow"), row(None, status="crash")]
    assert repeats(kept + out) == repeats(kept)
    assert [counts(one) for one in kept + out] == [True, True, False, False, False]


def test_a_large_group_is_paired_with_its_newest_and_does_not_drown_the_others():
    large = [row(seed % 2, "large", seed) for seed in range(400)]
    small = [row(value, str(group), value) for group in range(9) for value in (0, 10)]
    found = repeats(large + small)
    assert (found.runs, found.configurations) == (418, 10)
    assert found.pairs[1] == math.comb(MAX_PAIRED, 2) + 9
    # A group of n runs weighs n - 1: 49 for the large one, though it has 1,225 of 1,234 pairs.
    variance = statistics.variance(row["result"] for row in large[-MAX_PAIRED:])
    assert found.between_seeds**2 == pytest.approx((49 * variance + 9 * 50) / 58)


def test_the_main_machine_has_most_runs():
    machines = ["b", "a", None, "b", "a", "b", "0", None, None, None]
    found = repeats([row(1.0, str(place), machine=name) for place, name in enumerate(machines)])
    assert (found.machines, found.main_machine) == (("b", "a", "0"), "b")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"edit_key": "e", "train_sha256": "s", "commit_id": "c", "seed": 1}, "e"),
        ({"edit_key": None, "train_sha256": "s", "commit_id": "c", "seed": 1}, "s"),
        ({"edit_key": None, "commit_id": "c", "seed": 0}, "c"),
        ({"edit_key": None, "commit_id": "c"}, "me"),
        ({"edit_key": None, "seed": 1}, "me"),
    ],
)
def test_what_was_run(values, expected):
    assert configuration(row(1.0, id="me", **values)) == expected


HOSTILE = st.sampled_from([0, 0.0, 1, -1.0, 1e308, -1e308, 1e-308, 5e-324, 1e200, -1e160]) | st.floats(
    allow_nan=False, allow_infinity=False
)
ROWS = st.lists(
    st.builds(row, HOSTILE, st.sampled_from(["a", "b", None]), st.sampled_from([None, 1, 2]),
              st.sampled_from([None, "m", "n"])),
    max_size=12,
)  # fmt: skip


@given(ROWS)
def test_no_numbers_make_the_ledger_raise(rows):
    found = repeats(rows)
    assert 0 <= found.seed_share <= 1
    for term in found[3:6]:
        assert term is None or 0 <= term < math.inf


# The small arithmetic.


@pytest.mark.parametrize(
    ("preset", "device", "metric", "share"),
    [("gpu", "cuda", "val_bpb", 0.0005), ("small", "cpu", "val_bpb", 0.005), ("mine", "cuda", "val_bpb", 0.001),
     (None, "cuda", "val_bpb", 0.0005), (None, "mps", "val_bpb", 0.001), (None, "cuda", "speedup", 0.005),
     (None, None, "speedup", 0.005)],
)  # fmt: skip
def test_the_prior_of_the_noise(preset, device, metric, share):
    assert noise_prior(preset, device, metric) == share


@pytest.mark.parametrize(
    ("mean", "sd", "expected"),
    [(0, 1, 0.5), (-1, 1, 0.8413447), (1, 1, 0.1586553), (-2e-9, 1e-9, 0.9772499), (-1, 0, 1), (1, 0, 0), (0, 0, 0.5),
     (-1e308, 1e-308, 1), (1e308, 5e-324, 0)],
)  # fmt: skip
def test_below_zero(mean, sd, expected):
    assert below_zero(mean, sd) == pytest.approx(expected)


def test_gain():
    assert (gain(-0.5, "min"), gain(-0.5, "max")) == (0.5, -0.5)


@pytest.mark.parametrize(
    ("count", "kept", "expected"), [(4, 0, False), (5, 0, True), (5, 1, True), (5, 2, False), (99, 1, True)]
)
def test_saturated(count, kept, expected):
    assert saturated({"count": count, "kept": kept}) is expected


@given(st.lists(st.floats(-1e300, 1e300), min_size=1))
def test_median(values):
    assert median(values) == pytest.approx(statistics.median(values))


def test_the_median_of_huge_values():
    assert median([1.5e308, 1.7e308]) == 1.6e308


@pytest.mark.parametrize(
    ("values", "expected"), [([], 0.0), ([0.0, 0.0], 0.0), ([-3.0, -1.0, 5.0], 1.0), ([0.0, 0.0, 0.0, -2.0, 4.0], 3.0)]
)
def test_how_far_from_zero_values_are(values, expected):
    assert magnitude(values) == expected
