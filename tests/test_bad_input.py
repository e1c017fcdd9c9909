"""Bad input: every command answers it with one line and exit code 2, and changes nothing."""

import json
import re
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from doors import ROOT, contents, in_process, on_a_full_disk, refused, without_rights

import commons
import worker
from lab import cli
from lab.cards import add_card
from lab.notes import add_note

A, B = "a" * 16, "b" * 16
KEPT = ("--hypothesis", "h", "--tags", "mlp", "--status", "keep", "--result", "0.98")
WRITE = ("write-card", "--commit", "abcdef01", *KEPT)
# The least that every command takes, for the commons of the fixture; {} is its folder, QUESTION its question.
LEAST = {
    "init": (), "read-brief": (), "read-meta": (), "coverage": (), "show": ("last",), "search": ("wider",),
    "query": ("SELECT 1 AS one",), "best": (), "history": (), "near-misses": (), "tags": (), "diff": (A, B),
    "lineage": (), "plot": ("--kind", "coverage", "--out", "{}/plot.svg"), "write-card": WRITE[1:],
    "annotate": (A, "--lesson", "l"), "retract": ("--id", A, "--reason", "r"), "confirm": ("--id", A),
    "note": ("--kind", "insight", "--text", "t"), "answer": ("QUESTION", "--text", "t"),
    "synthesize": ("--session", "mar8"), "update-meta": (), "update-index": (), "import": ("{}/results.tsv",),
    "export": ("--out", "{}/table.tsv"), "doctor": (), "sync": (), "noise": (), "champion": (), "challengers": (),
    "findings": (), "check": ("--description", "wider"), "audit": ("{}/results.tsv", "--out", "{}/audit.md"),
    "report": ("--out", "{}/report.md"), "sweep-confirm": ("--budget", "3"),
}  # fmt: skip
WRITERS = {"plot", "export", "audit", "report", "sweep-confirm"} | {
    name for name, module in commons.COMMANDS.items() if module == commons.WRITE
}


@pytest.fixture
def home():
    """A folder that everybody may enter, with a commons, another project's ledger, and nothing else."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    knowledge = folder / "knowledge"
    about = {"track": "t", "session": "mar8", "commit": "abcdef99", "tags": ["mlp"]}
    add_card(knowledge, about | {"id": A, "status": "keep", "results": {"val_bpb": 1.0}, "hypothesis": "baseline"})
    results = {"val_bpb": 1.1, "delta": 0.1}
    add_card(knowledge, about | {"id": B, "run_id": B, "status": "revert", "results": results, "hypothesis": "wider"})
    add_note(knowledge, "question", "why?")
    (folder / "results.tsv").write_text("commit\tval_bpb\tstatus\tdescription\nabcdef1\t0.9\tkeep\tbase\n")
    yield folder
    shutil.rmtree(folder)


def least(command, home):
    """The command with the least it takes."""
    notes = (home / "knowledge" / "notes").iterdir()
    question = next(path.stem for path in notes if '"question"' in path.read_text())
    words = (str(home) if word == "{}" else word.replace("{}", str(home)) for word in LEAST[command])
    return [command, *(question if word == "QUESTION" else word for word in words)]


@pytest.fixture
def run(home, capfd, monkeypatch):
    """Run a command on the commons of `home`; returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("KNOWLEDGE_DIR", str(home / "knowledge"))
    monkeypatch.setenv("AUTORESEARCH_RUNS_DIR", str(home / "runs"))
    monkeypatch.chdir(home)

    def command(*given):
        capfd.readouterr()
        try:
            code = cli.main("commons.py", "", commons.COMMANDS, [str(word) for word in given])
        except SystemExit as end:
            code = end.code
        output, errors = capfd.readouterr()
        return code, output, errors

    return command


def test_every_command_is_in_the_table():
    assert set(LEAST) == set(commons.COMMANDS)


