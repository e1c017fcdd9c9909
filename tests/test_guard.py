"""What the novelty guard refuses to add to the queue, and what it lets through."""

import json
import os
import subprocess
import sys

import pytest

import director
from lab import cli
from lab.cards import add_card
from lab.guard import refusal
from lab.index import Index
from lab.leases import claim_next_experiment
from lab.queue import add_to_queue

A, B = "a" * 16, "b" * 16
CONFIG = {"DEPTH": 8, "MATRIX_LR": 0.04, "EMBEDDING_LR": 0.6, "WINDOW": "SSSL"}
CLEAR, NOISE = 0.02, 0.0001
IDEA = "raise the embedding LR to 0.9"


def result(name, hypothesis, status, delta, track="t", **more):
    about = {"track": track, "hypothesis": hypothesis, "status": status, "commit": f"abcdef{name[:2]}"}
    return {"id": name * 16, "results": {"val_bpb": 1 + delta, "delta": delta}} | about | more


@pytest.fixture
def knowledge(tmp_path):
    """A commons with a baseline whose constants are known, and repeats of it that tell the noise."""
    knowledge = tmp_path / "knowledge"
    for number, name in enumerate("abc"):
        about = {"config": CONFIG, "train_sha256": "f" * 64, "edit_key": "base", "seed": number}
        add_card(knowledge, result(name, "the baseline", "keep", NOISE * number, **about))
    return knowledge


def refused(knowledge, idea, mode="explore", track="t", changes=None):
    """What speaks against an idea, None where nothing does."""
    with Index(knowledge) as index:
        return refusal(index, idea, mode, track, changes)


def test_what_nobody_has_thought_of(knowledge):
    assert refused(knowledge, IDEA) is None
    assert refused(knowledge, "x", changes={"DEPTH": 4}) is None
    assert refused(knowledge, IDEA, track=None) is None


@pytest.mark.parametrize("status", ["pending", "claimed"])
@pytest.mark.parametrize("idea", [IDEA, "RAISE THE EMBEDDING LR TO 0.9", "embedding learning rate 0.6 -> 0.9"])
def test_what_is_open_is_refused_in_other_words_too(knowledge, status, idea):
    (item,) = add_to_queue(knowledge, [{"description": IDEA}])
    if status == "claimed":
        claim_next_experiment(knowledge, "ada")
    assert refused(knowledge, idea) == f"item {item['id']} of the queue is the same idea, {status} | {IDEA}"


@pytest.mark.parametrize("idea", ["lower the embedding LR to 0.3", "raise the matrix LR to 0.08", "embedding LR 1.2"])
def test_the_other_direction_and_another_value_are_other_ideas(knowledge, idea):
    add_to_queue(knowledge, [{"description": IDEA}])
    assert refused(knowledge, idea) is None


DEEPER = {"DEPTH": 12}


@pytest.mark.parametrize(
    ("there", "changes", "idea", "new", "same"),
    [
        ("a deeper net", DEEPER, "twelve floors", {"DEPTH": 12}, True),
        ("a deeper net", DEEPER, "twelve floors", {"DEPTH": 12.0}, True),
        ("two at once", {"DEPTH": 12, "WINDOW": "L"}, "both", {"WINDOW": "L", "DEPTH": 12}, True),
        ("a deeper net", DEEPER, "twelve floors", {"DEPTH": 4}, False),
        ("a deeper net", DEEPER, "a deeper net", {"DEPTH": 10}, False),  # what they change says so
        ("a deeper net", DEEPER, "a deeper net with long windows", {"DEPTH": 12, "WINDOW": "L"}, False),
        ("twelve floors", DEEPER, "raise the depth to 12", None, True),
        ("raise the depth to 12", None, "twelve floors", DEEPER, True),
        ("twelve floors", DEEPER, "lower the depth to 4", None, False),
        ("lower the depth to 4", None, "twelve floors", DEEPER, False),
        ("baseline once more", {}, "twelve floors", DEEPER, False),
        ("some floors", {"FLOORS": 12}, "raise the floors to 12", None, False),  # from where, nobody knows
    ],
)
def test_what_items_change_tells_whether_they_are_the_same(knowledge, there, changes, idea, new, same):
    (item,) = add_to_queue(knowledge, [{"description": there, "changes": changes}])
    said = refused(knowledge, idea, changes=new)
    assert said == (f"item {item['id']} of the queue is the same idea, pending | {there}" if same else None)


@pytest.mark.parametrize(("idea", "changes"), [(IDEA, None), ("warmer words", {"EMBEDDING_LR": 0.9})])
def test_what_runs_now_is_refused_while_its_process_lives(knowledge, monkeypatch, tmp_path, idea, changes):
    monkeypatch.setenv("AUTORESEARCH_RUNS_DIR", str(tmp_path / "runs"))
    run = tmp_path / "runs" / ("9" * 16)
    run.mkdir(parents=True)
    (run / "start.json").write_text(json.dumps({"pid": os.getpid(), "hypothesis": IDEA, "phase": "training"}))
    assert refused(knowledge, idea, changes=changes) == f"run {'9' * 16} is at the same idea now | {IDEA}"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (run / "start.json").write_text(json.dumps({"pid": gone.pid, "hypothesis": IDEA, "phase": "training"}))
    assert refused(knowledge, idea, changes=changes) is None


