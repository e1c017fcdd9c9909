"""docs/protocol.md and docs/schemas/ say what the code does, and a client written from them alone is understood."""

import json
import os
import re
import sqlite3
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import commons
from docs.generate import PARTS, documents
from lab.cards import fold, load_cards
from lab.errors import CardError
from lab.index import Index
from lab.mirror import COLUMNS, TABLES
from lab.notes import load_notes
from lab.schema import (
    CARD,
    EVENT,
    EVENT_FIELDS,
    EVENT_KINDS,
    NOTE,
    NOTE_KINDS,
    TYPES,
    complete,
    json_schema,
    validate_card,
    validate_event,
    validate_note,
)
from lab.settings import Settings

ROOT = Path(__file__).parent.parent
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
RELEASED = [*(ROOT / "tests" / "data").glob("v*")]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_a_document_is_what_the_code_says(path):
    there = path.read_text(encoding="utf-8") if path.exists() else None
    stale = there != documents()[path]
    assert not stale, f"{path.relative_to(ROOT)} is stale: run `uv run python -m docs.generate`"


def test_the_parts_are_all_there_once():
    pages = "".join(page.read_text(encoding="utf-8") for page in documents() if page.suffix == ".md")
    assert sorted(re.findall("<!-- begin ([a-z-]+) -->", pages)) == sorted(PARTS)
    assert sorted(re.findall("<!-- end ([a-z-]+) -->", pages)) == sorted(PARTS)


def test_every_table_column_field_setting_and_function_is_named():
    db = sqlite3.connect(":memory:")
    db.executescript(TABLES)
    tables = re.findall(r"CREATE (?:VIRTUAL )?TABLE (\w+)", TABLES)
    names = {*COLUMNS, *tables, *Settings._fields, *EVENT_KINDS, *NOTE_KINDS, "KNOWLEDGE_DIR"}
    names |= {row[1] for table in tables for row in db.execute(f"PRAGMA table_info({table})")}
    names |= {field.name for table in (CARD, EVENT, NOTE) for field in table}
    names |= {name for listed in commons.LIBRARY.values() for name in listed}
    assert not {name for name in names if not re.search(rf"\b{re.escape(name)}\b", PROTOCOL)}


def test_the_worked_example():
    card, events, expected = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", PROTOCOL, re.DOTALL))
    folded = fold(complete(card), events)
    assert {name: folded[name] for name in expected if name != "results"} | {
        "results": {name: folded["results"][name] for name in expected["results"]}
    } == expected
    assert {name for name, value in folded.items() if value not in (None, [], "val_bpb", "min", 2)} == {
        name for name, value in expected.items() if value is not None
    }


def members(older, newer):
    """`newer` without the fields that have come since, which must be null."""
    if not isinstance(older, dict) or not isinstance(newer, dict):
        return newer
    assert not {name for name in newer.keys() - older.keys() if newer[name] is not None}
    return {name: members(older[name], newer[name]) for name in older}


@pytest.mark.parametrize("folder", RELEASED, ids=lambda path: path.name)
def test_records_of_every_release_read_as_they_did(folder):
    expected = json.loads((folder / "folded.json").read_text(encoding="utf-8"))
    cards, notes = load_cards(folder), load_notes(folder)
    assert [members(*pair) for pair in zip(expected["cards"], cards, strict=True)] == expected["cards"]
    assert [members(*pair) for pair in zip(expected["notes"], notes, strict=True)] == expected["notes"]
    events = [json.loads(path.read_text()) for path in (folder / "events").iterdir()]
    assert {event["kind"] for event in events} >= {"annotate", "decide", "retract", "confirm"}
    assert {note["kind"] for note in notes} >= {"insight", "question", "memory", "answer"}


# Schema and validation: one verdict on anything, apart from the rules that protocol.md names.

