"""The queue's files: what is added, what is refused, how what is written by hand is read, and that copies agree."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.briefing import queued
from lab.errors import SettingError, StoreError
from lab.items import FINISHED, KEYS, OPEN
from lab.journal import Journal
from lab.leases import claim_next_experiment, complete_experiment
from lab.queue import add_to_queue, finished_items, load_queue, read_queue
from lab.schema import CATEGORIES

NEVER_LOST = "mend it, or copy queue.json.bak over it: with the history nothing is lost"


def by_hand(knowledge, *items, **head):
    """Write queue.json as a person would; what an item does not say is filled in."""
    made = [{"id": "a", "created": "2026", "status": "pending", "description": "x"} | item for item in items]
    (knowledge / "queue.json").write_text(json.dumps(head | {"items": made}))


def told(knowledge):
    """(event, owner, ids) of every line of the history."""
    events = Journal(knowledge / "queue-history.jsonl").since(None)[0]
    return [(event["event"], event["owner"], [item["id"] for item in event["items"]]) for event in events]


def test_an_item_is_whole_and_in_the_order_of_adding(tmp_path):
    assert load_queue(tmp_path) == []
    given_ = {"description": "wider MLP", "category": "architecture", "priority": 1, "mine": [1]}
    (first,) = add_to_queue(tmp_path, [given_])
    (second,) = add_to_queue(
        tmp_path, [{"description": "again", "replicates": "abc", "seed": 43, "why": "unclear"}], "ada"
    )
    assert load_queue(tmp_path) == [first, second]
    assert told(tmp_path) == [("add", None, [first["id"]]), ("add", "ada", [second["id"]])]
    assert json.loads((tmp_path / "queue-history.jsonl").read_text().splitlines()[1])["items"] == [first]
    assert first.items() >= given_.items()
    assert list(first) == [*KEYS, "mine"]
    assert (first["status"], first["mode"], first["seed"]) == ("pending", "explore", None)
    assert (second["mode"], second["priority"], second["seed"]) == ("replicate", 5, 43)
    assert queued(tmp_path) == [{"status": "pending", "description": text} for text in ("wider MLP", "again")]


@pytest.mark.parametrize(
    ("status", "there", "new", "added"),
    [
        ("pending", {"description": "Wider  MLP"}, {"description": "wider mlp"}, 0),
        ("claimed", {"description": "wider MLP"}, {"description": "wider MLP"}, 0),
        ("completed", {"description": "wider MLP"}, {"description": "wider MLP"}, 1),
        ("cancelled", {"description": "wider MLP"}, {"description": "wider MLP"}, 1),
        ("pending", {"description": "x", "replicates": "a", "seed": 1}, {"replicates": "a", "seed": 1}, 0),
        ("pending", {"description": "x", "replicates": "a", "seed": 1}, {"replicates": "a", "seed": 2}, 1),
        ("pending", {"description": "x", "replicates": "a"}, {"replicates": "a"}, 0),
        ("pending", {"description": "x"}, {"replicates": "a", "seed": 1}, 1),
    ],
)
def test_what_an_open_item_settles_is_not_added_again(tmp_path, status, there, new, added):
    lease = {"token": 1, "owner": "me", "since": "2026", "deadline": "2026-01-01T00:00:00.000Z"}
    lease = lease if status == "claimed" else None
    by_hand(tmp_path, {"description": "x"} | there | {"status": status, "lease": lease})
    before = (tmp_path / "queue.json").read_bytes()
    assert len(add_to_queue(tmp_path, [{"description": "x"} | new])) == added
    assert len(load_queue(tmp_path)) == added + (status in OPEN)
    assert added or (tmp_path / "queue.json").read_bytes() == before


def test_of_two_alike_in_one_call_one_is_added(tmp_path):
    assert len(add_to_queue(tmp_path, [{"description": "x"}, {"description": "X"}])) == 1


def test_unknown_keys_survive_and_the_previous_copy_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.queue.REWRITE_SECONDS_PER_BYTE", 1000)  # only because it was written by hand
    by_hand(tmp_path, {"mine": 1}, schema=1, later={"x": 1})
    before = (tmp_path / "queue.json").read_bytes()
    (added,) = add_to_queue(tmp_path, [{"description": "y"}])
    now = json.loads((tmp_path / "queue.json").read_text())
    assert (now["schema"], now["later"], now["items"][0]["mine"]) == (2, {"x": 1}, 1)
    assert (tmp_path / "queue.json.bak").read_bytes() == before
    assert [item["id"] for item in load_queue(tmp_path)] == ["a", added["id"]]


def test_what_is_written_by_hand_counts_and_what_has_ended_goes_into_the_history(tmp_path):
    by_hand(tmp_path, {"id": "done", "status": "completed"}, {"id": "next", "depends_on": ["done"], "description": "y"})
    assert read_queue(tmp_path).counts() == dict.fromkeys((*OPEN, *FINISHED), 0) | {"pending": 1, "completed": 1}
    assert claim_next_experiment(tmp_path, "me")["id"] == "next"
    assert [item["id"] for item in finished_items(tmp_path)] == ["done"]
    assert read_queue(tmp_path).counts() == dict.fromkeys((*OPEN, *FINISHED), 0) | {"claimed": 1, "completed": 1}


def test_an_item_taken_out_by_hand_stays_out(tmp_path):
    first, second = add_to_queue(tmp_path, [{"description": "a"}, {"description": "b"}])
    claim_next_experiment(tmp_path, "me")
    queue = json.loads((tmp_path / "queue.json").read_text())
    queue["items"] = queue["items"][1:]
    (tmp_path / "queue.json").write_text(json.dumps(queue))
    assert load_queue(tmp_path) == [second]
    with pytest.raises(SettingError):
        complete_experiment(tmp_path, first["id"], 1)
    add_to_queue(tmp_path, [{"description": "c"}])
    assert [item["description"] for item in load_queue(tmp_path)] == ["b", "c"]


def test_a_change_by_hand_is_seen_by_a_process_that_knows_the_queue(tmp_path):
    add_to_queue(tmp_path, [{"description": "a"}, {"description": "b"}])
    queue = json.loads((tmp_path / "queue.json").read_text())
    queue["items"][1]["priority"] = 1
    (tmp_path / "queue.json").write_text(json.dumps(queue))
    assert claim_next_experiment(tmp_path, "me")["description"] == "b"


@pytest.mark.parametrize("lost", [("queue.json",), ("queue.json", "queue.json.bak"), ("queue.json.lock",)])
def test_the_history_alone_tells_everything(tmp_path, lost):
    (done,) = add_to_queue(tmp_path, [{"description": "done"}])
    complete_experiment(tmp_path, done["id"], claim_next_experiment(tmp_path, "me")["lease"]["token"])
    add_to_queue(tmp_path, [{"description": "a", "depends_on": [done["id"]]}, {"description": "b"}])
    claim_next_experiment(tmp_path, "me")
    before, counts = load_queue(tmp_path), read_queue(tmp_path).counts()
    for name in lost:
        (tmp_path / name).unlink(missing_ok=True)
    assert (load_queue(tmp_path), read_queue(tmp_path).counts()) == (before, counts)
    assert claim_next_experiment(tmp_path, "me")["lease"]["token"] == 3
    assert load_queue(tmp_path)[0] == before[0]


def test_without_the_history_what_is_open_stays(tmp_path):
    (item,) = add_to_queue(tmp_path, [{"description": "a"}])
    (tmp_path / "queue-history.jsonl").unlink()
    assert load_queue(tmp_path) == [item]
    complete_experiment(tmp_path, item["id"], claim_next_experiment(tmp_path, "me")["lease"]["token"], "card")
    assert [item["card"] for item in finished_items(tmp_path)] == ["card"]
    assert load_queue(tmp_path) == []


def test_nobody_shares_what_the_queue_knows(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.queue.REWRITE_SECONDS_PER_BYTE", 0)
    changes = {"DEPTH": 4}
    (added,) = add_to_queue(tmp_path, [{"description": "a", "changes": changes, "cards": ["1f"]}])
    claimed = claim_next_experiment(tmp_path, "me")
    changes["DEPTH"] = 8
    added["cards"].append("2f")
    claimed["lease"]["deadline"] = "0"
    add_to_queue(tmp_path, [{"description": "b", "changes": changes}])
    first = json.loads((tmp_path / "queue.json").read_text())["items"][0]
    assert (first["changes"], first["cards"]) == ({"DEPTH": 4}, ["1f"])
    assert first["lease"]["deadline"] > "2026"


COUNT = "it must be a whole number, 1 or more"
TEXTS = "it must be a list of ids, or null"


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({}, "has description None; it must be text"),
        ({"description": "  "}, "has description '  '; it must be text"),
        ({"priority": -1}, f"has priority -1; {COUNT}"),
        ({"priority": 0}, f"has priority 0; {COUNT}"),
        ({"priority": True}, f"has priority True; {COUNT}"),
        ({"priority": 1.0}, f"has priority 1.0; {COUNT}"),
        ({"max_attempts": 0}, f"has max_attempts 0; {COUNT}"),
        ({"category": "magic"}, f"has category 'magic'; it must be one of {', '.join(CATEGORIES)}"),
        ({"category": ["other"]}, f"has category ['other']; it must be one of {', '.join(CATEGORIES)}"),
        ({"mode": "luck"}, "has mode 'luck'; it must be one of explore, exploit, combine, ablation, replicate"),
        ({"seed": -1}, "has seed -1; it must be a whole number, 0 or more, or null"),
        ({"changes": [1]}, "has changes [1]; it must be an object {CONSTANT: value}, or null"),
        ({"cards": "1f"}, f"has cards '1f'; {TEXTS}"),
        ({"depends_on": [1]}, f"has depends_on [1]; {TEXTS}"),
        ({"replicates": 1}, "has replicates 1; it must be the id of a card, or null"),
        (
            {"requires": "cuda"},
            "has requires 'cuda'; it must be an object with device, min_memory_gb or labels, or null",
        ),
        ({"requires": {"gpu": 1}}, "requires 'gpu'; it must be one of device, min_memory_gb, labels"),
        ({"requires": {"device": None}}, "requires device None; it must be text, such as cuda"),
        ({"requires": {"min_memory_gb": 0}}, "requires min_memory_gb 0; it must be a number above 0"),
        ({"requires": {"labels": "h100"}}, "requires labels 'h100'; it must be a list of texts"),
    ],
)
def test_a_value_that_is_not_allowed_adds_nothing(tmp_path, item, said):
    with pytest.raises(SettingError) as error:
        add_to_queue(tmp_path, [{"description": "fine"}, {"description": "x"} | item if item else item])
    assert str(error.value) == f"an item of the queue {said}"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Path("x"), {1, 2}])
def test_what_json_cannot_hold_adds_nothing(tmp_path, value):
    with pytest.raises(SettingError, match=r"^an item of the queue holds what JSON cannot \(.+\); leave it out$"):
        add_to_queue(tmp_path, [{"description": "fine"}, {"description": "x", "changes": {"LR": value}}])
    assert load_queue(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", " is not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b'{"items": [', " is not JSON (Expecting value: line 1 column 12 (char 11))"),
        (b"[]", " holds a list where an object belongs"),
        (b"{}", ": its items are no list of objects"),
        (b'{"items": [1]}', ": its items are no list of objects"),
        (b'{"items": [{"priority": NaN}]}', ": items[0].priority: nan is not a finite number"),
        (b'{"items": [], "through": "0"}', ": its through is '0'"),
        (b'{"items": [], "token": 1.5}', ": its token is 1.5"),
        (b'{"items": [], "finished": []}', ": its finished is []"),
        (b'{"items": [{}]}', ": items[0] has id None, it must be up to 64 letters, digits, . _ and -"),
    ],
)
def test_a_damaged_queue_is_an_error_and_never_empty(tmp_path, content, what):
    (tmp_path / "queue.json").write_bytes(content)
    for use in (load_queue, lambda knowledge: add_to_queue(knowledge, [{"description": "x"}])):
        with pytest.raises(StoreError) as error:
            use(tmp_path)
        assert str(error.value) == f"{tmp_path / 'queue.json'}{what}; {NEVER_LOST}"
    assert (tmp_path / "queue.json").read_bytes() == content


@pytest.mark.parametrize(
    ("items", "what"),
    [
        (
            [{"status": "done"}],
            "items[0] has status 'done', it must be one of pending, claimed, completed, failed, cancelled",
        ),
        ([{}, {"id": "b", "priority": 0}], "items[1] has priority 0, it must be a whole number, 1 or more"),
        ([{}, {"id": "b"}, {}], "items[0] and items[2] have one id, 'a'"),
        ([{"status": "claimed"}], "items[0] is claimed and has no lease, it must have one, or be pending"),
        (
            [{"lease": {"token": 1, "owner": "me"}}],
            "items[0] has lease {'token': 1, 'owner': 'me'}, it must be an object with a token, an owner and a "
            "deadline such as 2026-03-08T12:00:00.000Z, or null",
        ),
    ],
)
def test_items_that_cannot_be_are_named(tmp_path, items, what):
    by_hand(tmp_path, *items)
    for use in (load_queue, lambda knowledge: claim_next_experiment(knowledge, "me")):
        with pytest.raises(StoreError) as error:
            use(tmp_path)
        assert str(error.value) == f"{tmp_path / 'queue.json'}: {what}; {NEVER_LOST}"


def test_a_newer_schema_and_a_folder_that_is_none_are_refused(tmp_path):
    by_hand(tmp_path, schema=3)
    with pytest.raises(StoreError) as error:
        load_queue(tmp_path)
    path = tmp_path / "queue.json"
    assert str(error.value) == f"{path} has schema 3, this version reads 2; use a newer version"
    with pytest.raises(StoreError) as error:
        load_queue(path)
    assert str(error.value) == f"cannot read {path / 'queue.json'}: Not a directory; make it a file that you may read"


@pytest.mark.parametrize(
    "line", [b"{}", b'{"items": 1}', b'{"items": [{}]}', b'{"items": [{"id": "a", "description": ""}]}']
)
def test_a_line_that_is_no_change_is_an_error(tmp_path, line):
    add_to_queue(tmp_path, [{"description": "x"}])
    path, queue = tmp_path / "queue-history.jsonl", json.loads((tmp_path / "queue.json").read_text())
    path.write_bytes(path.read_bytes() + line + b"\n")
    remedy = "mend it, or move it away: what is open in queue.json stays"
    for use in (load_queue, lambda knowledge: claim_next_experiment(knowledge, "me")):
        with pytest.raises(StoreError) as error:
            use(tmp_path)
        said = f"{path}: a line behind position {queue['through']} is no change of the queue; {remedy}"
        assert str(error.value) == said
    path.rename(tmp_path / "away")
    assert claim_next_experiment(tmp_path, "me")["description"] == "x"


@settings(max_examples=20, deadline=None)  # each waits for the disk
@given(st.lists(st.sampled_from("abcde"), max_size=12))
def test_any_adding_leaves_one_open_item_for_a_question(tmp_path_factory, ideas):
    knowledge = tmp_path_factory.mktemp("queue")
    for idea in ideas[: len(ideas) // 2]:
        add_to_queue(knowledge, [{"description": idea}])
    add_to_queue(knowledge, [{"description": idea} for idea in ideas[len(ideas) // 2 :]])
    assert [item["description"] for item in load_queue(knowledge)] == list(dict.fromkeys(ideas))


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "x"}',
        '{"items": ["a"]}',
        '{"items": [{"id": 5, "status": "completed", "description": "x"}]}',
        '{"items": [{"id": "q", "status": "completed"}]}',
        '{"items": [{"id": "q", "created": "2026", "status": "completed", "description": "x", "finished": 5}]}',
    ],
)
def test_a_line_of_the_history_that_tells_of_no_item_is_one_clear_line(tmp_path, line):
    add_to_queue(tmp_path, [{"description": "a"}])
    path = tmp_path / "queue-history.jsonl"
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(StoreError) as refused:
        finished_items(tmp_path)
    assert str(refused.value) == (
        f"{path}: a line is no change of the queue; mend it, or move it away: what is open in queue.json stays"
    )


def test_counts_of_what_has_ended_are_numbers(tmp_path):
    by_hand(tmp_path, {}, finished={"completed": "x"}, through=0)
    with pytest.raises(StoreError) as refused:
        load_queue(tmp_path)
    assert str(refused.value) == f"{tmp_path}/queue.json: its finished is {{'completed': 'x'}}; {NEVER_LOST}"
