"""One experiment in a process group of its own, in a checkout of its own.

    with worktree(project, commit) as folder:
        code = run_group(shlex.split(settings.command), folder, environment, log)

Ctrl-C and SIGTERM end the whole group and remove the checkout. Not covered: a time limit, the slot of a device, what
the experiment starts in a session of its own, and kill -9 of this process, which leaves both behind.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from lab.errors import LabError, SettingError, StoreError
from lab.git import repository_path, run_git

GRACE_SECONDS = 10.0  # for a run to record its end before it is killed


class InterruptedRunError(LabError):
    """Ctrl-C or SIGTERM ended a run before it had a result."""

    kind = "interrupted"


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM is a KeyboardInterrupt too, and either comes out as an InterruptedRunError."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError("interrupted; what had been started is ended and cleared away") from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


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
        with _uninterrupted():
            with suppress(StoreError):  # where it could not be added
                run_git(top, "worktree", "remove", "--force", "--force", str(checkout))
            shutil.rmtree(holder, ignore_errors=True)


def run_group(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> int:
    """Run a command in `folder` in its own process group, what it prints in `log`; its exit code, -N for signal N.

    SettingError where it cannot be started. On an exception here, such as Ctrl-C, the group is ended first.
    """
    with open(log, "wb") as output:
        try:
            child = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise SettingError(f"command = {command[0]!r} cannot be started: {error.strerror}; install it") from error
        try:
            return child.wait()
        except BaseException:
            with _uninterrupted():
                _end(child)
            raise


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
    else:
        child.terminate()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Within, neither Ctrl-C nor SIGTERM keeps us from clearing up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
