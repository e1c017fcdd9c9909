"""What the doctor finds, what it does about it, and that nothing is lost whatever happens meanwhile."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.cards import add_card, join, load_cards
from lab.doctor import examine, repair
from lab.errors import StoreError
from lab.index import Index
from lab.leases import claim_next_experiment, complete_experiment
from lab.notes import add_note, load_notes
from lab.queue import add_to_queue, finished_items, load_queue
from lab.store import dump_json, read_json, replace

ROOT = Path(__file__).parent.parent
A, B, C = "a" * 16, "b" * 16, "c" * 16
KEPT = {"status": "keep", "results": {"val_bpb": 0.99}}
IDENTITY = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture
def knowledge(tmp_path):
    """A commons with a card."""
    add_card(tmp_path / "knowledge", KEPT | {"id": A})
    return tmp_path / "knowledge"


def git(folder, *arguments):
    """What git prints."""
    done = subprocess.run(["git", *arguments], cwd=folder, env=os.environ | IDENTITY, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def committed(knowledge):
    """The same in a git repository."""
    git(knowledge.parent, "init", "-q")
    git(knowledge.parent, "add", ".")
    git(knowledge.parent, "commit", "-qm", "cards")
    return knowledge


def files(knowledge):
    """{path: content} of every file below the commons."""
    return {
        path.relative_to(knowledge).as_posix(): path.read_bytes() for path in knowledge.rglob("*") if path.is_file()
    }


def dead_pid():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def found(knowledge):
    """(kind, path, action) of every problem."""
    return [(problem.kind, problem.path, problem.action) for problem in examine(knowledge)]


def repaired(knowledge):
    """What repairing says; afterwards nothing is left that could be repaired."""
    said = repair(knowledge, examine(knowledge))
    assert [problem for problem in examine(knowledge) if problem.action != "none"] == []
    assert repair(knowledge, examine(knowledge)) == []
    return said


def test_a_healthy_commons_has_no_problems(committed):
    card = add_card(committed, KEPT | {"prior_knowledge_used": [A[:7]]})
    join(committed, card, "annotate", {"lesson": "x"})
    question = add_note(committed, "question", "why?", evidence=[A])
    add_note(committed, "answer", "so", answers=question["id"])
    (committed / "cards" / ".gitkeep").touch()
    (committed / "queue.json").write_text('{"items": []}')
    with Index(committed):
        pass
    before = files(committed)
    assert examine(committed) == []
    after = files(committed)
    assert {name: after[name] for name in after if "sqlite-" not in name} == before  # SQLite's own, beside its file


def test_there_is_no_commons(tmp_path):
    with pytest.raises(StoreError) as raised:
        examine(tmp_path / "none")
    assert str(raised.value) == f"there is no commons in {tmp_path}/none; `commons.py init` makes one"
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as raised:
        examine(tmp_path / "file")
    assert str(raised.value) == f"cannot read {tmp_path}/file: Not a directory"


CARD = KEPT | {"id": B, "timestamp": "2026-01-31T12:00:00.000Z"}
DAMAGED = [
    (b'{"id"', "it is not JSON: Expecting ':' delimiter: line 1 column 6 (char 5)"),
    (b"", "it is not JSON: Expecting value: line 1 column 1 (char 0)"),
    (b"[1]", "it holds a list where an object belongs"),
    (b"[" * 100_000, None),
    (b"\xff\xfe\x00", None),
    (json.dumps(CARD | {"novelty": {"x": float("nan")}}).encode(),
     "it holds NaN or infinity, which JSON has not; an unknown value is null"),
    (json.dumps(CARD)[:-1].encode() + b', "x": [1e999]}',
     "it holds NaN or infinity, which JSON has not; an unknown value is null"),
    (json.dumps(CARD | {"status": "crash"}).encode(),
     "card field results.val_bpb: 0.99 is not allowed; a crash has no result, it must be null"),
    (json.dumps(CARD | {"id": A}).encode(), f"the record in it is {A}, and a record's file has its name"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "why"), DAMAGED)
def test_a_damaged_card_moves_to_quarantine(knowledge, content, why):
    path = knowledge / "cards" / f"{B}.json"
    path.write_bytes(content)
    (problem,) = examine(knowledge)
    aside = f"quarantine/cards/{B}.json"
    assert (problem.path, problem.action, problem.remedy) == (
        f"cards/{B}.json", "quarantine", f"--repair moves it to {aside}",
    )  # fmt: skip
    assert why in (problem.detail, None) and "\n" not in problem.detail
    assert repaired(knowledge) == [f"cards/{B}.json: moved to {aside}"]
    assert (knowledge / aside).read_bytes() == content
    assert [card["id"] for card in load_cards(knowledge)] == [A]


def test_a_second_damaged_file_of_a_name_keeps_the_first(knowledge):
    for content in (b"one", b"two", b"three"):
        (knowledge / "cards" / f"{B}.json").write_bytes(content)
        repaired(knowledge)
    kept = {name: content for name, content in files(knowledge).items() if name.startswith("quarantine")}
    aside = f"quarantine/cards/{B}.json"
    assert kept == {aside: b"one", f"{aside}.1": b"two", f"{aside}.2": b"three"}


@pytest.mark.parametrize("name", [f"{A} copy.json", f"{C}.json", "UPPER.json"])
def test_a_record_under_a_wrong_name_gets_its_own(knowledge, name):
    whole = dump_json(CARD)
    (knowledge / "cards" / name).write_bytes(whole)
    (problem,) = examine(knowledge)
    assert (problem.kind, problem.action, problem.remedy) == ("misnamed", "name", f"--repair names it cards/{B}.json")
    assert repaired(knowledge) == [f"cards/{name}: named cards/{B}.json"]
    assert sorted(files(knowledge)) == [f"cards/{A}.json", f"cards/{B}.json"]
    assert (knowledge / "cards" / f"{B}.json").read_bytes() == whole


def test_a_whole_record_in_a_temporary_gets_its_name(knowledge):
    card = (knowledge / "cards" / f"{A}.json").read_bytes()
    names = [f".{A}.json.{dead_pid()}.0123abcd.tmp", f".{B}.json.{dead_pid()}.0123abcd.tmp"]
    for name, content in zip(names, (card, dump_json(CARD)), strict=True):
        (knowledge / "cards" / name).write_bytes(content)
    assert found(knowledge) == [
        ("temporary", f"cards/{name}", action) for name, action in zip(names, ("quarantine", "name"), strict=True)
    ]
    assert repaired(knowledge) == [
        f"cards/{names[0]}: moved to quarantine/cards/{names[0]}", f"cards/{names[1]}: named cards/{B}.json",
    ]  # fmt: skip
    assert [card["id"] for card in load_cards(knowledge)] in ([A, B], [B, A])


@pytest.mark.parametrize("folder", ["", "cards", "events", "notes", "synthesis"])
def test_half_a_temporary_moves_to_quarantine(knowledge, folder):
    (knowledge / folder).mkdir(exist_ok=True)
    path = knowledge / folder / f".x.json.{dead_pid()}.0123abcd.tmp"
    path.write_text('{"id"')
    where = path.relative_to(knowledge)
    assert repaired(knowledge) == [f"{where}: moved to quarantine/{where}"]


def test_a_file_that_is_being_written_is_left_alone(knowledge):
    path = knowledge / "cards" / f".x.json.{os.getpid()}.0123abcd.tmp"
    path.write_text("{")
    assert examine(knowledge) == []
    os.utime(path, (time.time() - 3700,) * 2)
    assert found(knowledge) == [("temporary", f"cards/{path.name}", "quarantine")]
    beyond = knowledge / "cards" / f".x.json.{10**30}.0123abcd.tmp"
    path.rename(beyond)
    os.utime(beyond)
    assert found(knowledge) == [("temporary", f"cards/{beyond.name}", "quarantine")]


def test_what_does_not_belong(knowledge, tmp_path):
    (tmp_path / "secret").write_text("{}")
    (knowledge / "cards" / f"{B}.json").symlink_to(tmp_path / "secret")
    (knowledge / "cards" / "folder").mkdir()
    (knowledge / "cards" / f"{C}.json").mkdir()
    (knowledge / "cards" / "README.md").write_text("hello")
    os.mkfifo(knowledge / "cards" / "pipe.json")
    assert found(knowledge) == [
        ("stranger", "cards/README.md", "none"),
        ("link", f"cards/{B}.json", "quarantine"),
        ("misnamed", f"cards/{C}.json", "quarantine"),
        ("stranger", "cards/folder", "none"),
        ("misnamed", "cards/pipe.json", "quarantine"),
    ]
    repaired(knowledge)
    assert (knowledge / "quarantine" / "cards" / f"{B}.json").is_symlink()
    assert (tmp_path / "secret").read_text() == "{}"
    assert [card["id"] for card in load_cards(knowledge)] == [A]


def test_references_that_point_nowhere(knowledge):
    card = add_card(knowledge, CARD | {"prior_knowledge_used": [A, "fffffff", "aaa", "\x1b[2Jx"]})
    join(knowledge, card, "annotate", {"lesson": "x"})
    add_note(knowledge, "answer", "yes", answers=C, evidence=[B, "eeeeeeeeeeee"])
    (knowledge / "cards" / f"{B}.json").rename(knowledge.parent / "taken.json")
    about = [(problem.kind, problem.detail) for problem in examine(knowledge)]
    assert about == [
        ("event without card", f"it is about card {B}, which is not here"),
        ("answer without question", f"it answers note {C}, which is not here"),
        ("evidence points nowhere", f"its evidence has '{B}', which names no card here"),
        ("evidence points nowhere", "its evidence has 'eeeeeeeeeeee', which names no card here"),
    ]
    (knowledge.parent / "taken.json").rename(knowledge / "cards" / f"{B}.json")
    about = [problem.detail for problem in examine(knowledge) if problem.path.startswith("cards")]
    assert about == [
        f"its prior_knowledge_used has {text}, which names no card here"
        for text in (r"'\x1b[2Jx'", "'aaa'", "'fffffff'")
    ]
    assert {(problem.action, problem.remedy) for problem in examine(knowledge)} == {
        ("none", "`commons.py sync` brings it if another clone has it")
    }
    assert repair(knowledge, examine(knowledge)) == []


def test_a_changed_record_is_restored_from_git(committed):
    path = committed / "cards" / f"{A}.json"
    original = path.read_bytes()
    better = dump_json(read_json(path) | {"results": {"val_bpb": 0.5}})
    path.write_bytes(better)
    (problem,) = examine(committed)
    assert (problem.kind, problem.action) == ("changed", "restore")
    assert problem.detail == "it is not as it was written; git holds the original"
    assert problem.remedy == f"--repair restores it from git and keeps this one as quarantine/cards/{A}.json"
    assert repaired(committed) == [f"cards/{A}.json: restored; what was there is kept as quarantine/cards/{A}.json"]
    assert path.read_bytes() == original
    assert (committed / "quarantine" / "cards" / f"{A}.json").read_bytes() == better


def test_a_torn_or_missing_record_is_restored_from_git(committed):
    add_card(committed, CARD)
    git(committed, "add", ".")
    git(committed, "commit", "-qm", "another")
    before = files(committed)
    (committed / "cards" / f"{A}.json").write_text("{")
    (committed / "cards" / f"{B}.json").unlink()
    assert found(committed) == [("changed", f"cards/{A}.json", "restore"), ("missing", f"cards/{B}.json", "restore")]
    repaired(committed)
    assert {name: text for name, text in files(committed).items() if not name.startswith("quarantine")} == before


def test_the_knowledge_ref_is_believed_before_head(committed):
    git(committed, "update-ref", "refs/autoresearch/knowledge", "HEAD")
    path = committed / "cards" / f"{A}.json"
    original = path.read_bytes()
    path.write_bytes(dump_json(read_json(path) | {"results": {"val_bpb": 0.5}}))
    git(committed, "commit", "-qam", "a better number")
    assert found(committed) == [("changed", f"cards/{A}.json", "restore")]
    repaired(committed)
    assert path.read_bytes() == original


def test_records_of_the_knowledge_ref_come_back_after_a_reset(committed):
    add_card(committed, CARD)
    git(committed, "add", ".")
    git(committed, "commit", "-qm", "another")
    git(committed, "update-ref", "refs/autoresearch/knowledge", "HEAD")
    before = files(committed)
    git(committed, "reset", "-q", "--hard", "HEAD~1")
    assert files(committed) != before
    assert repaired(committed) == [f"cards/{B}.json: restored"]
    assert files(committed) == before


def test_a_bad_record_that_git_holds_stays_in_quarantine(committed):
    (committed / "cards" / f"{B}.json").write_text("{")
    git(committed, "add", ".")
    git(committed, "commit", "-qm", "bad")
    assert found(committed) == [("damaged", f"cards/{B}.json", "quarantine")]
    repaired(committed)
    assert examine(committed) == []


def test_a_bad_record_that_git_holds_may_be_mended(committed):
    (committed / "cards" / f"{B}.json").write_text("{")
    git(committed, "add", ".")
    git(committed, "commit", "-qm", "bad")
    (committed / "cards" / f"{B}.json").write_bytes(dump_json(CARD))
    assert examine(committed) == []


@pytest.mark.parametrize("left", [b"", b"no object"])
def test_what_git_itself_has_lost_is_no_witness(committed, left):
    blob = Path(git(committed, "rev-parse", f"HEAD:knowledge/cards/{A}.json"))
    thing = committed.parent / ".git" / "objects" / blob.name[:2] / blob.name[2:]
    thing.chmod(0o644)
    thing.write_bytes(left)
    (committed / "cards" / f"{A}.json").write_text("{")
    assert found(committed) == [("damaged", f"cards/{A}.json", "quarantine")]
    assert repaired(committed) == [f"cards/{A}.json: moved to quarantine/cards/{A}.json"]


def test_a_repository_with_long_hashes(knowledge):
    git(knowledge.parent, "init", "-q", "--object-format=sha256")
    git(knowledge.parent, "add", ".")
    git(knowledge.parent, "commit", "-qm", "cards")
    assert examine(knowledge) == []
    (knowledge / "cards" / f"{A}.json").write_text("{")
    assert found(knowledge) == [("changed", f"cards/{A}.json", "restore")]
    repaired(knowledge)


def test_a_queue_that_does_not_parse(knowledge):
    (knowledge / "queue.json").write_text('{"items": [')
    assert found(knowledge) == [("queue", "queue.json", "quarantine")]
    (knowledge / "queue.json.bak").write_text('{"items": []}')
    (problem,) = examine(knowledge)
    assert (problem.action, problem.remedy) == (
        "restore", "--repair restores queue.json.bak and keeps this one as quarantine/queue.json; nothing is lost",
    )  # fmt: skip
    assert problem.detail == "it is not JSON (Expecting value: line 1 column 12 (char 11))"
    assert repaired(knowledge) == ["queue.json: restored; what was there is kept as quarantine/queue.json"]
    assert (knowledge / "queue.json").read_text() == '{"items": []}'
    assert (knowledge / "quarantine" / "queue.json").read_text() == '{"items": ['


def test_a_queue_without_a_usable_copy_is_moved(knowledge):
    (knowledge / "queue.json").write_text("[]")
    (knowledge / "queue.json.bak").write_text("")
    (problem,) = examine(knowledge)
    assert problem.detail == "it holds a list where an object belongs; neither is queue.json.bak usable"
    assert repaired(knowledge) == ["queue.json: moved to quarantine/queue.json"]
    assert not (knowledge / "queue.json").exists()


ITEM = {"id": "one", "created": "2026-01-31T12:00:00.000Z", "status": "pending", "description": "wider"}
REFUSED_QUEUES = {
    "two items with one id": ({"items": [ITEM, ITEM]}, "items[0] and items[1] have one id, 'one'"),
    "a priority of its own": (
        {"items": [ITEM | {"priority": -1}]}, "items[0] has priority -1, it must be a whole number, 1 or more"
    ),
    "a category of its own": ({"items": [ITEM | {"category": "x\ny"}]}, "items[0] has category 'x\\ny', it"),
    "no items": ({"jobs": []}, "its items are no list of objects"),
    "a position that is none": ({"items": [], "through": "end"}, "its through is 'end'"),
}  # fmt: skip


def busy_queue(knowledge):
    """A queue with two open items and one that was completed, queue.json up to date; returns the open ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.queue.REWRITE_SECONDS_PER_BYTE", 0)
        items = add_to_queue(knowledge, [{"description": text} for text in ("wider", "deeper", "longer warmup")])
        taken = claim_next_experiment(knowledge, "ada")
        complete_experiment(knowledge, taken["id"], taken["lease"]["token"], card=A)
    return [item["id"] for item in items if item["id"] != taken["id"]]


