"""One trusted run: a commit, from the slot of a device to its card, however it ends and wherever its command runs.

    order = Order(commit, {}, hypothesis="wider MLP", session="mar8", agent="me")
    card = Experiment(project, knowledge, order).perform()

What the run says of itself is not all that its card says: a run that dies without a word, takes too long, or whose loss
is lost gets its card from here; one that shared its device is marked suspect; one that is kept is evaluated again, from
its checkpoint, by the command of the setting `second_look`.
Not covered: where a commit comes from (`lab/proposal.py`, `lab/current.py`) and what is done about the card.
"""

import hashlib
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from lab.brief import one_line
from lab.cards import card_path, join, new_id, read_card, utc_now
from lab.checkouts import abandoned, checkout, discard
from lab.devices import take
from lab.edits import edit_key
from lab.engines import Engine, Job
from lab.errors import CardError, LabError
from lab.foreign import Watch
from lab.git import full_hash, run_git
from lab.interrupts import undisturbed
from lab.keeper import end_leftovers
from lab.losses import lookout, read_losses
from lab.memory import memory_ran_out, oom_kills
from lab.outcome import ERROR, make_error, read_left, record
from lab.recheck import look_again
from lab.recorder import CHECKPOINT
from lab.runlog import read_log
from lab.runner import OvertimeError, StoppedError, environment, run_group
from lab.schema import PHASES, Card, finite
from lab.settings import load_settings, time_budget
from lab.store import read_json, replace, runs_dir

START_UP_SECONDS = 600.0  # a run may take so long beyond twice its time budget
MAX_HYPOTHESIS_CHARACTERS = 2000

Runner = Callable[[Job, Callable[[], str | None]], int]


class Order(NamedTuple):
    """What is to be run: a commit with these files {path from the project's folder: content} over it.

    The rest is what its card says of it; `track` is the one it is planned for, and `requires` what an item of the queue
    asks of a device.
    """

    commit: str
    files: Mapping[str, bytes]
    hypothesis: str
    session: str | None
    agent: str | None
    category: str | None = None
    tags: Sequence[str] = ()
    seed: int | None = None
    track: str | None = None
    requires: Mapping[str, Any] | None = None


