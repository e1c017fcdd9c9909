"""What the commons knows: champions, coverage, near misses, dead ends, and what goes on now."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab import briefing, facts
from lab.cards import add_card, join
from lab.errors import CardError, LabError, SettingError
from lab.index import Index
from lab.notes import add_note
from lab.schema import CATEGORIES


class Commons:
    """A commons that grows by one run a second; ids are 0000000000000001, ..."""

    def __init__(self, knowledge):
        self.knowledge = knowledge
        self.runs = 0

    def run(self, status, result=None, delta=None, *, metric="val_bpb", track="t", **values):
        """Add a run; the last characters of its id."""
        self.runs += 1
        about = {"id": f"{self.runs:016x}", "timestamp": f"2026-01-31T12:00:{self.runs:02d}.000Z"}
        results = {metric: result, "delta": delta}
        about |= {"status": status, "results": results, "track": track, "metric": metric}
        return add_card(self.knowledge, about | values)["id"][-1]

    def say(self, name, kind, **fields):
        """Add an event to a card."""
        with Index(self.knowledge) as index:
            join(self.knowledge, index.read(f"{int(name, 16):016x}"), kind, fields)

    def ask(self, question, *arguments, **options):
        """Ask `facts`."""
        with Index(self.knowledge) as index:
            return getattr(facts if hasattr(facts, question) else briefing, question)(index, *arguments, **options)

    def champion(self, track="t"):
        """The champion's last character."""
        best = self.ask("champion", track)
        return best and best["id"][-1]


@pytest.fixture
def commons(tmp_path):
    return Commons(tmp_path / "knowledge")


def last(rows):
    """The last characters of the ids."""
    return "".join(row["id"][-1] for row in rows)


# Champion and track.


@pytest.mark.parametrize(("direction", "best"), [("min", "2"), ("max", "3")])
def test_the_champion_is_the_best_kept_run_of_the_track(commons, direction, best):
    for status, result in (("keep", 0.5), ("keep", 0.3), ("keep", 0.9), ("revert", 0.1), ("revert", 1.0)):
        commons.run(status, result, metric="score", direction=direction)
    commons.run("keep", 0.0 if direction == "min" else 2.0, metric="score", direction=direction, track="other")
    assert (commons.champion(), commons.champion("none"), commons.champion(None)) == (best, None, None)


def test_of_equal_results_the_first_is_the_champion(commons):
    commons.run("keep", 1.0)
    commons.run("keep", 0.9, id="f" * 16)
    commons.run("keep", 0.9, id="e" * 16)
    assert commons.champion() == "f"


def test_the_champion_is_who_is_believed_to_be_best_not_the_luckiest(commons):
    commons.run("keep", 1.0, preset="gpu")
    for result in (0.9984, 0.9976, 0.9992, 0.9980, 0.9988):
        commons.run("keep" if result == 0.9984 else "revert", result, edit_key="k", preset="gpu")
    commons.run("keep", 0.9983, preset="gpu", decision={"status": "keep", "reason": "x", "champion": f"{1:016x}"})
    best = commons.ask("champion", "t")
    assert (best["id"][-1], best["result"], best["runs"]) == ("2", 0.9984, 5)
    assert best["mean"] == pytest.approx(0.9985, abs=0.0002) and 0.0001 < best["sd"] < 0.0005
    assert commons.ask("track_noise", "t").basis == "from 5 repeats of one edit"


def test_where_nothing_tells_the_noise_the_champion_is_the_smallest_result(commons):
    commons.run("keep", 0.0)
    best = commons.ask("champion", "t")
    assert (best["id"][-1], best["mean"], best["sd"], best["runs"]) == ("1", None, None, 1)
    assert commons.ask("track_noise", "t") == commons.ask("track_noise", None) == (None, "no results yet")


def test_a_retracted_run_is_no_champion_and_a_suspect_one_only_when_confirmed(commons):
    commons.run("keep", 1.0)
    commons.run("keep", 0.9, quarantined="tokens/s half of the usual")
    commons.run("keep", 0.8)
    commons.say("3", "retract", reason="a leak")
    assert commons.champion() == "1"
    assert last(commons.ask("suspects", "t")) == "2"
    commons.say("2", "confirm")
    assert (commons.champion(), commons.ask("suspects", "t")) == ("2", [])
    assert commons.ask("champion", "t")["confirmed"] == 1
    commons.say("3", "confirm")
    assert commons.champion() == "2"  # a retraction stays


