"""Who works on what: every rule of a lease, its boundaries, and the whole of it against a model in memory."""

import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import lab.queue
from lab.cards import utc_now
from lab.errors import LeaseError, SettingError
from lab.items import FINISHED, OPEN
from lab.journal import Journal
from lab.leases import (
    MARGIN_SECONDS,
    cancel,
    claim_next_experiment,
    complete_experiment,
    fail_experiment,
    heartbeat,
    lease_seconds,
    prune,
    release,
    requeue,
    waits_for,
)
from lab.queue import add_to_queue, finished_items, load_queue, read_queue
from lab.schema import CATEGORIES

ROOT = Path(__file__).parent.parent


def add(knowledge, *descriptions, **more):
    return [item["id"] for item in add_to_queue(knowledge, [{"description": text} | more for text in descriptions])]


def claim(knowledge, owner="ada", **more):
    """(id, token) of what is claimed."""
    item = claim_next_experiment(knowledge, owner, **more)
    return item and (item["id"], item["lease"]["token"])


def look(knowledge, name):
    """The item as a process that has just started finds it."""
    return next(item for item in (*load_queue(knowledge), *finished_items(knowledge)) if item["id"] == name)


def put(knowledge, name, **values):
    """Write queue.json as a person would who changes an item and leaves out how much of the history is in it."""
    items = [item | values if item["id"] == name else item for item in load_queue(knowledge)]
    (knowledge / "queue.json").write_text(json.dumps({"items": items}))


def refused(kind, use):
    with pytest.raises(kind) as error:
        use()
    assert type(error.value) is kind
    return str(error.value)


ENDS = {
    "heartbeat": heartbeat,
    "complete": complete_experiment,
    "fail": lambda knowledge, name, lease, **more: fail_experiment(knowledge, name, lease, "broke", **more),
    "release": release,
}


def test_a_claim_is_a_lease_with_owner_and_deadline(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", "60")
    (name,) = add(tmp_path, "a")
    item = claim_next_experiment(tmp_path, "ada", pid=os.getpid())
    assert item == look(tmp_path, name)
    assert (item["status"], item["attempts"]) == ("claimed", 1)
    lease = item["lease"]
    assert (lease["token"], lease["owner"], lease["pid"]) == (1, "ada", os.getpid())
    since, deadline = (datetime.strptime(lease[key], "%Y-%m-%dT%H:%M:%S.%f%z") for key in ("since", "deadline"))
    assert timedelta(0) <= deadline - since - timedelta(seconds=60 + MARGIN_SECONDS) < timedelta(seconds=5)
    assert claim(tmp_path, "bob") is None


def test_by_priority_then_by_age_then_in_the_order_of_adding(tmp_path):
    add(tmp_path, "c", "d")
    add(tmp_path, "b", priority=2)
    add(tmp_path, "a", priority=1)
    add(tmp_path, "e")
    claimed = [claim_next_experiment(tmp_path, "ada") for _ in "abcde"]
    assert [item["description"] for item in claimed] == list("abcde")
    for item in reversed(claimed):
        release(tmp_path, item["id"], item["lease"]["token"])
    assert [claim_next_experiment(tmp_path, "ada")["description"] for _ in "abcde"] == list("abcde")


@pytest.mark.parametrize(
    ("requires", "offered", "to_be_had"),
    [
        (None, {}, True),
        ({}, {}, True),
        ({"device": "cuda"}, {}, False),
        ({"device": "cuda"}, {"device": "cpu"}, False),
        ({"device": "cuda"}, {"device": "cuda"}, True),
        ({"min_memory_gb": 40}, {}, False),
        ({"min_memory_gb": 40}, {"memory_gb": 39.9}, False),
        ({"min_memory_gb": 40}, {"memory_gb": 40}, True),
        ({"labels": ["h100", "fast"]}, {"labels": ["h100"]}, False),
        ({"labels": ["h100", "fast"]}, {"labels": ("fast", "h100", "big")}, True),
        ({"labels": []}, {}, True),
        ({"device": "cuda", "min_memory_gb": 40, "labels": ["x"]}, {"device": "cuda", "memory_gb": 80}, False),
    ],
)
def test_only_what_the_machine_can_do(tmp_path, requires, offered, to_be_had):
    add(tmp_path, "a", requires=requires, priority=1)
    (other,) = add(tmp_path, "b")
    assert (claim(tmp_path, **offered)[0] != other) is to_be_had


def test_without_an_agent_only_what_says_what_to_do(tmp_path):
    add(tmp_path, "an idea", priority=1)
    (change,) = add(tmp_path, "wider", changes={"WIDTH": 8})
    (repeat,) = add(tmp_path, "again", replicates="1f0c")
    assert [claim(tmp_path, agent=False) for _ in "123"] == [(change, 1), (repeat, 2), None]
    assert claim_next_experiment(tmp_path, "ada")["description"] == "an idea"


def test_only_of_the_category_asked_for(tmp_path):
    add(tmp_path, "a", category="optimizer")
    add(tmp_path, "b")
    assert claim(tmp_path, category="attention") is None
    assert claim_next_experiment(tmp_path, "ada", category="optimizer")["description"] == "a"
    said = refused(SettingError, lambda: claim(tmp_path, category="magic"))
    assert said == f"no category 'magic'; the categories are {', '.join(CATEGORIES)}"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e30])
