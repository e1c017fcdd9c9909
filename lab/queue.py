"""This machine's queue of experiments to run: one JSON file, changed under a lock, its previous copy kept.

    add_to_queue(knowledge, [{"description": "repeat of 1f0c...: wider MLP", "replicates": "1f0c...", "seed": 43}])
    [item["description"] for item in load_queue(knowledge) if item["status"] in OPEN]

The lock is `queue.json.lock` (filelock: free at once when its holder dies, on every system). A reader needs none: a
change is a whole new file under the old name. Keys of items and of the file that are not known here survive.
Not covered: who works through it, and a file system that several machines write to.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.cards import new_id, utc_now
from lab.errors import SettingError, StoreError
from lab.schema import CATEGORIES
from lab.store import read_json, replace

Item = dict[str, Any]

SCHEMA = 1
OPEN = ("pending", "claimed")  # still to be run: what settles the same question is not added again
DEFAULT_PRIORITY = 5  # 1 is high
LOCK_TIMEOUT_SECONDS = 60
LOCK_POLL_SECONDS = 0.005


def load_queue(knowledge: Path) -> list[Item]:
    """The items of the queue in the order they were added; [] without a queue.

    StoreError, naming the previous copy, where the file does not parse: it is never taken for an empty queue.
    """
    items: list[Item] = _read(knowledge)["items"]
    return items


def add_to_queue(knowledge: Path, items: Sequence[Item]) -> list[Item]:
    """Add items and return them whole: those that are new. What an open item will settle anyway is left out.

    An item needs a `description`; `priority`, `category`, `track`, `replicates` (the card that it repeats), `seed`,
    `commit` and `why` may be given, other keys are kept. SettingError where a value is not allowed: nothing is added
    then. StoreError as for `load_queue`, or where the queue cannot be written.
    """
    for item in items:
        _check(item)
    with _locked(knowledge):
        queue = _read(knowledge)
        settled = {_question(item) for item in queue["items"] if item.get("status") in OPEN}
        added = []
        for item in items:
            if _question(item) not in settled:
                settled.add(_question(item))
                added.append(_whole(item))
        if added:
            _write(knowledge, queue | {"items": [*queue["items"], *added]})
    return added


def _whole(item: Item) -> Item:
    """A new item with all its keys, in their order; null is unknown."""
    ours = {"id": new_id(), "created": utc_now(), "status": "pending"}
    mode = "replicate" if item.get("replicates") else "explore"
    unknown = dict.fromkeys(("category", "track", "replicates", "seed", "commit", "why"))
    return ours | {"description": None, "mode": mode, "priority": DEFAULT_PRIORITY} | unknown | item | ours


def _question(item: Item) -> tuple[Any, ...]:
    """What an item will settle, equal where one of two is enough: a card and a seed, or an idea."""
    if item.get("replicates"):
        return item["replicates"], item.get("seed")
    return (" ".join(str(item.get("description")).casefold().split()),)


def _check(item: Item) -> None:
    """SettingError where a new item has a value that is not allowed."""
    description, priority, category = item.get("description"), item.get("priority", 1), item.get("category")
    if not isinstance(description, str) or not description.strip():
        raise SettingError(f"an item of the queue has the description {description!r}; it must be text")
    if type(priority) is not int or priority < 1:
        raise SettingError(f"an item of the queue has priority {priority!r}; it must be a whole number, 1 or more")
    if category not in (None, *CATEGORIES):
        raise SettingError(f"an item of the queue has category {category!r}; it must be one of {', '.join(CATEGORIES)}")


def _read(knowledge: Path) -> dict[str, Any]:
    """The whole file, with a list of objects as `items`."""
    path = knowledge / "queue.json"
    if not path.exists():
        return {"schema": SCHEMA, "items": []}
    try:
        queue = read_json(path)
    except StoreError as error:
        # What is wrong with it; the remedy is another one than a record's.
        raise _unusable(str(error).partition(";")[0]) from error
    items = queue.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _unusable(f"{path}: its items are no list of objects")
    for place, item in enumerate(items):
        for name in ("replicates", "seed"):  # by which items are told apart
            if isinstance(item.get(name), (list, dict)):
                raise _unusable(f"{path}: items[{place}].{name} is a {type(item[name]).__name__}")
    return queue


def _unusable(what: str) -> StoreError:
    return StoreError(f"{what}; copy queue.json.bak, which is from before the last change, over it, or move it away")


def _write(knowledge: Path, queue: dict[str, Any]) -> None:
    """Put the queue in its place, and what stood there beside it."""
    path = knowledge / "queue.json"
    if path.exists():
        replace(path.with_name("queue.json.bak"), path.read_bytes())
    replace(path, queue)


@contextmanager
def _locked(knowledge: Path) -> Iterator[None]:
    """Nobody else changes the queue within. StoreError where the lock cannot be had."""
    from filelock import FileLock, Timeout  # 60 ms that a reader has no use for

    path = knowledge / "queue.json.lock"
    try:
        knowledge.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=LOCK_TIMEOUT_SECONDS, poll_interval=LOCK_POLL_SECONDS)
        lock.acquire()
    except Timeout as error:
        raise StoreError(f"{path} has been held for {LOCK_TIMEOUT_SECONDS} s; end the process that holds it") from error
    except OSError as error:
        raise StoreError(f"cannot lock {path}: {error.strerror}; make the folder writable") from error
    try:
        yield
    finally:
        lock.release()
