"""A command, such as an experiment, and everything that it starts: run, watched and ended.

    told = environment(project, knowledge, {"AUTORESEARCH_RUN_ID": run, "AUTORESEARCH_SEED": "43"})
    with interruptible():
        code = run_group(["uv", "run", "train.py"], checkout, told, log, limit=900.0)

Nothing of it is left when this returns or raises, nor when this process is killed. Not covered: Windows, where only the
command's own process is ended; the slot of a device and the checkout (`lab/experiment.py`).
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from lab import keeper
from lab.errors import LabError, SettingError, StoreError
from lab.interrupts import undisturbed
from lab.store import runs_dir

LOOK_SECONDS = 1.0  # between two looks at a command that runs


class OvertimeError(LabError):
    """A command ran longer than it may and was ended."""

    kind = "timeout"


class StoppedError(LabError):
    """A command was ended early, because of what was seen of it."""

    kind = "diverged"


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
    # A checkout lies within the project: git in one that has lost its .git must not take the project's.
    places["GIT_CEILING_DIRECTORIES"] = str(project.absolute() / ".worktrees")
    foreign = ("AUTORESEARCH_RUN_ID", "AUTORESEARCH_RUN_DIR", "AUTORESEARCH_SUMMARY_PATH")  # of another run
    return {name: value for name, value in os.environ.items() if name not in foreign} | places | dict(told)


def run_group(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    *,
    given: Path | None = None,
    limit: float | None = None,
    look: Callable[[], str | None] | None = None,
    held: Sequence[int] = (),
) -> int:
    """Run a command in `folder`, what it prints in `log`; its exit code, -N for signal N, when nothing of it is left.

    `given` is the file that it reads on standard input; `held` are descriptors that stay open until nothing is left,
    such as of a lock. SettingError where it cannot be started, StoreError where the log cannot be written.
    OvertimeError where it takes longer than `limit` seconds; StoppedError where `look`, called once a second, has a
    reason to end it. Then, and on an exception here, such as Ctrl-C, all that it has started is ended. Should this
    process be killed, the keeper (`lab/keeper.py`) does so.
    """
    kept = None
    try:
        with undisturbed():  # or a signal could part us from a keeper that we do not know yet
            kept = _Kept(command, folder, environment, log, given, held)
        return _wait(kept, limit, look)
    except BaseException:
        with undisturbed():
            if kept:
                kept.end()
        raise


def _wait(kept: "_Kept", limit: float | None, look: Callable[[], str | None] | None) -> int:
    """The exit code, when nothing is left. OvertimeError and StoppedError where the command is to be ended."""
    began = time.monotonic()
    while True:
        left = LOOK_SECONDS if limit is None else limit - (time.monotonic() - began)
        if (code := kept.wait(max(min(left, LOOK_SECONDS), 0.0))) is not None:
            kept.end()
            return code
        if limit is not None and time.monotonic() - began >= limit:
            raise OvertimeError(f"{kept.name} took longer than {limit:g} s and was ended")
        if look and (reason := look()):
            raise StoppedError(reason)


class _Kept:
    """A command and its keeper; on Windows there is none, and only the command's own process is ended."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        given: Path | None,
        held: Sequence[int],
    ) -> None:
        self.name = command[0]
        self.run = next((environment[name] for name in keeper.MARKERS if name in environment), None)
        self.group = 0  # the command's
        self.code: int | None = None
        with _fresh(log) as output, open(given or os.devnull, "rb") as words:
            try:
                if os.name == "posix":
                    self.process = _start_keeper(command, folder, environment, output, (words.fileno(), *held))
                else:
                    self.process = subprocess.Popen(
                        command, cwd=folder, env=dict(environment), stdin=words, stdout=output, stderr=output
                    )
            except OSError as error:
                raise self._unable(error.errno or 0) from error
        if os.name == "posix":
            assert self.process.stdout
            self._voice = select.poll()
            self._voice.register(self.process.stdout, select.POLLIN)
            while not self._voice.poll(LOOK_SECONDS * 1000):
                self.process.send_signal(signal.SIGCONT)  # the command may have stopped it at once
            self._hear()

    def _unable(self, number: int) -> SettingError:
        return SettingError(f"cannot start {self.name!r}: {os.strerror(number)}; install it or name another")

    def wait(self, seconds: float) -> int | None:
        """The command's exit code; None where it has not ended after so long."""
        if os.name != "posix":
            with suppress(subprocess.TimeoutExpired):
                self.code = self.process.wait(seconds)
        elif self.code is None and self._voice.poll(seconds * 1000):
            self._hear()
        return self.code

    def _hear(self) -> None:
        """Take in what the keeper tells next."""
        assert self.process.stdout
        word, _, number = self.process.stdout.readline().partition(b" ")
        if word == b"failed":
            self.process.wait()
            raise self._unable(int(number))
        if word == b"started":
            self.group = int(number)
        else:  # or nothing, where the keeper was killed and the kernel has taken the command along
            self.code = int(number) if number else -signal.SIGKILL

    def end(self) -> None:
        """End whatever is left of the command, and wait until it is gone."""
        if os.name != "posix":
            self.process.terminate()
            self.process.wait()
            return
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()  # which tells the keeper
        self.process.send_signal(signal.SIGCONT)  # the command may have stopped it
        try:
            killed = self.process.wait(keeper.LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            killed = self.process.wait()
        if killed:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group or self.process.pid, signal.SIGKILL)
            if self.run:
                keeper.end_leftovers(self.run)
        self.process.stdout.close()


def _fresh(log: Path) -> IO[bytes]:
    """The log, as a file of its own: what ran before may have left a link there, or a pipe. StoreError where not."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        return open(log, "xb")
    except OSError as error:
        raise StoreError(
            f"cannot write {log}: {error.strerror}; free space there or make the folder writable"
        ) from error


def _start_keeper(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: IO[bytes], descriptors: Sequence[int]
) -> "subprocess.Popen[bytes]":
    """A keeper that starts the command: the first descriptor is for it to read from, the others are held."""
    script = (sys.executable, "-I", "-S", str(Path(keeper.__file__).resolve()))
    return subprocess.Popen(
        [*script, ",".join(map(str, descriptors)), *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        bufsize=0,
        pass_fds=descriptors,
        start_new_session=True,
    )
