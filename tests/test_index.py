"""The index: always as the files are, whoever wrote them, whatever happened to its own file."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lab.index
from lab.cards import add_card, card_path, join, load_cards
from lab.errors import LabError, SettingError
from lab.index import RELIST_SECONDS, VERSION, Index, check, remove
from lab.mirror import COLUMNS
from lab.notes import add_note
from lab.store import dump_json, write_many

ROOT = Path(__file__).parent.parent
A, B, C = "a" * 16, "b" * 16, "c" * 16
KEPT = {"status": "keep", "results": {"val_bpb": 1.0}, "track": "t"}
TABLES = ("cards", "tags", "links", "changes", "events", "notes", "evidence")


@pytest.fixture
def knowledge(tmp_path):
    """A commons with a card."""
    add_card(tmp_path / "knowledge", KEPT | {"id": A, "hypothesis": "wider MLP", "tags": ["mlp"]})
    return tmp_path / "knowledge"


def ids(knowledge):
    """The ids in the index, as its next reader sees it."""
    with Index(knowledge) as index:
        return [row["id"] for row in index.rows("SELECT id FROM cards ORDER BY id")]


def status(knowledge, card=A):
    """The status of a card in the index."""
    with Index(knowledge) as index:
        return index.row("SELECT status FROM cards WHERE id = ?", card)["status"]


def everything(index):
    """What the index says, in an order of its own: all tables, and which records a word finds."""
    rows = {name: sorted(map(repr, index.rows(f"SELECT * FROM {name}"))) for name in TABLES}
    cards = "SELECT cards.id, words.hypothesis, words.lesson FROM words JOIN cards ON cards.rowid = words.rowid"
    notes = "SELECT notes.id, words.note FROM words JOIN notes ON notes.rowid = -words.rowid"
    return rows | {"words": sorted(map(repr, index.rows(cards) + index.rows(notes)))}


def python(code, *words):
    """A process that runs this code."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE)


def test_an_empty_or_missing_commons(tmp_path):
    assert ids(tmp_path / "none") == [] and not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    assert ids(tmp_path / "empty") == []


# Freshness: what others do to the files.


def test_a_card_of_another_process_is_seen(knowledge):
    with Index(knowledge) as index:
        code = (
            "import sys, pathlib; from lab.cards import add_card\n"
            "add_card(pathlib.Path(sys.argv[1]), {'id': 'b' * 16, 'status': 'crash'})"
        )
        assert python(code, knowledge).wait() == 0
        assert index.row("SELECT count(*) AS n FROM cards") == {"n": 1}
        index.refresh()
        assert index.row("SELECT count(*) AS n FROM cards") == {"n": 2}
    assert ids(knowledge) == [A, B]


def test_a_card_that_is_copied_in_and_one_that_is_removed(knowledge, tmp_path):
    assert ids(knowledge) == [A]
    add_card(tmp_path / "other", KEPT | {"id": B})
    shutil.copy2(card_path(tmp_path / "other", B), knowledge / "cards")
    assert ids(knowledge) == [A, B]
    card_path(knowledge, A).unlink()
    assert ids(knowledge) == [B]
    with Index(knowledge) as index:
        assert everything(index)["tags"] == everything(index)["changes"] == []
        assert index.rows("SELECT rowid FROM words WHERE words MATCH 'wider'") == []


def test_a_folder_that_is_replaced_or_removed(knowledge, tmp_path):
    assert ids(knowledge) == [A]
    add_card(tmp_path / "other", KEPT | {"id": B})
    shutil.rmtree(knowledge / "cards")
    assert ids(knowledge) == []
    shutil.copytree(tmp_path / "other" / "cards", knowledge / "cards")  # with the times of the other one
    assert ids(knowledge) == [B]


@pytest.mark.parametrize("first", ["card", "event"])
def test_an_event_may_come_before_its_card(knowledge, tmp_path, first):
    card = add_card(tmp_path / "other", KEPT | {"id": B})
    join(tmp_path / "other", card, "retract", {"reason": "a leak"})
    folders = ["cards", "events"] if first == "card" else ["events", "cards"]
    for folder in folders:
        shutil.copytree(tmp_path / "other" / folder, knowledge / folder, dirs_exist_ok=True)
        ids(knowledge)
    assert status(knowledge, B) == "retracted"
    for path in (knowledge / "events").iterdir():
        path.unlink()
    assert status(knowledge, B) == "keep"


