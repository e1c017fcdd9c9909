"""How much of a difference is noise. Pure arithmetic over the results of one track; standard library only.

    found = noise(rows)                       # rows of the index: result, delta, preset, edit_key
    better(-0.0012, "min", found.sd)          # probability that the run truly beats the one it was compared with

Not covered yet: separate terms for seeds and machines, and a prior learnt from the commons.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

# Standard deviation between repeats of one configuration, as a share of the metric. gpu: 27 repeats of one
# configuration on different nodes, 0.0005 bpb near 1.0 (autoresearch-automl). small: three seeds on two CPU cores,
# 0.0057 bpb near 1.10 (bench/RESULTS.md).
NOISE_PRIOR_RELATIVE = {"gpu": 0.0005, "small": 0.005}
MIN_REPEATS = 4
MIN_DELTAS = 20
STANDINGS = ("confirmed", "likely", "unclear")
SATURATED_RUNS, SATURATED_KEPT = 5, 1
UNDER_EXPLORED_RUNS = 2
# The spread of effects where too few differences tell it, in standard deviations of the noise.
UNKNOWN_EFFECT = 3.0
# Half of standard normal values lie this close to zero, or a quarter of them this close.
MEDIAN_OF_NORMAL, QUARTER_OF_NORMAL = 0.6745, 0.3186


class Noise(NamedTuple):
    """The standard deviation between repeats, in units of the metric, and in words what it rests on."""

    sd: float | None
    basis: str


def noise_prior(preset: str | None) -> float:
    """The prior for a preset, relative to the metric; a preset nobody has studied gets the widest one."""
    return NOISE_PRIOR_RELATIVE.get(preset or "", max(NOISE_PRIOR_RELATIVE.values()))


def noise(rows: Sequence[dict[str, Any]]) -> Noise:
    """The noise of a track: from repeats of one edit where there are enough, else from its scatter, else a prior.

    The scatter is an upper bound: were every edit without effect, a quarter of the differences between two runs would
    lie within 0.3186 * sqrt(2) standard deviations; real effects only widen them.
    """
    results = [row["result"] for row in rows if row["result"] is not None]
    if not results:
        return Noise(None, "no results yet")
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row["edit_key"] and row["result"] is not None:
            groups.setdefault(row["edit_key"], []).append(row["result"])
    repeats = [group for group in groups.values() if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeats)
    if freedom >= MIN_REPEATS - 1:
        means = [_mean(group) for group in repeats]
        scatter = math.hypot(*(value - mean for group, mean in zip(repeats, means, strict=True) for value in group))
        return Noise(scatter / math.sqrt(freedom), f"from {freedom + len(repeats)} repeats of {len(repeats)} edits")
    prior = noise_prior(rows[0]["preset"]) * abs(_median(results))
    deltas = sorted(abs(row["delta"]) for row in rows if row["delta"])
    if len(deltas) >= MIN_DELTAS:
        scatter = deltas[len(deltas) // 4] / (QUARTER_OF_NORMAL * math.sqrt(2))
        if scatter < prior:
            return Noise(scatter, f"at most, from the scatter of {len(deltas)} differences; no repeats yet")
    return Noise(prior, "assumed; no repeats yet")


def gain(delta: float, direction: str) -> float:
    """A difference with the sign that makes an improvement positive."""
    return -delta if direction == "min" else delta


def better(delta: float, direction: str, sd: float, runs: int = 1) -> float:
    """Probability that a run beats the one it was compared with: their difference, both noisy, no prior.

    `runs` is how many repeats the mean behind `delta` has.
    """
    gained, spread = gain(delta, direction), sd * math.sqrt(1 + 1 / runs)
    if spread == 0:
        return 0.5 if gained == 0 else float(gained > 0)
    return 0.5 * math.erfc(-gained / spread / math.sqrt(2))


def posterior(rows: Sequence[dict[str, Any]], sd: float) -> list[tuple[float, float]]:
    """(mean, standard deviation) of the champion's true value after every row of a track, oldest first.

    The tracker of DESIGN 6: an experiment is a step from the champion with an effect drawn from a normal prior (its
    spread is taken from the track's own differences), seen through noise; a rejected run says something about the
    champion too, a retracted or quarantined one nothing. Rows have result (None for a crash), delta and status.
    """
    deltas = [row["delta"] for row in rows if row["delta"] is not None]
    typical, scatter = 0.0, UNKNOWN_EFFECT * sd
    if len(deltas) >= MIN_DELTAS:
        typical = _median(deltas)
        scatter = _median([abs(delta - typical) for delta in deltas]) / MEDIAN_OF_NORMAL
    noise_variance = sd * sd  # a product becomes infinite where ** raises
    effect_variance = max(scatter * scatter - 2 * noise_variance, noise_variance)
    band: list[tuple[float, float]] = []
    mean, variance = math.nan, math.inf
    for row in rows:
        seen = None if row["status"] == "retracted" or row.get("quarantined") else row["result"]
        if seen is not None and math.isnan(mean):
            mean, variance = seen, noise_variance
        elif seen is not None:
            surprise, step = seen - mean - typical, variance + effect_variance
            total = step + noise_variance
            if row["status"] == "keep":
                trust = step / total if total else 1.0  # without noise a result is the truth
                mean, variance = mean + typical + surprise * trust, trust * noise_variance
            elif abs(surprise) < 5 * math.sqrt(total):  # a broken run says nothing about the champion
                trust = variance / total
                mean, variance = mean + surprise * trust, variance - variance * trust
        band.append((mean, math.sqrt(variance)))
    return band


def saturated(row: dict[str, Any]) -> bool:
    """Whether a category has been tried often and kept hardly ever."""
    return bool(row["count"] >= SATURATED_RUNS and row["kept"] <= SATURATED_KEPT)


# The standard library's statistics would cost a reading command 15 ms to import. Divided first, no sum overflows.
def _mean(values: Sequence[float]) -> float:
    return sum(value / len(values) for value in values)  # fsum raises where the largest floats meet


def _median(values: Sequence[float]) -> float:
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else ordered[middle - 1] / 2 + ordered[middle] / 2
