"""How much of a difference is noise: the ledger of repeats, and what stands in for it while there are few. Pure.

    ledger = repeats(rows)                    # rows of the index: result, edit_key, seed, machine, ...
    ledger.same_seed, ledger.between_seeds, ledger.between_machines

The terms are found by the method of moments: half the mean squared difference of two runs of one configuration is the
variance that sets the two apart, whether they share seed and machine, only the machine, or neither; the terms are the
steps between these (Henderson 1953, Estimation of variance and covariance components, Biometrics 9, on pairs). It
needs no balance and no iteration, and not the 1.5 seconds that loading scipy takes: a brief has 30 milliseconds.
Where every configuration has as many runs it equals REML, unless REML would put a term at zero (tests/test_stats.py).

Not covered: the posterior of a configuration, which learns the noise along with the effects (`lab/belief.py`).
"""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from lab.schema import LARGEST

# Standard deviation between repeats of one configuration, as a share of the metric. gpu: 27 repeats of one
# configuration on different nodes, 0.0005 bpb near 1.0 (autoresearch-automl). small: three seeds on two CPU cores,
# 0.0057 bpb near 1.10 (bench/RESULTS.md).
NOISE_PRIOR_RELATIVE = {"gpu": 0.0005, "small": 0.005}
UNKNOWN_PRESET_RELATIVE = {"val_bpb": 0.001}  # a mean over a million tokens; of other metrics nothing is known
UNKNOWN_RELATIVE = 0.005
MIN_PAIRS = 3  # of runs that share a seed, before repeats of one seed count as more than one look
MAX_PAIRED = 50  # runs of one configuration that are paired with each other
NORMAL_95 = 1.96  # standard deviations on either side of the mean that hold 95%
SATURATED_RUNS, SATURATED_KEPT = 5, 1
UNDER_EXPLORED_RUNS = 2


class Repeats(NamedTuple):
    """The ledger of a track's repeats: how many, and the standard deviation of every term in units of the metric.

    None is unknown: no two runs tell. `pairs` counts the pairs of runs behind each of the three terms.
    """

    runs: int
    configurations: int
    pairs: tuple[int, int, int]
    same_seed: float | None
    between_seeds: float | None
    between_machines: float | None
    machines: tuple[str, ...]  # the one with most runs first

    @property
    def main_machine(self) -> str | None:
        """The machine with most runs: the others are compared with it."""
        return self.machines[0] if self.machines else None

    @property
    def seed_share(self) -> float:
        """The share of the variance on one machine that the seed makes, which a repeat of the seed does not show.

        1 while it is unknown: then repeats of one seed are one look.
        """
        if self.pairs[0] < MIN_PAIRS or self.same_seed is None or self.between_seeds is None:
            return 1.0
        both = math.hypot(self.same_seed, self.between_seeds)
        share = self.between_seeds / both if both else 1.0
        return share * share


class Noise(NamedTuple):
    """The standard deviation between runs of one configuration with their own seeds on one machine.

    In units of the metric; `basis` says in words what it rests on.
    """

    sd: float | None
    basis: str


def noise_prior(preset: str | None, device: str | None, metric: str) -> float:
    """The prior for a preset, relative to the metric; where the preset is not known, for the device or the metric."""
    known = preset or ("gpu" if device == "cuda" and metric == "val_bpb" else "")
    return NOISE_PRIOR_RELATIVE.get(known) or UNKNOWN_PRESET_RELATIVE.get(metric, UNKNOWN_RELATIVE)


def configuration(row: dict[str, Any]) -> str:
    """What was run: equal for repeats. Without a hash of the script, runs of one commit that name their seeds are."""
    known = row["edit_key"] or row["train_sha256"]
    return str(known or (row["seed"] is not None and row["commit_id"]) or row["id"])


def counts(row: dict[str, Any]) -> bool:
    """Whether a run takes part in verdicts: it has a result, and is neither retracted nor quarantined."""
    return row["result"] is not None and row["status"] != "retracted" and not row["quarantined"]


def unchosen(runs: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The runs of a configuration, oldest first, without the one it was kept by: that one was lucky.

    All of them where fewer than two would remain.
    """
    chosen = next((place for place, row in enumerate(runs) if row["status"] == "keep"), None)
    return runs if chosen is None or len(runs) < 3 else [*runs[:chosen], *runs[chosen + 1 :]]


def repeats(rows: Iterable[dict[str, Any]]) -> Repeats:
    """The ledger of the runs that count; see the module."""
    groups: dict[str, list[dict[str, Any]]] = {}
    machines: dict[str, int] = {}
    for row in rows:
        if counts(row):
            groups.setdefault(configuration(row), []).append(row)
            if row["machine"]:
                machines[row["machine"]] = machines.get(row["machine"], 0) + 1
    repeated = [group for group in groups.values() if len(group) > 1]
    scale = max((abs(row["result"]) for group in repeated for row in group), default=0.0) or 1.0  # squares must fit
    pairs, squares, weights = [0, 0, 0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    for group in repeated:
        newest = unchosen(group)[-MAX_PAIRED:]
        for one, other in combinations(newest, 2):
            term = 2 if one["machine"] != other["machine"] else 0 if _same_seed(one, other) else 1
            apart = one["result"] / scale - other["result"] / scale
            pairs[term] += 1
            # A pair counts for a share of its group, so that one large group does not drown the others.
            weights[term] += 1 / len(newest)
            squares[term] += apart * apart / 2 / len(newest)
    found = [square / weight if weight else None for square, weight in zip(squares, weights, strict=True)]
    terms = []
    below = 0.0
    for variance in found:
        terms.append(None if variance is None else min(math.sqrt(max(variance - below, 0.0)) * scale, LARGEST))
        below = max(below, variance or 0.0)
    names = tuple(sorted(machines, key=lambda name: (-machines[name], name)))
    runs = sum(map(len, repeated))
    return Repeats(runs, len(repeated), (pairs[0], pairs[1], pairs[2]), terms[0], terms[1], terms[2], names)


def _same_seed(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["seed"] is not None and one["seed"] == other["seed"]


def gain(delta: float, direction: str) -> float:
    """A difference with the sign that makes an improvement positive."""
    return -delta if direction == "min" else delta


def below_zero(mean: float, sd: float) -> float:
    """The probability that a normal quantity is below zero; where there is no spread, a half for zero itself."""
    if sd == 0:
        return 0.5 if mean == 0 else float(mean < 0)
    return math.erfc(mean / sd / math.sqrt(2)) / 2


def saturated(row: dict[str, Any]) -> bool:
    """Whether a category has been tried often and kept hardly ever."""
    return bool(row["count"] >= SATURATED_RUNS and row["kept"] <= SATURATED_KEPT)


def median(values: Sequence[float]) -> float:
    """The middle value. The standard library's statistics would cost a reading command 15 ms to import."""
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else ordered[middle - 1] / 2 + ordered[middle] / 2


def magnitude(values: Sequence[float]) -> float:
    """How far from zero values are: their median, or the median of the others where that is 0; 0 without any."""
    others = [abs(value) for value in values if value]
    return (abs(median(values)) or median(others)) if others else 0.0
