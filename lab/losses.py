"""The losses of a run while it goes on, and those of its track's finished runs.

    write_loss(run_dir, 240, 62.0, 3.1)              # train.py's recorder, about once a second: losses.jsonl
    look = lookout(run_dir)                          # whoever runs train.py
    look()                                           # why the run is lost by now (lab/envelope.py), or None

A line is [step, seconds, loss], null where the loss is no number. What cannot be written, on a full disk, is left out:
a run that could still finish must not end for it. What cannot be read (a torn line, anything that train.py put there)
is passed over.
Not covered: what a loss tells (`lab/envelope.py`), and ending the run (`lab/runner.py`).
"""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lab.envelope import Envelope, Past, Point, envelope_of
from lab.errors import LabError
from lab.index import Index
from lab.judgement import RECENT, VALID
from lab.schema import is_number
from lab.store import read_json

LOSSES = "losses.jsonl"
MAX_BYTES = 2**22  # a line a second of a day and a half


def write_loss(run_dir: Path, step: int, seconds: float, loss: float) -> None:
    """Append a line; with the system when this returns, not yet on the disk. Nothing happens where it cannot be."""
    value = float(f"{loss:.6g}")
    line = json.dumps([int(step), round(float(seconds), 3), value if math.isfinite(value) else None])
    with suppress(OSError), open(run_dir / LOSSES, "ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


def read_losses(run_dir: Path) -> list[Point]:
    """The losses so far, NaN for what is no number; [] where there are none."""
    if not (run_dir / LOSSES).is_file():  # to read a pipe would take for ever
        return []
    try:
        with open(run_dir / LOSSES, "rb") as file:
            lines = file.read(MAX_BYTES).split(b"\n")
    except OSError:
        return []
    points = []
    for line in lines:
        with suppress(ValueError, RecursionError, TypeError):
            step, seconds, loss = json.loads(line)
            if is_number(step) and is_number(seconds) and (loss is None or is_number(loss)):
                points.append((int(step), float(seconds), math.nan if loss is None else float(loss)))
    return points


def history(index: Index, track: str | None, limit: int = RECENT) -> list[Past]:
    """The losses of the track's newest runs that finished, `limit` at most, oldest first."""
    rows = index.rows(
        "SELECT id, status FROM cards WHERE track = ? AND status IN ('keep', 'revert', 'inconclusive') "
        f"AND {VALID} ORDER BY timestamp DESC, id DESC LIMIT ?",
        track, limit,
    )  # fmt: skip
    found = []
    for row in reversed(rows):
        curve = index.read(row["id"])["results"]["loss_curve"] or []
        points = [(step, seconds, math.nan if loss is None else loss) for step, seconds, loss in curve]
        found.append(Past(points, row["status"] == "keep"))
    return found


def lookout(run_dir: Path) -> Callable[[], str | None]:
    """A function that says why the run in this folder is lost by now, None where it is not: `look` of `run_group`.

    It asks the commons once, when the run has its first loss. Of a commons that cannot be read it knows nothing.
    """
    known: list[Envelope] = []

    def look() -> str | None:
        points = read_losses(run_dir)
        if points and not known:
            known.append(_envelope(run_dir))
        return known[0].lost(points) if known else None

    return look


def _envelope(run_dir: Path) -> Envelope:
    """The envelope of the run's track. It is empty where the commons cannot be read, which must not end a run."""
    with suppress(LabError):
        facts = read_json(run_dir / "start.json") if (run_dir / "start.json").is_file() else {}
        place, track = facts.get("knowledge_dir"), facts.get("track")
        if isinstance(place, str) and isinstance(track, str):
            with Index(Path(place)) as index:
                return envelope_of(history(index, track))
    return Envelope()
