"""Items that say their edit as a patch, and an item whose worker was killed when its run had ended."""

import json
import os
import signal

import pytest
from fake_project import FakeProject, nothing_is_left, wait_for

from lab.queue import add_to_queue


@pytest.fixture
def project(tmp_path):
    project = FakeProject(tmp_path / "project")
    project.run("director.py", "run", "--max-experiments", "1")
    return project


def diff_of(project, old, new, name="train.py"):
    """What `git diff` prints of an edit, which is taken back."""
    path = project.folder / name
    text = path.read_text()
    path.write_text(text.replace(old, new))
    patch = project.git("diff")
    path.write_text(text)
    return patch


def test_a_patch_is_run(project):
    patch = project.folder.parent / "edit.diff"
    patch.write_text(diff_of(project, "MATRIX_LR = 0.04", "MATRIX_LR = 0.08"))
    added = project.run("director.py", "add", "a higher matrix rate", "--patch", str(patch))
    assert (added.returncode, added.errors) == (0, "")
    project.run("worker.py", "work", "--once")
    card = project.cards()[-1]
    assert (card["hypothesis"], card["config"]["MATRIX_LR"]) == ("a higher matrix rate", 0.08)
    assert project.ended_items()[-1]["card"] == card["id"]
    nothing_is_left(project)


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ("no diff at all\n", "the patch does not apply to "),
        ("FROZEN", "the patch changes pyproject.toml; only train.py may be edited"),
        ("GONE", "the patch removes train.py, or leaves no plain file there; edit it in place"),
        ("OUTSIDE", "the patch does not apply to "),
    ],
)
def test_a_patch_that_is_refused(project, patch, said):
    if patch == "FROZEN":
        patch = diff_of(project, "[tool.autoresearch]", "[tool.autoresearch]\nnoise = 1.0", "pyproject.toml")
    elif patch == "GONE":
        (project.folder / "train.py").unlink()
        patch = project.git("diff")
        project.git("checkout", "train.py")
    elif patch == "OUTSIDE":
        patch = "--- /dev/null\n+++ b/../escaped.txt\n@@ -0,0 +1 @@\n+x\n"
    add_to_queue(project.knowledge, [{"description": "a patch", "patch": patch}])
    project.run("worker.py", "work", "--once")
    item = project.ended_items()[-1]
    assert item["status"] == "failed" and item["reason"].startswith(said), item["reason"]
    assert len(project.cards()) == 1 and not (project.folder.parent / "escaped.txt").exists()
    nothing_is_left(project)


def test_a_run_whose_worker_was_killed_at_its_end_is_not_run_again(project):
    add_to_queue(project.knowledge, [{"description": "a higher rate", "changes": {"MATRIX_LR": 0.08}}])
    worker = project.start("worker.py", "work", "--once", "--json")
    events = iter(worker.stdout.readline, "")
    run = next(event["run"] for event in map(json.loads, events) if event["event"] == "started")
    wait_for((project.knowledge / "cards" / f"{run}.json").exists)
    os.kill(worker.pid, signal.SIGKILL)  # perhaps a moment too late, which is as good
    worker.communicate()
    wait_for(lambda: not project.left_behind()[0])
    project.run("worker.py", "work", "--once")
    item = project.ended_items()[-1]
    assert (item["status"], item["card"]) == ("completed", run)
    assert [card["id"] for card in project.cards()][1:] == [run]
    nothing_is_left(project)
