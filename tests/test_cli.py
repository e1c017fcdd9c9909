"""What the doors share: the parser, errors of one line, JSON, and where the commons is."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import commons
from lab import cli
from lab.cards import add_card

ROOT = Path(__file__).parent.parent
KEPT = {"id": "a" * 16, "status": "keep", "results": {"val_bpb": 0.9979}, "track": "t", "hypothesis": "baseline"}
# Everything that reads; `plot` and `export --format parquet` may load what they draw and write with.
READING = [
    ("read-brief",), ("read-brief", "--for", "wider"), ("read-meta",), ("coverage",), ("show", "last"),
    ("search", "baseline"), ("query", "SELECT 1"), ("best",), ("history",), ("near-misses",), ("tags",), ("lineage",),
    ("export",), ("--help",), ("history", "--help"),
]  # fmt: skip


@pytest.fixture
def knowledge(tmp_path):
    """A commons with a card."""
    add_card(tmp_path / "knowledge", KEPT)
    return tmp_path / "knowledge"


def run(folder, *words, **environment):
    """(exit code, stdout, stderr) of `commons.py` in this folder."""
    clean = {name: value for name, value in os.environ.items() if name != "KNOWLEDGE_DIR"}
    command = [sys.executable, str(ROOT / "commons.py"), *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=clean | environment, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_without_a_command_it_says_what_there_is(tmp_path):
    code, output, errors = run(tmp_path)
    assert (code, errors) == (0, "") and output == run(tmp_path, "--help")[1] == run(tmp_path, "-h")[1]
    lines = output.splitlines()
    assert lines[0] == "usage: commons.py COMMAND [--json] [--knowledge-dir DIR] ..."
    assert (
        lines[2] == "Read and write the knowledge commons: what every experiment has left, and what was learnt from it."
    )
    assert [line.split()[0] for line in lines[4:-2]] == list(commons.COMMANDS)
    assert lines[-1] == "`commons.py COMMAND --help` tells what a command takes."
    assert max(map(len, lines)) <= 120


def test_an_unknown_command_is_answered_with_the_known_ones(tmp_path):
    expected = f"error: no command 'read-bref'; the commands are {', '.join(commons.COMMANDS)}\n"
    assert run(tmp_path, "read-bref") == (2, "", expected)


@pytest.mark.parametrize("name", commons.COMMANDS)
def test_every_command_has_help(name, capsys):
    chosen = cli.load(commons.COMMANDS, name)
    assert chosen.name == name and chosen.help and chosen.help[-1] not in ".,"
    with pytest.raises(SystemExit) as end:
        cli.main("commons.py", "", commons.COMMANDS, [name, "--help"])
    output, errors = capsys.readouterr()
    assert (end.value.code, errors) == (0, "")
    assert output.startswith(f"usage: commons.py {name} ") and chosen.help in " ".join(output.split())
    assert "--json" in output and "--knowledge-dir" in output
    assert max(map(len, output.splitlines())) <= cli.HELP_WIDTH


def test_options_are_not_abbreviated(knowledge):
    code, output, errors = run(knowledge.parent, "history", "--lim", "1")
    assert (code, output) == (2, "")
    assert errors == "error: unrecognized arguments: --lim 1 (see `commons.py history --help`)\n"


def test_where_the_commons_is(knowledge, tmp_path):
    found = run(tmp_path, "query", "SELECT id FROM cards", "--knowledge-dir", knowledge)
    assert found == (0, f"id\n{'a' * 16}\n", "")
    assert run(tmp_path, "query", "SELECT id FROM cards", KNOWLEDGE_DIR=str(knowledge)) == found
    both = run(tmp_path, "query", "SELECT id FROM cards", "--knowledge-dir", knowledge, KNOWLEDGE_DIR="/nowhere")
    assert both == found  # what is typed wins
    assert run(tmp_path, "query", "SELECT id FROM cards", "--knowledge-dir", "knowledge") == found
    assert run(tmp_path, "history", KNOWLEDGE_DIR="/nowhere") == (
        2, "", "error: no folder /nowhere; `commons.py init --knowledge-dir /nowhere` makes a commons there\n",
    )  # fmt: skip


def test_the_commons_of_the_project_one_stands_in(knowledge, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.autoresearch]\n")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    assert run(tmp_path / "deep" / "er", "query", "SELECT id FROM cards") == (0, f"id\n{'a' * 16}\n", "")


def test_a_reader_that_stops_early(knowledge):
    for _ in range(3):
        add_card(knowledge, {"status": "crash", "lesson": "x" * 100_000})
    command = f"{sys.executable} {ROOT}/commons.py show last --json --knowledge-dir {knowledge} | head -c 1"
    done = subprocess.run(["bash", "-c", command + "; echo ${PIPESTATUS[0]}"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{0\n", "")


def test_ctrl_c_is_one_line(knowledge, monkeypatch, capsys):
    def cmd_status(args):
        """Be interrupted."""
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "interrupted", SimpleNamespace(cmd_status=cli.command()(cmd_status)))
    monkeypatch.setenv("KNOWLEDGE_DIR", str(knowledge))
    assert cli.main("commons.py", "", {"status": "interrupted"}, ["status"]) == 130
    assert capsys.readouterr() == ("", "error: interrupted\n")


def test_a_terminal_without_unicode(knowledge):
    add_card(knowledge, {"status": "crash", "hypothesis": "größer", "timestamp": "2990-01-01T00:00:00.000Z"})
    code, output, errors = run(
        knowledge.parent, "show", "last", "--knowledge-dir", "knowledge", PYTHONIOENCODING="ascii", PYTHONUTF8="0"
    )
    assert (code, errors) == (0, "") and "  hypothesis    | gr??er\n" in output


WATCHED = """
import runpy, sys
sys.argv = ["commons.py", *sys.argv[1:]]
try:
    runpy.run_path("commons.py", run_name="__main__")
finally:
    heavy = {"torch", "numpy", "matplotlib", "pyarrow", "filelock", "msgspec", "pandas", "subprocess", "dataclasses"}
    print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_reading_loads_nothing_heavy(knowledge, words):
    command = [sys.executable, "-c", WATCHED, *words]
    environment = os.environ | {"KNOWLEDGE_DIR": str(knowledge)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "[]\n")
