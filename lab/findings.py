"""What has been found out: whether an edit truly helps, judged by runs that had no part in its being chosen. Pure.

    finding = judged(belief, node, runs, settings)        # confirmed, likely, unclear or refuted
    pooled(findings_of_all_tracks)                        # does it hold on other hardware

An edit is kept because its run looked good, so that run proves nothing: of many tries some look good by luck. Confirmed
and refuted rest on fresh runs alone, made later with other seeds; likely and unclear on all runs together, until there
are enough fresh ones.
Not covered: which configurations are asked about (`lab/judgement.py`).
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lab.belief import FARTHEST, Belief, Node
from lab.effects import chances, seen_as
from lab.runs import change
from lab.schema import STANDINGS
from lab.settings import Settings
from lab.stats import below_zero, gain

Row = dict[str, Any]

MAX_REPEATS = 40  # more than so many runs settle nothing that a night could use


class Finding(NamedTuple):
    """An edit and what is known of its effect on what it was made from.

    `probability` that it truly helps and `expected` gain (signed as delta, `sd` its standard deviation) are from the
    fresh runs where there are any, else from all. `repeats` more fresh runs would settle it; None: too many.
    """

    card: str
    change: str
    standing: str
    probability: float
    expected: float
    sd: float
    fresh: int
    repeats: int | None
    row: Row


def judged(belief: Belief, node: Node, runs: Mapping[str, Row], settings: Settings) -> Finding:
    """What is known of the edit that made this configuration; `runs` are its runs as rows of the index."""
    order = sorted(runs.values(), key=lambda row: (row["timestamp"], row["id"]))
    chosen = order[: 1 + next((place for place, row in enumerate(order) if row["status"] == "keep"), 0)]
    first, fresh = chosen[-1], fresh_runs(chosen, order[len(chosen) :])
    machine = min((belief.repeats.between_machines or 0.0) / belief.unit, FARTHEST) ** 2 / belief.variance
    looks = [(row["result"], 1.0 + machine * (row["machine"] != first["machine"])) for row in fresh]
    everything = belief.step(node.card)
    step = belief.step(node.card, looks) if looks else everything
    if step is None or everything is None:
        raise ValueError(f"{node.card} is a baseline, no edit")
    row = runs.get(node.card, first)
    settled = len(fresh) >= settings.confirm_repeats
    if row["confirmed"] or (settled and step.better >= settings.confirm_probability):
        standing = "confirmed"
    elif settled and step.better <= settings.refute_probability:
        standing = "refuted"
    else:
        standing = "likely" if (step if settled else everything).better >= settings.likely_probability else "unclear"
    more: int | None = 0
    if standing in ("likely", "unclear"):
        needed = repeats_needed(belief, node.from_parent[1] if node.from_parent else 0.0, everything.expected, settings)
        more = None if needed is None else max(needed - len(fresh), 1)
    return Finding(node.card, change(row), standing, step.better, step.expected, step.sd, len(fresh), more, row)


def fresh_runs(chosen: Sequence[Row], later: Iterable[Row]) -> list[Row]:
    """One run for every seed that none of the runs which the edit was chosen by had."""
    by_seed: dict[int, Row] = {}
    used = {row["seed"] for row in chosen}
    for row in later:
        if row["seed"] is not None and None not in used and row["seed"] not in used:
            by_seed.setdefault(row["seed"], row)
    return list(by_seed.values())


def repeats_needed(belief: Belief, mother: float, expected: float, settings: Settings) -> int | None:
    """How many fresh runs that show this effect would confirm or refute it; None where MAX_REPEATS would not.

    `mother` is the variance of what the edit was made from, in units of the belief.
    """
    seen = -gain(expected, belief.direction) / belief.unit

    def settled(runs: int) -> bool:
        better, _ = chances(seen_as(seen, mother + belief.variance / runs, belief.effects))
        return better >= settings.confirm_probability or better <= settings.refute_probability

    counts = range(settings.confirm_repeats, MAX_REPEATS + 1)
    if not counts or not settled(counts[-1]):
        return None
    return counts[bisect_left(counts, True, key=settled)]  # more runs of the same effect only settle it more


class Pooled(NamedTuple):
    """A change over all tracks where it was tried: its mean effect as a share of the metric, signed as delta.

    It is likely or confirmed on `holds` of the `tried` kinds of hardware.
    """

    change: str
    effect: float
    sd: float
    probability: float
    holds: int
    tried: int
    tracks: int


def pooled(findings: Sequence[tuple[str, Belief, Finding]]) -> list[Pooled]:
    """Changes that were tried on several tracks, over all of them: (track, its belief, finding), the surest first.

    Random effects (DerSimonian and Laird 1986, Meta-analysis in clinical trials): tracks may differ in truth.
    """
    groups: dict[Any, list[tuple[str, Belief, Finding]]] = {}
    for item in findings:
        _, belief, finding = item
        named = finding.row["config_diff"] or finding.row["hypothesis"]  # else it has no name to be known by
        if named and belief.centre:  # of a metric around 0 nothing is a share
            groups.setdefault((finding.change.casefold(), belief.direction, finding.row["metric"]), []).append(item)
    found = []
    for group in groups.values():
        tracks = {track for track, _, _ in group}
        if len(tracks) < 2:
            continue
        effects, variances = [], []
        for _, belief, finding in group:
            node = belief.nodes[finding.card]
            mother = node.from_parent or node.alone
            share = belief.unit / abs(belief.centre)
            effects.append((node.alone[0] - mother[0]) * share)
            variances.append((node.alone[1] + mother[1]) * share**2)
        mean, sd = random_effects(effects, variances)
        hardware = {track.rpartition("/")[2] for track in tracks}
        holds = {track.rpartition("/")[2] for track, _, finding in group if finding.standing in STANDINGS[:2]}
        told = -gain(mean, group[0][1].direction) + 0.0
        name = group[0][2].change
        found.append(Pooled(name, told, sd, below_zero(mean, sd), len(holds), len(hardware), len(tracks)))
    return sorted(found, key=lambda one: (-abs(one.probability - 0.5), one.change))


def random_effects(effects: Sequence[float], variances: Sequence[float]) -> tuple[float, float]:
    """(mean, its standard deviation) of effects that vary in truth and are seen with these variances."""
    weights = [1 / variance for variance in variances]
    total = sum(weights)
    mean = sum(weight * effect for weight, effect in zip(weights, effects, strict=True)) / total
    spread = sum(weight * (effect - mean) ** 2 for weight, effect in zip(weights, effects, strict=True))
    scale = total - sum(weight * weight for weight in weights) / total
    between = max((spread - (len(effects) - 1)) / scale, 0.0) if scale > 0 else 0.0
    weights = [1 / (variance + between) for variance in variances]
    total = sum(weights)
    return sum(weight * effect for weight, effect in zip(weights, effects, strict=True)) / total, math.sqrt(1 / total)
