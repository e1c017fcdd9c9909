"""Cards on disk: one file for an experiment, written once, and events for what is learnt about it later.

    card = create_card(knowledge, "3f2a91c", "wider MLP", {"WIDTH": [4, 8]}, {"val_bpb": 0.9971}, "keep", "", ["mlp"])
    card = join(knowledge, card, "annotate", {"lesson": "pays from depth 8 on"})

`knowledge` is the commons' folder (`lab.store.knowledge_dir`). A reader sees a card folded with its events
in the order of (timestamp, id). Not covered: the index that answers questions about many cards at once
(`lab/index.py`), git (`lab/sync.py`), and what a result means (`lab/decide.py`).
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lab.errors import CardError
from lab.schema import (
    CATEGORIES,
    EVENT_FIELDS,
    SCHEMA,
    STATUS_ALIASES,
    Card,
    complete,
    contradiction,
    validate_card,
    validate_event,
)
from lab.store import read_json, record_names, write_new

# An agent may round the result it reports: to three decimals, or to as many digits.
ROUNDING = 0.0005


def new_id() -> str:
    """16 hex characters that no other machine, process or call will make: 64 bits of chance."""
    return os.urandom(8).hex()


def utc_now(later: float = 0.0) -> str:
    """The time, or that of so many seconds later, as cards keep it: UTC with milliseconds; text order is time order."""
    milliseconds = time.time_ns() // 1_000_000 + round(later * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)) + f".{milliseconds % 1000:03d}Z"


def machine() -> str:
    """Which machine this is: a hash of its name, or of $AUTORESEARCH_MACHINE where names change, as in containers."""
    import hashlib
    import socket  # neither is of use to a command that only reads

    name = os.environ.get("AUTORESEARCH_MACHINE") or socket.gethostname()
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def by_hand(metric: str) -> str:
    """The track of cards that name none: those written by hand of one metric are compared with each other."""
    return f"{metric}-by-hand"


def card_path(knowledge: Path, card_id: str) -> Path:
    """Where the card of this id is kept."""
    return knowledge / "cards" / f"{card_id}.json"


def add_card(knowledge: Path | str, values: Card) -> Card:
    """Write a new card with these values and return it whole; `id` and `timestamp` are made when missing.

    CardError when a value is not allowed, or when the id has a card: a card is never rewritten.
    """
    card = complete({"id": new_id(), "timestamp": utc_now()} | values)
    validate_card(card)
    if not write_new(card_path(Path(knowledge), card["id"]), card):
        raise CardError(f"card {card['id']} exists already; `commons.py write-card --run {card['id']}` adds to it")
    return card


def create_card(
    knowledge_dir: Path | str,
    commit_id: str,
    hypothesis: str,
    config_diff: dict[str, Any] | None,
    results: dict[str, Any],
    status: str,
    lesson: str | None,
    tags: list[str],
    prior_knowledge_used: list[str] | None = None,
    **fields: Any,
) -> Card:
    """Write the card of one experiment and return it. `fields` are further fields of a card (`lab.schema.CARD`).

    A difference may be {name: [old, new]}, {name: {"old": .., "new": ..}} or {name: new}. A crash has no result: the
    0.0 that other tools write there becomes null. CardError names a value that is not allowed.
    """
    status = STATUS_ALIASES.get(status, status)
    metric = fields.get("metric", "val_bpb")
    if status == "crash" and not results.get(metric):
        results = results | {metric: None, "delta": None}
    given = {
        "track": by_hand(metric),
        "commit": commit_id,
        "hypothesis": hypothesis,
        "config_diff": pairs(config_diff),
        "results": results,
        "status": status,
        "lesson": lesson or None,
        "tags": tags,
        "prior_knowledge_used": prior_knowledge_used or [],
        "category": next((tag for tag in tags if tag in CATEGORIES), None),
    }
    return add_card(knowledge_dir, given | fields)


def pairs(difference: dict[str, Any] | None) -> dict[str, list[Any]] | None:
    """A configuration's difference in the one form that cards have, {name: [old, new]}; an unknown old is null."""
    return None if difference is None else {name: _pair(change) for name, change in difference.items()}


def _pair(change: Any) -> list[Any]:
    if isinstance(change, (list, tuple)) and len(change) == 2:
        return list(change)
    if isinstance(change, dict):
        for old, new in (("old", "new"), ("from", "to"), ("before", "after")):
            if set(change) == {old, new}:
                return [change[old], change[new]]
    return [None, change]


def load_cards(knowledge_dir: Path | str) -> list[Card]:
    """All cards, folded with their events, newest first; [] when there is no commons yet.

    StoreError or CardError names the first file that cannot be used: none is skipped.
    """
    knowledge = Path(knowledge_dir)
    events: dict[str, list[Card]] = {}
    for event in each_event(knowledge):
        events.setdefault(event["card"], []).append(event)
    cards = [read_card(knowledge, name, events.get(name, ())) for name in record_names(knowledge / "cards")]
    return sorted(cards, key=order, reverse=True)