def test_runs_without_a_track_have_no_champion(commons):
    commons.run("keep", 1.0, track=None)
    assert (commons.champion(None), commons.ask("main_track"), commons.ask("tracks_of")) == (None, None, [])


def test_the_track_worked_on(commons):
    assert commons.ask("main_track") is None
    for track in ("climb/H100", "climb/cpu", "climb/H100-2", None):
        commons.run("crash", track=track)
    assert commons.ask("main_track") == "climb/H100-2"
    assert commons.ask("main_track", "cpu") == "climb/cpu"
    assert commons.ask("main_track", "climb/H100") == "climb/H100"  # the whole name of one, though part of two
    for wanted, which in (("climb", "several"), ("tpu", "none"), ("H100\n", "none")):
        with pytest.raises(SettingError) as caught:
            commons.ask("main_track", wanted)
        listed = "climb/H100, climb/H100-2, climb/cpu"
        assert str(caught.value) == f"--track {wanted!r} is {which} of the tracks: {listed}"


def test_tracks(commons):
    commons.run("keep", 0.5, track="b", metric="score", direction="max")
    commons.run("keep", 1.0)
    commons.run("crash")
    assert commons.ask("tracks_of") == [
        {"track": "t", "runs": 2, "kept": 1, "crashes": 1, "direction": "min"},
        {"track": "b", "runs": 1, "kept": 1, "crashes": 0, "direction": "max"},
    ]


# Ids.


def test_find_id(commons):
    commons.run("keep", 1.0, id="abc0" * 4)
    commons.run("keep", 1.0, id="abc1" * 4)
    commons.run("keep", 1.0, id="abc0" * 5)
    assert commons.ask("find_id", "abc1") == "abc1" * 4
    assert commons.ask("find_id", "last") == "abc0" * 5
    where = "`commons.py history` lists the cards, `commons.py search` finds words"
    for name, message in (
        ("abc0", f"'abc0' names 2 cards; give more of the id, such as {'abc0' * 4}"),
        ("abcd", f"no card 'abcd'; {where}"),
        ("", f"no card ''; {where}"),
        ("z\n", f"no card 'z\\n'; {where}"),
    ):
        with pytest.raises(CardError) as caught:
            commons.ask("find_id", name)
        assert str(caught.value) == message
    note = add_note(commons.knowledge, "question", "why?")["id"]
    assert commons.ask("find_id", note[:6], "notes") == commons.ask("find_id", "last", "notes") == note
    with pytest.raises(CardError, match=r"^no note 'zz'; "):
        commons.ask("find_id", "zz", "notes")


# What was tried.


def test_coverage(commons):
    commons.run("keep", 1.0, category="optimizer")
    commons.run("revert", 1.1, 0.1, category="optimizer")
    commons.run("keep", 0.9, -0.1, category="optimizer")
    commons.run("keep", 0.1, -0.9, category="optimizer")
    commons.run("crash", category="attention")
    commons.run("inconclusive", 1.0)
    commons.run("keep", 0.2, category="activation", track="other")
    commons.say("4", "retract", reason="a leak")
    found = commons.ask("coverage", "t")
    assert list(found)[: len(CATEGORIES)] == list(CATEGORIES)
    assert found["optimizer"] == {"count": 3, "kept": 2, "crashed": 0, "best_delta": -0.1, "best_bpb": 0.9}
    assert found["attention"] == {"count": 1, "kept": 0, "crashed": 1, "best_delta": None, "best_bpb": None}
    assert found["other"]["count"] == 1 and found["activation"]["count"] == 0
    assert commons.ask("coverage")["activation"]["kept"] == 1


def test_coverage_of_a_metric_that_should_be_large(commons):
    for result, delta in ((0.5, None), (0.7, 0.2), (0.4, -0.3)):
        commons.run("keep", result, delta, metric="score", direction="max", category="other", tags=["a"])
    assert commons.ask("coverage", "t")["other"] == {
        "count": 3, "kept": 3, "crashed": 0, "best_delta": 0.2, "best_bpb": 0.7,
    }  # fmt: skip
    assert commons.ask("tag_coverage") == {"a": {"count": 3, "kept": 3, "best_delta": 0.2, "best_bpb": 0.7}}