def test_a_lease_that_cannot_be(tmp_path, seconds):
    (name,) = add(tmp_path, "a")
    said = f"a lease of {seconds!r} s; it must be a number above 0 and up to 1e+08"
    assert refused(SettingError, lambda: claim(tmp_path, seconds=seconds)) == said
    assert refused(SettingError, lambda: heartbeat(tmp_path, name, 1, seconds=seconds)) == said
    assert refused(SettingError, lambda: claim(tmp_path, " ")) == "the owner of a lease is ' '; it must be text"
    assert look(tmp_path, name)["status"] == "pending"


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf", "five"])
def test_a_time_budget_that_is_none(tmp_path, monkeypatch, budget):
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", budget)
    said = f"AUTORESEARCH_TIME_BUDGET={budget!r} is not a number of seconds above 0"
    assert refused(SettingError, lease_seconds) == said
    assert refused(SettingError, lambda: claim(tmp_path)) == said


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf")])
def test_days_that_cannot_be(tmp_path, days):
    assert (
        refused(SettingError, lambda: prune(tmp_path, days))
        == f"days: {days!r} is not a number above 0 and up to 10000"
    )


def test_a_heartbeat_renews_the_lease(tmp_path):
    name, token = add(tmp_path, "a") and claim(tmp_path, seconds=1)
    before = look(tmp_path, name)["lease"]
    after = heartbeat(tmp_path, name, token, seconds=1000)["lease"]
    assert after == look(tmp_path, name)["lease"]
    assert after == before | {"deadline": after["deadline"]}
    assert after["deadline"] > utc_now(900)


def test_what_becomes_of_an_item(tmp_path):
    done, again, given_back, stopped = add(tmp_path, "a", "b", "c", "d")
    tokens = dict(claim(tmp_path) for _ in range(4))
    assert list(tokens) == [done, again, given_back, stopped]
    assert complete_experiment(tmp_path, done, tokens[done], "1f0c") == look(tmp_path, done)
    fail_experiment(tmp_path, again, tokens[again], "it broke")
    release(tmp_path, given_back, tokens[given_back])
    cancel(tmp_path, stopped, "no use", owner="bob")
    found = {name: look(tmp_path, name) for name in tokens}
    shown = {name: (item["status"], item["attempts"], item["reason"]) for name, item in found.items()}
    assert shown == {
        done: ("completed", 1, None), again: ("pending", 1, "it broke"), given_back: ("pending", 0, None),
        stopped: ("cancelled", 1, "no use"),
    }  # fmt: skip
    assert [found[done]["card"], found[stopped]["card"]] == ["1f0c", None]
    assert found[done]["finished"] <= found[stopped]["finished"] <= utc_now()
    assert [found[again]["lease"], found[given_back]["lease"]] == [None, None]
    events = Journal(tmp_path / "queue-history.jsonl").since(None)[0]
    assert [(event["event"], event["owner"]) for event in events] == [
        ("add", None), *[("claim", "ada")] * 4,
        ("complete", "ada"), ("fail", "ada"), ("release", "ada"), ("cancel", "bob"),
    ]  # fmt: skip
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)


