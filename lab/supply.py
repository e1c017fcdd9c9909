"""What a run of the director has to do next: what waits in the queue, and the plan's best ideas where that runs low.

    supply = Supply(project, knowledge, "hpo", "mar8", None, tell)
    supply.fill(wanted=2, taken=0)                  # whether something is there for another worker
    supply.best, supply.usual, supply.mode

The strategy is chosen anew at every filling, and no more is added than is soon needed, for plans age.
Not covered: where new ideas come from (`lab/proposers.py`), claims (`lab/leases.py`), who works (`lab/director.py`).
"""

from collections.abc import Callable, Container
from pathlib import Path

from lab.cards import machine, utc_now
from lab.facts import champion, local_track, main_track
from lab.index import Index
from lab.items import Item, says_its_edit
from lab.leases import is_over, waits_for
from lab.planning import usual_seconds
from lab.proposers import needs_words, new_items
from lab.queue import add_to_queue, read_queue
from lab.situation import strategy_of
from lab.strategy import Choice


class Supply:
    """The queue of a commons and what a plan can add to it, for the workers of a session, named `worker` and a number.

    `best` is the champion's row (`lab.facts.champion`), `usual` how many seconds an experiment takes, `mode` what was
    planned last. `failed` are descriptions of what is not to be planned again. `tell` gets a name and keywords.
    """

    def __init__(
        self, project: Path, knowledge: Path, agent: str, session: str, track: str | None, tell: Callable[..., None]
    ) -> None:
        self.project = project
        self.knowledge, self.agent, self.session, self.track, self._tell = knowledge, agent, session, track, tell
        self.worker = f"{session}/worker-"
        self.mode: str | None = None
        self.failed: set[str] = set()
        self.dry = False  # whether the last plan had nothing to add
        self.reservation = "" if needs_words(agent) else " that runs without an agent"
        self.look()

    def look(self) -> Choice:
        """Look at the queue, the champion and how long a run takes; the strategy that the commons asks for now."""
        self.read()
        with Index(self.knowledge) as index:
            # Where no track is wished for, this machine's: an imported ledger's champion is none to compare with.
            self.here = main_track(index, self.track) if self.track else local_track(index, machine())
            self.best = champion(index, self.here)
            self.usual = usual_seconds(index, self.here)
            return strategy_of(index, self.here)

    def read(self) -> None:
        """Read the queue again."""
        self.queue = read_queue(self.knowledge)

    def strangers(self, ours: Container[int]) -> int:
        """How many workers of the session are at work without one of our process ids: another director left them."""
        self.read()
        now = utc_now()
        leases = [item["lease"] for item in self.queue.items.values() if item["lease"]]
        working = [lease for lease in leases if lease["owner"].startswith(self.worker) and not is_over(lease, now)]
        return sum(lease.get("pid") not in ours for lease in working)

    def fill(self, wanted: int, taken: int) -> bool:
        """Whether something is there for another worker, after planning where less than `wanted` is.

        `taken` items are about to be claimed. Without a champion only the baseline is planned: there is nothing to
        compare with before.
        """
        choice, ready = self.look(), self._ready()
        missing = wanted - (len(ready) - taken)
        if self.best is None:
            missing = 0 if any(item["changes"] == {} for item in ready) else 1
        if missing > 0:
            self._plan(choice, missing)
            ready = self._ready()
        return len(ready) > taken

    def _ready(self) -> list[Item]:
        """What a worker could claim now; what asks for hardware that it might not have is not counted on."""
        now = utc_now()
        free = (item for item in self.queue.items.values() if item["lease"] is None or is_over(item["lease"], now))
        sound = (item for item in free if self._can_run(item) and not item["requires"])
        return [item for item in sound if not waits_for(self.queue, item)]

    def _can_run(self, item: Item) -> bool:
        """Whether the workers can do what an item asks for; without an agent what says its edit itself."""
        return needs_words(self.agent) or says_its_edit(item)

    def _is_new(self, item: Item) -> bool:
        """Whether this run has not failed at it; without the baseline nothing goes on."""
        return item["changes"] == {} or item["description"] not in self.failed

    def _plan(self, choice: Choice, missing: int) -> None:
        """Add the plan's best ideas to the queue, as many as are missing."""
        if choice.mode != self.mode:
            self._tell("mode", mode=choice.mode, before=self.mode, reason=choice.reason)
            self.mode = choice.mode
        planned = new_items(self.project, self.knowledge, self.here, self.agent, missing + len(self.failed))
        wanted = [item for item in planned if self._is_new(item)]
        added = add_to_queue(self.knowledge, wanted[:missing], f"{self.session}/director")
        self.read()
        if added:
            told = [{name: item[name] for name in ("id", "mode", "description")} for item in added]
            self._tell("planned", mode=choice.mode, reason=choice.reason, added=told)
        elif not self.dry:
            self._tell("warning", said=f"the plan has nothing new{self.reservation}")
        self.dry = not added
