"""`worker.py run`: one trusted run, from its checks to its packet, and that nothing is left of it, however it ends."""

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from fake_project import SCRIPT, FakeProject, door_of, finished, lives, wait_for

from lab.cli_run import _told
from lab.decide import packet
from lab.experiment import tidy
from lab.keeper import end_leftovers, processes
from lab.schema import complete

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no process groups")
HANGS = "time.sleep(300)"
DEAF = """
import signal, subprocess
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
subprocess.Popen(["setsid", "sleep", "300"])
if os.fork() == 0:
    os.setsid()
    time.sleep(300)
time.sleep(300)
"""
MISFIT = "class OutOfMemoryError(RuntimeError): pass\nraise OutOfMemoryError('CUDA: 3 GiB wanted')"
FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
print("x" * 100_000, flush=True)
"""
HARD = "gone without a word in phase import: killed, crashed hard, or the system out of memory"
# What the script does: (the error's kind, its summary).
ENDS = {
    "exits": ("sys.exit(3)", "exception", "the script ended before run.finish() was called"),
    "raises": ("raise ValueError('no good')", "exception", "ValueError: no good"),
    "is killed": ("os.kill(os.getpid(), 9)", "killed", HARD),
    "crashes": ("os.kill(os.getpid(), 11)", "killed", HARD),
    "out of the device's memory": (MISFIT, "oom", "OutOfMemoryError: CUDA: 3 GiB wanted"),
    "out of memory": ("raise MemoryError", "oom", "MemoryError"),
    "disk full": (FULL_DISK, "exception", "OSError: [Errno 27] File too large"),
    "too long": (HANGS, "timeout", "took longer than 2 s, its limit"),
    "too long, and deaf": (DEAF, "timeout", "took longer than 2 s, its limit"),
    "diverges": (
        f"run.log_loss(7, 1.0, math.nan); run.log_loss(8, 2.1, math.nan)\n{HANGS}",
        "diverged",
        "diverged: loss is not a number at step 7",
    ),
    "does not parse": (None, "exception", "SyntaxError: invalid syntax"),
    "records nothing": (None, "exception", "the command ended well and recorded nothing; it must use lab.recorder"),
}
WHOLE = {"does not parse": "LR = = 0.1\n", "records nothing": "print('hello')\n"}


class Project(FakeProject):
    """A project whose script is edited by the tests."""

    def edit(self, code):
        """Have the script do something before it measures."""
        before = "fails = os.environ"
        assert before in SCRIPT
        (self.folder / "train.py").write_text(SCRIPT.replace(before, f"{code}\n{before}"))

    def start(self, *words, **environment):
        process = super().start(*words, **environment)
        self.started.append(process)
        return process

    def once(self, *words, **environment):
        return self.run("worker.py", "run", *words, **environment)

    def begin(self, *words, **environment):
        return self.start("worker.py", "run", *words, **environment)

    def marked(self):
        """The processes of the runs that have begun."""
        marks = {f"AUTORESEARCH_RUN_ID={run}".encode() for _, run in self.experiments()}
        found = []
        for pid in processes():
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    found += [pid] if marks & set(file.read().split(b"\0")) else []
            except OSError:
                continue
        return found

    def assert_nothing_is_left(self, status=""):
        assert self.left_behind() == ([], 0)
        assert self.marked() == []
        assert [name for name in os.listdir(self.folder / ".worktrees") if name != ".gitignore"] == []
        assert self.git("status", "--porcelain") == status
        for lock in (self.folder.parent / "slots").glob("*.lock"):
            subprocess.run(["flock", "--nonblock", lock, "true"], check=True)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A project whose baseline has been run."""
    project = Project(tmp_path_factory.mktemp("run") / "project")
    project.started = []
    done = project.once()
    assert (done.returncode, done.errors) == (0, "")
    return project


@pytest.fixture
def project(template, tmp_path):
    """A copy of it, to be changed by one test."""
    shutil.copytree(template.folder, tmp_path / "project")
    twin = Project.__new__(Project)
    twin.folder = tmp_path / "project"
    twin.knowledge, twin.log = twin.folder / "knowledge", twin.folder / "runs.log"
    (tmp_path / "temporary").mkdir()
    own = {"TOY_LOG": twin.log, "KNOWLEDGE_DIR": twin.knowledge, "TMPDIR": tmp_path / "temporary"}
    own |= {"AUTORESEARCH_SLOTS": tmp_path / "slots"}
    twin.started = []
    twin.environment = template.environment | {name: str(path) for name, path in own.items()}
    yield twin
    for process in twin.started:  # where a test failed
        process.kill()


