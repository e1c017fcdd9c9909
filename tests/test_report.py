"""The morning report as text: what it says, that it stays short, what to do next, what text cannot forge."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commons import COMMANDS
from lab import steps
from lab.report import DATA, report
from lab.steps import next_steps

ID = "a1b2c3d4e5f60718"
TIME = "2026-01-31T{:02d}:00:00.000Z"


def run(**values):
    """A run as a row of the index."""
    return {
        "id": ID, "timestamp": TIME.format(3), "status": "revert", "track": "t/H100", "metric": "val_bpb",
        "direction": "min", "result": 0.99, "delta": 0.001, "hypothesis": "halve the batch", "lesson": None,
        "quarantined": None, "error_kind": None, "error_summary": None,
    } | values  # fmt: skip


def track(**values):
    """A track on which the night found a new champion."""
    return {
        "track": "t/H100", "runs": 100, "champion": run(result=0.97, mean=0.971, sd=0.0005), "baseline": False,
        "start": run(id="b" * 16, result=0.98, mean=0.98, sd=0.0005, hypothesis="ever"), "expected": -0.009,
        "sd": 0.001, "claimed": -0.0099, "noise": {"sd": 0.0005, "basis": "from 9 repeats of 3 edits"}, "repeats": 9,
    } | values  # fmt: skip


def night(**values):
    """What was gathered of a night of which there is little to tell."""
    spent = {"hours": 9.5, "untold": 0, "device": "GPU", "price": None, "confirmed_gain": None}
    return {
        "since": TIME.format(0), "first": TIME.format(1), "last": TIME.format(9), "until": TIME.format(12),
        "session": None, "runs": 100, "status": {"keep": 4, "revert": 90, "crash": 6}, "cards": 300,
        "newest": TIME.format(9), "left_out": 0, "tracks": [track()], "more_tracks": 0, "waiting": [],
        "challengers": [], "lineages": [], "confirmed": [], "refuted": [], "near": [], "transfer": [], "failures": [],
        "again": [], "suspects": [], "coverage": {}, "spent": spent | {"hours_per_thousandth": None}, "same_error": 3,
    } | values  # fmt: skip


def finding(**values):
    """A finding as a row."""
    return {
        "card": ID, "change": "DEPTH 8 to 10", "standing": "likely", "probability": 0.97, "expected": -0.002,
        "sd": 0.0004, "fresh": 2, "repeats": 3, "row": {"track": "t/H100"},
    } | values  # fmt: skip


def full(text="halve the batch", times=50):
    """A night of which there is everything to tell, and much of it, in these words."""
    row = run(hypothesis=text, error_summary=text, error_kind=text, quarantined=text, result=0.9)
    spent = {"hours": 9.5, "untold": 7, "device": "GPU", "price": 2.0, "confirmed_gain": 0.002}
    cluster = {"times": 5, "kind": text, "summary": text, "id": ID}
    board = row | {"probability": 0.4, "expected": 0.001, "expected_sd": 0.001, "runs": 2, "repeat_pays": 2.0}
    line = row | {"mean": 0.97, "gained": -0.03, "steps": 22, "shared": 3, "largest": [row | {"expected": -0.01}] * 3}
    pooled = {
        "change": text, "effect": -0.002, "sd": 0.001, "probability": 0.9, "holds": 2, "tried": 3, "tracks": 3,
    }  # fmt: skip
    changed = finding(change=text)
    return night(
        session=text, tracks=[track(track=text, champion=track()["champion"] | {"hypothesis": text})] * 6,
        more_tracks=times, waiting=[row | {"action": "replicate", "priority": 3, "times": 2}] * times,
        challengers=[board] * times, lineages=[line] * 3, confirmed=[changed] * times, refuted=[changed] * times,
        near=[changed] * times, transfer=[pooled] * times, failures=[cluster] * times,
        again=[row | {"before": row, "times": 3}] * times, suspects=[row] * times, left_out=times,
        spent=spent | {"hours_per_thousandth": 4.75},
    )  # fmt: skip


def test_a_quiet_night_word_for_word():
    assert (
        report(night())
        == f"""# Morning report

