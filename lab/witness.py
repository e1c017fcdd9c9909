"""Whether the records of a commons are as they were written: by their own words, by what others say, by git.

    for problem in examine_records(knowledge, {"cards": [ids], "events": [ids], "notes": [ids]}):
        print(problem.path, problem.detail)

Git is the only witness of a record that was changed after it was written: HEAD's, and before it that of
refs/autoresearch/knowledge. Nothing is changed here. Not covered: files that have no record's name, and repairs
(`lab/doctor.py`).
"""

import json
import os
import re
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from lab.brief import one_line
from lab.errors import CardError, StoreError
from lab.git import KNOWLEDGE_REF, blob_hash, blob_sizes, git, read_blobs
from lab.notes import NOTE_DEFAULTS
from lab.schema import ID_PATTERN, MAX_NESTING, Card, complete, too_deep, validate_card, validate_event, validate_note

QUARANTINE = "quarantine"
MIN_ID_CHARACTERS = 7  # a shorter beginning of an id names nothing for long
BLOBS_AT_ONCE = 100

# In this order: a card is examined with the events about it known.
VALIDATE = {"events": validate_event, "notes": validate_note, "cards": validate_card}
RECORD_NAME = re.compile(rf"{ID_PATTERN}\.json")
_ALGORITHM = {40: "sha1", 64: "sha256"}  # by the length of a hash


class Problem(NamedTuple):
    """What is wrong with `path` (relative to the commons' folder), in one line, and what can be done about it.

    `remedy` says what `--repair` does, or what a person can do. `action` is what `repair` does: give a record its
    `name`, `restore` a file from `source` (a blob of git, or a file), move it to `quarantine`, `rebuild` the index, or
    `none`.
    """

    kind: str
    path: str
    detail: str
    remedy: str
    action: Literal["name", "restore", "quarantine", "rebuild", "none"] = "none"
    source: str | None = None


def examine_records(knowledge: Path, ids: dict[str, list[str]]) -> Iterator[Problem]:
    """What is wrong with the files that have a record's name, and with what they refer to; `ids` sorted, by folder."""
    hashes = _held(knowledge)
    doubted: list[tuple[str, str, str | None]] = []  # path, git's blob, why the file is useless ("" when it is not)
    for folder, names in ids.items():
        for name in names:
            path = f"{folder}/{name}.json"
            recorded = hashes.pop(path, None)
            try:
                content = (knowledge / path).read_bytes()
            except FileNotFoundError:
                continue  # moved since the folder was listed
            except OSError as error:
                yield Problem("unreadable", path, f"cannot be read: {error.strerror}", "make it readable")
                continue
            record, broken = _parse(folder, name, content)
            if recorded and recorded != blob_hash(content, _ALGORITHM[len(recorded)]):
                doubted.append((path, recorded, broken or ""))
            elif broken:
                yield damaged(path, broken) if record is None else misplaced(knowledge, path, broken, "misnamed")
            if record is not None and not broken:
                yield from _dangling(path, record, ids)
    gone = [path for path in sorted(hashes) if not os.path.lexists(knowledge / QUARANTINE / path)]  # else set aside
    yield from _told_by_git(knowledge, [*doubted, *((path, hashes[path], None) for path in gone)])


def _parse(folder: str, name: str, content: bytes) -> tuple[Card | None, str | None]:
    """The record in a file, None where there is none; and why the file cannot stand as it is, None when it can."""
    try:
        record = json.loads(content)
        if not isinstance(record, dict):
            return None, f"it holds a {type(record).__name__} where an object belongs"
        if too_deep(record):
            return None, f"it is nested deeper than {MAX_NESTING} levels"
        if not _is_finite(record):
            return None, "it holds NaN or infinity, which JSON has not; an unknown value is null"
        record = complete(record) if folder == "cards" else (NOTE_DEFAULTS | record if folder == "notes" else record)
        VALIDATE[folder](record)
    except CardError as error:
        return None, str(error)
    except (ValueError, RecursionError) as error:  # the latter where brackets are nested by the thousand
        return None, "it is not JSON: " + one_line(error)
    named = record["id"] == name
    return record, None if named else f"the record in it is {record['id']}, and a record's file has its name"


def _is_finite(record: Card) -> bool:
    try:
        json.dumps(record, allow_nan=False)
    except ValueError:
        return False
    return True


