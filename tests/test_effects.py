"""Mixtures of effects, against numerical integration and simulation."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.effects import (
    NOTHING,
    Effect,
    chances,
    learn,
    mean_and_variance,
    moments,
    prior_effects,
    promise,
    seen_as,
)

GRID = np.linspace(-60, 60, 240_001)
STEP = GRID[1] - GRID[0]
MIXTURE = [Effect(0.3, 0.0, 0.0), Effect(0.2, -1.0, 0.5), Effect(0.1, -4.0, 9.0), Effect(0.4, 2.0, 1.0)]


def normal(value, mean, variance):
    """The density of a normal distribution."""
    return np.exp(-((value - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def integrated(seen, variance, effects):
    """(mean, variance, chance of a gain, chance of nothing) of an effect that was seen, by integration on the grid."""
    nothing = sum(weight * normal(seen, mean, variance) for weight, mean, spread in effects if spread == 0)
    density = sum(weight * normal(GRID, mean, spread) for weight, mean, spread in effects if spread > 0)
    density = density * normal(seen, GRID, variance)
    total = density.sum() * STEP + nothing
    mean = (density * GRID).sum() * STEP / total
    spread = (density * (GRID - mean) ** 2).sum() * STEP / total + nothing / total * mean**2
    return mean, spread, density[GRID < 0].sum() * STEP / total, nothing / total


@pytest.mark.parametrize("effects", [MIXTURE, prior_effects(1.0)[:11]], ids=["mixture", "prior"])
@pytest.mark.parametrize(("seen", "variance"), [(0.0, 1.0), (-3.0, 2.0), (-0.4, 0.05), (5.0, 4.0), (-9.0, 1.0)])
def test_what_a_look_tells_is_what_integration_finds(effects, seen, variance):
    total = sum(effect.weight for effect in effects)
    effects = [effect._replace(weight=effect.weight / total) for effect in effects]
    mean, spread, better, same = integrated(seen, variance, effects)
    given_it = seen_as(seen, variance, effects)
    assert sum(effect.weight for effect in given_it) == pytest.approx(1)
    assert mean_and_variance(given_it) == pytest.approx((mean, spread), rel=1e-3, abs=1e-6)
    assert chances(given_it) == pytest.approx((better, same), rel=1e-3, abs=1e-4)
    assert moments(seen, variance, effects) == pytest.approx(mean_and_variance(given_it), rel=1e-9, abs=1e-12)


def test_a_look_at_one_normal_effect_is_the_textbooks():
    (effect,) = seen_as(-3.0, 1.0, [Effect(1.0, 1.0, 3.0)])
    assert effect == pytest.approx((1.0, -2.0, 0.75))  # a precision of 1/3 at 1 and of 1 at -3
    assert chances([effect])[0] == pytest.approx(0.98955, abs=1e-4)


def test_two_looks_one_after_the_other_are_one_at_their_mean():
    both = seen_as(-1.0, 2.0, seen_as(-3.0, 2.0, MIXTURE))
    once = seen_as(-2.0, 1.0, MIXTURE)
    assert mean_and_variance(both) == pytest.approx(mean_and_variance(once))
    assert chances(both) == pytest.approx(chances(once))


@pytest.mark.parametrize("effects", [MIXTURE, seen_as(-1.0, 1.0, MIXTURE), [Effect(1.0, 0.5, 4.0)]])
@pytest.mark.parametrize("variance", [0.5, 1.0, 6.0])
def test_a_promise_is_what_choosing_after_a_look_gains(effects, variance):
    """The look's whole distribution on a fine grid: what is taken where its mean is a gain, is gained."""
    effects = [effect._replace(weight=effect.weight / sum(one.weight for one in effects)) for effect in effects]
    looks = GRID[::60]
    density = sum(weight * normal(looks, mean, spread + variance) for weight, mean, spread in effects)
    gains = [max(0.0, -moments(look, variance, effects)[0]) for look in looks]
    assert promise(effects, variance) == pytest.approx((density * gains).sum() * STEP * 60, rel=0.07, abs=0.003)


def test_a_promise_of_nothing_is_nothing_and_of_a_sure_gain_all_of_it():
    assert promise([Effect(1.0, 0.0, 0.0)], 1.0) == 0.0
    assert promise([Effect(1.0, -7.0, 0.1)], 1.0) == pytest.approx(7.0, rel=1e-4)
    assert promise([Effect(1.0, 7.0, 0.1)], 1.0) == pytest.approx(0.0, abs=1e-9)
    assert promise(MIXTURE, 0.5) > promise(MIXTURE, 5.0) > max(0.0, -mean_and_variance(MIXTURE)[0])


