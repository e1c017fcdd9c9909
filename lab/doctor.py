"""What is wrong with a commons, and setting right what can be: `commons.py doctor [--repair]`.

    problems = examine(knowledge)     # changes nothing
    repair(knowledge, problems)       # sentences about what was done

What another copy still tells is put back: a complete record that never got its name, a record that git holds, the
queue from its previous copy, its history from the lines that are sound. The rest moves to `knowledge/quarantine/` under
its own path. Nothing is deleted but the index, which is a cache. It may be killed and run again, and two may run at
once.

What is wrong with records, `lab/witness.py` finds, and with the queue, `lab/salvage.py`. Readers see an index that lags
behind and bring it up to date, so only a damaged one is a problem. Not covered: without git, or before a record is
committed or synced, a change that leaves the record valid cannot be known, nor one that was committed and never synced
before.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

from lab import index
from lab.brief import counted, one_line
from lab.errors import StoreError
from lab.journal import Journal
from lab.locks import locked
from lab.salvage import HISTORY, QUEUE, QUEUE_COPY, examine_queue, sound_lines
from lab.store import is_alive, replace, sync_folder, write_new
from lab.witness import (
    QUARANTINE,
    RECORD_NAME,
    VALIDATE,
    Problem,
    damaged,
    examine_records,
    misplaced,
    originals,
    own_name,
    read_bytes,
)

TEMPORARY_MAX_SECONDS = 3600.0  # no write takes this long

_FOLDERS = (".", *VALIDATE, "synthesis")
_TEMPORARY = re.compile(r"\..+\.([0-9]+)\.[0-9a-f]{8}\.tmp", re.DOTALL)
_WELCOME = {".gitkeep", ".gitignore"}


def examine(knowledge: Path) -> list[Problem]:
    """Everything that is wrong, in the order of paths. StoreError when the folder cannot be read.

    Cards are read one after the other and none is kept: of a commons only the names stay in memory.
    """
    entries = {folder: _entries(knowledge, folder) for folder in _FOLDERS}
    ids = {folder: [name[:-5] for name, kind in entries[folder] if _is_record(name, kind)] for folder in VALIDATE}
    problems = [*examine_records(knowledge, ids), *_index(knowledge), *examine_queue(knowledge)]
    for folder, found in entries.items():
        for name, kind in found:
            if not (folder in VALIDATE and _is_record(name, kind)):
                problems += _stranger(knowledge, folder, name, kind)
    return sorted(problems, key=lambda problem: (problem.path, problem.kind, problem.detail))


def repair(knowledge: Path, problems: Iterable[Problem]) -> list[str]:
    """Do what can be done about the problems that `examine` found; sentences about what was done, in their order.

    What is no longer as it was found, because somebody else repaired it, is left alone. StoreError names the first
    file that cannot be changed.
    """
    said, problems = [], list(problems)
    from_git = [problem.source or "" for problem in problems if problem.action == "restore" and problem.path != QUEUE]
    contents = originals(knowledge, from_git)
    for problem in problems:
        try:
            if problem.action == "restore":
                original = read_bytes(knowledge / QUEUE_COPY) if problem.path == QUEUE else next(contents)
                done = _restore(knowledge, problem.path, original) if original is not None else None
            else:
                done = _DO[problem.action](knowledge, problem.path)
        except OSError as error:
            remedy = "free space there or make the folder writable"
            raise StoreError(f"cannot repair {knowledge / problem.path}: {error.strerror}; {remedy}") from error
        if done:
            said.append(f"{one_line(problem.path, 200)}: {done}")
    return said


def _entries(knowledge: Path, folder: str) -> list[tuple[str, str]]:
    """(name, "file" or "link" or "other") of everything in a folder, by name; only the commons itself must be there."""
    try:
        with os.scandir(knowledge / folder) as found:
            return sorted((entry.name, _kind(entry)) for entry in found)
    except FileNotFoundError as error:
        if folder == ".":
            raise StoreError(f"there is no commons in {knowledge}; `commons.py init` makes one") from error
        return []
    except OSError as error:
        raise StoreError(f"cannot read {knowledge / folder}: {error.strerror}") from error


def _kind(entry: os.DirEntry[str]) -> str:
    return "file" if entry.is_file(follow_symlinks=False) else "link" if entry.is_symlink() else "other"


def _is_record(name: str, kind: str) -> bool:
    return kind == "file" and RECORD_NAME.fullmatch(name) is not None


# What is no record


def _stranger(knowledge: Path, folder: str, name: str, kind: str) -> Iterator[Problem]:
    """What is wrong with a file that has no record's name: a temporary anywhere, or anything in a record folder."""
    path = os.path.normpath(f"{folder}/{name}")
    temporary = _TEMPORARY.fullmatch(name)
    if temporary and kind == "file":
        if not _is_being_written(knowledge / path, int(temporary[1])):
            yield misplaced(knowledge, path, f"process {temporary[1]} did not finish writing it", "temporary")
    elif folder not in VALIDATE or name in _WELCOME:
        return
    elif kind == "link":
        yield damaged(path, "a link is no record, and may lead out of the commons", "link")
    elif name.endswith(".json") and not name.startswith("."):
        why = "a record's file is named by 12 to 64 hex characters"
        yield misplaced(knowledge, path, why, "misnamed") if kind == "file" else damaged(path, why, "misnamed")
    else:
        yield Problem("stranger", path, "it is no record and does not belong here", "move it elsewhere")