SETTLED = {
    "refuted here": (result("d", IDEA, "revert", CLEAR), "explore", "run dddddddd tried the same idea and was refuted"),
    "refuted, exploit": (result("d", IDEA, "revert", CLEAR), "exploit", "run dddddddd tried the same idea and was ref"),
    "crashed here": (
        result("d", IDEA, "crash", 0, results={}, error={"kind": "oom", "summary": "no memory", "tail": []}),
        "explore", "run dddddddd tried the same idea and crashed",
    ),
    "kept here": (result("d", IDEA, "keep", -CLEAR), "explore", "run dddddddd tried the same idea and was kept "),
}  # fmt: skip


@pytest.mark.parametrize("how", SETTLED)
def test_what_is_settled_here_is_refused(knowledge, how):
    card, mode, said = SETTLED[how]
    add_card(knowledge, card)
    assert refused(knowledge, "embedding learning rate 0.6 -> 0.9", mode).startswith(said)
    assert refused(knowledge, IDEA, mode).endswith(f" | {IDEA}")


@pytest.mark.parametrize("mode", ["explore", "exploit"])
def test_an_equal_edit_is_refused_whatever_it_is_called(knowledge, mode):
    add_card(knowledge, result("d", "a tower", "revert", CLEAR, config_diff={"DEPTH": [8, 12]}))
    said = refused(knowledge, "more of everything", mode, changes=DEEPER)
    assert said == "run dddddddd tried the same idea and was refuted (delta +0.020000) | a tower"
    assert refused(knowledge, "more of everything", mode, changes={"DEPTH": 4}) is None
    assert refused(knowledge, "more of everything", mode) is None


KILLED = {"kind": "killed", "summary": "ended by SIGKILL", "tail": []}
LET_THROUGH = {
    "noise was too large to tell": (result("d", IDEA, "revert", NOISE), "explore"),
    "nobody could tell": (result("d", IDEA, "inconclusive", 0.0), "explore"),
    "killed from outside": (
        result("d", IDEA, "crash", 0, results={}, error={"kind": "killed", "summary": "ended by SIGKILL", "tail": []}),
        "explore",
    ),
    "refuted on another track": (result("d", IDEA, "revert", CLEAR, "other"), "explore"),
    "kept on another track": (result("d", IDEA, "keep", -CLEAR, "other"), "explore"),
    "a success to be exploited": (result("d", IDEA, "keep", -CLEAR), "exploit"),
    "a success to be replicated": (result("d", IDEA, "keep", -CLEAR), "replicate"),
}


@pytest.mark.parametrize("how", LET_THROUGH)
def test_what_is_not_settled_here_is_let_through(knowledge, how):
    card, mode = LET_THROUGH[how]
    add_card(knowledge, card)
    assert refused(knowledge, IDEA, mode) is None


def test_refuted_many_improvements_ago_is_let_through(knowledge):
    add_card(knowledge, result("d", IDEA, "revert", CLEAR))
    for number in range(8):
        step = result(f"{number}", f"step {'abcdefgh'[number]} of another kind", "keep", -CLEAR * number)
        add_card(knowledge, step)
    assert refused(knowledge, IDEA) is None


def test_a_reason_lets_a_repeat_through(knowledge, capsys, monkeypatch):
    monkeypatch.setenv("KNOWLEDGE_DIR", str(knowledge))
    add_card(knowledge, result("d", IDEA, "revert", CLEAR))

    def add(*options):
        return cli.main("director.py", "", director.COMMANDS, ["add", IDEA, *options]), capsys.readouterr()

    code, told = add()
    assert (code, told.out) == (2, "")
    line = "error: refused: run dddddddd tried the same idea and was refuted (delta +0.020000) | "
    assert told.err == f"{line}{IDEA}; --replicate WHY adds it all the same\n"
    assert add("--replicate", " ")[1].err == "error: --replicate: say why it should be added though it has been tried\n"
    code, told = add("--replicate", "the schedule is another one now", "--json")
    item = json.loads(told.out)
    assert (code, item["mode"], item["why"]) == (0, "replicate", "the schedule is another one now")


def test_what_others_wrote_stays_on_its_line(knowledge):
    hostile = f"{IDEA}\nthen: rm -rf /\x1b[2J"
    add_to_queue(knowledge, [{"description": hostile}])
    said = refused(knowledge, IDEA)
    assert said.endswith(f", pending | {IDEA} then: rm -rf / [2J") and said.isprintable()
