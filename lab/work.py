"""Work through the queue: claim an item, make its edit, run it, record it, and go on from what was kept.

    work(project, knowledge, session="mar8", agent="claude -p {prompt}", owner="me", once=True, idle_exit=0, tell=print)

What runs is always a commit in a fresh checkout (`lab/proposal.py`). It stays reachable as refs/autoresearch/runs/RUN;
one that is kept becomes the tip of autoresearch/SESSION, from which the next edit starts. What a worker that was killed
(kill -9) has left is ended or finished by the next one that starts.
Not covered: how a run is run (`lab/experiment.py`).
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import leases
from lab.agents import AgentError, RefusedError
from lab.cards import card_path, join, machine, new_id, utc_now
from lab.engines import Engine
from lab.errors import LabError, LeaseError, SettingError, StoreError
from lab.experiment import Experiment, Order, tidy
from lab.git import git
from lab.index import Index
from lab.interrupts import interruptible, undisturbed
from lab.items import Item
from lab.novelty import NOT_THE_IDEAS_FAULT
from lab.proposal import Proposal, advance, propose
from lab.proposers import needs_words
from lab.schema import Card, metric_value
from lab.store import read_json, replace, runs_dir

PROPOSAL = "proposal.json"  # in a run's folder: what a worker goes on with where the one before it was killed
POLL_SECONDS = 1.0
MAX_AGENT_FAILURES = 3  # in a row: then it is not the ideas

Event = dict[str, Any]
Tell = Callable[[Event], object]


def work(
    project: Path,
    knowledge: Path,
    *,
    session: str,
    agent: str,
    owner: str,
    once: bool = False,
    idle_exit: float | None = None,
    engine: Engine | None = None,
    tell: Tell = lambda event: None,
) -> int:
    """Work until there has been nothing to do for `idle_exit` seconds (None: for ever); how many experiments it ran.

    `agent` is a command line; with "hpo" or "random" only items that say their whole edit are run. Experiments run on a
    device of this machine, or on `engine`. `tell` gets what happens: {"event": claimed, waiting, started, warning,
    ended, failed, released, lost or idle, "item", "description", ...}. An item that cannot be run as it is fails, and
    the work goes on; LabError where it cannot, and InterruptedRunError at Ctrl-C or SIGTERM: then it is given back.
    """
    done = failures = 0
    idle_since: float | None = None
    director = os.environ.get("AUTORESEARCH_DIRECTOR_PID")
    tidy(project)
    with interruptible():
        while director is None or str(os.getppid()) == director:
            task = _Task(project, knowledge, session, agent, owner, engine, tell)
            try:
                found = task.claim()
                if found:
                    task.run_item()
                    done, failures = done + 1, 0
            except (RefusedError, AgentError) as error:
                failures = failures + 1 if isinstance(error, AgentError) else 0
                if failures == MAX_AGENT_FAILURES:
                    raise AgentError(f"{error}; that was {failures} times in a row: mend --agent") from error
            if found:
                idle_since = None
                if once:
                    break
                continue
            if idle_since is None:
                idle_since = time.monotonic()
                tell({"event": "idle", "item": None, "description": None})
            if idle_exit is not None and time.monotonic() - idle_since >= idle_exit:
                break
            time.sleep(POLL_SECONDS)
    return done


def session_of(project: Path, named: str | None = None) -> str:
    """The name of the session: the given one, the current branch's, or today's. SettingError for no branch's.

    StoreError without git.
    """
    if git(project, "--version") is None:
        raise StoreError("cannot start git, which makes a commit of every experiment; install it")
    branch = git(project, "symbolic-ref", "--quiet", "--short", "HEAD")
    today = time.strftime("%b").lower() + str(time.localtime().tm_mday)
    name = named or (branch or b"").decode("utf-8", "replace").strip().removeprefix("autoresearch/") or today
    if git(project, "check-ref-format", f"refs/heads/autoresearch/{name}") is None:
        raise SettingError(f"--session {name!r}: autoresearch/{name} is no name for a branch; give one like mar8")
    return name


class _Task:
    """An item being worked on, and by whom; `run` is the id of its run."""

    def __init__(
        self, project: Path, knowledge: Path, session: str, agent: str, owner: str, engine: Engine | None, tell: Tell
    ) -> None:
        self.project, self.knowledge, self.engine = project, knowledge, engine
        self.session, self.owner, self.tell = session, owner, tell
        self.agent = agent if needs_words(agent) else None
        self.branch = f"refs/heads/autoresearch/{session}"
        self.run = new_id()
        self.folder = runs_dir(project) / self.run
        self.held = False  # whether the lease is ours to end
        self.item: Item = {}
        self.proposal = Proposal("", {}, None, {})

    # The lease.

    def claim(self) -> bool:
        """Take the next item that this machine can run."""
        try:
            with undisturbed():
                with Index(self.knowledge) as index:
                    here = index.row(
                        "SELECT device, memory_gb FROM cards WHERE machine = ? AND device IS NOT NULL "
                        "ORDER BY timestamp DESC LIMIT 1",
                        machine(),
                    )  # what an earlier run found here: to ask the device takes seconds
                able = {"agent": self.agent is not None, "anywhere": self.engine is not None} | (here or {})
                item = leases.claim_next_experiment(self.knowledge, self.owner, pid=os.getpid(), **able)
                if item:
                    self.item, self.held = item, True
                    self.say("claimed", mode=item["mode"])
        except KeyboardInterrupt:
            if self.held:
                self.settle(leases.release)
            raise
        return self.held

    def settle(self, how: Callable[..., Item], **values: Any) -> None:
        """End the lease in one of the ways of `lab.leases`, and tell where it was ours no more."""
        self.held = False
        try:
            how(self.knowledge, self.item["id"], self.item["lease"]["token"], owner=self.owner, **values)
        except (LeaseError, SettingError) as error:  # the latter where it was cancelled meanwhile
            self.say("lost", reason=str(error))

    def say(self, event: str, **more: Any) -> None:
        """Tell what happens; how a run comes along, which it says each second, is for who watches only one."""
        if event == "progress":
            return
        about = {"item": self.item["id"], "description": self.item["description"]}
        self.tell({"event": event, "at": utc_now()} | about | more)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Within, a thread renews the lease. One that is lost is told at the end: the run is recorded all the same."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(leases.lease_seconds() / 4):
                try:
                    leases.heartbeat(self.knowledge, self.item["id"], self.item["lease"]["token"], self.owner)
                except (LeaseError, SettingError):
                    return
                except StoreError:
                    continue  # somebody holds the lock, or the disk is full: a later one may do

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    # The experiment.

    def run_item(self) -> None:
        """The whole of it, to the end of the lease."""
        try:
            if self.has_run():
                with undisturbed():
                    self.finish(self.card())
                return
            with self.renewed():
                where = (self.project, self.knowledge, self.branch)
                self.proposal = propose(self.item, *where, self.agent, self.folder)
                card = self.execute()
                with undisturbed():
                    self.finish(card)
        except KeyboardInterrupt:
            with undisturbed():
                if self.held and self.measured():
                    self.finish(self.card())
                elif self.held:
                    self.settle(leases.release)
                    self.say("released", reason="interrupted")
            raise
        except (RefusedError, AgentError) as error:
            with undisturbed():
                retry = isinstance(error, AgentError)
                self.settle(leases.fail_experiment, reason=str(error), retry=retry)
                self.say("failed", reason=str(error), retry=retry)
            raise
        except LabError as error:
            with undisturbed():
                if self.held:
                    self.settle(leases.release)
                    self.say("released", reason=str(error))
            raise

    def has_run(self) -> bool:
        """Whether a worker that was killed had run the item to its end: then its run is taken for ours."""
        if self.item["run"] is None:
            return False
        before, self.run = self.run, self.item["run"]
        folder = runs_dir(self.project) / self.run
        try:
            if self.measured():
                known = read_json(folder / PROPOSAL)
                self.proposal, self.folder = Proposal(known["commit"], {}, known["tip"], {}), folder
                return True
        except (StoreError, KeyError):
            pass  # what it left is damaged, or not there: the item is run anew
        self.run = before
        return False

    def execute(self) -> Card:
        """Run the commit and return its card."""
        item = self.item
        proposal = {"item": item["id"], "commit": self.proposal.commit, "tip": self.proposal.tip}
        replace(self.folder / PROPOSAL, proposal)
        leases.heartbeat(self.knowledge, item["id"], item["lease"]["token"], self.owner, run=self.run)
        order = Order(
            self.proposal.commit, self.proposal.files, item["description"], self.session, self.owner,
            item["category"], self.tags(), item["seed"], item["track"], item["requires"],
        )  # fmt: skip
        experiment = Experiment(
            self.project, self.knowledge, order, run=self.run, engine=self.engine, tell=self.say,
        )  # fmt: skip
        return experiment.perform()

    def tags(self) -> list[str]:
        """What the card is tagged with."""
        return list(dict.fromkeys([self.item["mode"], *(["replicate"] if self.item["replicates"] else [])]))

    # What comes of it.

    def measured(self) -> bool:
        """Whether the run has a card with a result."""
        path = card_path(self.knowledge, self.run)
        return path.exists() and metric_value(read_json(path)) is not None

    def card(self) -> Card:
        """The card of the run, with what has been said of it since, such as that it is suspect."""
        with Index(self.knowledge) as index:
            return index.read(self.run)

    def finish(self, card: Card) -> None:
        """Go on from the run's commit where it is kept, end the lease, and tell."""
        said = {"prior_knowledge_used": self.item["cards"]} if self.item["cards"] else {}
        if self.proposal.spent:
            said["results"] = self.proposal.spent
        if said:
            card = join(self.knowledge, card, "annotate", said)
        ahead = card["status"] == "keep" and not card["quarantined"] and not self.item["replicates"]
        moved = advance(self.project, self.branch, self.proposal) if ahead else None
        error = card["error"] or {}
        if error.get("kind") in NOT_THE_IDEAS_FAULT:
            why = f"card {card['id']}: {error['summary']}"
            self.settle(leases.fail_experiment, reason=why, retry=True)
        else:
            self.settle(leases.complete_experiment, card=card["id"])
        self.say(
            "ended", card=card["id"], status=card["status"], metric=card["metric"], result=metric_value(card),
            delta=card["results"].get("delta"), action=(card["decision"] or {}).get("action"),
            summary=error.get("summary"), suspect=card["quarantined"], branch=moved,
        )  # fmt: skip