def test_the_packet_of_the_baseline(template):
    (card,) = template.cards()
    assert (card["status"], card["hypothesis"], card["session"], card["commit"]) == (
        "keep", "the baseline", "main", template.git("rev-parse", "HEAD").strip(),
    )  # fmt: skip
    template.assert_nothing_is_left()
    ref = template.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/autoresearch/runs")
    assert ref == f"refs/autoresearch/runs/{card['id']} {card['commit']}\n"


def test_what_an_agent_sees_is_the_packet_alone(project):
    project.edit("print('a line of the log', flush=True); MATRIX_LR = 0.06")
    done = project.once("-m", "a higher\n LR", "--category", "optimizer", "--tags", "a, b", "--seed", "7")
    card = project.cards()[-1]
    assert (done.returncode, done.errors) == (0, "")
    assert done.output == "\n".join(packet(card)) + "\n"
    assert (card["hypothesis"], card["category"], card["tags"], card["seed"]) == (
        "a higher LR", "optimizer", ["a", "b"], 7,
    )  # fmt: skip
    assert (project.folder / "runs" / card["id"] / "run.log").read_text() == "a line of the log\n"
    assert project.git("log", "-1", "--format=%s%n%P", card["commit"]) == (
        f"a higher LR\n{project.git('rev-parse', 'HEAD')}"
    )
    project.assert_nothing_is_left(" M train.py\n")


def test_what_runs_is_the_commit(project):
    """Neither an edit made meanwhile nor what git does not know takes part."""
    (project.folder / "notes.txt").write_text("mine")
    project.edit("print(sorted(os.listdir()), open('train.py').read().count('mean' + 'while'), flush=True)")
    process = project.begin("-m", "an idea", "--json", TOY_GATE=str(project.folder / "gate"))
    wait_for(lambda: len(project.experiments()) == 2)
    project.edit("meanwhile = 1")
    (project.folder / "gate").touch()
    finished(process)
    answer = json.loads(process.output)
    assert (process.returncode, answer["tree"], answer["warnings"]) == (0, None, [])
    card = answer["card"]
    log = (project.folder / "runs" / card["id"] / "run.log").read_text()
    assert log == "['.git', '.gitignore', 'pyproject.toml', 'train.py'] 0\n"
    assert "meanwhile" in (project.folder / "train.py").read_text()
    project.assert_nothing_is_left(" M train.py\n?? notes.txt\n")


@pytest.mark.parametrize("end", [pytest.param(end, marks=[pytest.mark.slow] * ("deaf" in end)) for end in ENDS])
def test_however_it_ends_it_has_its_card_and_leaves_nothing(project, end):
    code, kind, summary = ENDS[end]
    if code is None:
        (project.folder / "train.py").write_text(WHOLE[end])
    else:
        project.edit(code)
    done = project.once("-m", "an idea", "--advance", *(["--timeout", "2"] if end.startswith("too long") else []))
    card = project.cards()[-1]
    assert (done.returncode, done.errors) == (1, "")
    assert (card["status"], card["error"]["kind"], card["hypothesis"]) == ("crash", kind, "an idea")
    assert card["error"]["summary"] == summary
    assert done.output == "\n".join([*packet(card), "  tree       stays as it is: mend the edit, or take it back\n"])
    project.assert_nothing_is_left(" M train.py\n")


NO_CARD = "what the run has left makes no card: "
# What the script leaves in its run folder before it ends without a word: the card's summary.
LEAVES = {
    "(run.dir / 'start.json').write_text('{}')": NO_CARD + "start.json is of another run",
    "(run.dir / 'summary.json').write_text('{\"val_bpb\": 0.1, \"artifacts\": [1]}')": NO_CARD
    + "card field artifacts: [1] is not allowed; it must be an object or null",
    "(run.dir / 'start.json').unlink(); os.mkfifo(run.dir / 'start.json')": NO_CARD + "start.json is no plain file",
    "import shutil; shutil.rmtree(run.dir)": "it has left no log",
}


