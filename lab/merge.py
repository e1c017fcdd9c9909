"""Bring the commons on disk and a commit of the knowledge branch to the union of their records.

    merged = merge(commons, tip, own, dry_run=False, said={})   # merged.add is what the branch lacks

Records are immutable and named by id, so files of different names never conflict. Where valid files with different
bytes have one name, the smallest SHA-256 wins, in every clone alike, and the others go to quarantine/. A file that
cannot be used stays where it is and is told in `said`. Not covered: commits, refs and remotes (`lab/sync.py`).
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from lab.brief import one_line
from lab.errors import CardError, StoreError
from lab.git import blob_hash, blob_sizes, list_folders, read_blobs, store_files
from lab.notes import NOTE_DEFAULTS
from lab.schema import ID_PATTERN, MAX_NESTING, Card, complete, too_deep, validate_card, validate_event, validate_note
from lab.store import replace, write_new

FOLDERS = ("cards", "events", "notes", "synthesis")
MAX_FILE_BYTES = 1 << 20
BATCH_BYTES = 32 << 20
WRITERS = 8  # their fsyncs share one journal commit: 1,000 files in 0.6 s instead of 1.1 s
MAX_NAMED, MAX_TOLD_CHARACTERS = 5, 400  # of the files that cannot be used

_NAME = re.compile(rf"(cards|events|notes)/{ID_PATTERN}\.json|synthesis/[0-9A-Za-z][0-9A-Za-z._-]{{0,99}}\.md")
_VALIDATE: dict[str, Callable[[Card], None]] = {
    "cards": lambda card: validate_card(complete(card)),
    "events": validate_event,
    "notes": lambda note: validate_note(NOTE_DEFAULTS | note),
}

Files = dict[str, str]  # name relative to the commons' folder -> hash of the blob
Said = dict[str, None]  # a set of sentences that keeps their order: another try says the same again


class Commons(NamedTuple):
    """Where things are: the commons' folder and its path in the worktree ("" or ending in /), and git's own."""

    folder: Path
    prefix: str
    top: Path
    git_dir: Path
    algorithm: str


class _Version(NamedTuple):
    """One of the contents a file could have: its name in git, and what decides between two."""

    blob: str
    sha256: str


class Merged(NamedTuple):
    """What makes disk and branch the same union: blobs for the branch (`add`), records that reached the disk."""

    add: Files
    fetched: set[str]
    restored: set[str]


def merge(commons: Commons, base: str | None, own: str | None, dry_run: bool, said: Said) -> Merged:
    """Bring the disk to the union of itself, the branch's tip `base` and our own ref; `add` is what `base` lacks.

    A record that is on disk and was on the branch when we last looked is not read again. What the user should know
    goes into `said`. StoreError when git or the disk refuses.
    """
    theirs = _listed(commons, base, said)
    ours = theirs if own == base else _listed(commons, own, said)
    disk = _on_disk(commons)
    settled = {name for name in disk & theirs.keys() if theirs[name] == ours.get(name) and name.endswith(".json")}
    here = _read_disk(commons, disk - settled, said)
    merged = Merged({}, set(), set())
    wanted: dict[str, list[str]] = {}  # name -> the blobs that have to be read to decide
    for name in sorted((disk | theirs.keys() | ours.keys()) - settled):
        mine = here.get(name)
        if name in disk and mine is None:
            continue  # unusable, and the doctor's: neither pushed nor overwritten
        others = _others(name, mine and mine.blob, theirs.get(name), ours.get(name))
        if others:
            wanted[name] = others
        elif mine and mine.blob != theirs.get(name):
            merged.add[name] = mine.blob
    with ThreadPoolExecutor(WRITERS) as pool:
        for losers, winners in _decided(commons, wanted, here, theirs, merged.add, said):
            for name in winners.keys() - disk:
                if name.endswith(".json"):
                    (merged.restored if name in ours else merged.fetched).add(name)
            if dry_run:
                continue
            for files in (losers, winners):  # a loser is in quarantine/ before another file takes its name
                stands = (name in here for name in files)
                list(pool.map(_place, repeat(commons), files, files.values(), stands))
    if not dry_run:
        own_files = {name: version.blob for name, version in here.items() if merged.add.get(name) == version.blob}
        _store_blobs(commons, own_files)
    return merged


def _others(name: str, mine: str | None, theirs: str | None, ours: str | None) -> list[str]:
    """The blobs that could take the place of the one on disk (`mine`), the branch's before that of our own ref.

    A synthesis can be made again, so no two compete: one written here since the last sync stays, else the branch's is
    newer.
    """
    if name.endswith(".md") and mine is not None:
        return [theirs] if theirs is not None and mine == ours and mine != theirs else []
    found = list(dict.fromkeys(blob for blob in (theirs, ours) if blob is not None and blob != mine))
    return found[:1] if name.endswith(".md") else found


def _decided(
    commons: Commons, wanted: dict[str, list[str]], here: dict[str, _Version], theirs: Files, add: Files, said: Said
) -> Iterator[tuple[dict[str, bytes], dict[str, bytes]]]:
    """Batches of files to write, (losers, winners); what the branch should have instead goes into `add`."""
    bad: list[str] = []
    for batch in _batches(commons, wanted):
        losers: dict[str, bytes] = {}
        winners: dict[str, bytes] = {}
        for name, contents in batch.items():
            known = {}
            for blob, content in contents.items():
                if problem := _problem(name, content):
                    bad.append(f"{name} {problem}")
                else:
                    known[_Version(blob, _sha256(content))] = content
            mine = here.get(name)
            if mine and (name.endswith(".json") or not known):
                known[mine] = _read(commons, name)
            if not known:
                continue
            best = min(known, key=lambda version: version.sha256)
            if best.blob != theirs.get(name):
                add[name] = best.blob
            if best != mine:
                winners[name] = known[best]
            for loser in known.keys() - {best}:
                losers[f"quarantine/{name}.{loser.sha256[:12]}"] = known[loser]
                said[f"{name} had two contents: the smaller SHA-256 stays, the other is in quarantine/"] = None
        yield losers, winners
    _say_first(bad, "on the knowledge branch: left there", said)


def _batches(commons: Commons, wanted: dict[str, list[str]]) -> Iterator[dict[str, dict[str, bytes]]]:
    """The names with the contents of their blobs, BATCH_BYTES or so at a time; b"" for one that is too large."""
    sizes = blob_sizes(commons.top, [blob for blobs in wanted.values() for blob in blobs])
    small = {blob: size for blob, size in sizes.items() if size <= MAX_FILE_BYTES}
    batch: dict[str, list[str]] = {}
    held = 0
    for position, (name, blobs) in enumerate(wanted.items(), 1):
        batch[name] = blobs
        held += sum(small.get(blob, 0) for blob in blobs)
        if held > BATCH_BYTES or position == len(wanted):
            asked = {blob: small[blob] for blobs in batch.values() for blob in blobs if blob in small}
            contents = read_blobs(commons.top, asked)
            yield {name: {blob: contents.get(blob, b"") for blob in blobs} for name, blobs in batch.items()}
            batch, held = {}, 0


def _listed(commons: Commons, commit: str | None, said: Said) -> Files:
    """The files of the commons in a commit that can be records: plain ones with a record's name."""
    files, strange = {}, []
    folders = [f"{commons.prefix}{folder}/" for folder in FOLDERS]
    for mode, blob, path in list_folders(commons.top, commit, folders) if commit else ():
        name = path[len(commons.prefix) :]
        if mode.startswith("100") and _NAME.fullmatch(name):
            files[name] = blob
        elif "/." not in name:  # .gitkeep and its like
            strange.append(f"{name!r} is no plain file with a record's name")
    _say_first(strange, "on the knowledge branch: left there", said)
    return files


