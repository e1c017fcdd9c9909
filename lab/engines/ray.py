"""Experiments on a Ray cluster: an existing one, or one that is started on this machine.

    engine = RayEngine("10.0.0.5:6379", gpus=1)      # or None: $RAY_ADDRESS, or a cluster of this machine alone
    address = engine.connect()                       # for other processes to connect to, as long as this engine is open
    code = engine.run(job, look)
    engine.close()

What it takes to have a cluster and what a node must have is in docs/cluster.md. Ray itself is in a process of ours
(`lab/engines/cluster.py`), which we end when it says nothing for too long: so nothing here can hang, and a cluster that
dies takes nothing of ours with it.
Not covered: addresses of Ray Client (ray://), and Windows.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.brief import one_line
from lab.engines import EngineError, Job
from lab.engines.parcel import write_parcel
from lab.errors import SettingError
from lab.interrupts import undisturbed
from lab.runner import OvertimeError, StoppedError
from lab.store import knowledge_dir

CONNECT_SECONDS = 120.0  # to start a cluster, or to find one
SILENCE_SECONDS = 150.0  # more than the other side allows a node, and ray the head
LEAVE_SECONDS = 45.0  # for a run to be ended, and its end to be known
LOOK_SECONDS = 1.0

Event = dict[str, Any]


class RayEngine:
    """An engine (`lab.engines.Engine`) for one job at a time; `tell` gets an event's name and keywords: waiting, lost.

    Each job gets `gpus` (a fraction is allowed; None: one where the cluster has any), `cpus` (None: one beside a GPU,
    else all of the smallest node), `memory_gb` of its node's memory, and a node with these `labels`. What no node has
    is an EngineError after `wait` seconds; a run whose node is lost is repeated until there were `max_attempts`.
    """

    def __init__(
        self,
        address: str | None,
        gpus: float | None = None,
        cpus: float | None = None,
        memory_gb: float | None = None,
        labels: Mapping[str, str] | None = None,
        wait: float = 60.0,
        max_attempts: int = 3,
        tell: Callable[..., object] = lambda event, **more: None,
    ) -> None:
        self.address = address or os.environ.get("RAY_ADDRESS") or "local"
        if self.address.startswith("ray://"):
            raise SettingError(
                f"--address {self.address}: Ray Client cannot be used; give HOST:PORT on a cluster's node"
            )
        self._wish: dict[str, Any] = {"gpus": gpus, "cpus": cpus, "memory_gb": memory_gb, "labels": dict(labels or {})}
        self._terms = {"wait": wait, "max_attempts": max_attempts}
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._busy = False  # with a job
        self._heard = 0.0

    def connect(self) -> str:
        """Connect, which starts the cluster where there is none yet; its address. EngineError where that fails.

        Where the cluster wants a token, RAY_AUTH_MODE is set in our environment: our children are to bring it, too.
        """
        if self._process is None:
            with undisturbed():
                self._start()
            try:
                self._await_connection()
            except BaseException:
                with undisturbed():
                    self._kill()
                raise
        return self.address

    def run(self, job: Job, look: Callable[[], str | None]) -> int:
        """Run a job, as `lab.engines.Engine` says; StoreError where its commit is not in this clone."""
        self.connect()
        job.folder.mkdir(parents=True, exist_ok=True)
        knowledge = job.told.get("KNOWLEDGE_DIR") or str(knowledge_dir(job.project))
        told = dict(job.told)
        if cpus := self._wish["cpus"]:
            told.setdefault("OMP_NUM_THREADS", str(max(1, int(cpus))))
        handle, place = tempfile.mkstemp(prefix="autoresearch-", suffix=".tar")
        os.close(handle)
        try:
            write_parcel(job._replace(told=told), Path(place))
            self._say({
                "parcel": place, "folder": str(job.folder), "log": job.log,
                "facts": {"knowledge_dir": knowledge, "pid": os.getpid()},
                "wish": self._wish | {"requires": dict(job.requires)},
            })  # fmt: skip
            return self._attend(look)
        except BaseException:
            with undisturbed():
                self._leave()
            raise
        finally:
            Path(place).unlink(missing_ok=True)

    def close(self) -> None:
        """End the connection, and the cluster where we have started it."""
        if self._process and self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVE_SECONDS)
        self._kill()

    def _await_connection(self) -> None:
        self._say({"address": self.address} | self._terms)
        deadline = time.monotonic() + CONNECT_SECONDS
        while (event := self._hear(LOOK_SECONDS))["event"] != "ready":
            if event["event"] == "failed" or time.monotonic() > deadline:
                why = event.get("text") or f"no answer in {CONNECT_SECONDS:g} s"
                raise EngineError(f"cannot connect to a Ray cluster at {self.address}: {why}")
        self.address = event["address"]
        if event["auth"]:  # else nobody whom we start could connect; the token itself is in a file of this user
            os.environ["RAY_AUTH_MODE"] = event["auth"]

    def _attend(self, look: Callable[[], str | None]) -> int:
        """Wait for the end of the run; the exit code of its command."""
        running, reason, looked, told = False, None, 0.0, None
        while True:
            event = self._hear(LOOK_SECONDS)
            name = event["event"]
            if name == "failed":
                raise EngineError(event["text"])
            if name == "ended":
                if event["end"] == "exit":
                    return int(event["code"])
                raise (OvertimeError if event["end"] == "overtime" else StoppedError)(event["text"])
            running = name == "begun" or (running and name != "lost")
            if name in ("waiting", "lost") and event != told:
                told = event
                self._tell(name, reason=event["text"])
            if running and not reason and time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                if reason := look():
                    self._say({"stop": reason})

    def _leave(self) -> None:
        """Have the run ended, if it goes on, and wait until it has."""
        deadline = time.monotonic() + LEAVE_SECONDS
        with suppress(EngineError):
            if self._busy:
                self._say({"stop": "interrupted"})
            while self._busy and time.monotonic() < deadline:
                self._hear(LOOK_SECONDS)
        if self._busy:
            self._kill()

    def _start(self) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lab.engines.cluster"],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            start_new_session=True,  # Ctrl-C is for us, and we tell
        )
        self._heard, self._busy, self._events = time.monotonic(), False, queue.Queue()
        threading.Thread(target=self._read, args=(self._process, self._events), daemon=True).start()

    @staticmethod
    def _read(process: "subprocess.Popen[bytes]", events: "queue.Queue[Event | None]") -> None:
        for line in process.stdout or ():
            events.put(json.loads(line))
        events.put(None)

    def _say(self, order: Event) -> None:
        assert self._process and self._process.stdin
        self._busy = self._busy or "parcel" in order
        with suppress(BrokenPipeError):  # it is gone: we shall hear that
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def _hear(self, seconds: float) -> Event:
        """The next event, a beat where there is none for so long. EngineError where there will be none."""
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            if time.monotonic() - self._heard < SILENCE_SECONDS:
                return {"event": "beat"}
            self._kill()
            raise EngineError(f"the Ray cluster at {self.address} has said nothing for {SILENCE_SECONDS:g} s") from None
        if event is None:
            self._words.seek(0)
            said = self._words.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            self._kill()
            raise EngineError(f"lost the Ray cluster at {self.address}: {one_line(said, 300) or 'its head is gone'}")
        self._heard = time.monotonic()
        if event["event"] in ("ended", "failed"):
            self._busy = False
        return event

    def _kill(self) -> None:
        """Be without a connection; a later job makes a new one."""
        if self._process:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout, self._words):
                with suppress(BrokenPipeError):
                    if pipe:
                        pipe.close()
        self._process, self._busy = None, False