Since 2026-01-31 00:00 UTC. Written 2026-01-31 12:00 UTC.

- **100 experiments**: 4 keep, 90 revert, 6 crash
- **GPU-hours**: 9.5; per confirmed 0.001 val_bpb: unknown, nothing on the champion's way was confirmed

## t/H100
- **Champion** by val_bpb (lower is better): truly about 0.971000 (95% 0.970020 to 0.971980), measured 0.970000, `{
            ID[:12]
        }` halve the batch
- **At the start** the champion: truly about 0.980000 (95% 0.979020 to 0.980980), measured 0.980000, `bbbbbbbbbbbb` ever
- **Gained** -0.009000 to expect (95% -0.010960 to -0.007040) in 100 runs, claimed -0.009900, 10% too much
- **Noise** between runs 0.0005 (from 9 repeats of 3 edits)

{DATA}
"""
    )


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"confirmed": [finding(standing="confirmed", repeats=0)]},
            "- **confirmed** -0.002000 ± 0.0004, P 0.97, 2 fresh runs: `a1b2c3d4e5f6` DEPTH 8 to 10",
        ),
        (
            {"near": [finding()]},
            "- likely, 3 repeats would settle it: -0.002000, P 0.97: `a1b2c3d4e5f6` DEPTH 8 to 10",
        ),
        (
            {"failures": [{"times": 7, "kind": "oom", "summary": "needs 81 GB", "id": ID}]},
            "- 7 times, oom: needs 81 GB (`a1b2c3d4e5f6`)",
        ),
        (
            {"failures": [{"times": 1, "kind": kind, "summary": "x", "id": ID} for kind in ("oom", "data")]},
            "- 2 crashes, no error repeats: oom, data",
        ),
        (
            {"again": [run() | {"before": run(id="c" * 16, delta=0.002), "times": 2}]},
            "- +0.001000 `a1b2c3d4e5f6` halve the batch, as `cccccccccccc` did (+0.002000): halve the batch, "
            "3 times by now",
        ),
        (
            {"waiting": [run(action="fix_and_retry", status="crash", error_summary="no memory", times=3)]},
            "- **fix_and_retry** 3 times: `a1b2c3d4e5f6` no memory",
        ),
        ({"suspects": [run(quarantined="throttled")]}, "- 0.990000 `a1b2c3d4e5f6` throttled"),
        (
            {"runs": 0},
            "- **No experiment** in this time; the commons has 300 cards, the newest from 2026-01-31 09:00 UTC",
        ),
        (
            {"tracks": [track(), track(track="t/A100", runs=1, champion=None, expected=None)], "more_tracks": 3},
            "- t/A100 (1 run): no kept result yet\n- and 3 more",
        ),
        (
            {"tracks": [track(start=track()["champion"], baseline=True)]},
            "- **At the start** the baseline, nothing beat it, in 100 runs",
        ),
        (
            {"left_out": 126},
            "- 126 cards without a time left out: `--session NAME` or `--since 1970-01-01` has them",
        ),
        (
            {"since": None, "session": "mar8", "first": "1970-01-01T00:00:00.002Z", "last": "1970-01-01T00:00:00.127Z"},
            "Session mar8. Without times. Written 2026-01-31 12:00 UTC.",
        ),
    ],
)  # fmt: skip
def test_every_section_says_its_line(values, line):
    assert f"{line}\n" in report(night(**values))


@pytest.mark.parametrize(
    ("spent", "line"),
    [
        ({"hours": None}, "- **GPU-hours**: unknown, no run says how long it took\n"),
        ({"price": 2.0, "hours_per_thousandth": 4.75},
         "- **GPU-hours**: 9.5, cost 19.00; per confirmed 0.001 val_bpb: 4.75, cost 9.50\n"),
        ({"device": "CPU", "untold": 3, "hours_per_thousandth": 4.75},
         "- **CPU-hours**: 9.5, 3 runs without a duration not counted; per confirmed 0.001 val_bpb: 4.75\n"),
    ],
)  # fmt: skip
def test_costs_are_told_or_said_to_be_unknown(spent, line):
    assert line in report(night(spent=night()["spent"] | spent))


def test_a_direction_of_max_turns_the_words():
    best = run(direction="max", metric="accuracy", result=0.9, mean=0.89, sd=0.001)
    text = report(night(tracks=[track(champion=best, expected=0.01, claimed=0.02)]))
    assert "by accuracy (higher is better)" in text
    assert "claimed +0.020000, 100% too much" in text


def test_two_screens_however_much_there_is_to_tell():
    short, long = report(full(times=5)), report(full(times=5000))
    assert len(short.splitlines()) == len(long.splitlines()) <= 90
    assert len(report(night()).splitlines()) < 20
    assert max(map(len, report(full("w" * 5000)).splitlines())) < 420  # a line that holds two cut texts wraps


def test_next_steps_are_at_most_five_and_ranked():
    waiting = [
        run(action=action, times=1, id=f"{n:012x}0000") for n, action in enumerate(("replicate", "branch_followup"))
    ]
    coverage = {"optimizer": {"count": 80}, "embedding": {"count": 1}, "other": {"count": 0}}
    found = full() | {
        "waiting": waiting, "coverage": coverage, "near": [finding(), finding(repeats=2)], "status": {"revert": 100},
        "tracks": [track(repeats=0)], "suspects": [run(quarantined="throttled", result=0.9)],
    }  # fmt: skip
    assert [step["command"] for step in next_steps(found)] == [
        "uv run commons.py show a1b2c3d4e5f6",
        "uv run commons.py show a1b2c3d4e5f6",
        "uv run commons.py sweep-confirm --budget 5",
        "uv run commons.py noise",
        "uv run commons.py diff a1b2c3d4e5f6 000000000001",
    ]
    texts = [step["text"] for step in next_steps(found)]
    assert texts[2] == (
        "Spend 5 repeats where they change most: 1 run worth a repeat, 2 findings that a few repeats would settle"
    )
    quiet = next_steps(night(status={"revert": 100}, coverage=coverage))
    assert [step["text"] for step in quiet] == [
        "Try another kind of change, such as embedding: none of 100 runs was kept"
    ]
    assert next_steps(night(runs=0, cards=0)) == [{"text": "Run the first experiment", "command": "uv run train.py"}]


def test_a_suspect_run_is_a_step_only_where_it_would_be_the_champion():
    worse = next_steps(night(suspects=[run(quarantined="throttled", result=0.975)]))
    assert not worse
    elsewhere = next_steps(night(suspects=[run(quarantined="throttled", result=0.9, track="t/A100")]))
    assert not elsewhere


def test_every_command_that_is_named_exists():
    named = set(re.findall(r"commons\.py ([a-z-]+)", Path(steps.__file__).read_text()))
    assert named and named <= {*COMMANDS, "report"}


@pytest.mark.parametrize(("name", "option"), [("t/H100", " --track t/H100"), ("t; rm -rf .", "")])
def test_a_command_names_the_track_where_there_are_others(name, option):
    row = finding(row={"track": name})
    step = next_steps(night(tracks=[track(track=name), track()], near=[row]))[0]
    assert step["command"] == f"uv run commons.py sweep-confirm --budget 3{option}"
    assert next_steps(night(tracks=[track(track=name)], near=[row]))[0]["command"].endswith("--budget 3")


HOSTILE = ["<script>alert(1)</script>", "# Done", "- a\n- b", "| a | b |", "[x](javascript:alert(1))", "`x`", "![a](b)"]


@settings(deadline=None, max_examples=50)
@given(st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=200)))
def test_text_of_others_is_no_markdown(text):
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    shapes = []
    for words in (text, "plain"):
        tokens = markdown.parse(report(full(words)))
        inner = [child.type for token in tokens for child in token.children or () if child.type != "text"]
        shapes.append(([token.type for token in tokens], [name for name in inner if name != "text_special"]))
    assert shapes[0] == shapes[1]


def test_pictures_stand_where_they_belong():
    text = report(night(), {"progress": "progress.png", "coverage": "coverage.png"})
    assert text.index("**Noise**") < text.index("(progress.png)") < text.index("(coverage.png)")
    assert "](" not in report(night())
