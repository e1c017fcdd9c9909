"""The director's loop: keep the queue filled with what is worth trying, and start a worker for every experiment.

    ended = run_director_loop(project, knowledge, agent="hpo", max_experiments=20, tell=print)
    ended.reason, ended.experiments, ended.kept

A worker is a process that runs one experiment, so every limit is exact: one is started only while another experiment
fits. What waits in the queue is run before anything is planned. `tell` gets an event, a dict, for everything that
happens: `event` is its name (started, mode, planned, warning, synthesized, stopping, stopped; of a worker claimed,
waiting, running, ended, failed, released, lost, idle), `at` the time, `state` how things stand, the rest is its own.
Not covered: what a worker does (`lab/work.py`) and where its work comes from (`lab/supply.py`).
"""

import errno
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from lab.agents import command_of
from lab.brief import one_line
from lab.cards import utc_now
from lab.crew import MAX_WORDS, Crew, Event, Message, Worker
from lab.errors import HeldError, LabError, SettingError
from lab.index import Index
from lab.limits import DONE, INTERRUPTED, TROUBLE, Asked, Ended, Ending
from lab.locks import locked
from lab.proposers import needs_words
from lab.runs import error_of, signature
from lab.schema import Card, metric_value
from lab.settings import load_settings
from lab.stats import median
from lab.store import runs_dir
from lab.supply import Supply
from lab.work import session_of

CHECKOUT = Path(__file__).resolve().parent.parent
LEAST_FREE_BYTES = 1 << 30
FRUITLESS = 5  # workers in a row that end without an experiment, other than for a refused change of constants
BACKOFF_SECONDS = 1.0  # after a worker that ended without an experiment; each in a row doubles it
LOOK_SECONDS = 1.0  # between two looks for something to start
DRY_SECONDS = 30.0  # the same while there is nothing to do until a worker has ended, which is told

Tell = Callable[[Event], None]


def run_director_loop(
    project: Path,
    knowledge: Path,
    *,
    workers: int = 1,
    agent: str = "hpo",
    session: str | None = None,
    track: str | None = None,
    max_experiments: int | None = None,
    hours: float | None = None,
    budget: float | None = None,
    synthesis_interval: int = 20,
    options: Sequence[str] = (),
    tell: Tell = lambda event: None,
) -> Ended:
    """Plan and run experiments until a limit is reached, something is wrong, or Ctrl-C or SIGTERM comes.

    What runs then is let finish, but after a signal the workers end their experiments and give the items back. Another
    call goes on where this one stopped. `options` are further ones of `worker.py work`. SettingError where another
    director works on this commons, there is no such agent, or a `budget` comes without the setting price_per_hour;
    StoreError where the commons or the queue cannot be used.
    """
    settings = load_settings(project)
    if needs_words(agent):
        program = command_of(agent)[0]
        if os.path.basename(program) == program and not shutil.which(program):
            raise SettingError(f"--agent: there is no command {program!r}; install it, or give its path")
    if budget is not None and not settings.price_per_hour:
        place = project / "pyproject.toml"
        raise SettingError(f"a budget needs a price: set price_per_hour under [tool.autoresearch] in {place}")
    asked = Asked(
        workers, agent, session_of(project, session), track, max_experiments, hours, budget, settings.price_per_hour,
        synthesis_interval, settings.same_error,
    )  # fmt: skip
    crew = Crew(runs_dir(project) / "director")
    with _only_director(knowledge), _signals(crew):
        return _Director(project, knowledge, crew, asked, options, tell).run()


