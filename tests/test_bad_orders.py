"""Bad input to director.py and worker.py: each command answers with one line and exit code 2, and changes nothing."""

import json
import shutil
import subprocess

import pytest
from doors import contents, on_a_full_disk, refused, without_rights
from fake_project import FakeProject

import director
import worker
from lab import cli
from lab.cards import add_card
from lab.leases import cancel, claim_next_experiment
from lab.queue import add_to_queue, finished_items, load_queue

DOORS = {"director.py": director.COMMANDS, "worker.py": worker.COMMANDS}
LEASE = ("CLAIMED", "--lease", "1")
# The least that every command takes, for the project of the fixture and the items of its queue.
LEAST = {
    "director.py": {
        "strategy": (), "suggest": (), "plan": (), "run": ("--plan-only",), "add": ("a longer warmup",), "list": (),
        "status": (), "claim": (), "heartbeat": LEASE, "complete": LEASE, "fail": (*LEASE, "--reason", "r"),
        "release": LEASE, "cancel": ("WAITING",), "requeue": ("ENDED",), "prune": ("--days", "1e-9"),
    },
    "worker.py": {"run": (), "work": ("--once",), "devices": (), "sentinel": ("--dry-run",)},
}  # fmt: skip
ALL = [(door, command) for door, commands in LEAST.items() for command in commands]
READ_CARDS = ("strategy", "suggest", "plan", "run", "add", "sentinel")
CHANGE_QUEUE = ("add", "claim", "heartbeat", "complete", "fail", "release", "cancel", "requeue", "prune")
READ_QUEUE = (*CHANGE_QUEUE, "list", "status", "plan", "run", "work")


def only(*names):
    """The tests of a command, for those of these names; of two doors' `run` that of the director reads the queue."""
    pairs = [pair for pair in ALL if pair[1] in names and (pair != ("worker.py", "run") or names == READ_CARDS)]
    return pytest.mark.parametrize(("door", "command"), pairs)


every = pytest.mark.parametrize(("door", "command"), ALL)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A project with a champion, and a queue in which an item has ended, one is claimed and one waits."""
    folder = tmp_path_factory.mktemp("built")
    folder.chmod(0o755)
    project = FakeProject(folder / "project")
    commit = project.git("rev-parse", "HEAD").strip()
    about = {"track": "t", "commit": commit, "status": "keep", "hypothesis": "baseline", "seed": 42}
    add_card(project.knowledge, about | {"id": "a" * 16, "results": {"val_bpb": 1.0}})
    ideas = ("an idea that is dropped", "an idea that is run", "an idea that waits")
    ended = add_to_queue(project.knowledge, [{"description": text} for text in ideas])[0]
    cancel(project.knowledge, ended["id"])
    claim_next_experiment(project.knowledge, "ada")
    return project.folder


@pytest.fixture
def home(built, tmp_path, monkeypatch):
    """A copy of it, to be spoilt."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    home = tmp_path / "project"
    shutil.copytree(built, home)
    monkeypatch.setenv("KNOWLEDGE_DIR", str(home / "knowledge"))
    monkeypatch.setenv("AUTORESEARCH_RUNS_DIR", str(home / "runs"))
    monkeypatch.setenv("AUTORESEARCH_AGENT", "ada")
    monkeypatch.setenv("AUTORESEARCH_SLOTS", str(tmp_path / "slots"))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "toy.log"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def run(home, capfd):
    """Run a command of a door; returns (exit code, stdout, stderr)."""

    def command(door, *given):
        capfd.readouterr()
        try:
            code = cli.main(door, "", DOORS[door], [str(word) for word in given])
        except SystemExit as end:
            code = end.code
        return code, *capfd.readouterr()

    return command


def least(door, command, home):
    """The command with the least it takes."""
    knowledge = home / "knowledge"
    ids = {"pending": "WAITING", "claimed": "CLAIMED", "cancelled": "ENDED"}
    items = {ids[item["status"]]: item["id"] for item in (*load_queue(knowledge), *finished_items(knowledge))}
    return [command, *(items.get(word, word) for word in LEAST[door][command])]


def test_every_command_is_in_the_table():
    assert {door: set(commands) for door, commands in LEAST.items()} == {
        door: set(commands) for door, commands in DOORS.items()
    }


@every
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_with_the_least_it_takes_a_command_works(run, home, door, command, form):
    code, output, errors = run(door, *least(door, command, home), *form)
    assert (code, errors) == (0, "") and output.endswith("\n")
    if form:
        json.loads(output)


@every
def test_a_folder_that_is_not_there_is_not_made(run, home, door, command):
    before, missing = contents(home), home / "slip"
    line = f"error: no folder {missing}; `commons.py init --knowledge-dir {missing}` makes a commons there\n"
    assert run(door, *least(door, command, home), "--knowledge-dir", missing) == (2, "", line)
    assert contents(home) == before


@every
def test_a_file_is_no_folder(run, home, door, command):
    before, file = contents(home), home / "train.py"
    line = f"error: {file} is not a folder; --knowledge-dir or KNOWLEDGE_DIR must name one\n"
    assert run(door, *least(door, command, home), "--knowledge-dir", file) == (2, "", line)
    assert contents(home) == before


@every
def test_options_that_there_are_not(run, home, door, command):
    before = contents(home)
    for option in ("--jso", "--frobnicate", "-x"):
        refused(run(door, *least(door, command, home), option), f"unrecognized arguments: {option}", "--help`)")
    assert contents(home) == before


@only(*READ_CARDS)
def test_a_torn_card_stops_every_command_that_reads_cards(run, home, door, command):
    torn = home / "knowledge" / "cards" / f"{'d' * 16}.json"
    torn.write_bytes(b"")
    before = contents(home)
    refused(run(door, *least(door, command, home)), f"{torn} is not JSON", "; `commons.py doctor` sets it right")
    assert contents(home) == before


