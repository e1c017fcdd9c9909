"""The commands of the queue: every option, exact output, and that a refusal is one line and changes nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import director
from lab import cli
from lab.brief import DATA_NOTE
from lab.cards import add_card
from lab.cli_queue import LINE, TITLE
from lab.leases import claim_next_experiment
from lab.queue import add_to_queue, finished_items, load_queue
from lab.schema import CATEGORIES

ROOT = Path(__file__).parent.parent
CARD = "c0ffee" + "0" * 10
FILES = ("queue.json", "queue.json.bak", "queue-history.jsonl")


@pytest.fixture
def knowledge(tmp_path, monkeypatch):
    """A commons with a card, for whom is called ada."""
    knowledge = tmp_path / "knowledge"
    about = {"track": "t", "commit": "abcdef01", "hypothesis": "baseline", "config": {"DEPTH": 8}}
    add_card(knowledge, about | {"id": CARD, "status": "keep", "results": {"val_bpb": 1.0}})
    monkeypatch.setenv("KNOWLEDGE_DIR", str(knowledge))
    monkeypatch.setenv("AUTORESEARCH_AGENT", "ada")
    monkeypatch.delenv("AUTORESEARCH_TIME_BUDGET", raising=False)
    monkeypatch.chdir(tmp_path)
    return knowledge


@pytest.fixture
def run(knowledge, capfd):
    """Run a command; returns (exit code, stdout, stderr)."""

    def command(*given):
        capfd.readouterr()
        try:
            code = cli.main("director.py", "", director.COMMANDS, [str(word) for word in given])
        except SystemExit as end:
            code = end.code
        return code, *capfd.readouterr()

    return command


@pytest.fixture
def told(run):
    """Run a command that succeeds; returns what it prints."""

    def command(*given):
        code, output, errors = run(*given)
        assert (code, errors) == (0, "")
        return json.loads(output) if "--json" in given else output

    return command


def add(knowledge, *descriptions, **more):
    return [item["id"] for item in add_to_queue(knowledge, [{"description": text} | more for text in descriptions])]


def contents(knowledge):
    """The bytes of everything that tells of the queue."""
    return {name: (knowledge / name).read_bytes() for name in FILES if (knowledge / name).exists()}


def write_queue(knowledge, *items):
    """A queue.json that a person wrote."""
    whole = {"created": "2026-01-31T12:00:00.000Z", "status": "pending", "description": "wider"}
    (knowledge / "queue.json").write_text(json.dumps({"items": [whole | item for item in items]}))


def test_add(told, knowledge):
    (first,) = add(knowledge, "a first idea")
    given = (
        "add", "a deeper net", "--category", "architecture", "--mode", "exploit", "--priority", "2", "--set",
        "DEPTH=12", "--set", "WINDOW=SL", "--cards", "c0ffee", "--seed", "0", "--device", "cuda", "--min-memory-gb",
        "24", "--labels", "big, fast", "--depends-on", first, "--max-attempts", "5", "--why", "depth helps",
        "--track", "t", "--owner", "grace", "--json",
    )  # fmt: skip
    item = told(*given)
    assert item == load_queue(knowledge)[1]
    assert {name: value for name, value in item.items() if name not in ("id", "created")} == {
        "status": "pending", "description": "a deeper net", "mode": "exploit", "priority": 2,
        "category": "architecture", "track": "t", "changes": {"DEPTH": 12, "WINDOW": "SL"}, "cards": [CARD],
        "replicates": None, "seed": 0, "commit": None, "why": "depth helps",
        "requires": {"device": "cuda", "min_memory_gb": 24.0, "labels": ["big", "fast"]}, "depends_on": [first],
        "max_attempts": 5, "attempts": 0, "lease": None, "run": None, "reason": None,
        "patch": None,
    }  # fmt: skip
    history = (knowledge / "queue-history.jsonl").read_text().splitlines()
    assert json.loads(history[-1])["owner"] == "grace"


def test_add_in_short(told, knowledge):
    assert re.fullmatch(r"added [0-9a-f]{16} \(priority 5\)\n", told("add", "longer warmup"))
    (item,) = load_queue(knowledge)
    assert (item["mode"], item["track"], item["requires"], item["changes"]) == ("explore", "t", None, None)
    assert json.loads((knowledge / "queue-history.jsonl").read_text().splitlines()[-1])["owner"] == "ada"


def test_add_a_card_again(told):
    item = told("add", "again", "--replicate", "is it true?", "--of", "c0ffee", "--seed", "43", "--json")
    assert (item["mode"], item["replicates"], item["commit"], item["seed"]) == ("replicate", CARD, "abcdef01", 43)
    assert item["why"] == "is it true?"


def test_list(told, knowledge):
    assert told("list") == "nothing in the queue\n" and told("list", "--json") == []
    wide, deep = add(knowledge, "wider", "deeper", category="architecture")
    (last,) = add(knowledge, "after both", priority=1, depends_on=[wide, deep])
    claim_next_experiment(knowledge, "grace", seconds=3600)
    rows = [
        f"{wide} claimed    5  explore, architecture, lease 1 60 min left | wider | grace",
        f"{last} pending    1  explore, waits for {wide[:8]} and 1 more | after both",
        f"{deep} pending    5  explore, architecture | deeper",
    ]
    assert told("list").splitlines() == [TITLE, *rows, DATA_NOTE]
    assert told("list", "--status", "claimed").splitlines() == [TITLE, rows[0], DATA_NOTE]
    more = "2 more items: `director.py list --limit 3` shows all"
    assert told("list", "--limit", "1").splitlines() == [TITLE, rows[0], DATA_NOTE, more]
    assert [item["id"] for item in told("list", "--json")] == [wide, last, deep]
    assert told("list", "--status", "failed") == "no such item\n"
    told("complete", wide, "--lease", "1", "--card", "c0ffee")
    told("cancel", deep, "--reason", "no depth left")
    ended = [
        f"{deep} cancelled  5  explore, architecture | deeper | no depth left",
        f"{wide} completed  5  explore, architecture, card c0ffee00 | wider | grace",
    ]
    assert told("list", "--all").splitlines()[2:-1] == ended
    assert told("list", "--status", "completed").splitlines() == [TITLE, ended[1], DATA_NOTE]


def test_status(told, knowledge):
    counts = "{} pending, {} claimed, 0 completed, 0 failed, 0 cancelled"
    assert told("status").splitlines() == [counts.format(0, 0), "nothing to be claimed"]
    wide, deep = add(knowledge, "wider", "deeper")
    row = f"{wide} pending    5  explore | wider"
    assert told("status").splitlines() == [counts.format(2, 0), TITLE, row, DATA_NOTE, f"next is {wide}"]
    told("cancel", deep)
    add(knowledge, "last", depends_on=[wide])
    claim_next_experiment(knowledge, "grace", seconds=3600)
    lines = told("status").splitlines()
    assert lines[2] == f"{wide} claimed    5  explore, lease 1 60 min left | wider | grace"
    assert lines[-1] == "nothing to be claimed: what is pending waits for others"
    found = told("status", "--json")
    assert (found["counts"]["pending"], [item["id"] for item in found["claimed"]], found["next"]) == (1, [wide], None)


def test_a_lease_that_is_over_is_told(told, knowledge):
    (name,) = add(knowledge, "wider")
    claim_next_experiment(knowledge, "grace", pid=dead_pid())
    lines = told("status").splitlines()
    assert lines[2] == f"{name} claimed    5  explore, lease 1 over | wider | grace"
    assert lines[-2:] == ["1 lease is over: the next claim takes that back", "nothing to be claimed"]
    assert told("claim").startswith(f"claimed {name}, lease 2 until ")


def dead_pid():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_claim(told, knowledge):
    assert told("claim") == "nothing to be claimed\n" and told("claim", "--json") is None
    given = {
        "category": "architecture", "changes": {"DEPTH": 12}, "seed": 0, "commit": "abcdef01", "cards": [CARD],
        "why": "depth helps", "track": "t", "replicates": CARD,
    }  # fmt: skip
    (name,) = add(knowledge, "a deeper net", **given)
    lines = told("claim").splitlines()
    head = rf"claimed {name}, lease 1 until 2\d{{3}}-\S+Z, attempt 1 of 3, mode replicate"
    assert re.fullmatch(head, lines[0])
    assert lines[1:] == [
        "  idea      | a deeper net",
        "  category  | architecture",
        "  track     | t",
        '  changes   | {"DEPTH": 12}',
        f"  repeats   | card {CARD}",
        "  commit    | abcdef01",
        "  seed      | 0",
        f"  rests on  | {CARD}",
        "  why       | depth helps",
        DATA_NOTE,
        f"then: director.py complete {name} --lease 1 --card CARD",
        f"  or: director.py fail {name} --lease 1 --reason WHY",
    ]


@pytest.mark.parametrize(
    ("item", "offered", "had"),
    [
        ({"category": "attention"}, ("--category", "optimizer"), False),
        ({"category": "attention"}, ("--category", "attention"), True),
        ({"requires": {"device": "cuda"}}, (), False),
        ({"requires": {"device": "cuda"}}, ("--device", "cuda"), True),
        ({"requires": {"min_memory_gb": 24}}, ("--memory-gb", "23.5"), False),
        ({"requires": {"min_memory_gb": 24}}, ("--memory-gb", "80"), True),
        ({"requires": {"labels": ["a", "b"]}}, ("--labels", "a"), False),
        ({"requires": {"labels": ["a", "b"]}}, ("--labels", "b, a, c"), True),
    ],
)
def test_claim_what_the_machine_can_do(told, knowledge, item, offered, had):
    add(knowledge, "wider", **item)
    assert (told("claim", *offered, "--json") is not None) == had


@pytest.mark.parametrize("who", ["--owner", "environment", "nobody"])
def test_who_claims(told, knowledge, monkeypatch, who):
    add(knowledge, "wider")
    if who == "nobody":
        monkeypatch.delenv("AUTORESEARCH_AGENT")
    item = told("claim", *(("--owner", "grace") if who == "--owner" else ()), "--json")
    owner = item["lease"]["owner"]
    assert owner == {"--owner": "grace", "environment": "ada"}.get(who, owner) and owner
    assert "@" in owner or who != "nobody"


def test_a_lease_and_what_becomes_of_it(told, knowledge):
    (name,) = add(knowledge, "wider")
    short = name[:6]
    told("claim", "--seconds", "60")
    output = told("heartbeat", short, "--lease", "1", "--seconds", "7200", "--owner", "ada")
    deadline = load_queue(knowledge)[0]["lease"]["deadline"]
    assert output == f"lease 1 of {name} lasts until {deadline}\n"
    assert told("fail", short, "--lease", "1", "--reason", "no GPU") == (
        f"{name}: attempt 1 of 3, it waits in the queue again\n"
    )
    assert told("list").splitlines()[1] == f"{name} pending    5  explore | wider | no GPU"
    assert "  last time | no GPU" in told("claim")
    assert told("release", short, "--lease", "2") == f"released {name}: it waits in the queue again\n"
    assert load_queue(knowledge)[0]["attempts"] == 1
    told("claim")
    assert told("fail", short, "--lease", "3", "--reason", "never", "--final") == (
        f"{name}: attempt 2 of 3, it has failed\n"
    )
    assert told("requeue", short) == f"requeued {name} (priority 5)\n"
    told("claim")
    assert told("complete", short, "--lease", "4") == f"completed {name}\n"
    assert told("requeue", short, "--json")["status"] == "pending"
    told("claim")
    assert told("complete", short, "--lease", "5", "--card", "c0ffee") == f"completed {name} with card {CARD}\n"
    told("requeue", short)
    assert told("cancel", short) == f"cancelled {name}\n"
    assert told("prune", "--days", "1") == "dropped 0 items from the history\n"
    assert told("prune", "--days", "1e-9") == "dropped 1 item from the history\n"
    assert told("prune", "--json") == {"dropped": 0}
    assert finished_items(knowledge) == []


# What is refused: the line, and nothing changes.

HELD = ("heartbeat {} --lease 1", "complete {} --lease 1", "fail {} --lease 1 --reason r", "release {} --lease 1")
NAMING = (*HELD, "cancel {}", "requeue {}")


@pytest.fixture
def refused(run, knowledge):
    """Run a command that is refused with a line and leaves everything as it was; returns the line."""

    def command(*given):
        before = contents(knowledge)
        code, output, errors = run(*given)
        assert (code, output, contents(knowledge)) == (2, "", before)
        assert errors.startswith("error: ") and errors.endswith("\n") and errors[:-1].isprintable()
        return errors[7:-1]

    return command


@pytest.mark.parametrize("line", NAMING)
@pytest.mark.parametrize("name", ["f" * 16, "../queue", "", "%", "é\n", "x" * 3000])
def test_an_unknown_id(refused, knowledge, line, name):
    add(knowledge, "wider", "deeper")
    claim_next_experiment(knowledge, "ada")
    said = refused(*(name if word == "{}" else word for word in line.split()))
    assert said == f"no item {name!r} in the queue; `director.py list` lists them"


@pytest.mark.parametrize("line", NAMING)
def test_an_id_that_several_have(refused, knowledge, line):
    write_queue(knowledge, {"id": "one-a"}, {"id": "one-b"})
    said = refused(*line.format("one").split())
    assert said == "'one' names 2 items; give more of the id, such as one-a"


@pytest.mark.parametrize("line", HELD)
def test_a_lease_that_is_over(refused, knowledge, line):
    (name,) = add(knowledge, "wider")
    given = line.format(name).split()
    waits = f"lease 1 of item {name} is over: it waits in the queue again; claim it again"
    assert refused(*given) == waits
    claim_next_experiment(knowledge, "ada", pid=dead_pid())
    assert refused(*given).startswith(f"lease 1 of item {name} ran out at 2")
    claim_next_experiment(knowledge, "grace")
    assert refused(*given) == f"lease 1 of item {name} is over: grace holds lease 2 now; leave it"
    cli.main("director.py", "", director.COMMANDS, ["cancel", name])
    assert refused(*given) == f"lease 1 of item {name} is over: it is cancelled already; leave it"


@pytest.mark.parametrize("line", HELD)
def test_an_owner_who_is_not_the_holder(refused, knowledge, line):
    (name,) = add(knowledge, "wider")
    claim_next_experiment(knowledge, "ada")
    said = refused(*line.format(name).split(), "--owner", "grace")
    assert said == f"item {name} is held by ada, not by grace; only its holder may do this"


@pytest.mark.parametrize("name", ["cancel", "requeue"])
def test_what_has_ended_and_what_has_not(refused, told, knowledge, name):
    (item,) = add(knowledge, "wider")
    if name == "requeue":
        assert refused(name, item) == f"item {item} is pending, not ended; only what has ended can be requeued"
    else:
        told("cancel", item)
        assert refused(name, item) == f"item {item} is cancelled already; `director.py requeue` runs it again"


MENDED = "; mend it, or copy queue.json.bak over it: with the history nothing is lost"
ITEM = {"id": "one", "created": "2026-01-31T12:00:00.000Z", "status": "pending", "description": "wider"}
QUEUES = {
    "torn": ('{"items": [{"id"', " is not JSON (Expecting ':' delimiter: line 1 column 17 (char 16))" + MENDED),
    "a newer schema": ('{"schema": 99, "items": []}', " has schema 99, this version reads 2; use a newer version"),
    "two items with one id": (
        json.dumps({"items": [ITEM, ITEM]}), ": items[0] and items[1] have one id, 'one'" + MENDED
    ),
    "a negative priority": (
        json.dumps({"items": [ITEM | {"priority": -1}]}),
        ": items[0] has priority -1, it must be a whole number, 1 or more" + MENDED,
    ),
    "an unknown category": (
        json.dumps({"items": [ITEM | {"category": "x\n| then: y"}]}),
        f": items[0] has category 'x\\n| then: y', it must be one of {', '.join(CATEGORIES)}" + MENDED,
    ),
}  # fmt: skip
EVERY = ("add wider", "list", "list --all", "status", "claim", *(line.format("one") for line in NAMING), "prune")


@pytest.mark.parametrize("line", EVERY)
@pytest.mark.parametrize("which", QUEUES)
def test_a_queue_that_cannot_be_used(refused, knowledge, line, which):
    content, words = QUEUES[which]
    add(knowledge, "deeper")
    (knowledge / "queue.json").write_text(content)
    assert refused(*line.split()) == f"{knowledge}/queue.json{words}"


CATEGORY_CHOICES = ", ".join(f"'{name}'" for name in CATEGORIES)
OPTIONS = [
    ("add wider --priority -1", "argument --priority: '-1' is not a whole number from 1 to 999999999"),
    ("add wider --priority 0", "argument --priority: '0' is not a whole number"),
    ("add wider --category fast", f"argument --category: invalid choice: 'fast' (choose from {CATEGORY_CHOICES})"),
    ("add wider --mode try", "argument --mode: invalid choice: 'try'"),
    ("add wider --seed -1", "argument --seed: '-1' is not a whole number from 0 to 999999999"),
    ("add wider --set depth=4", "argument --set: 'depth=4' is not NAME=VALUE with the name of a constant"),
    ("add wider --set DEPTH=NaN", "argument --set: 'DEPTH=NaN' has a value that JSON cannot hold"),
    ("add wider --min-memory-gb nan", "argument --min-memory-gb: 'nan' is not a number above 0"),
    ("add wider --max-attempts 0", "argument --max-attempts: '0' is not a whole number"),
    ("add wider --cards nope", "no card 'nope'"),
    ("add wider --of c0ffee", "--of: running a card again needs --replicate WHY, the reason"),
    ("add wider --replicate why --of nope", "no card 'nope'"),
    ("add wider --track no", "--track 'no' is none of the tracks: t"),
    ("add wider --depends-on ffff", "depends_on: 'ffff' is not in the queue; `director.py list` lists what is open"),
    ("add", "the following arguments are required: description"),
    ("add ''", "an item of the queue has description ''; it must be text"),
    ("add deeper", "refused: item {} of the queue is the same idea, pending | deeper; --replicate WHY adds it all"),
    ("add deeper --replicate why", "refused: an open item says the same; `director.py list` shows it"),
    ("list --status open", "argument --status: invalid choice: 'open'"),
    ("list --limit 0", "argument --limit: '0' is not a whole number"),
    ("claim --category fast", f"argument --category: invalid choice: 'fast' (choose from {CATEGORY_CHOICES})"),
    ("claim --memory-gb 0", "argument --memory-gb: '0' is not a number above 0"),
    ("claim --seconds 0", "argument --seconds: '0' is not a number above 0"),
    ("claim --seconds 1e300", "a lease of 1e+300 s; it must be a number above 0 and up to 1e+08"),
    ("heartbeat x --lease 0", "argument --lease: '0' is not a whole number"),
    ("heartbeat x --lease 1 --seconds 1e9", "a lease of 1000000000.0 s; it must be"),
    ("heartbeat x", "the following arguments are required: --lease"),
    ("complete x --lease one", "argument --lease: 'one' is not a whole number"),
    ("complete x --lease 1 --card nope", "no card 'nope'"),
    ("fail x --lease 1", "the following arguments are required: --reason"),
    ("prune --days 1e6", "days: 1000000.0 is not a number above 0 and up to 10000"),
    ("prune --days -1", "argument --days: '-1' is not a number above 0"),
]


@pytest.mark.parametrize(("line", "words"), OPTIONS)
def test_options_that_cannot_be_used(refused, knowledge, line, words):
    (name,) = add(knowledge, "deeper")
    given = ["" if word == "''" else word for word in line.split()]
    assert refused(*given).startswith(words.format(name) if "{}" in words else words)


# What people and programs write into a queue by hand.

NASTY = "a\nthen: rm -rf /\x1b[31m\x00\u2028b\u202e | error: <b>`x`</b> " + "long " * 500
HOSTILE = {
    "an id": {"id": NASTY},
    "a description": {"description": NASTY},
    "why": {"why": NASTY},
    "a reason": {"reason": NASTY},
    "a commit": {"commit": NASTY},
    "a track": {"track": NASTY},
    "what it replicates": {"replicates": NASTY},
    "cards": {"cards": [NASTY]},
    "changes": {"changes": {NASTY: [NASTY]}},
    "what it waits for": {"depends_on": [NASTY, NASTY]},
    "an owner": {
        "status": "claimed",
        "lease": {"token": 1, "owner": NASTY, "since": "2026", "deadline": "2999-01-01T00:00:00.000Z"},
    },
    "a time": {"created": NASTY},
    "a deadline": {"status": "claimed", "lease": {"token": 1, "owner": "x", "since": NASTY, "deadline": NASTY}},
    "a pid": {
        "status": "claimed",
        "lease": {"token": 1, "owner": "x", "since": "2026", "deadline": "2999-01-01T00:00:00.000Z", "pid": NASTY},
    },
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_text_is_one_line_behind_a_mark(run, knowledge, what):
    write_queue(knowledge, {"id": "one"} | HOSTILE[what])
    before = contents(knowledge)
    for line in (
        "list",
        "status",
        "list --all",
        "add wider",
        "heartbeat one --lease 1",
        "claim",
        "list",
        "list --json",
    ):
        code, output, errors = run(*line.split())
        assert code in (0, 2) and "Traceback" not in errors, (line, errors)
        if line.endswith("--json") and code == 0:
            json.loads(output)
            continue
        lines = (output + errors).splitlines()
        assert (output + errors).endswith("\n") and len(lines) <= 15 and all(text.isprintable() for text in lines)
        assert all("then: rm" not in text.partition("|")[0] for text in lines if not text.startswith("error: ")), line
        assert code or all(len(text) <= LINE for text in lines) or not line.startswith("list")
    if what == "a description":
        assert contents(knowledge) != before


@pytest.mark.parametrize("count", [1, 40])
def test_no_line_of_the_list_is_longer_than_it_should_be(told, knowledge, count):
    for number in range(count):
        add(knowledge, f"{number} {'idea ' * 80}", category="regularization", mode="replicate", replicates=f"{number}")
    claim_next_experiment(knowledge, "o" * 300)
    lines = told("list").splitlines()
    assert len(lines) == count + 2 and all(len(line) <= LINE for line in lines)
    assert all("idea idea" in line for line in lines[1:-1])


def test_texts_that_are_not_utf8_are_refused(refused, knowledge):
    (name,) = add(knowledge, "deeper")
    for line in ("add X", "add wider --why X", "claim --owner X", "cancel X", f"cancel {name} --reason X"):
        given = ("wi\udcffder" if word == "X" else word for word in line.split())
        assert refused(*given).endswith("it is not UTF-8; encode it so")


def test_two_shells_at_once(knowledge):
    """Of many who add the same one is told that it did; of many who claim each gets an item of its own."""
    environment = os.environ | {"KNOWLEDGE_DIR": str(knowledge)}

    def shells(count, *given):
        command = [sys.executable, str(ROOT / "director.py"), *given]
        started = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        return [(*process.communicate(timeout=60), process.returncode) for process in started]

    ends = shells(3, "add", "one idea")
    assert sorted(code for _, _, code in ends) == [0, 2, 2]
    assert all(errors.startswith("error: refused: ") for _, errors, code in ends if code)
    assert len(load_queue(knowledge)) == 1
    add(knowledge, "another idea")
    found = [json.loads(output) for output, _, _ in shells(3, "claim", "--json")]
    taken = [item for item in found if item]
    assert len({item["id"] for item in taken}) == len({item["lease"]["token"] for item in taken}) == len(taken) == 2
