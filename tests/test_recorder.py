"""Every run leaves exactly one card: real processes, ended in every way there is.

The trainer is a script of a few lines. Faults are injected through audit hooks (PEP 578): at the n-th file operation
inside `finish` the process kills or interrupts itself.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.cards import load_cards, machine
from lab.decide import packet
from lab.schema import PHASES
from lab.store import read_json

ROOT = Path(__file__).parent.parent
HEAD = """
import os, signal, sys, time
from lab import recorder
run = recorder.start(__file__)
print(run.watcher.pid, flush=True)
run.update(config={"DEPTH": 8}, platform={"device": "cpu"}, track="t", seed=42, preset="small")
"""
LOSS = "\nrun.log_loss(0, 0.0, 5.0)\n"
END = '\nrun.finish({"val_bpb": 1.5, "val_bpb_stderr": 0.001, "num_steps": 10})\n'
FINISH = LOSS + END
# Runs ACTION at the N-th file operation from here on.
FAULT = """
count = 0
def at_file_operation(event, arguments):
    global count
    if event in ("open", "os.link", "os.rename", "os.remove"):
        count += 1
        if count == N:
            ACTION
sys.addaudithook(at_file_operation)
"""


class Checkout:
    """A folder with a train.py in it, and the commons its runs write to."""

    def __init__(self, folder):
        self.folder = folder
        self.knowledge = folder / "knowledge"
        ours = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")}
        # git must not find a repository above, nor anybody's configuration
        self.environment = ours | {
            "PYTHONPATH": str(ROOT),
            "KNOWLEDGE_DIR": str(self.knowledge),
            "GIT_CEILING_DIRECTORIES": str(folder.parent),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            # Under a limit on the size of files Python 3.11 writes half a .pyc and does not notice.
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

    def start(self, body, head=HEAD, **environment):
        """Start train.py in a process group of its own; returns the process and its watcher's pid."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "train.py").write_text(head + body)
        process = subprocess.Popen(
            [sys.executable, "train.py"],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return process, int(process.stdout.readline() or 0)

    def run(self, body, **environment):
        """Run train.py to its end and its watcher's; returns exit code, what it printed after the pid, and stderr."""
        process, watcher = self.start(body, **environment)
        output, errors = process.communicate(timeout=60)
        wait_for_end(watcher)
        return process.returncode, output, errors

    def cards(self):
        """All cards."""
        return load_cards(self.knowledge)

    def card(self):
        """The one card there is."""
        (card,) = self.cards()
        return card

    def git(self, *arguments):
        """Run git in the checkout."""
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
        subprocess.run(["git", *identity, *arguments], cwd=self.folder, check=True, capture_output=True,
                       env=self.environment)  # fmt: skip


def wait_for_end(pid):
    """Wait until a process that is no child of ours is gone, or a zombie that nobody reaps."""
    deadline = time.monotonic() + 30
    while pid and time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return
        time.sleep(0.02)
    assert not pid, f"process {pid} is still there"


@pytest.fixture
def checkout(tmp_path):
    """An empty checkout."""
    return Checkout(tmp_path / "checkout")


def test_a_finished_run(checkout):
    body = 'for phase in ("prepare", "train", "evaluate", "record"): run.phase(phase)' + FINISH
    assert checkout.run(body + 'print("done")') == (0, "done\n", "")
    card = checkout.card()
    (folder,) = (checkout.folder / "runs").iterdir()
    assert (card["id"], card["run_id"], card["status"], card["error"]) == (folder.name, folder.name, "keep", None)
    assert (card["config"], card["platform"], card["track"]) == (
        {"DEPTH": 8}, {"device": "cpu", "machine": machine()}, "t",
    )  # fmt: skip
    assert (folder / "decision.md").read_text() == "\n".join(["# Decision", "", *packet(card), ""])
    assert (card["seed"], card["preset"], card["config_diff"]) == (42, "small", {})
    assert card["results"]["loss_curve"] == [[0, 0.0, 5.0]]
    assert {name: value for name, value in card["results"].items() if value is not None} == {
        "val_bpb": 1.5, "val_bpb_stderr": 0.001, "num_steps": 10, "loss_curve": [[0, 0.0, 5.0]],
    }  # fmt: skip
    assert card["artifacts"] == {"files": ["losses.jsonl", "start.json", "summary.json", "train.py"]}
    assert (folder / "train.py").read_text() == (checkout.folder / "train.py").read_text()
    assert read_json(folder / "start.json")["phase"] == "record"
    assert read_json(folder / "summary.json") == {
        "run_id": card["id"], "val_bpb": 1.5, "val_bpb_stderr": 0.001, "num_steps": 10, "loss_curve": [[0, 0.0, 5.0]],
    }  # fmt: skip


def test_runs_are_compared_with_the_champion_of_their_track(checkout):
    for bpb, depth in ((1.5, 8), (1.4, 10), (1.401, 12), (1.6, 14)):
        code, _, errors = checkout.run(f'run.update(config={{"DEPTH": {depth}}}); run.finish({{"val_bpb": {bpb}}})')
        assert (code, errors) == (0, "")
    cards = checkout.cards()[::-1]
    assert [card["status"] for card in cards] == ["keep", "keep", "inconclusive", "revert"]
    assert [card["config_diff"] for card in cards] == [{}, {"DEPTH": [8, 10]}, {"DEPTH": [10, 12]}, {"DEPTH": [10, 14]}]
    assert [card["decision"]["champion"] for card in cards] == [None, cards[0]["id"], cards[1]["id"], cards[1]["id"]]
    assert [card["results"]["delta"] for card in cards] == [None, 1.4 - 1.5, 1.401 - 1.4, 1.6 - 1.4]


def test_a_machine_is_known_by_its_name_and_tells_nothing_of_it(monkeypatch):
    monkeypatch.delenv("AUTORESEARCH_MACHINE", raising=False)
    here = machine()
    monkeypatch.setenv("AUTORESEARCH_MACHINE", "node-7")
    assert re.fullmatch("[0-9a-f]{12}", machine()) and machine() != here
    assert machine() == hashlib.sha256(b"node-7").hexdigest()[:12]


def test_a_damaged_neighbour_costs_the_verdict_and_not_the_card(checkout):
    (checkout.knowledge / "cards").mkdir(parents=True)
    torn = checkout.knowledge / "cards" / "torn.json"
    torn.write_text("{")
    code, _, errors = checkout.run(FINISH)
    assert code == 0 and errors.startswith(f"warning: this run is compared with nothing: {torn} is not JSON (")
    torn.unlink()
    card = checkout.card()
    assert (card["status"], card["results"]["val_bpb"]) == ("inconclusive", 1.5)
    assert card["decision"]["reason"] == "the commons could not be read: compared with nothing"


@pytest.mark.parametrize("phase", PHASES)
def test_kill_9_in_every_phase(checkout, phase):
    process, watcher = checkout.start(f'run.phase("{phase}"); print("ready", flush=True); time.sleep(60)')
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()
    wait_for_end(watcher)
    card = checkout.card()
    assert (card["status"], card["results"]["val_bpb"], card["config"]) == ("crash", None, {"DEPTH": 8})
    assert card["error"] == {
        "kind": "killed",
        "phase": phase,
        "summary": f"gone without a word in phase {phase}: killed, crashed hard, or the system out of memory",
        "tail": [],
    }


def test_kill_9_of_the_whole_process_group_with_a_log(checkout):
    process, watcher = checkout.start('print("ready", flush=True); time.sleep(60)')
    process.stdout.readline()
    (folder,) = (checkout.folder / "runs").iterdir()
    (folder / "run.log").write_text("".join(f"step {step}\n" for step in range(100)))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for_end(watcher)
    assert checkout.card()["error"]["tail"] == [f"step {step}" for step in range(80, 100)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to know when the watcher is ready")
def test_signals_do_not_stop_the_watcher(checkout):
    process, watcher = checkout.start('run.phase("train"); print("ready", flush=True); time.sleep(60)')
    process.stdout.readline()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    wanted = sum(1 << (number - 1) for number in numbers)
    while int(Path(f"/proc/{watcher}/status").read_text().split("SigIgn:")[1].split()[0], 16) & wanted != wanted:
        time.sleep(0.02)  # Python is still starting
    for number in numbers:
        os.kill(watcher, number)
    process.kill()
    process.communicate()
    wait_for_end(watcher)
    assert checkout.card()["error"]["kind"] == "killed"


def test_a_forked_child_that_lives_on_does_not_delay_the_card(checkout):
    body = 'if os.fork() == 0: time.sleep(60); os._exit(0)\nos.write(1, b"ready\\n"); time.sleep(60)'
    process, watcher = checkout.start(body)
    process.stdout.readline()
    process.kill()
    process.wait()
    wait_for_end(watcher)
    assert checkout.card()["error"]["kind"] == "killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def sweep(tmp_path, action, count):
    """Run trainers that do `action` at the 1st, 2nd, ... file operation of finish; returns (checkout, code) of each."""

    def one(number):
        checkout = Checkout(tmp_path / str(number))
        fault = FAULT.replace("ACTION", action).replace("N:", f"{number}:")
        code, output, _ = checkout.run(LOSS + fault + END + 'print("finished", count)')
        return checkout, code, output

    with ThreadPoolExecutor(3) as pool:
        return [*pool.map(one, range(1, count + 1))]


def test_kill_9_at_every_file_operation_of_finish(tmp_path):
    ends = sweep(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", 12)
    assert [code for _, code, _ in ends[:8]] == [-signal.SIGKILL] * 8
    for checkout, _, _ in ends:
        card = checkout.card()
        measured = [*checkout.folder.glob("runs/*/summary.json")] != []
        assert (card["results"]["val_bpb"], card["status"]) == ((1.5, "keep") if measured else (None, "crash"))
    statuses = [checkout.card()["status"] for checkout, _, _ in ends]
    assert {"crash", "keep"} == set(statuses)
    between = [
        checkout for checkout, code, _ in ends if code == -signal.SIGKILL and checkout.card()["status"] == "keep"
    ]
    assert len(between) >= 3, "no kill fell between the summary and the end of finish"


def test_ctrl_c_at_every_file_operation_of_finish(tmp_path):
    for checkout, code, output in sweep(tmp_path, "os.kill(os.getpid(), signal.SIGINT)", 6):
        assert (code, output.split()[0]) == (0, "finished")
        assert checkout.card()["results"]["val_bpb"] == 1.5


def test_ctrl_c(checkout):
    process, watcher = checkout.start('run.phase("train"); print("ready", flush=True); time.sleep(60)')
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    wait_for_end(watcher)
    card = checkout.card()
    assert process.returncode == 130
    assert errors == f"interrupted: stopped by Ctrl-C; the card of this run is {card['id']}\n"
    assert (card["error"]["kind"], card["error"]["phase"]) == ("interrupted", "train")


def test_sigterm(checkout):
    code, _, errors = checkout.run("os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)")
    card = checkout.card()
    assert (code, errors) == (143, f"interrupted: stopped by SIGTERM; the card of this run is {card['id']}\n")
    assert (card["error"]["kind"], card["error"]["summary"]) == ("interrupted", "stopped by SIGTERM")


def test_a_second_ctrl_c_while_the_first_unwinds(checkout):
    interrupt = "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    code, _, _ = checkout.run(f"try:\n    {interrupt}\nfinally:\n    {interrupt}")
    assert (code, checkout.card()["error"]["kind"]) == (130, "interrupted")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_second_ctrl_c_while_the_first_is_recorded(checkout, number):
    fault = FAULT.replace("ACTION", "os.kill(os.getpid(), signal.SIGINT)").replace("N:", f"{number}:")
    code, _, _ = checkout.run(fault + "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)")
    assert (code, checkout.card()["error"]["kind"]) == (130, "interrupted")


def test_ctrl_c_after_the_end_changes_nothing(checkout):
    code, _, errors = checkout.run(FINISH + "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)")
    card = checkout.card()
    assert (code, card["status"]) == (130, "keep")
    assert errors == f"interrupted: stopped by Ctrl-C; the card of this run is {card['id']}\n"


def test_an_exception(checkout):
    code, _, errors = checkout.run('run.phase("train"); run.log_loss(1, 0.5, 3.25)\nraise ValueError("wrong\\nshape")')
    card = checkout.card()
    assert code == 1
    assert errors.startswith("Traceback (most recent call last):\n") and errors.endswith("ValueError: wrong\nshape\n")
    assert (card["error"]["kind"], card["error"]["summary"]) == ("exception", "ValueError: wrong")
    assert card["error"]["tail"][-2:] == ["ValueError: wrong", "shape"]
    assert (card["status"], card["results"]["loss_curve"]) == ("crash", [[1, 0.5, 3.25]])


@pytest.mark.parametrize(
    ("name", "kind"), [("DivergedError", "diverged"), ("SettingError", "setting"), ("DataError", "data")]
)
def test_a_failure_that_a_user_can_see(checkout, name, kind):
    code, _, errors = checkout.run(f'from lab import errors\nraise errors.{name}("DEPTH = 0 is too small; use 1")')
    assert (code, errors) == (2, "error: DEPTH = 0 is too small; use 1\n")
    assert (checkout.card()["error"]["kind"], checkout.card()["error"]["summary"]) == (
        kind,
        "DEPTH = 0 is too small; use 1",
    )


def test_out_of_memory(checkout):
    code, _, errors = checkout.run('class OutOfMemoryError(RuntimeError): pass\nraise OutOfMemoryError("2 GiB")')
    assert code == 1 and errors.endswith("OutOfMemoryError: 2 GiB\n")
    assert checkout.card()["error"]["kind"] == "oom"


@pytest.mark.parametrize("code", [0, 7])
def test_an_end_without_a_result(checkout, code):
    assert checkout.run(f"sys.exit({code})") == (code, "", "")
    error = checkout.card()["error"]
    assert (error["kind"], error["summary"]) == ("exception", "the script ended before run.finish() was called")


@pytest.mark.parametrize(("body", "code"), [("os._exit(3)", 3), ("os.abort()", -signal.SIGABRT)])
def test_an_end_that_python_does_not_notice(checkout, body, code):
    assert checkout.run(body) == (code, "", "")
    assert checkout.card()["error"]["kind"] == "killed"


def test_children_leave_no_card_of_their_own(checkout):
    body = """
import multiprocessing
context = multiprocessing.get_context("fork")
worker = context.Process(target=time.sleep, args=(60,))
worker.start()
worker.terminate()
worker.join()
failing = context.Process(target=divmod, args=(1, 0))
failing.start()
failing.join()
if os.fork() == 0:
    sys.exit(5)
if os.fork() == 0:
    raise ValueError("in a child")
ends = sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2))
print(worker.exitcode, failing.exitcode, ends, flush=True)
"""
    code, output, _ = checkout.run(body + FINISH)
    assert (code, output) == (0, "-15 1 [1, 5]\n")
    assert checkout.card()["status"] == "keep"


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_result_that_is_not_finite(checkout, value):
    code, _, errors = checkout.run(f'run.finish({{"val_bpb": float("{value}")}})')
    assert (code, errors) == (2, f"error: val_bpb is {value}: the evaluation gave no result\n")
    assert checkout.card()["error"]["kind"] == "diverged"


def test_other_results_that_are_not_finite_are_unknown(checkout):
    assert checkout.run('run.finish({"val_bpb": 1.5, "mfu_percent": float("inf")})') == (0, "", "")
    assert (checkout.card()["results"]["val_bpb"], checkout.card()["results"]["mfu_percent"]) == (1.5, None)


@pytest.mark.parametrize("call", ['run.finish({"val_bpb": 1.5, "depth": "8"})', 'run.update(results={"depth": "8"})'])
def test_a_value_that_the_schema_refuses(checkout, call):
    code, _, errors = checkout.run(call)
    message = "card field results.depth: '8' is not allowed; it must be a whole number or null"
    assert (code, errors) == (2, f"error: {message}\n")
    assert checkout.card()["error"]["summary"] == message


def test_a_phase_that_does_not_exist(checkout):
    code, _, errors = checkout.run('run.phase("lunch")')
    assert (code, errors) == (
        2,
        "error: phase 'lunch' is not one of import, prepare, compile, train, evaluate, record\n",
    )


def test_a_card_that_cannot_be_written_leaves_the_results(checkout):
    blocked = checkout.folder / "blocked"
    code, _, errors = checkout.run(
        f'open({str(blocked)!r}, "w").close()' + FINISH, KNOWLEDGE_DIR=str(blocked / "commons")
    )
    (folder,) = (checkout.folder / "runs").iterdir()
    assert (code, errors) == (
        2,
        f"warning: this run is compared with nothing: cannot read {blocked}/commons/notes: Not a directory\n"
        f"error: cannot write {blocked}/commons/cards/{folder.name}.json: Not a directory; free space there or make "
        f"the folder writable; the results are safe in {folder}/summary.json\n",
    )
    assert read_json(folder / "summary.json")["val_bpb"] == 1.5
    assert sorted(os.listdir(folder)) == ["losses.jsonl", "start.json", "summary.json", "train.py"]


def test_a_card_for_which_the_disk_is_too_full_is_made_by_the_watcher(checkout):
    code, _, errors = checkout.run("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))" + FINISH)
    (folder,) = (checkout.folder / "runs").iterdir()
    assert (code, errors) == (
        2,
        f"error: cannot write {checkout.knowledge}/cards/{folder.name}.json: File too large; free space there or make "
        f"the folder writable; the results are safe in {folder}/summary.json\n",
    )
    assert (checkout.card()["status"], checkout.card()["results"]["val_bpb"]) == ("keep", 1.5)


def test_a_disk_that_is_full(checkout):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    code, _, errors = checkout.run(limit + FINISH)
    (folder,) = (checkout.folder / "runs").iterdir()
    full = "File too large; free space there or make the folder writable"
    assert (code, errors) == (
        2,
        f"error: cannot write {folder}/summary.json: {full}; val_bpb 1.500000 is recorded nowhere else\n"
        f"error: cannot write {checkout.knowledge}/cards/{folder.name}.json: {full}\n",
    )
    assert checkout.card()["error"]["kind"] == "killed"  # the watcher has no such limit
    assert sorted(os.listdir(folder)) == ["decision.md", "losses.jsonl", "start.json", "train.py"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"AUTORESEARCH_RUN_ID": "run-1"},
         "AUTORESEARCH_RUN_ID='run-1' is not a run id; use 12 to 64 hex characters or unset it"),
        ({"AUTORESEARCH_CATEGORY": "magic"},
         "AUTORESEARCH_CATEGORY='magic' is not one of architecture, optimizer, "
         "hyperparams, activation, attention, embedding, normalization, regularization, scheduling, initialization, "
         "simplification, combination, ablation, other"),
        ({"AUTORESEARCH_RUNS_DIR": "/dev/null/runs"}, "cannot write /dev/null/runs/ID/train.py: Not a directory; free "
                                                      "space there or make the folder writable"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_starts_nothing(checkout, environment, message):
    code, _, errors = checkout.run("", **environment)
    assert (code, re.sub("[0-9a-f]{16}", "ID", errors)) == (2, f"error: {message}\n")
    assert not (checkout.folder / "runs").exists() and not checkout.knowledge.exists()


def test_a_runner_names_the_run_and_its_folder(checkout):
    environment = {
        "AUTORESEARCH_RUN_ID": "f" * 16,
        "AUTORESEARCH_RUN_DIR": "elsewhere/run",
        "AUTORESEARCH_SUMMARY_PATH": "summary-copy.json",
        "AUTORESEARCH_HYPOTHESIS": "wider",
        "AUTORESEARCH_SESSION": "mar8",
        "AUTORESEARCH_AGENT": "robot",
        "AUTORESEARCH_TAGS": "mlp, width,",
        "AUTORESEARCH_CATEGORY": "architecture",
    }
    assert checkout.run(FINISH, **environment) == (0, "", "")
    card = checkout.card()
    assert card["id"] == "f" * 16
    names = ("hypothesis", "session", "agent", "tags", "category")
    assert [card[name] for name in names] == ["wider", "mar8", "robot", ["mlp", "width"], "architecture"]
    summary = read_json(checkout.folder / "elsewhere" / "run" / "summary.json")
    assert json.loads((checkout.folder / "summary-copy.json").read_text()) == summary
    assert not (checkout.folder / "runs").exists()
    code, _, errors = checkout.run(FINISH, **environment)
    assert (code, errors) == (
        2,
        "error: AUTORESEARCH_RUN_ID=ffffffffffffffff: this run has a card; give every run its own id\n",
    )
    folder = checkout.folder / "elsewhere" / "run"
    code, _, errors = checkout.run(FINISH, AUTORESEARCH_RUN_DIR=str(folder))
    assert (code, errors) == (
        2,
        f"error: AUTORESEARCH_RUN_DIR={folder}: another run was here; give every run its own folder\n",
    )
    assert len(checkout.cards()) == 1


def commit(checkout, subject):
    """Commit train.py as `start` writes it."""
    checkout.folder.mkdir(exist_ok=True)
    (checkout.folder / "train.py").write_text(HEAD + FINISH)
    if not (checkout.folder / ".git").exists():
        checkout.git("init", "-q")
    checkout.git("add", "train.py")
    checkout.git("commit", "-q", "--allow-empty", "-m", subject)


def test_git_facts(checkout):
    commit(checkout, "baseline")
    checkout.git("checkout", "-q", "-b", "autoresearch/mar8")
    commit(checkout, "wider MLP")
    log = subprocess.check_output(["git", "log", "--format=%H"], cwd=checkout.folder, text=True).split()
    assert checkout.run(FINISH) == (0, "", "")
    card = checkout.card()
    assert [card["commit"], card["parent_commit"]] == log
    assert (card["hypothesis"], card["session"]) == ("wider MLP", "mar8")
    assert "diff.patch" not in card["artifacts"]["files"]


def test_an_uncommitted_edit_is_said_and_kept(checkout):
    commit(checkout, "baseline")
    checkout.git("config", "diff.noprefix", "true")
    assert checkout.run("# an edit" + FINISH) == (0, "", "")
    card = checkout.card()
    assert card["hypothesis"] == "uncommitted edit of train.py, see diff.patch in the run folder"
    assert "+# an edit\n" in (checkout.folder / "runs" / card["id"] / "diff.patch").read_text()
    (checkout.folder / "other.py").write_text("x = 1\n")
    checkout.git("add", "other.py", "train.py")
    checkout.git("commit", "-qm", "two files")
    (checkout.folder / "other.py").write_text("x = 2\n")
    assert checkout.run("# an edit" + FINISH) == (0, "", "")
    assert checkout.cards()[0]["hypothesis"] == "two files"


@pytest.mark.parametrize("state", ["no git", "no repository", "no commit"])
def test_without_git_the_facts_are_null(checkout, state):
    environment = {"PATH": "/nowhere"} if state == "no git" else {}
    if state == "no commit":
        checkout.folder.mkdir()
        checkout.git("init", "-q")
    assert checkout.run(FINISH, **environment) == (0, "", "")
    card = checkout.card()
    assert [card[name] for name in ("commit", "parent_commit", "hypothesis", "session", "category")] == [None] * 5
    assert re.fullmatch("[0-9a-f]{64}", card["train_sha256"])


def test_a_run_in_a_linked_worktree_records_in_the_main_commons(checkout, tmp_path):
    commit(checkout, "baseline")
    checkout.git("worktree", "add", "-q", str(tmp_path / "linked"))
    linked = Checkout(tmp_path / "linked")
    assert linked.run(FINISH, KNOWLEDGE_DIR="") == (0, "", "")
    assert checkout.card()["status"] == "keep"
    assert not linked.knowledge.exists() and (linked.folder / "runs").exists()


def test_a_script_that_changes_its_folder(checkout, tmp_path):
    assert checkout.run(f"os.chdir({str(tmp_path)!r})" + FINISH, KNOWLEDGE_DIR="commons") == (0, "", "")
    assert len(load_cards(checkout.folder / "commons")) == 1


def test_the_recorder_is_not_run_by_hand():
    done = subprocess.run([sys.executable, "-m", "lab.recorder"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "usage: python -m lab.recorder --watch RUN_DIR PID (train.py starts it, nobody else needs to)\n",
    )


# --- what the evaluator has measured is what the card says --------------------------------------------------------

MEASURED = 'recorder.current().evaluated({"val_bpb": 1.5, "eval_tokens": 640, "track": "t"})\n'
SECOND_LOOK = "[tool.autoresearch]\nsecond_look = 'look'\n"


def settings(checkout, text):
    checkout.folder.mkdir(exist_ok=True)
    (checkout.folder / "pyproject.toml").write_text(text)


def test_what_was_measured_is_recorded(checkout):
    settings(checkout, SECOND_LOOK)
    assert checkout.run(MEASURED + FINISH + "print(recorder.current() is run)") == (0, "True\n", "")
    (evaluation,) = checkout.folder.glob("runs/*/evaluation.json")
    assert read_json(evaluation) == {"val_bpb": 1.5, "eval_tokens": 640, "track": "t"}
    assert (checkout.card()["results"]["val_bpb"], checkout.card()["quarantined"]) == (1.5, None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (FINISH, "val_bpb 1.500000 was not measured by the evaluator in this run; call prepare.evaluate_bpb once, at "
                 "the end"),
        ('open(run.dir / "evaluation.json", "w").write(\'{"val_bpb": 1.5}\')\n' + FINISH,
         "val_bpb 1.500000 was not measured by the evaluator in this run; call prepare.evaluate_bpb once, at the end"),
        (MEASURED + 'run.finish({"val_bpb": 1.25})',
         "val_bpb is 1.25 in the results and the evaluator has measured 1.5; hand on what it has returned"),
        (MEASURED + 'run.finish({"val_bpb": 1.5, "eval_tokens": 1000})',
         "eval_tokens is 1000 in the results and the evaluator has measured 640; hand on what it has returned"),
        (MEASURED + MEASURED, "the run has been evaluated before; a run is evaluated once, at its end"),
        (MEASURED + 'run.update(track="another")\n' + FINISH,
         "the track another is not what was evaluated, which is t...; use prepare.track"),
    ],
)  # fmt: skip
def test_another_result_than_was_measured_is_refused(checkout, body, message):
    settings(checkout, SECOND_LOOK)
    code, _, errors = checkout.run(body)
    assert (code, errors) == (2, f"error: {message}\n")
    error = checkout.card()["error"]
    assert (error["kind"], error["summary"], checkout.card()["results"]["val_bpb"]) == ("setting", message, None)


def test_a_summary_written_by_hand_is_no_result(checkout):
    forged = 'import json\nopen(run.dir / "summary.json", "w").write(json.dumps({"run_id": run.id, "val_bpb": 0.5}))\n'
    assert checkout.run(forged + MEASURED + FINISH) == (0, "", "")
    assert checkout.card()["results"]["val_bpb"] == 1.5


SLOW_CLOCK = (
    "time.perf_counter = time.monotonic = time.time = lambda: 0.0\nimport threading; threading.Event().wait(1.2)\n"
)
TOLERANT = "recorder.CLOCK_SECONDS = 0.3\n"


@pytest.mark.parametrize(
    ("said", "environment", "reason"),
    [
        (1.2, {"AUTORESEARCH_TIME_BUDGET": "0.5"}, r"trained 1\.\d s by the recorder's clock, and the budget is 0.5 s"),
        (0.1, {"AUTORESEARCH_TIME_BUDGET": "5"},
         r"training_seconds is 0\.1, and the recorder's clock has counted 1\.\d s"),
        (0.1, {"AUTORESEARCH_STEPS": "3"}, r"training_seconds is 0\.1, and the recorder's clock has counted 1\.\d s"),
        (1.2, {"AUTORESEARCH_TIME_BUDGET": "5"}, None),
        (1.2, {"AUTORESEARCH_TIME_BUDGET": "0.5", "AUTORESEARCH_STEPS": "3"}, None),
    ],
)  # fmt: skip
def test_the_recorder_has_a_clock_of_its_own(checkout, said, environment, reason):
    train = (TOLERANT if reason else "") + 'run.phase("train")\n' + SLOW_CLOCK + MEASURED
    assert checkout.run(train + f'run.finish({{"val_bpb": 1.5, "training_seconds": {said}}})', **environment)[0] == 0
    card = checkout.card()
    assert (card["status"], card["results"]["training_seconds"]) == ("keep", said)
    assert card["phases"]["train"] >= 1.2
    assert re.fullmatch(reason or "None", str(card["quarantined"]))


@pytest.mark.parametrize(("result", "kept"), [(1.4, True), (1.6, False)])
def test_only_what_is_kept_has_weights(checkout, result, kept):
    assert checkout.run(FINISH) == (0, "", "")
    weights = 'open(run.dir / recorder.CHECKPOINT, "w").close()\n'
    assert checkout.run(weights + f'run.finish({{"val_bpb": {result}}})') == (0, "", "")
    assert (checkout.cards()[0]["status"] == "keep") == kept == bool([*checkout.folder.glob("runs/*/checkpoint*")])
