"""Which value a numeric constant should get next: its response, fitted to the steps that were seen. Pure.

    scale = Scale("MATRIX_LR", 0.04)
    responses = fitted([Step(scale.place(0.04), scale.place(0.045), 0.0002, 2e-7)], {0.001: 1.0})
    moves(responses, scale, scale.values(), noise=2e-7)            # [Move(value, u, gain, better), ...]

The response is a quadratic in u, the logarithm of the value over the champion's, in shares of the metric, negative
where it improves. A step that was seen from u to w tells f(w) - f(u) through known noise; with a normal prior of its
two coefficients the posterior is a 2 by 2 system. How large effects are, and how far a number must go for one, differs
from one to the next (a momentum, a frequency), so the posterior is a mixture over sizes and natural scales, and over
doing nothing, each weighed by how well it foretold the steps: a small step that hurt much says that the number is
touchy, not that the other way would help. A step of one natural scale helps in one of six cases. A value is worth the
gain to expect from a look at it that may be taken or left (Raiffa and Schlaifer 1961, Applied Statistical Decision
Theory).

Not covered: constants that are not numbers, and two constants that depend on each other.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lab.stats import below_zero

NATURAL = (0.1, 0.2, 0.4, 0.8, 1.6)  # steps of u that may have an effect of its size, all as likely at first
CURVATURE_SD = 0.2  # of the size: by how much the curvature is off it at that step
FACTORS = (0.5, 0.67, 0.8, 0.9, 1.1, 1.25, 1.5, 2.0)
CONSERVATIVE_STEP = math.log(1.26)
FROM_ZERO = (0.02, 0.05)  # a value that is 0 has no logarithm: these are tried
MISFIT = 0.25, 0.5  # how far a response is from a quadratic: of the smallest size, and of the step's own effect
SIGNIFICANT = 2  # digits of a value
SHARE_OF_ONE = re.compile(r"RATIO|FRAC|MOMENTUM|BETA|WARM|DROPOUT", re.IGNORECASE)
NEAR_ONE = re.compile(r"MOMENTUM|BETA", re.IGNORECASE)  # what counts is how far from 1 they are
SMALL, MULTIPLES = 16, 8  # whole numbers from 16 on that are so many times a power of two stay multiples of it


class Step(NamedTuple):
    """A step that was seen, between places on a scale, with its effect as a share of the metric and its variance."""

    old: float
    new: float
    effect: float
    variance: float


class Response(NamedTuple):
    """The posterior for one size and natural scale, f(u) = a (u / scale)^2 + b u / scale, and how likely they are."""

    weight: float
    scale: float
    a: float
    b: float
    var_a: float
    var_b: float
    cov: float

    def at(self, u: float) -> tuple[float, float]:
        """(mean, variance) of what a step to u does."""
        x = u / self.scale
        return self.a * x * x + self.b * x, x * x * max(x * x * self.var_a + 2 * x * self.cov + self.var_b, 0.0)


class Move(NamedTuple):
    """A value to try, at u on its scale: the gain that a run promises, a share of the metric, and P that it helps."""

    value: float
    u: float
    gain: float
    better: float


class Scale(NamedTuple):
    """The values that a constant may have, around the champion's."""

    name: str
    value: float

    def place(self, value: float) -> float | None:
        """How far a value is from the champion's; None where that has no logarithm."""
        if self._near_one():
            return -math.log((1 - value) / (1 - self.value)) if value < 1 else None
        ratio = value / self.value if self.value else 0.0
        return math.log(ratio) if ratio > 0 else None

    def values(self, factors: Iterable[float] = FACTORS) -> list[float]:
        """The values to choose from, in their order, without the champion's own and zero."""
        if self.value == 0:
            return [] if isinstance(self.value, int) else list(FROM_ZERO)
        found = (self._turned(factor) for factor in factors)
        return sorted({value for value in found if value and value != self.value and self.place(value) is not None})

    def _near_one(self) -> bool:
        return NEAR_ONE.search(self.name) is not None and 0.5 < self.value < 1

    def _turned(self, factor: float) -> float | None:
        if self._near_one():
            return round(1 - _rounded((1 - self.value) / factor), 12)
        value = _whole(self.value, factor) if isinstance(self.value, int) else _rounded(self.value * factor)
        beyond = value is not None and value > 1 >= self.value and SHARE_OF_ONE.search(self.name)
        return None if beyond else value


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT - 1}e}")


