"""How a run ended, as a card: from the run's folder, or from the exception that ended it.

A run's folder holds start.json (the facts), later summary.json (the results) and perhaps run.log. `record` makes the
card from them; train.py, its watcher and whoever runs train.py call it, and who comes second changes nothing.
Not covered: who notices the end (`lab/recorder.py`), and the verdict (`lab/decide.py`).
"""

import errno
import math
import re
import sys
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.cards import add_card, card_path, utc_now
from lab.decide import decide, packet
from lab.errors import CardError, LabError, StoreError
from lab.facts import champion
from lab.index import Index
from lab.judgement import judgement
from lab.losses import read_losses
from lab.runs import signature
from lab.schema import ID_PATTERN, MAX_LOSS_CURVE_POINTS, Card, complete, validate_card
from lab.settings import Settings, judging
from lab.store import dump_json, read_json, replace

ERROR = "error.json"  # what the card that a run left on another machine says of a crash there
TAIL_LINES = 20
MAX_LINE_CHARACTERS = 400
RECENT = 20  # runs among which a crash like this one is looked for
_DISK_SIGNS = ("No space left on device", "PytorchStreamWriter failed writing")
_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")

# What start.json keeps for this machine alone.
_NOT_FOR_THE_CARD = ("timestamp", "pid", "argv", "phase", "knowledge_dir")


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt no Exception, so that no handler in train.py swallows it."""


def record(run_dir: Path, error: Card | None = None, loss_curve: list[list[Any]] | None = None) -> Card:
    """Write the card of the run in this folder, or return the one it has.

    With a summary.json the card carries its results and `error` is ignored: what was measured counts, even when the
    process died before it could say so. `loss_curve` is what a crashed run has to show; None is what it left on disk.
    CardError where what the run has put there makes no card, StoreError where the commons cannot be written.
    """
    facts = read_left(run_dir / "start.json")
    place, name = facts.get("knowledge_dir"), facts.get("run_id")
    if not isinstance(place, str) or not isinstance(name, str) or not re.fullmatch(ID_PATTERN, name):
        raise CardError(f"{run_dir / 'start.json'} does not say which run it is of")
    knowledge = Path(place)
    path = card_path(knowledge, name)
    if path.exists():
        return read_json(path)
    files = sorted(file.name for file in run_dir.iterdir() if not file.name.startswith("."))
    if "summary.json" in files:
        outcome = outcome_of(read_left(run_dir / "summary.json"))
    else:
        curve = thin(read_losses(run_dir)) if loss_curve is None else loss_curve
        outcome = {"status": "crash", "results": {"loss_curve": curve}, "error": error}
    validate_card(card_of(facts, {"status": "inconclusive"} | outcome))  # what is compared is what it should be
    outcome |= _decided(knowledge, facts | outcome)
    outcome["artifacts"] = {"files": files} | outcome.get("artifacts", {})
    try:
        card = add_card(knowledge, card_of(facts, outcome))
    except CardError:
        if not path.exists():
            raise
        return read_json(path)  # somebody was faster
    try:
        replace(run_dir / "decision.md", ("\n".join(["# Decision", "", *packet(card)]) + "\n").encode())
    except StoreError as failure:
        print(f"warning: {failure}", file=sys.stderr)  # the card has it too
    return card


def read_left(path: Path) -> Card:
    """The object in a file that a run has left. CardError where that is none: it may have put anything there."""
    if not path.is_file():  # to read a pipe would take for ever
        raise CardError(f"{path} is no plain file")
    try:
        return read_json(path)
    except StoreError as error:
        raise CardError(str(error)) from error


def compared(index: Index, values: Card) -> Card:
    """What a new card says beyond its facts (`lab.decide.decide`): its values against the commons as it is now.

    CardError when the champion of its track measures something else.
    """
    track, error = values.get("track"), values.get("error")
    row = champion(index, track)
    best = index.read(row["id"]) if row else None
    if best and best["metric"] != (values.get("metric") or "val_bpb"):
        raise CardError(f"champion {best['id']} of the track measures {best['metric']}")
    alike = 0
    if error:
        recent = "SELECT id, status FROM cards WHERE track IS ? ORDER BY timestamp DESC, id DESC LIMIT ?"
        crashed = [row["id"] for row in index.rows(recent, track, RECENT) if row["status"] == "crash"]
        mine = signature({"hypothesis": None} | values)
        alike = sum(signature(index.read(other)) == mine for other in crashed)
    return decide(values, judgement(index, track), best, judging(index.knowledge), same_error=alike)


def _decided(knowledge: Path, values: Card) -> Card:
    """`compared`, or a comparison with nothing where a damaged file is in the way: it must not cost a run its card."""
    try:
        with Index(knowledge) as index:
            found = compared(index, values)
            found["novelty"] = _novelty(index, values, found["config_diff"])
            dump_json(found)  # it holds what others wrote
            return found
    except LabError as error:
        print(f"warning: this run is compared with nothing: {error}", file=sys.stderr)
        return decide(values, None, None, Settings(), known=False)


def _novelty(index: Index, values: Card, difference: Card | None) -> Card:
    """Whether it had been tried before this run, as `commons.py check` would have said."""
    from lab.tried import Edit, check  # which reads a vocabulary that most commands have no use for

    changes = "; ".join(f"{name} {old} -> {new}" for name, (old, new) in (difference or {}).items())
    mode = "replicate" if "replicate" in (values.get("tags") or ()) else "explore"
    edit = Edit(changes, values.get("edit_key"))
    found = check(index, values.get("hypothesis") or "", mode, edit, track=values.get("track"), limit=3)
    closest = [{name: row[name] for name in ("id", "similarity", "outcome")} for row in found["closest"]]
    return {name: found[name] for name in ("classification", "decision", "mode", "reason")} | {"closest": closest}


def card_of(facts: Card, outcome: Card) -> Card:
    """The card's values from start.json and the outcome; the time is now."""
    public = {name: value for name, value in facts.items() if name not in _NOT_FOR_THE_CARD}
    return complete({"id": facts["run_id"], "timestamp": utc_now()} | public | outcome)