def test_an_item_has_failed_when_its_attempts_are_used_up(tmp_path):
    (name,) = add(tmp_path, "a", max_attempts=2)
    for status in ("pending", "failed"):
        assert (
            fail_experiment(tmp_path, *claim(tmp_path), "broke")["status"] == status == look(tmp_path, name)["status"]
        )
    assert claim(tmp_path) is None
    requeue(tmp_path, name)
    assert look(tmp_path, name)["attempts"] == 0
    assert fail_experiment(tmp_path, *claim(tmp_path), "broke", retry=False)["status"] == "failed"
    assert look(tmp_path, name)["reason"] == "broke"


def test_a_lease_ends_at_its_deadline_and_not_before(tmp_path, monkeypatch):
    name, token = add(tmp_path, "a") and claim(tmp_path, seconds=60)
    deadline = look(tmp_path, name)["lease"]["deadline"]
    moment = datetime.strptime(deadline, "%Y-%m-%dT%H:%M:%S.%f%z").replace(tzinfo=timezone.utc)

    def at(milliseconds):
        nanoseconds = round(moment.timestamp() * 1000 + milliseconds) * 1_000_000
        monkeypatch.setattr("lab.cards.time.time_ns", lambda: nanoseconds)

    at(0)
    assert claim(tmp_path, "bob") is None
    heartbeat(tmp_path, name, token, seconds=0.001)
    at(1)
    assert claim(tmp_path, "bob") is None
    at(2)
    late = f"lease {token} of item {name} ran out at {look(tmp_path, name)['lease']['deadline']}; claim it again"
    for use in ENDS.values():
        assert refused(LeaseError, lambda use=use: use(tmp_path, name, token)) == late
    assert claim(tmp_path, "bob") == (name, token + 1)
    reason = "attempt 1 of 3: the lease of ada ran out"
    assert (look(tmp_path, name)["attempts"], look(tmp_path, name)["reason"]) == (2, reason)


def test_the_last_attempt_that_runs_out_has_failed(tmp_path):
    (name,) = add(tmp_path, "a", max_attempts=1)
    claim(tmp_path)
    long_ago = "2020-01-01T00:00:00.000Z"
    put(tmp_path, name, lease={"token": 1, "owner": "ada", "since": long_ago, "deadline": long_ago})
    assert claim(tmp_path) is None
    assert look(tmp_path, name)["status"] == "failed"
    assert look(tmp_path, name)["reason"] == "attempt 1 of 1: the lease of ada ran out"


@pytest.mark.skipif(os.name != "posix", reason="whether a process lives")
@pytest.mark.parametrize(("machine", "returns"), [(None, True), ("another", False)])
def test_a_lease_ends_with_its_process_on_this_machine(tmp_path, monkeypatch, machine, returns):
    (name,) = add(tmp_path, "a")
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    claim(tmp_path, pid=process.pid)
    assert claim(tmp_path, "bob") is None
    process.kill()
    process.communicate()
    if machine:
        monkeypatch.setenv("AUTORESEARCH_MACHINE", machine)
    assert claim(tmp_path, "bob") == ((name, 2) if returns else None)