RULES_ACROSS_FIELDS = (
    "must be a number or null", "a crash has no result", "needs a result",  # cards
    "cannot change", "field fields.results: ", "field fields.reason: ", "field fields.status: ",  # events
    "a note must say something", "an answer, and only an answer",
)  # fmt: skip
VALIDATE = {"card": (CARD, validate_card), "event": (EVENT, validate_event), "note": (NOTE, validate_note)}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4) | st.sampled_from(["a" * 12, "keep", "min", "val_bpb", "insight", "answer", "decide"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9)
FITTING = {
    "text": st.text(max_size=4),
    "texts": st.lists(st.text(max_size=2), max_size=2),
    "integer": st.integers(-9, 9) | st.just(8.0),
    "number": NUMBER,
    "true": st.just(True),
    "object": st.dictionaries(st.text(max_size=2), ANYTHING, max_size=2),
    "curve": st.lists(st.tuples(st.integers(0, 9), NUMBER, st.none() | NUMBER).map(list), max_size=2),
    "difference": st.dictionaries(st.text(max_size=2), st.lists(ANYTHING, min_size=2, max_size=2), max_size=2),
}


def fitting(type_name):
    """Values of a type of the tables."""
    schema = TYPES[type_name].schema
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    return st.from_regex(schema["pattern"], fullmatch=True) if "pattern" in schema else FITTING[type_name]


@st.composite
def records(draw, table):
    """A record that fits its table, with now and then a field left out, spoilt or added."""
    record = {}
    for field in table:
        parent, _, key = field.name.rpartition(".")
        holder = record.get(parent) if parent else record
        wrong = draw(st.integers(0, 4 * len(table)))
        if not isinstance(holder, dict) or wrong == 1 or (field.nullable and draw(st.booleans())):
            continue
        holder[key] = draw(ANYTHING if wrong == 0 else fitting(field.type))
    if draw(st.booleans()):
        record["from_the_future"] = draw(ANYTHING)
    return record


@pytest.mark.parametrize("kind", VALIDATE)
def test_the_schema_is_one(kind):
    Draft202012Validator.check_schema(json_schema(kind))
    assert json_schema(kind)["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize("kind", VALIDATE)
@settings(max_examples=80)
@given(data=st.data())
def test_schema_and_validation_agree(kind, data):
    table, validate = VALIDATE[kind]
    record = data.draw(records(table))
    # In JSON Schema $ is the end; in Python's expressions, which jsonschema uses, it also matches before a newline.
    assume("\\n" not in json.dumps(record))
    check = Draft202012Validator(json_schema(kind))
    accepted = check.is_valid(record)
    try:
        validate(record)
    except CardError as refused:
        across = any(words in str(refused) for words in RULES_ACROSS_FIELDS)
        assert accepted == across, str(refused)
    else:
        assert accepted, [error.message for error in check.iter_errors(record)]


@pytest.mark.parametrize("folder", ["cards", "events", "notes"])
def test_released_records_are_valid_by_the_schema(folder):
    check = Draft202012Validator(json_schema(folder.removesuffix("s")))
    for path in (path for release in RELEASED for path in (release / folder).iterdir()):
        check.validate(json.loads(path.read_text(encoding="utf-8")))


# A client written from protocol.md alone: json and os, nothing of ours.


def client_write(knowledge, folder, record):
    """The four steps of "Files"."""
    place = os.path.join(knowledge, folder)
    os.makedirs(place, exist_ok=True)
    name = os.path.join(place, record["id"] + ".json")
    temporary = os.path.join(place, f".{record['id']}.json.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    os.write(handle, json.dumps(record).encode())
    os.fsync(handle)
    os.close(handle)
    try:
        os.link(temporary, name)
        folder_handle = os.open(place, os.O_RDONLY)
        os.fsync(folder_handle)
        os.close(folder_handle)
    finally:
        os.remove(temporary)


def client_read(knowledge, card_id):
    """The card of this id, folded as "Events" says."""
    with open(os.path.join(knowledge, "cards", card_id + ".json"), encoding="utf-8") as file:
        card = json.load(file)
    events = []
    for name in os.listdir(os.path.join(knowledge, "events")):
        if name.endswith(".json") and not name.startswith("."):
            with open(os.path.join(knowledge, "events", name), encoding="utf-8") as file:
                events.append(json.load(file))
    for event in sorted(events, key=lambda event: (event["timestamp"], event["id"])):
        fields = event["fields"]
        if event["card"] != card_id:
            continue
        if event["kind"] == "annotate":
            for name, value in fields.get("results", {}).items():
                if card["results"].get(name) is None:
                    card["results"][name] = value
            card.update({name: value for name, value in fields.items() if name != "results"})
        elif event["kind"] == "decide":
            card["status_before" if card["status"] == "retracted" else "status"] = fields["status"]
        elif event["kind"] == "retract":
            card["status_before"] = card.get("status_before") or card["status"]
            card.update(status="retracted", retraction_reason=fields.get("reason"))
        elif event["kind"] == "suspect":
            card.update(confirmed=None, quarantined=event["fields"]["reason"])
        elif event["kind"] == "confirm":
            card.update(confirmed=True, quarantined=None)
    return card


def test_a_client_written_from_the_document_is_understood(tmp_path):
    when = "2026-01-31T12:00:00.000Z"
    card = {
        "schema": 2, "id": "0123456789abcdef", "timestamp": when, "metric": "val_bpb", "direction": "min",
        "tags": ["mlp"], "track": "t", "results": {"val_bpb": 0.99}, "status": "keep", "prior_knowledge_used": [],
    }  # fmt: skip
    event = {
        "schema": 2, "id": "e" * 12, "card": card["id"], "kind": "annotate", "timestamp": when,
        "fields": {"lesson": "pays", "results": {"val_bpb": 0.5, "depth": 8}},
    }  # fmt: skip
    note = {"schema": 2, "id": "f" * 12, "timestamp": when, "kind": "insight", "text": "width pays", "evidence": []}
    for folder, record in (("cards", card), ("events", event), ("notes", note)):
        client_write(tmp_path, folder, record)
        with pytest.raises(FileExistsError):
            client_write(tmp_path, folder, record)
    (read,) = load_cards(tmp_path)
    assert (read["lesson"], read["results"]["val_bpb"], read["results"]["depth"]) == ("pays", 0.99, 8)
    assert load_notes(tmp_path)[0]["text"] == "width pays"
    with Index(tmp_path) as index:
        assert index.rows("SELECT id, lesson, depth FROM cards") == [
            {"id": "0123456789abcdef", "lesson": "pays", "depth": 8}
        ]


def said_about(card_ids):
    """Events with any fields their kinds allow that leave the card whole."""
    when = st.sampled_from(["2026-01-31T12:00:00.000Z", "2026-01-31T12:00:00.001Z"])
    fields = {
        "annotate": st.fixed_dictionaries(
            {},
            optional={
                "lesson": st.text(max_size=3),
                "results": st.dictionaries(st.sampled_from(["depth", "val_bpb", "x"]), st.integers(0, 3)),
            },
        ),
        "decide": st.builds(dict, status=st.sampled_from(["keep", "revert", "inconclusive"])),
        "retract": st.fixed_dictionaries({}, optional={"reason": st.text(max_size=3)}),
        "suspect": st.builds(dict, reason=st.text(min_size=1, max_size=3)),
        "confirm": st.just({}),
    }
    assert set(fields) == set(EVENT_FIELDS)
    return st.sampled_from(EVENT_KINDS).flatmap(
        lambda kind: st.fixed_dictionaries(
            {"card": st.sampled_from(card_ids), "kind": st.just(kind), "timestamp": when, "fields": fields[kind]}
        )
    )


@settings(max_examples=30, deadline=None)
@given(said=st.lists(said_about(["a" * 12, "b" * 12]), max_size=6))
def test_the_client_folds_as_we_do(tmp_path_factory, said):
    knowledge = tmp_path_factory.mktemp("commons")
    (knowledge / "events").mkdir()
    values = {"id": "a" * 12, "timestamp": "2026-01-31T12:00:00.000Z", "status": "keep", "results": {"val_bpb": 1.0}}
    client_write(knowledge, "cards", complete(values | {"quarantined": "slow"}))
    for number, event in enumerate(said):
        client_write(knowledge, "events", event | {"schema": 2, "id": f"{number:012x}"})
    assert load_cards(knowledge) == [client_read(knowledge, "a" * 12)]
