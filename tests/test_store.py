"""Files survive kills, races and full disks; folders are found where parallel checkouts share them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import StoreError
from lab.store import dump_json, knowledge_dir, read_json, replace, runs_dir, write_many, write_new

ROOT = Path(__file__).parent.parent
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)  # fmt: skip


def python(code, *arguments):
    """Start Python on `code` with lab importable."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_json_is_readable():
    value = {"name": "é\n", "curve": [[1, 0.5, None], [2, 1.5, -3e-05]], "tags": ["a"], "none": [], "text": "[\n 1 ]"}
    assert dump_json(value).decode() == (
        '{\n  "name": "é\\n",\n  "curve": [\n    [1, 0.5, null],\n    [2, 1.5, -3e-05]\n  ],\n'
        '  "tags": [\n    "a"\n  ],\n  "none": [],\n  "text": "[\\n 1 ]"\n}\n'
    )


@given(st.dictionaries(st.text(), JSON))
def test_json_round_trip(value):
    assert json.loads(dump_json(value)) == value


@given(st.text(st.characters(categories=["Cs", "L"]), min_size=1))
def test_text_that_is_not_unicode_survives(text):
    assert json.loads(dump_json({"argv": text}))["argv"] == text


NOT_FINITE = st.recursive(
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    lambda inner: st.lists(inner, min_size=1) | st.dictionaries(st.text(), inner, min_size=1),
    max_leaves=4,
)


@given(NOT_FINITE)
def test_no_hiding_place_for_a_number_that_is_not_finite(value):
    with pytest.raises(StoreError, match=r"is not a finite number; an unknown value is null$"):
        dump_json({"anything": value})


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"x": float("nan")}, "x: nan"),
        ({"x": {"y": float("inf")}}, "x.y: inf"),
        ({"extra": {"deep": [0, [float("-inf")]]}}, "extra.deep[1][0]: -inf"),
    ],
)
def test_a_number_that_is_not_finite_is_not_written(tmp_path, value, place):
    for write in (write_new, replace):
        with pytest.raises(StoreError) as refused:
            write(tmp_path / "card.json", value)
        assert str(refused.value) == f"{place} is not a finite number; an unknown value is null"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "place"), [('{"a": [NaN]}', "a[0]: nan"), ('{"b": -Infinity}', "b: -inf"), ('{"c": 1e400}', "c: inf")]
)
def test_a_number_that_is_not_finite_is_not_read(tmp_path, text, place):
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(StoreError) as refused:
        read_json(path)
    assert str(refused.value) == f"{path}: {place} is not a finite number; `commons.py doctor` sets it right"
    path.write_text('{"text": "NaN, Infinity and 1e400 are words here", "small": 1e-400, "large": 1E+300}')
    assert read_json(path)["large"] == 1e300


def test_write_new_is_exclusive_and_replace_is_not(tmp_path):
    path = tmp_path / "new" / "a.json"
    assert write_new(path, {"by": 1}) is True
    assert write_new(path, {"by": 2}) is False
    assert read_json(path) == {"by": 1}
    replace(path, {"by": 3})
    assert read_json(path) == {"by": 3}
    assert os.listdir(path.parent) == ["a.json"]


RACE = """
import errno, os, sys
from pathlib import Path
from lab.store import write_new
folder, me, links = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if links == "no links":
    def link(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")
    os.link = link
sys.stdin.readline()
print(sum(write_new(folder / f"{n}.json", {"by": me, "text": "x" * 5000}) for n in range(20)))
"""