def open_ids(knowledge):
    return [item["id"] for item in load_queue(knowledge)]


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("how", REFUSED_QUEUES)
def test_a_queue_that_is_refused_comes_back_whole(knowledge, how, copied):
    """From its copy, or without one from the history alone."""
    left, (content, detail) = busy_queue(knowledge), REFUSED_QUEUES[how]
    (knowledge / "queue.json").write_text(json.dumps(content))
    if not copied:
        (knowledge / "queue.json.bak").unlink()
    (problem,) = examine(knowledge)
    assert problem.detail.startswith(detail) and problem.action == ("restore" if copied else "quarantine")
    repaired(knowledge)
    assert open_ids(knowledge) == left
    assert [item["card"] for item in finished_items(knowledge)] == [A]
    assert json.loads((knowledge / "quarantine" / "queue.json").read_text()) == content


@pytest.mark.parametrize("name", ["queue.json", "queue-history.jsonl"])
def test_what_a_newer_version_wrote_is_left_alone(knowledge, name):
    busy_queue(knowledge)
    text = (knowledge / name).read_text()
    (knowledge / name).write_text(text.replace('"schema": ', '"schema": 9', 1))
    (problem,) = examine(knowledge)
    assert (problem.kind, problem.path, problem.action) == ("queue", name, "none")
    assert problem.remedy == "use a newer version"
    assert repaired(knowledge) == []