@pytest.mark.parametrize("end", ENDS)
def test_only_with_the_lease_that_holds(tmp_path, end):
    (name,) = add(tmp_path, "a")
    use = ENDS[end]
    said = refused(LeaseError, lambda: use(tmp_path, name, 1))
    assert said == f"lease 1 of item {name} is over: it waits in the queue again; claim it again"
    release(tmp_path, *claim(tmp_path, "ada"))
    claim(tmp_path, "bob")
    before = (load_queue(tmp_path), (tmp_path / "queue-history.jsonl").read_bytes())
    said = refused(LeaseError, lambda: use(tmp_path, name, 1))
    assert said == f"lease 1 of item {name} is over: bob holds lease 2 now; leave it"
    said = refused(LeaseError, lambda: use(tmp_path, name, 2, owner="ada"))
    assert said == f"item {name} is held by bob, not by ada; only its holder may do this"
    said = refused(SettingError, lambda: use(tmp_path, "nothing", 2))
    assert said == "no item 'nothing' in the queue; `director.py list` lists them"
    assert (load_queue(tmp_path), (tmp_path / "queue-history.jsonl").read_bytes()) == before
    use(tmp_path, name[:8], 2, owner="bob")
    cancel(tmp_path, name) if end != "complete" else None
    said = refused(LeaseError, lambda: use(tmp_path, name, 2))
    status = "completed" if end == "complete" else "cancelled"
    assert said == f"lease 2 of item {name} is over: it is {status} already; leave it"


def test_an_item_is_named_by_the_beginning_of_its_id(tmp_path):
    add(tmp_path, "x")
    names = {"ab1": "pending", "ab2": "pending", "ab": "pending", "b": "completed"}
    items = [{"id": name, "created": "2026", "status": status, "description": name} for name, status in names.items()]
    (tmp_path / "queue.json").write_text(json.dumps({"items": items}))
    assert refused(SettingError, lambda: cancel(tmp_path, "a")) == "'a' names 3 items; give more of the id, such as ab1"
    assert (
        refused(SettingError, lambda: cancel(tmp_path, "")) == "no item '' in the queue; `director.py list` lists them"
    )
    assert cancel(tmp_path, "ab")["id"] == "ab"
    assert cancel(tmp_path, "ab2")["id"] == "ab2"
    said = refused(SettingError, lambda: cancel(tmp_path, "ab2"))
    assert said == "item ab2 is cancelled already; `director.py requeue` runs it again"
    assert requeue(tmp_path, "ab2")["status"] == "pending"
    said = refused(SettingError, lambda: requeue(tmp_path, "ab2"))
    assert said == "item ab2 is pending, not ended; only what has ended can be requeued"
    assert refused(SettingError, lambda: requeue(tmp_path, "c")).startswith("no item 'c' in the queue; ")


def forget_the_process():
    lab.queue._known.clear()


TROUBLES = {
    "queue.json is gone": lambda knowledge, name: (knowledge / "queue.json").unlink(),
    "and so is its copy": lambda knowledge, name: [path.unlink() for path in knowledge.glob("queue.json*")],
    "the copy is put back": lambda knowledge, name: os.replace(knowledge / "queue.json.bak", knowledge / "queue.json"),
    "written by hand": lambda knowledge, name: put(knowledge, name),
    "all has ended": lambda knowledge, name: requeue(knowledge, cancel(knowledge, name)["id"]),
    "the past is dropped": lambda knowledge, name: prune(knowledge, 1e-9),
    "dropped, and queue.json gone": lambda knowledge, name: (
        prune(knowledge, 1e-9),
        (knowledge / "queue.json").unlink(),
    ),
    "dropped, and written by hand": lambda knowledge, name: (prune(knowledge, 1e-9), put(knowledge, name)),
    "the history is gone": lambda knowledge, name: (knowledge / "queue-history.jsonl").unlink(),
}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_tokens_grow_whatever_happens(tmp_path, monkeypatch, trouble, known):
    monkeypatch.setattr("lab.queue.REWRITE_SECONDS_PER_BYTE", 0)
    (name, other) = add(tmp_path, "a", "b")
    old = claim(tmp_path)
    release(tmp_path, *old)
    complete_experiment(tmp_path, other, [claim(tmp_path), claim(tmp_path)][1][1])
    release(tmp_path, name, 2)
    TROUBLES[trouble](tmp_path, name)
    known or forget_the_process()
    assert claim(tmp_path, "bob") == (name, 4)
    for token in (1, 2):
        assert "bob holds lease 4 now" in refused(
            LeaseError, lambda token=token: complete_experiment(tmp_path, name, token)
        )