@pytest.mark.parametrize("command", [name for name in LEAST if name != "sync"])
def test_with_the_least_it_takes_a_command_works(run, home, command):
    code, output, errors = run(*least(command, home))
    assert (code, errors) == (0, "") and output.endswith("\n")
    code, output, errors = run(*least(command, home), "--json")
    assert (code, errors) == (0, "")
    json.loads(output)


def test_sync_needs_a_repository(run, home):
    refused(run("sync"), "is not in a git repository")


@pytest.mark.parametrize("command", [name for name in LEAST if name != "init"])
def test_a_folder_that_is_not_there_is_not_made(run, home, command):
    before, missing = contents(home), home / "slip"
    line = f"error: no folder {missing}; `commons.py init --knowledge-dir {missing}` makes a commons there\n"
    assert run(*least(command, home), "--knowledge-dir", missing) == (2, "", line)
    assert contents(home) == before


@pytest.mark.parametrize("command", LEAST)
def test_a_file_is_no_folder(run, home, command):
    before, ledger = contents(home), home / "results.tsv"
    line = f"error: {ledger} is not a folder; --knowledge-dir or KNOWLEDGE_DIR must name one\n"
    answer = run(*least(command, home), "--knowledge-dir", ledger)
    refused(answer, str(ledger))
    assert answer[2] == line or command == "init"
    assert contents(home) == before


def test_a_name_that_no_file_system_takes(run, home):
    refused(run("history", "--knowledge-dir", "x" * 300), "File name too long")


def test_a_current_folder_that_is_gone(run, home, monkeypatch):
    (home / "gone").mkdir()
    monkeypatch.chdir(home / "gone")
    (home / "gone").rmdir()
    line = "error: the current folder cannot be used: No such file or directory; change to another one\n"
    assert run("history") == (2, "", line)


# These read no cards, `import` only adds some; the doctor tells what is wrong with them.
BLIND = {"init", "doctor", "import", "read-meta", "sync", "audit"}
TORN = "is not JSON (Expecting value: line 1 column 1 (char 0)); `commons.py doctor` sets it right"


@pytest.mark.parametrize("command", [name for name in LEAST if name not in BLIND])
def test_a_torn_card_stops_every_command_that_reads_cards(run, home, command):
    torn = home / "knowledge" / "cards" / f"{'d' * 16}.json"
    torn.write_bytes(b"")
    before = contents(home)
    assert run(*least(command, home)) == (2, "", f"error: {torn} {TORN}\n")
    assert contents(home) == before


def test_the_doctor_names_a_torn_card(run, home):
    torn = home / "knowledge" / "cards" / f"{'d' * 16}.json"
    torn.write_bytes(b"")
    before = contents(home)
    code, output, errors = run("doctor")
    assert (code, errors) == (0, "") and output.startswith(f"cards/{torn.name}: it is not JSON: ")
    assert output.endswith("1 problem\n")
    assert contents(home) == before


def damaged(**values):
    """The text of a card with these values."""
    card = {"schema": 2, "id": "d" * 16, "timestamp": "2026-01-31T12:00:00.000Z", "status": "keep", "tags": []}
    return json.dumps(card | {"results": {"val_bpb": 1.0}, "prior_knowledge_used": []} | values)


