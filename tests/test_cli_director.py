"""`director.py run` as a process: its events, what a terminal shows, signals, and what kill -9 leaves."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys

import pytest
from fake_project import FakeProject, door_of, events, finished, lives, names, nothing_is_left, of, wait_for

from lab.planning import BASELINE
from lab.queue import add_to_queue

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups")

AGENT_MISSING = "error: --agent: there is no command 'no-such-agent'; install it, or give its path"
CRASHING = [{"description": f"idea {n} that fails", "changes": {"WEIGHT_DECAY": 0.2 + n / 100}} for n in range(1, 6)]


@pytest.fixture
def project(tmp_path):
    return FakeProject(tmp_path / "project")


def test_a_first_night_and_a_second_that_goes_on(project):
    done = project.run("director.py", "run", "--max-experiments", "2", "--synthesis-interval", "2")
    assert (done.returncode, done.errors) == (0, "")
    told = events(done.output)
    assert names(told)[:6] == ["started", "mode", "planned", "claimed", "running", "ended"]
    assert project.cards()[0]["hypothesis"] == BASELINE
    assert [event["description"] for event in of(told, "planned")[0]["added"]] == [BASELINE]
    assert [event["card"] for event in of(told, "ended")] == [card["id"] for card in project.cards()]
    assert told[-1]["event"] == "stopped" and told[-1]["reason"] == "2 experiments done, as many as were asked for"
    assert [event["state"]["experiments"] for event in told if event["event"] == "synthesized"] == [2]
    assert (project.knowledge / "synthesis" / "main.md").exists()
    assert project.open_items() == []  # no more is planned than is asked for
    add_to_queue(project.knowledge, [{"description": "a longer warmdown", "changes": {"WARMDOWN_RATIO": 0.65}}])
    again = project.run("director.py", "run", "--max-experiments", "1")
    assert (again.returncode, again.errors) == (0, "")
    assert of(events(again.output), "claimed")[0]["description"] == "a longer warmdown"
    ideas = [item["description"] for item in project.ended_items()]
    assert len(ideas) == len(set(ideas)) == len(project.cards()) == 3
    nothing_is_left(project)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_experiment_and_gives_it_back(project, number, code):
    gate = project.folder / "gate"
    process = project.start("director.py", "run", "--json", TOY_GATE=str(gate))
    wait_for(project.experiments)
    process.send_signal(number)
    done = finished(process)
    assert (done.returncode, done.errors) == (code, "")
    told = events(done.output)
    assert names(told)[-4:] == ["running", "stopping", "released", "stopped"]
    assert told[-1]["reason"] == f"ended by {number.name}" and told[-1]["experiments"] == 0
    nothing_is_left(project)
    (item,) = project.open_items()
    assert (item["status"], item["attempts"]) == ("pending", 0)
    gate.touch()
    again = project.run("director.py", "run", "--max-experiments", "1", TOY_GATE=str(gate))
    assert [event["item"] for event in of(events(again.output), "ended")] == [item["id"]]
    assert [card["status"] for card in project.cards()] == ["crash", "keep"]


def test_after_kill_9_of_the_director_its_worker_ends_and_the_next_waits_for_it(project):
    gate = project.folder / "gate"
    project.run("director.py", "run", "--max-experiments", "1")
    process = project.start("director.py", "run", "--json", TOY_GATE=str(gate))
    wait_for(lambda: len(project.experiments()) == 2)
    worker = next(item["lease"]["pid"] for item in project.open_items() if item["lease"])
    process.kill()
    finished(process)
    again = project.start("director.py", "run", "--max-experiments", "1", TOY_GATE=str(gate))
    told = [json.loads(again.stdout.readline())]
    assert told[0]["event"] == "started" and lives(worker)
    gate.touch()  # only now may the one left behind end, and another begin
    output, errors = again.communicate(timeout=60)
    assert (again.returncode, errors) == (0, "")
    wait_for(lambda: not lives(worker))
    cards = project.cards()
    assert len(cards) == 3 and len({card["hypothesis"] for card in cards}) == 3
    assert [item["status"] for item in project.ended_items()] == ["completed"] * 3
    assert of(events(output), "claimed")[0]["at"] > cards[1]["timestamp"]
    nothing_is_left(project)


def test_a_worker_that_is_killed_is_replaced_and_its_item_run_again(project):
    gate = project.folder / "gate"
    process = project.start("director.py", "run", "--max-experiments", "1", TOY_GATE=str(gate))
    (orphan, _) = wait_for(project.experiments)[0]
    os.kill(project.open_items()[0]["lease"]["pid"], signal.SIGKILL)
    wait_for(lambda: not lives(orphan))
    gate.touch()
    done = finished(process)
    assert (done.returncode, done.errors) == (0, "")
    told = events(done.output)
    (warning,) = of(told, "warning")
    assert warning["said"] == "worker 1 ended without an experiment | exit code -9"
    claims = of(told, "claimed")
    assert [event["item"] for event in claims] == [claims[0]["item"]] * 2
    assert [(item["status"], item["attempts"]) for item in project.ended_items()] == [("completed", 2)]
    assert [card["status"] for card in project.cards()] == ["crash", "keep"]


@pytest.mark.parametrize("pid", [0, 10**30])
def test_a_run_that_lies_about_its_process_ends_nobody_else(project, pid):
    gate = project.folder / "gate"
    process = project.start("director.py", "run", "--max-experiments", "1", TOY_GATE=str(gate))
    (_, run) = wait_for(project.experiments)[0]
    start = project.folder / "runs" / run / "start.json"
    start.write_text(json.dumps(json.loads(start.read_text()) | {"pid": pid}))
    os.kill(project.open_items()[0]["lease"]["pid"], signal.SIGKILL)
    wait_for(lambda: len(project.experiments()) == 2)
    gate.touch()
    done = finished(process)
    assert (done.returncode, done.errors) == (0, "")
    assert [item["status"] for item in project.ended_items()] == ["completed"]


def test_a_second_director_is_refused(project):
    first = project.start("director.py", "run", "--json", TOY_GATE=str(project.folder / "gate"))
    wait_for(project.experiments)
    second = project.run("director.py", "run")
    assert (second.returncode, second.output) == (2, "")
    assert second.errors == f"error: another director works on {project.knowledge}; end it first, or let it work\n"
    first.terminate()
    finished(first)
    nothing_is_left(project)


def test_crashes_with_one_signature_end_it(tmp_path):
    project = FakeProject(tmp_path / "project", "same_error = 2\n")
    project.run("director.py", "run", "--max-experiments", "1")
    add_to_queue(project.knowledge, CRASHING)
    done = project.run("director.py", "run", TOY_FAILS="fails")
    assert (done.returncode, done.errors) == (1, "")
    crashes = ", ".join(card["id"][:12] for card in project.cards()[1:])
    stopped = events(done.output)[-1]
    assert stopped["reason"].startswith(f"2 crashes in a row have one signature, mend what they share: {crashes} | exc")
    assert (stopped["experiments"], stopped["crashed"]) == (2, 2)
    assert len(project.open_items()) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workers", "0"), "error: argument --workers: '0' is not a whole number from 1 to 999999999"),
        (("--hours", "-1"), "error: argument --hours: '-1' is not a number above 0"),
        (("--hours", "nan"), "error: argument --hours: 'nan' is not a number above 0"),
        (("--budget-usd", "inf"), "error: argument --budget-usd: 'inf' is not a number above 0"),
        (
            ("--max-experiments", "x"),
            "error: argument --max-experiments: 'x' is not a whole number from 1 to 999999999",
        ),
        (("--track", "none"), "error: --track 'none' is none of the tracks: none yet"),
        (("--agent", ""), 'error: --agent is empty; give a command such as "claude -p {{prompt}}", or hpo'),
        (("--agent", "no-such-agent {prompt}"), AGENT_MISSING),
        (("--session", "a b"), "error: --session 'a b': autoresearch/a b is no name for a branch; give one like mar8"),
        (
            ("--budget-usd", "3"),
            "error: a budget needs a price: set price_per_hour under [tool.autoresearch] in {folder}/pyproject.toml",
        ),
    ],
)
def test_what_cannot_be_asked_for(project, arguments, said):
    done = project.run("director.py", "run", *arguments)
    assert (done.returncode, done.output) == (2, "")
    assert done.errors.partition(" (see ")[0].strip() == said.format(folder=project.folder)
    assert done.errors.count("\n") == 1 and project.open_items() == []


def test_plan_only_prints_the_plan_and_adds_nothing(project):
    done, plan = project.run("director.py", "run", "--plan-only"), project.run("director.py", "plan")
    assert (done.returncode, done.output) == (0, plan.output)
    assert BASELINE in done.output and project.open_items() == []


def test_a_terminal_gets_a_live_line_and_what_has_ended(project):
    control, terminal = pty.openpty()
    command = [sys.executable, str(door_of("director.py")), "run", "--max-experiments", "2"]
    environment = project.environment | {"TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command, cwd=project.folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    while select.select([control], [], [], 60)[0]:
        try:
            shown += os.read(control, 65536)
        except OSError:  # the other end is closed
            break
    os.close(control)
    assert process.wait() == 0
    frames = screens(shown.decode())
    first, second = project.cards()
    value = f"{first['results']['val_bpb']:.6f}"
    final = frames[-1]
    assert final[0] == "mode explore: no champion yet, runs so far: 0; the baseline comes first"
    assert final[1] == f"{first['id'][:8]} keep           {value}          - promote | {BASELINE}"
    assert final[2].startswith(f"{second['id'][:8]} {second['status']:<12} ")
    assert final[3].endswith("`director.py run` goes on; stopped: 2 experiments done, as many as were asked for")
    assert final[4] == "# Morning report" and any(line.startswith("- **2 experiments**: ") for line in final)
    at_work = next(frame for frame in frames if frame[2:] and frame[2][:2] == "1 " and " | " in frame[3])
    best = rf"best val_bpb {value} ± [0-9.e-]+ \({first['id'][:8]}\)"
    state = rf"1 experiment: 1 kept, 0 crashed; {best}; explore mode, [01] queued; about 0:0\d left"
    assert re.fullmatch(state, at_work[2])
    assert re.fullmatch(r"0:0\d \| (raise|lower) .*", at_work[3])
    assert b"\x1b[?25h\r" in shown  # the cursor is back


def screens(text):
    """What a terminal shows, line by line, each time before a line is cleared, and at the end."""
    lines, row, found = [""], 0, []
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
        if part == "\x1b[2K":
            found.append(lines[:])
            lines[row] = ""
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part[0] not in "\x1b\r":
            lines[row] += part
    while len(lines) > 1 and lines[-2:] == ["", ""]:
        lines.pop()
    return [*found, lines]