def _whole(value: int, factor: float) -> int | None:
    """A whole number near value * factor that has the divisibility of `value`; None where there is none."""
    grain = value & -value
    if abs(value) >= SMALL and abs(value) == grain:  # a power of two
        power = round(math.log2(factor))
        return value << power if power >= 0 else value >> -power
    if abs(value) >= SMALL and abs(value) <= MULTIPLES * grain:
        return round(value * factor / grain) * grain or None
    turned = round(_rounded(value * factor))
    if turned == value and factor != 1:  # a small number moves by one at least
        turned += 1 if (factor > 1) == (value > 0) else -1
    return turned or None


def fitted(steps: Iterable[Step], sizes: Mapping[float, float]) -> list[Response]:
    """The posterior from steps, for every natural scale and size of effects; 0 is a number that does nothing.

    `sizes` has the probability of each size.
    """
    # Steps count through these sums, which are the same for all scales and sizes.
    xx = xz = zz = xy = zy = 0.0
    smallest = min(size for size in sizes if size)
    for step in steps:
        x, z, y = step.new**2 - step.old**2, step.new - step.old, step.effect
        weight = 1 / (step.variance + (MISFIT[0] * smallest) ** 2 + (MISFIT[1] * y) ** 2)
        xx, xz, zz = xx + weight * x * x, xz + weight * x * z, zz + weight * z * z
        xy, zy = xy + weight * x * y, zy + weight * z * y
    found = [
        (math.log(share), Response(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)) for size, share in sizes.items() if not size
    ]
    for size, share in sizes.items():
        for scale in NATURAL if size else ():
            log, response = _on(scale, size, (xx, xz, zz, xy, zy))
            found.append((log + math.log(share / len(NATURAL)), response))
    top = max(log for log, _ in found)
    weights = [math.exp(log - top) for log, _ in found]
    total = sum(weights)
    return [response._replace(weight=weight / total) for weight, (_, response) in zip(weights, found, strict=True)]


def _on(scale: float, size: float, sums: tuple[float, float, float, float, float]) -> tuple[float, Response]:
    """The posterior on one natural scale, and the logarithm of how much better it foretold the steps than nothing."""
    xx, xz, zz, xy, zy = sums
    precision_a, precision_b = 1 / (CURVATURE_SD * size) ** 2, 1 / size**2
    aa, ab, bb = precision_a + xx / scale**4, xz / scale**3, precision_b + zz / scale**2
    ya, yb = precision_a * size + xy / scale**2, zy / scale
    det = aa * bb - ab * ab
    a, b = (bb * ya - ab * yb) / det, (aa * yb - ab * ya) / det
    log = (a * ya + b * yb - precision_a * size**2 - math.log(det / precision_a / precision_b)) / 2
    return log, Response(1.0, scale, a, b, bb / det, aa / det, -ab / det)


def moves(responses: Sequence[Response], scale: Scale, values: Iterable[float], noise: float) -> list[Move]:
    """What each of the values promises, the best first; `noise` is the variance of a run's look at an effect."""
    found = []
    for value in values:
        u = scale.place(value)
        if u is not None:
            parts = [(response.weight, *response.at(u)) for response in responses]
            gain = sum(weight * gain_of_a_look(mean, variance, noise) for weight, mean, variance in parts)
            better = sum(weight * below_zero(mean, math.sqrt(variance)) for weight, mean, variance in parts if variance)
            found.append(Move(value, u, gain, better))
    return sorted(found, key=lambda move: (-move.gain, abs(move.u), move.u))


def gain_of_a_look(mean: float, variance: float, noise: float) -> float:
    """The gain that a run of an edit promises, whose effect is normal: E[max(0, -E[effect | run])].

    The edit may be taken or left after it. `noise` is the variance of what the run shows.
    """
    sd = variance / math.sqrt(variance + noise) if variance else 0.0
    if sd == 0:
        return max(0.0, -mean)
    return sd * math.exp(-((mean / sd) ** 2) / 2) / math.sqrt(2 * math.pi) - mean * below_zero(mean, sd)
