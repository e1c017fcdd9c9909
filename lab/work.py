"""Work through the queue: claim an item, make its edit, run it, record it, and go on from what was kept.

    work(project, knowledge, session="mar8", agent="claude -p {prompt}", owner="me", once=True, idle_exit=0, tell=print)

What runs is always a commit in a fresh checkout (`lab/proposal.py`). It stays reachable as refs/autoresearch/runs/RUN;
one that is kept becomes the tip of autoresearch/SESSION, from which the next edit starts.
Not covered: which device a run gets, several machines, and what a worker that was killed (kill -9) had started.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import leases
from lab.agents import AgentError, RefusedError
from lab.brief import one_line
from lab.cards import card_path, join, machine, new_id, utc_now
from lab.edits import edit_key
from lab.errors import LabError, LeaseError, SettingError, StoreError
from lab.git import full_hash, git, run_git
from lab.index import Index
from lab.items import Item
from lab.novelty import NOT_THE_IDEAS_FAULT
from lab.outcome import record
from lab.proposal import Proposal, advance, propose, source_of
from lab.runlog import read_log
from lab.runner import OvertimeError, environment, interruptible, run_commit, undisturbed
from lab.schema import PHASES, Card, metric_value
from lab.settings import load_settings
from lab.store import read_json, replace, runs_dir

NO_AGENT = "hpo"  # in the place of an agent: only items that say what to change
START_UP_SECONDS = 600.0  # a run may take so long beyond twice its time budget
POLL_SECONDS = 1.0
MAX_AGENT_FAILURES = 3  # in a row: then it is not the ideas
MAX_HYPOTHESIS_CHARACTERS = 2000

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
    tell: Tell = lambda event: None,
) -> int:
    """Work until there has been nothing to do for `idle_exit` seconds (None: for ever); how many experiments it ran.

    `agent` is a command line, or "hpo" for none. `tell` gets what happens: {"event": claimed, started, ended, failed,
    released, lost or idle, "item", "description", ...}. An item that cannot be run as it is fails, and the work goes
    on; LabError where it cannot, and InterruptedRunError at Ctrl-C or SIGTERM: then the item is given back.
    """
    done = failures = 0
    idle_since: float | None = None
    director = os.environ.get("AUTORESEARCH_DIRECTOR_PID")
    with interruptible():
        while director is None or str(os.getppid()) == director:
            task = _Task(project, knowledge, session, agent, owner, tell)
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

    def __init__(self, project: Path, knowledge: Path, session: str, agent: str, owner: str, tell: Tell) -> None:
        self.project, self.knowledge, self.settings = project, knowledge, load_settings(project)
        self.session, self.owner, self.tell = session, owner, tell
        self.agent = None if agent == NO_AGENT else agent
        self.branch = f"refs/heads/autoresearch/{session}"
        self.run = new_id()
        self.folder = runs_dir(project) / self.run
        self.held = False  # whether the lease is ours to end
        self.item: Item = {}
        self.proposal = Proposal("", {}, None)

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
                able = {"agent": self.agent is not None} | (here or {})
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
        """Tell what happens."""
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
            with self.renewed():
                where = (self.project, self.knowledge, self.branch)
                self.proposal = propose(self.item, *where, self.agent, self.folder)
                self.execute()
                with undisturbed():
                    self.finish()
        except KeyboardInterrupt:
            with undisturbed():
                if self.held and self.measured():
                    self.finish()
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

    def execute(self) -> None:
        """Run the commit; the run, or whoever noticed its end, leaves the card."""
        run_git(self.project, "update-ref", f"refs/autoresearch/runs/{self.run}", self.proposal.commit)
        self.say("started", run=self.run, commit=self.proposal.commit)
        told = environment(self.project, self.knowledge, self.told())
        limit = 2 * (leases.lease_seconds() - leases.MARGIN_SECONDS) + START_UP_SECONDS
        late = {"kind": "timeout", "summary": f"took longer than {limit:g} s, the limit for this time budget"}
        try:
            commit, files, _ = self.proposal
            log = self.folder / "run.log"
            code = run_commit(self.project, commit, files, told, log, limit, lambda: self.record(late))
        except OvertimeError:
            return  # the card says so
        with undisturbed():
            self.record(_silent_end(code))

    def told(self) -> dict[str, str]:
        """What the run is told: who it is and what it is for."""
        item = self.item
        seed = {} if item["seed"] is None else {"AUTORESEARCH_SEED": str(item["seed"])}
        return seed | {
            "AUTORESEARCH_RUN_ID": self.run,
            "AUTORESEARCH_SESSION": self.session,
            "AUTORESEARCH_AGENT": self.owner,
            "AUTORESEARCH_HYPOTHESIS": one_line(item["description"], MAX_HYPOTHESIS_CHARACTERS),
            "AUTORESEARCH_CATEGORY": item["category"] or "",
            "AUTORESEARCH_TAGS": ",".join(self.tags()),
        }

    def tags(self) -> list[str]:
        """What the card is tagged with."""
        return list(dict.fromkeys([self.item["mode"], *(["replicate"] if self.item["replicates"] else [])]))

    def record(self, error: dict[str, Any]) -> Card:
        """The card of the run; where it left none, a crash with the last lines of its log and what `error` says."""
        path = card_path(self.knowledge, self.run)
        if not path.exists():
            start = self.folder / "start.json"
            if not start.exists():
                replace(start, self.facts())
            said = read_log(self.folder / "run.log", self.settings.metric, crashed=True)["error"]
            record(self.folder, said | {"phase": read_json(start).get("phase")} | error)
        return read_json(path)

    def facts(self) -> dict[str, Any]:
        """What is known of a run that ended before it could say so itself, such as of a script that does not parse."""
        script = self.settings.editable[0]
        commit = self.proposal.commit
        source = self.proposal.files.get(script) or source_of(self.project, commit, script)
        return {
            "run_id": self.run, "timestamp": utc_now(), "phase": PHASES[0],
            "knowledge_dir": str(self.knowledge.absolute()),
            "commit": commit, "parent_commit": full_hash(self.project, f"{commit}~1"),
            "metric": self.settings.metric, "direction": self.settings.direction, "track": self.item["track"],
            "train_sha256": hashlib.sha256(source).hexdigest(), "edit_key": edit_key(source), "seed": self.item["seed"],
            "hypothesis": one_line(self.item["description"], MAX_HYPOTHESIS_CHARACTERS), "session": self.session,
            "agent": self.owner, "tags": self.tags(), "category": self.item["category"],
        }  # fmt: skip

    # What comes of it.

    def measured(self) -> bool:
        """Whether the run has a card with a result."""
        path = card_path(self.knowledge, self.run)
        return path.exists() and metric_value(read_json(path)) is not None

    def finish(self) -> None:
        """Go on from the commit where it is kept, end the lease, and tell."""
        card = read_json(card_path(self.knowledge, self.run))
        if self.item["cards"]:
            card = join(self.knowledge, card, "annotate", {"prior_knowledge_used": self.item["cards"]})
        ahead = card["status"] == "keep" and not self.item["replicates"]
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
            summary=error.get("summary"), branch=moved,
        )  # fmt: skip


def _silent_end(code: int) -> dict[str, Any]:
    """What the error of a run is that ended with this exit code and left no card; {}: what its log says."""
    if code == 0:
        return {"summary": "the command ended well and recorded nothing; it must use lab.recorder"}
    if code < 0 or code > 128:  # by a signal, which a shell tells as 128 + its number
        return {"kind": "killed", "summary": f"killed: exit code {code}"}
    return {}
