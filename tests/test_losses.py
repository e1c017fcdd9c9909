"""The losses of a run on disk while it goes on, and those of a track's finished runs."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_project import wait_for

from lab.cards import add_card, load_cards, new_id, utc_now
from lab.envelope import Past
from lab.index import Index
from lab.losses import LOSSES, MAX_BYTES, history, lookout, read_losses, write_loss
from lab.schema import complete
from lab.store import replace

ROOT = Path(__file__).parent.parent
CURVE = [[step, step / 4, 9.0 - step / 80] for step in range(401)][::8]  # 100 seconds, from 9.0 to 4.0


def test_what_is_written_is_read(tmp_path):
    points = [(1, 0.25, 9.0), (2, 1.5, math.nan), (3, 2.75, math.inf), (4, 3.0, 3.14159265), (5, 4, 2)]
    for point in points:
        write_loss(tmp_path, *point)
    assert (
        tmp_path / LOSSES
    ).read_text() == "[1, 0.25, 9.0]\n[2, 1.5, null]\n[3, 2.75, null]\n[4, 3.0, 3.14159]\n[5, 4.0, 2.0]\n"
    read = read_losses(tmp_path)
    assert [point[:2] for point in read] == [point[:2] for point in points]
    assert [str(loss) for *_, loss in read] == ["9.0", "nan", "nan", "3.14159", "2.0"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n\n", b"[4, 2.0", b"[4, 2.0[5, 3.0, 1.0]\n", b"[4, 2.0]\n", b"[4, 2.0, 1.0, 1.0]\n", b"7\n", b"{}\n",
        b"null\n",
        b'["4", 2.0, 1.0]\n', b"[4, null, 1.0]\n", b"[true, 2.0, 1.0]\n", b"[4, NaN, 1.0]\n", b"[4, 2.0, Infinity]\n",
        b"[4, 2.0, 1e999]\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"[" + b"9" * 5000 + b", 1.0, 1.0]\n",
        b'{"a": 1, "b": 2, "c": 3}\n', b'"abc"\n',
    ],
)  # fmt: skip
def test_what_is_no_line_is_passed_over(tmp_path, content):
    (tmp_path / LOSSES).write_bytes(b"[1, 0.5, 9.0]\n" + content)
    assert read_losses(tmp_path) == [(1, 0.5, 9.0)]


def test_a_file_of_any_size_is_read_up_to_a_limit(tmp_path):
    (tmp_path / LOSSES).write_bytes(b"[1, 0.5, 9.0]\n" + b" " * MAX_BYTES + b"\n[2, 1.0, 8.0]\n")
    assert read_losses(tmp_path) == [(1, 0.5, 9.0)]


@pytest.mark.skipif(os.name != "posix", reason="there are no named pipes")
def test_a_pipe_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / LOSSES)
    assert read_losses(tmp_path) == []


def test_without_a_file_there_are_none(tmp_path):
    assert read_losses(tmp_path) == read_losses(tmp_path / "nowhere") == []


def test_a_full_disk_costs_the_line_and_not_the_run(tmp_path):
    (tmp_path / LOSSES).symlink_to("/dev/full")
    write_loss(tmp_path, 1, 0.5, 9.0)
    write_loss(tmp_path / "nowhere", 1, 0.5, 9.0)


def run_script(folder, body, **environment):
    """Run a train.py of one run that does `body`; its exit code and the run's folder."""
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(
        "import os, signal, time\nfrom lab import recorder\nrun = recorder.start(__file__)\nrun.phase('train')\n" + body
    )
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")}
    places = {
        "PYTHONPATH": str(ROOT),
        "KNOWLEDGE_DIR": str(folder / "knowledge"),
        "AUTORESEARCH_RUNS_DIR": str(folder / "runs"),
    }
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, env=ours | places | environment, capture_output=True
    )
    (run_dir,) = (folder / "runs").iterdir()
    return done, run_dir


