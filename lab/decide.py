"""What a run's result means against the champion of its track. Pure.

Until noise is measured a stated prior stands in for it, so a verdict carries no probability yet.
"""

import math
from collections.abc import Iterable
from typing import Any

from lab.schema import Card

# Standard deviation between repeats of one configuration, as a share of val_bpb. gpu: 27 repeats of one
# configuration on different nodes, 0.0005 bpb near 1.0 (autoresearch-automl). small: three seeds on two CPU cores,
# 0.0057 bpb near 1.10 (bench/RESULTS.md).
NOISE_PRIOR_RELATIVE = {"gpu": 0.0005, "small": 0.005}


def noise_prior(preset: str | None) -> float:
    """The prior for a preset, relative to val_bpb; a preset nobody has studied gets the widest one."""
    return NOISE_PRIOR_RELATIVE.get(preset or "", max(NOISE_PRIOR_RELATIVE.values()))


def champion(cards: Iterable[Card], track: str | None) -> Card | None:
    """The kept card with the lowest val_bpb of the track, None when there is none: an unknown track has no champion."""
    kept = [
        card
        for card in cards
        if card["status"] == "keep" and card["track"] == track is not None and card["results"]["val_bpb"] is not None
    ]
    return min(kept, key=lambda card: (card["results"]["val_bpb"], card["timestamp"], card["id"]), default=None)


def verdict(value: float, eval_stderr: float | None, champion_value: float | None, noise: float) -> tuple[str, str]:
    """(status, reason) for one run against one run; lower values are better.

    `champion_value` is None for the first result of a track; `noise` is relative to it; `eval_stderr` None is unknown.
    """
    if champion_value is None:
        return "keep", "first result of its track: the baseline"
    gap = value - champion_value
    margin = math.hypot(noise * champion_value * math.sqrt(2), eval_stderr or 0.0)  # both runs are noisy
    words = f"{abs(gap):.6f} {'lower' if gap < 0 else 'higher'} than the champion"
    if abs(gap) <= margin:
        return "inconclusive", f"{words}, noise {margin:.6f}: cannot be told from noise, one run each"
    return ("keep" if gap < 0 else "revert"), f"{words}, noise {margin:.6f}"


def decide(values: Card, cards: Iterable[Card] | None) -> Card:
    """What a run's card says beyond its facts: status, decision, config_diff and the results with their delta.

    `values` has the results and, as far as they are known, track, preset and config. `cards` is the commons so far,
    None when it cannot be read.
    """
    track, noise, results = values.get("track"), noise_prior(values.get("preset")), values["results"]
    best = champion(cards or (), track)
    if cards is None:
        status, reason = "inconclusive", "the commons could not be read: compared with nothing"
    elif track is None:
        status, reason = "inconclusive", "the run names no track to compare it on"
    else:
        best_value = best["results"]["val_bpb"] if best else None
        status, reason = verdict(results["val_bpb"], results.get("val_bpb_stderr"), best_value, noise)
    return {
        "status": status,
        "results": results | {"delta": results["val_bpb"] - best["results"]["val_bpb"] if best else None},
        "decision": {
            "status": status,
            "reason": reason,
            "champion": best["id"] if best else None,
            "noise_prior": noise,
            "probability": None,
        },
        "config_diff": config_diff(best["config"], values.get("config")) if best else {},
    }


def config_diff(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, list[Any]] | None:
    """{name: [old, new]} of what differs between two configurations; None when one of them is unknown."""
    if old is None or new is None:
        return None
    names = [*new, *(name for name in old if name not in new)]
    return {name: [old.get(name), new.get(name)] for name in names if old.get(name) != new.get(name)}