def _is_being_written(path: Path, pid: int) -> bool:
    """Whether the writer of a temporary is at it: its process lives (on this machine), and not for an hour."""
    try:
        return time.time() - path.stat().st_mtime <= TEMPORARY_MAX_SECONDS and is_alive(pid)
    except FileNotFoundError:
        return True  # it has its name by now
    except OSError:
        return False


def _index(knowledge: Path) -> Iterator[Problem]:
    if reason := index.check(knowledge):
        remedy = "--repair removes it; the next reader builds it again"
        yield Problem("index", "index.sqlite", one_line(reason), remedy, "rebuild")
    elif changed := list(index.edited(knowledge)):
        why = f"{len(changed)} of its cards were edited since in their files, first cards/{changed[0]}.json"
        remedy = "retract them where the edit is wrong; --repair removes the index; the next reader builds it again"
        yield Problem("index", "index.sqlite", why, remedy, "rebuild")


# Repairs


def _name(knowledge: Path, path: str) -> str | None:
    """Give a whole record the name that belongs to it; where somebody was faster, set the file aside."""
    content = read_bytes(knowledge / path)
    name = own_name(path, content)
    if content is None:
        return None
    if not name or not write_new(knowledge / name, content):
        return _set_aside(knowledge, path)
    (knowledge / path).unlink(missing_ok=True)  # its content is safe under the new name
    return f"named {name}"


def _restore(knowledge: Path, path: str, original: bytes) -> str | None:
    """Put the original in its place. What stood there is copied to quarantine first: the place is never empty."""
    there = read_bytes(knowledge / path)
    if there == original:
        return None
    if there is None:
        return "restored" if write_new(knowledge / path, original) else None
    aside = _copy_aside(knowledge, path, there)
    replace(knowledge / path, original)
    return f"restored; what was there is kept as {aside}"


def _copy_aside(knowledge: Path, path: str, content: bytes) -> str:
    """Copy what a file holds to quarantine, unless it is there; its name there."""
    for aside in _free_names(path):
        if read_bytes(knowledge / aside) == content or write_new(knowledge / aside, content):
            return aside
    raise AssertionError("there is always a free name")


def _mend(knowledge: Path, path: str) -> str | None:
    """Write the history of the queue anew from its sound lines."""
    with locked(knowledge / f"{QUEUE}.lock"):
        there = read_bytes(knowledge / path)
        if there is None or not any(problem.path == path for problem in examine_queue(knowledge)):
            return None
        aside = _copy_aside(knowledge, path, there)
        for new in (True, False):  # one of the new lines may read like a change and be none
            events, end = sound_lines(knowledge, there, new)
            Journal(knowledge / path).keep(events, end)
            if not any(problem.path == path for problem in examine_queue(knowledge)):
                break
    return f"rebuilt from {counted(len(events), 'sound line')}; what was there is kept as {aside}"


def _set_aside(knowledge: Path, path: str) -> str | None:
    """Move a file, a link or a folder to quarantine."""
    aside = next(name for name in _free_names(path) if not os.path.lexists(knowledge / name))
    (knowledge / aside).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(knowledge / path, knowledge / aside)
    except FileNotFoundError:
        return None
    sync_folder((knowledge / aside).parent)
    sync_folder((knowledge / path).parent)
    return f"moved to {one_line(aside, 200)}"


def _free_names(path: str) -> Iterator[str]:
    """The names a file may have in quarantine: its own, then with .1, .2 and so on."""
    yield f"{QUARANTINE}/{path}"
    yield from (f"{QUARANTINE}/{path}.{number}" for number in count(1))


def _rebuild(knowledge: Path, path: str) -> str | None:
    if path == HISTORY:
        return _mend(knowledge, path)
    index.remove(knowledge)
    return "removed; the next reader builds it again"


_DO: dict[str, Callable[[Path, str], str | None]] = {
    "name": _name, "quarantine": _set_aside, "rebuild": _rebuild, "none": lambda knowledge, path: None,
}  # fmt: skip
