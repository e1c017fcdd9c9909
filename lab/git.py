"""Git, where there is one: `git` asks, and no answer is an answer; `run_git` does, and a failure is a StoreError.

Needs git 2.31 or newer. Not covered: which commands belong together (`lab/sync.py`).
"""

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lab.errors import StoreError

GIT_TIMEOUT_SECONDS = 5.0
RUN_TIMEOUT_SECONDS = 60.0
PLAIN, EXECUTABLE = "100644", "100755"  # what git calls the modes of files
INDEX_PREFIX = "autoresearch-index-"
KNOWLEDGE_REF = "refs/autoresearch/knowledge"  # the records as this clone has last seen them

# No hook, signature, clean-up or submodule takes part in what we do in somebody's repository.
_PLAIN = [
    f"{name}={value}"
    for name, value in {
        "core.hooksPath": os.devnull, "core.fsmonitor": "false", "core.splitIndex": "false", "gc.auto": "0",
        "maintenance.auto": "false", "push.gpgSign": "false", "push.followTags": "false",
        "push.recurseSubmodules": "no", "fetch.recurseSubmodules": "no",
    }.items()
]  # fmt: skip
# Set by git for its hooks, and meant for another command than ours.
_FOREIGN = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX"}
# Who commits where nobody is configured.
_IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "autoresearch-commons"), ("EMAIL", "noreply@localhost"))
}
_COMPLAINTS = ("fatal:", "error:", "! [", "ERROR:")


