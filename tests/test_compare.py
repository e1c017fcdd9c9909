"""Two cards side by side: configuration, results, and train.py from run folders or from git."""

import os
import subprocess

import pytest

from lab.brief import DATA_NOTE
from lab.compare import MAX_DIFF_LINES, compare, compare_text
from lab.schema import complete

A, B = "a" * 16, "b" * 16
IDENTITY = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """The run folders."""
    monkeypatch.setenv("AUTORESEARCH_RUNS_DIR", str(tmp_path / "runs"))
    return tmp_path / "runs"


def card(name, **values):
    """A card of a run."""
    base = {"id": name, "run_id": name, "timestamp": "2026-01-31T12:00:00.000Z", "status": "keep", "track": "t"}
    return complete(base | {"results": {"val_bpb": 1.0}} | values)


def script(folder, text):
    """The train.py of a run."""
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(text)


FIRST = card(A, hypothesis="base\nline", config={"DEPTH": 8, "LR": 0.1}, results={"val_bpb": 1.0, "num_steps": 953})
SECOND = card(B, hypothesis=None, config={"DEPTH": 10, "LR": 0.1}, results={"val_bpb": 0.9, "depth": 10})


def test_a_comparison(tmp_path, runs):
    script(runs / A, "DEPTH = 8\nx = 1\n")
    script(runs / B, "DEPTH = 10\nx = 1\n")
    found = compare(FIRST, SECOND, tmp_path)
    assert found == {
        "cards": [A, B],
        "comparable": True,
        "hypotheses": ["base\nline", None],
        "config": {"DEPTH": [8, 10]},
        "results": {"val_bpb": [1.0, 0.9], "num_steps": [953, None], "depth": [None, 10]},
        "script": ["@@ -1,2 +1,2 @@", "-DEPTH = 8", "+DEPTH = 10", " x = 1"],
    }
    assert compare_text(found).splitlines() == [
        f"a {A}", f"b {B}", DATA_NOTE, "", "a | base line", "b | no hypothesis", "", "Configuration: a -> b",
        "  | DEPTH: 8 -> 10", "", "Results: a, b, b - a",
        "  val_bpb                     1.000000        0.900000       -0.100000",
        "  num_steps                 953.000000               -                ",
        "  depth                              -       10.000000                ",
        "", "Script: a -> b", "  | @@ -1,2 +1,2 @@", "  | -DEPTH = 8", "  | +DEPTH = 10", "  | x = 1",
    ]  # fmt: skip


def test_nothing_differs(tmp_path, runs):
    script(runs / A, "x\n")
    lines = compare_text(compare(FIRST, FIRST, tmp_path)).splitlines()
    assert lines[7:] == ["Configuration: the same", "", "Results: the same", "", "Script: the same"]


def test_nothing_is_known(tmp_path):
    other = card(B, track=None, config=None)
    lines = compare_text(compare(card(A, track=None), other, tmp_path)).splitlines()
    assert lines[4] == "They ran on different tracks: their results do not compare."
    assert "Configuration: not recorded" in lines and lines[-1] == "Script: not on this machine"


def test_the_script_of_a_commit(tmp_path, runs):
    """Of a run that another machine did; its commit is here."""

    def git(*words):
        done = subprocess.run(["git", *words], cwd=tmp_path, env=os.environ | IDENTITY, capture_output=True, check=True)
        return done.stdout.decode().strip()

    git("init", "-q")
    commits = []
    for text in ("x = 1\n", "x = 2\n"):
        (tmp_path / "train.py").write_text(text)
        git("add", "train.py")
        git("commit", "-qm", "edit")
        commits.append(git("rev-parse", "HEAD"))
    first, second = card(A, commit=commits[0]), card(B, commit=commits[1])
    assert compare(first, second, tmp_path)["script"] == ["@@ -1 +1 @@", "-x = 1", "+x = 2"]
    script(runs / B, "x = 3\n")
    assert compare(first, second, tmp_path)["script"] == ["@@ -1 +1 @@", "-x = 1", "+x = 3"]
    assert compare(card(A, commit="baseline"), second, tmp_path)["script"] is None


def test_hostile_and_huge_scripts(tmp_path, runs):
    script(runs / A, "")
    script(runs / B, "\x1b[31merror: \u2028x\n" * 1000)
    (runs / B / "train.py").write_bytes((runs / B / "train.py").read_bytes() + b"\xff")
    text = compare_text(compare(FIRST, SECOND, tmp_path))
    script_lines = text.split("\n")[text.split("\n").index("Script: a -> b") + 1 :]
    assert len(script_lines) == MAX_DIFF_LINES + 1 and script_lines[-1].endswith(" lines more (--json has all)")
    assert all(line.isprintable() for line in text.split("\n"))
    assert all(line.startswith("  | ") for line in script_lines[:-1])


def test_results_that_are_no_numbers(tmp_path):
    odd = card(B, results={"val_bpb": 1.0, "label": "x\ny", "flag": True})
    text = compare_text(compare(odd, FIRST, tmp_path))
    assert "  label                            x y               -" in text
