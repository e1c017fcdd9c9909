"""Share a commons through git: what is here goes to the knowledge branch, what others put there comes here.

    sync(checkout, knowledge)                  # fetch, merge, push
    sync(checkout, knowledge, remote=None)     # commit to refs/autoresearch/knowledge, and restore what is missing

Records are immutable and named by id, so a merge is a union; nothing is ever removed. It works with plumbing on an
index of its own: HEAD, the user's index and branches, and every file outside the commons stay as they are.
refs/autoresearch/knowledge is the last state this clone has seen, and what deleted files are restored from.

The knowledge branch is one of its own (`commons`), unrelated to the code's: a record that is tracked on the
code's branch would be deleted from the disk by `git reset --hard` and by a switch to a branch without it, each
worktree would check out every card, and a protected main would refuse the push. The setting
`knowledge_branch` overrides it.

Not covered: changes to a file that was synced before (`lab/doctor.py` finds them), forged records of a peer who may
push, and records that were never synced and that `git clean -fdx` or `rm` removed.
"""

import random
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from lab.errors import SettingError, StoreError
from lab.git import (
    INDEX_PREFIX,
    KNOWLEDGE_REF,
    commit_blobs,
    common_dir,
    full_hash,
    git,
    move_ref,
    repository_path,
    run_git,
)
from lab.merge import Commons, Files, Said, merge
from lab.settings import Settings

MAX_TRIES = 20
MAX_REFUSALS = 4  # of a push, while nobody else's push explains them
STALE_INDEX_SECONDS = 3600.0
STALE_LOCK_SECONDS = 60.0


class Synced(NamedTuple):
    """What a sync did, or with `dry_run` would do. The numbers are of records.

    `pushed` were new to the knowledge branch, `fetched` new to this clone, `restored` known to it and gone from the
    disk. `commit` is the branch's tip now (None: there is none yet), `said` is for the user, a sentence each.
    """

    pushed: int
    fetched: int
    restored: int
    commit: str | None
    branch: str
    said: list[str]


def sync(
    checkout: Path,
    knowledge: Path,
    *,
    remote: str | None = "origin",
    branch: str = Settings().knowledge_branch,
    dry_run: bool = False,
) -> Synced:
    """Bring the commons and the knowledge branch of `remote` to the same records; without a remote, the local ref.

    SettingError when there is no repository around the commons, no such remote or no such branch name. StoreError when
    git, the remote or the disk refuses; by then the records of this clone are safe in refs/autoresearch/knowledge.
    """
    commons = _find_commons(checkout, knowledge)
    branch = _checked_branch(commons, branch)
    said: Said = {}
    if remote is not None and not _has_remote(commons, remote):
        said[f"no remote {remote!r} here: the records are committed to {KNOWLEDGE_REF} of this clone only"] = None
        remote = None
    if not dry_run:
        _clear_leftovers(commons)
    fetched: set[str] = set()
    restored: set[str] = set()
    refused: list[str | None] = []  # the tips on which a push was refused
    for attempt in range(MAX_TRIES):
        time.sleep(random.uniform(0, 0.02 * 2 ** min(attempt, 6)) if attempt else 0)
        own = full_hash(commons.top, KNOWLEDGE_REF)
        theirs, trouble = _their_tip(commons, remote, branch, own)
        commit = theirs or own
        merged = merge(commons, commit, own, dry_run, said)
        fetched |= merged.fetched
        restored |= merged.restored
        if not dry_run:
            if merged.add:
                commit = _commit(commons, commit, merged.add)
            if remote and not trouble and commit and commit != theirs:
                trouble = _refusal(commons, remote, commit, branch)
                refused += [theirs] if trouble else []
                if trouble and refused[-MAX_REFUSALS:] != [theirs] * MAX_REFUSALS:
                    continue  # somebody was faster, or is at it
            if commit and commit != own and not move_ref(commons.top, KNOWLEDGE_REF, commit, own):
                continue  # another sync of this clone was faster
        if trouble:
            safe = "" if dry_run else f"; the records are safe in {KNOWLEDGE_REF}"
            raise StoreError(f"cannot sync with {remote}: {trouble}{safe}; run `commons.py sync` again later")
        pushed = sum(name.endswith(".json") for name in merged.add)
        done = f"{pushed} record{'s' * (pushed != 1)} pushed, {len(fetched)} fetched, {len(restored)} restored"
        where = f"branch {branch} of {remote}" if remote else KNOWLEDGE_REF
        summary = f"{'dry run: ' if dry_run else ''}{done} ({where})"
        return Synced(pushed, len(fetched), len(restored), commit, branch, [*said, summary])
    raise StoreError(f"others were faster {MAX_TRIES} times; nothing is lost, run `commons.py sync` again")


