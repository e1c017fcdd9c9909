"""This machine's queue of experiments to run: the open ones in a JSON file, every change to one as a line of a history.

    add_to_queue(knowledge, [{"description": "repeat of 1f0c...: wider MLP", "replicates": "1f0c...", "seed": 43}])
    [item["description"] for item in load_queue(knowledge)]
    with changing(knowledge) as queue:                          # nobody else changes it within
        queue.log("release", "me", [{"id": name, "status": "pending", "lease": None}])

A change is one line appended to queue-history.jsonl under the lock queue.json.lock, which is free at once when its
holder dies. That costs the same however much waits or has ended. queue.json says how things stood at
a position of the history; a change rewrites it now and then (REWRITE_SECONDS_PER_BYTE) and keeps the previous copy.
Readers take no lock: they read on in the history from there, so the copy tells them the same as queue.json.
Not covered: claims (`lab/leases.py`), who works through it, and a file system that several machines write to
(docs/protocol.md says what that needs).
"""

import json
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lab.cards import utc_now
from lab.errors import SettingError, StoreError
from lab.items import DEFAULTS, FINISHED, KEYS, OPEN, Item, check_item, new_item
from lab.journal import Event, Journal
from lab.locks import locked
from lab.snapshot import SCHEMA, mark, read_snapshot
from lab.store import replace

# Between two rewrites of queue.json, by its size. It and the reading by others take about a fiftieth of that: a burst
# of changes hardly feels it, and on an ordinary night queue.json is always up to date.
REWRITE_SECONDS_PER_BYTE = 1e-5
# A power failure that takes these back has ended whoever did them, too: they need not wait for the disk.
FORGETTABLE = ("claim", "heartbeat", "release")
_known: dict[Path, "Queue"] = {}  # of this process, by knowledge folder