def outcome_of(summary: Card) -> Card:
    """summary.json as the card has it: the artifacts beside the results."""
    results = {name: value for name, value in summary.items() if name not in ("run_id", "artifacts")}
    return {"results": results, "artifacts": summary.get("artifacts") or {}}


def classify(error: BaseException) -> tuple[str, int]:
    """(error kind, exit code) of what ended a run. torch's classes are known by name: torch is not imported here."""
    if isinstance(error, LabError):
        return (error.kind if error.kind != "exception" else _kind(error)), 2
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, Terminated):
        return "interrupted", 143
    return _kind(error), 1


def _kind(error: BaseException) -> str:
    """The kind of an error that does not say it itself: by what the system answered, by its class, by its words."""
    answers = {one.errno for one in _chain(error) if isinstance(one, OSError)}
    # What is not written in Python has the system's answer in its words only, or (torch.save) not even there.
    if answers & {errno.ENOSPC, errno.EDQUOT} or any(sign in str(error) for sign in _DISK_SIGNS):
        return "disk"
    names = {base.__name__ for base in type(error).__mro__}
    # The allocators of MPS and CPU and cuBLAS have no class for it, only words in a RuntimeError.
    words = str(error) if isinstance(error, RuntimeError) else ""
    if names & {"MemoryError", "OutOfMemoryError"} or errno.ENOMEM in answers or any(s in words for s in _MEMORY_SIGNS):
        return "oom"
    return "killed" if words.startswith("DataLoader worker") else "exception"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def make_error(kind: str, phase: str | None, summary: str, tail: list[str]) -> Card:
    """A card's `error`: the summary on one line, the last lines of `tail`, long lines cut."""
    lines = [line[:MAX_LINE_CHARACTERS] for line in tail[-TAIL_LINES:]]
    return {"kind": kind, "phase": phase, "summary": " ".join(summary.split())[:MAX_LINE_CHARACTERS], "tail": lines}


def summarise_error(error: BaseException) -> str:
    """The failure in one line."""
    if isinstance(error, LabError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if isinstance(error, Terminated):
        return "stopped by SIGTERM"
    first_line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


def thin(losses: list[tuple[int, float, float]]) -> list[list[Any]]:
    """At most 64 of the points (step, seconds, loss), evenly over time, the first and the last among them.

    A loss that is not finite becomes null.
    """
    if len(losses) > MAX_LOSS_CURVE_POINTS:
        times = [seconds for _, seconds, _ in losses]
        width = (times[-1] - times[0]) / (MAX_LOSS_CURVE_POINTS - 1)
        picked = {bisect_left(times, times[0] + width * slot) for slot in range(MAX_LOSS_CURVE_POINTS - 1)}
        last = len(losses) - 1  # beyond it is what a search among seconds that run backwards may find
        losses = [losses[index] for index in sorted({min(index, last) for index in picked} | {last})]
    return [[step, round(seconds, 3), plain(float(f"{loss:.6g}"))] for step, seconds, loss in losses]


def plain(value: Any) -> Any:
    """The value as JSON has it: numpy and torch scalars as numbers, NaN and infinity as null, the rest as text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return plain(value.item()) if hasattr(value, "item") else str(value)