def _find_commons(checkout: Path, knowledge: Path) -> Commons:
    """Where the commons is in git. SettingError when it is not in the repository of the checkout."""
    found = repository_path(checkout, knowledge)
    if found is None:
        raise SettingError(f"{knowledge} is not in a git repository that holds {checkout}: sync needs one (`git init`)")
    top, prefix = found
    algorithm = run_git(top, "rev-parse", "--show-object-format").decode().strip()
    return Commons(knowledge, prefix, top, common_dir(top), algorithm)


def _checked_branch(commons: Commons, branch: str) -> str:
    if branch.startswith("-") or git(commons.top, "check-ref-format", f"refs/heads/{branch}") is None:
        raise SettingError(f"{branch!r} cannot name a branch; set knowledge_branch in pyproject.toml")
    return branch


def _has_remote(commons: Commons, remote: str) -> bool:
    """Whether the clone has this remote. SettingError when it has only others: then the name is a mistake."""
    names = run_git(commons.top, "remote").decode().split()
    if names and remote not in names:
        raise SettingError(f"no remote {remote!r} in this clone; it has {', '.join(names)}")
    return bool(names)


def _clear_leftovers(commons: Commons) -> None:
    """Remove what a sync that was killed has left: its index, and a lock on our ref that nobody can hold so long."""
    for path in commons.git_dir.glob(f"{INDEX_PREFIX}*"):
        if _age_seconds(path) > STALE_INDEX_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    lock = commons.git_dir / f"{KNOWLEDGE_REF}.lock"
    if _age_seconds(lock) > STALE_LOCK_SECONDS:
        lock.unlink(missing_ok=True)


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _their_tip(commons: Commons, remote: str | None, branch: str, own: str | None) -> tuple[str | None, str | None]:
    """(the tip of the remote's branch, its objects fetched; why the remote cannot be reached), None what is not so.

    No ref and no FETCH_HEAD is written: a `git pull` that runs at the same time reads those.
    """
    if remote is None:
        return None, None
    ref = f"refs/heads/{branch}"
    try:
        answer = run_git(commons.top, "ls-remote", remote, ref).decode().split()
        tip = answer[0] if answer else None
        if tip and tip != own:  # whatever our own ref's commit needs is here
            options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=")
            run_git(commons.top, "fetch", *options, remote, ref)
    except StoreError as error:
        return None, str(error)
    return tip, None


def _commit(commons: Commons, base: str | None, add: Files) -> str:
    """A commit that has `add` on top of `base`."""
    subject = f"Share {len(add)} file{'s' if len(add) != 1 else ''} of {commons.prefix.rstrip('/') or 'the commons'}"
    return commit_blobs(commons.top, base, {f"{commons.prefix}{name}": blob for name, blob in add.items()}, subject)


def _refusal(commons: Commons, remote: str, commit: str, branch: str) -> str | None:
    """Push; why that was refused, or None. It only fast-forwards, so it cannot undo somebody else's push."""
    try:
        run_git(commons.top, "push", "--quiet", "--no-verify", remote, f"{commit}:refs/heads/{branch}")
    except StoreError as error:
        return str(error)
    return None