def test_an_event_whose_card_goes_and_comes_back(knowledge):
    join(knowledge, load_cards(knowledge)[0], "retract", {"reason": "a leak"})
    assert status(knowledge) == "retracted"
    content = card_path(knowledge, A).read_bytes()
    card_path(knowledge, A).unlink()
    assert ids(knowledge) == []
    card_path(knowledge, A).write_bytes(content)
    assert status(knowledge) == "retracted"


def test_a_card_and_its_event_that_go_together(knowledge):
    join(knowledge, load_cards(knowledge)[0], "retract", {"reason": "a leak"})
    assert status(knowledge) == "retracted"
    shutil.rmtree(knowledge / "events")
    shutil.rmtree(knowledge / "cards")
    assert ids(knowledge) == []
    with Index(knowledge) as index:
        assert index.rows("SELECT * FROM events") == []


def test_notes_come_and_go(knowledge):
    note = add_note(knowledge, "insight", "wider pays", evidence=[A])
    words = "SELECT rowid FROM words WHERE words MATCH 'pays'"
    with Index(knowledge) as index:
        assert index.row("SELECT id, kind, text FROM notes") == {
            "id": note["id"],
            "kind": "insight",
            "text": "wider pays",
        }
        assert index.rows("SELECT * FROM evidence") == [{"note": note["id"], "card": A}]
        assert len(index.rows(words)) == 1
        (knowledge / "notes" / f"{note['id']}.json").unlink()
        index.refresh()
        assert index.rows("SELECT * FROM notes") == index.rows("SELECT * FROM evidence") == index.rows(words) == []


def test_a_change_that_did_not_move_the_time_is_found_by_the_next_listing(knowledge):
    """A file system that keeps whole seconds: the folder changes again within the second the index has seen."""
    folder = knowledge / "cards"
    now = time.time_ns()
    os.utime(folder, ns=(now, now))
    assert ids(knowledge) == [A]
    write_many(folder, [(f"{B}.json", dump_json(json.loads(card_path(knowledge, A).read_bytes()) | {"id": B}))])
    os.utime(folder, ns=(now, now))
    assert ids(knowledge) == [A]  # it cannot know yet
    # As if RELIST_SECONDS had passed.
    past = now - (RELIST_SECONDS + 1) * 10**9
    with sqlite3.connect(knowledge / "index.sqlite") as db:
        db.execute("UPDATE folders SET listed = ?", (past,))
    assert ids(knowledge) == [A, B]


def test_a_folder_that_has_been_quiet_is_not_listed_again(knowledge):
    long_ago = time.time_ns() - 10 * RELIST_SECONDS * 10**9
    os.utime(knowledge / "cards", ns=(long_ago, long_ago))
    with Index(knowledge) as index:
        (before,) = index.rows("SELECT listed FROM folders WHERE name = 'cards'")
    with Index(knowledge) as index:
        assert index.rows("SELECT listed FROM folders WHERE name = 'cards'") == [before]
    os.utime(knowledge / "cards", ns=(long_ago + 1, long_ago + 1))
    with Index(knowledge) as index:
        assert index.rows("SELECT listed FROM folders WHERE name = 'cards'") != [before]


def test_wrote_takes_in_what_this_process_wrote(knowledge):
    with Index(knowledge) as index:
        add_card(knowledge, KEPT | {"id": B})
        index.wrote("cards", B)
        assert index.row("SELECT count(*) AS n FROM cards") == {"n": 2}
        (before,) = index.rows("SELECT listed FROM folders WHERE name = 'cards'")
    with Index(knowledge) as index:
        assert index.rows("SELECT listed FROM folders WHERE name = 'cards'") == [before]


def test_wrote_does_not_hide_what_another_process_wrote_before(knowledge):
    with Index(knowledge) as index, Index(knowledge) as other:
        add_card(knowledge, KEPT | {"id": B})
        add_card(knowledge, KEPT | {"id": C})
        other.wrote("cards", C)
        index.wrote("cards", B)
    os.utime(knowledge / "cards")
    assert ids(knowledge) == [A, B, C]


# The index's own file.


def test_many_processes_build_it_at_once(tmp_path):
    knowledge = tmp_path / "knowledge"
    card = json.loads(card_path(knowledge, add_card(knowledge, KEPT | {"id": A})["id"]).read_bytes())
    names = [f"{number:016x}" for number in range(400)]
    write_many(knowledge / "cards", [(f"{name}.json", dump_json(card | {"id": name})) for name in names])
    code = (
        "import sys, pathlib; from lab.index import Index\n"
        "with Index(pathlib.Path(sys.argv[1])) as index: print(index.row('SELECT count(*) AS n FROM cards')['n'])"
    )
    answers = [process.communicate()[0] for process in [python(code, knowledge) for _ in range(4)]]
    assert answers == [b"401\n"] * 4
    assert check(knowledge) is None


