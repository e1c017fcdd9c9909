"""What an edit does to the metric, before and after it was seen: a mixture of gains, losses and no effect. Pure.

    effects = prior_effects(2.5)
    seen_as(-3.1, 2.0, effects)            # the same mixture, given that the effect was seen as -3.1 with variance 2

The prior is a scale mixture around zero (adaptive shrinkage: Stephens 2017, False discovery rates: a new deal,
Biostatistics 18), with gains and losses of their own and a part that does exactly nothing. Improvements are negative;
units are the caller's. Not covered: what is known about a configuration (`lab/belief.py`).
"""

import math
from collections.abc import Sequence
from operator import mul, truediv
from typing import NamedTuple

# Before anything is known (DESIGN 6: 15% of ideas help, 35% change nothing, half of them hurt): the share of every
# size, in multiples of a typical effect.
SIZES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
HELPS = (0.030, 0.040, 0.040, 0.025, 0.010, 0.004, 0.001)
HURTS = (0.060, 0.085, 0.128, 0.106, 0.074, 0.043, 0.025)
NOTHING = 0.35
TAIL = 0.0005  # the share of each size beyond these, as far as the results reach
PRIOR_EXPERIMENTS = 50.0  # how many experiments those shares are worth
EM_STEPS = 20
NEGLIGIBLE = 1e-12  # of the likeliest part
# Looks at a standard normal value, with their weights (Gauss-Hermite).
LOOKS = (
    (-3.750440, 0.000548), (-2.366760, 0.030757), (-1.154405, 0.240123), (0.0, 0.457143),
    (1.154405, 0.240123), (2.366760, 0.030757), (3.750440, 0.000548),
)  # fmt: skip


class Effect(NamedTuple):
    """A part of a distribution of effects: its weight, mean and variance; a variance of 0 is "no effect"."""

    weight: float
    mean: float
    variance: float


def prior_effects(typical: float, farthest: float = 0.0) -> list[Effect]:
    """The prior where a typical effect has this size; its sizes reach to `farthest` at least."""
    sizes = [(size, helps, hurts) for size, helps, hurts in zip(SIZES, HELPS, HURTS, strict=True)]
    while sizes[-1][0] * typical < farthest:
        sizes.append((sizes[-1][0] * 4, TAIL, TAIL))
    parts = [Effect(NOTHING, 0.0, 0.0)]
    for size, helps, hurts in sizes:
        mean, variance = size * typical, (size * typical / 2) ** 2
        parts += [Effect(helps, -mean, variance), Effect(hurts, mean, variance)]
    total = sum(part.weight for part in parts)
    return [part._replace(weight=part.weight / total) for part in parts]


def seen_as(seen: float, variance: float, effects: Sequence[Effect]) -> list[Effect]:
    """The distribution of an effect that was seen as `seen`, with this variance of the look."""
    logs = [
        math.log(weight) - ((seen - mean) ** 2 / (variance + spread) + math.log(variance + spread)) / 2
        for weight, mean, spread in effects
    ]
    top = max(logs)
    shares = [math.exp(log - top) for log in logs]
    total = sum(shares)
    given = []
    for share, (_, mean, spread) in zip(shares, effects, strict=True):
        if share > NEGLIGIBLE * total:
            trust = spread / (variance + spread)
            given.append(Effect(share / total, mean + trust * (seen - mean), trust * variance))
    return given


def moments(seen: float, variance: float, effects: Sequence[Effect]) -> tuple[float, float]:
    """`mean_and_variance` of `seen_as`, ten times a run: what a track with hundreds of runs spends its time on."""
    total = first = second = 0.0
    for weight, mean, spread in effects:
        both, away = variance + spread, seen - mean
        share = weight * math.exp(-0.5 * away * away / both) / math.sqrt(both)
        trust = spread / both
        expected = mean + trust * away
        total += share
        first += share * expected
        second += share * (trust * variance + expected * expected)
    if total < 1e-280:  # further off than every part: they are compared by their logarithms
        return mean_and_variance(seen_as(seen, variance, effects))
    first /= total
    return first, max(second / total - first * first, 0.0)


def mean_and_variance(effects: Sequence[Effect]) -> tuple[float, float]:
    """Mean and variance of a distribution of effects."""
    mean = sum(weight * centre for weight, centre, _ in effects)
    return mean, sum(weight * (spread + (centre - mean) ** 2) for weight, centre, spread in effects)


def chances(effects: Sequence[Effect]) -> tuple[float, float]:
    """(probability of a gain, of no effect at all)."""
    better = same = 0.0
    for weight, mean, variance in effects:
        if variance == 0:
            same += weight
        else:
            better += weight * math.erfc(mean / math.sqrt(2 * variance)) / 2
    return better, same


def promise(effects: Sequence[Effect], variance: float) -> float:
    """The gain to expect from a look at an effect that may be taken or left: E[max(0, -E[effect | look])].

    The expected value of sample information (Raiffa and Schlaifer 1961), by Gauss-Hermite quadrature.
    """
    total = 0.0
    for weight, mean, spread in effects:
        if weight < 1e-3:
            continue
        width = math.sqrt(spread + variance)
        for place, share in LOOKS:
            expected, _ = moments(mean + place * width, variance, effects)
            total += weight * share * max(0.0, -expected)
    return total


def learn(
    steps: Sequence[tuple[float, float, float]], typical: float, em_steps: int = EM_STEPS
) -> tuple[list[Effect], float]:
    """The prior fitted to experiments (seen, its variance, weight) by EM, and the logarithm of their likelihood.

    `typical` is the size of a typical effect. The likelihood counts the prior of the weights, so that fits to the same
    experiments with other variances can be compared.
    """
    base = prior_effects(typical, max((abs(seen) for seen, _, _ in steps), default=0.0))
    shapes = [(part.mean, part.variance) for part in base]
    exp, sqrt = math.exp, math.sqrt
    table = [
        [exp((seen - mean) ** 2 / (variance + spread) * -0.5) / sqrt(variance + spread) for mean, spread in shapes]
        for seen, variance, _ in steps
    ]
    columns = list(zip(*table, strict=True)) or [()] * len(base)
    times = [weight for _, _, weight in steps]
    prior = [part.weight * PRIOR_EXPERIMENTS for part in base]
    weights = [part.weight for part in base]
    score = 0.0
    for _ in range(em_steps):
        together = [sum(map(mul, weights, likelihoods)) for likelihoods in table]
        score = sum(map(mul, prior, map(math.log, weights))) + sum(map(mul, times, map(math.log, together)))
        shares = list(map(truediv, times, together))
        counts = [
            at_first + weight * sum(map(mul, shares, column))
            for at_first, weight, column in zip(prior, weights, columns, strict=True)
        ]
        total = sum(counts)
        weights = [count / total for count in counts]
    return [part._replace(weight=weight) for part, weight in zip(base, weights, strict=True)], score
