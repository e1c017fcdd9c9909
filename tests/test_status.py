"""What a person sees of a run of the director."""

import re

import pytest

from lab.status import Board, live

BEST = {"id": "0123456789abcdef", "metric": "val_bpb", "result": 0.9701, "mean": 0.9712, "sd": 0.00041}
STATE = {
    "experiments": 2, "kept": 1, "crashed": 0, "mode": "exploit", "queued": 3, "seconds": 600.0, "typical": 300.0,
    "spent": None, "best": BEST,
}  # fmt: skip
STARTED = {"event": "started", "workers": 1, "max_experiments": None, "hours": None, "budget": None}
CLAIMED = {"event": "claimed", "worker": 1, "item": "a" * 16, "description": "raise MATRIX_LR\x1b[31m to 0.05"}
ENDED = {
    "event": "ended", "worker": 1, "card": "fedcba9876543210", "status": "keep", "result": 0.9701, "delta": -0.0011,
    "action": "promote", "hypothesis": "[bold]wider[/bold]\nMLP",
}  # fmt: skip


def board(*events, state=STATE, now=0.0):
    found = Board()
    lines = [found.take(event | {"state": state}, now) for event in events]
    return found, lines


def test_before_it_starts_and_after_it_stopped_there_is_nothing_to_show():
    assert Board().lines(0.0) == []
    stopped = {"event": "stopped", "reason": "done", "experiments": 3, "kept": 1, "crashed": 2, "spent": None}
    assert board(STARTED, stopped)[0].lines(0.0) == []


def test_how_far_it_is_and_what_runs():
    found, lines = board(STARTED, CLAIMED)
    assert lines == [None, None]
    assert found.lines(125.0) == [
        "2 experiments: 1 kept, 0 crashed; best val_bpb 0.971200 ± 0.00041 (01234567); exploit mode, 3 queued",
        "2:05 | raise MATRIX_LR [31m to 0.05",
    ]


def test_a_narrow_terminal_shows_all_of_how_it_is(monkeypatch, capsys):
    for name, value in (("COLUMNS", "80"), ("LINES", "24"), ("TERM", "xterm"), ("FORCE_COLOR", "1")):
        monkeypatch.setenv(name, value)
    with live() as tell:
        tell(STARTED | {"max_experiments": 5, "state": STATE})
        tell(CLAIMED | {"description": "a long idea " * 20, "state": STATE})
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"exploit mode, 3 queued; about 1[45]:\d\d left 0:0\d \| a long idea .*…", shown)


@pytest.mark.parametrize(
    ("asked", "state", "left"),
    [
        ({"max_experiments": 5}, {}, ["about 12:55 left"]),  # three of 5 minutes, of which 2:05 are over
        ({"max_experiments": 5, "workers": 2}, {}, ["about 6:27 left"]),
        ({"hours": 2.0}, {}, ["about 1:47:55 left"]),  # 10:00 had passed when that was said, 2:05 since then
        ({"hours": 0.2, "max_experiments": 5}, {}, ["about 0:00 left"]),
        ({}, {"spent": 1.234}, ["1.23 spent"]),
        ({"hours": 2.0, "budget": 10.0}, {"spent": 1.234}, ["about 1:47:55 left", "1.23 of 10 spent"]),
    ],
)
def test_what_is_left_of_the_limits(asked, state, left):
    found, _ = board(STARTED | asked, CLAIMED, state=STATE | state)
    assert found.lines(125.0)[0].split("; ")[3:] == left


@pytest.mark.parametrize("event", [ENDED, {"event": "left", "worker": 1}, {"event": "released", "worker": 1}])
def test_what_has_ended_runs_no_more(event):
    found, _ = board(STARTED, CLAIMED, event, state=STATE | {"best": None, "mode": None})
    assert found.lines(1.0) == [
        "2 experiments: 1 kept, 0 crashed; no kept result yet; no mode, 3 queued",
        "nothing runs at this moment",
    ]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ENDED, "fedcba98 keep           0.970100  -0.001100 promote | [bold]wider[/bold] MLP"),
        (
            ENDED | {"status": "crash", "result": None, "delta": None, "action": None, "hypothesis": None},
            "fedcba98 crash                 -          - | no hypothesis",
        ),
        ({"event": "failed", "worker": 1, "reason": "it\nchanged nothing"}, "not run | it changed nothing"),
        ({"event": "mode", "mode": "ablation", "reason": "a plateau"}, "mode ablation: a plateau"),
        ({"event": "warning", "said": "worker 1 | \x07beep"}, "warning: worker 1 | beep"),
        ({"event": "stopping", "reason": "ended by SIGINT"},
         "ended by SIGINT: the workers end their experiments and give them back"),
        ({"event": "synthesized", "session": "mar8"}, "synthesis of session mar8 written"),
        ({"event": "planned", "mode": "explore", "added": []}, None),
        ({"event": "something new"}, None),
        (
            {"event": "stopped", "reason": "3 done", "experiments": 3, "kept": 1, "crashed": 2, "spent": 0.5},
            "3 experiments, 1 kept, 2 crashed, 0.50 spent; `director.py run` goes on; stopped: 3 done",
        ),
    ],
)  # fmt: skip
def test_what_stays_on_the_screen(event, line):
    assert board(event)[1] == [line]