def damage(path, how):
    """Damage an index file."""
    raw = path.read_bytes()
    if how == "nothing in it":
        path.write_bytes(b"")
    elif how == "not a database":
        path.write_bytes(b"surprise\n" * 1000)
    elif how == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "overwritten":
        path.write_bytes(raw[:4096] + random.Random(0).randbytes(len(raw) - 4096))
    elif how == "of another program":
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE cards(surprise)")
    else:
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA user_version = {VERSION + (1 if how == 'of a newer version' else -2)}")


HOW = [
    "nothing in it", "not a database", "cut", "overwritten", "of another program", "of a newer version",
    "of an older version",
]  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_index_is_built_again(knowledge, how):
    assert ids(knowledge) == [A]
    damage(knowledge / "index.sqlite", how)
    add_card(knowledge, KEPT | {"id": B})
    assert ids(knowledge) == [A, B]
    assert ids(knowledge) == [A, B]
    assert check(knowledge) is None


def test_check_says_what_is_wrong(knowledge):
    assert check(knowledge) is None
    ids(knowledge)
    damage(knowledge / "index.sqlite", "not a database")
    assert check(knowledge) == "file is not a database"
    remove(knowledge)
    assert check(knowledge) is None and not list(knowledge.glob("index.sqlite*"))


def test_remove_says_what_it_could_not_remove(knowledge):
    (knowledge / "index.sqlite").mkdir()
    with pytest.raises(LabError, match=r"^cannot remove .*/index\.sqlite: "):
        remove(knowledge)


@pytest.mark.parametrize("name", ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"])
def test_where_it_cannot_be_written_it_is_built_in_memory(knowledge, name):
    if name != "index.sqlite":
        (knowledge / "index.sqlite").write_text("not a database")
    (knowledge / name).mkdir()
    assert ids(knowledge) == [A]
    add_card(knowledge, KEPT | {"id": B})
    with Index(knowledge) as index:
        add_card(knowledge, KEPT | {"id": C})
        index.wrote("cards", C)
        assert len(index.rows("SELECT id FROM cards")) == 3


def test_a_kill_in_the_middle_leaves_nothing_half_done(knowledge):
    card = json.loads(card_path(knowledge, A).read_bytes())
    names = [f"{number:016x}" for number in range(3000)]
    write_many(knowledge / "cards", [(f"{name}.json", dump_json(card | {"id": name})) for name in names])
    code = (
        "import os, signal, sys, pathlib; from lab.index import Index; from lab.mirror import Mirror\n"
        "put = Mirror._put_card\n"
        "def die(self, card):\n"
        "    if card == sys.argv[2]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    put(self, card)\n"
        "Mirror._put_card = die\n"
        "Index(pathlib.Path(sys.argv[1]))"
    )
    process = python(code, knowledge, names[2000])
    assert process.wait() == -signal.SIGKILL
    with sqlite3.connect(knowledge / "index.sqlite") as db:
        assert db.execute("SELECT count(*) FROM cards").fetchone() == (0,)
    assert len(ids(knowledge)) == 3001
    assert check(knowledge) is None


def test_a_build_that_fails_leaves_no_index(knowledge):
    torn = card_path(knowledge, B)
    torn.write_text("")
    with pytest.raises(LabError, match=rf"^{torn} is not JSON"):
        Index(knowledge)
    assert not list(knowledge.glob("index.sqlite*"))
    torn.unlink()
    assert ids(knowledge) == [A]
    torn.write_text("")
    with pytest.raises(LabError):
        Index(knowledge)
    assert (knowledge / "index.sqlite").exists()
    torn.unlink()
    assert ids(knowledge) == [A]


# One property: the index is what a fresh one is, in whatever order records came and went.

TEXT = st.text(st.characters(), max_size=20)
ID = st.sampled_from([f"{number:016x}" for number in range(6)])
STAMP = st.sampled_from([f"2026-01-31T12:00:0{second}.000Z" for second in range(4)])
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)


