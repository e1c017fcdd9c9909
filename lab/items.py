"""An item of the queue: an experiment that somebody wants run. What it holds, and which values are allowed.

    item = new_item({"description": "wider MLP", "category": "architecture"})
    check_item(item, "an item of the queue")            # SettingError where a value is not allowed

`KEYS` are those of every item, null where nothing is known; others are kept. docs/protocol.md says what each means.
Not covered: where items are kept (`lab/queue.py`) and who works on them (`lab/leases.py`).
"""

import re
from collections.abc import Callable
from typing import Any

from lab.cards import new_id, utc_now
from lab.errors import SettingError
from lab.schema import CATEGORIES, STRATEGIES, is_number

Item = dict[str, Any]

OPEN = ("pending", "claimed")  # still to be run: what settles the same question is not added again
FINISHED = ("completed", "failed", "cancelled")
# The keys of every item, in their order.
FIELDS = {
    "id": "16 hex characters",
    "created": "when it was added, UTC with milliseconds",
    "status": f"{', '.join(OPEN)} (open), {', '.join(FINISHED)} (ended)",
    "description": "the idea, as a commit's subject would tell it",
    "mode": f"what the run is for: {', '.join(STRATEGIES)}",
    "priority": "1 is high, 5 usual",
    "category": "as a card's",
    "track": "where it was planned",
    "changes": "`{CONSTANT: new value}`, the whole edit; null where a patch or an agent makes it",
    "patch": "the whole edit as a unified diff, as `git diff` prints it",
    "cards": "the cards that it rests on",
    "replicates": "the card that is run again",
    "seed": "to run it with",
    "commit": "to run, where it is given",
    "why": "what speaks for it",
    "requires": "`device`, `min_memory_gb` and `labels` that who claims it must offer",
    "depends_on": "items to be completed first",
    "max_attempts": "claims before it has failed",
    "attempts": "claims so far",
    "lease": "who has it: `token`, `owner`, `since`, `deadline`, and perhaps `pid` and `machine` that it ends with",
    "run": "the run that was made of it last",
    "reason": "why it ended, or came back",
}
KEYS = tuple(FIELDS)
DEFAULTS: Item = {"mode": "explore", "priority": 5, "max_attempts": 3, "attempts": 0}  # priority 1 is high


def new_item(item: Item) -> Item:
    """A new item with all its keys, in their order, and an id of its own."""
    ours = {"id": new_id(), "created": utc_now(), "status": "pending", "attempts": 0, "lease": None, "reason": None}
    ours["run"] = None
    mode = {"mode": "replicate"} if item.get("replicates") else {}
    return dict.fromkeys(KEYS) | DEFAULTS | mode | item | ours


def says_its_edit(item: Item) -> bool:
    """Whether an item says all that is to be run, so that nobody needs to make an edit."""
    return any(item.get(name) is not None for name in ("changes", "patch", "replicates"))


def check_item(item: Item, where: str) -> None:
    """SettingError, beginning with `where`, for a value of an item that is not allowed."""
    for name, (accepts, words) in _ALLOWED.items():
        if not accepts(item.get(name)):
            raise SettingError(f"{where} has {name} {item.get(name)!r}; it must be {words}")
    if item["status"] == "claimed" and item["lease"] is None:
        raise SettingError(f"{where} is claimed and has no lease; it must have one, or be pending")
    for name, value in (item.get("requires") or {}).items():
        accepts, words = _REQUIRED.get(name, (lambda value: False, f"one of {', '.join(_REQUIRED)}"))
        if not accepts(value):
            told = f"{name} {value!r}" if name in _REQUIRED else f"{name!r}"
            raise SettingError(f"{where} requires {told}; it must be {words}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and value.split() == [value]


def _texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _or_null(kind: type) -> Callable[[Any], bool]:
    return lambda value: value is None or (isinstance(value, kind) and not isinstance(value, bool))


_COUNT = lambda value: type(value) is int and value >= 1, "a whole number, 1 or more"
_ALLOWED: dict[str, tuple[Any, str]] = {
    # It is printed where commands are: nothing in it may look like one.
    "id": (
        lambda value: isinstance(value, str) and re.fullmatch("[A-Za-z0-9_.-]{1,64}", value),
        "up to 64 letters, digits, . _ and -",
    ),
    "status": (lambda value: value in (*OPEN, *FINISHED), f"one of {', '.join((*OPEN, *FINISHED))}"),
    "description": (_is_text, "text"),
    "mode": (lambda value: value in STRATEGIES, f"one of {', '.join(STRATEGIES)}"),
    "priority": _COUNT,
    "max_attempts": _COUNT,
    "attempts": (lambda value: type(value) is int and value >= 0, "a whole number, 0 or more"),
    "category": (lambda value: value is None or value in CATEGORIES, f"one of {', '.join(CATEGORIES)}"),
    "created": (_is_text, "a time"),
    "replicates": (lambda value: value is None or _is_name(value), "the id of a card, or null"),
    "track": (lambda value: value is None or (_is_text(value) and value.isprintable()), "printable text or null"),
    **dict.fromkeys(("commit", "patch", "why", "reason", "run", "card", "finished"), (_or_null(str), "text or null")),
    "seed": (lambda value: value is None or (type(value) is int and value >= 0), "a whole number, 0 or more, or null"),
    "changes": (_or_null(dict), "an object {CONSTANT: value}, or null"),
    "requires": (_or_null(dict), "an object with device, min_memory_gb or labels, or null"),
    "cards": (_texts, "a list of ids, or null"),
    "depends_on": (_texts, "a list of ids, or null"),
    "lease": (
        lambda value: value is None or _is_lease(value),
        "an object with a token, an owner and a deadline such as 2026-03-08T12:00:00.000Z, or null",
    ),
}
_REQUIRED: dict[str, tuple[Any, str]] = {
    "device": (_is_text, "text, such as cuda"),
    "min_memory_gb": (lambda value: is_number(value) and value > 0, "a number above 0"),
    "labels": (lambda value: value is not None and _texts(value), "a list of texts"),
}


def _is_lease(value: Any) -> bool:
    if not isinstance(value, dict) or type(value.get("token")) is not int or not _is_text(value.get("owner")):
        return False
    return _is_time(value.get("deadline")) and type(value.get("pid", 1)) in (int, type(None))


def _is_time(value: Any) -> bool:
    """Whether it is a time as we write it, of which the order of the texts is that of the times."""
    from datetime import datetime  # few items have a lease

    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return False
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") == str(value)