def test_tags(commons):
    commons.run("keep", 1.0, tags=["b", "a", "b"])
    commons.run("revert", 1.1, tags=["a"])
    commons.run("keep", 0.1, tags=["gone"])
    commons.run("keep", 1.0, tags=["far"], track="other")
    commons.say("3", "retract", reason="a leak")
    both = [{"tag": "a", "count": 2, "kept": 1}, {"tag": "b", "count": 1, "kept": 1}]
    assert commons.ask("tags", "t") == both
    assert commons.ask("tags", None) == [*both, {"tag": "far", "count": 1, "kept": 1}]
    assert commons.ask("tags", None, 1) == both[:1]


@pytest.mark.parametrize(("direction", "sign"), [("min", 1), ("max", -1)])
def test_near_misses_and_dead_ends(commons, direction, sign):
    """A difference within the margin may be a gain, and with noise of 0.01 one beyond 0.02 is a loss."""
    common = {"metric": "score", "direction": direction}
    commons.run("keep", 1.0, **common)
    for worse, category in ((0.014, "other"), (0.015, "other"), (0.021, "other"), (0.5, "other"), (0.03, "optimizer")):
        commons.run("revert", 1.0 + sign * worse, sign * worse, category=category, **common)
    commons.run("inconclusive", 1.0 - sign * 0.001, -sign * 0.001, **common)
    commons.run("revert", 1.0, None, **common)
    commons.run("revert", 1.3, sign * 0.3, quarantined="slow", **common)
    commons.run("revert", 1.3, sign * 0.3, track="other", **common)
    assert last(commons.ask("near_misses", "t", 0.014)) == "72"
    assert last(commons.ask("dead_ends", "t", 0.01)) == "564"
    assert last(commons.ask("near_misses", "t", 0.014, limit=1)) == "7"
    assert last(commons.ask("near_misses", "t", 0.0)) == "7"


def test_of_a_dead_end_every_category_shows_its_worst_first(commons):
    for delta, category in ((0.1, "optimizer"), (0.3, "optimizer"), (0.2, "attention"), (0.4, "optimizer")):
        commons.run("revert", 1.0 + delta, delta, category=category)
    assert last(commons.ask("dead_ends", "t", 0.001)) == "4321"
    assert last(commons.ask("dead_ends", "t", 0.001, limit=2)) == "43"


# Notes.


def test_a_question_is_open_until_a_note_answers_it(commons):
    first = add_note(commons.knowledge, "question", "does depth pay?")
    second = add_note(commons.knowledge, "question", "does width pay?")
    assert {row["id"] for row in commons.ask("open_questions")} == {first["id"], second["id"]}
    answer = add_note(commons.knowledge, "answer", "it does", answers=first["id"])
    assert [row["text"] for row in commons.ask("open_questions")] == ["does width pay?"]
    (commons.knowledge / "notes" / f"{answer['id']}.json").unlink()
    assert len(commons.ask("open_questions")) == 2


def test_insights(commons):
    for kind in ("insight", "memory", "question"):
        add_note(commons.knowledge, kind, kind)
    assert {row["text"] for row in commons.ask("insights")} == {"insight", "memory"}


# Search.


def test_search_finds_words_in_any_form_in_cards_and_notes(commons):
    commons.run("keep", 1.0, hypothesis="Wider MLPs, ratio 4.5", lesson="it learned faster")
    commons.run("crash", hypothesis="deeper")
    add_note(commons.knowledge, "insight", "learning rate decays wide layers")
    assert last(commons.ask("search", "learns faster")) == "1"
    assert [row.get("kind", "run") for row in commons.ask("search", "learning")].count("insight") == 1
    assert len(commons.ask("search", "learning")) == 2
    assert len(commons.ask("search", "learning", limit=1)) == 1
    assert commons.ask("search", "wider deeper") == []
    assert last(commons.ask("search", "4.5")) == "1"


OPERATORS = [
    '"', '""', "'", "wider AND", "OR", "NOT wider", "NEAR(wider deeper)", "hypothesis:wider", "wid*", "-wider",
    "^wider",
    "wider)", "(", "{hypothesis}: x", "wider + deeper", "\\", ";--", "%", "", " ", "\x00wider", "ⅷ", "é\u0301", "幅",
    "...",
    "_",
    "a" * 100_000, "wider " * 5000, "\udcff", "\u202ewider",
]  # fmt: skip


