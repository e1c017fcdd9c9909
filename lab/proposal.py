"""What an item of the queue asks to be run, as a commit: changed constants, a patch, an agent's edit, an earlier run.

    proposal = propose(item, project, knowledge, "refs/heads/autoresearch/mar8", None, runs / run)
    advance(project, "refs/heads/autoresearch/mar8", proposal)          # once it is kept

An edit starts from the champion of the track as it ran, but from the tip of the session's branch where that was not run
(somebody has put something on it), and from HEAD where neither is in this clone. The commit is made of the editable
files alone, on an index of its own.
Not covered: running it (`lab/work.py`).
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from lab.agents import MAX_FILE_BYTES, RefusedError, ask_agent
from lab.brief import brief_text, one_line
from lab.briefing import gather, queued, running
from lab.edits import edit_key
from lab.errors import CardError, SettingError, StoreError
from lab.facts import champion, main_track, tracks_of
from lab.git import apply_patch, commit_files, full_hash, move_ref, place_of, run_git
from lab.index import Index
from lab.items import Item, says_its_edit
from lab.knobs import set_constants
from lab.sentinel import commit_of, script_of
from lab.settings import is_among, load_settings
from lab.store import runs_dir
from lab.tried import equal_run

BRIEF_TOKENS = 600
MAX_SUBJECT_CHARACTERS = 200


class Proposal(NamedTuple):
    """A commit to run, with these `files` of the project over it; `tip` is where the session's branch was.

    `spent` is what the agent that made it says it has cost (`lab.agents.spent`).
    """

    commit: str
    files: dict[str, bytes]
    tip: str | None
    spent: dict[str, float]


def propose(item: Item, project: Path, knowledge: Path, branch: str, agent: str | None, run_folder: Path) -> Proposal:
    """What is to be run for an item.

    RefusedError where that is nothing, has been run on this track, or cannot be made; AgentError where the agent fails.
    Errors of any other kind are not the item's.
    """
    script = load_settings(project).editable[0]
    if item["replicates"]:
        return _earlier(item, project, knowledge, script)
    base, tip, config = _base(item, project, knowledge, branch, script)
    spent: dict[str, float] = {}
    if item["changes"] is not None:
        files = _changed(item, project, base, config, script)
    elif item["patch"] is not None:
        files = _patched(item, project, base)
    else:
        files, spent = _asked(item, project, knowledge, base, agent, run_folder)
    commit = commit_files(project, base, files, one_line(item["description"], MAX_SUBJECT_CHARACTERS))
    if item["changes"] != {}:  # that is the baseline, which need not be new
        if commit == base:
            who = "these values change" if item["changes"] else "the patch changes"
            raise RefusedError(f"{who if says_its_edit(item) else 'the agent changed'} nothing")
        if set(files) == {script}:  # which the key of an edit is of
            _refuse_duplicate(item, knowledge, files[script])
    return Proposal(commit, {}, tip, spent)


def advance(project: Path, branch: str, proposal: Proposal) -> str:
    """Make its commit the tip of the branch, unless somebody else has moved that meanwhile; what was done, in words."""
    name, commit = branch.removeprefix("refs/heads/"), proposal.commit
    try:
        where = os.fsdecode(run_git(project, "for-each-ref", "--format=%(worktreepath)", branch)).removesuffix("\n")
        if where and not Path(where).is_dir():
            where = ""  # somebody removed that checkout without telling git
        if where and full_hash(project, branch) == proposal.tip:
            # Somebody has the branch checked out: the files there go along, where nobody is editing them.
            run_git(Path(where), "merge", "--ff-only", "--no-autostash", "--quiet", commit)
        elif where or not move_ref(project, branch, commit, proposal.tip):
            return f"{name} has moved meanwhile; {commit[:12]} is not on it"
    except StoreError as error:
        return f"{name} stays where it is: {error}"
    return f"{name} is at {commit[:12]}"


def source_of(project: Path, commit: str, name: str) -> bytes:
    """A file of the project in a commit. StoreError where it is not there."""
    return run_git(project, "show", "--end-of-options", f"{commit}:./{name}")


def _earlier(item: Item, project: Path, knowledge: Path, script: str) -> Proposal:
    """The run that is to be repeated, as it was."""
    with Index(knowledge) as index:
        try:
            card = index.read(item["replicates"])
            return Proposal(commit_of(card, project), {script: script_of(card, project)}, None, {})
        except (StoreError, CardError) as error:
            raise RefusedError(f"there is nothing to repeat: {error}") from error


def _base(
    item: Item, project: Path, knowledge: Path, branch: str, script: str
) -> tuple[str, str | None, dict[str, Any] | None]:
    """(the commit that an edit starts from, the branch's tip, the champion's constants)."""
    with Index(knowledge) as index:
        best = champion(index, item["track"] or main_track(index))
        card = index.read(best["id"]) if best else None
        tip = full_hash(project, branch)
        ran = index.row("SELECT 1 FROM cards WHERE commit_id = ? AND id IS NOT ?", tip, card and card["id"])
    config = card["config"] if card else None
    if tip and (card is None or tip == card["commit"] or not ran):
        return tip, tip, config
    if card:
        try:
            commit, source = commit_of(card, project), script_of(card, project)
        except StoreError:
            pass  # it ran elsewhere
        else:
            return commit_files(project, commit, {script: source}, f"card {card['id']} as it ran"), tip, config
    if tip:
        return tip, tip, config
    head = full_hash(project, "HEAD")
    if head is None:
        raise StoreError(f"{project} is in no git repository with a commit; experiments are commits, make the first")
    return head, None, config


def _changed(item: Item, project: Path, base: str, config: dict[str, Any] | None, script: str) -> dict[str, bytes]:
    """The script with the item's constants."""
    try:
        source = source_of(project, base, script).decode()
        return {script: set_constants(source, item["changes"], config, script).encode()}
    except (SettingError, UnicodeDecodeError, RecursionError) as error:  # the latter from lists within lists
        raise RefusedError(f"the changes cannot be made: {error}") from error