def test_what_depends_on_others_waits_for_them(tmp_path):
    (first,) = add(tmp_path, "first")
    (second,) = add(tmp_path, "second", depends_on=[first], priority=1)
    (third,) = add(tmp_path, "third", depends_on=[first, second], priority=1)

    def waiting(name):
        return waits_for(read_queue(tmp_path), look(tmp_path, name))

    assert (waiting(second), waiting(third)) == ({first: "pending"}, {first: "pending", second: "pending"})
    lease = claim(tmp_path)
    assert (lease[0], waiting(second), claim(tmp_path)) == (first, {first: "claimed"}, None)
    fail_experiment(tmp_path, *lease, "broke", retry=False)
    assert (waiting(second), claim(tmp_path)) == ({first: "failed"}, None)
    requeue(tmp_path, first)
    assert waiting(second) == {first: "pending"}
    complete_experiment(tmp_path, *claim(tmp_path))
    forget_the_process()
    assert (waiting(second), waiting(third)) == ({}, {second: "pending"})
    cancel(tmp_path, second)
    assert (waiting(third), claim(tmp_path)) == ({second: "cancelled"}, None)
    requeue(tmp_path, second)
    prune(tmp_path, 1e-9)
    complete_experiment(tmp_path, *claim(tmp_path))
    assert claim(tmp_path)[0] == third


def test_an_item_is_requeued_with_what_it_depends_on(tmp_path):
    (first,) = add(tmp_path, "first")
    (second,) = add(tmp_path, "second", depends_on=[first])
    complete_experiment(tmp_path, *claim(tmp_path))
    fail_experiment(tmp_path, *claim(tmp_path), "broke", retry=False)
    requeue(tmp_path, second)
    assert claim(tmp_path)[0] == second
    cancel(tmp_path, second)
    requeue(tmp_path, first)
    requeue(tmp_path, second)
    assert claim(tmp_path)[0] == first
    cancel(tmp_path, first)
    cancel(tmp_path, second)
    said = f"depends_on: {first!r} is cancelled; requeue it first; `director.py list` lists what is open"
    assert refused(SettingError, lambda: requeue(tmp_path, second)) == said
    assert look(tmp_path, second)["status"] == "cancelled"


def test_what_will_never_be_completed_cannot_be_depended_on(tmp_path):
    done, failed = add(tmp_path, "done", "failed")
    complete_experiment(tmp_path, *claim(tmp_path))
    fail_experiment(tmp_path, *claim(tmp_path), "broke", retry=False)
    add(tmp_path, "fine", depends_on=[done])
    for name, what in ((failed, "is failed; requeue it first"), ("nothing", "is not in the queue")):
        said = f"depends_on: {name!r} {what}; `director.py list` lists what is open"
        assert refused(SettingError, lambda name=name: add(tmp_path, "x", depends_on=[done, name])) == said
    assert len(load_queue(tmp_path)) == 1