DAMAGE = {
    "cut": (damaged()[:-5], "is not JSON"),
    "not UTF-8": (b"\xff\xfe{", "is not JSON"),
    "a list": ("[]", "holds a list where an object belongs"),
    "a number": ("1", "holds a int where an object belongs"),
    "NaN": (damaged(results={"val_bpb": float("nan")}), "results.val_bpb: nan is not a finite number"),
    "too large for a float": (damaged(results={"val_bpb": 1.0, "num_steps": 10**400}), "results.num_steps"),
    "infinity by exponent": (damaged().replace("1.0", "1e999"), "results.val_bpb: inf is not a finite number"),
    "nested by the thousand": ("[" * 100_000, "is not JSON"),
    "another card's name": (damaged(id="e" * 16), f"the card in it is {'e' * 16}"),
    "an id that is a path": (damaged(id="../../etc/passwd"), "card field id: '../../etc/passwd' is not allowed"),
    "a status of its own": (damaged(status="great\nerror"), "card field status: 'great\\nerror' is not allowed"),
    "results of text": (damaged(results="good"), "card field results: 'good' is not allowed"),
    "a category with a line break": (damaged(category="x\ny"), "card field category"),
    "tags of numbers": (damaged(tags=[1]), "card field tags: [1] is not allowed"),
    "a time of its own": (damaged(timestamp="now"), "card field timestamp: 'now' is not allowed"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_card_is_named(run, home, how):
    content, words = DAMAGE[how]
    path = home / "knowledge" / "cards" / f"{'d' * 16}.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = contents(home)
    for command in ("history", "read-brief", "write-card"):
        refused(run(*least(command, home)), str(path), words)
    assert contents(home) == before


@pytest.mark.parametrize("folder", ["events", "notes"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"fields": NaN}'])
def test_a_damaged_event_or_note_is_named(run, home, folder, content):
    path = home / "knowledge" / folder / f"{'d' * 16}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    refused(run("read-brief"), str(path))


NO_IDS = [
    "f" * 16,
    "../cards/aaaa",
    "a\nb",
    "",
    "%",
    "*",
    "a' OR 1=1 --",
    "aaaa.json",
    "x" * 5000,
    "AAAA",
    "\u202e",
    "é",
]
NAMING = {
    "show": "show {}", "diff": "diff {} bbbb", "lineage": "lineage {}", "annotate": "annotate {} --lesson l",
    "retract": "retract --id {} --reason r", "confirm": "confirm --id {}",
    "note": "note --kind insight --text t --evidence {}", "answer": "answer {} --text t",
}  # fmt: skip


@pytest.mark.parametrize("command", NAMING)
@pytest.mark.parametrize("name", NO_IDS)
def test_an_id_that_nothing_has(run, home, command, name):
    if not name and command in ("note", "lineage"):
        pytest.skip("nothing is named")
    before = contents(home)
    words = [name if word == "{}" else word for word in NAMING[command].split()]
    what = "note" if command == "answer" else "card"
    lists = "read-brief` lists the open questions" if command == "answer" else "history` lists the cards"
    line = f"error: no {what} {name!r}; `commons.py {lists}, `commons.py search` finds words\n"
    assert run(*words) == (2, "", " ".join(line.split()) + "\n")
    assert contents(home) == before


def test_an_answer_to_a_card_or_to_an_answer_is_refused(run, home):
    refused(run("answer", "aaaa", "--text", "t"), "no note 'aaaa'")
    insight = add_note(home / "knowledge", "insight", "i")["id"]
    line = f"error: note {insight} is no question; `commons.py read-brief` lists the open ones\n"
    assert run("answer", insight, "--text", "t") == (2, "", line)


def test_an_id_that_several_have(run, home):
    add_card(home / "knowledge", {"id": "a" * 12 + "ffff", "status": "crash"})
    line = f"error: 'aaa' names 2 cards; give more of the id, such as {A}\n"
    assert run("show", "aaa") == run("retract", "--id", "aaa", "--reason", "r") == (2, "", line)


BAD_OPTIONS = [
    ("write-card --config-diff {", "--config-diff: '{' is not JSON"),
    ("write-card --config-diff []", "--config-diff: '[]' is not an object"),
    ('write-card --config-diff {"A":[1,NaN]}', "config_diff.A[1]: nan is not a finite number"),
    ("write-card --result nan", "card field results.val_bpb: nan is not allowed"),
    ("write-card --result inf", "card field results.val_bpb: inf is not allowed"),
    ("write-card --delta=-inf", "card field results.delta: -inf is not allowed"),
    ("write-card --peak-memory nan", "card field results.peak_vram_mb: nan is not allowed"),
    (f"write-card --num-steps 1{'0' * 400}", "card field results.num_steps: 1000"),
    ("write-card --num-steps 1.5", "argument --num-steps: invalid int value: '1.5'"),
    ("write-card --result low", "argument --result: invalid float value: 'low'"),
    ("write-card --status superb", "argument --status: invalid choice: 'superb'"),
    ("write-card --status retracted", "argument --status: invalid choice: 'retracted'"),
    ("write-card --category fast", "argument --category: invalid choice: 'fast'"),
    ("write-card --status crash", "--result: a crash has no result"),
    ("write-card --commit a/../b", "card field commit: 'a/../b' is not allowed"),
    ("write-card --commit ../../x", "card field commit: '../../x' is not allowed"),
    ("write-card --prior-cards aaaa,nope", "no card 'nope'"),
    ("write-card --run nope", "--run nope: no run of this id has a card"),
    ("write-card --summary no.json", "cannot read no.json: No such file or directory"),
    ("write-card --log no.log", "cannot read no.log: No such file or directory"),
    ("write-card --log .", "cannot read .: Is a directory"),
    ("annotate aaaa", "annotate: nothing to add; give --lesson, --category, --tags or --prior-cards"),
    ("annotate aaaa --prior-cards nope", "no card 'nope'"),
    ("note --kind answer --text t", "argument --kind: invalid choice: 'answer'"),
    ("query DELETE", "the query cannot be answered"),
    ("query", "the following arguments are required: sql"),
    ("history --limit 0", "argument --limit: '0' is not a whole number from 1 to 999999999"),
    ("history --limit -1", "argument --limit"),
    (f"search wider --limit {10**20}", "is not a whole number from 1 to 999999999"),
    ("read-brief --tokens 0", "argument --tokens: '0' is not a whole number from 1 to 999999999"),
    ("read-brief --tokens ²", "argument --tokens: '²' is not a whole number"),
    ("read-brief --track no", "--track 'no' is none of the tracks: t"),
    ("history --track no", "--track 'no' is none of the tracks: t"),
    ("plot --out plot.txt", "--out plot.txt ends in .txt; name a file that ends in .png or .svg"),
    ("plot --out no/plot.svg", "--out no/plot.svg: there is no folder no; make it first"),
    ("export --out .", "--out . is no file"),
    ("export --format xml", "argument --format: invalid choice: 'xml'"),
    ("import no.tsv", "cannot read no.tsv: No such file or directory"),
    ("import knowledge", "knowledge is a folder without .json files; give a ledger"),
    ("synthesize --session ../x", "cannot name a file"),
    ("synthesize --session no", "session 'no' has no cards"),
    ("check", "nothing to check; give --description TEXT"),
    ("check --description x --mode try", "argument --mode: invalid choice: 'try'"),
    ("check --description x --threshold nan", "'nan' is not a number from 0 to 1"),
    ("check --description x --family fast", "argument --family: invalid choice: 'fast'"),
    ("check --description x --limit 0", "is not a whole number from 1 to 999999999"),
    ("check --description x --track no", "--track 'no' is none of the tracks: t"),
    ("noise --track no", "--track 'no' is none of the tracks: t"),
    ("champion --track no", "--track 'no' is none of the tracks: t"),
    ("challengers --limit -1", "argument --limit"),
    ("findings --limit x", "argument --limit: 'x' is not a whole number"),
    ("sweep-confirm", "the following arguments are required: --budget"),
    ("sweep-confirm --budget 0", "argument --budget: '0' is not a whole number from 1 to 999999999"),
    ("sweep-confirm --budget 1 --track no", "--track 'no' is none of the tracks: t"),
    ("audit no.tsv", "cannot read no.tsv: No such file or directory"),
    ("audit results.tsv --sigma nan", "argument --sigma: 'nan' is not a number above 0"),
    ("audit results.tsv --sigma 0", "argument --sigma: '0' is not a number above 0"),
    ("audit results.tsv --out a.pdf", "--out a.pdf ends in .pdf; name a file that ends in .md or .html"),
    ("audit results.tsv --metric none", "none"),
    ("report --since soon", "--since 'soon' is no time; give a duration such as 90m"),
    ("report --since 999999999w", "--since '999999999w' is no time"),
    ("report --session no", "session 'no' has no cards"),
    ("report --track no", "--track 'no' is none of the tracks: t"),
    ("report --out no/r.md", "--out no/r.md: there is no folder no; make it first"),
    ("tags extra", "unrecognized arguments: extra"),
    ("tags --js", "unrecognized arguments: --js"),
    ("read-bref", "no command 'read-bref'; the commands are init, read-brief, "),
]


@pytest.mark.parametrize(("line", "words"), BAD_OPTIONS)
def test_options_that_cannot_be_used(run, home, line, words):
    before = contents(home)
    command, *options = line.split()
    full = [command, *WRITE[1:], *options] if command == "write-card" else [command, *options]
    refused(run(*full), words)
    assert contents(home) == before


@pytest.mark.parametrize("line", ["retract --id aaaa --reason", "note --kind insight --text", "answer QUESTION --text"])
def test_nothing_said_is_nothing_written(run, home, line):
    before = contents(home)
    question = least("answer", home)[1]
    refused(run(*(question if word == "QUESTION" else word for word in line.split()), " \n"))
    assert contents(home) == before


SUMMARIES = [
    '{"run_id": 5}', '{"run_id": "../x"}', '{"track": ["t"]}', '{"val_bpb": "low"}', '{"val_bpb": NaN}',
    '{"error": 5}', '{"depth": "deep"}', '{"delta": "x"}', "[]", "", '{"loss_curve": [1]}',
]  # fmt: skip


@pytest.mark.parametrize("summary", SUMMARIES)
def test_a_summary_that_cannot_be_used(run, home, summary):
    (home / "summary.json").write_text(summary)
    before = contents(home)
    refused(run(*WRITE[:-2], "--summary", "summary.json"))
    assert contents(home) == before


TEXTS = {
    "show": "show {}", "search": "search {}", "query": "query {}", "history": "history --track {}",
    "brief": "read-brief --for {}", "note": "note --kind insight --text {}", "annotate": "annotate aaaa --tags {}",
    "retract": "retract --id aaaa --reason {}", "confirm": "confirm --id aaaa --reason {}", "agent": "note --agent {}",
    "export": "export --session {}", "synthesize": "synthesize --session {}", "import": "import results.tsv --track {}",
    "remote": "sync --remote {}", "check": "check --description {}", "report": "report --session {}",
    "audit": "audit results.tsv --metric {}", "sweep-confirm": "sweep-confirm --budget 1 --track {}",
}  # fmt: skip
for _option in ("commit", "hypothesis", "tags", "run", "track", "lesson", "config-diff", "prior-cards", "session"):
    TEXTS[f"write-card {_option}"] = f"{' '.join(WRITE)} --{_option} {{}}"


@pytest.mark.parametrize("which", TEXTS)
def test_bytes_that_are_no_text(run, home, which):
    before = contents(home)
    line = TEXTS[which] + (" --kind insight --text t" if which == "agent" else "")
    refused(run(*("wi\udcffder" if word == "{}" else word for word in line.split())), "it is not UTF-8")
    assert contents(home) == before


def test_texts_with_line_breaks_and_nuls_are_kept_and_shown_on_one_line(run, home):
    hostile = "a\nerror: b\x00\x1b[31m\u2028c\u202e"
    code, output, errors = run(*WRITE, "--hypothesis", hostile, "--tags", f"{hostile},t", "--lesson", hostile)
    assert (code, errors) == (0, "")
    card = output.split()[2].rstrip(":")
    assert json.loads(run("show", card, "--json")[1])["hypothesis"] == hostile
    for command in ("show", "history", "read-brief", "tags", "coverage", "search"):
        words = {"show": (card,), "search": ("error",)}.get(command, ())
        text = run(command, *words)[1]
        assert text and all(char.isprintable() or char == "\n" for char in text)
        assert not any(line.lstrip().startswith("error: b") for line in text.splitlines())


# What follows needs processes of its own: limits and lost rights stay with a process.


@pytest.mark.parametrize("command", sorted(WRITERS - {"init", "doctor", "sync", "sweep-confirm"}))
def test_a_full_disk_keeps_everything_as_it_was(home, command):
    before = contents(home)
    code, output, errors = on_a_full_disk(home, "commons.py", least(command, home))
    assert (code, output) == (2, "") and errors.startswith("error: cannot ") and errors.count("\n") == 1, errors
    assert contents(home) == before


def test_a_full_disk_does_not_keep_anybody_from_reading(home):
    code, output, errors = on_a_full_disk(home, "commons.py", ("history",))
    assert (code, errors, output.count("\n")) == (0, "", 3)
    assert (home / "knowledge" / "index.sqlite").stat().st_size == 0 or not (home / "knowledge/index.sqlite").exists()


def test_a_card_that_is_written_counts_though_the_index_has_no_room(home):
    code, output, errors = on_a_full_disk(home, "commons.py", least("write-card", home), 6000)
    assert (code, errors) == (0, "") and output.startswith("wrote card ")
    assert len(list((home / "knowledge" / "cards").iterdir())) == 3


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_output_that_cannot_be_written(home, form):
    command = f"{sys.executable} {ROOT}/commons.py history {' '.join(form)} > /dev/full"
    answer = in_process(home, "bash", "-c", command)
    assert answer == (2, "", "error: cannot use standard output: No space left on device\n")


@pytest.mark.parametrize("command", [name for name in LEAST if name not in ("init", "sync")])
def test_a_folder_that_must_not_be_read(home, command):
    words, knowledge, before = least(command, home), home / "knowledge", contents(home)
    knowledge.chmod(0)
    try:
        answer = without_rights(home, "commons.py", words)
    finally:
        knowledge.chmod(0o755)
    refused(answer, f"cannot read {knowledge}: Permission denied; make it readable, or name another --knowledge-dir")
    assert contents(home) == before


@pytest.mark.parametrize("command", [name for name in LEAST if name != "sync"])
def test_a_folder_that_must_not_be_written(home, command):
    """A reader answers, from an index in memory; a writer is refused."""
    words, before = least(command, home), contents(home)
    folders = [home, home / "knowledge", *(home / "knowledge").iterdir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        answer = without_rights(home, "commons.py", words)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    if command in WRITERS - {"doctor"}:
        refused(answer, "cannot ")
    else:
        assert (answer[0], answer[2]) == (0, "")
    assert contents(home) == before
    assert not list((home / "knowledge").glob("index.sqlite*"))


def a_close_race(home):
    """The home with kept edits that lie as close as noise: repeats are worth their runs. Returns the newest's id."""
    for number in range(12):
        about = {"track": "t", "preset": "gpu", "seed": number, "edit_key": f"edit {number}", "commit": "abcdef99"}
        results = {"val_bpb": 1 - number * 4e-4}
        card = about | {"id": f"{number:016x}", "status": "keep", "results": results, "hypothesis": f"idea {number}"}
        add_card(home / "knowledge", card)
    return card["id"]


def test_a_full_disk_adds_nothing_to_the_queue(home):
    a_close_race(home)
    before = contents(home)
    code, output, errors = on_a_full_disk(home, "commons.py", least("sweep-confirm", home))
    assert (code, output) == (2, "") and errors.startswith("error: cannot write ") and errors.count("\n") == 1, errors
    assert contents(home).keys() - before.keys() <= {"knowledge/queue.json.lock"}


QUEUES = {
    "torn": '{"items": [{"id"', "empty": "", "a list": "[]", "another program's": '{"jobs": []}',
    "bytes": b"\xff\xfe\x00",
    "texts": '{"items": ["a"]}', "NaN": '{"items": [{"priority": NaN}]}', "nested by the thousand": "[" * 100_000,
    "a list of cards": '{"items": [{"status": "pending", "replicates": ["a"]}]}',
    "seeds": '{"items": [{"status": "pending", "replicates": "CARD", "seed": [1]}]}',
    "an object for a seed": '{"items": [{"status": "pending", "replicates": "CARD", "seed": {}}]}',
}  # fmt: skip


@pytest.mark.parametrize("which", QUEUES)
def test_a_queue_that_cannot_be_used_stays_as_it_is(run, home, which):
    card, content = a_close_race(home), QUEUES[which]
    text = content if isinstance(content, bytes) else content.replace("CARD", card).encode()
    (home / "knowledge" / "queue.json").write_bytes(text)
    before = contents(home)
    refused(
        run("sweep-confirm", "--budget", "3"),
        "queue.json",
        "; mend it, or copy queue.json.bak over it: with the history nothing is lost",
    )
    assert contents(home) == before


@pytest.mark.parametrize("value", ["", "{", "[]", "5", '["min"]', '{"nodes": 1}'])
def test_what_an_index_remembers_wrongly_is_computed_again(run, home, value):
    whole = run("champion")
    with sqlite3.connect(home / "knowledge" / "index.sqlite") as db:
        assert db.execute("UPDATE derived SET value = ?", (value,)).rowcount
    assert run("champion") == whole


def test_an_index_whose_damage_is_not_utf8_is_made_anew(run, home):
    whole = run("champion")
    path = home / "knowledge" / "index.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(
        path.read_bytes()
        .replace(b"CREATE TABLE cards", b"CREATE TABEL cards")
        .replace(b"tablecards", b"table\xf1\xff\xf1\xff\xf1")
    )
    assert run("champion") == whole


SIZES = {
    "equal": (lambda n: 1.0), "zero": (lambda n: 0.0), "negative": (lambda n: -1 - n / 1000),
    "1e308": (lambda n: 1e308), "both signs": (lambda n: (n - 6) * 1e307), "least": (lambda n: n * 5e-324),
    "apart": (lambda n: [0.0, 1e200][n > 6]), "far apart": (lambda n: 10.0 ** (50 * n - 300)),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_results_of_any_size_have_an_answer(run, home, size):
    for track in ("one/H100", "two/B200"):
        for number in range(12):
            result = SIZES[size](number)
            about = {
                "track": track,
                "status": "keep",
                "hypothesis": f"idea {number}",
                "edit_key": f"edit {number // 2}",
            }
            about |= {"seed": number, "platform": {"machine": f"m{number % 2}"}}
            add_card(home / "knowledge", about | {"results": {"val_bpb": result, "delta": result}})
    for line in (
        "noise",
        "champion",
        "challengers",
        "findings",
        "report",
        "sweep-confirm --budget 3",
        "check --description x",
    ):
        for form in ([], ["--json"]):
            code, output, errors = run(*line.split(), *form)
            assert (code, errors) == (0, "") and not re.search(r"\b(nan|inf|NaN|Infinity)\b", output)


SENTINEL = [
    ((), "is not in this clone"),
    (("--dry-run",), "is not in this clone"),
    (("--every", "-1"), "argument --every: '-1' is not a whole number from 0 to 999999999"),
    (("--track", "no"), "--track 'no' is none of the tracks: t"),
    (("--track", "wi\udcffder"), "it is not UTF-8"),
    (("--knowledge-dir", "slip"), "no folder slip; `commons.py init --knowledge-dir slip` makes a commons there"),
    (("--knowledge-dir", "results.tsv"), "results.tsv is not a folder"),
    (("--knowledge-dir", "empty"), "no kept result on any track; the sentinel repeats the champion once there is one"),
    (("--knowledge-dir", "torn"), TORN),
]


@pytest.mark.parametrize(("options", "words"), SENTINEL)
def test_a_sentinel_that_cannot_run(run, home, capfd, options, words):
    (home / "empty").mkdir()
    (home / "torn" / "cards").mkdir(parents=True)
    (home / "torn" / "cards" / f"{'d' * 16}.json").touch()
    before = contents(home)
    try:
        code = cli.main("worker.py", "", worker.COMMANDS, ["sentinel", "--now", *options])
    except SystemExit as end:
        code = end.code
    refused((code, *capfd.readouterr()), words)
    assert contents(home) == before
