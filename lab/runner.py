"""One experiment in a process group of its own, in a checkout of its own.

    told = {"AUTORESEARCH_RUN_ID": run, "AUTORESEARCH_SEED": "43"}
    with interruptible():
        code = run_commit(project, commit, {}, environment(project, knowledge, told), log)

Ctrl-C, SIGTERM and the time limit end the whole group and remove the checkout. Not covered: the slot of a device, what
the experiment starts in a session of its own, and kill -9 of this process, which leaves group and checkout behind.
"""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from lab.errors import LabError, SettingError, StoreError
from lab.git import repository_path, run_git
from lab.settings import load_settings
from lab.store import replace, runs_dir

GRACE_SECONDS = 10.0  # for a run to record its end before it is killed


class InterruptedRunError(LabError):
    """Ctrl-C or SIGTERM ended a run before it had a result; `signal` is which of them."""

    kind = "interrupted"

    def __init__(self, number: int) -> None:
        super().__init__("interrupted; what had been started is ended and cleared away")
        self.signal = number


class OvertimeError(LabError):
    """A command ran longer than it may and was ended."""

    kind = "timeout"


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM is a KeyboardInterrupt too, and either comes out as an InterruptedRunError."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError(error.args[0] if error.args else signal.SIGINT) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM wait until the end of it: what is begun is finished, such as clearing up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda number, frame: came.append(number)) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def environment(project: Path, knowledge: Path, told: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run: ours, what it is told, where its records go, and to use the installed packages."""
    places = {"AUTORESEARCH_RUNS_DIR": str(runs_dir(project)), "KNOWLEDGE_DIR": str(knowledge.absolute())}
    # uv would make an environment for every new checkout: the run is to have the one that the others had.
    installed = next((at / ".venv" for at in (project, *project.parents) if (at / ".venv").is_dir()), None)
    if installed:
        places |= {"UV_PROJECT_ENVIRONMENT": str(installed), "UV_NO_SYNC": "1"}
    # What is named relative to the project is not in the checkout where it is untracked, such as data.
    dataset, colon, folder = os.environ.get("AUTORESEARCH_DATASET", "").partition(":")
    if dataset == "local" and colon:
        places["AUTORESEARCH_DATASET"] = f"local:{project.absolute() / Path(folder).expanduser()}"
    if cache := os.environ.get("AUTORESEARCH_CACHE"):
        places["AUTORESEARCH_CACHE"] = str(project.absolute() / Path(cache).expanduser())
    foreign = ("AUTORESEARCH_RUN_ID", "AUTORESEARCH_RUN_DIR", "AUTORESEARCH_SUMMARY_PATH")  # of another run
    return {name: value for name, value in os.environ.items() if name not in foreign} | places | dict(told)


def run_commit(
    project: Path,
    commit: str,
    files: Mapping[str, bytes],
    told: Mapping[str, str],
    log: Path,
    limit: float | None = None,
    at_limit: Callable[[], object] = lambda: None,
) -> int:
    """Run the project's experiment in a checkout of a commit, in the environment `told`; its exit code.

    `files` {path from the project's folder: content} are put over it. The rest, and the errors, as for `run_group`
    and `worktree`.
    """
    with worktree(project, commit) as folder:
        for name, content in files.items():
            replace(folder / name, content)
        return run_group(shlex.split(load_settings(project).command), folder, told, log, limit=limit, at_limit=at_limit)


@contextmanager
def worktree(project: Path, commit: str) -> Iterator[Path]:
    """The project's folder in a new checkout of the commit, which is removed afterwards, whatever happens.

    StoreError where the project is in no git repository, or the commit is not in this clone.
    """
    found = repository_path(project, project)
    if found is None:
        raise StoreError(f"{project} is in no git repository; the commit of a run is checked out from one")
    top, below = found
    holder = Path(tempfile.mkdtemp(prefix="autoresearch-"))
    checkout = holder / "checkout"
    try:
        run_git(top, "worktree", "add", "--detach", str(checkout), commit)
        yield checkout / below
    finally:
        with undisturbed():
            try:
                run_git(top, "worktree", "remove", "--force", "--force", str(checkout))
            except StoreError:  # it could not be added, or what ran in it took its .git away
                shutil.rmtree(holder, ignore_errors=True)
                with suppress(StoreError):
                    run_git(top, "worktree", "prune")
            shutil.rmtree(holder, ignore_errors=True)


def run_group(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    *,
    given: Path | None = None,
    limit: float | None = None,
    at_limit: Callable[[], object] = lambda: None,
) -> int:
    """Run a command in `folder` in its own process group, what it prints in `log`; its exit code, -N for signal N.

    `given` is the file that it reads on standard input. SettingError where it cannot be started. OvertimeError where
    it takes longer than `limit` seconds: `at_limit` is called and then the group is ended, as it is on an exception
    here, such as Ctrl-C. What the command leaves running in the group is killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    child = None
    try:
        with undisturbed():  # or a signal could part us from a child that we do not know yet
            child = _start(command, folder, environment, log, given)
        code = child.wait(limit)
    except BaseException as error:
        late = isinstance(error, subprocess.TimeoutExpired)
        with undisturbed():
            try:
                if late:
                    at_limit()
            finally:
                if child:
                    _end(child)
        if late:
            raise OvertimeError(f"{command[0]} took longer than {limit:g} s and was ended") from error
        raise
    _signal(child, getattr(signal, "SIGKILL", signal.SIGTERM))
    return code


def _start(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path, given: Path | None
) -> "subprocess.Popen[bytes]":
    with open(log, "wb") as output, open(given or os.devnull, "rb") as words:
        try:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=words,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            what = f"cannot start {command[0]!r}: {error.strerror}"
            raise SettingError(f"{what}; install it or name another") from error


def _end(child: "subprocess.Popen[Any]") -> None:
    """Ask the group to end, and kill what has not done so in time."""
    _signal(child, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_SECONDS)
    _signal(child, getattr(signal, "SIGKILL", signal.SIGTERM))  # what is left of it, the leader or its children
    child.wait()


def _signal(child: "subprocess.Popen[Any]", number: int) -> None:
    if os.name == "posix":
        with suppress(ProcessLookupError):  # nobody is left
            os.killpg(child.pid, number)
    elif child.poll() is None:
        child.terminate()