def test_the_past_can_be_dropped(tmp_path):
    old, new, waits = add(tmp_path, "old", "new", "waits")
    complete_experiment(tmp_path, *claim(tmp_path))
    time.sleep(0.002)  # the two end at different times
    complete_experiment(tmp_path, *claim(tmp_path))
    history = tmp_path / "queue-history.jsonl"
    finished = look(tmp_path, old)["finished"]
    history.write_text(history.read_text().replace(finished, f"2020{finished[4:]}"))
    before = load_queue(tmp_path)
    assert (prune(tmp_path, 30), prune(tmp_path, 30)) == (1, 0)
    assert [item["id"] for item in finished_items(tmp_path)] == [new]
    assert old not in history.read_text()
    assert (load_queue(tmp_path), claim(tmp_path)) == (before, (waits, 3))
    assert "is not in the queue" in refused(SettingError, lambda: add(tmp_path, "x", depends_on=[old]))
    assert refused(SettingError, lambda: requeue(tmp_path, old)).startswith(f"no item '{old}' in the queue")


def test_what_still_counts_of_what_was_dropped_is_the_last_line(tmp_path):
    (first,) = add(tmp_path, "first")
    (second,) = add(tmp_path, "second", depends_on=[first])
    complete_experiment(tmp_path, *claim(tmp_path))
    time.sleep(0.002)
    assert prune(tmp_path, 1e-9, owner="bob") == 1
    events = Journal(tmp_path / "queue-history.jsonl").since(None)[0]
    assert [(event["event"], event["owner"]) for event in events] == [("add", None), ("prune", "bob")]
    put(tmp_path, second)
    assert waits_for(read_queue(tmp_path), look(tmp_path, second)) == {}
    (tmp_path / "queue.json").unlink()
    assert claim(tmp_path) == (second, 2)


def test_one_who_writes_the_queue_by_hand_need_not_tell_what_has_ended(tmp_path):
    first, failed = add(tmp_path, "first", "failed")
    (second,) = add(tmp_path, "second", depends_on=[first, failed])
    complete_experiment(tmp_path, *claim(tmp_path))
    fail_experiment(tmp_path, *claim(tmp_path), "broke", retry=False)
    put(tmp_path, second, priority=1)
    assert waits_for(read_queue(tmp_path), look(tmp_path, second)) == {failed: "failed"}
    requeue(tmp_path, failed)
    assert waits_for(read_queue(tmp_path), look(tmp_path, second)) == {failed: "pending"}