def test_a_queue_that_is_no_file_is_left_to_a_person(knowledge):
    (knowledge / "queue.json").mkdir()
    (problem,) = examine(knowledge)
    assert (problem.action, problem.remedy) == ("none", "make it a file that can be read")
    assert problem.detail == "cannot read it: Is a directory"


HISTORIES = {
    "a line that is no JSON": (lambda lines: [*lines[:2], b"{torn", *lines[2:]], "edited or cut"),
    "a line that is no change": (lambda lines: [*lines, b'{"items": [{}]}'], "is no change of the queue"),
    "bytes in the place of a line": (lambda lines: [*lines[:-1], b"\xff" * len(lines[-1])], "is no event"),
    "no beginning": (lambda lines: [b"no header", *lines[1:]], "it does not begin as a history does"),
    "cut": (lambda lines: lines[:2], "it was edited or cut"),
    "empty lines": (lambda lines: [lines[0], b"", b"", *lines[1:]], "edited or cut"),
    "emptied": (lambda lines: [], "it does not begin as a history does"),
}  # fmt: skip


@pytest.mark.parametrize("how", HISTORIES)
def test_a_damaged_history_keeps_its_sound_lines(knowledge, how):
    left = busy_queue(knowledge)
    damage, detail = HISTORIES[how]
    path = knowledge / "queue-history.jsonl"
    content = b"".join(line + b"\n" for line in damage(path.read_bytes().splitlines()))
    path.write_bytes(content)
    (problem,) = examine(knowledge)
    assert detail in problem.detail and "\n" not in problem.detail
    assert (problem.kind, problem.path, problem.action, problem.remedy) == (
        "queue", path.name, "rebuild", f"--repair keeps its sound lines, and the whole of it as quarantine/{path.name}",
    )  # fmt: skip
    (said,) = repaired(knowledge)
    assert said.endswith(f"; what was there is kept as quarantine/{path.name}")
    assert (knowledge / "quarantine" / path.name).read_bytes() == content
    assert set(left) <= set(open_ids(knowledge))
    (added,) = add_to_queue(knowledge, [{"description": "after all that"}])
    assert added["id"] in open_ids(knowledge)
    if how in ("a line that is no JSON", "a line that is no change"):
        assert open_ids(knowledge) == [*left, added["id"]]
        assert [item["card"] for item in finished_items(knowledge)] == [A]


