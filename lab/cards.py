"""Cards on disk: one file for an experiment, written once, and events for what is learnt about it later.

    card = create_card(knowledge, {"hypothesis": "wider MLP", "status": "crash"})
    join(knowledge, card["id"], "annotate", {"lesson": "does not fit into memory"})
    get_card(knowledge, card["id"][:6])["lesson"]

`knowledge` is the commons' folder (`lab.store.knowledge_dir`). A reader sees a card folded with its events
in the order of (timestamp, id). Not covered: git (`lab/sync.py`) and what a result means (`lab/decide.py`).
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lab.errors import CardError, StoreError
from lab.schema import EVENT_FIELDS, SCHEMA, Card, complete, validate_card
from lab.store import read_json, write_new

# An agent may round the result it reports to three decimals.
ROUNDING_BPB = 0.0005


def new_id(content: bytes = b"") -> str:
    """16 hex characters that no other machine, process or call will make: a hash of all three and of chance."""
    import hashlib  # loads OpenSSL, which a command that only reads has no use for

    machine = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    return hashlib.sha256(b"\0".join((content, machine.encode(), b"%d" % os.getpid(), os.urandom(16)))).hexdigest()[:16]


def utc_now() -> str:
    """The time as cards keep it: UTC with milliseconds, so that text order is time order."""
    milliseconds = time.time_ns() // 1_000_000
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)) + f".{milliseconds % 1000:03d}Z"


def card_path(knowledge: Path, card_id: str) -> Path:
    """Where the card of this id is kept."""
    return knowledge / "cards" / f"{card_id}.json"


def create_card(knowledge: Path, values: Card) -> Card:
    """Write a new card with these values and return it whole; `id` and `timestamp` are made when missing.

    CardError when a value is not allowed, or when the id has a card: a card is never rewritten.
    """
    card = complete({"id": new_id(), "timestamp": utc_now()} | values)
    validate_card(card)
    if not write_new(card_path(knowledge, card["id"]), card):
        raise CardError(f"card {card['id']} exists already; `commons.py write-card --run {card['id']}` adds to it")
    return card


def load_cards(knowledge: Path) -> list[Card]:
    """All cards, folded with their events, oldest first; [] when there is no commons yet.

    StoreError or CardError names the first file that cannot be used: none is skipped.
    """
    events: dict[str, list[Card]] = {}
    for path in _files(knowledge / "events"):
        event = _read_event(path)
        events.setdefault(event["card"], []).append(event)
    cards = [_read_card(path) for path in _files(knowledge / "cards")]
    for position, card in enumerate(cards):
        if joined := events.get(card["id"]):
            cards[position] = _fold_checked(card, joined)
    return sorted(cards, key=_order)


def get_card(knowledge: Path, name: str) -> Card:
    """The one card whose id starts with `name`, or the newest for "last". CardError when there is none, or several."""
    return find_card(load_cards(knowledge), name)


def find_card(cards: list[Card], name: str) -> Card:
    """The same among cards that are loaded."""
    found = cards[-1:] if name == "last" else [card for card in cards if card["id"].startswith(name)]
    if not found:
        raise CardError(f"no card {name!r}; `commons.py read-brief` lists the latest")
    if len(found) > 1:
        raise CardError(f"{name!r} names {len(found)} cards; give more of the id, such as {found[-1]['id']}")
    return found[0]


def join(knowledge: Path, card_id: str, kind: str, fields: Card) -> Card:
    """Add to a card by an event (`lab.schema.EVENT_FIELDS`) and return the card as it reads now.

    A measurement is filled in where the card has null and never overwritten. CardError when a value is not allowed.
    """
    card = get_card(knowledge, card_id)
    about = {"card": card["id"], "kind": kind, "timestamp": utc_now()}
    event = {"schema": SCHEMA, "id": new_id()} | about | {"fields": fields}
    _check_event(event)
    joined = fold(card, [event])
    validate_card(joined)
    write_new(knowledge / "events" / f"{event['id']}.json", event)
    return joined


def join_run(knowledge: Path, card: Card, values: Card) -> Card:
    """Add what an agent says of a run, `values`, to the card which that run has made; the card as it reads now.

    CardError when it contradicts the run: the status of a crash, or a result that the run has not measured.
    """
    run, status, measured = card["run_id"], values["status"], card["results"]["val_bpb"]
    if (status == "crash") != (card["status"] == "crash"):
        fact = "crashed" if measured is None else f"has a result ({measured:.6f})"
        raise CardError(f"status {status!r} contradicts run {run}, which {fact}")
    results = values.get("results", {})
    if None not in (given := results.get("val_bpb"), measured) and abs(given - measured) > ROUNDING_BPB:
        raise CardError(f"result {given} contradicts run {run}, which measured {measured:.6f}; give the right run's id")
    said = {name: values[name] for name in EVENT_FIELDS["annotate"] if name in values}
    said["results"] = {name: value for name, value in results.items() if card["results"].get(name) is None}
    card_now = join(knowledge, card["id"], "annotate", said)
    return card_now if status == card_now["status"] else join(knowledge, card["id"], "decide", {"status": status})


def fold(card: Card, events: Iterable[Card]) -> Card:
    """The card as a reader sees it: the events' fields laid over it in the order of (timestamp, id)."""
    folded = dict(card)
    for event in sorted(events, key=_order):
        added, measured = event["fields"].get("results", {}), folded["results"]
        folded |= event["fields"]
        folded["results"] = measured | {name: value for name, value in added.items() if measured.get(name) is None}
    return folded


def _fold_checked(card: Card, events: list[Card]) -> Card:
    folded = fold(card, events)
    try:
        validate_card(folded)
    except CardError as error:
        names = ", ".join(event["id"] for event in events)
        raise CardError(f"the events {names} break card {card['id']}: {error}; move them out of the folder") from error
    return folded


def _order(record: Card) -> tuple[str, str]:
    return record["timestamp"], record["id"]


def _files(folder: Path) -> list[Path]:
    """The records in a folder by name; a hidden file is one that is being written."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error.strerror}") from error
    return [folder / name for name in names]


def _read_card(path: Path) -> Card:
    card = complete(read_json(path))
    try:
        validate_card(card)
        if path.stem != card["id"]:
            raise CardError(f"the card in it is {card['id']}, and a card's file has its name")
    except CardError as error:
        raise CardError(f"{path}: {error}; mend the file or move it out of the folder") from error
    return card


def _read_event(path: Path) -> Card:
    event = read_json(path)
    try:
        _check_event(event)
    except CardError as error:
        raise CardError(f"{path}: {error}; mend the file or move it out of the folder") from error
    return event


def _check_event(event: Card) -> None:
    """Raise CardError when this is not an event that `fold` can lay over a card."""
    for name in ("id", "card", "timestamp"):
        if not isinstance(event.get(name), str):
            raise CardError(f"event field {name}: {event.get(name)!r} is not allowed; it must be text")
    if event.get("kind") not in EVENT_FIELDS:
        raise CardError(f"event kind {event.get('kind')!r} is not one of {', '.join(EVENT_FIELDS)}")
    fields: Any = event.get("fields")
    if not isinstance(fields, dict) or not isinstance(fields.get("results", {}), dict):
        raise CardError("event field fields: it must be an object, and so must its results")
    if strange := [name for name in fields if name not in EVENT_FIELDS[event["kind"]]]:
        raise CardError(f"an event of kind {event['kind']} cannot change {strange[0]!r}")
