"""Many real processes write, read and are killed at random points: what was acknowledged stays, and is readable."""

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest

from lab import index as index_module
from lab.cards import add_card, card_path, create_card, each_event, load_cards
from lab.doctor import examine, repair
from lab.index import FOLDERS, Index
from lab.library import load_index
from lab.notes import load_notes
from lab.setup import init
from lab.store import dump_json, record_names, write_many
from lab.sync import sync

ROOT = Path(__file__).parent.parent
WRITERS = 8
PATIENCE_SECONDS = 60  # for what comes of itself, such as an index that lists a folder again
KILLS_A_ROUND = 10
COUNTED = (("cards", "counts", "track, category, standing, direction"), ("tags", "tag_counts", "track, tag, standing"))
MAX_LINES_BEFORE_KILL, MAX_SECONDS_BEFORE_KILL = 10, 0.03

WRITE_CARDS = """
import sys
from pathlib import Path
from lab.cards import create_card
sys.stdin.readline()
for n in range(int(sys.argv[2])):
    results = {"val_bpb": 1.0 + n / 1000, "delta": n / 1000}
    print(create_card(Path(sys.argv[1]), "abcdef0", f"try {n}", {}, results, "revert", "no gain", ["mlp"])["id"])
"""

# Acknowledges on stdout, after the call returned: `cards ID...`, `event CARD NAME`, `notes ID`, `index`.
WRITE_EVERYTHING = """
import random, sys
from pathlib import Path
from lab.cards import add_card, join
from lab.index import Index
from lab.ledger import import_file
from lab.library import update_index
from lab.notes import add_note

knowledge, chance = Path(sys.argv[1]), random.Random(sys.argv[2])
table = knowledge.parent / f"{sys.argv[2]}.tsv"
known = []

def values():
    results = {"val_bpb": chance.random(), "delta": chance.gauss(0, 0.01)}
    return {"status": "keep", "results": results, "track": "t", "tags": ["mlp", "width"], "hypothesis": "wider MLP"}

def card():
    known.append(add_card(knowledge, values()))
    return "cards", known[-1]["id"]

def card_and_index():  # as `write-card` does it
    with Index(knowledge) as index:
        known.append(add_card(knowledge, values()))
        index.wrote("cards", known[-1]["id"])
    return "cards", known[-1]["id"]

def event():
    if not known:
        return card()
    about, name = chance.choice(known), f"extra_{chance.randrange(10**9)}"
    join(knowledge, about, "annotate", {"results": {name: 1.0}})
    return "event", about["id"], name

def note():
    evidence = [card["id"] for card in known[-2:]]
    return "notes", add_note(knowledge, "insight", "width pays", evidence=evidence)["id"]

def index():
    update_index(knowledge)
    return ("index",)

def ledger():
    rows = [f"baseline\\t{chance.random():.6f}\\t44.0\\tkeep\\ttry {chance.random()}" for _ in range(20)]
    table.write_text("\\n".join(["commit\\tval_bpb\\tmemory_gb\\tstatus\\tdescription", *rows]) + "\\n")
    return "cards", *import_file(knowledge, table).ids

print("ready", flush=True)
while True:
    print(*chance.choice([card, card, card_and_index, card_and_index, event, event, note, index, ledger])(), flush=True)
"""

REBUILD = """
import sys
from pathlib import Path
from lab.library import update_index
while True:
    update_index(Path(sys.argv[1]))
    print("index", flush=True)
"""


