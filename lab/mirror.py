"""The tables of the index, and how a record gets into them and out again. Only `lab/index.py` uses it.

It is loaded when there is something to take in: most readers find the index up to date.
"""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lab.cards import read_card, read_event
from lab.notes import read_note
from lab.schema import RESULT_NAMES, Card

_PLAIN = (
    "id", "run_id", "timestamp", "session", "agent", "track", "preset", "metric", "direction", "parent_commit",
    "train_sha256", "edit_key", "hypothesis", "category", "seed", "status", "status_before", "quarantined", "confirmed",
    "lesson",
)  # fmt: skip
_NUMBERS = tuple(name for name in RESULT_NAMES if name != "loss_curve")
_NESTED = {
    "device": ("platform", "device"), "device_name": ("platform", "device_name"),
    "memory_gb": ("platform", "memory_gb"), "machine": ("platform", "machine"), "torch": ("platform", "torch"),
    "champion": ("decision", "champion"), "probability": ("decision", "probability"),
    "error_kind": ("error", "kind"), "error_summary": ("error", "summary"),
}  # fmt: skip
COLUMNS = (*_PLAIN, "commit_id", "standing", "result", *_NUMBERS, *_NESTED)


TABLES = f"""
CREATE TABLE cards({", ".join(COLUMNS)}, UNIQUE(id));
CREATE TABLE tags(tag, card, track, standing, direction, delta, result);
CREATE TABLE links(card, prior);
CREATE TABLE changes(card, name, old, new);
CREATE TABLE events(id PRIMARY KEY, card, kind, timestamp, fields) WITHOUT ROWID;
CREATE TABLE notes(id, timestamp, kind, text, answers, session, agent, UNIQUE(id));
CREATE TABLE evidence(note, card);
CREATE TABLE derived(name PRIMARY KEY, about, value) WITHOUT ROWID;
CREATE TABLE folders(name PRIMARY KEY, changed, listed) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5(hypothesis, lesson, note, tokenize='porter unicode61');
CREATE TABLE counts(track, category, standing, direction, runs);
CREATE TABLE tag_counts(track, tag, standing, runs);
INSERT INTO folders VALUES ('cards', -1, 0), ('events', -1, 0), ('notes', -1, 0);
"""


def _kept_right(table: str, counts: str, *names: str) -> str:
    """Count the rows of a table for each value of these columns into `counts`, and let triggers keep that right.

    A brief begins with such numbers, and counting 100,000 rows would take longer than all the rest of it.
    """
    columns, new = ", ".join(names), ", ".join(f"new.{name}" for name in names)
    of_new, of_old = (" AND ".join(f"{name} IS {row}.{name}" for name in names) for row in ("new", "old"))
    return f"""
INSERT INTO {counts} SELECT {columns}, count(*) FROM {table} GROUP BY {columns};
CREATE INDEX {counts}_by_name ON {counts}({columns});
CREATE TRIGGER {counts}_more AFTER INSERT ON {table} BEGIN \
UPDATE {counts} SET runs = runs + 1 WHERE {of_new}; INSERT INTO {counts} SELECT {new}, 1 WHERE changes() = 0; END;
CREATE TRIGGER {counts}_less AFTER DELETE ON {table} BEGIN \
UPDATE {counts} SET runs = runs - 1 WHERE {of_old}; DELETE FROM {counts} WHERE {of_old} AND runs = 0; END;
"""