@st.composite
def records(draw):
    """(folder, record) of a valid card, event or note."""
    name, when, folder = draw(ID), draw(STAMP), draw(st.sampled_from(["cards", "events", "events", "notes"]))
    about = {"schema": 2, "id": name, "timestamp": when}
    if folder == "cards":
        results = {"val_bpb": draw(NUMBER), "delta": draw(NUMBER)}
        return folder, about | {
            "status": "inconclusive", "results": results, "hypothesis": draw(st.none() | TEXT), "metric": "val_bpb",
            "direction": draw(st.sampled_from(["min", "max"])), "track": draw(st.sampled_from([None, "t", "u"])),
            "tags": draw(st.lists(TEXT, max_size=3)), "prior_knowledge_used": draw(st.lists(ID, max_size=2)),
            "config_diff": draw(st.none() | st.dictionaries(TEXT, st.just([1, None]), max_size=2)),
            "quarantined": draw(st.none() | TEXT), "lesson": draw(st.none() | TEXT),
        }  # fmt: skip
    if folder == "notes":
        text = draw(TEXT.filter(str.strip))
        return folder, about | {"kind": "memory", "text": text, "evidence": draw(st.lists(ID, max_size=2))}
    fields = {"annotate": {"lesson": draw(TEXT)}, "retract": {"reason": draw(TEXT)}, "confirm": {}}
    kind = draw(st.sampled_from(sorted(fields)))
    return folder, about | {"card": draw(ID), "kind": kind, "fields": fields[kind]}


POOL = st.lists(records(), min_size=1, max_size=8, unique_by=lambda pair: (pair[0], pair[1]["id"]))
STEPS = st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=14)


@settings(max_examples=60, deadline=None)
@given(pool=POOL, steps=STEPS)
def test_rows_are_those_of_a_fresh_index_whatever_came_and_went(tmp_path_factory, pool, steps):
    knowledge = tmp_path_factory.mktemp("commons") / "knowledge"
    knowledge.mkdir()
    clock = time.time_ns()
    for number, look in steps:
        folder, record = pool[number % len(pool)]
        path = knowledge / folder / f"{record['id']}.json"
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            path.unlink()  # a record that is there already goes
        else:
            path.write_bytes(dump_json(record))
        clock += 1000
        os.utime(path.parent, ns=(clock, clock))  # as a clock with a fine resolution would
        if look:
            Index(knowledge).close()
    with Index(knowledge) as index:
        found = everything(index)
        cards = {card["id"]: card for card in load_cards(knowledge)}
        assert {row["id"]: row["status"] for row in index.rows("SELECT id, status FROM cards")} == {
            name: card["status"] for name, card in cards.items()
        }
    remove(knowledge)
    with Index(knowledge) as index:
        assert everything(index) == found


# Questions of others.


def test_query(knowledge):
    with Index(knowledge) as index:
        assert index.query("SELECT id, result FROM cards") == [{"id": A, "result": 1.0}]
        assert index.query(" with x as (select 1 as one) select one from x; ") == [{"one": 1}]
        assert index.query("SELECT id FROM cards WHERE 0") == []


NOT_A_QUERY = [
    ("", "it is not one SELECT"),
    ("-- nothing", "it is not one SELECT"),
    ("SELECT 1; SELECT 2", None),
    ("SELECT nonsense", "no such column: nonsense"),
    ("SELECT * FROM nowhere", "no such table: nowhere"),
    ("DELETE FROM cards", "not authorized"),
    ("UPDATE cards SET status = 'keep'", "not authorized"),
    ("INSERT INTO words(words) VALUES ('delete-all')", "not authorized"),
    ("DROP TABLE cards", "not authorized"),
    ("CREATE TABLE mine(x)", "not authorized"),
    ("CREATE TEMP TABLE mine(x)", "not authorized"),
    ("ATTACH '/tmp/stolen.db' AS stolen", "not authorized"),
    ("VACUUM INTO '/tmp/stolen.db'", "authorization denied"),
    ("PRAGMA query_only = 0", "not authorized"),
    ("PRAGMA user_version", "not authorized"),
    ("SELECT * FROM pragma_database_list", "not authorized"),
    ("BEGIN", "not authorized"),
    ("SELECT load_extension('x')", None),
    ("SELECT ?", None),
    ("SELECT 1\0", None),
    ("SELECT '\udcff'", None),
    ("SELECT x'00ff' AS raw", "raw is binary; use hex(raw)"),
    (f"SELECT {'(' * 5000}1{')' * 5000}", None),
]