def test_a_last_line_without_its_end_is_no_problem(knowledge):
    left = busy_queue(knowledge)
    with open(knowledge / "queue-history.jsonl", "ab") as file:
        file.write(b'{"at": "2026')
    assert examine(knowledge) == []
    assert open_ids(knowledge) == left


@pytest.mark.parametrize(
    "line", [b'{"items": [{"id": "a", "description": "x"}]}', b'{"items": [], "token": "x"}', b'{"items": [{"id": 5}]}']
)
def test_a_line_that_only_looks_like_a_change(knowledge, line):
    left = busy_queue(knowledge)
    with open(knowledge / "queue-history.jsonl", "ab") as file:
        file.write(line + b"\n")
    assert repaired(knowledge)[0].startswith("queue-history.jsonl: rebuilt from 3 sound lines; ")
    assert open_ids(knowledge) == left


@pytest.mark.parametrize("line", [b'{"x": 1}', b'{"items": [5]}', b'{"items": [{"id": ["a"], "status": "failed"}]}'])
def test_a_line_of_the_past_that_is_no_change(knowledge, line):
    left = busy_queue(knowledge)
    with open(knowledge / "queue-history.jsonl", "ab") as file:
        file.write(line + b"\n")
    queue = read_json(knowledge / "queue.json")
    replace(knowledge / "queue.json", queue | {"through": queue["through"] + len(line) + 1})
    (problem,) = examine(knowledge)
    assert problem.detail == "a line is no change of the queue"
    assert repaired(knowledge)[0].startswith("queue-history.jsonl: rebuilt from 3 sound lines; ")
    assert open_ids(knowledge) == left