@contextmanager
def _only_director(knowledge: Path) -> Iterator[None]:
    """No other director works on this commons within. SettingError where one does already."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(knowledge / "director.lock", timeout=0))
        except HeldError as error:
            raise SettingError(f"another director works on {knowledge}; end it first, or let it work") from error
        yield


@contextmanager
def _signals(crew: Crew) -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM are messages. In a thread that cannot catch them they are the caller's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def say(number: int, frame: FrameType | None) -> None:
        crew.say({"event": "signal", "number": number})

    before = {number: signal.signal(number, say) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Director:
    """One run of the loop: what it was asked for, and what has happened so far."""

    def __init__(
        self, project: Path, knowledge: Path, crew: Crew, asked: Asked, options: Sequence[str], tell: Tell
    ) -> None:
        self.project, self.knowledge, self.crew, self.asked, self.options = project, knowledge, crew, asked, options
        self._tell = tell
        self.began = time.monotonic()
        self.not_before = 0.0  # of the same clock: when to look again for something to start
        self.ending: Ending | None = None  # decided, whatever comes of those that still run
        self.experiments = self.kept = self.crashed = self.fruitless = 0
        self.seconds: list[float] = []  # that each experiment with a result took its worker
        self.wasted = 0.0  # seconds of the workers that ended without a result
        self.alike: list[Card] = []  # the newest cards, where they are crashes that say the same
        self.suspect: list[Card] = []  # the newest cards, where they are suspect
        self.supply = Supply(project, knowledge, asked.agent, asked.session, asked.track, self.tell)

    def run(self) -> Ended:
        """Work until there is a reason to end, and then until the last worker has left."""
        try:
            self.tell("started", **self.asked._asdict())
            while not (reason := self.step()):
                pass
        finally:
            self.crew.end()  # nobody is there, unless something went wrong
        ended = Ended(*reason, self.experiments, self.kept, self.crashed, self.spent)
        self.tell("stopped", **ended._asdict())
        return ended

    def step(self) -> Ending | None:
        """Start what is to be started and hear what happens next; why to end once nobody works any more."""
        try:
            reason = self.ending or self.engage()
            if reason and not self.crew.workers:
                return reason
            pause = self.not_before - time.monotonic()
            if message := self.crew.listen(pause if pause > 0 else LOOK_SECONDS):
                self.hear(message)
        except LabError as error:  # such as a damaged record: what runs is not to be lost over it
            self.ending = self.ending or Ending(one_line(error, MAX_WORDS), TROUBLE)
        return None

    def tell(self, name: str, **more: Any) -> None:
        """Tell an event, and how things stand."""
        best, seconds = self.supply.best, round(time.monotonic() - self.began, 3)
        state = {
            "experiments": self.experiments, "kept": self.kept, "crashed": self.crashed, "mode": self.supply.mode,
            "queued": len(self.supply.queue.waiting), "seconds": seconds, "typical": self.typical, "spent": self.spent,
            "best": best and {name: best[name] for name in ("id", "metric", "result", "mean", "sd")},
        }  # fmt: skip
        self._tell({"event": name, "at": utc_now()} | more | {"state": state})

    @property
    def spent(self) -> float | None:
        """What the work has cost so far; None where there is no price."""
        return self.asked.cost(sum(self.seconds) + self.wasted) if self.asked.price else None

    @property
    def typical(self) -> float:
        """Seconds that an experiment takes a worker: of those of this run, else what is usual."""
        return float(median(self.seconds)) if self.seconds else self.supply.usual

    @property
    def begun(self) -> int:
        """The experiments that are done or under way."""
        return self.experiments + sum(not worker.useful for worker in self.crew.workers.values())

    # What to start.

    def engage(self) -> Ending | None:
        """Start a worker for each experiment that is wanted now; why there will be no other, None where there may."""
        while time.monotonic() >= self.not_before:
            strangers = self.supply.strangers({worker.process.pid for worker in self.crew.workers.values()})
            if len(self.crew.workers) + strangers >= self.asked.workers:
                break
            if reason := self.limit():
                return Ending(reason, DONE)
            if full := self.full_disk():
                self.ending = full
                return full
            if not self.something_to_do(strangers):
                if not self.crew.workers and not strangers:
                    return Ending(
                        f"nothing is left to be run, and the plan has nothing new{self.supply.reservation}", DONE
                    )
                self.not_before = time.monotonic() + (LOOK_SECONDS if strangers else DRY_SECONDS)
                break
            self.hire()
        return None

    def limit(self) -> str | None:
        """Why another experiment does not fit, None where it does."""
        under_way = sum(max(worker.seconds, self.typical) for worker in self.crew.workers.values())
        worked = sum(self.seconds) + self.wasted + under_way
        return self.asked.limit(self.begun, time.monotonic() - self.began, worked, self.typical)

    def full_disk(self) -> Ending | None:
        """Why to end where the next run or its card might not find room."""
        for folder in (runs_dir(self.project), self.knowledge):
            there = next(place for place in (folder, *folder.parents) if place.exists())
            if (free := shutil.disk_usage(there).free) < LEAST_FREE_BYTES:
                return Ending(f"the disk of {folder} is full: {free >> 20} MiB are free; free a GiB there", TROUBLE)
        return None

    def something_to_do(self, strangers: int) -> bool:
        """Whether something is there for another worker. The baseline is run alone: others are compared with it."""
        if self.supply.best is None and (self.crew.workers or strangers):
            return False
        wanted = 2 * self.asked.workers
        if self.asked.max_experiments is not None:
            wanted = min(wanted, self.asked.max_experiments - self.begun)
        return self.supply.fill(wanted, sum(worker.item is None for worker in self.crew.workers.values()))

    def hire(self) -> None:
        """Start a worker for one experiment."""
        number = next(number for number in count(1) if number not in self.crew.workers)
        command = [
            sys.executable, str(CHECKOUT / "worker.py"), "work", "--once", "--json",
            f"--agent={self.asked.agent}", f"--session={self.asked.session}",
            f"--owner={self.supply.worker}{number}", "--knowledge-dir", str(self.knowledge), *self.options,
        ]  # fmt: skip
        environment = os.environ | {"AUTORESEARCH_DIRECTOR_PID": str(os.getpid())}
        self.crew.hire(number, command, self.project, environment)

    # What comes of it.

    def hear(self, message: Message) -> None:
        """Take in a signal, what a worker tells, or that it has left."""
        number, event = message
        worker = self.crew.workers.get(number or 0)
        if number is None or worker is None:
            self.interrupt(event["number"])
        elif event["event"] == "left":
            del self.crew.workers[number]
            self.left(number, worker, event)
        else:
            self.told(number, worker, event)

    def told(self, number: int, worker: Worker, event: Event) -> None:
        """Take in what a worker tells, and tell it on."""
        name, card = event["event"], event.get("card")
        more = {key: value for key, value in event.items() if key not in ("event", "at")}
        if name == "claimed":
            worker.item = event["item"]
            self.supply.read()
            item = self.supply.queue.items.get(event["item"], {})
            worker.constants = item.get("changes") is not None
        elif name == "started":
            worker.run, name = event["run"], "running"  # what has started is the director
        elif name in ("failed", "released"):
            worker.why = one_line(event["reason"], MAX_WORDS)
        if name == "failed":
            self.supply.failed.add(event["description"])
            worker.refused = worker.constants and not event["retry"]  # cheap, and not planned again: no trouble
        if card:
            more |= self.record(worker, card)
        self.tell(name, worker=number, **more)
        if card and self.experiments % self.asked.synthesis_interval == 0:
            self.synthesize()

    def interrupt(self, number: int) -> None:
        """End at once, because of a signal."""
        if self.ending is None or self.ending.code < INTERRUPTED:
            self.ending = Ending(f"ended by {signal.Signals(number).name}", INTERRUPTED + number)
            self.tell("stopping", reason=self.ending.reason)
            self.crew.end()

    def record(self, worker: Worker, name: str) -> Event:
        """Count an experiment by its card, and end where it is one of its kind too many; what is to be told of it."""
        worker.useful, self.fruitless = True, 0
        with Index(self.knowledge) as index:
            card = index.read(name)
        worker.measured = metric_value(card) is not None
        self.experiments += 1
        self.kept += card["status"] == "keep" and not card["quarantined"]
        self.crashed += card["status"] == "crash"
        self.supply.look()
        self.watch_for_repeats(card)
        decision = card["decision"] or {}
        return {
            "status": card["status"], "result": metric_value(card), "delta": card["results"]["delta"],
            "hypothesis": card["hypothesis"], "action": decision.get("action"),
        }  # fmt: skip

    def watch_for_repeats(self, card: Card) -> None:
        """End where crashes that say the same, or runs whose results do not count, follow on each other."""
        alike = self.alike if self.alike and signature(self.alike[-1]) == signature(card) else []
        self.alike = [*alike, card] if card["status"] == "crash" else []
        self.suspect = [*self.suspect, card] if card["quarantined"] else []
        for cards, what, said in (
            (self.alike, "crashes in a row have one signature, mend what they share", ": ".join(error_of(card))),
            (self.suspect, "runs in a row are suspect and count for nothing, mend the cause", card["quarantined"]),
        ):
            if len(cards) >= self.asked.same_error and self.ending is None:
                names = ", ".join(card["id"][:12] for card in cards)
                self.ending = Ending(f"{len(cards)} {what}: {names} | {one_line(said, MAX_WORDS)}", TROUBLE)

    def left(self, number: int, worker: Worker, event: Event) -> None:
        """Take leave of a worker."""
        self.not_before = 0.0
        if worker.measured:
            self.seconds.append(event["seconds"])
        else:
            self.wasted += event["seconds"]
        if not worker.useful and not worker.refused and self.ending is None:
            self.missed(number, worker.why or event["said"] or f"exit code {event['code']}")

    def missed(self, number: int, why: str) -> None:
        """Wait longer each time after a worker without an experiment, and end after too many in a row."""
        self.fruitless += 1
        self.not_before = time.monotonic() + BACKOFF_SECONDS * 2 ** (self.fruitless - 1)
        self.tell("warning", worker=number, said=f"worker {number} ended without an experiment | {why}")
        if os.strerror(errno.ENOSPC) in why:
            self.ending = Ending(f"the disk is full | {why}", TROUBLE)
        elif self.fruitless >= FRUITLESS:
            told = f"{FRUITLESS} workers in a row ended without an experiment, see {self.crew.log(number)}"
            self.ending = Ending(f"{told} | {why}", TROUBLE)

    def synthesize(self) -> None:
        """Write down what has been learnt; where that cannot be done the work goes on."""
        from lab.synthesis import generate_session_synthesis, update_meta_synthesis  # read only when it is time

        try:
            generate_session_synthesis(self.knowledge, self.asked.session)
            update_meta_synthesis(self.knowledge)
        except LabError as error:
            self.tell("warning", said=f"no synthesis | {one_line(error, MAX_WORDS)}")
        else:
            self.tell("synthesized", session=self.asked.session)