def _on_disk(commons: Commons) -> set[str]:
    """The names of the plain files of the commons that can be records."""
    names: set[str] = set()
    for folder in FOLDERS:
        try:
            with os.scandir(commons.folder / folder) as entries:
                found = (f"{folder}/{entry.name}" for entry in entries if entry.is_file(follow_symlinks=False))
                names.update(name for name in found if _NAME.fullmatch(name))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"cannot read {commons.folder / folder}: {error.strerror}") from error
    return names


def _read_disk(commons: Commons, names: set[str], said: Said) -> dict[str, _Version]:
    """The usable ones of these files."""
    found, bad = {}, []
    for name in sorted(names):
        content = _read(commons, name)
        if problem := _problem(name, content):
            bad.append(f"{name} {problem}")
        else:
            found[name] = _Version(blob_hash(content, commons.algorithm), _sha256(content))
    _say_first(bad, "here: not shared, `commons.py doctor` sets it right", said)
    return found


def _read(commons: Commons, name: str) -> bytes:
    """A file of the commons; b"", which no record is, when git has deleted it a moment ago."""
    try:
        with open(commons.folder / name, "rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StoreError(f"cannot read {commons.folder / name}: {error.strerror}") from error


def _problem(name: str, content: bytes) -> str | None:
    """Why this content is not shared under this name; None when it may be."""
    if not 0 < len(content) <= MAX_FILE_BYTES:
        return f"is empty, missing or larger than {MAX_FILE_BYTES >> 20} MiB"
    if name.endswith(".md"):
        return None
    folder, _, file_name = name.partition("/")
    try:
        record = json.loads(content)
        json.dumps(record, allow_nan=False)  # 1e999 reads as infinity
        if not isinstance(record, dict):
            return "is not a JSON object"
        if too_deep(record):
            return f"is nested deeper than {MAX_NESTING} levels"
        _VALIDATE[folder](record)
    except CardError as error:
        return f"is not valid ({error})"
    except (ValueError, RecursionError):
        return "is not JSON"
    return None if f"{record['id']}.json" == file_name else "holds a record of another id"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _say_first(strange: list[str], where: str, said: Said) -> None:
    """A sentence for each of the first few, and one for the rest."""
    for what in strange[:MAX_NAMED]:
        said[f"{one_line(what, MAX_TOLD_CHARACTERS)} ({where})"] = None
    if len(strange) > MAX_NAMED:
        said[f"and {len(strange) - MAX_NAMED} more like it ({where})"] = None


def _place(commons: Commons, path: str, content: bytes, stands: bool) -> None:
    """Write a file that belongs on the disk, durably; in place of one that `stands` there and is kept elsewhere."""
    if not write_new(commons.folder / path, content) and stands:
        replace(commons.folder / path, content)


def _store_blobs(commons: Commons, files: Files) -> None:
    """Put files of the commons into git's store as they are."""
    paths = [f"{commons.prefix}{name}" for name in files]
    if paths and store_files(commons.top, paths) != list(files.values()):
        raise StoreError(f"a file in {commons.folder} changed while it was read; run `commons.py sync` again")