class Queue:
    """What is open, in the order it was added, as of a position of the history (`through`).

    `waiting` are the pending ones as (priority, created, number, id), in the order in which they are claimed;
    `finished` counts the others by status. `dependencies` are the statuses of finished items that open ones depend on,
    `token` is that of the newest lease. Changed by `log`.
    """

    def __init__(self, knowledge: Path) -> None:
        """The queue of a knowledge folder as its files say. StoreError where these cannot be used."""
        self.path = knowledge / "queue.json"
        self.journal = Journal(knowledge / "queue-history.jsonl")
        self.items: dict[str, Item] = {}
        self.waiting: list[tuple[int, str, int, str]] = []
        self._place: dict[str, tuple[int, str, int, str]] = {}
        self._numbers: dict[str, int] = {}  # in the order of adding
        self._deadlines: dict[str, str] = {}  # of the leases, by item
        self._watched: set[str] = set()  # items whose leases end with a process
        self._needed: Counter[str] = Counter()  # how many open items depend on each
        self.seen = mark(self.path)
        # Without the file the history tells everything. One that was written by hand may hold finished items, and not
        # say how much of the history it has in it: all of it, then.
        self.content = read_snapshot(self.path) if self.seen else {"items": [], "through": None}
        items = self.content.pop("items")
        self._strays = [item for item in items if item["status"] in FINISHED]
        self._ours = "through" in self.content and not self._strays
        self.token: int = self.content.get("token", 0)
        self.finished = Counter(self.content.get("finished", {}))
        self.dependencies: dict[str, str] = dict(self.content.get("dependencies", {}))
        for item in items:
            if item["status"] in OPEN:
                self._apply(item)
        self._depend(self._strays)
        if "through" not in self.content:
            events, self.content["through"] = self.journal.since()
            for event in events:
                leases = (item.get("lease") or {} for item in event["items"])
                self.token = max((self.token, *(told.get("token", 0) for told in (event, *leases))))
                self._depend([{"id": name, "status": status} for name, status in event.get("dependencies", {}).items()])
                self._depend(event["items"])
        self.through = 0
        self._catch_up(self.content["through"])

    def _depend(self, items: Iterable[Item]) -> None:
        """Keep the statuses of those that have ended and that open ones depend on."""
        needed = (item for item in items if self._needed[item["id"]] and item["id"] not in self.items)
        self.dependencies |= {item["id"]: item["status"] for item in needed if item.get("status") in FINISHED}

    def catch_up(self) -> None:
        """Take in what the history has got since. StoreError where it cannot be read."""
        self._catch_up(self.through)

    def _catch_up(self, position: int | None) -> None:
        events, end = self.journal.since(position)
        try:
            for event in events:
                self._take(event)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StoreError(
                f"{self.journal.path}: a line behind position {position} is no change of the queue; mend it, or move "
                "it away: what is open in queue.json stays"
            ) from error
        self.through = end

    def log(self, event: str, owner: str | None, items: Sequence[Item], **more: Any) -> None:
        """Change these items, or add them: write one line of the history and do what it says.

        An open item may be told by its id and what changes. StoreError when it cannot be written: nothing has changed.
        """
        if not self._ours:
            if found := [*self._strays, *self.items.values()]:
                self._write("found", None, found)
            self._rewrite()
        self._write(event, owner, items, **more)
        if self.seen is None or time.time() - self.seen[1] / 1e9 >= self.seen[2] * REWRITE_SECONDS_PER_BYTE:
            with suppress(StoreError):  # the change is in the history, and the next one may have more luck
                self._rewrite()

    def over(self, now: str) -> list[str]:
        """The items whose leases may be over: past their deadline, or bound to a process."""
        if self._deadlines and min(self._deadlines.values()) < now:
            return [name for name, deadline in self._deadlines.items() if deadline < now or name in self._watched]
        return sorted(self._watched)

    def forget(self, owner: str | None, names: Collection[str]) -> None:
        """Drop these items, which have ended, from the history."""
        kept = []
        for event in self.journal.since()[0]:
            items = [item for item in event["items"] if item["id"] not in names]
            if items:
                kept.append(event | {"items": items})
        still = {"token": self.token, "dependencies": self.dependencies}  # what counts of them all the same
        kept.append({"at": utc_now(), "event": "prune", "owner": owner} | still | {"items": []})
        self._rewrite()  # from here on nobody needs to read what comes before
        self.journal.keep(kept, self.through)
        self._rewrite()  # nor does whoever goes back to the copy

    def counts(self) -> dict[str, int]:
        """How many items have each status."""
        found = Counter(item["status"] for item in (*self.items.values(), *self._strays)) + self.finished
        return {status: found[status] for status in (*OPEN, *FINISHED)}

    def _write(self, event: str, owner: str | None, items: Sequence[Item], **more: Any) -> None:
        # What ends is told whole, so that the history need not be read from its beginning.
        whole = [self.items.get(item["id"], {}) | item if item.get("status") in FINISHED else item for item in items]
        line = {"at": utc_now(), "event": event, "owner": owner} | more | {"items": whole}
        self.through = self.journal.append(self.through, [line], wait=event not in FORGETTABLE)
        self._take(json.loads(json.dumps(line)))  # nobody else holds a part of it

    def _rewrite(self) -> None:
        """Put how things stand into queue.json, and what stood there beside it."""
        self.journal.sync()  # or a power failure could leave a history that is shorter than queue.json says
        self._strays, self._ours = [], True
        now = {"schema": SCHEMA, "through": self.through, "token": self.token, "finished": dict(self.finished)}
        head = json.dumps(self.content | now | {"dependencies": self.dependencies}, allow_nan=False)
        items = ",\n".join(json.dumps(item, allow_nan=False) for item in self.items.values())
        with suppress(FileNotFoundError):
            replace(self.path.with_name("queue.json.bak"), self.path.read_bytes())
        replace(self.path, f'{head[:-1]}, "items": [\n{items}\n]}}\n'.encode())
        self.seen = mark(self.path)

    def _take(self, event: Event) -> None:
        """Do what a line of the history says."""
        if was := event.get("was"):  # of an item that is open again
            self.finished[was] -= 1
        self.dependencies |= event.get("dependencies", {})
        self.token = max(self.token, event.get("token", 0))  # of leases whose lines were pruned
        for item in event["items"]:
            self._apply(item)

    def _apply(self, change: Item) -> None:
        """Do what is said of one item."""
        name = change["id"]
        before = self.items.get(name)
        item = (before or {}) | change
        if place := self._place.pop(name, None):
            del self.waiting[bisect_left(self.waiting, place)]
        self._deadlines.pop(name, None)
        self._watched.discard(name)
        if item["status"] in FINISHED:
            self.finished[item["status"]] += 1
            self.items.pop(name, None)
            if self._needed[name]:
                self.dependencies[name] = item["status"]
            self._needed.subtract((before or {}).get("depends_on") or ())
            for other in (before or {}).get("depends_on") or ():
                if self._needed[other] < 1:
                    self.dependencies.pop(other, None)
            return
        if before is None:
            if "description" not in change:
                return  # somebody took it out of queue.json by hand
            self.dependencies.pop(name, None)
            self._needed.update(item.get("depends_on") or ())
        self.items[name] = item
        if lease := item["lease"]:
            self.token = max(self.token, lease["token"])
            self._deadlines[name] = lease["deadline"]
            if lease.get("pid") is not None:
                self._watched.add(name)
        if item["status"] == "pending":
            number = self._numbers.setdefault(name, len(self._numbers))
            place = self._place[name] = (item["priority"], item["created"], number, name)
            insort(self.waiting, place)


