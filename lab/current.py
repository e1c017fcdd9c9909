"""The current tree as an experiment: what speaks against running it, its commit, and what becomes of the tree after it.

    tree = inspect(project, knowledge)                         # SettingError: why it is not run
    commit = commit_of_tree(tree, "wider MLP")                 # HEAD, or one on top of it with the edit
    settle(tree, commit, card, knowledge)                      # what `--advance` does

Frozen files are compared with the base: where HEAD has left the default branch (what is there a person meant), and on
that branch HEAD itself. What runs is a checkout: files that git does not know take no part in it, new ones among the
editable aside.
Not covered: the run (`lab/experiment.py`), and a default branch of another name than main, master or the remote's.
"""

import os
from pathlib import Path
from typing import NamedTuple

from lab.brief import one_line
from lab.cards import machine
from lab.edits import edit_key
from lab.errors import SettingError, StoreError
from lab.facts import champion, local_track
from lab.git import commit_files, full_hash, git, place_of, repository_path, run_git
from lab.index import Index
from lab.schema import Card
from lab.settings import Settings, is_among, load_settings
from lab.store import is_below
from lab.tried import equal_run

DEFAULT_BRANCHES = ("refs/remotes/origin/HEAD", "refs/heads/main", "refs/heads/master")
DIFF = ("diff", "--name-only", "--no-renames", "--no-ext-diff", "-z")
LONGEST_WAY_BACK = 200  # commits of HEAD's past among which the champion is looked for
MAX_SUBJECT_CHARACTERS = 200


class Tree(NamedTuple):
    """A project's working tree: HEAD's commit, its base, the branch (None: detached) and the edit on top of it.

    `edited` has the editable files that differ from HEAD, {path from the project's folder: content}; `track` is the one
    that this machine's runs are on.
    """

    project: Path
    settings: Settings
    head: str
    base: str
    branch: str | None
    edited: dict[str, bytes]
    track: str | None


def inspect(project: Path, knowledge: Path, replicate: bool = False) -> Tree:
    """The tree, if it may be run: only editable files were edited, the edit is new here, and cards can be kept.

    SettingError says in one line what is in the way, StoreError where there is no repository, or knowledge/ cannot be
    used. With `replicate` the edit need not be new.
    """
    settings, head = load_settings(project), _head(project)
    base = _base(project, head)
    _refuse_other_edits(project, knowledge, (base, head), settings)
    _refuse_unusable(project, knowledge)
    edited = {}
    for name in [*_listed(project, *DIFF, "--relative", head, "--", "."), *_unknown(project)]:
        if not is_among(name, settings.editable):
            continue  # a record of the commons, or nothing that takes part
        path = project / name
        if path.is_symlink() or not path.is_file():
            raise SettingError(f"{name} is gone, or is no plain file; restore it: git checkout HEAD -- {name}")
        edited[name] = path.read_bytes()
    with Index(knowledge) as index:
        track = local_track(index, machine())
        tree = Tree(project, settings, head, base, _branch(project), edited, track)
        if not replicate:
            _refuse_duplicate(index, tree)
    return tree


def commit_of_tree(tree: Tree, subject: str) -> str:
    """The commit to run: HEAD, or a new one on top of it with the edit. No branch moves."""
    return commit_files(tree.project, tree.head, tree.edited, one_line(subject, MAX_SUBJECT_CHARACTERS))


def subject_of(tree: Tree) -> str:
    """The subject of HEAD's commit."""
    return run_git(tree.project, "log", "-1", "--format=%s", tree.head).decode("utf-8", "replace").strip()


def settle(tree: Tree, commit: str, card: Card, knowledge: Path) -> str:
    """Take the tree to where its run has led, and say so: to the commit where it is kept, else back to the champion.

    Where the packet asks for another run of it, or the run crashed, nothing is moved. Neither is what was edited since,
    nor any other file, nor anything where git refuses.
    """
    if (_branch(tree.project), full_hash(tree.project, "HEAD")) != (tree.branch, tree.head):
        return "stays: HEAD has moved since the run began"
    if card["status"] == "crash":
        return "stays as it is: mend the edit, or take it back"
    try:
        if card["status"] == "keep" and not card["quarantined"]:
            return _keep(tree, commit)
        if (card["decision"] or {}).get("action") == "replicate" and not card["quarantined"]:
            return "stays as it is, to be run again with another seed"
        return _take_back(tree, commit, _way_back(tree, card, knowledge))
    except StoreError as error:
        return f"stays: {error}"