# Made when the first records are in: sorted at once they cost a third less.
INDEXES = f"""
CREATE INDEX cards_by_time ON cards(timestamp, id);
CREATE INDEX cards_by_result ON cards(track, status, result);
CREATE INDEX cards_by_delta ON cards(track, status, delta);
CREATE INDEX cards_by_track ON cards(track, timestamp);
CREATE INDEX cards_by_edit ON cards(track, edit_key);
CREATE INDEX crashes ON cards(track, timestamp) WHERE status = 'crash';
CREATE INDEX kept ON cards(track, timestamp) WHERE status = 'keep';
CREATE INDEX suspects ON cards(track, timestamp) WHERE quarantined IS NOT NULL;
CREATE INDEX cards_by_run ON cards(run_id);
CREATE INDEX cards_by_commit ON cards(commit_id);
CREATE INDEX deltas_by_category ON cards(track, category, standing, direction, delta);
CREATE INDEX results_by_category ON cards(track, category, standing, direction, result);
CREATE INDEX tags_by_tag ON tags(tag, card);
CREATE INDEX tags_by_card ON tags(card);
CREATE INDEX links_by_card ON links(card);
CREATE INDEX links_by_prior ON links(prior);
CREATE INDEX changes_by_card ON changes(card);
CREATE INDEX notes_by_answer ON notes(answers);
CREATE INDEX evidence_by_note ON evidence(note);
CREATE INDEX events_by_card ON events(card);
{_kept_right("cards", "counts", "track", "category", "standing", "direction")}
{_kept_right("tags", "tag_counts", "track", "tag", "standing")}
"""
_INSERT_CARD = f"INSERT INTO cards({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


def make_tables(db: sqlite3.Connection) -> None:
    """Make the tables of an index, empty."""
    for statement in TABLES.split(";\n"):
        db.execute(statement)