@pytest.mark.parametrize(("sql", "reason"), NOT_A_QUERY)
def test_what_is_no_query_is_refused(knowledge, sql, reason):
    with Index(knowledge) as index:
        before = everything(index)
        with pytest.raises(SettingError, match=r"^the query cannot be answered: ") as caught:
            index.query(sql)
        assert reason is None or reason in str(caught.value)
        assert "\n" not in str(caught.value)
        assert everything(index) == before
        index.wrote("cards", A)  # and it can still be written to


def test_a_query_without_an_end_is_stopped(knowledge, monkeypatch):
    monkeypatch.setattr(lab.index, "QUERY_SECONDS", 0.2)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with Index(knowledge) as index:
        with pytest.raises(SettingError, match=r"^the query cannot be answered: interrupted; docs/protocol\.md lists"):
            index.query(endless)
        assert index.query("SELECT 1 AS one") == [{"one": 1}]


def test_rows_hold_what_the_cards_say(knowledge):
    values = {
        "id": B, "run_id": B, "timestamp": "2026-01-31T12:00:00.000Z", "status": "keep", "metric": "accuracy",
        "direction": "max", "results": {"accuracy": 0.9, "delta": 0.1, "depth": 8}, "track": "u",
        "platform": {"device": "cuda", "device_name": "H100", "memory_gb": 80.0, "torch": "2.9"}, "commit": "abcdef01",
        "decision": {"status": "keep", "reason": "r", "champion": A, "probability": 0.9}, "tags": ["a", "b", "a"],
        "prior_knowledge_used": [A], "config_diff": {"DEPTH": [None, 8]}, "seed": 3,
    }  # fmt: skip
    add_card(knowledge, values)
    with Index(knowledge) as index:
        row = index.row("SELECT * FROM cards WHERE id = ?", B)
        assert set(row) == set(COLUMNS)
        expected = {
            "id": B, "timestamp": "2026-01-31T12:00:00.000Z", "status": "keep", "metric": "accuracy", "result": 0.9,
            "direction": "max", "delta": 0.1, "depth": 8, "track": "u", "device": "cuda", "device_name": "H100",
            "memory_gb": 80.0, "torch": "2.9", "commit_id": "abcdef01", "champion": A, "probability": 0.9, "seed": 3,
        }  # fmt: skip
        assert {name: row[name] for name in expected} == expected
        assert all(row[name] is None for name in ("val_bpb", "lesson", "quarantined", "error_kind", "confirmed"))
        tag = {"card": B, "track": "u", "standing": "keep", "direction": "max", "delta": 0.1, "result": 0.9}
        assert index.rows("SELECT * FROM tags WHERE card = ?", B) == [{"tag": "a"} | tag, {"tag": "b"} | tag]
        assert index.rows("SELECT * FROM links") == [{"card": B, "prior": A}]
        assert index.rows("SELECT * FROM changes") == [{"card": B, "name": "DEPTH", "old": "null", "new": "8"}]


def test_outlines_are_cards_with_what_pictures_need(knowledge):
    results = {"val_bpb": 0.9, "delta": -0.1}
    add_card(knowledge, KEPT | {"id": B, "track": "u", "results": results, "prior_knowledge_used": [A, "elsewhere"]})
    with Index(knowledge) as index:
        assert [card["id"] for card in index.outlines()] == [B, A]
        (card,) = index.outlines("u")
    assert (card["results"], card["prior_knowledge_used"], card["commit"]) == (results, [A, "elsewhere"], None)


def test_read_folds(knowledge):
    join(knowledge, load_cards(knowledge)[0], "annotate", {"lesson": "pays"})
    with Index(knowledge) as index:
        assert [index.read(A)] == load_cards(knowledge)


REBUILD_AND_READ = """
import sys
from pathlib import Path
from lab.index import Index
for number in range(50):
    with Index(Path(sys.argv[1]), anew=number % 2 == 0) as index:
        print(len(index.rows("SELECT id FROM cards")), len(index.rows("SELECT rowid FROM words")))
"""


def test_whoever_reads_while_it_is_made_anew_has_all_of_it(knowledge):
    (card,) = load_cards(knowledge)
    write_many(knowledge / "cards", ((f"{n:016x}.json", dump_json(card | {"id": f"{n:016x}"})) for n in range(19)))
    done = [process.communicate() for process in [python(REBUILD_AND_READ, knowledge) for _ in range(3)]]
    assert [set(output.splitlines()) for output, _ in done] == [{b"20 20"}] * 3