class QueueMachine(RuleBasedStateMachine):
    """The whole queue against a dictionary; a new reader must say the same after each step, whatever files are lost."""

    knowledge: Path  # set by the test: a new folder for each example
    number = 0

    def __init__(self):
        super().__init__()
        QueueMachine.number += 1
        self.folder = self.knowledge / str(QueueMachine.number)
        self.items, self.gone, self.token, self.added = {}, set(), 0, 0

    def named(self, data, *statuses):
        names = [name for name in self.items if name not in self.gone and self.items[name]["status"] in statuses]
        return names[data.draw(st.integers(0, len(names) - 1))] if names else None

    @rule(data=st.data(), priority=st.integers(1, 3), attempts=st.integers(1, 2))
    def add(self, data, priority, attempts):
        needed = self.named(data, *OPEN, "completed") if data.draw(st.booleans()) else None
        depends_on = [needed] if needed else None
        self.added += 1
        item = {"description": f"idea {self.added}", "priority": priority, "max_attempts": attempts}
        (item,) = add_to_queue(self.folder, [item | {"depends_on": depends_on}])
        self.items[item["id"]] = item

    @rule()
    def claim(self):
        ready = [item for item in self.items.values() if item["status"] == "pending"
                 and all(self.items[name]["status"] == "completed" for name in item["depends_on"] or ())]  # fmt: skip
        got = claim_next_experiment(self.folder, "ada")
        assert (got is None) == (not ready)
        if got:
            first = min((item["priority"], item["created"]) for item in ready)
            assert (got["priority"], got["created"]) == first
            assert got["lease"]["token"] == self.token + 1
            self.token += 1
            mine = self.items[got["id"]]
            assert got == mine | {"status": "claimed", "attempts": mine["attempts"] + 1, "lease": got["lease"]}
            self.items[got["id"]] = got

    @rule(data=st.data(), end=st.sampled_from(list(ENDS)), late=st.booleans())
    def end(self, data, end, late):
        name = self.named(data, "claimed")
        if name is None:
            return
        item = self.items[name]
        token = item["lease"]["token"]
        if late:
            said = refused(LeaseError, lambda: ENDS[end](self.folder, name, token - 1))
            assert said == f"lease {token - 1} of item {name} is over: ada holds lease {token} now; leave it"
            return
        got = ENDS[end](self.folder, name, token)
        used_up = item["attempts"] == item["max_attempts"]
        change = {
            "heartbeat": {"lease": item["lease"] | {"deadline": got["lease"] and got["lease"]["deadline"]}},
            "complete": {"status": "completed", "card": None, "reason": None},
            "release": {"status": "pending", "lease": None, "attempts": item["attempts"] - 1},
            "fail": {"status": "failed", "reason": "broke", "card": None} if used_up
                    else {"status": "pending", "reason": "broke", "lease": None},
        }[end]  # fmt: skip
        finished = {"finished": got["finished"]} if "finished" in got else {}
        assert got == item | change | finished
        self.items[name] = got

    @rule(data=st.data())
    def cancel(self, data):
        if name := self.named(data, *OPEN):
            self.items[name] = cancel(self.folder, name, "no use")
            assert self.items[name]["status"] == "cancelled"

    @rule(data=st.data())
    def requeue(self, data):
        if not (name := self.named(data, *FINISHED)):
            return
        item = self.items[name]
        needed = {needed: self.items[needed]["status"] for needed in item["depends_on"] or ()}
        if any(status not in OPEN and (status != "completed" or name in self.gone) for name, status in needed.items()):
            assert refused(SettingError, lambda: requeue(self.folder, name)).startswith("depends_on: ")
            return
        again = {"status": "pending", "attempts": 0, "lease": None, "reason": None}
        self.items[name] = {key: item[key] for key in item if key not in ("finished", "card")} | again
        assert requeue(self.folder, name) == self.items[name]

    @rule()
    def prune(self):
        ended = {name for name, item in self.items.items() if item["status"] in FINISHED} - self.gone
        time.sleep(0.002)  # what ended in this millisecond would stay
        assert prune(self.folder, 1e-9) == len(ended)
        self.gone |= ended

    @rule()
    def another_process(self):
        forget_the_process()

    @rule(name=st.sampled_from(["queue.json", "queue.json.bak"]))
    def lose(self, name):
        (self.folder / name).unlink(missing_ok=True)

    @precondition(lambda self: (self.folder / "queue.json.bak").exists())
    @rule()
    def go_back_to_the_copy(self):
        (self.folder / "queue.json").write_bytes((self.folder / "queue.json.bak").read_bytes())

    @rule()
    def tear(self):
        if (path := self.folder / "queue-history.jsonl").exists():
            with open(path, "ab") as file:
                file.write(b'{"at": "2026')

    @invariant()
    def files_say_what_was_done(self):
        items = [item for item in self.items.values() if item["status"] in OPEN]
        assert sorted(load_queue(self.folder), key=lambda item: item["id"]) == sorted(
            items, key=lambda item: item["id"]
        )
        queue = read_queue(self.folder)
        assert queue.token == self.token or not self.folder.exists()
        assert {item["id"]: item for item in finished_items(self.folder)} == {
            name: item for name, item in self.items.items() if item["status"] in FINISHED and name not in self.gone
        }
        assert {place[-1] for place in queue.waiting} == {item["id"] for item in items if item["status"] == "pending"}


def test_the_whole_of_it_against_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.queue.REWRITE_SECONDS_PER_BYTE", 1e-6)
    QueueMachine.knowledge = tmp_path
    QueueMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
    QueueMachine.TestCase("runTest").runTest()
