"""What a run's result means against the champion of its track. Pure.

Until noise is measured a stated prior stands in for it. Who the champion is: `lab.facts.champion`.
"""

import math
from typing import Any

from lab.brief import number
from lab.schema import Card, finite
from lab.stats import better, noise_prior


def verdict(
    value: float, eval_stderr: float | None, champion_value: float | None, noise: float, direction: str = "min"
) -> tuple[str, str]:
    """(status, reason) for one run against one run.

    `champion_value` is None for the first result of a track; `noise` is relative to it; `eval_stderr` None is unknown.
    """
    if champion_value is None:
        return "keep", "first result of its track: the baseline"
    gap = value - champion_value
    margin = math.hypot(noise * champion_value * math.sqrt(2), eval_stderr or 0.0)  # both runs are noisy
    words = f"{number(abs(gap))} {'lower' if gap < 0 else 'higher'} than the champion"
    if abs(gap) <= margin:
        return "inconclusive", f"{words}, noise {number(margin)}: cannot be told from noise, one run each"
    return ("keep" if (gap < 0) == (direction == "min") else "revert"), f"{words}, noise {number(margin)}"


def decide(values: Card, best: Card | None, known: bool = True) -> Card:
    """What a run's card says beyond its facts: status, decision, config_diff and the results with their delta.

    `values` has the results, metric and direction and, as far as they are known, track, preset and config. `best` is
    the champion of its track, None when there is none; `known` is False when the commons cannot be read.
    """
    track, noise, results = values.get("track"), noise_prior(values.get("preset")), values["results"]
    metric, direction = values.get("metric") or "val_bpb", values.get("direction") or "min"
    value, best_value = results[metric], best["results"][metric] if best else None
    delta = None if best_value is None else value - best_value
    probability = None
    if not known:
        status, reason = "inconclusive", "the commons could not be read: compared with nothing"
    elif track is None:
        status, reason = "inconclusive", "the run names no track to compare it on"
    else:
        status, reason = verdict(value, finite(results.get(f"{metric}_stderr")), best_value, noise, direction)
        if delta is not None and best_value is not None:
            probability = round(better(delta, direction, noise * abs(best_value)), 4)
    return {
        "status": status,
        "results": results | {"delta": delta},
        "decision": {
            "status": status,
            "reason": reason,
            "champion": best["id"] if best else None,
            "noise_prior": noise,
            "probability": probability,
        },
        "config_diff": config_diff(best["config"], values.get("config")) if best else {},
    }


def config_diff(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, list[Any]] | None:
    """{name: [old, new]} of what differs between two configurations; None when one of them is unknown."""
    if old is None or new is None:
        return None
    names = [*new, *(name for name in old if name not in new)]
    return {name: [old.get(name), new.get(name)] for name in names if old.get(name) != new.get(name)}
