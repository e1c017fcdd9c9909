"""Worker processes: each in a process group of its own, telling what it does in JSON lines; what they say, in order.

    crew = Crew(runs / "director")
    crew.hire(1, [sys.executable, "worker.py", "work", "--once", "--json"], project, os.environ)
    message = crew.listen(1.0)              # Message(worker=1, event={"event": "claimed", ...}), None: nothing was said
    crew.end()

The last message of a worker is {"event": "left", "code": exit code, "seconds": lived, "said": its last words}: those
of its stderr, which goes to worker-N.log. Not covered: what the events mean and when to hire (`lab/director.py`).
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from lab.brief import one_line
from lab.errors import StoreError

GRACE_SECONDS = 20.0  # for a worker to end its experiment and to give its item back, before it is killed
TAIL_BYTES = 4096
MAX_WORDS = 300  # characters of a line that is no event, or of the last words

Event = dict[str, Any]


class Message(NamedTuple):
    """What a worker told; `worker` None is what somebody else has put in (`Crew.say`)."""

    worker: int | None
    event: Event


class Worker:
    """A process that works on `item`, once it has claimed one, in `run`.

    `useful` tells whether that left a card, `measured` whether with a result; else `why` may say why. `constants` tells
    whether the item says its edit in constants, `refused` whether that was nothing to run.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.began = time.monotonic()
        self.item: str | None = None
        self.run: str | None = None
        self.useful = self.measured = self.constants = self.refused = False
        self.why: str | None = None

    @property
    def seconds(self) -> float:
        """How long it has been there."""
        return time.monotonic() - self.began


class Crew:
    """The workers there are, by their numbers. `logs` is the folder of what they write to stderr."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.workers: dict[int, Worker] = {}
        self._messages: SimpleQueue[Message] = SimpleQueue()  # whose put may be called by a signal's handler

    def log(self, number: int) -> Path:
        """The stderr of the newest worker with this number."""
        return self.logs / f"worker-{number}.log"

    def hire(self, number: int, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Start a worker. StoreError where its log cannot be written or the process cannot be started."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            with open(self.log(number), "wb") as log:
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,  # a Ctrl-C is ours to pass on
                )
        except OSError as error:
            where = error.filename or command[0]
            raise StoreError(
                f"cannot start worker {number}: {where}: {error.strerror}; free space or memory"
            ) from error
        worker = self.workers[number] = Worker(process)
        threading.Thread(target=self._read, args=(number, worker), daemon=True).start()

    def _read(self, number: int, worker: Worker) -> None:
        """Pass on what a worker tells, to its end."""
        with worker.process as process:
            for line in process.stdout or ():
                self._messages.put(Message(number, _event(line)))
        left = {"event": "left", "code": process.returncode, "seconds": worker.seconds}
        self._messages.put(Message(number, left | {"said": _last_words(self.log(number))}))

    def say(self, event: Event) -> None:
        """Put an event among those of the workers; a signal's handler may."""
        self._messages.put(Message(None, event))

    def listen(self, seconds: float) -> Message | None:
        """The next message, None where there is none for so long."""
        try:
            return self._messages.get(timeout=max(seconds, 0.0))
        except Empty:
            return None

    def end(self) -> None:
        """Ask all workers to end, and kill the groups of those that have not done so within GRACE_SECONDS."""
        for worker in self.workers.values():
            worker.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self.workers.values():
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(deadline - time.monotonic(), 0.0))
                continue
            _kill(worker.process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if os.name == "posix":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _event(line: bytes) -> Event:
    """What a line of a worker tells; one that is no event is taken for a warning."""
    try:
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    except (ValueError, RecursionError):
        pass
    return {"event": "warning", "said": one_line(line.decode("utf-8", "replace"), MAX_WORDS)}


def _last_words(log: Path) -> str | None:
    """The last line of a log that says something."""
    try:
        with open(log, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return None
    return next((said for line in reversed(lines) if (said := one_line(line, MAX_WORDS))), None)
