"""Who works on what: claims that end by themselves, and what becomes of an item of the queue.

    item = claim_next_experiment(knowledge, "ada/worker-1")
    heartbeat(knowledge, item["id"], item["lease"]["token"])                  # I am still at it
    complete_experiment(knowledge, item["id"], item["lease"]["token"], card="1f0c9a...")

A claim is a lease: a token, an owner and a deadline. The token is larger than that of every lease before it (fencing;
Kleppmann 2016, How to do distributed locking). A lease is over at its deadline unless a heartbeat came, or when the
process that took it is gone; its item is then pending again, or failed when that was its last attempt. Whoever
comes with a lease that is over is refused: what was measured is in its card all the same.
Not covered: the files (`lab/queue.py`).
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lab.cards import machine, utc_now
from lab.errors import LeaseError, SettingError
from lab.items import Item, says_its_edit
from lab.queue import Queue, changing, finished_items, met
from lab.schema import CATEGORIES
from lab.settings import time_budget
from lab.store import is_alive

MARGIN_SECONDS = 900  # of a lease, beyond the time budget of a run: start-up, evaluation, an agent that thinks
MOST_SECONDS, MOST_DAYS = 1e8, 10_000


def claim_next_experiment(
    knowledge: Path,
    owner: str,
    *,
    category: str | None = None,
    device: str | None = None,
    memory_gb: float | None = None,
    labels: Sequence[str] = (),
    agent: bool = True,
    seconds: float | None = None,
    pid: int | None = None,
    anywhere: bool = False,
) -> Item | None:
    """Take the pending item that comes first, by priority and then age; None where none is to be had.

    Only one of this category, where one is given, whose dependencies are completed and whose requirements are met by
    `device`, `memory_gb` and `labels`, or by whom experiments run `anywhere`; without an `agent` only one that says its
    whole edit. The lease lasts `seconds` (default: the time budget and MARGIN_SECONDS), and not longer than the
    process `pid` of this machine, where one is given. SettingError where a value is not allowed, StoreError where the
    queue cannot be used.
    """
    lasts = _lasts(seconds)
    if not owner.strip():
        raise SettingError(f"the owner of a lease is {owner!r}; it must be text")
    if category not in (None, *CATEGORIES):
        raise SettingError(f"no category {category!r}; the categories are {', '.join(CATEGORIES)}")
    offered = {"device": device, "min_memory_gb": memory_gb, "labels": set(labels), "agent": agent}
    offered["anywhere"] = anywhere
    with changing(knowledge) as queue:
        _expire(queue)
        names = (place[-1] for place in queue.waiting)
        found = next((name for name in names if _is_for(queue, queue.items[name], category, offered)), None)
        if found is None:
            return None
        lease = {"token": queue.token + 1, "owner": owner, "since": utc_now(), "deadline": utc_now(lasts)}
        if pid is not None:
            lease |= {"pid": pid, "machine": machine()}
        attempts = queue.items[found]["attempts"] + 1
        queue.log("claim", owner, [{"id": found, "status": "claimed", "attempts": attempts, "lease": lease}])
        return _own(queue.items[found])


def heartbeat(
    knowledge: Path,
    name: str,
    lease: int,
    owner: str | None = None,
    seconds: float | None = None,
    run: str | None = None,
) -> Item:
    """Renew a lease: it lasts `seconds` from now; `run` is the run that has been begun for the item.

    LeaseError where it is over, SettingError for an unknown item.
    """
    lasts = _lasts(seconds)
    with changing(knowledge) as queue:
        item = _held(queue, knowledge, name, lease, owner)
        renewed = item["lease"] | {"deadline": utc_now(lasts)}
        begun = {"run": run} if run else {}
        return _change(queue, "heartbeat", item["lease"]["owner"], item, lease=renewed, **begun)


def complete_experiment(
    knowledge: Path, name: str, lease: int, card: str | None = None, owner: str | None = None
) -> Item:
    """An item has been run, whatever came of it: `card` tells. LeaseError and SettingError as for `heartbeat`."""
    with changing(knowledge) as queue:
        item = _held(queue, knowledge, name, lease, owner)
        return _end(queue, "complete", item["lease"]["owner"], item, "completed", card=card, reason=None)


def fail_experiment(
    knowledge: Path, name: str, lease: int, reason: str, retry: bool = True, owner: str | None = None
) -> Item:
    """An item could not be run: pending again until its attempts are used up, at once failed without `retry`.

    LeaseError and SettingError as for `heartbeat`.
    """
    with changing(knowledge) as queue:
        item = _held(queue, knowledge, name, lease, owner)
        by = item["lease"]["owner"]
        if retry and item["attempts"] < item["max_attempts"]:
            return _change(queue, "fail", by, item, status="pending", lease=None, reason=reason)
        return _end(queue, "fail", by, item, "failed", reason=reason)


def release(knowledge: Path, name: str, lease: int, owner: str | None = None) -> Item:
    """Give an item back as if it had not been claimed. LeaseError and SettingError as for `heartbeat`."""
    with changing(knowledge) as queue:
        item = _held(queue, knowledge, name, lease, owner)
        attempts = item["attempts"] - 1
        return _change(queue, "release", item["lease"]["owner"], item, status="pending", lease=None, attempts=attempts)


def cancel(knowledge: Path, name: str, reason: str | None = None, owner: str | None = None) -> Item:
    """Take an open item out of the queue; who works on it holds no lease any more. SettingError where none is open."""
    with changing(knowledge) as queue:
        return _end(queue, "cancel", owner, _open(queue, knowledge, name), "cancelled", reason=reason)


def requeue(knowledge: Path, name: str, owner: str | None = None) -> Item:
    """Put an item that has ended into the queue again, with all its attempts. SettingError where none has ended."""
    with changing(knowledge) as queue:
        found = _named(finished_items(knowledge), name)
        if found is None or found["id"] in queue.items:
            item = _open(queue, knowledge, name)
            raise SettingError(f"item {item['id']} is {item['status']}, not ended; only what has ended can be requeued")
        again = {"status": "pending", "attempts": 0, "lease": None, "run": None, "reason": None}
        item = {key: value for key, value in found.items() if key not in ("finished", "card")} | again
        queue.log("requeue", owner, [item], was=found["status"], **met(knowledge, queue, [item]))
        return _own(queue.items[item["id"]])


def prune(knowledge: Path, days: float, owner: str | None = None) -> int:
    """Drop from the history what ended more than so many days ago, and tell how many items that were.

    Claims that are over return to the queue at this, too. SettingError where `days` is no number above 0.
    """
    if not 0 < days <= MOST_DAYS:
        raise SettingError(f"days: {days!r} is not a number above 0 and up to {MOST_DAYS}")
    with changing(knowledge) as queue:
        _expire(queue)
        before = utc_now(-days * 86400)
        old = {item["id"] for item in finished_items(knowledge) if (item.get("finished") or "") < before}
        old -= set(queue.items)
        if old:
            queue.forget(owner, old)
        return len(old)


def lease_seconds() -> float:
    """How long a lease lasts by default. SettingError as for `lab.settings.time_budget`."""
    return time_budget() + MARGIN_SECONDS


def _lasts(seconds: float | None) -> float:
    if seconds is None:
        return lease_seconds()
    if not 0 < seconds <= MOST_SECONDS:
        raise SettingError(f"a lease of {seconds!r} s; it must be a number above 0 and up to {MOST_SECONDS:g}")
    return seconds


def waits_for(queue: Queue, item: Item) -> dict[str, str]:
    """The items that a pending one depends on and that are not completed, with their statuses."""
    statuses = {
        name: queue.items[name]["status"] if name in queue.items else queue.dependencies.get(name, "unknown")
        for name in item["depends_on"] or ()
    }
    return {name: status for name, status in statuses.items() if status != "completed"}


def is_over(lease: Item, now: str) -> bool:
    """Whether a lease is past its deadline, or its process of this machine is gone."""
    if lease["deadline"] < now:
        return True
    return lease.get("pid") is not None and lease.get("machine") == machine() and not is_alive(lease["pid"])


def _is_for(queue: Queue, item: Item, category: str | None, offered: dict[str, Any]) -> bool:
    """Whether an item may be claimed by who asks for this category and offers this hardware."""
    if category is not None and item["category"] != category:
        return False
    if not offered["agent"] and not says_its_edit(item):
        return False
    needed = {} if offered["anywhere"] else item["requires"] or {}
    if "device" in needed and needed["device"] != offered["device"]:
        return False
    if "min_memory_gb" in needed and needed["min_memory_gb"] > (offered["min_memory_gb"] or 0):
        return False
    return offered["labels"].issuperset(needed.get("labels") or ()) and not waits_for(queue, item)


def _expire(queue: Queue) -> None:
    """Return the items whose leases are over to the queue, or fail them when that was their last attempt."""
    now = utc_now()
    for name in queue.over(now):
        item = queue.items[name]
        if not is_over(item["lease"], now):
            continue
        owner = item["lease"]["owner"]
        reason = f"attempt {item['attempts']} of {item['max_attempts']}: the lease of {owner} ran out"
        if item["attempts"] < item["max_attempts"]:
            _change(queue, "expire", owner, item, status="pending", lease=None, reason=reason)
        else:
            _end(queue, "expire", owner, item, "failed", reason=reason)


def _own(item: Item) -> Item:
    """A copy that shares nothing with the queue's: what a caller does with it must not change the queue."""
    found: Item = json.loads(json.dumps(item))
    return found