@pytest.mark.parametrize("code", LEAVES)
def test_whatever_it_leaves_it_has_its_card(project, code):
    project.edit(f"os.kill(run.watcher.pid, 9); {code}; os._exit(3)")
    done = project.once("-m", "an idea")
    card = project.cards()[-1]
    assert (done.returncode, done.errors) == (1, "")
    assert card["error"]["summary"] == LEAVES[code]
    assert (card["status"], card["hypothesis"], len(project.cards())) == ("crash", "an idea", 2)
    project.assert_nothing_is_left(" M train.py\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["waiting", "running", pytest.param("deaf", marks=pytest.mark.slow)])
def test_ctrl_c_and_sigterm(project, number, moment):
    gate = str(project.folder / "gate")
    if moment == "deaf":
        project.edit(DEAF)
    else:
        project.edit("MATRIX_LR = 0.05")
    first = project.begin("-m", "first", TOY_GATE=gate) if moment == "waiting" else None
    if first:
        wait_for(lambda: len(project.experiments()) == 2)
        project.edit("MATRIX_LR = 0.06")
    process = project.begin("-m", "an idea", "--advance", TOY_GATE=gate)
    if first:
        assert process.stderr.readline().startswith("waiting for a slot: cpu is held since ")
    else:
        wait_for(lambda: len(project.experiments()) == 2)
    process.send_signal(number)
    finished(process)
    ended = "error: interrupted; what had been started is ended and cleared away"
    card = project.cards()[-1]
    if first:
        assert process.errors == f"{ended}\n" and len(project.cards()) == 1
        (project.folder / "gate").touch()
        assert finished(first).returncode == 0
    else:
        assert process.errors == f"{ended}; card {card['id']}\n"
        assert (card["error"]["kind"], card["hypothesis"]) == ("interrupted", "an idea")
    assert (process.returncode, process.output) == (128 + number, "")
    project.assert_nothing_is_left(" M train.py\n")


def killed_at(project, seconds):
    """Kill a worker, kill -9, so long after its start; its experiment would wait for ever."""
    process = project.begin("-m", "an idea", TOY_GATE="never")
    time.sleep(seconds)
    process.kill()
    process.communicate()


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_kill_9_at_any_moment(project, kills):
    project.edit("MATRIX_LR = 0.05")
    before = len(project.experiments())
    for _ in range(kills):
        killed_at(project, random.uniform(0.1, 2.5))
    process = project.begin("-m", "an idea", TOY_GATE="never")
    wait_for(lambda: len(project.experiments()) > before)
    process.kill()
    process.communicate()
    wait_for(lambda: not [pid for pid, _ in project.experiments() if lives(pid)])
    wait_for(lambda: not project.marked())
    done = project.once("-m", "an idea")
    assert (done.returncode, done.errors) == (0, "")
    begun = {run for _, run in project.experiments()}
    cards = project.cards()
    assert {card["run_id"] for card in cards} >= begun  # one may have been killed before it could say that it began
    assert {card["error"]["kind"] for card in cards if card["error"]} <= {"interrupted", "killed"}
    assert len([card for card in cards if card["status"] != "crash"]) == 2
    project.assert_nothing_is_left(" M train.py\n")


def test_kill_9_of_the_worker_and_of_the_keeper(project):
    project.edit("MATRIX_LR = 0.05\nimport subprocess; subprocess.Popen(['setsid', 'sleep', '300'])")
    process = project.begin("-m", "an idea", TOY_GATE="never")
    wait_for(lambda: len(project.experiments()) == 2)
    (keeper,) = [pid for pid, one in processes().items() if one.parent == process.pid]
    process.send_signal(signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    process.kill()
    process.communicate()
    wait_for(lambda: not lives(project.experiments()[-1][0]))
    assert tidy(project.folder) == [project.experiments()[-1][1]]
    assert end_leftovers(project.experiments()[-1][1]) == 0
    assert project.cards()[-1]["error"]["kind"] == "killed"
    project.assert_nothing_is_left(" M train.py\n")


def test_advance(project):
    """The packet's tree line, and what it stands for: a gain, a loss, and a run that is asked for again."""
    knowledge = {path: path.read_bytes() for path in project.knowledge.rglob("*.json") if path.name != "index.json"}
    (project.folder / "notes.txt").write_text("mine")
    for values, status in (("MATRIX_LR = 0.08\nEMBEDDING_LR = 0.3", "keep"), ("MATRIX_LR = 0.004", "revert")):
        before = project.git("rev-parse", "HEAD").strip()
        project.edit(values)
        done = project.once("-m", status, "--advance")
        card = project.cards()[-1]
        assert (card["status"], done.errors) == (status, "")
        where = "main is at {}, to go on from" if status == "keep" else "back at {}; what was tried is {}"
        commits = (card["commit"][:12],) if status == "keep" else (before[:12], card["commit"][:12])
        assert done.output.splitlines()[-1] == f"  tree       {where.format(*commits)}"
        assert project.git("rev-parse", "HEAD").strip() == (card["commit"] if status == "keep" else before)
        project.assert_nothing_is_left("?? notes.txt\n")
    assert {path: path.read_bytes() for path in knowledge} == knowledge


def test_what_is_refused_costs_nothing(project):
    done = project.once()
    card = project.cards()[0]
    assert (done.returncode, done.output) == (2, "")
    assert done.errors == (
        f"error: it has been run: card {card['id']} (keep) is this very edit; to run it once more, with another seed: "
        "--replicate --seed N\n"
    )
    project.edit("MATRIX_LR = 0.05")
    assert project.once().errors == "error: train.py has an edit that is not committed; say what it tries: -m TEXT\n"
    assert project.once("-m", "x", "--timeout", "0").errors == (
        "error: argument --timeout: '0' is not a number above 0 (see `worker.py run --help`)\n"
    )
    assert project.once("-m", "x", "--session", "a b").errors == (
        "error: --session 'a b': autoresearch/a b is no name for a branch; give one like mar8\n"
    )
    assert len(project.experiments()) == len(project.cards()) == 1


def test_a_replicate_is_tagged(project):
    done = project.once("--replicate", "--seed", "43", "--advance", "--json")
    answer = json.loads(done.output)
    assert (answer["card"]["tags"], answer["card"]["seed"]) == (["replicate"], 43)
    assert answer["tree"] == f"main is at {project.git('rev-parse', '--short=12', 'HEAD').strip()}, to go on from"


def test_two_at_once_take_turns(project, tmp_path):
    """In the clone and in a worktree of it: one slot, and the second says that it waits."""
    other = tmp_path / "other"
    project.git("worktree", "add", "-q", "-b", "autoresearch/other", str(other))
    gate = project.folder / "gate"
    project.edit("MATRIX_LR = 0.05")
    first = project.begin("-m", "first", TOY_GATE=str(gate))
    wait_for(lambda: len(project.experiments()) == 2)
    (other / "train.py").write_text(SCRIPT.replace("MATRIX_LR = 0.04", "MATRIX_LR = 0.06"))
    second = subprocess.Popen(
        [sys.executable, door_of("worker.py"), "run", "-m", "second"], cwd=other, env=project.environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = second.stderr.readline()
    run = project.experiments()[-1][1]
    assert said.startswith("waiting for a slot: cpu is held since ")
    assert said.endswith(f" for run {run} by process {first.pid}\n")
    assert len(project.experiments()) == 2
    gate.touch()
    assert (finished(first).returncode, finished(second).returncode) == (0, 0)
    assert [card["hypothesis"] for card in project.cards()] == ["the baseline", "first", "second"]
    assert project.cards()[-1]["session"] == "other"
    project.git("worktree", "remove", "--force", str(other))
    project.assert_nothing_is_left(" M train.py\n")


def test_a_terminal_shows_how_far_it_is_and_then_the_packet(project):
    code = "run.log_loss(7, 3.0, 2.5)\ntime.sleep(2.5)\nMATRIX_LR = 0.05"
    project.edit(code)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, door_of("worker.py"), "run", "-m", "an idea"], cwd=project.folder, env=project.environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, text=True,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while True:
        try:
            more = os.read(master, 4096)
        except OSError:  # EIO: nobody has the other end open
            break
        if not more:
            break
        shown += more
    os.close(master)
    output, _ = process.communicate()
    lines = [line for line in shown.decode().split("\r") if line.strip()]
    assert lines[0] == f"   0 s  run {project.cards()[-1]['id']} has started"
    assert lines[-1].partition(" s  ")[2] == "step 7, 3 s trained, loss 2.500000"
    assert shown.decode().endswith(f"\r{' ' * len(lines[-1])}\r")
    assert output == "\n".join(packet(project.cards()[-1])) + "\n"


def test_a_packet_has_fifteen_lines_at_most():
    card = complete(
        {
            "id": "a" * 16, "timestamp": "2026-01-31T12:00:00.000Z", "status": "keep", "hypothesis": "an idea",
            "results": {"val_bpb": 0.99, "delta": -0.001, "hidden_bpb": 0.991},
            "error": {"kind": "exception", "phase": None, "summary": "?", "tail": []},
            "decision": {
                "status": "keep", "reason": "a gain is to be expected", "action": "replicate", "priority": 3,
                "git": "keep_commit", "champion": "b" * 16, "champion_mean": 0.991, "champion_sd": 0.0003,
                "probability": 0.9, "same": 0.1, "expected": -0.001, "expected_sd": 0.0005, "noise": 0.0005,
                "noise_basis": "from 2 repeats of one edit", "repeats": 4,
            },
        }
    ) | {"quarantined": "suspect_device: others"}  # fmt: skip
    lines = _told(card, ["a warning", "another"], "stays").splitlines()
    assert len(lines) == 14
    assert lines[10:] == [
        "  suspect    | suspect_device: others", "  hidden     0.991000 on text that no run has seen",
        "  warning    | a warning", "  tree       stays",
    ]  # fmt: skip