def _keep(tree: Tree, commit: str) -> str:
    name = (tree.branch or "HEAD").removeprefix("refs/heads/")
    if commit != tree.head:
        run_git(tree.project, "update-ref", "-m", "experiment kept", "HEAD", commit, tree.head)
        run_git(tree.project, "reset", "--quiet", "--", *tree.edited)
    return f"{name} is at {commit[:12]}, to go on from"


def _take_back(tree: Tree, commit: str, target: str) -> str:
    """Undo the experiment's edit, and no other: what HEAD has beyond `target`, and what was not committed."""
    top, below = place_of(tree.project)
    allowed = [below + name for name in tree.settings.editable]
    if strange := [name for name in _listed(top, *DIFF, target, tree.head) if not is_among(name, allowed)]:
        return f"stays: the commits since {target[:12]} hold {strange[0]} too; go back by hand"
    changed = [name for name, content in tree.edited.items() if _content(tree.project / name) != content]
    if changed:
        return f"stays: {changed[0]} has been edited since the run began"
    if tree.edited:  # added first, so that git knows a new file and takes it away
        run_git(tree.project, "add", "--", *tree.edited)
        run_git(tree.project, "restore", f"--source={tree.head}", "--staged", "--worktree", "--", *tree.edited)
    if target != tree.head:
        git(tree.project, "update-index", "-q", "--refresh")  # or a file that was only touched would be in the way
        run_git(tree.project, "reset", "--quiet", "--keep", target)
    return f"back at {target[:12]}; what was tried is {commit[:12]}"


def _way_back(tree: Tree, card: Card, knowledge: Path) -> str:
    """The latest commit of HEAD at which the editable files are the champion's, else the one before the experiment's.

    What was on the default branch already is no experiment's.
    """
    with Index(knowledge) as index:
        best = champion(index, card["track"])
    past = run_git(tree.project, "rev-list", "--first-parent", f"--max-count={LONGEST_WAY_BACK}", tree.head)
    line = past.decode().split()
    if named := full_hash(tree.project, best["commit_id"]) if best and best["commit_id"] else None:
        wanted, *states = _states(tree, [named, *line])
        if found := [commit for commit, state in zip(line, states, strict=True) if state == wanted]:
            return found[0]
    return tree.head if best is None or tree.edited or tree.head == tree.base else [*line, tree.head][1]


def _states(tree: Tree, commits: list[str]) -> list[list[str]]:
    """What the editable files are at these commits: git's names of their contents."""
    top, below = place_of(tree.project)
    names = tree.settings.editable
    asked = "".join(f"{commit}:{below}{name}\n" for commit in commits for name in names)
    told = run_git(top, "cat-file", "--batch-check=%(objectname)", stdin=os.fsencode(asked)).splitlines()
    found = [line.decode(errors="replace").partition(":")[2] or line.decode() for line in told]
    return [found[start : start + len(names)] for start in range(0, len(found), len(names))]


# What speaks against it.


