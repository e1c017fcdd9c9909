"""What a brief tells: everything known of a track, and what is going on around it on this machine.

    found = gather(index, None, "longer warmdown") | {"running": running(index, runs), "queue": queued(knowledge)}

Not covered: how it is told (`lab/brief.py`).
"""

import os
from pathlib import Path

from lab.errors import StoreError
from lab.facts import (
    baseline,
    best_kept,
    champion,
    coverage,
    dead_ends,
    history,
    insights,
    main_track,
    near_margin,
    near_misses,
    open_questions,
    search,
    suspects,
    track_noise,
    tracks_of,
)
from lab.index import Index
from lab.judgement import SHOWN, Row, findings, judgement, settings_of
from lab.queue import load_queue
from lab.settings import project_root
from lab.store import is_alive, read_json, runs_dir

TRACKS, RELATED, FINDINGS = 20, 12, 12


def running(index: Index, runs: Path | None = None) -> list[Row]:
    """Runs of this machine that have no card yet: id, phase, hypothesis, agent, session.

    They are in the folder `runs` (default: that of the project around the commons).
    """
    runs = runs or runs_dir(project_root(index.knowledge) or index.knowledge.parent)
    try:
        names = os.listdir(runs)
    except OSError:
        return []  # nothing has run here
    found = []
    for name in names:
        if not (name.isascii() and name.isalnum()):
            continue  # no run's folder: those are named by their ids
        if index.row("SELECT 1 FROM cards WHERE id = ?", name) or not (runs / name / "start.json").exists():
            continue
        try:
            facts = read_json(runs / name / "start.json")
        except StoreError:
            continue  # damaged: no part of the commons, and a brief does not depend on it
        if type(pid := facts.get("pid")) is int and is_alive(pid):
            found.append({key: facts.get(key) for key in ("phase", "hypothesis", "agent", "session")} | {"id": name})
    return found


def queued(knowledge: Path) -> list[Row]:
    """What waits in the queue or has been claimed: status and description. StoreError when the queue does not parse."""
    return [{"status": item["status"], "description": item["description"]} for item in load_queue(knowledge)]


def gather(index: Index, track: str | None = None, idea: str | None = None) -> Row:
    """Everything a brief tells, of one track (`main_track`): what an agent should know before it plans.

    `idea` adds the cards and notes that share words with it.
    """
    track = main_track(index, track)
    noise_now = track_noise(index, track)
    counts = index.rows(
        "SELECT standing, sum(runs) AS runs FROM counts GROUP BY standing ORDER BY sum(runs) DESC, standing"
    )
    known = {row["standing"]: row["runs"] for row in counts}
    return {
        "cards": sum(known.values()),
        "status": known,
        "track": track,
        "tracks": [row | {"champion": best_kept(index, row["track"])} for row in tracks_of(index)[:TRACKS]],
        "noise": noise_now._asdict(),
        "champion": _champion_with_probability(index, track),
        "first": baseline(index, track),
        "related": search(index, idea, RELATED, every_word=False) if idea else [],
        "findings": _findings(index, track),
        "dead_ends": dead_ends(index, track, noise_now.sd, 24),
        "near_misses": near_misses(index, track, near_margin(index, track, settings_of(index)), 8),
        "coverage": coverage(index, track),
        "questions": open_questions(index),
        "insights": insights(index),
        "suspects": suspects(index, track),
        "crashes": _crashes(index, track),
        "last": history(index, track, 10),
    }


def _champion_with_probability(index: Index, track: str | None) -> Row | None:
    """The champion with the probability that it beats what it was edited from; null for a baseline."""
    best, belief = champion(index, track), judgement(index, track)
    step = belief.step(best["id"]) if best and belief and best["id"] in belief.nodes else None
    return best and best | {"probability": step.better if step else None}


def _findings(index: Index, track: str | None) -> list[Row]:
    """The findings as rows of the index with standing, probability, expected and the number of fresh repeats."""
    return [
        finding.row
        | {"standing": finding.standing, "probability": finding.probability, "expected": finding.expected,
           "repeats": finding.fresh}
        for finding in findings(index, track, FINDINGS)
    ]  # fmt: skip


def _crashes(index: Index, track: str | None, limit: int = 5) -> list[Row]:
    """The crashes of late, newest first."""
    return index.rows(
        f"SELECT {SHOWN} FROM cards WHERE track IS ? AND status = 'crash' ORDER BY timestamp DESC, id DESC LIMIT ?",
        track, limit,
    )  # fmt: skip