@pytest.mark.parametrize("every_word", [True, False])
@pytest.mark.parametrize("text", OPERATORS)
def test_operators_of_the_search_engine_are_words(commons, text, every_word):
    commons.run("keep", 1.0, hypothesis="wider")
    assert last(commons.ask("search", text, every_word=every_word)) in ("", "1")
    assert last(commons.ask("search", '"wider"')) == last(commons.ask("search", "wider*")) == "1"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(), every_word=st.booleans())
def test_no_text_breaks_the_search(commons, text, every_word):
    with Index(commons.knowledge) as index:
        assert facts.search(index, text, every_word=every_word) == []


# What goes on now.


def start(folder, pid, **values):
    """The start of a run in a folder of this name."""
    folder.mkdir(parents=True)
    about = {"pid": pid, "phase": "train", "hypothesis": "deeper", "agent": None, "session": "mar8"}
    (folder / "start.json").write_text(json.dumps(about | values))


def test_runs_of_living_processes_are_running(commons, tmp_path):
    runs, done = tmp_path / "runs", commons.run("keep", 1.0)
    assert commons.ask("running", runs) == []
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    start(runs / ("a" * 16), os.getpid())
    start(runs / ("b" * 16), ended.pid)
    start(runs / f"{done:0>16}", os.getpid())  # it has a card
    start(runs / ("c" * 16), 1)  # alive, perhaps somebody else's
    start(runs / ("d" * 16), os.getpid())
    (runs / ("d" * 16) / "start.json").write_text("{")  # damaged: the brief does without it
    (runs / "empty").mkdir()
    (runs / "file").write_text("")
    found = sorted(commons.ask("running", runs), key=lambda row: row["id"])
    assert found[0] == {
        "id": "a" * 16, "phase": "train", "hypothesis": "deeper", "agent": None, "session": "mar8",
    }  # fmt: skip
    assert [row["id"][0] for row in found] == ["a", "c"]


@pytest.mark.parametrize("pid", [None, "x", [], 0, -1, True, 2**31, 2**63, 10**30, 1e300, 0.5])
def test_a_process_that_cannot_be_is_not_alive(commons, tmp_path, pid):
    commons.run("keep", 1.0)
    start(tmp_path / "runs" / ("a" * 16), pid)
    assert commons.ask("running", tmp_path / "runs") == []


def test_a_run_folder_with_an_odd_name(commons, tmp_path):
    commons.run("keep", 1.0)
    start(tmp_path / "runs" / "a\udcff\nb", os.getpid())
    assert [row["id"] for row in commons.ask("running", tmp_path / "runs")] == []


def test_the_queue(commons):
    commons.knowledge.mkdir()
    assert briefing.queued(commons.knowledge) == []
    path = commons.knowledge / "queue.json"
    item = {"id": "a", "created": "2026-01-01T00:00:00.000Z", "status": "pending", "description": "deeper"}
    ended = item | {"id": "b", "status": "completed"}
    path.write_text(json.dumps({"items": [item, ended]}))
    assert briefing.queued(commons.knowledge) == [{"status": "pending", "description": "deeper"}]
    path.write_text("{")
    with pytest.raises(LabError, match=r"queue\.json is not JSON"):
        briefing.queued(commons.knowledge)


# All of it.


def test_gather(commons):
    empty = commons.ask("gather")
    assert (empty["cards"], empty["track"], empty["champion"], empty["tracks"]) == (0, None, None, [])
    assert empty["noise"] == {"sd": None, "basis": "no results yet"}
    commons.run("keep", 1.0, hypothesis="baseline")
    commons.run("crash", error={"kind": "oom", "summary": "out of memory", "tail": []})
    commons.run("keep", 0.9, -0.1, hypothesis="deeper")
    found = commons.ask("gather", idea="deeper please")
    assert (found["cards"], found["status"], found["track"]) == (3, {"keep": 2, "crash": 1}, "t")
    assert (found["champion"]["id"][-1], found["first"]["id"][-1], last(found["related"])) == ("3", "1", "3")
    assert found["champion"]["probability"] > 0.99
    assert (last(found["crashes"]), last(found["last"]), last(found["findings"])) == ("2", "321", "3")
    assert found["tracks"][0]["champion"]["id"] == found["champion"]["id"]
