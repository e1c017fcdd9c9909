"""The queue's file: what is added, what is refused, and that neither a race nor a kill loses anything."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.briefing import queued
from lab.errors import SettingError, StoreError
from lab.queue import add_to_queue, load_queue

ROOT = Path(__file__).parent.parent
ADD_MANY = """
import sys
from pathlib import Path
from lab.queue import add_to_queue
knowledge, writer, shared = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
for number in range(int(sys.argv[4])):
    (own,) = add_to_queue(knowledge, [{"description": f"idea {number} of {writer}"}])
    added = add_to_queue(knowledge, [{"description": f"{shared} {number}", "replicates": shared, "seed": number}])
    print(own["id"], *(item["id"] for item in added), flush=True)
"""


def writer(knowledge, name, times):
    """A process that adds ideas of its own, and repeats that others add too; it prints the ids of what it has added."""
    command = [sys.executable, "-c", ADD_MANY, str(knowledge), name, "abc", str(times)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_an_item_is_whole_and_in_the_order_of_adding(tmp_path):
    assert load_queue(tmp_path) == []
    given_ = {"description": "wider MLP", "category": "architecture", "priority": 1, "mine": [1]}
    (first,) = add_to_queue(tmp_path, [given_])
    (second,) = add_to_queue(tmp_path, [{"description": "again", "replicates": "abc", "seed": 43, "why": "unclear"}])
    assert load_queue(tmp_path) == [first, second]
    assert first.items() >= given_.items()
    assert list(first)[:6] == ["id", "created", "status", "description", "mode", "priority"]
    assert (first["status"], first["mode"], first["seed"]) == ("pending", "explore", None)
    assert (second["mode"], second["priority"], second["seed"]) == ("replicate", 5, 43)
    assert queued(tmp_path) == [{"status": "pending", "description": text} for text in ("wider MLP", "again")]


@pytest.mark.parametrize(
    ("status", "there", "new", "added"),
    [
        ("pending", {"description": "Wider  MLP"}, {"description": "wider mlp"}, 0),
        ("claimed", {"description": "wider MLP"}, {"description": "wider MLP"}, 0),
        ("done", {"description": "wider MLP"}, {"description": "wider MLP"}, 1),
        ("pending", {"description": "x", "replicates": "a", "seed": 1}, {"replicates": "a", "seed": 1}, 0),
        ("pending", {"description": "x", "replicates": "a", "seed": 1}, {"replicates": "a", "seed": 2}, 1),
        ("pending", {"description": "x", "replicates": "a"}, {"replicates": "a"}, 0),
        ("pending", {"description": "x"}, {"replicates": "a", "seed": 1}, 1),
    ],
)
def test_what_an_open_item_settles_is_not_added_again(tmp_path, status, there, new, added):
    item = add_to_queue(tmp_path, [there])[0] | {"status": status}
    (tmp_path / "queue.json").write_text(json.dumps({"items": [item]}))
    before = (tmp_path / "queue.json").read_bytes()
    assert len(add_to_queue(tmp_path, [{"description": "x"} | new])) == added
    assert len(load_queue(tmp_path)) == 1 + added
    assert added or (tmp_path / "queue.json").read_bytes() == before


def test_of_two_alike_in_one_call_one_is_added(tmp_path):
    assert len(add_to_queue(tmp_path, [{"description": "x"}, {"description": "X"}])) == 1


def test_unknown_keys_survive_and_the_previous_copy_is_kept(tmp_path):
    old = {"schema": 7, "later": {"x": 1}, "items": [{"id": "a", "status": "paused", "lease": 3}]}
    (tmp_path / "queue.json").write_text(json.dumps(old))
    (added,) = add_to_queue(tmp_path, [{"description": "x"}])
    now = json.loads((tmp_path / "queue.json").read_text())
    assert now == old | {"items": [*old["items"], added]}
    assert json.loads((tmp_path / "queue.json.bak").read_text()) == old


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({}, "description None; it must be text"),
        ({"description": "  "}, "description '  '; it must be text"),
        ({"description": "x", "priority": -1}, "priority -1; it must be a whole number, 1 or more"),
        ({"description": "x", "priority": True}, "priority True; it must be a whole number, 1 or more"),
    ],
)
def test_a_value_that_is_not_allowed_adds_nothing(tmp_path, item, said):
    with pytest.raises(SettingError) as error:
        add_to_queue(tmp_path, [{"description": "fine"}, item])
    assert str(error.value) == f"an item of the queue has {'the ' if 'desc' in said else ''}{said}"
    assert load_queue(tmp_path) == []


def test_an_unknown_category_is_named(tmp_path):
    with pytest.raises(
        SettingError, match=r"^an item of the queue has category 'magic'; it must be one of architecture, "
    ):
        add_to_queue(tmp_path, [{"description": "x", "category": "magic"}])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", " is not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b'{"items": [', " is not JSON (Expecting value: line 1 column 12 (char 11))"),
        (b"[]", " holds a list where an object belongs"),
        (b"{}", ": its items are no list of objects"),
        (b'{"items": [1]}', ": its items are no list of objects"),
        (b'{"items": [{"priority": NaN}]}', ": items[0].priority: nan is not a finite number"),
    ],
)
def test_a_damaged_queue_is_an_error_and_never_empty(tmp_path, content, what):
    (tmp_path / "queue.json").write_bytes(content)
    for use in (load_queue, lambda knowledge: add_to_queue(knowledge, [{"description": "x"}])):
        with pytest.raises(StoreError) as error:
            use(tmp_path)
        remedy = "copy queue.json.bak, which is from before the last change, over it, or move it away"
        assert str(error.value) == f"{tmp_path / 'queue.json'}{what}; {remedy}"
    assert (tmp_path / "queue.json").read_bytes() == content


def test_eight_writers_lose_nothing_and_add_nothing_twice(tmp_path):
    writers = [writer(tmp_path, str(number), 6) for number in range(8)]
    told = [identity for one in writers for identity in one.communicate()[0].split()]
    assert [one.returncode for one in writers] == [0] * 8
    items = load_queue(tmp_path)
    assert sorted(item["id"] for item in items) == sorted(told)
    assert sorted(item["seed"] for item in items if item["replicates"]) == list(range(6))
    assert len(items) == 8 * 6 + 6


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_writer_leaves_a_whole_queue_and_no_lock(tmp_path):
    told = []
    for number in range(12):
        one = writer(tmp_path, str(number), 10_000)
        first = one.stdout.readline()
        time.sleep(number * 0.003)  # at another moment of a change each time
        one.send_signal(signal.SIGKILL)
        told += (first + one.communicate()[0]).rpartition("\n")[0].split()  # the last line may be torn
        assert {item["id"] for item in load_queue(tmp_path)} >= set(told)
    assert json.loads((tmp_path / "queue.json.bak").read_bytes())["items"]
    assert len(add_to_queue(tmp_path, [{"description": "after all"}])) == 1


@settings(max_examples=20)
@given(st.lists(st.sampled_from("abcde"), max_size=12))
def test_any_adding_leaves_one_open_item_for_a_question(tmp_path_factory, ideas):
    knowledge = tmp_path_factory.mktemp("queue")
    for idea in ideas[: len(ideas) // 2]:
        add_to_queue(knowledge, [{"description": idea}])
    add_to_queue(knowledge, [{"description": idea} for idea in ideas[len(ideas) // 2 :]])
    assert [item["description"] for item in load_queue(knowledge)] == list(dict.fromkeys(ideas))