def load_queue(knowledge: Path) -> list[Item]:
    """The open items in the order they were added; [] without a queue. A claim that is over shows as it was left.

    StoreError, naming the previous copy, where the file does not parse: it is never taken for an empty queue.
    """
    return list(read_queue(knowledge).items.values())


def read_queue(knowledge: Path) -> Queue:
    """The queue as it is at this moment, to be read. StoreError as for `load_queue`."""
    while True:
        before = mark(knowledge / "queue.json")
        try:
            return Queue(knowledge)
        except StoreError:
            if before == mark(knowledge / "queue.json"):
                raise  # else somebody pruned the history between our reading of the two files


@contextmanager
def changing(knowledge: Path) -> Iterator[Queue]:
    """The queue, which nobody else changes within. StoreError where it cannot be locked or read."""
    queue = _known.pop(knowledge, None)  # for this thread alone
    if queue:
        try:
            queue.catch_up()  # before the lock is held: nobody waits for this
        except StoreError:
            queue = None
    with locked(knowledge / "queue.json.lock"):
        if queue and queue.seen and queue.seen == mark(queue.path):
            queue.catch_up()
        else:
            queue = read_queue(knowledge)
        yield queue
        _known[knowledge] = queue


def add_to_queue(knowledge: Path, items: Sequence[Item], owner: str | None = None) -> list[Item]:
    """Add items and return them whole: those that are new. What an open item will settle anyway is left out.

    An item needs a `description`; docs/protocol.md says what else may be given, other keys are kept. SettingError where
    a value is not allowed, or it depends on an item that is not there or has failed: nothing is added then. StoreError
    as for `load_queue`, or where the queue cannot be written.
    """
    wanted = [new_item(item) for item in items]
    for item in wanted:
        check_item(item, "an item of the queue")
        try:
            json.dumps(item, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise SettingError(f"an item of the queue holds what JSON cannot ({error}); leave it out") from error
    with changing(knowledge) as queue:
        settled = {_question(item) for item in queue.items.values()}
        added: list[Item] = []
        for item in wanted:
            if _question(item) not in settled:
                settled.add(_question(item))
                added.append(item)
        if added:
            queue.log("add", owner, added, **met(knowledge, queue, added))
    return added


def finished_items(knowledge: Path) -> list[Item]:
    """The items that have ended and are open no more, in the order in which they ended, from the history.

    StoreError where that is damaged.
    """
    found: dict[str, Item] = {}
    journal = Journal(knowledge / "queue-history.jsonl")
    try:
        for event in journal.since()[0]:
            for item in event["items"]:
                found.pop(item["id"], None)
                if item.get("status") in FINISHED:
                    found[item["id"]] = item = dict.fromkeys(KEYS) | DEFAULTS | item
                    check_item(item, "a line of the history")
    except (KeyError, TypeError, AttributeError, SettingError) as error:
        raise StoreError(
            f"{journal.path}: a line is no change of the queue; mend it, or move it away: what is open in queue.json "
            "stays"
        ) from error
    return list(found.values())


def met(knowledge: Path, queue: Queue, items: Sequence[Item]) -> dict[str, dict[str, str]]:
    """What a line of the history tells of `items` that are open from it on: what they depend on and has ended.

    SettingError where that will never be completed.
    """
    missing = {name for item in items for name in item["depends_on"] or () if name not in queue.items}
    ended = {item["id"]: item["status"] for item in finished_items(knowledge)} if missing else {}
    for name in sorted(missing):
        if ended.get(name) != "completed":
            what = f"is {ended[name]}; requeue it first" if name in ended else "is not in the queue"
            raise SettingError(f"depends_on: {name!r} {what}; `director.py list` lists what is open")
    return {"dependencies": {name: ended[name] for name in missing}} if missing else {}


def _question(item: Item) -> tuple[Any, ...]:
    """What an item will settle, equal where one of two is enough: a card and a seed, or an idea."""
    if item.get("replicates"):
        return item["replicates"], item.get("seed")
    return (" ".join(str(item.get("description")).casefold().split()),)
