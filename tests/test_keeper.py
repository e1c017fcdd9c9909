"""Nothing of a command is left, however it ends and whoever is killed: real processes, found by a mark in /proc.

All the scenes are begun at once, and who would not end by itself is given less time for it than there is
(tests/test_cli_run.py has a deaf one with all the time there is). Should a test be killed, what it had started ends by
itself within two minutes.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from fake_project import wait_for

from lab import keeper
from lab.cards import load_cards, new_id
from lab.keeper import end_leftovers, processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="who is left is told by /proc")

ROOT = Path(__file__).parent.parent
# Calls run_group with the words of the command line, and notes what comes of it.
CALLER = f"""
import fcntl, json, os, re, sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from lab import keeper
from lab.interrupts import interruptible
from lab.runner import run_group
options = json.loads(sys.argv[1])
lock = os.open("lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
ready = Path("ready")
def begun():  # the machine may be busy: what is ended at its limit is to have begun
    while not ready.exists(): time.sleep(0.02)
look = {{"limit": begun, "look": lambda: "seen enough" if ready.exists() else None}}.get(options["at"])
limit = 1.5 if options["at"] == "limit" else None  # after the first look
source = Path(keeper.__file__).read_text()
for name, seconds in options["patience"].items():
    setattr(keeper, name, seconds)
    source = re.sub(f"(?m)^{{name}} = [0-9.]+", f"{{name}} = {{seconds}}", source)
Path("keeper.py").write_text(source)
keeper.__file__ = "keeper.py"
try:
    with interruptible():
        code = run_group(sys.argv[2:], Path("."), os.environ, Path("log"), held=[lock], look=look, limit=limit)
except Exception as error:
    print(type(error).__name__, error)
else:
    print(code)
"""
LEFTOVERS = """
import sys
from lab import keeper
keeper.GRACE_SECONDS = 1.0
print(keeper.end_leftovers(sys.argv[1]) > 4)
"""
SLEEP = "import time; time.sleep(120)"
HEAD = "import os, signal, sys, time\nfrom pathlib import Path\nready = Path('ready')\n"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
STAY = "ready.touch()\ntime.sleep(120)\n"
DETACH = """
def detach():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            return True
        os._exit(0)
    os.wait()
"""
RECORDER = f"sys.path.insert(0, {str(ROOT)!r})\nfrom lab import recorder\nrun = recorder.start(__file__)\n"
SCRIPTS = {
    "forks": HEAD + "if os.fork(): sys.exit(3)\ntime.sleep(120)",
    "forks deaf": HEAD + DEAF + "if os.fork(): sys.exit(3)\ntime.sleep(120)",
    "detaches": HEAD + DETACH + "if detach(): time.sleep(120)\nsys.exit(3)",
    # Who has an environment of its own cannot be found by the mark, but is adopted.
    "detaches bare": HEAD + DETACH + "if detach(): os.execve('/bin/sleep', ['sleep', '120'], {})\nsys.exit(3)",
    "rude": HEAD + DEAF + DETACH + """
if detach():
    for step in range(1000):  # it is never the same process for long
        time.sleep(0.05)
        if os.fork(): os._exit(0)
        if step % 20 == 0 and detach():
            time.sleep(120)
            os._exit(0)  # or it would go on where it was forked
    time.sleep(120)
""" + STAY,
    "polite": HEAD + """
def leave(*_):
    print("asked", flush=True)
    sys.exit(4)
signal.signal(signal.SIGTERM, leave)
""" + STAY,
    "recorded": HEAD + RECORDER + STAY,
    # Its watcher is not to be asked to end before it has learnt not to listen.
    "recorded deaf": HEAD + RECORDER + DEAF + """
def deaf(pid):
    return int(Path(f"/proc/{pid}/status").read_text().partition("SigIgn:")[2].split()[0], 16) & 1 << signal.SIGTERM - 1
while not deaf(run.watcher.pid): time.sleep(0.02)
""" + STAY,
}  # fmt: skip
# What they are given of the keeper's seconds. Who records its end has all of them, for the machine may be busy.
PATIENCE = {
    "forks deaf": {"SETTLE_SECONDS": 1.0},
    "rude": {"GRACE_SECONDS": 1.0, "SETTLE_SECONDS": 1.0},
    "recorded deaf": {"GRACE_SECONDS": 1.0},
}
STOPPED = "StoppedError seen enough\n"
INTERRUPTED = "InterruptedRunError interrupted; what had been started is ended and cleared away\n"
OVERTIME = f"OvertimeError {sys.executable} took longer than 1.5 s and was ended\n"
# The script, what ends it, and what its caller prints at last: None where it was killed.
SCENES = [
    *((script, None, "3\n") for script in ("forks", "forks deaf", "detaches", "detaches bare")),
    ("polite", "limit", OVERTIME),
    ("polite", "look", STOPPED),
    ("polite", "SIGINT", INTERRUPTED),
    ("polite", "SIGTERM", INTERRUPTED),
    ("polite", "kill caller", None),
    ("polite", "kill keeper", "-9\n"),
    ("rude", "limit", OVERTIME),
    ("rude", "look", STOPPED),
    ("rude", "SIGINT twice", INTERRUPTED),
    ("rude", "SIGTERM", INTERRUPTED),
    ("rude", "kill caller", None),
    ("rude", "kill keeper", "-9\n"),
    ("rude", "kill both", None),
    ("recorded", "limit", OVERTIME),
    ("recorded", "kill caller", None),
    ("recorded deaf", "limit", OVERTIME),
    ("recorded deaf", "kill keeper", "-9\n"),
]


def processes_of(run, folder="nowhere"):
    """The processes of a run, by the mark in their environment or the folder that they work in."""
    mark, found = f"AUTORESEARCH_RUN_ID={run}".encode(), set()
    for pid in processes():
        with suppress(OSError):
            about = Path(f"/proc/{pid}")
            if mark in (about / "environ").read_bytes().split(b"\0") or os.readlink(about / "cwd") == str(folder):
                found.add(pid)
    return found


class Scene:
    """A caller of run_group in a folder of its own, and the script that it runs."""

    def __init__(self, folder, script, end):
        self.folder, self.end, self.run = folder, end, new_id()
        folder.mkdir()
        (folder / "train.py").write_text(SCRIPTS[script])
        self.environment = os.environ | {
            "AUTORESEARCH_RUN_ID": self.run, "KNOWLEDGE_DIR": str(folder / "knowledge"),
            "AUTORESEARCH_RUNS_DIR": str(folder / "runs"), "GIT_CEILING_DIRECTORIES": str(folder.parent),
        }  # fmt: skip
        options = json.dumps({"at": end, "patience": PATIENCE.get(script, {})})
        self.caller = subprocess.Popen(
            [sys.executable, "-c", CALLER, options, sys.executable, "train.py"], cwd=folder, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def strike(self):
        """Do what ends it."""
        wait_for((self.folder / "ready").exists)
        if self.end in ("kill keeper", "kill both"):
            if self.end == "kill both":
                self.caller.send_signal(signal.SIGSTOP)  # or it would see to what is left
            os.kill(self.keeper(), signal.SIGKILL)
        if self.end in ("kill caller", "kill both"):
            self.caller.kill()
        elif self.end.startswith("SIG"):
            self.caller.send_signal(getattr(signal, self.end.partition(" ")[0]))
            if self.end.endswith("twice"):
                time.sleep(0.5)
                self.caller.send_signal(signal.SIGINT)
        if self.end == "kill both":
            self.leftovers = subprocess.Popen(
                [sys.executable, "-c", LEFTOVERS, self.run], cwd=ROOT, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip

    def keeper(self):
        """The process of the keeper."""
        (pid,) = [pid for pid, one in processes().items() if one.parent == self.caller.pid]
        return pid

    def left(self):
        """The processes of it that there are, but the caller."""
        return processes_of(self.run, self.folder) - {self.caller.pid}

    def free(self):
        """Whether the lock that the caller had taken can be had."""
        with open(self.folder / "lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """All of them, each struck by what ends it."""
    begun = {}
    folder = tmp_path_factory.mktemp("scenes")
    try:
        for number, (script, end, _) in enumerate(SCENES):
            begun[script, end] = Scene(folder / str(number), script, end)
        for scene in begun.values():
            if scene.end not in (None, "limit", "look"):
                scene.strike()
        yield begun
    finally:
        for scene in begun.values():
            scene.caller.kill()
            scene.caller.communicate()
            for pid in scene.left():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("script", "end", "told"), SCENES)
def test_nothing_is_left(scenes, script, end, told):
    scene = scenes[script, end]
    if end == "kill both":
        assert scene.leftovers.communicate()[0] == "True\n"
        assert end_leftovers(scene.run) == 0
    if told is None:
        wait_for(lambda: not scene.left())  # what the keeper does is its own affair
        wait_for(scene.free)
        assert scene.caller.wait() == -signal.SIGKILL
    else:
        output, errors = scene.caller.communicate()
        assert (output, errors) == (told, "")
        assert scene.left() == set() and scene.free()


@pytest.mark.parametrize("end", ["limit", "look", "SIGINT", "SIGTERM", "kill caller"])
def test_it_is_asked_to_end_before_it_is_killed(scenes, end):
    scene = scenes["polite", end]
    wait_for(lambda: not scene.left())
    assert (scene.folder / "log").read_text() == "asked\n"


@pytest.mark.parametrize(
    ("script", "end", "kind"),
    [
        ("recorded", "limit", "interrupted"),
        ("recorded", "kill caller", "interrupted"),
        ("recorded deaf", "limit", "killed"),
        ("recorded deaf", "kill keeper", "killed"),
    ],
)
def test_a_run_that_is_ended_leaves_its_card(scenes, script, end, kind):
    scene = scenes[script, end]
    wait_for(lambda: not scene.left())
    (card,) = load_cards(scene.folder / "knowledge")
    assert (card["id"], card["status"], card["error"]["kind"]) == (scene.run, "crash", kind)


def test_the_lock_is_held_for_as_long_as_the_experiment_lives(tmp_path):
    scene = Scene(tmp_path / "scene", "polite", "kill caller")
    wait_for((scene.folder / "ready").exists)
    its_keeper = scene.keeper()
    os.kill(its_keeper, signal.SIGSTOP)
    scene.strike()
    scene.caller.communicate()
    assert not scene.free() and len(scene.left()) == 2
    os.kill(its_keeper, signal.SIGCONT)
    wait_for(scene.free)
    assert not scene.left()


def test_the_command_goes_with_its_keeper_also_when_nobody_sees_to_it(tmp_path):
    scene = Scene(tmp_path / "scene", "polite", None)
    wait_for((scene.folder / "ready").exists)
    its_keeper = scene.keeper()
    scene.caller.send_signal(signal.SIGSTOP)
    os.kill(its_keeper, signal.SIGKILL)
    wait_for(lambda: not scene.left())
    scene.caller.kill()
    scene.caller.communicate()
    assert (scene.folder / "log").read_text() == ""  # the kernel does not ask


def test_who_asks_for_the_end_of_leftovers_is_spared_and_so_are_those_above(tmp_path):
    run = new_id()
    code = f"""
import subprocess, sys
sys.path.insert(0, {str(ROOT)!r})
from lab.keeper import end_leftovers
stranger = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
print(end_leftovers({run!r}), stranger.wait())
"""
    command = ["sh", "-c", '"$@"; echo still here', "sh", sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | {"AUTORESEARCH_RUN_ID": run}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1 -15\nstill here\n", "")


def test_without_a_subreaper_whoever_was_seen_in_the_process_table_is_ended(tmp_path):
    run = new_id()
    # A Python without ctypes cannot ask the kernel for anything. The sleeper is an orphan when the command has ended.
    code = f"import runpy, sys; sys.modules['ctypes'] = None; runpy.run_path({keeper.__file__!r}, run_name='__main__')"
    command = ["sh", "-c", "setsid sleep 1000 & sleep 3; exit 5"]
    with open(os.devnull, "rb") as given:
        done = subprocess.Popen(
            [sys.executable, "-c", code, str(given.fileno()), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            pass_fds=[given.fileno()], env=os.environ | {"AUTORESEARCH_RUN_ID": run}, text=True,
        )  # fmt: skip
        lines = done.stdout.read().splitlines()
    assert done.wait() == 0
    assert (lines[0].split()[0], lines[1:]) == ("started", ["ended 5"])
    assert processes_of(run) == set()
    done.stdin.close()


def test_the_process_table_is_read_right_whatever_a_process_is_called(tmp_path):
    program = tmp_path / "a) Z 1 ("
    shutil.copy(shutil.which("sleep"), program)
    with subprocess.Popen([program, "1000"]) as process:
        assert processes()[process.pid].parent == os.getpid()
        assert keeper._told_by_ps()[process.pid].parent == os.getpid()
        process.kill()
        wait_for(lambda: process.pid not in processes())  # a zombie has ended
        assert process.pid not in keeper._told_by_ps()