def test_a_queue_that_stands_beyond_its_history(knowledge):
    left = busy_queue(knowledge)
    queue = read_json(knowledge / "queue.json")
    replace(knowledge / "queue.json", queue | {"through": 10**6, "items": load_queue(knowledge)})
    (problem,) = examine(knowledge)
    assert problem.detail == "no line starts at position 1000000: it was edited or cut"
    assert repaired(knowledge)[0].startswith("queue-history.jsonl: rebuilt from 3 sound lines; ")
    assert open_ids(knowledge) == left


def test_queue_and_history_damaged_at_once(knowledge):
    left = busy_queue(knowledge)
    (knowledge / "queue.json").write_text("{")
    with open(knowledge / "queue-history.jsonl", "ab") as file:
        file.write(b"no event\n")
    assert found(knowledge) == [("queue", "queue-history.jsonl", "rebuild"), ("queue", "queue.json", "restore")]
    assert len(repaired(knowledge)) == 2
    assert open_ids(knowledge) == left


def test_a_damaged_index_is_removed(knowledge):
    with Index(knowledge):
        pass
    (knowledge / "index.sqlite").write_bytes(b"no database" * 1000)
    assert found(knowledge) == [("index", "index.sqlite", "rebuild")]
    assert repaired(knowledge) == ["index.sqlite: removed; the next reader builds it again"]
    with Index(knowledge) as index:
        assert index.rows("SELECT id FROM cards") == [{"id": A}]


