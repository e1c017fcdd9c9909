"""A command that is run, watched and ended (what is left of it: test_keeper), and what an experiment is told."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.errors import SettingError, StoreError
from lab.runner import OvertimeError, environment, run_group
from lab.store import is_alive


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("local:notes", "local:{}/notes"),
        ("local:/data/notes", "local:/data/notes"),
        ("local:~/notes", f"local:{Path.home()}/notes"),
        ("climbmix", "climbmix"),
    ],
)
def test_a_data_set_named_relative_to_the_project_is_found_from_the_checkout(tmp_path, monkeypatch, given, told):
    monkeypatch.setenv("AUTORESEARCH_DATASET", given)
    monkeypatch.setenv("AUTORESEARCH_CACHE", "cache")
    found = environment(tmp_path, tmp_path / "knowledge", {})
    assert found["AUTORESEARCH_DATASET"] == told.format(tmp_path)
    assert found["AUTORESEARCH_CACHE"] == str(tmp_path / "cache")


def test_where_nothing_is_named_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("AUTORESEARCH_DATASET", raising=False)
    monkeypatch.delenv("AUTORESEARCH_CACHE", raising=False)
    assert not {"AUTORESEARCH_DATASET", "AUTORESEARCH_CACHE"} & environment(tmp_path, tmp_path, {}).keys()


def run(folder, *command, **options):
    """The exit code of a command, and what it printed."""
    code = run_group(command, folder, os.environ | {"TOLD": "this"}, folder / "run" / "log", **options)
    return code, (folder / "run" / "log").read_text()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -9 $$", -9),
        ("kill -15 $$", -15),
        ("kill -6 $$", -6),
    ],
)
def test_the_exit_code_is_the_commands(tmp_path, script, code):
    assert run(tmp_path, "sh", "-c", script) == (code, "")


def test_what_a_command_gets_and_says(tmp_path):
    (tmp_path / "words").write_text("given\n")
    script = 'read word; echo "$word, $TOLD"; pwd >&2'
    assert run(tmp_path, "sh", "-c", script, given=tmp_path / "words") == (0, f"given, this\n{tmp_path}\n")
    assert run(tmp_path, "cat") == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")
def test_a_command_inherits_nothing_of_its_keeper(tmp_path):
    script = "echo $(ls /proc/self/fd); grep -E 'SigBlk|SigIgn' /proc/self/status; cut -d' ' -f 1,5 /proc/$$/stat"
    with open(tmp_path / "lock", "w") as lock:
        code, told = run(tmp_path, "sh", "-c", script, held=[lock.fileno()])
        assert not os.get_inheritable(lock.fileno())
    descriptors, blocked, ignored, leader = told.splitlines()
    assert (code, descriptors) == (0, "0 1 2 3")  # the last is the folder that is listed
    assert (blocked, ignored) == ("SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000")
    assert len(set(leader.split())) == 1  # of its process group


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("no-such-program", "No such file or directory"),
        ("./notes", "Permission denied"),
        ("x" * 3_000_000, "Argument list too long"),
    ],
)
def test_a_command_that_cannot_be_started(tmp_path, command, why):
    (tmp_path / "notes").write_text("no program\n")
    with pytest.raises(SettingError) as caught:
        run(tmp_path, command)
    assert str(caught.value) == f"cannot start {command!r}: {why}; install it or name another"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(SettingError) as caught:
        run_group(["true"], tmp_path / "gone", os.environ, tmp_path / "log")
    assert str(caught.value) == "cannot start 'true': No such file or directory; install it or name another"


@pytest.mark.skipif(os.name != "posix", reason="there are no links and pipes to be had")
@pytest.mark.parametrize("make", [lambda path: path.symlink_to("other"), os.mkfifo])
def test_a_log_is_a_file_of_its_own(tmp_path, make):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "other").write_text("mine")
    make(tmp_path / "run" / "log")
    assert run(tmp_path, "echo", "x") == (0, "x\n")
    assert (tmp_path / "run" / "other").read_text() == "mine" and not (tmp_path / "run" / "log").is_symlink()


def test_a_log_that_cannot_be_written(tmp_path):
    (tmp_path / "run" / "log").mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        run(tmp_path, "true")
    why = f"cannot write {tmp_path}/run/log: Is a directory; free space there or make the folder writable"
    assert str(caught.value) == why


@pytest.mark.skipif(os.name != "posix", reason="there is no keeper")
def test_a_command_that_stops_its_keeper_is_ended_all_the_same(tmp_path):
    began = tmp_path / "began"
    with pytest.raises(OvertimeError):
        run(tmp_path, "sh", "-c", f"kill -STOP $PPID; echo $$ > {began}; exec sleep 300", limit=0.5)
    assert not is_alive(int(began.read_text()))


def test_a_look_that_fails_ends_the_command(tmp_path):
    def look():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, "sleep", "1000", look=look)


def test_many_commands_at_once(tmp_path):
    def one(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        return run(folder, "sh", "-c", f"sleep 0.2; echo {number}; exit {number}")

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(one, range(12))) == [(number, f"{number}\n") for number in range(12)]
