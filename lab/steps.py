"""What to do next, from what a night came to: the last word of the morning report. Pure.

    next_steps(gather(index, since, now))      # [{"text": "Find out why ...", "command": "uv run commons.py ..."}]

Not covered: where the facts come from (`lab/morning.py`), which repeats change most (`commons.py sweep-confirm`).
"""

import re
from typing import Any

from lab.brief import counted, escaped
from lab.decide import DOING
from lab.stats import UNDER_EXPLORED_RUNS, gain

Row = dict[str, Any]

STEPS = 5
PLATEAU_RUNS = 20  # so many without a keep, and it is time for something else
NEAR_REPEATS = 8  # more repeats than that are not proposed as the next step
NEAR_FINDINGS = 5  # so many at a time
KIND = 50  # characters of an error's kind


def next_steps(found: Row) -> list[Row]:
    """What to do next, the most useful first, at most STEPS: rows of `text` in plain words and `command`, or None."""
    if not found["runs"]:
        why = "Run an experiment" if found["cards"] else "Run the first experiment"
        return [{"text": why, "command": "uv run train.py"}]
    steps = (_mend, _stand_up, _settle, _measure_noise, _combine, _ask_first, _turn)
    return [step for make in steps if (step := make(found))][:STEPS]


def champion_of(found: Row) -> Row | None:
    """The champion of the busiest track."""
    champion: Row | None = found["tracks"][0]["champion"] if found["tracks"] else None
    return champion


def _mend(found: Row) -> Row | None:
    """Somebody should look into an error that keeps coming back."""
    worst = next((row for row in found["failures"] if row["times"] >= found["same_error"]), None)
    return worst and {
        "text": f"Find out why {worst['times']} runs crashed alike ({escaped(worst['kind'], KIND)})",
        "command": f"uv run commons.py show {worst['id'][:12]}",
    }


def _stand_up(found: Row) -> Row | None:
    """A suspect run that would be the champion holds everything up."""
    best = champion_of(found)
    rows = [row for row in found["suspects"] if row["result"] is not None]
    if best:
        rows = [row for row in rows if row["track"] == best["track"] and row["metric"] == best["metric"]]
        rows = [row for row in rows if gain(row["result"] - best["result"], best["direction"]) > 0]
    return rows[0] and {
        "text": f"Decide on the suspect run {rows[0]['id'][:12]}, better than the champion: confirm it or retract it",
        "command": f"uv run commons.py show {rows[0]['id'][:12]}",
    } if rows else None  # fmt: skip


def _settle(found: Row) -> Row | None:
    """Repeats where they change decisions."""
    track = found["tracks"][0]["track"] if found["tracks"] else None
    near = [row["repeats"] for row in found["near"] if row["repeats"] <= NEAR_REPEATS and row["row"]["track"] == track]
    waits = sum(row["action"] == "replicate" and row["track"] == track for row in found["waiting"])
    budget = min(max(sum(near[:NEAR_FINDINGS]), waits), 2 * NEAR_REPEATS)
    told = [counted(waits, "run") + " worth a repeat"] if waits else []
    told += [f"{counted(len(near), 'finding')} that a few repeats would settle"] if near else []
    return {
        "text": f"Spend {counted(budget, 'repeat')} where they change most: {', '.join(told)}",
        "command": f"uv run commons.py sweep-confirm --budget {budget}{_on_track(found)}",
    } if told else None  # fmt: skip


def _measure_noise(found: Row) -> Row | None:
    """Without repeats all verdicts rest on an assumption."""
    best = champion_of(found)
    return {
        "text": "Repeat the champion with other seeds: no run was ever repeated, so the noise is not measured",
        "command": f"uv run commons.py noise{_on_track(found)}",
    } if best and not found["tracks"][0]["repeats"] else None  # fmt: skip


def _combine(found: Row) -> Row | None:
    """An edit that helped what it was made from, tried on the champion."""
    row = next((row for row in found["waiting"] if row["action"] == "branch_followup"), None)
    best = champion_of(found)
    return row and best and {
        "text": f"Combine {row['id'][:12]} with the champion: {DOING['branch_followup'].partition(':')[0]}",
        "command": f"uv run commons.py diff {best['id'][:12]} {row['id'][:12]}",
    }  # fmt: skip


def _ask_first(found: Row) -> Row | None:
    ideas = counted(len(found["again"]), "idea")
    return {
        "text": f"Have agents ask before they run: {ideas} failed that had failed before",
        "command": 'uv run commons.py check --description "..."',
    } if found["again"] else None  # fmt: skip


def _turn(found: Row) -> Row | None:
    """Where nothing is kept any more, what has hardly been tried."""
    if not found["tracks"] or found["runs"] < PLATEAU_RUNS or found["status"].get("keep"):
        return None
    rare = [name for name, row in found["coverage"].items() if row["count"] <= UNDER_EXPLORED_RUNS and name != "other"]
    told = f", such as {', '.join(rare[:3])}" if rare else ""
    return {
        "text": f"Try another kind of change{told}: none of {found['runs']} runs was kept",
        "command": "uv run commons.py coverage",
    }


def _on_track(found: Row) -> str:
    """The option that names the busiest track where there are others; a name that a shell would read is left out."""
    name = found["tracks"][0]["track"]
    return f" --track {name}" if len(found["tracks"]) > 1 and re.fullmatch(r"[A-Za-z0-9][\w./:-]*", name) else ""