def _refuse_other_edits(project: Path, knowledge: Path, commits: tuple[str, str], settings: Settings) -> None:
    """SettingError where a file that is frozen, or not editable, is not as it was in one of the commits."""
    if conflicts := _listed(project, *DIFF, "--relative", "--diff-filter=U", "--", "."):
        raise SettingError(f"{conflicts[0]} has conflicts of a merge; settle them first")
    allowed = ", ".join(settings.editable)
    for commit in dict.fromkeys(commits):
        names = _listed(project, *DIFF, "--relative", commit, "--", ".")
        names = [n for n in names if not is_among(n, settings.editable) and not is_below(project / n, knowledge)]
        frozen = [name for name in names if is_among(name, settings.frozen)]
        for name in (frozen or names)[:1]:
            is_new = git(project, "cat-file", "-e", f"{commit}:./{name}") is None
            what = "is not in" if is_new else "is not what it was in"
            remedy = f"remove it: git rm -f {name}" if is_new else f"take it back: git checkout {commit[:12]} -- {name}"
            why = "it is frozen, and runs would not compare" if frozen else f"an experiment edits {allowed} alone"
            raise SettingError(f"{name} {what} {commit[:12]}: {why}; {remedy}")
    unknown = [name for name in _unknown(project) if not is_below(project / name, knowledge)]
    if code := [name for name in unknown if name.endswith(".py") and not is_among(name, settings.editable)]:
        raise SettingError(
            f"{code[0]} is new, and an experiment edits {allowed} alone: it would not be there in the run; "
            "put it into the script, or remove it"
        )


def _unknown(project: Path) -> list[str]:
    """The files that git does not know and does not ignore."""
    return _listed(project, "ls-files", "--others", "--exclude-standard", "-z", "--", ".")


def _head(project: Path) -> str:
    """HEAD's commit. StoreError where there is none."""
    if found := full_hash(project, "HEAD"):
        return found
    try:
        run_git(project, "rev-parse", "--git-dir")
    except StoreError as error:  # git says it best: no repository, or somebody else's
        raise StoreError(f"{error}; experiments are commits: make {project} a git repository of yours") from error
    raise StoreError(f"{project} has no commit yet, and experiments are commits; make the first: git commit")


def _branch(project: Path) -> str | None:
    """The ref that HEAD stands for; None where it is detached."""
    answer = git(project, "symbolic-ref", "--quiet", "HEAD")
    return os.fsdecode(answer).strip() if answer else None


def _base(project: Path, head: str) -> str:
    """Where HEAD has left the default branch: the latest such commit, or HEAD where there is no default branch."""
    found = []
    for name in DEFAULT_BRANCHES:
        answer = git(project, "merge-base", name, head) if full_hash(project, name) else None
        if answer:
            base = answer.decode().strip()
            beyond = run_git(project, "rev-list", "--count", f"{base}..{head}")
            found.append((int(beyond), base))
    return min(found)[1] if found else head


def _refuse_unusable(project: Path, knowledge: Path) -> None:
    """SettingError or StoreError where the card of the run could not be kept, or records were tampered with."""
    knowledge.mkdir(parents=True, exist_ok=True)
    if not os.access(knowledge, os.W_OK | os.X_OK):
        raise StoreError(f"cannot write in {knowledge}: Permission denied; the card of the run is kept there")
    found = repository_path(project, knowledge)
    if found is None:
        return
    top, below = found
    records = [f"{below}{folder}" for folder in ("cards", "events", "notes")]
    if changed := _listed(top, "diff", "--name-only", "--no-renames", "--diff-filter=MD", "-z", "HEAD", "--", *records):
        raise SettingError(
            f"{changed[0]} is not what was committed, and a record is never changed; "
            f"restore it: git checkout HEAD -- {changed[0]}"
        )


def _refuse_duplicate(index: Index, tree: Tree) -> None:
    """SettingError where this very edit has a result on the track, or crashed by its own fault."""
    script, *others = tree.settings.editable
    source = tree.edited.get(script) or _content(tree.project / script)
    key = edit_key(source) if source else None
    row = equal_run(index, key, tree.track) if key and tree.track else None
    if row is None:
        return
    if others:  # which the key of an edit is not of
        commit = full_hash(tree.project, index.read(row["id"])["commit"] or "")
        if commit is None or _listed(tree.project, *DIFF, "--relative", commit, "--", *others):
            return
        if any(is_among(name, others) for name in _unknown(tree.project)):
            return
    raise SettingError(
        f"it has been run: card {row['id']} ({row['status']}) is this very edit; to run it once more, with another "
        "seed: --replicate --seed N"
    )


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _listed(folder: Path, *arguments: str) -> list[str]:
    """The paths that git prints, ended by NUL."""
    return os.fsdecode(run_git(folder, *arguments)).split("\0")[:-1]