def test_a_run_writes_a_line_a_second(tmp_path):
    done, run_dir = run_script(
        tmp_path / "project",
        "for step in range(1, 36): run.log_loss(step, step / 10, 9 - step / 10)\nrun.finish({'val_bpb': 1.5})",
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert read_losses(run_dir) == [(1, 0.1, 8.9), (11, 1.1, 7.9), (21, 2.1, 6.9), (31, 3.1, 5.9)]


def test_the_curve_of_a_run_that_is_killed_is_kept(tmp_path):
    body = "for step in range(200): run.log_loss(step, step * 1.0, 9.0)\nos.kill(os.getpid(), signal.SIGKILL)"
    assert run_script(tmp_path / "project", body)[0].returncode == -signal.SIGKILL
    knowledge = tmp_path / "project/knowledge"
    wait_for(lambda: list(knowledge.glob("cards/*.json")))  # the watcher's, which nobody waits for
    (card,) = load_cards(knowledge)
    curve = card["results"]["loss_curve"]
    assert (card["status"], card["error"]["kind"]) == ("crash", "killed")
    assert (len(curve), curve[0], curve[-1]) == (64, [0, 0.0, 9.0], [199, 199.0, 9.0])
    assert LOSSES in card["artifacts"]["files"]


def add(knowledge, number, **more):
    """Add the card of run `number`, 0 the oldest."""
    value = None if more.get("status") == "crash" else 1.0
    results = {"val_bpb": value, "loss_curve": more.pop("curve", [*CURVE[:-1], [400, 100.0, 4.0 + number / 100]])}
    facts = {"id": new_id(), "timestamp": f"2026-01-01T00:00:{number:02}.000Z", "track": "t", "status": "revert"}
    add_card(knowledge, complete(facts | {"results": results} | more))


def test_the_history_is_of_runs_of_the_track_that_finished(tmp_path):
    add(tmp_path, 0, status="keep")
    add(tmp_path, 1, track="other")
    add(tmp_path, 2, status="crash", error={"kind": "killed", "phase": None, "summary": "gone", "tail": []})
    add(tmp_path, 3, status="inconclusive", curve=[[1, 0.5, 9.0], [2, 1.0, None]])
    add(tmp_path, 4, quarantined="two runs shared the device")
    add(tmp_path, 5, curve=None)
    add(tmp_path, 6)
    with Index(tmp_path) as index:
        found = history(index, "t")
        newest = history(index, "t", limit=2)
        assert history(index, None) == history(index, "none such") == []
    assert [(len(run.points), run.kept) for run in found] == [(51, True), (2, False), (0, False), (51, False)]
    assert str(found[1]) == str(Past([(1, 0.5, 9.0), (2, 1.0, math.nan)], False))
    assert newest == found[2:]


@pytest.fixture
def run_dir(tmp_path):
    """The folder of a run on a track with five finished runs."""
    for number in range(5):
        add(tmp_path / "knowledge", number, status="keep" if number == 0 else "revert")
    folder = tmp_path / "runs/0123456789ab"
    replace(folder / "start.json", {"knowledge_dir": str(tmp_path / "knowledge"), "track": "t", "timestamp": utc_now()})
    return folder


def log(run_dir, *lines):
    """What a run has written so far."""
    (run_dir / LOSSES).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


STUCK = [[step, step / 4, 9.0] for step in range(200)]


def test_a_lookout_tells_when_a_run_is_lost(run_dir):
    look = lookout(run_dir)
    assert look() is None  # it has not begun
    log(run_dir, *STUCK[:100])
    assert look() is None
    log(run_dir, *STUCK)
    assert look() == "diverged: smoothed loss 9.00 at step 180; the worst of 5 runs had 6.90 there, 0.52 of margin"


def test_a_lookout_asks_the_commons_once(run_dir):
    look = lookout(run_dir)
    log(run_dir, *STUCK[:100])
    assert look() is None
    (run_dir / "start.json").unlink()
    log(run_dir, *STUCK)
    assert look() is not None


@pytest.mark.parametrize("damage", ["start.json", "card", "track", "no commons", "no text", "pipe"])
def test_a_lookout_that_knows_nothing_ends_nothing_but_what_is_no_number(run_dir, damage):
    if damage == "no commons":
        replace(run_dir / "start.json", {"track": "t"})
    elif damage == "no text":
        replace(run_dir / "start.json", {"knowledge_dir": str(run_dir.parent.parent / "knowledge"), "track": ["t"]})
    elif damage == "pipe":
        (run_dir / "start.json").unlink()
        os.mkfifo(run_dir / "start.json")
    elif damage == "start.json":
        (run_dir / "start.json").write_text("{")
    elif damage == "card":
        next((run_dir.parent.parent / "knowledge/cards").iterdir()).write_text("{")
    else:
        replace(run_dir / "start.json", {"knowledge_dir": str(run_dir.parent.parent / "knowledge"), "track": None})
    look = lookout(run_dir)
    log(run_dir, *STUCK)
    assert look() is None
    log(run_dir, *STUCK, [200, 50.0, None], [201, 51.0, None])
    assert look() == "diverged: loss is not a number at step 200"