def _change(queue: Queue, event: str, owner: str | None, item: Item, **values: Any) -> Item:
    queue.log(event, owner, [{"id": item["id"]} | values])
    return _own(queue.items[item["id"]])


def _end(queue: Queue, event: str, owner: str | None, item: Item, status: str, **values: Any) -> Item:
    ended = item | {"status": status, "finished": utc_now(), "card": None} | values
    queue.log(event, owner, [ended])
    return _own(ended)


def _open(queue: Queue, knowledge: Path, name: str) -> Item:
    """The open item of this id, or the one whose id begins so. SettingError where there is none, or several."""
    if item := _named(queue.items.values(), name):
        return item
    if ended := _named(finished_items(knowledge), name):
        raise SettingError(f"item {ended['id']} is {ended['status']} already; `director.py requeue` runs it again")
    raise SettingError(f"no item {name!r} in the queue; `director.py list` lists them")


def _named(items: Iterable[Item], name: str) -> Item | None:
    found = [item for item in items if name and item["id"].startswith(name)]
    if exact := [item for item in found if item["id"] == name]:
        return exact[0]
    if len(found) > 1:
        raise SettingError(f"{name!r} names {len(found)} items; give more of the id, such as {found[0]['id']}")
    return found[0] if found else None


def _held(queue: Queue, knowledge: Path, name: str, token: int, owner: str | None) -> Item:
    """The item that this lease is for. LeaseError where it is over, or somebody else's."""
    item = _named(queue.items.values(), name)
    if item is None and (ended := _named(finished_items(knowledge), name)):
        raise LeaseError(f"lease {token} of item {ended['id']} is over: it is {ended['status']} already; leave it")
    item = item or _open(queue, knowledge, name)
    lease = item["lease"]
    if item["status"] != "claimed":
        raise LeaseError(f"lease {token} of item {item['id']} is over: it waits in the queue again; claim it again")
    if lease["token"] != token:
        raise LeaseError(
            f"lease {token} of item {item['id']} is over: {lease['owner']} holds lease {lease['token']} now; leave it"
        )
    if owner not in (None, lease["owner"]):
        raise LeaseError(f"item {item['id']} is held by {lease['owner']}, not by {owner}; only its holder may do this")
    if is_over(lease, utc_now()):
        raise LeaseError(f"lease {token} of item {item['id']} ran out at {lease['deadline']}; claim it again")
    return item