def git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None when there is no git, no repository, or no answer in time."""
    command = ["git", "--no-optional-locks", *arguments]  # an agent may be using git at the same moment
    try:
        done = subprocess.run(
            command, cwd=folder, env=_inherited(), capture_output=True, timeout=GIT_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _inherited() -> dict[str, str]:
    """The environment without what a hook of git has that is meant for another command."""
    return {name: value for name, value in os.environ.items() if name not in _FOREIGN}


def full_hash(folder: Path, name: str) -> str | None:
    """The whole hash of the commit that `name` (HEAD, a branch, the beginning of a hash) stands for, None if none."""
    answer = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return answer.decode().strip() if answer else None


def run_git(folder: Path, *arguments: str, stdin: bytes = b"", environment: dict[str, str] | None = None) -> bytes:
    """What git prints, its messages in English and never asking for a password.

    StoreError with the line in which git says what is wrong, or when it takes longer than RUN_TIMEOUT_SECONDS.
    """
    settings = [word for setting in _PLAIN for word in ("-c", setting)]
    english = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        child = subprocess.Popen(
            ["git", *settings, *arguments],
            cwd=folder,
            env=_inherited() | english | (environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A kill or Ctrl-C meant for our process group must not end git between taking and freeing a lock;
            # and ssh has no terminal to ask for a passphrase on.
            start_new_session=True,
        )
    except OSError as error:
        raise StoreError(f"cannot start git in {folder}: {error.strerror}") from error
    try:
        output, complaint = child.communicate(stdin, timeout=RUN_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise StoreError(f"git {arguments[0]} did not end within {RUN_TIMEOUT_SECONDS:.0f} s") from error
    finally:
        if child.returncode is None:
            child.terminate()  # not kill: git removes its lock files
            child.communicate()
    if child.returncode:
        raise StoreError(f"git {arguments[0]}: {_what_is_wrong(complaint) or f'exit code {child.returncode}'}")
    return output


def _what_is_wrong(complaint: bytes) -> str:
    """The line that names the failure, harmless for a terminal: a server's words are among git's."""
    lines = [line.strip() for line in complaint.decode(errors="replace").splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith(_COMPLAINTS)), lines[-1] if lines else "")
    return "".join(char if char.isprintable() else " " for char in told)[:300]


def repository_path(checkout: Path, folder: Path) -> tuple[Path, str] | None:
    """(the top of the worktree that holds `folder`, the folder's path from there: "" or ending in /).

    The folder need not exist. None where there is no git, or where it is in no worktree of the checkout's repository.
    """
    missing = ""
    existing = folder.absolute()
    while not existing.is_dir() and existing != existing.parent:
        missing = f"{existing.name}/{missing}"
        existing = existing.parent
    common = ("rev-parse", "--path-format=absolute", "--git-common-dir")
    ours, theirs = git(checkout, *common), git(existing, *common)
    top, prefix = git(existing, "rev-parse", "--show-toplevel"), git(existing, "rev-parse", "--show-prefix")
    if not ours or ours != theirs or not top or prefix is None:
        return None
    return Path(os.fsdecode(top[:-1])), os.fsdecode(prefix[:-1]) + missing


def place_of(project: Path) -> tuple[Path, str]:
    """`repository_path` of a project in the repository that it is in. StoreError where it is in none."""
    found = repository_path(project, project)
    if found is None:
        raise StoreError(f"{project} is in no git repository, and experiments are commits; make it one: git init")
    return found


def common_dir(top: Path) -> Path:
    """The .git folder that all worktrees of a repository share."""
    return Path(os.fsdecode(run_git(top, "rev-parse", "--path-format=absolute", "--git-common-dir")[:-1]))


def list_folders(top: Path, commit: str, folders: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """(mode, hash, path) of what lies directly in these folders (paths that end in /) of a commit."""
    listing = run_git(top, "ls-tree", "-z", "--full-tree", commit, "--", *folders)
    for entry in os.fsdecode(listing).split("\0")[:-1]:
        about, _, path = entry.partition("\t")
        mode, _, name = about.split(" ")
        yield mode, name, path


def blob_hash(content: bytes, algorithm: str) -> str:
    """The name that git gives to a file's content in a repository of this hash algorithm, sha1 or sha256."""
    import hashlib  # loads OpenSSL, which a command that only asks git has no use for

    return hashlib.new(algorithm, b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def blob_sizes(top: Path, blobs: Iterable[str]) -> dict[str, int]:
    """The sizes in bytes of those of the objects that git has."""
    asked = "".join(f"{blob}\n" for blob in blobs).encode()
    told = run_git(top, "cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=asked).decode()
    return {blob: int(size) for blob, size in (line.split() for line in told.splitlines()) if size.isdecimal()}


def read_blobs(top: Path, sizes: dict[str, int]) -> dict[str, bytes]:
    """The contents of blobs whose sizes are known."""
    output = run_git(top, "cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in sizes).encode())
    contents, position = {}, 0
    for blob, size in sizes.items():
        start = output.index(b"\n", position) + 1  # after the line "<hash> blob <size>"
        contents[blob] = output[start : start + size]
        position = start + size + 1
    return contents


def store_files(top: Path, paths: Iterable[str]) -> list[str]:
    """Put files of the worktree into git's store as they are, without the filters of .gitattributes; their hashes."""
    lines = os.fsencode("".join(f"./{path}\n" for path in paths))
    return run_git(top, "hash-object", "-w", "--no-filters", "--stdin-paths", stdin=lines).decode().split()


def commit_files(project: Path, base: str, files: Mapping[str, bytes], subject: str) -> str:
    """A commit on top of `base` with these files {path from the project's folder: content}; `base` where it has them.

    They are stored as `git add` would, line ends included, and stay executable; no ref moves. StoreError as for
    `place_of`.
    """
    top, below = place_of(project)
    blobs, modes = {}, {}
    for name, content in files.items():
        path = below + name
        blob = run_git(top, "hash-object", "-w", f"--path={path}", "--stdin", stdin=content).decode().strip()
        there = run_git(top, "ls-tree", "-z", base, "--", f":(top,literal){path}").split()
        if there[2:3] != [blob.encode()]:
            blobs[path], modes[path] = blob, EXECUTABLE if there[:1] == [EXECUTABLE.encode()] else PLAIN
    return commit_blobs(top, base, blobs, subject, modes) if blobs else base


def commit_blobs(
    top: Path, base: str | None, blobs: dict[str, str], subject: str, modes: Mapping[str, str] | None = None
) -> str:
    """A commit on top of `base` that has the blobs at these paths, made on an index of its own; no ref moves.

    `modes` are git's of those that are no plain files.
    """
    entries = "".join(f"{(modes or {}).get(path, PLAIN)} {blob}\t{path}\0" for path, blob in blobs.items())
    with _own_index(top, base) as index:
        update = ("update-index", "--replace", "-z", "--index-info")
        run_git(top, *update, stdin=os.fsencode(entries), environment=index)
        tree = run_git(top, "write-tree", environment=index).decode().strip()
    named = git(top, "config", "user.email") and git(top, "config", "user.name")
    identity = {} if named else {name: os.environ.get(name, value) for name, value in _IDENTITY.items()}
    parent = ("-p", base) if base else ()
    return run_git(top, "commit-tree", tree, *parent, "-m", subject, environment=identity).decode().strip()


def apply_patch(top: Path, base: str, patch: bytes) -> dict[str, bytes | None]:
    """What a patch, as `git diff` prints it, makes of a commit's files: {path from the top: new content}.

    None where no plain file is left. StoreError where it does not apply; nothing on disk is touched.
    """
    with _own_index(top, base) as index:
        run_git(top, "apply", "--cached", "--whitespace=nowarn", "-", stdin=patch, environment=index)
        fields = os.fsdecode(
            run_git(top, "diff-index", "--cached", "--no-renames", "-z", base, environment=index)
        ).split("\0")
        files: dict[str, bytes | None] = {}
        for about, path in zip(fields[::2], fields[1::2], strict=False):
            _, mode, _, blob, _ = about.split(" ")
            plain = mode in ("100644", "100755")
            files[path] = run_git(top, "cat-file", "blob", blob) if plain else None
    return files


@contextmanager
def _own_index(top: Path, base: str | None) -> Iterator[dict[str, str]]:
    """The environment in which git has an index of its own, which holds what the commit holds."""
    import shutil  # 15 ms that a command which only asks git has no use for
    import tempfile

    folder = tempfile.mkdtemp(dir=common_dir(top), prefix=INDEX_PREFIX)
    index = {"GIT_INDEX_FILE": os.path.join(folder, "index")}
    try:
        run_git(top, "read-tree", base or "--empty", environment=index)
        yield index
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_ref(top: Path, ref: str, new: str, old: str | None) -> bool:
    """Move a ref from `old` (None: it does not exist) to `new`; False when somebody else has moved it."""
    try:
        run_git(top, "update-ref", ref, new, old or "0" * len(new))
    except StoreError:
        if full_hash(top, ref) == old:
            raise
        return False
    return True
