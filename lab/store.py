"""Files that survive: whole or not there, on disk before the call returns. Where things are kept.

A reader never sees half a file: it is written under a temporary name in the same folder, flushed,
fsynced, and only then given its name. Every failure is a StoreError of one line.
Not covered: locks (`lab/locks.py`), and what the files mean (`lab/cards.py`).
"""

import errno
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from lab.errors import StoreError

# What file systems without hard links answer (exFAT, some network and FUSE mounts).
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
# How NaN and infinity come into a JSON text: by their names, or as an exponent of three digits or more.
# One class of first letters, none of them a digit, is searched for at three times the speed of alternatives.
_NOT_FINITE = re.compile(rb"[NIeE](?:aN|nfinity|\+?[0-9]{3,}[,\s\]}])")
# Files that `write_many` makes between two waits for the disk.
BATCH = 2000
_LIST_OF_NUMBERS = re.compile(r"\[\n([-+.\deEnul,\s]+)\n\s*\]")
_REPAIR = "`commons.py doctor` sets it right"


def dump_json(value: Any) -> bytes:
    """`value` as the JSON we keep: indented by 2, keys in their own order, a list of numbers on one line, UTF-8.

    StoreError where it holds NaN or infinity: JSON has no such numbers.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        place, number = next(_not_finite(value, ""), ("", error))
        raise StoreError(f"{place}: {number} is not a finite number; an unknown value is null") from error
    # Only layout holds a raw newline, inside a string it is escaped: so this cannot touch a string.
    text = _LIST_OF_NUMBERS.sub(lambda match: "[" + " ".join(match[1].split()) + "]", text)
    # A lone surrogate (a file name that is not UTF-8) becomes \udcXX, which is its JSON escape.
    return (text + "\n").encode("utf-8", "backslashreplace")


def read_json(path: Path) -> dict[str, Any]:
    """The object stored in `path`. StoreError, naming the file and the remedy, where there is none."""
    try:
        raw = path.read_bytes()
        value = json.loads(raw)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # the latter where brackets are nested by the thousand
        reason = " ".join(str(error).split())
        raise StoreError(f"{path} is not JSON ({reason}); {_REPAIR}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} holds a {type(value).__name__} where an object belongs; {_REPAIR}")
    if _NOT_FINITE.search(raw) and (found := next(_not_finite(value, ""), None)):
        raise StoreError(f"{path}: {found[0]}: {found[1]} is not a finite number; {_REPAIR}")
    return value


def _not_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """(place, number) of every NaN and infinity in the value."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            yield from _not_finite(item, f"{place}[{position}]")


def record_names(folder: Path) -> list[str]:
    """The ids of the records in a folder, sorted; a hidden file is one that is being written. [] without a folder."""
    try:
        return sorted(name[:-5] for name in os.listdir(folder) if name.endswith(".json") and name[0] != ".")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error.strerror}") from error