class Experiment:
    """A run of an order: its id is `run`, its folder `folder`.

    It runs on a slot of this machine, waiting for one, or on `engine`. `limit` are seconds (default: twice the time
    budget and START_UP_SECONDS). `tell` gets an event's name and keywords: waiting, started, progress, warning.
    """

    def __init__(
        self,
        project: Path,
        knowledge: Path,
        order: Order,
        *,
        run: str | None = None,
        engine: Engine | None = None,
        limit: float | None = None,
        tell: Callable[..., object] = lambda event, **more: None,
    ) -> None:
        self.project, self.knowledge, self.order = project, knowledge, order
        self.settings, self.engine, self.tell = load_settings(project), engine, tell
        self.limit = limit or 2 * time_budget() + START_UP_SECONDS
        self.run = run or new_id()
        self.folder = runs_dir(project) / self.run
        self._lost = lookout(self.folder)
        self._began: float | None = None
        self._watch: Watch | None = None

    def perform(self) -> Card:
        """Run it and return its card. InterruptedRunError's KeyboardInterrupt passes through once all is ended.

        LabError where it could not be started at all: then there is no card.
        """
        command = shlex.split(self.settings.command)
        with self._place() as run:
            tidy(self.project)  # here, because who held the slot before us has ended
            run_git(self.project, "update-ref", f"refs/autoresearch/runs/{self.run}", self.order.commit)
            self.tell("started", run=self.run, commit=self.order.commit)
            self._began, before = None, oom_kills()
            try:
                code = run(self._job(command, "run.log"), self._look)
            except StoppedError:
                pass  # the card says why
            except OvertimeError:  # by an engine's own clock
                with undisturbed():
                    self.record(self._late())
            except KeyboardInterrupt:
                if (self.folder / "run.log").exists():  # or it had not begun
                    with undisturbed():
                        self.record({"kind": "interrupted", "summary": "stopped by Ctrl-C or SIGTERM"})
                raise
            else:
                with undisturbed():
                    self.record(_silent_end(code, memory_ran_out(before)))
            card = self._card()
            if self._watch and (reason := self._watch.reason()) and not card["error"]:
                card = join(self.knowledge, card, "suspect", {"reason": reason})
            if self._deserves_a_second_look(card):
                card = self._look_again(card, run)
        if card["status"] != "keep" or card["quarantined"]:
            with suppress(OSError):
                (self.folder / CHECKPOINT).unlink()
        return card

    def _card(self) -> Card:
        return read_card(self.knowledge, self.run)

    # Where it runs.

    @contextmanager
    def _place(self) -> Iterator[Runner]:
        """What runs a job there; a device of this machine is watched meanwhile."""
        if self.engine:
            yield self.engine.run
            return
        with take(self.run, self.order.agent or "", tell=lambda text: self.tell("waiting", reason=text)) as slot:

            def run_here(job: Job, look: Callable[[], str | None]) -> int:
                with checkout(job.project, job.commit, self.run) as (folder, lock):
                    for name, content in job.files.items():
                        replace(folder / name, content)
                    told = environment(self.project, self.knowledge, job.told) | slot.environment()
                    held = (lock, slot.fd)
                    return run_group(job.command, folder, told, job.folder / job.log, look=look, held=held)

            self._watch = Watch(slot, self.run)
            yield run_here

    def _job(self, command: list[str], log: str) -> Job:
        return Job(
            self.project, self.order.commit, dict(self.order.files), command, self._told(), self.folder, log,
            self.limit, dict(self.order.requires or {}),
        )  # fmt: skip

    def _told(self) -> dict[str, str]:
        """What the run is told: who it is and what it is for."""
        order = self.order
        told = {
            "AUTORESEARCH_RUN_ID": self.run,
            "AUTORESEARCH_RUN_DIR": str(self.folder),
            "KNOWLEDGE_DIR": str(self.knowledge.absolute()),
            "AUTORESEARCH_HYPOTHESIS": one_line(order.hypothesis, MAX_HYPOTHESIS_CHARACTERS),
            "AUTORESEARCH_SESSION": order.session,
            "AUTORESEARCH_AGENT": order.agent,
            "AUTORESEARCH_CATEGORY": order.category or "",
            "AUTORESEARCH_TAGS": ",".join(order.tags),
            "AUTORESEARCH_SEED": None if order.seed is None else str(order.seed),
        }
        return {name: value for name, value in told.items() if value is not None}

    # While it runs.

    def _look(self) -> str | None:
        """Why the run is to be ended now, its card being written already; None where nothing speaks against it."""
        if self._watch:
            self._watch.look()
        if points := read_losses(self.folder):
            step, seconds, loss = points[-1]
            self.tell("progress", step=step, seconds=seconds, loss=finite(loss))
        self._began = self._began or time.monotonic()  # what an engine needs before its command begins is not the run's
        if time.monotonic() - self._began > self.limit:
            self.record(self._late())
            return "it took too long"
        if reason := self._lost():
            self.record({"kind": "diverged", "summary": reason})
            return reason
        return None

    def _late(self) -> dict[str, Any]:
        return {"kind": "timeout", "summary": f"took longer than {self.limit:g} s, its limit"}

    # What comes of it.

    def record(self, error: dict[str, Any]) -> None:
        """Write the run's card where it has left none: a crash, with the end of its log and what `error` says.

        Where the run has left what makes no card, which may be anything, that is set aside and the card says so.
        """
        if card_path(self.knowledge, self.run).exists():
            return
        try:
            self._record(error)
        except CardError as damage:
            for name in ("start.json", "summary.json", ERROR):
                with suppress(FileNotFoundError):
                    os.replace(self.folder / name, self.folder / f"{name}.refused")
            replace(self.folder / "start.json", self._facts())
            why = str(damage).replace(f"{self.folder}/", "")  # others read it
            record(self.folder, make_error("exception", None, f"what the run has left makes no card: {why}", []))

    def _record(self, error: dict[str, Any]) -> None:
        """The same with what the run has left. CardError where that makes no card."""
        start, log = self.folder / "start.json", self.folder / "run.log"
        if not start.exists():
            replace(start, self._facts())
        facts = read_left(start)
        if (facts.get("run_id"), facts.get("knowledge_dir")) != (self.run, str(self.knowledge.absolute())):
            raise CardError(f"{start} is of another run")
        if self.engine and (self.folder / ERROR).exists():
            found = read_json(self.folder / ERROR)
            record(self.folder, found["error"], found["loss_curve"])
            return
        said = make_error("exception", None, "it has left no log", [])
        if log.is_file():
            said = read_log(log, self.settings.metric, crashed=True)["error"]
        record(self.folder, said | {"phase": facts.get("phase")} | error)

    def _facts(self) -> Card:
        """What is known of a run that ended before it could say so itself, such as of a script that does not parse."""
        order, script = self.order, self.settings.editable[0]
        source = order.files.get(script) or run_git(
            self.project, "show", "--end-of-options", f"{order.commit}:./{script}"
        )
        return {
            "run_id": self.run, "timestamp": utc_now(), "phase": PHASES[0],
            "knowledge_dir": str(self.knowledge.absolute()),
            "commit": order.commit, "parent_commit": full_hash(self.project, f"{order.commit}~1"),
            "metric": self.settings.metric, "direction": self.settings.direction, "track": order.track,
            "train_sha256": hashlib.sha256(source).hexdigest(), "edit_key": edit_key(source), "seed": order.seed,
            "hypothesis": one_line(order.hypothesis, MAX_HYPOTHESIS_CHARACTERS), "session": order.session,
            "agent": order.agent, "tags": list(order.tags), "category": order.category,
        }  # fmt: skip

    def _deserves_a_second_look(self, card: Card) -> bool:
        return bool(self.settings.second_look) and card["status"] == "keep" and not card["quarantined"]

    def _look_again(self, card: Card, run: Runner) -> Card:
        """The card after the champion-to-be was evaluated on text that no run has seen."""
        began = time.monotonic()

        def look() -> str | None:
            return f"took longer than {self.limit:g} s" if time.monotonic() - began > self.limit else None

        def run_command(command: list[str], log: str) -> int:
            return run(self._job(command, log), look)

        card, warning = look_again(self.project, self.knowledge, card, self.folder, run_command)
        if warning:
            self.tell("warning", said=warning)
        return card


def _silent_end(code: int, memory_full: bool) -> dict[str, Any]:
    """What the error of a run is that ended with this exit code and left no card; {}: what its log says."""
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL) and memory_full:
        return {"kind": "oom", "summary": "ended by the kernel: the system ran out of memory"}
    if code == 0:
        return {"summary": "the command ended well and recorded nothing; it must use lab.recorder"}
    if code < 0 or code > 128:  # by a signal, which a shell tells as 128 + its number
        return {"kind": "killed", "summary": f"killed: exit code {code}"}
    return {}


def tidy(project: Path) -> list[str]:
    """Clear away what workers that were killed have left in this project; the ids of the runs.

    What still runs is ended, a run that had begun gets the card that it is due, and its checkout goes.
    """
    runs = abandoned(project)
    for run in runs:
        end_leftovers(run)
        folder = runs_dir(project) / run
        if (folder / "start.json").is_file():
            with suppress(LabError):  # what it left is damaged: there is nothing to make a card of
                phase = read_json(folder / "start.json").get("phase")
                record(folder, make_error("killed", phase, "killed together with the worker that ran it", []))
        discard(project, run)
    return runs
