"""What is wrong with the files of the queue, and what can be saved of a damaged history.

    for problem in examine_queue(knowledge):
        print(problem.path, problem.detail)
    events, end = sound_lines(knowledge, content)                # for `lab.journal.Journal.keep`

Sound is what `lab/queue.py` reads. Nothing is changed here. Not covered: repairs (`lab/doctor.py`), and a line of the
history that was changed and is still one.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lab.brief import one_line
from lab.errors import StoreError
from lab.journal import Event, Journal
from lab.queue import finished_items, read_queue
from lab.snapshot import read_snapshot
from lab.witness import QUARANTINE, Problem, damaged

QUEUE, QUEUE_COPY, HISTORY = "queue.json", "queue.json.bak", "queue-history.jsonl"
Action = Literal["quarantine", "rebuild"]


def examine_queue(knowledge: Path) -> Iterator[Problem]:
    """What `lab/queue.py` refuses about the queue: the file, and its history as it goes on from there."""
    fault, through = _fault(knowledge, QUEUE), None
    if fault and fault.action != "none":
        if os.path.lexists(knowledge / QUEUE_COPY) and not _fault(knowledge, QUEUE_COPY):
            through = read_snapshot(knowledge / QUEUE_COPY).get("through")
            remedy = f"--repair restores {QUEUE_COPY} and keeps this one as {QUARANTINE}/{QUEUE}; nothing is lost"
            fault = fault._replace(remedy=remedy, action="restore", source=QUEUE_COPY)
        else:
            remedy = f"{fault.remedy}; what the history tells of is there again"
            fault = fault._replace(detail=f"{fault.detail}; neither is {QUEUE_COPY} usable", remedy=remedy)
    if fault:
        yield fault
    try:
        if fault:
            Journal(knowledge / HISTORY).since(through)
        else:
            read_queue(knowledge)
        finished_items(knowledge)
    except StoreError as error:
        remedy = f"--repair keeps its sound lines, and the whole of it as {QUARANTINE}/{HISTORY}"
        yield _refused(knowledge, HISTORY, error, remedy, "rebuild")


def _fault(knowledge: Path, name: str) -> Problem | None:
    """What is wrong with queue.json, or its copy, alone; None where nothing is, or it is not there."""
    if not os.path.lexists(knowledge / name):
        return None
    try:
        read_snapshot(knowledge / name)
    except StoreError as error:
        return _refused(knowledge, name, error, damaged(name, "").remedy, "quarantine")
    return None


def _refused(knowledge: Path, name: str, error: StoreError, remedy: str, action: Action) -> Problem:
    """A file of the queue that cannot be used; what a newer version wrote, or nobody may read, is left alone."""
    why, _, advice = str(error).partition("; ")
    path = str(knowledge / name)
    detail = one_line(why.removeprefix(f"{path}: ").replace(path, "it"), 200)
    if advice == "use a newer version":
        return Problem("queue", name, detail, advice)
    if why.startswith("cannot read"):
        return Problem("queue", name, detail, "make it a file that can be read")
    return Problem("queue", name, detail, remedy, action)


def sound_lines(knowledge: Path, content: bytes, new: bool = True) -> tuple[list[Event], int]:
    """The changes that a history of this content still tells, and the position of its end that makes them fit.

    queue.json, or its copy where it is damaged, then stands among them where it stood: it has in it what comes before,
    and the `new` ones come behind.
    """
    usable = (knowledge / name for name in (QUEUE, QUEUE_COPY) if not _fault(knowledge, name))
    through = next((read_snapshot(path).get("through") for path in usable if path.exists()), None)
    first, *lines = content.split(b"\n")[:-1] or [b""]
    header = _json(first)
    position = header["dropped"] if isinstance(header, dict) and type(header.get("dropped")) is int else 0
    events, end = [], len(content) if through is None else through
    for line in lines:
        event = _json(line)
        if isinstance(event, dict) and _is_change(event.get("items")):
            if through is None or position < through:
                events.append(event)
            elif new:
                events.append(event)
                end += len(json.dumps(event)) + 1
        position += len(line) + 1
    return events, end


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_change(items: Any) -> bool:
    return isinstance(items, list) and all(isinstance(x, dict) and isinstance(x.get("id"), str) for x in items)
