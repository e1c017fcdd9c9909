"""Make a commons ready for use: its folders, and what keeps git's own commands from touching it.

    for sentence in init(checkout, knowledge):
        print(sentence)

Records and derived files go into the clone's info/exclude: `git clean -fd`, `git stash -u` and `git add -A` pass over
what is excluded, and `git reset --hard` and a switch leave alone what is not tracked. info/attributes keeps the bytes
of records that a branch does track the same on every platform. Both belong to the clone, all its worktrees share them,
and nothing is committed. Not covered: `git clean -fdx` and `git stash -a`, which take excluded files too (`lab/sync.py`
restores what was synced).
"""

from collections.abc import Iterable
from pathlib import Path

from lab.errors import StoreError
from lab.git import common_dir, git, repository_path
from lab.merge import FOLDERS
from lab.store import replace, runs_dir

DERIVED = ("quarantine/", "index.*", "queue.json*", "strategy.json", "*.lock", "*.tmp")
BEGIN, END = "# autoresearch-commons: begin", "# autoresearch-commons: end"


def init(checkout: Path, knowledge: Path) -> list[str]:
    """Make the folders, exclude them and set how they merge; a sentence for each thing done or found done.

    Twice is harmless, and lines of the user stay. StoreError when something cannot be written.
    """
    said = [_make_folders(knowledge)]
    found = repository_path(checkout, knowledge)
    if found is None:
        where = f"{knowledge} is in no git repository that {checkout} belongs to"
        return [*said, f"{where}: nothing to exclude, and `commons.py sync` cannot share it"]
    top, prefix = found
    info = common_dir(top) / "info"
    ignored = [_pattern(f"{prefix}{folder}/") for folder in FOLDERS] + [_pattern(prefix) + name for name in DERIVED]
    runs = runs_dir(checkout)
    if in_git := repository_path(checkout, runs):
        ignored.append(_pattern(in_git[1]))
    said.append(_add_lines(info / "exclude", ignored, "git passes over records, index, queue and runs"))
    kept = [f"{_quoted(_pattern(prefix + folder))}/** -text" for folder in FOLDERS]
    said.append(_add_lines(info / "attributes", kept, "git keeps the bytes of records as they are"))
    tracked = git(top, "ls-files", "-z", "--", *(f":(literal){prefix}{folder}" for folder in FOLDERS)) or b""
    records = sum(name.endswith((b".json", b".md")) for name in tracked.split(b"\0"))
    if records:
        said.append(
            f"{records} records are tracked on this branch: a switch or reset to a commit without them removes them "
            "until the next `commons.py sync`; `git rm -r --cached` on their folders ends that"
        )
    return said


def _make_folders(knowledge: Path) -> str:
    missing = [folder for folder in FOLDERS if not (knowledge / folder).is_dir()]
    try:
        for folder in missing:
            (knowledge / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {knowledge / folder}: {error.strerror}") from error
    return f"made {', '.join(missing)} in {knowledge}" if missing else f"the folders are in {knowledge} already"


def _add_lines(path: Path, lines: Iterable[str], fact: str) -> str:
    """Have these lines in our block of a file of the user's; a sentence that says `fact` and whether it is new."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    before, begin, rest = text.partition(BEGIN + "\n")
    block, end, after = rest.partition(END + "\n")
    if begin and not end:
        raise StoreError(f"{path}: the line {END!r} is missing after {BEGIN!r}; remove what is left of the block")
    have = block.splitlines()
    new = [line for line in lines if line not in have]
    if not new:
        return f"{fact} already ({path})"
    if before and not before.endswith("\n"):
        before += "\n"
    content = before + "\n".join([BEGIN, *have, *new, END]) + "\n" + after
    replace(path, content.encode("utf-8", "surrogateescape"))
    return f"{fact} now ({path})"


def _pattern(path: str) -> str:
    """A path from the top of the worktree as a pattern of .gitignore that matches nothing else."""
    return "/" + "".join(f"\\{char}" if char in "\\*?[ " else char for char in path)


def _quoted(pattern: str) -> str:
    """A pattern for .gitattributes, where a blank ends it: blanks as the wildcard ?, which needs no quotes."""
    return pattern.replace("\\ ", "?")