@pytest.mark.parametrize(("typical", "farthest"), [(1.0, 0.0), (2.5, 1e6), (1e-9, 1e6)])
def test_the_prior_is_a_distribution_that_reaches_as_far_as_asked(typical, farthest):
    effects = prior_effects(typical, farthest)
    assert sum(effect.weight for effect in effects) == pytest.approx(1)
    assert max(effect.mean for effect in effects) >= farthest <= -min(effect.mean for effect in effects)
    better, same = chances(effects)
    assert same == pytest.approx(NOTHING, rel=0.05)
    assert better == pytest.approx(0.15, abs=0.03)  # DESIGN 6: 15% of ideas help


def test_effects_are_learnt():
    """Half do nothing, a fifth gains about 6, the rest loses about 3, seen with variance 1."""
    chance, steps = random.Random(7), []
    for place in range(600):
        share = place / 600
        effect = 0.0 if share < 0.5 else chance.gauss(-6, 0.5) if share < 0.7 else chance.gauss(3, 0.5)
        steps.append((effect + chance.gauss(0, 1), 1.0, 1.0))
    effects, _ = learn(steps, 2.5)
    large, _ = chances([effect._replace(mean=effect.mean + 2) for effect in effects if effect.variance])
    assert large == pytest.approx(0.2, abs=0.05)  # of gains of more than 2
    near = sum(effect.weight for effect in effects if abs(effect.mean) < 1.5)
    assert near == pytest.approx(0.5, abs=0.1)
    assert mean_and_variance(effects)[0] == pytest.approx(-6 * 0.2 + 3 * 0.3, abs=0.4)
    # What is seen as 2.5 is now nothing or a loss, and a gain of 6 is believed.
    assert chances(seen_as(2.5, 1.0, effects))[0] < 0.01 and moments(-6.0, 1.0, effects)[0] < -5


def test_experiments_that_count_half_tell_as_much_as_half_of_them():
    steps = [(-3.0, 1.0, 1.0), (2.0, 2.0, 1.0), (0.1, 1.0, 1.0)]
    half = [(seen, variance, 0.5) for seen, variance, _ in steps * 2]
    for one, other in zip(learn(steps, 1.0)[0], learn(half, 1.0)[0], strict=True):
        assert one == pytest.approx(other)
    assert learn(steps, 1.0)[1] == pytest.approx(learn(half, 1.0)[1])


def test_nothing_to_learn_from_leaves_the_prior():
    effects, _ = learn([], 2.0)
    assert effects == [pytest.approx(effect) for effect in prior_effects(2.0)]


def test_the_right_noise_is_likelier_than_others():
    chance = random.Random(8)
    seen = [chance.gauss(0, 1) + (chance.random() < 0.3) * chance.uniform(2, 9) for _ in range(300)]
    scores = {variance: learn([(one, variance, 1.0) for one in seen], 2.5)[1] for variance in (0.1, 1.0, 10.0)}
    assert max(scores, key=scores.__getitem__) == 1.0


FAR = st.floats(-2e6, 2e6) | st.sampled_from([0.0, 1e6, -1e6, 2e6, 1e-300])
VARIANCE = st.floats(1e-9, 1e18) | st.sampled_from([1e-9, 1.0, 1e18])
TYPICAL = st.floats(1e-9, 1e6)


@given(FAR, VARIANCE, TYPICAL, FAR)
def test_nothing_overflows(seen, variance, typical, farthest):
    effects = prior_effects(typical, abs(farthest))
    given_it = seen_as(seen, variance, effects)
    mean, spread = mean_and_variance(given_it)
    better, same = chances(given_it)
    assert math.isfinite(mean) and math.isfinite(spread) and spread >= 0
    assert moments(seen, variance, effects) == pytest.approx((mean, spread), rel=1e-3, abs=1e-3 + 1e-14 * seen**2)
    assert 0 <= better <= 1 + 1e-9 and 0 <= same <= 1 + 1e-9
    assert 0 <= promise(given_it, variance) < math.inf


@given(st.lists(st.tuples(FAR, VARIANCE, st.floats(0.1, 1.0)), max_size=8), TYPICAL)
def test_anything_can_be_learnt_from(steps, typical):
    effects, score = learn(steps, typical)
    assert math.isfinite(score) and sum(effect.weight for effect in effects) == pytest.approx(1)
    assert all(effect.weight > 0 for effect in effects)
