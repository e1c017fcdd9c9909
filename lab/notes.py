"""Notes: an insight, an open question, a memory, or the answer to a question, with the cards it rests on.

    note = add_note(knowledge, "question", "does a longer warmdown pay at depth 12?", evidence=[card["id"]])
    add_note(knowledge, "answer", "it does, -0.0011 over three seeds", answers=note["id"])

One file each in `knowledge/notes/`, written once. Not covered: searching them (`lab/index.py`).
"""

from pathlib import Path

from lab.cards import checked, new_id, order, utc_now
from lab.schema import SCHEMA, Card, validate_note
from lab.store import read_json, record_names, write_new

NOTE_DEFAULTS: Card = {"evidence": [], "answers": None, "session": None, "agent": None}  # what a note may leave out


def add_note(
    knowledge: Path | str,
    kind: str,
    text: str,
    *,
    evidence: list[str] | None = None,
    answers: str | None = None,
    session: str | None = None,
    agent: str | None = None,
) -> Card:
    """Write a note (`lab.schema.NOTE_KINDS`) and return it. CardError when a value is not allowed."""
    note = {"schema": SCHEMA, "id": new_id(), "timestamp": utc_now(), "kind": kind, "text": text}
    note |= {"evidence": evidence or [], "answers": answers, "session": session, "agent": agent}
    validate_note(note)
    write_new(Path(knowledge) / "notes" / f"{note['id']}.json", note)
    return note


def load_notes(knowledge: Path | str) -> list[Card]:
    """All notes, newest first. StoreError or CardError names the first file that cannot be used."""
    folder = Path(knowledge)
    notes = [read_note(folder, name) for name in record_names(folder / "notes")]
    return sorted(notes, key=order, reverse=True)


def read_note(knowledge: Path, note_id: str) -> Card:
    """One note from its file. StoreError or CardError names the file when it cannot be used."""
    path = knowledge / "notes" / f"{note_id}.json"
    return checked(path, "note", NOTE_DEFAULTS | read_json(path), validate_note)
