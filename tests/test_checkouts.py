"""Checkouts of commits to run experiments in: what is in them, and that they are cleared away after whatever end."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_project import wait_for

from lab.cards import new_id
from lab.checkouts import FOLDER, abandoned, checkout, discard
from lab.errors import HeldError, StoreError
from lab.locks import locked

ROOT = Path(__file__).parent.parent
KEEPS = """
import sys, time
from pathlib import Path
from lab.checkouts import checkout
with checkout(Path(sys.argv[1]), "HEAD", sys.argv[2]) as (folder, lock):
    (folder / "ready").touch()
    time.sleep(300)
"""


@pytest.fixture(params=["", "examples/sorting"])
def project(request, tmp_path, monkeypatch):
    """A project with one commit, also below the top of its repository."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "repo" / request.param
    folder.mkdir(parents=True)
    (folder / "train.py").write_text("LR = 0.1\n")
    git(tmp_path / "repo", "init", "-q")
    git(tmp_path / "repo", "add", ".")
    git(tmp_path / "repo", "commit", "-q", "-m", "start")
    return folder


def git(folder, *words):
    who = ("-c", "user.name=tester", "-c", "user.email=tester@localhost")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def nothing_is_left(project):
    left = sorted(os.listdir(project / FOLDER)), git(project, "worktree", "list").count("\n")
    return (*left, git(project, "status", "-s")) == ([".gitignore"], 1, "")


def test_a_checkout_has_what_the_commit_has_and_goes(project):
    commit = git(project, "rev-parse", "HEAD").strip()
    (project / "train.py").write_text("LR = 0.2\n")
    (project / "notes.txt").write_text("mine")
    run = new_id()
    with checkout(project, commit, run) as (folder, lock):
        assert os.listdir(folder).count("train.py") == 1 and not (folder / "notes.txt").exists()
        assert (folder / "train.py").read_text() == "LR = 0.1\n"
        assert os.fstat(lock)
        assert abandoned(project) == []
        (folder / "train.py").write_text("changed")
        (folder / "more").mkdir()
    (project / "train.py").write_text("LR = 0.1\n")
    (project / "notes.txt").unlink()
    assert nothing_is_left(project)


@pytest.mark.parametrize("spoil", [None, ".git", "all", "read-only"])
def test_it_goes_whatever_was_done_in_it(project, spoil):
    with pytest.raises(ValueError, match="x"), checkout(project, "HEAD", new_id()) as (folder, _):
        top = next(path for path in (folder, *folder.parents) if (path / ".git").exists())
        if spoil == ".git":
            (top / ".git").unlink()
        elif spoil == "all":
            shutil.rmtree(top)
        elif spoil == "read-only":
            (folder / "deep").mkdir(mode=0o500)
        raise ValueError("x")
    assert nothing_is_left(project)


def test_what_cannot_be_checked_out(project, tmp_path):
    with pytest.raises(StoreError) as caught, checkout(project, "0123456789ab", new_id()):
        pass
    assert str(caught.value) == "git worktree: fatal: invalid reference: 0123456789ab"
    assert nothing_is_left(project)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(StoreError) as caught, checkout(tmp_path / "elsewhere", "HEAD", new_id()):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'elsewhere'} is in no git repository, and experiments are commits; make it one: git init"
    )


def test_of_a_process_that_is_killed_it_stays_until_it_is_discarded(project):
    run = new_id()
    process = subprocess.Popen([sys.executable, "-c", KEEPS, str(project), run], env=os.environ | {"PYTHONPATH": ROOT})
    wait_for(lambda: list((project / FOLDER).rglob("ready")))
    assert abandoned(project) == []
    discard(project, run)  # which it is not
    assert list((project / FOLDER).rglob("ready"))
    process.kill()
    process.wait()
    assert abandoned(project) == [run]
    discard(project, run)
    assert abandoned(project) == []
    assert nothing_is_left(project)
    discard(project, run)
    assert nothing_is_left(project)


def test_as_long_as_somebody_who_was_given_the_descriptor_lives_it_is_in_use(project):
    run = new_id()
    with checkout(project, "HEAD", run) as (_, lock):
        child = subprocess.Popen(["sleep", "300"], pass_fds=[lock])
        copy = project / FOLDER / f"{run}.lock"
        with pytest.raises(HeldError), locked(copy, timeout=0):
            pass
    child.kill()
    child.wait()
    assert nothing_is_left(project)


def test_what_is_no_run_is_left_alone(project):
    (project / FOLDER).mkdir()
    (project / FOLDER / "mine.lock").touch()
    assert abandoned(project) == []
