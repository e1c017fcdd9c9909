"""Files that survive: whole or not there, on disk before the call returns. Where things are kept.

A reader never sees half a file: it is written under a temporary name in the same folder, flushed,
fsynced, and only then given its name. Every failure is a StoreError of one line.
Not covered: locks, and what the files mean (`lab/cards.py`).
"""

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

from lab.errors import StoreError

# What file systems without hard links answer (exFAT, some network and FUSE mounts).
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_LIST_OF_NUMBERS = re.compile(r"\[\n([-+.\deEnul,\s]+)\n\s*\]")


def dump_json(value: Any) -> bytes:
    """`value` as the JSON we keep: indented by 2, keys in their own order, a list of numbers on one line, UTF-8.

    ValueError where it holds NaN or infinity.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # Only layout holds a raw newline, inside a string it is escaped: so this cannot touch a string.
    text = _LIST_OF_NUMBERS.sub(lambda match: "[" + " ".join(match[1].split()) + "]", text)
    # A lone surrogate (a file name that is not UTF-8) becomes \udcXX, which is its JSON escape.
    return (text + "\n").encode("utf-8", "backslashreplace")


def read_json(path: Path) -> dict[str, Any]:
    """The object stored in `path`. StoreError, naming the file and the remedy, where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # the latter where brackets are nested by the thousand
        reason = " ".join(str(error).split())
        raise StoreError(f"{path} is not JSON ({reason}); {_REPAIR}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} holds a {type(value).__name__} where an object belongs; {_REPAIR}")
    return value


_REPAIR = "restore it (`git checkout -- FILE` if it was committed) or move it out of the folder"


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
            _sync_folder(path.parent)
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
    _sync_folder(path.parent)
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


def _sync_folder(folder: Path) -> None:
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