def _patched(item: Item, project: Path, base: str) -> dict[str, bytes]:
    """The editable files as the item's patch leaves them."""
    top, below = place_of(project)
    names = load_settings(project).editable
    try:
        files = apply_patch(top, base, item["patch"].encode("utf-8", "surrogateescape"))
    except (StoreError, UnicodeEncodeError) as error:
        raise RefusedError(f"the patch does not apply to {base[:12]}: {error}") from error
    changed = {}
    for name, content in files.items():
        if not is_among(name, [below + editable for editable in names]):
            raise RefusedError(f"the patch changes {one_line(name)}; only {', '.join(names)} may be edited")
        if content is None:
            raise RefusedError(f"the patch removes {one_line(name)}, or leaves no plain file there; edit it in place")
        if len(content) > MAX_FILE_BYTES:
            raise RefusedError(
                f"the patch leaves more than {MAX_FILE_BYTES >> 20} MiB in {one_line(name)}; keep it small"
            )
        changed[name.removeprefix(below)] = content
    return changed


def _asked(
    item: Item, project: Path, knowledge: Path, base: str, agent: str | None, run_folder: Path
) -> tuple[dict[str, bytes], dict[str, float]]:
    """What the agent makes of the idea, and what that cost."""
    if agent is None:
        raise RefusedError(
            "it says no edit (changes, patch), and this worker has no agent; requeue it for one with --agent CMD"
        )
    with Index(knowledge) as index:
        known = item["track"] in [row["track"] for row in tracks_of(index)]
        found = gather(index, item["track"] if known else None, item["description"])
        found |= {"running": running(index, runs_dir(project)), "queue": queued(knowledge)}
    return ask_agent(agent, item, brief_text(found, BRIEF_TOKENS), project, knowledge, base, run_folder)


def _refuse_duplicate(item: Item, knowledge: Path, source: bytes) -> None:
    """RefusedError where this very edit has a result on the track, or crashed by its own fault."""
    key = edit_key(source)
    if key is None:
        return  # it does not parse: the run will tell
    with Index(knowledge) as index:
        row = equal_run(index, key, item["track"] or main_track(index))
    if row:
        raise RefusedError(f"it has been run: card {row['id']} ({row['status']}) is this very edit")