def test_a_name_with_control_characters_is_told_on_one_line(knowledge):
    (knowledge / "cards" / "x\n\x1b[2Jy.json").write_text("{")
    (problem,) = examine(knowledge)
    assert "\n" not in problem.remedy
    (said,) = repaired(knowledge)
    assert said == "cards/x [2Jy.json: moved to quarantine/cards/x [2Jy.json"


def test_a_folder_that_cannot_be_written_is_named(knowledge):
    (knowledge / "cards" / f"{B}.json").write_text("{")
    (knowledge / "quarantine").write_text("a file in the way")
    with pytest.raises(StoreError) as raised:
        repair(knowledge, examine(knowledge))
    assert str(raised.value).startswith(f"cannot repair {knowledge}/cards/{B}.json: ")
    assert str(raised.value).endswith("; free space there or make the folder writable")
    assert (knowledge / "cards" / f"{B}.json").read_text() == "{"


def test_what_was_repaired_meanwhile_is_left_alone(committed):
    (committed / "cards" / f"{B}.json").write_text("{")
    (committed / "cards" / f"{A}.json").write_text("{")
    (committed / "cards" / f".x.json.{dead_pid()}.0123abcd.tmp").write_bytes(dump_json(CARD | {"id": C}))
    problems = examine(committed)
    assert len(repair(committed, problems)) == 3
    after = files(committed)
    assert repair(committed, problems) == []
    assert files(committed) == after


