"""The part of the Ray engine that imports ray: a process of its own, because ray ends a process whose cluster is lost.

    python -m lab.engines.cluster       # which only `lab/engines/ray.py` starts

It is told on standard input, a JSON object a line: {"address", "wait", "max_attempts"}; for each job {"parcel",
"folder", "log", "facts", "wish"}, and {"stop": "why"} while one runs. End of file: end the run and go. It tells on
standard output: ready {address, auth}, beat (nothing else to say), waiting {text}, begun {node}, lost {attempt, text},
and at last ended {end, code or text} with "end" as in `lab/engines/node.py`, or failed {text}.

A job runs under an actor (`lab/engines/host.py`), which Ray takes away when this process is gone. When that is gone,
the program that it started on the node ends the run. What a run writes comes here as bytes that nobody interprets.
Not covered: a node that was cut off and comes back; it stays away until `ray start` is called there again.
"""

import json
import logging
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.engines import EngineError, host
from lab.engines.demand import Demand, demand, offers
from lab.errors import StoreError
from lab.losses import LOSSES
from lab.store import replace

MAX_FILE_BYTES = 4 << 30  # a larger file does not come back
NEWS_SECONDS = 1.0
SILENCE_SECONDS = 90.0  # of a node, before it is given up: Ray declares a cut one dead after about 65 s
LEAVE_SECONDS = 40.0  # for a run to end when it is told to: more than lab/keeper.py takes
FACTS = "start.json"
DECISION = "decision.md"  # what the node makes of the result, knowing nothing of our commons
_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,199}")


class LostError(Exception):
    """The node of an attempt is lost."""


