"""Notes are written once, and read whole or named when they cannot be."""

import pytest

from lab.errors import CardError, StoreError
from lab.notes import add_note, load_notes, read_note
from lab.schema import NOTE_KINDS, SCHEMA
from lab.store import read_json, write_new

NOTE = {"schema": SCHEMA, "id": "a" * 12, "timestamp": "2026-01-31T12:00:00.000Z", "kind": "insight", "text": "x"}
DEFAULTS = {"evidence": [], "answers": None, "session": None, "agent": None}


@pytest.mark.parametrize("kind", NOTE_KINDS)
def test_a_note_of_every_kind(tmp_path, kind):
    answers = "b" * 12 if kind == "answer" else None
    note = add_note(tmp_path, kind, "wider pays", evidence=["a" * 12], answers=answers, session="mar8", agent="robot")
    assert [note[name] for name in ("kind", "text", "evidence", "answers", "session", "agent")] == [
        kind, "wider pays", ["a" * 12], answers, "mar8", "robot",
    ]  # fmt: skip
    (file,) = (tmp_path / "notes").iterdir()
    assert file.name == f"{note['id']}.json"
    assert load_notes(tmp_path) == [note] == [read_json(file)] == [read_note(tmp_path, note["id"])]


def test_a_bad_note_is_not_written(tmp_path):
    for arguments in (("rumour", "x"), ("insight", " "), ("answer", "x")):
        with pytest.raises(CardError, match=r"^note field "):
            add_note(tmp_path, *arguments)
    assert not (tmp_path / "notes").exists()


def test_the_newest_note_comes_first(tmp_path):
    assert load_notes(tmp_path) == []
    for name, day in (("b", 1), ("c", 2), ("a", 2)):
        note = NOTE | {"id": name * 12, "timestamp": f"2026-01-0{day}T00:00:00.000Z"}
        write_new(tmp_path / "notes" / f"{note['id']}.json", note)
    assert [note["id"][0] for note in load_notes(tmp_path)] == ["c", "a", "b"]


def test_what_another_client_leaves_out_or_adds_is_read(tmp_path):
    write_new(tmp_path / "notes" / f"{'a' * 12}.json", NOTE | {"mood": "hopeful"})
    assert load_notes(tmp_path) == [DEFAULTS | NOTE | {"mood": "hopeful"}]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": ""}, "note field text: a note must say something"),
        ({"id": "b" * 12}, "the note in it is bbbbbbbbbbbb, and a note's file has its name"),
    ],
)
def test_a_damaged_note_is_named(tmp_path, change, reason):
    path = tmp_path / "notes" / f"{'a' * 12}.json"
    write_new(path, NOTE | change)
    with pytest.raises(CardError) as refused:
        load_notes(tmp_path)
    assert str(refused.value) == f"{path}: {reason}; `commons.py doctor` sets it right"


def test_a_torn_note_is_named(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "torn.json").write_text('{"id"')
    with pytest.raises(StoreError) as refused:
        load_notes(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path}/notes/torn.json is not JSON (")