REPAIR = """
import sys
from pathlib import Path
from lab.doctor import examine, repair
knowledge = Path(sys.argv[1])
problems = examine(knowledge)
print("ready", flush=True)
sys.stdin.readline()
repair(knowledge, problems)
"""


def start(knowledge):
    """A doctor that has examined and waits."""
    doctor = subprocess.Popen(
        [sys.executable, "-c", REPAIR, knowledge], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    doctor.stdout.readline()
    return doctor


def wreck(knowledge):
    """Forty records that are torn, gone or unnamed; what git holds of them, and every content that lies there now."""
    for number in range(30):
        add_card(knowledge, KEPT | {"id": f"{number:012x}"})
    git(knowledge, "add", ".")
    git(knowledge, "commit", "-qm", "more")
    originals, pid = files(knowledge), dead_pid()
    for number in range(10):
        (knowledge / "cards" / f"{number:012x}.json").write_text(f"torn {number}")
        (knowledge / "cards" / f"{number + 10:012x}.json").unlink()
        (knowledge / "cards" / f"{number:04x}{B}.json").write_text(f"bad {number}")
        card = dump_json(CARD | {"id": f"{number:04x}{C}"})
        (knowledge / "cards" / f".x{number}.json.{pid}.0123abcd.tmp").write_bytes(card)
    return originals, set(files(knowledge).values())


def test_two_doctors_at_once(committed):
    originals, contents = wreck(committed)
    doctors = [start(committed) for _ in range(3)]
    for doctor in doctors:
        doctor.stdin.write(b"go\n")
        doctor.stdin.flush()
    assert [doctor.wait(60) for doctor in doctors] == [0, 0, 0]
    assert examine(committed) == []
    after = files(committed)
    assert {name: after.get(name) for name in originals} == originals
    assert contents <= set(after.values())


@pytest.mark.parametrize("after_seconds", [0.0, 0.002, 0.005, 0.01, 0.02, 0.05])
def test_a_doctor_that_is_killed_loses_nothing(committed, after_seconds):
    originals, contents = wreck(committed)
    doctor = start(committed)
    doctor.stdin.write(b"go\n")
    doctor.stdin.flush()
    time.sleep(after_seconds)
    doctor.kill()
    doctor.wait()
    assert contents <= set(files(committed).values())
    repaired(committed)
    after = files(committed)
    assert {name: after.get(name) for name in originals} == originals
    assert contents <= set(after.values())


BYTES = st.binary(max_size=40) | st.sampled_from([b"{}", b"null", b'{"id": "aaaaaaaaaaaa"}', dump_json(CARD)])
NAMES = st.sampled_from([f"{A}.json", f"{B}.json", "x.json", f".{B}.json.{10**9}.0123abcd.tmp", ".hidden", "y"])


@settings(max_examples=60)
@given(st.dictionaries(st.tuples(st.sampled_from(["cards", "events", "notes"]), NAMES), BYTES, max_size=5))
def test_whatever_lies_there_can_be_repaired_and_nothing_is_lost(tmp_path_factory, mess):
    knowledge = tmp_path_factory.mktemp("mess") / "knowledge"
    for (folder, name), content in mess.items():
        (knowledge / folder).mkdir(parents=True, exist_ok=True)
        (knowledge / folder / name).write_bytes(content)
    knowledge.mkdir(exist_ok=True)
    assert examine(knowledge) == examine(knowledge)
    repaired(knowledge)
    assert set(mess.values()) <= set(files(knowledge).values())
    load_cards(knowledge), load_notes(knowledge)