@pytest.mark.parametrize("links", ["links", "no links"])
def test_of_eight_processes_one_wins_each_name(tmp_path, links):
    workers = [
        subprocess.Popen([sys.executable, "-c", RACE, tmp_path, str(me), links], cwd=ROOT, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for me in range(8)
    ]  # fmt: skip
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    wins = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    owners = [read_json(tmp_path / f"{n}.json")["by"] for n in range(20)]
    assert wins == [owners.count(me) for me in range(8)]
    assert sorted(os.listdir(tmp_path)) == sorted(f"{n}.json" for n in range(20))


REWRITE = """
import itertools, sys
from pathlib import Path
from lab.store import replace
for n in itertools.count():
    replace(Path(sys.argv[1]), {"n": n, "same": n, "text": "x" * 200_000})
    print(n, flush=True)
"""


def test_kill_9_never_leaves_half_a_file(tmp_path):
    path = tmp_path / "queue.json"
    for attempt in range(8):
        writer = python(REWRITE, path)
        writer.stdout.readline()
        time.sleep(0.003 * attempt)  # so that the kill falls into different places of the write
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert read_json(path)["n"] == read_json(path)["same"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from lab.errors import StoreError
from lab.store import replace, write_new
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (write_new, replace):
    try:
        write(Path(sys.argv[1]) / sys.argv[2], {"text": "x" * 2000})
    except StoreError as error:
        print(error)
"""


def test_full_disk_is_one_line_and_leaves_what_was_there(tmp_path):
    write_new(tmp_path / "old.json", {"n": 1})
    output, errors = python(FULL_DISK, tmp_path, "old.json").communicate()
    message = f"cannot write {tmp_path}/old.json: File too large; free space there or make the folder writable\n"
    assert (output, errors) == (message * 2, "")
    assert os.listdir(tmp_path) == ["old.json"] and read_json(tmp_path / "old.json") == {"n": 1}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as refused:
        write_new(tmp_path / "file" / "card.json", {})
    assert str(refused.value) == (
        f"cannot write {tmp_path}/file/card.json: File exists; free space there or make the folder writable"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1', "is not JSON (Expecting ',' delimiter: line 1 column 8 (char 7))"),
        (b"", "is not JSON (Expecting value: line 1 column 1 (char 0))"),
        (
            b"[" * 100_000,
            "is not JSON (maximum recursion depth exceeded while decoding a JSON array from a unicode string)",
        ),
        (b"[1]", "holds a list where an object belongs"),
        (b"\xff\xfe\xff", "is not JSON ('utf-16-le' codec can't decode byte 0xff in position 2: truncated data)"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, content, reason):
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(StoreError) as refused:
        read_json(path)
    assert str(refused.value) == f"{path} {reason}; `commons.py doctor` sets it right"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StoreError) as refused:
        read_json(tmp_path / "no.json")
    assert str(refused.value) == f"cannot read {tmp_path}/no.json: No such file or directory"


def git(folder, *arguments):
    """Run git with an identity, away from anybody's configuration."""
    environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments], cwd=folder, check=True,
                   capture_output=True, env=environment)  # fmt: skip


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with one commit, and no setting that moves a folder."""
    monkeypatch.delenv("KNOWLEDGE_DIR", raising=False)
    monkeypatch.delenv("AUTORESEARCH_RUNS_DIR", raising=False)
    top = tmp_path / "main"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "file").write_text("x")
    git(top, "init", "-q")
    git(top, "add", ".")
    git(top, "commit", "-qm", "first")
    return top


def test_knowledge_of_a_plain_checkout(repository, tmp_path):
    assert knowledge_dir(repository) == repository / "knowledge"
    assert knowledge_dir(tmp_path / "elsewhere") == tmp_path / "elsewhere" / "knowledge"
    assert runs_dir(repository) == repository / "runs"


def test_a_linked_worktree_shares_the_main_knowledge(repository, tmp_path):
    git(repository, "worktree", "add", "-q", tmp_path / "linked")
    assert knowledge_dir(tmp_path / "linked") == repository / "knowledge"
    assert knowledge_dir(tmp_path / "linked" / "sub") == repository / "sub" / "knowledge"
    assert runs_dir(tmp_path / "linked") == tmp_path / "linked" / "runs"


def test_a_worktree_of_a_bare_repository_and_a_submodule_are_their_own(repository, tmp_path):
    git(tmp_path, "clone", "-q", "--bare", repository, "bare.git")
    git(tmp_path / "bare.git", "worktree", "add", "-q", tmp_path / "linked")
    assert knowledge_dir(tmp_path / "linked") == tmp_path / "linked" / "knowledge"
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", tmp_path / "bare.git", "module")
    assert (repository / "module" / ".git").is_file()
    assert knowledge_dir(repository / "module") == repository / "module" / "knowledge"


def test_settings_move_the_folders(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KNOWLEDGE_DIR", "shared")
    monkeypatch.setenv("AUTORESEARCH_RUNS_DIR", str(tmp_path / "scratch"))
    assert knowledge_dir(repository) == tmp_path / "shared"
    assert runs_dir(repository) == tmp_path / "scratch"


def test_write_many_leaves_what_is_there_and_no_temporaries(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    assert write_many(tmp_path, [("a", b"1"), ("b", b"2"), ("b", b"3")]) == [False, True, False]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"old", b"2")


def test_write_many_of_more_than_one_batch(tmp_path):
    files = [(str(number), b"%d" % number) for number in range(4001)]
    assert write_many(tmp_path / "new", files) == [True] * 4001
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == dict(files)


def test_write_many_of_nothing_makes_no_folder(tmp_path):
    assert write_many(tmp_path / "new", []) == []
    assert not (tmp_path / "new").exists()


def test_write_many_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as raised:
        write_many(tmp_path / "file" / "cards", [("a", b"1")])
    reason = "Not a directory; free space there or make it writable"
    assert str(raised.value) == f"cannot write in {tmp_path / 'file' / 'cards'}: {reason}"