def write_new(path: Path, content: bytes | dict[str, Any]) -> bool:
    """Write a file that does not exist yet; False, with nothing changed, where somebody was faster.

    Of any number of processes exactly one gets True. StoreError when it cannot be written.
    """
    try:
        temporary = _write_temporary(path, content)
        try:
            return _name_if_free(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def replace(path: Path, content: bytes | dict[str, Any]) -> None:
    """Write a file, taking the place of an older one at once. StoreError when it cannot be written."""
    try:
        temporary = _write_temporary(path, content)
        try:
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _write_temporary(path: Path, content: bytes | dict[str, Any]) -> Path:
    """The content on disk under a hidden name in `path`'s folder, which is made when missing."""
    data = content if isinstance(content, bytes) else dump_json(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _name_if_free(temporary: Path, path: Path) -> bool:
    """Give the temporary file its name unless the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return _rename_if_free(temporary, path)
    sync_folder(path.parent)
    return True


def _rename_if_free(temporary: Path, path: Path) -> bool:
    """The same without hard links: the look and the rename are one step under a lock on the folder itself.

    The kernel frees the lock of a process that dies, and no lock file is left behind.
    """
    import fcntl  # POSIX only, and so is a file system without hard links where this is promised

    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if path.exists():
            return False
        os.rename(temporary, path)
        os.fsync(folder)
        return True
    finally:
        os.close(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in the folder durable, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write {path}: {error.strerror}; free space there or make the folder writable")


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has this id; where there is no way to ask, it is taken to."""
    if os.name != "posix":
        return True  # signal 0 is no question there but Ctrl-C
    if pid < 1:
        return False  # 0 and less would ask about groups of processes
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # it is somebody else's
    except (OSError, OverflowError):
        return False
    return True


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path is a folder, or lies in it, as both are written."""
    whole = folder.absolute()
    return path.absolute() == whole or whole in path.absolute().parents


def knowledge_dir(checkout: Path) -> Path:
    """Where the commons is: $KNOWLEDGE_DIR, else knowledge/ of the checkout.

    For a linked git worktree it is the main worktree's folder, so that parallel experiments share one commons.
    """
    if named := os.environ.get("KNOWLEDGE_DIR"):
        return Path(named).expanduser().absolute()
    return _main_checkout(checkout.absolute()) / "knowledge"


def runs_dir(checkout: Path) -> Path:
    """Where run folders are made: $AUTORESEARCH_RUNS_DIR, else runs/ of the checkout."""
    named = os.environ.get("AUTORESEARCH_RUNS_DIR")
    return Path(named).expanduser().absolute() if named else checkout.absolute() / "runs"


def _main_checkout(checkout: Path) -> Path:
    """The same folder in the main worktree, found by reading what `git worktree add` wrote (see gitrepository-layout).

    A checkout that is no linked worktree, or belongs to a bare repository, is its own.
    """
    top = next((folder for folder in (checkout, *checkout.parents) if (folder / ".git").exists()), checkout)
    try:
        git_dir = top / (top / ".git").read_text().removeprefix("gitdir:").strip()
        common = Path(os.path.normpath(git_dir / (git_dir / "commondir").read_text().strip()))
    except OSError:
        return checkout  # .git is a folder, absent, or a submodule's: none of them has a commondir
    return common.parent / checkout.relative_to(top) if common.name == ".git" else checkout


def write_many(folder: Path, files: Iterable[tuple[str, bytes]]) -> list[bool]:
    """`write_new` for many files, (name, content), with few waits for the disk; False where a name is taken.

    All are on disk when this returns. StoreError when one cannot be written: the earlier ones stay.
    """
    made: list[bool] = []
    remaining = iter(files)
    try:
        while batch := list(islice(remaining, BATCH)):
            folder.mkdir(parents=True, exist_ok=True)
            made += _write_batch(folder, batch)
    except OSError as error:
        raise StoreError(f"cannot write in {folder}: {error.strerror}; free space there or make it writable") from error
    return made


def _write_batch(folder: Path, batch: list[tuple[str, bytes]]) -> list[bool]:
    """A name is given only after what it names is on disk, so not even a power failure leaves half a file."""
    if not hasattr(os, "sync"):  # Windows
        return [write_new(folder / name, content) for name, content in batch]
    staged: list[Path] = []
    try:
        for name, content in batch:
            staged.append(folder / f".{name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
            staged[-1].write_bytes(content)
        os.sync()
        pairs = zip(staged, batch, strict=True)
        made = [_give_name(temporary, folder / name, content) for temporary, (name, content) in pairs]
    finally:
        for temporary in staged:
            temporary.unlink(missing_ok=True)
    if any(made):
        os.sync()
    return made


def _give_name(temporary: Path, path: Path, content: bytes) -> bool:
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    except OSError:  # no hard links here: one by one, which is slow and safe
        return write_new(path, content)