def each_event(knowledge: Path) -> Iterator[Card]:
    """Every event, by name. StoreError or CardError names the first file that cannot be used."""
    return (read_event(knowledge, name) for name in record_names(knowledge / "events"))


def read_card(knowledge: Path, card_id: str, events: Iterable[Card] = ()) -> Card:
    """One card from its file, folded with these events. StoreError or CardError names the file that cannot be used."""
    path = card_path(knowledge, card_id)
    return fold(checked(path, "card", complete(read_json(path)), validate_card), events)


def read_event(knowledge: Path, event_id: str) -> Card:
    """One event from its file. StoreError or CardError names the file when it cannot be used."""
    path = knowledge / "events" / f"{event_id}.json"
    return checked(path, "event", read_json(path), validate_event)


def checked(path: Path, kind: str, record: Card, validate: Callable[[Card], None]) -> Card:
    """The record that was read from this file. CardError naming the file when it is not valid or has another's id."""
    try:
        validate(record)
        if record["id"] != path.stem:
            article = "an" if kind == "event" else "a"
            raise CardError(f"the {kind} in it is {record['id']}, and {article} {kind}'s file has its name")
    except CardError as error:
        raise CardError(f"{path}: {error}; `commons.py doctor` sets it right") from error
    return record


def join(knowledge: Path | str, card: Card, kind: str, fields: Card) -> Card:
    """Add to a card by an event (`lab.schema.EVENT_FIELDS`) and return the card as it reads now.

    A measurement is filled in where the card has null and never overwritten. CardError when a value is not allowed.
    """
    about = {"card": card["id"], "kind": kind, "timestamp": utc_now()}
    event = {"schema": SCHEMA, "id": new_id()} | about | {"fields": fields}
    validate_event(event)
    joined = _lay(card, event)
    validate_card(joined)
    write_new(Path(knowledge) / "events" / f"{event['id']}.json", event)
    return joined


def join_run(knowledge: Path | str, card: Card, values: Card) -> Card:
    """Add what an agent says of a run, `values`, to the card which that run has made; the card as it reads now.

    CardError when it contradicts the run: the status of a crash, or a result that the run has not measured.
    """
    run, status, metric = card["run_id"], values["status"], card["metric"]
    measured = card["results"].get(metric)
    if (status == "crash") != (card["status"] == "crash"):
        fact = "crashed" if measured is None else f"has a result ({measured:.6f})"
        raise CardError(f"status {status!r} contradicts run {run}, which {fact}")
    results = values.get("results", {})
    given = results.get(metric)
    if None not in (given, measured) and abs(given - measured) > ROUNDING * max(abs(measured), 1):
        raise CardError(f"result {given} contradicts run {run}, which measured {measured:.6f}; give the right run's id")
    said = {name: values[name] for name in EVENT_FIELDS["annotate"] if name in values}
    said["results"] = {name: value for name, value in results.items() if card["results"].get(name) is None}
    # Both events or neither: a status that the results do not bear is refused before the first is written.
    validate_card(card | {"status": status, "results": card["results"] | said["results"]})
    card_now = join(knowledge, card, "annotate", said)
    return card_now if status == card_now["status"] else join(knowledge, card_now, "decide", {"status": status})


def fold(card: Card, events: Iterable[Card]) -> Card:
    """The card as a reader sees it: the events laid over it in the order of (timestamp, id).

    A retraction stays, whatever is said later; a confirmation lifts what made it suspect before. An event after which
    status and result would contradict each other is passed over: two clones may each say what the other excludes.
    """
    folded = card
    for event in sorted(events, key=order):
        changed = _lay(folded, event)
        if contradiction(changed) is None:
            folded = changed
    return folded


def _lay(card: Card, event: Card) -> Card:
    """The card after one event."""
    kind, fields = event["kind"], event["fields"]
    if kind == "retract":
        before = card["status_before"] or card["status"]
        return card | {"status": "retracted", "status_before": before, "retraction_reason": fields.get("reason")}
    if kind == "confirm":
        return card | {"confirmed": True, "quarantined": None}
    if kind == "suspect":
        return card | {"confirmed": None, "quarantined": fields["reason"]}
    if kind == "decide":
        return card | {"status_before" if card["status"] == "retracted" else "status": fields["status"]}
    measured, added = card["results"], fields.get("results", {})
    filled = {name: value for name, value in added.items() if measured.get(name) is None}
    annotated: Card = card | fields | {"results": measured | filled}
    return annotated


def order(record: Card) -> tuple[str, str]:
    """The order of records: by time, then by id."""
    return record["timestamp"], record["id"]