def python(code, *arguments):
    """Start Python on `code`; what goes wrong in it is among its lines."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def kill(process, chance):
    """Kill -9 after a random number of lines and a random time; the whole lines it has printed, split into words."""
    lines = [process.stdout.readline() for _ in range(chance.randrange(MAX_LINES_BEFORE_KILL))]
    time.sleep(chance.uniform(0, MAX_SECONDS_BEFORE_KILL))
    process.kill()
    lines += process.stdout.readlines()
    process.wait()
    process.stdin.close()
    return [line.split() for line in lines if line.endswith("\n")]


def assert_there(knowledge, acknowledged):
    """Everything is readable, and what was acknowledged is in it."""
    cards = {card["id"]: card for card in load_cards(knowledge)}
    notes = {note["id"] for note in load_notes(knowledge)}
    list(each_event(knowledge))
    for what, *names in acknowledged:
        if what == "cards":
            assert cards.keys() >= set(names)
        elif what == "event":
            assert cards[names[0]]["results"][names[1]] == 1.0
        elif what == "notes":
            assert names[0] in notes
        elif what == "index":
            assert {row["id"] for row in load_index(knowledge)["cards"]} <= cards.keys()
        else:
            assert (what, names) == ("ready", [])


def assert_index_is_right(knowledge):
    """The index has a row for every record and for nothing else, as soon as it has listed the folders again."""
    files = {folder: record_names(knowledge / folder) for folder in FOLDERS}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with Index(knowledge) as index:
            rows = {name: [row["id"] for row in index.rows(f"SELECT id FROM {name} ORDER BY id")] for name in FOLDERS}
            folded = {row["id"]: row["status"] for row in index.rows("SELECT id, status FROM cards")}
            counts = [
                (index.rows(f"SELECT {of}, runs FROM {counts} ORDER BY {of}"),
                 index.rows(f"SELECT {of}, count(*) AS runs FROM {table} GROUP BY {of} ORDER BY {of}"))
                for table, counts, of in COUNTED
            ]  # fmt: skip
            words = index.row("SELECT count(*) AS n FROM words")["n"]
        if rows == files or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert rows == files
    assert all(kept == counted for kept, counted in counts)
    assert words == len(files["cards"]) + len(files["notes"])
    assert folded == {card["id"]: card["status"] for card in load_cards(knowledge)}
    assert index_module.check(knowledge) is None


def assert_only_temporaries(knowledge):
    """The doctor finds nothing but what a killed writer cannot take away, and takes it away."""
    problems = examine(knowledge)
    assert {problem.kind for problem in problems} <= {"temporary"}
    repair(knowledge, problems)
    assert examine(knowledge) == []


@pytest.fixture
def soon(monkeypatch):
    """Checks need not wait 10 seconds for the index to list a folder again."""
    monkeypatch.setattr(index_module, "RELIST_SECONDS", 0.1)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_eight_processes_write_while_others_read(tmp_path, count):
    knowledge = tmp_path / "knowledge"
    knowledge.mkdir()
    writers = [python(WRITE_CARDS, knowledge, count) for _ in range(WRITERS)]

    def read(command):
        answers = []
        while not answers or any(writer.poll() is None for writer in writers):
            done = subprocess.run(
                [sys.executable, ROOT / "commons.py", command, "--knowledge-dir", knowledge], capture_output=True
            )
            answers.append((done.returncode, done.stderr))
        return set(answers)

    with ThreadPoolExecutor(WRITERS + 3) as pool:
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        readers = [pool.submit(read, command) for command in ("read-brief", "history", "update-index")]
        told = list(pool.map(lambda writer: writer.communicate()[0].split(), writers))
        assert [reader.result() for reader in readers] == [{(0, b"")}] * 3
    assert [len(ids) for ids in told] == [count] * WRITERS
    assert sorted(card["id"] for card in load_cards(knowledge)) == sorted(chain.from_iterable(told))
    assert_index_is_right(knowledge)
    assert examine(knowledge) == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [15, pytest.param(500, marks=pytest.mark.slow)])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path, soon, kills):
    def a_round(number):
        """Two writers at a time on one commons, each killed at a point of its own."""
        chance, knowledge = random.Random(number), tmp_path / str(number) / "knowledge"
        knowledge.mkdir(parents=True)
        acknowledged = []
        for step in range(KILLS_A_ROUND // 2):
            for writer in [python(WRITE_EVERYTHING, knowledge, f"{number}-{step}-{me}") for me in range(2)]:
                acknowledged += kill(writer, chance)
            assert_there(knowledge, acknowledged)
        assert_index_is_right(knowledge)
        assert_only_temporaries(knowledge)
        assert_there(knowledge, acknowledged)
        assert_index_is_right(knowledge)
        return len(acknowledged)

    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(a_round, range(kills // KILLS_A_ROUND)))
    assert min(told) > 0


def test_kill_9_while_the_index_is_made(tmp_path, soon):
    knowledge, chance = tmp_path / "knowledge", random.Random(0)
    card = create_card(knowledge, "abcdef0", "try", {}, {"val_bpb": 1.0}, "keep", None, ["mlp"])
    copies = (card | {"id": f"{number:016x}"} for number in range(150))
    write_many(knowledge / "cards", ((f"{copy['id']}.json", dump_json(copy)) for copy in copies))
    for _ in range(8):
        rebuilding = [python(REBUILD, knowledge) for _ in range(2)]
        rebuilding[0].stdout.readline()
        for process in rebuilding:
            time.sleep(chance.uniform(0, 0.15))
            process.kill()
            assert {line for line in process.stdout.readlines() if line.endswith("\n")} <= {"index\n"}
            process.wait()
            process.stdin.close()
        assert_index_is_right(knowledge)
    assert_only_temporaries(knowledge)


def test_a_card_written_beside_an_open_index_is_found(tmp_path, soon):
    with Index(tmp_path) as ours, Index(tmp_path):
        theirs = add_card(tmp_path, {"status": "crash"})  # by a process that is killed before it tells the index
        mine = add_card(tmp_path, {"status": "crash"})
        ours.wrote("cards", mine["id"])
    assert card_path(tmp_path, theirs["id"]).exists()
    assert_index_is_right(tmp_path)


def git(folder, *arguments):
    done = subprocess.run(["git", *map(str, arguments)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_two_clones_unite_while_writers_run(tmp_path, soon):
    git(tmp_path, "init", "-q", "--bare", "remote")
    clones = [tmp_path / "a", tmp_path / "b"]
    for clone in clones:
        git(tmp_path, "clone", "-q", tmp_path / "remote", clone)
        init(clone, clone / "knowledge")
    names = [(clone / "knowledge", f"{clone.name}-{me}") for clone in clones for me in range(2)]
    writers = [python(WRITE_EVERYTHING, *name) for name in names]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for _ in range(2):
        for clone in clones:
            sync(clone, clone / "knowledge")
    acknowledged = list(chain.from_iterable(kill(writer, random.Random(0)) for writer in writers))
    for clone in [*clones, clones[0]]:
        sync(clone, clone / "knowledge")
    a, b = (clone / "knowledge" for clone in clones)
    assert load_cards(a) == load_cards(b) and load_notes(a) == load_notes(b)
    for knowledge in (a, b):
        assert_only_temporaries(knowledge)
        assert_index_is_right(knowledge)
    sync(clones[0], a), sync(clones[1], b), sync(clones[0], a)  # a repair may have given a whole record its name
    assert load_cards(a) == load_cards(b) and load_notes(a) == load_notes(b)
    for knowledge in (a, b):
        assert_there(knowledge, [line for line in acknowledged if line[0] != "index"])