class Mirror:
    """The records of one commons as rows of an open database."""

    def __init__(self, knowledge: Path, db: sqlite3.Connection) -> None:
        self.knowledge = knowledge
        self._db = db

    def clear(self) -> None:
        """Let go of everything."""
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'words\\__%' ESCAPE '\\'"
        for (name,) in self._db.execute(tables).fetchall():
            self._db.execute(f"DROP TABLE {name}")
        make_tables(self._db)

    def finish(self) -> None:
        """Make what only speeds up the answers, once the first records are in."""
        for statement in INDEXES.split(";\n"):
            self._db.execute(statement)

    def take(self, folder: str, records: Iterable[str]) -> None:
        """Take in the records of these names. StoreError or CardError names the first that cannot be used."""
        self._forget_derived(folder)
        if folder == "cards":
            for record in records:
                self._put_card(record)
        elif folder == "notes":
            for record in records:
                self._put_note(read_note(self.knowledge, record))
        else:
            cards = set()
            for record in records:
                event = read_event(self.knowledge, record)
                values = (event["id"], event["card"], event["kind"], event["timestamp"], json.dumps(event["fields"]))
                self._db.execute("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?)", values)
                cards.add(event["card"])
            self._put_known(cards)

    def drop(self, folder: str, records: set[str]) -> None:
        """Let go of the records of these names, which are gone."""
        self._forget_derived(folder)
        if folder == "cards":
            for record in records:
                self._forget_card(record)
        elif folder == "notes":
            for record in records:
                self._forget_note(record)
        else:
            cards = set()
            for record in records:
                cards |= {row[0] for row in self._db.execute("SELECT card FROM events WHERE id = ?", (record,))}
                self._db.execute("DELETE FROM events WHERE id = ?", (record,))
            self._put_known(cards)

    def _forget_derived(self, folder: str) -> None:
        """What was computed from the cards is no longer true."""
        if folder != "notes":
            self._db.execute("DELETE FROM derived")

    def _put_known(self, cards: set[str]) -> None:
        """Fold again the cards of events, those that the index has; the others come with their folder."""
        for card in cards:
            there = self._db.execute("SELECT 1 FROM cards WHERE id = ?", (card,)).fetchone()
            if there and (self.knowledge / "cards" / f"{card}.json").exists():
                self._put_card(card)

    def _put_card(self, card_id: str) -> None:
        card = self.read(card_id)
        self._forget_card(card_id)
        cursor = self._db.execute(_INSERT_CARD, values_of(card))
        delta, result = card["results"]["delta"], card["results"].get(card["metric"])
        many = self._db.executemany
        judged = _clean((card["track"], _standing(card), card["direction"], delta, result))
        many(
            "INSERT INTO tags VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((*_clean([tag]), card_id, *judged) for tag in dict.fromkeys(card["tags"])),
        )
        many("INSERT INTO links VALUES (?, ?)", ((card_id, *_clean([prior])) for prior in card["prior_knowledge_used"]))
        changes = (card["config_diff"] or {}).items()
        many(
            "INSERT INTO changes VALUES (?, ?, ?, ?)",
            ((card_id, *_clean([name]), json.dumps(old), json.dumps(new)) for name, (old, new) in changes),
        )
        words = (cursor.lastrowid, card["hypothesis"], card["lesson"])
        self._db.execute("INSERT INTO words(rowid, hypothesis, lesson) VALUES (?, ?, ?)", _clean(words))

    def _forget_card(self, card_id: str) -> None:
        for (rowid,) in self._db.execute("SELECT rowid FROM cards WHERE id = ?", (card_id,)).fetchall():
            self._db.execute("DELETE FROM words WHERE rowid = ?", (rowid,))
            self._db.execute("DELETE FROM cards WHERE rowid = ?", (rowid,))
            for table in ("tags", "links", "changes"):
                self._db.execute(f"DELETE FROM {table} WHERE card = ?", (card_id,))

    def _put_note(self, note: Card) -> None:
        self._forget_note(note["id"])
        names = ("id", "timestamp", "kind", "text", "answers", "session", "agent")
        cursor = self._db.execute(
            "INSERT INTO notes VALUES (?, ?, ?, ?, ?, ?, ?)", _clean(note[name] for name in names)
        )
        self._db.executemany(
            "INSERT INTO evidence VALUES (?, ?)", ((note["id"], *_clean([card])) for card in note["evidence"])
        )
        # The words of notes have negative numbers: a note's row and a card's may have the same.
        self._db.execute(
            "INSERT INTO words(rowid, note) VALUES (?, ?)", _clean((-(cursor.lastrowid or 0), note["text"]))
        )

    def _forget_note(self, note_id: str) -> None:
        for (rowid,) in self._db.execute("SELECT rowid FROM notes WHERE id = ?", (note_id,)).fetchall():
            self._db.execute("DELETE FROM words WHERE rowid = ?", (-rowid,))
            self._db.execute("DELETE FROM notes WHERE rowid = ?", (rowid,))
            self._db.execute("DELETE FROM evidence WHERE note = ?", (note_id,))

    def read(self, card_id: str) -> Card:
        """The card of this id from its file, folded with its events."""
        events = [
            {"id": name, "card": card_id, "kind": kind, "timestamp": when, "fields": json.loads(fields)}
            for name, kind, when, fields in self._db.execute(
                "SELECT id, kind, timestamp, fields FROM events WHERE card = ?", (card_id,)
            )
        ]
        return read_card(self.knowledge, card_id, events)


def values_of(card: Card) -> list[Any]:
    """A card as a row of the table `cards`."""
    results = card["results"]
    values = [card[name] for name in _PLAIN]
    values += [card["commit"], _standing(card), results.get(card["metric"])]
    values += [results[name] for name in _NUMBERS]
    values += [(card[parent] or {}).get(name) for parent, name in _NESTED.values()]
    return _clean(values)


def _standing(card: Card) -> str:
    """The status, or "quarantined" for a suspect run, which counts as a try and as nothing else."""
    return "quarantined" if card["quarantined"] and card["status"] != "retracted" else str(card["status"])


def _clean(values: Iterable[Any]) -> list[Any]:
    """The values as SQLite takes them: a lone surrogate is replaced, an integer beyond 64 bits becomes a float."""
    return [
        value.encode("utf-8", "replace").decode() if isinstance(value, str)
        else float(value) if isinstance(value, int) and not -(2**63) <= value < 2**63
        else value
        for value in values
    ]  # fmt: skip