def damaged(path: str, why: str, kind: str = "damaged") -> Problem:
    """A file of which nothing can be saved in place: it moves to quarantine."""
    return Problem(kind, path, why, f"--repair moves it to {QUARANTINE}/{one_line(path, 200)}", "quarantine")


def _dangling(path: str, record: Card, ids: dict[str, list[str]]) -> Iterator[Problem]:
    """References of a record to records that are not there; they may come with the next sync."""
    what = path.partition("/")[0]
    sync = "`commons.py sync` brings it if another clone has it"
    if what == "events":
        if not _names(ids["cards"], record["card"], whole=True):
            yield Problem("event without card", path, f"it is about card {record['card']}, which is not here", sync)
        return
    links = "prior_knowledge_used" if what == "cards" else "evidence"
    for prior in record[links]:
        if not _names(ids["cards"], prior):
            detail = f"its {links} has {one_line(repr(prior))}, which names no card here"
            yield Problem(f"{links} points nowhere", path, detail, sync)
    if what == "notes" and record["answers"] and not _names(ids["notes"], record["answers"], whole=True):
        yield Problem("answer without question", path, f"it answers note {record['answers']}, which is not here", sync)


def _names(ids: list[str], name: str, whole: bool = False) -> bool:
    """Whether `name` is one of the sorted ids, or, unless it must be whole, the beginning of one."""
    place = bisect_left(ids, name)
    found = ids[place] if place < len(ids) else ""
    return found == name if whole else len(name) >= MIN_ID_CHARACTERS and found.startswith(name)


def _held(knowledge: Path) -> dict[str, str]:
    """{path relative to the commons: hash of its blob} of every record that git holds; {} without git."""
    found = {}
    for ref in ("HEAD", KNOWLEDGE_REF):
        # The latter decides: only sync writes it, and only where one name had two contents has it replaced a record,
        # alike in every clone and with the loser in quarantine.
        listing = git(knowledge, "ls-tree", "-r", "-z", ref, "--", *VALIDATE) or b""
        for entry in listing.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            about, _, path = entry.partition("\t")
            mode, _, blob = about.split()
            folder, _, name = path.partition("/")
            if mode.startswith("100") and folder in VALIDATE and RECORD_NAME.fullmatch(name):
                found[path] = blob
    return found


def originals(knowledge: Path, blobs: list[str]) -> Iterator[bytes | None]:
    """The content of each blob; None for one that git cannot give. A few of them are in memory at a time."""
    for start in range(0, len(blobs), BLOBS_AT_ONCE):
        batch = blobs[start : start + BLOBS_AT_ONCE]
        try:
            contents = read_blobs(knowledge, blob_sizes(knowledge, batch))
        except StoreError:
            contents = {}  # git's own store is damaged
        yield from (contents.get(blob) for blob in batch)


def _told_by_git(knowledge: Path, doubted: list[tuple[str, str, str | None]]) -> Iterator[Problem]:
    """The records that are gone (None) or not as git holds them, where git's is a whole one."""
    contents = originals(knowledge, [blob for _, blob, _ in doubted])
    for (path, blob, broken), original in zip(doubted, contents, strict=True):
        folder, _, name = path.partition("/")
        if original is None or _parse(folder, name[:-5], original)[1]:
            if broken:
                yield damaged(path, broken)
        elif broken is None:
            yield Problem("missing", path, "git holds it", "--repair restores it from git", "restore", blob)
        else:
            detail = f"{broken or 'it is not as it was written'}; git holds the original"
            remedy = f"--repair restores it from git and keeps this one as {QUARANTINE}/{path}"
            yield Problem("changed", path, detail, remedy, "restore", blob)


def misplaced(knowledge: Path, path: str, why: str, kind: str) -> Problem:
    """A file under a name it cannot keep: a whole record in it, if there is none of its id, is saved."""
    name = own_name(path, read_bytes(knowledge / path))
    if name is None or os.path.lexists(knowledge / name):
        return damaged(path, why, kind)
    return Problem(kind, path, f"{why}; the record in it is whole", f"--repair names it {name}", "name")


def own_name(path: str, content: bytes | None) -> str | None:
    """The path that belongs to the whole record in a file, None where there is none."""
    folder = os.path.dirname(path)
    record = _parse(folder, "", content)[0] if content and folder in VALIDATE else None
    return f"{folder}/{record['id']}.json" if record else None


def read_bytes(path: Path) -> bytes | None:
    """The content of a file; None where there is none any more."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