DAMAGED = {
    "queue.json": ('{"items": [{"id"', "is not JSON", "; mend it, or copy queue.json.bak over it"),
    "queue-history.jsonl": ("x\n", "it does not begin as a history does", "; mend it, or move it away"),
}


@only(*READ_QUEUE)
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_queue_stops_every_command_that_reads_it(run, home, door, command, name):
    words = least(door, command, home)
    content, *said = DAMAGED[name]
    (home / "knowledge" / name).write_text(content)
    before = contents(home)
    refused(run(door, *words), f"{home}/knowledge/{name}", *said)
    assert contents(home) == before


@only(*CHANGE_QUEUE)
def test_a_full_disk_keeps_everything_as_it_was(home, door, command):
    before = contents(home)
    refused(on_a_full_disk(home, door, least(door, command, home)), "error: cannot write ", "; free space there")
    assert contents(home) == before


def test_a_full_disk_keeps_a_pin_from_being_written(home):
    before = contents(home)
    refused(on_a_full_disk(home, "director.py", ("strategy", "--set", "explore")), "error: cannot ")
    assert contents(home).keys() - before.keys() <= {"knowledge/strategy.json.lock"}


@every
def test_a_folder_that_must_not_be_read(home, door, command):
    words, knowledge, before = least(door, command, home), home / "knowledge", contents(home)
    knowledge.chmod(0)
    try:
        answer = without_rights(home, door, words)
    finally:
        knowledge.chmod(0o755)
    refused(answer, f"cannot read {knowledge}: Permission denied; make it readable, or name another --knowledge-dir")
    assert contents(home) == before


@every
def test_a_folder_that_must_not_be_written(home, door, command):
    """A reader answers; a writer is refused."""
    words, before = least(door, command, home), contents(home)
    paths = [home / "knowledge", *(home / "knowledge").rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        answer = without_rights(home, door, words)
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)
    if command in (*CHANGE_QUEUE, "work") or (door, command) == ("worker.py", "run"):
        refused(answer, "error: cannot ")
    else:
        assert (answer[0], answer[2]) == (0, "")
    assert contents(home) == before


BAD = [
    ("director.py", "strategy --set try", "argument --set: invalid choice: 'try'"),
    ("director.py", "strategy --set explore --reset", "--set and --reset exclude each other; give one of them"),
    ("director.py", "strategy --track no", "--track 'no' is none of the tracks: t"),
    ("director.py", "suggest --n 0", "argument --n: '0' is not a whole number from 1 to 999999999"),
    ("director.py", "suggest --mode try", "argument --mode: invalid choice: 'try'"),
    ("director.py", "suggest --track no", "--track 'no' is none of the tracks: t"),
    ("director.py", "plan --n many", "argument --n: 'many' is not a whole number"),
    ("director.py", "plan --track no", "--track 'no' is none of the tracks: t"),
    ("director.py", "run --plan-only --track no", "--track 'no' is none of the tracks: t"),
    ("director.py", "run --hours 0", "argument --hours: '0' is not a number above 0"),
    ("director.py", "run --workers two", "argument --workers: 'two' is not a whole number"),
    ("director.py", "plam", "no command 'plam'; the commands are strategy, suggest, plan, run, add, list, "),
    ("worker.py", "work --idle-exit -1", "argument --idle-exit: '-1' is not a number of seconds, 0 or more"),
    ("worker.py", "work --idle-exit nan", "argument --idle-exit: 'nan' is not a number of seconds, 0 or more"),
    ("worker.py", "work --once --session a..b", "a..b"),
    ("worker.py", "sentinel --every -1", "argument --every: '-1' is not a whole number from 0 to 999999999"),
    ("worker.py", "work --gpus 1", "--gpus is for a cluster; add --engine ray"),
    ("worker.py", "run --timeout 0", "argument --timeout: '0' is not a number above 0"),
    ("worker.py", "run --category x", "argument --category: invalid choice: 'x'"),
    ("worker.py", "run --session a..b", "a..b"),
    ("worker.py", "sleep", "no command 'sleep'; the commands are run, work, devices, sentinel"),
]


@pytest.mark.parametrize(("door", "line", "words"), BAD)
def test_options_that_cannot_be_used(run, home, door, line, words):
    before = contents(home)
    refused(run(door, *line.split()), words)
    assert contents(home) == before


TEXTS = [
    ("director.py", "strategy --track X"), ("director.py", "suggest --track X"), ("director.py", "plan --track X"),
    ("director.py", "run --agent X"), ("director.py", "run --session X"), ("worker.py", "work --once --agent X"),
    ("worker.py", "work --once --session X"), ("worker.py", "work --once --owner X"),
    ("worker.py", "sentinel --track X"), ("worker.py", "run -m X"), ("worker.py", "run --tags X"),
]  # fmt: skip


@pytest.mark.parametrize(("door", "line"), TEXTS)
def test_bytes_that_are_no_text(run, home, door, line):
    before = contents(home)
    refused(run(door, *("wi\udcffder" if word == "X" else word for word in line.split())), "it is not UTF-8")
    assert contents(home) == before


def test_a_project_with_no_commons_is_empty(run, home):
    """What only looks says so, and makes no folder."""
    shutil.rmtree(home / "knowledge")
    (home / "knowledge").mkdir()
    assert run("director.py", "list") == (0, "nothing in the queue\n", "")
    code, output, errors = run("director.py", "plan")
    assert (code, errors) == (0, "") and output.startswith("Mode explore; the strategy says explore: ")
    assert not list((home / "knowledge").glob("queue*"))
    assert subprocess.run(["git", "status", "--porcelain"], cwd=home, capture_output=True).stdout == b""