class Cluster:
    """A connection to a Ray cluster; `stop` is why the run is to be ended, None while it may go on."""

    def __init__(self, orders: Any, tell: Any) -> None:
        self._tell = tell
        self._orders: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.stop: str | None = None
        self.stopped_at = 0.0
        threading.Thread(target=self._listen, args=(orders,), daemon=True).start()

    def _listen(self, orders: Any) -> None:
        for line in orders:
            order = json.loads(line)
            if "stop" in order:
                self._end(order["stop"])
            else:
                self.stop = None
                self._orders.put(order)
        self._end("who wanted this run is gone")
        self._orders.put(None)
        time.sleep(LEAVE_SECONDS)
        os._exit(1)

    def _end(self, why: str) -> None:
        if self.stop is None:
            self.stop, self.stopped_at = why, time.monotonic()

    def serve(self) -> None:
        """Connect, and run the jobs that come until nobody is there to send any."""
        import ray

        asked = self._orders.get()
        if asked is None:
            return
        self.wait, self.max_attempts = asked["wait"], asked["max_attempts"]
        try:
            # Only "local" starts a cluster; None would also find one that somebody else has started here.
            ray.init(address=asked["address"], log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            self._tell(event="failed", text=_last_line(error))
            return
        ray.cloudpickle.register_pickle_by_value(host)  # no node has it
        self.address = ray.get_runtime_context().gcs_address
        # Set by ray, where it is new enough, when it has started a cluster: that lets in only who has its token.
        self._tell(event="ready", address=self.address, auth=os.environ.get("RAY_AUTH_MODE"))
        while order := self._orders.get():
            try:
                self._tell(event="ended", **self.run(order))
            except EngineError as error:
                self._tell(event="failed", text=str(error))
            except ray.exceptions.RayError as error:
                self._tell(event="failed", text=f"the Ray cluster at {self.address}: {_last_line(error)}")
        ray.shutdown()

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Run a job, again where its node is lost; how it ended. EngineError where it cannot be run."""
        import ray
        from ray import exceptions

        if order["wish"]["gpus"] is None:
            order["wish"]["gpus"] = min(ray.cluster_resources().get("GPU", 0.0), 1.0)
        wish, parcel = demand(**order["wish"]), ray.put(Path(order["parcel"]).read_bytes())
        os.unlink(order["parcel"])  # who wrote it may be killed at any moment
        lost = (LostError, exceptions.RayActorError, exceptions.ObjectLostError, exceptions.WorkerCrashedError,
                exceptions.NodeDiedError, exceptions.OutOfMemoryError)  # fmt: skip
        folder = _Folder(order)
        for attempt in range(1, self.max_attempts + 1):
            actor = None
            try:
                actor, node = self._place(wish, parcel)
                if actor:
                    folder.begin()
                    self._tell(event="begun", node=node)
                    ended = self._attend(actor, folder)
                    if ended["end"] == "refused":
                        raise EngineError(f"node {node}: {ended['text']}")
                    return ended
            except lost as error:
                text = _last_line(error)
                self._tell(event="lost", attempt=attempt, text=text)
                folder.forget(attempt)
            finally:
                if actor:
                    ray.kill(actor)
            if self.stop:
                return {"end": "stopped", "text": self.stop}
        raise EngineError(f"lost {self.max_attempts} times, the last time because: {text}; see attempt-*.log")

    def _place(self, wish: Demand, parcel: Any) -> tuple[Any, str]:
        """(The actor of a run that has begun, its node), once a node has room; (None, "") when told to stop."""
        import ray

        actor: Any = None
        began: Any = None
        seen = time.monotonic()
        try:
            while not self.stop:
                nodes = ray.nodes()
                if any(wish.fits(node) for node in nodes):
                    seen = time.monotonic()
                    if actor is None:
                        actor = ray.remote(max_restarts=0, **wish.options(nodes))(host.Host).remote()
                        began = actor.begin.remote(parcel)
                elif time.monotonic() - seen > self.wait:
                    what = f"no node of the Ray cluster at {self.address} has {wish.words()}"
                    raise EngineError(f"{what}, and none came in {self.wait:g} s; it has {offers(nodes)}")
                if began and ray.wait([began], timeout=NEWS_SECONDS)[0]:
                    node = ray.get(began)
                    placed, actor = actor, None
                    return placed, node
                self._tell(event="waiting", text=f"for a node with {wish.words()}")
                time.sleep(0 if began else NEWS_SECONDS)
            return None, ""
        finally:
            if actor:
                ray.kill(actor)

    def _attend(self, actor: Any, folder: "_Folder") -> dict[str, Any]:
        """Bring what the run writes here while it goes on, and all of it when it has ended; how it ended."""
        told = False
        while True:
            if self.stop and not told:
                self._ask(actor.stop, self.stop)
                told = True
            ended, added = self._ask(actor.news, folder.read)
            if ended and ended["end"] == "died":
                raise LostError(ended["text"])
            grown = folder.take(added)
            if ended and not grown:
                break
            if not ended:
                time.sleep(NEWS_SECONDS)
        for name, size in sorted(self._ask(actor.files).items(), key=lambda file: file[0] == "summary.json"):
            if folder.wants(name, size):
                self._fetch(actor, name, folder)
        return dict(ended)

    def _fetch(self, actor: Any, name: str, folder: "_Folder") -> None:
        partial = folder.path / f".{name}.part"
        with open(partial, "wb") as file:
            while piece := self._ask(actor.piece, name, file.tell()):
                file.write(piece)
        os.replace(partial, folder.path / name)

    def _ask(self, method: Any, *arguments: Any) -> Any:
        """The answer of an actor. LostError where there is none for too long."""
        import ray

        asked = time.monotonic()
        while True:
            answer = method.remote(*arguments)
            try:
                while not ray.wait([answer], timeout=NEWS_SECONDS)[0]:
                    self._expect(asked)
                self._tell(event="beat")
                return ray.get(answer)
            except ray.exceptions.ActorUnavailableError:  # it may become available again
                self._expect(asked)
                time.sleep(NEWS_SECONDS)

    def _expect(self, asked: float) -> None:
        """LostError where who was asked then has had its time, which is short when we are told to stop."""
        self._tell(event="beat")
        now = time.monotonic()
        if now - asked > SILENCE_SECONDS or (self.stop and now - max(asked, self.stopped_at) > LEAVE_SECONDS / 2):
            raise LostError(f"its node did not answer for {now - asked:.0f} s")


class _Folder:
    """The run folder here; `read` says how much of each file that grows has come."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.path, self.log, self.facts = Path(order["folder"]), order["log"], order["facts"]
        held = {file.name for file in self.path.iterdir()}  # of an earlier command: not ours to touch
        self.ours = {self.log} | ({LOSSES, FACTS} - held)
        self.read: dict[str, int] = {}
        self.clear()

    def clear(self) -> None:
        """As if nothing had begun yet."""
        for name in self.ours:
            (self.path / name).unlink(missing_ok=True)
        self.read = dict.fromkeys(self.ours, 0)

    def begin(self) -> None:
        """The run has begun: from now on there is a log."""
        (self.path / self.log).touch()

    def forget(self, attempt: int) -> None:
        """Keep the log of an attempt that is lost under another name, and nothing else of it."""
        with suppress(FileNotFoundError):  # it was lost before it had begun
            os.replace(self.path / self.log, self.path / f"attempt-{attempt}.log")
        self.clear()

    def take(self, added: Mapping[str, bytes]) -> bool:
        """Put down what is new; whether there was anything new in a file that grows."""
        grown = False
        for name, content in added.items():
            if name == FACTS:
                with suppress(ValueError, TypeError, StoreError):  # the run may have put anything there
                    replace(self.path / name, json.loads(content) | self.facts)
            elif content:
                with open(self.path / name, "ab") as file:
                    file.write(content)
                self.read[name] += len(content)
                grown = True
        return grown

    def wants(self, name: str, size: int) -> bool:
        """Whether a file of the run is to be fetched at its end."""
        return bool(_NAME.fullmatch(name)) and size <= MAX_FILE_BYTES and name not in (*self.ours, DECISION)


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2].strip() or type(error).__name__


def main() -> None:
    """Serve who is on standard input and output."""
    voice = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what ray prints is no message
    lock = threading.Lock()

    def tell(**event: Any) -> None:
        with lock:
            print(json.dumps(event), file=voice, flush=True)

    try:
        Cluster(sys.stdin, tell).serve()
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
