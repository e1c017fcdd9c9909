"""The value that a number should get next: the posterior against a solver, the values it may have, their worth."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.response import FACTORS, NATURAL, Scale, Step, fitted, gain_of_a_look, moves

TYPICAL, NOISE = 0.001, 1e-7
SIZES = {0.0: 0.3, 0.0005: 0.3, TYPICAL: 0.3, 0.004: 0.1}


def best(steps, scale):
    """The value that the steps make the most promising."""
    return moves(fitted(steps, SIZES), scale, scale.values(), NOISE)[0]


@pytest.mark.parametrize(
    ("name", "value", "values"),
    [
        ("MATRIX_LR", 0.04, [0.02, 0.027, 0.032, 0.036, 0.044, 0.05, 0.06, 0.08]),
        ("TOTAL_BATCH_SIZE", 2**19, [2**18, 2**20]),  # a power of two stays one
        ("TOTAL_BATCH_SIZE", 3 * 2**16, [2**17, 2**18, 6 * 2**16]),  # still so many micro-batches
        ("DEPTH", 8, [4, 5, 6, 7, 9, 10, 12, 16]),
        ("MUON_STEPS", 2, [1, 3, 4]),  # by one at least
        ("ROPE_BASE", 10000, [5000, 6700, 8000, 9000, 11000, 12000, 15000, 20000]),
        ("WARMDOWN_RATIO", 0.75, [0.38, 0.5, 0.6, 0.68, 0.83, 0.94]),  # not beyond 1
        ("WARMDOWN_RATIO", 1, []),
        ("EMBEDDING_LR", 0.75, [0.38, 0.5, 0.6, 0.68, 0.83, 0.94, 1.1, 1.5]),
        ("MUON_MOMENTUM", 0.95, [0.9, 0.925, 0.937, 0.944, 0.955, 0.96, 0.967, 0.975]),  # the rest to 1 is turned
        ("WARMUP_RATIO", 0.0, [0.02, 0.05]),
        ("BIGRAM_BUCKETS", 0, []),  # how many it should be nobody can tell from nothing
        ("X", -0.5, [-1.0, -0.75, -0.62, -0.55, -0.45, -0.4, -0.34, -0.25]),
    ],
)
def test_the_values_to_choose_from(name, value, values):
    found = Scale(name, value).values()
    assert found == pytest.approx(values)
    assert all(type(one) is type(value) for one in found)


@given(
    st.one_of(st.integers(-(2**40), 2**40), st.floats(-1e30, 1e30)),
    st.sampled_from(["X", "WARMDOWN_RATIO", "ADAM_BETA"]),
    st.floats(0.01, 100),
)
def test_values_are_sound_for_any_constant(value, name, factor):
    scale = Scale(name, value)
    for one in scale.values((*FACTORS, factor)):
        assert one != value and type(one) is type(value) and math.isfinite(one)
        if value:
            assert (one > 0) == (value > 0)
            assert math.isfinite(scale.place(one))
        if 0 < value <= 1 and name != "X":
            assert one <= 1


def test_the_posterior_is_that_of_a_linear_regression():
    import numpy as np

    steps = [Step(0.0, 0.3, 0.0012, 2e-7), Step(-0.5, 0.0, -0.0004, 1e-7), Step(0.0, -0.2, 0.0001, 2e-7)]
    y = np.array([step.effect for step in steps])
    noise = np.diag([step.variance + (0.25 * 0.0005) ** 2 + (0.5 * step.effect) ** 2 for step in steps])
    responses, evidence = fitted(steps, SIZES), []
    parts = [(0.0, 1.0, 0.3), *((size, scale, SIZES[size] / 5) for size in list(SIZES)[1:] for scale in NATURAL)]
    for response, (size, scale, share) in zip(responses, parts, strict=True):
        x = np.array([[step.new**2 - step.old**2, step.new - step.old] for step in steps]) / [scale**2, scale]
        mean, prior = np.array([size, 0.0]), np.diag([(0.2 * size) ** 2, size**2])
        total, away = x @ prior @ x.T + noise, y - x @ mean
        after = mean + prior @ x.T @ np.linalg.solve(total, away)
        spread = prior - prior @ x.T @ np.linalg.solve(total, x @ prior)
        assert [response.a, response.b] == pytest.approx(after, rel=1e-6)
        assert [response.var_a, response.cov, response.var_b] == pytest.approx(spread[[0, 0, 1], [0, 1, 1]], rel=1e-6)
        log = -0.5 * (away @ np.linalg.solve(total, away) + np.linalg.slogdet(total)[1])
        evidence.append(log + math.log(share))
    weights = np.exp(np.array(evidence) - max(evidence))
    assert [response.weight for response in responses] == pytest.approx(weights / weights.sum(), rel=1e-6)


def test_a_step_that_helped_is_followed_further_the_same_way():
    scale = Scale("LR", 0.05)
    steps = [Step(scale.place(0.04), scale.place(0.05), -0.002, NOISE)]
    up, down = (moves(fitted(steps, SIZES), scale, [value], NOISE)[0] for value in (0.06, 0.04))
    assert up.better > 0.25 > down.better and up.gain > 3 * down.gain
    assert best(steps, scale).value > 0.05


def test_a_small_step_that_hurt_much_does_not_recommend_the_other_way():
    scale = Scale("MUON_MOMENTUM", 0.95)
    hurt = best([Step(0.0, scale.place(0.944), 0.004, NOISE)], scale)
    assert hurt.better < 0.6


def test_a_number_between_two_values_that_hurt_is_left_alone():
    scale = Scale("LR", 0.04)
    steps = [Step(0.0, scale.place(0.03), 0.002, NOISE), Step(0.0, scale.place(0.05), 0.002, NOISE)]
    assert best(steps, scale).gain < 0.3 * best([], scale).gain


def test_a_value_that_was_tried_is_not_tried_again():
    scale = Scale("LR", 0.04)
    tried = [Step(0.0, scale.place(0.05), 0.0001, NOISE)] * 4
    before = {move.value: move.gain for move in moves(fitted([], SIZES), scale, scale.values(), NOISE)}
    after = {move.value: move.gain for move in moves(fitted(tried, SIZES), scale, scale.values(), NOISE)}
    assert after[0.05] < before[0.05] / 20 and after[0.05] < max(after.values()) / 10


def test_one_in_six_steps_of_a_natural_scale_helps():
    for response in fitted([], {TYPICAL: 1.0}):
        (move,) = moves([response._replace(weight=1.0)], Scale("X", 1.0), [math.exp(response.scale)], NOISE)
        assert response.at(response.scale) == (pytest.approx(TYPICAL), pytest.approx(1.04 * TYPICAL**2))
        assert (response.weight, move.better) == (pytest.approx(1 / len(NATURAL)), pytest.approx(0.163, abs=0.001))


def test_a_number_of_which_nothing_is_known_is_turned_by_a_quarter():
    found = moves(fitted([], SIZES), Scale("LR", 0.04), Scale("LR", 0.04).values(), NOISE)
    assert {move.value for move in found[:2]} == {0.032, 0.05}
    assert all(move.better < 0.35 for move in found)  # a number that does nothing does not help


@pytest.mark.parametrize(("mean", "variance", "noise"), [(0.5, 1.0, 1.0), (-0.5, 1.0, 0.1), (0.0, 2.0, 3.0)])
def test_the_gain_of_a_look_is_that_of_a_simulation(mean, variance, noise):
    chance = random.Random(1)
    total = 0.0
    for _ in range(40_000):
        effect = chance.gauss(mean, math.sqrt(variance))
        look = chance.gauss(effect, math.sqrt(noise))
        expected = (mean * noise + look * variance) / (noise + variance)
        total -= effect if expected < 0 else 0.0
    assert gain_of_a_look(mean, variance, noise) == pytest.approx(total / 40_000, abs=0.02)


@pytest.mark.parametrize(("mean", "gain"), [(-0.25, 0.25), (0.25, 0.0), (0.0, 0.0)])
def test_a_look_at_what_is_known_gains_what_is_known(mean, gain):
    assert gain_of_a_look(mean, 0.0, 1.0) == gain
