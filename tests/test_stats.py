"""How much of a difference is noise: simulations tell what is right, and no numbers make the arithmetic raise."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.stats import Noise, better, noise, noise_prior, posterior, saturated


def row(result, delta=None, edit_key=None, preset="gpu", status="keep"):
    """A row of the index."""
    return {"result": result, "delta": delta, "edit_key": edit_key, "preset": preset, "status": status}


def test_without_results_the_noise_is_unknown():
    assert noise([]) == noise([row(None)]) == Noise(None, "no results yet")


@pytest.mark.parametrize(("preset", "share"), [("gpu", 0.0005), ("small", 0.005), ("mine", 0.005), (None, 0.005)])
def test_without_repeats_the_prior_stands_in(preset, share):
    assert noise_prior(preset) == share
    assert noise([row(2.0, preset=preset), row(None), row(4.0)]) == Noise(share * 3.0, "assumed; no repeats yet")


def test_the_prior_of_a_negative_metric_is_positive():
    assert noise([row(-2.0)]).sd == 0.001


def test_three_repeats_are_too_few_and_four_are_enough():
    rows = [row(value, edit_key="a") for value in (1.0, 1.2, 1.1, 1.3)]
    assert noise(rows[:3]).basis == "assumed; no repeats yet"
    found = noise(rows)
    assert found.basis == "from 4 repeats of 1 edits"
    assert found.sd == pytest.approx(statistics.stdev([1.0, 1.2, 1.1, 1.3]))


def test_repeats_of_several_edits_are_pooled_whatever_their_means():
    chance = random.Random(1)
    rows = [row(mean + chance.gauss(0, 0.002), edit_key=str(mean)) for mean in (0.9, 1.0, 1.1) for _ in range(100)]
    found = noise([*rows, row(5.0, edit_key="alone"), row(7.0)])
    assert found.basis == "from 300 repeats of 3 edits"
    assert found.sd == pytest.approx(0.002, rel=0.1)


def test_equal_repeats_have_no_noise():
    assert noise([row(0.1, edit_key="a")] * 5).sd == pytest.approx(0, abs=1e-15)


def test_a_quiet_track_shows_that_the_prior_is_too_wide():
    chance = random.Random(1)
    deltas = [chance.gauss(0, 0.0001) - chance.gauss(0, 0.0001) for _ in range(400)]
    found = noise([row(1.0, delta) for delta in deltas])
    assert found.basis == "at most, from the scatter of 400 differences; no repeats yet"
    assert found.sd == pytest.approx(0.0001, rel=0.2)
    assert noise([row(1.0, delta) for delta in deltas[:19]]).basis == "assumed; no repeats yet"
    assert noise([row(1.0, 1000 * delta) for delta in deltas]).basis == "assumed; no repeats yet"


@pytest.mark.parametrize(
    ("delta", "direction", "sd", "runs", "expected"),
    [
        (0.0, "min", 0.001, 1, 0.5),
        (-0.001 * math.sqrt(2), "min", 0.001, 1, 0.8413447),
        (-0.001 * math.sqrt(2), "max", 0.001, 1, 0.1586553),
        (0.001 * math.sqrt(2), "max", 0.001, 1, 0.8413447),
        (-0.001 * math.sqrt(1.25), "min", 0.001, 4, 0.8413447),
        (-1e-9, "min", 0.0, 1, 1.0),
        (1e-9, "min", 0.0, 1, 0.0),
        (0.0, "max", 0.0, 1, 0.5),
    ],
)
def test_better(delta, direction, sd, runs, expected):
    assert better(delta, direction, sd, runs) == pytest.approx(expected)


def test_better_is_right_as_often_as_it_says():
    """Truth drawn evenly, two noisy runs: of the pairs called better with about 0.8, about 0.8 are."""
    chance, called = random.Random(2), []
    for _ in range(100_000):
        gain = chance.uniform(-10, 10)
        probability = better(-(gain + chance.gauss(0, 1) - chance.gauss(0, 1)), "min", 1.0)
        if 0.75 < probability < 0.85:
            called.append(gain > 0)
    assert len(called) > 1000 and statistics.fmean(called) == pytest.approx(0.8, abs=0.05)


def test_posterior_of_nothing():
    assert posterior([], 0.001) == []
    ((mean, sd),) = posterior([row(None, status="crash")], 0.001)
    assert math.isnan(mean) and sd == math.inf
    assert posterior([row(None, status="crash"), row(1.0)], 0.001)[1] == (1.0, 0.001)


def test_posterior_narrows_with_every_repeat():
    band = posterior([row(1.0), *[row(1.0, 0.0, status="inconclusive")] * 10], 0.001)
    assert [mean for mean, _ in band] == [1.0] * 11
    widths = [sd for _, sd in band]
    assert widths[0] == 0.001 and widths == sorted(widths, reverse=True) and len(set(widths)) == 11


def test_a_broken_run_and_a_crash_say_nothing_about_the_champion():
    usual = [row(1.0), *[row(1.001, 0.001, status="revert")] * 5]
    band = posterior([*usual, row(9.0, 8.0, status="revert"), row(None, status="crash")], 0.001)
    assert band[5] == band[6] == band[7] != band[0]


def test_posterior_claims_less_than_the_smallest_number_ever_seen():
    """Greedy hill climbing: a kept result is lucky. What is claimed beyond the truth, over 200 climbs of 60 runs."""
    chance, naive, tracked, covered = random.Random(3), [], [], []
    for _ in range(200):
        truth = best = 1.0
        rows = [row(best + chance.gauss(0, 0.002))]
        best = rows[0]["result"]
        for _ in range(60):
            true = truth + chance.gauss(0, 0.002)
            seen = true + chance.gauss(0, 0.002)
            kept = seen < best
            rows.append(row(seen, seen - best, status="keep" if kept else "revert"))
            if kept:
                truth, best = true, seen
        mean, sd = posterior(rows, 0.002)[-1]
        naive.append(truth - best)
        tracked.append(truth - mean)
        covered.append(abs(truth - mean) < 2 * sd)
    assert abs(statistics.fmean(tracked)) < 0.5 * statistics.fmean(naive)
    assert statistics.fmean(covered) > 0.6


@pytest.mark.parametrize(
    ("count", "kept", "expected"), [(4, 0, False), (5, 0, True), (5, 1, True), (5, 2, False), (99, 1, True)]
)
def test_saturated(count, kept, expected):
    assert saturated({"count": count, "kept": kept}) is expected


FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.none() | st.sampled_from([0, 0.0, 1, -1.0, 1e308, -1e308, 5e-324]) | FINITE
ROWS = st.lists(
    st.builds(row, NUMBERS, NUMBERS, st.sampled_from([None, "a", "b"]), st.sampled_from([None, "gpu"]),
              st.sampled_from(["keep", "revert", "crash"])),
    max_size=30,
)  # fmt: skip
ROWS_ALIKE = st.builds(lambda one, count: [one] * count, st.builds(row, NUMBERS, NUMBERS, st.just("a")),
                       st.integers(0, 30))  # fmt: skip
SD = st.sampled_from([0.0, 1e-300, 0.001, 1e308]) | st.floats(0, 1e308)


@given(ROWS | ROWS_ALIKE, SD)
def test_no_numbers_make_it_raise(rows, sd):
    found = noise(rows)
    assert found.sd is None or found.sd >= 0
    assert len(posterior(rows, sd)) == len(rows)
    for one in rows:
        if one["delta"] is not None:
            assert 0 <= better(one["delta"], "min", sd) <= 1
