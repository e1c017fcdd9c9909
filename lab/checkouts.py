"""Checkouts of commits to run experiments in: below .worktrees/ of the project, cleared away after whatever end.

    with checkout(project, commit, run) as (folder, lock):      # the project's folder in it; a descriptor to pass on
        ...
    for run in abandoned(project):                              # whose worker was killed before it could clear up
        discard(project, run)

A checkout is in use as long as a process holds its lock: who made it, or what was started with the descriptor.
Not covered: what runs in it (`lab/runner.py`).
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.errors import HeldError, StoreError
from lab.git import place_of, repository_path, run_git
from lab.interrupts import undisturbed
from lab.locks import locked
from lab.schema import ID_PATTERN
from lab.store import replace

FOLDER = ".worktrees"


@contextmanager
def checkout(project: Path, commit: str, run: str) -> Iterator[tuple[Path, int]]:
    """(The project's folder in a new checkout of the commit, the descriptor of its lock), removed afterwards.

    StoreError where the project is in no git repository, or the commit is not in this clone.
    """
    top, below = place_of(project)
    holder = project / FOLDER
    if not (holder / ".gitignore").exists():
        replace(holder / ".gitignore", b"*\n")
    with locked(holder / f"{run}.new") as lock:
        os.replace(holder / f"{run}.new", holder / f"{run}.lock")  # which nobody ever sees free while it is ours
        try:
            run_git(top, "worktree", "add", "--detach", str(holder / run), commit)
            yield holder / run / below, lock
        finally:
            with undisturbed():
                _remove(top, holder, run)


def abandoned(project: Path) -> list[str]:
    """The runs whose checkouts nobody uses any more."""
    return [path.stem for path in sorted((project / FOLDER).glob("*.lock")) if _is_free(path)]


def discard(project: Path, run: str) -> None:
    """Remove what is left of a run's checkout, unless somebody else does so, or uses it, at this moment."""
    found = repository_path(project, project)
    holder = project / FOLDER
    with suppress(HeldError), locked(holder / f"{run}.lock", timeout=0):
        if found:
            _remove(found[0], holder, run)


def _is_free(path: Path) -> bool:
    if not re.fullmatch(ID_PATTERN, path.stem):
        return False
    with suppress(HeldError), locked(path, timeout=0):
        return True
    return False


def _remove(top: Path, holder: Path, run: str) -> None:
    """Remove a checkout and, last of all, its lock."""
    try:
        run_git(top, "worktree", "remove", "--force", "--force", str(holder / run))
    except StoreError:  # it could not be added, or what ran in it took its .git away
        shutil.rmtree(holder / run, ignore_errors=True)
        with suppress(StoreError):
            run_git(top, "worktree", "prune")
    shutil.rmtree(holder / run, ignore_errors=True)
    with suppress(OSError):
        os.unlink(holder / f"{run}.lock")
