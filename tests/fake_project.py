"""A project whose experiment takes a moment, for the tests of who runs experiments.

    project = FakeProject(tmp_path / "project")
    project.start("director.py", "run", TOY_GATE="runs")          # a process; project.run waits for its end

Its result is a bowl around MATRIX_LR 0.08 and EMBEDDING_LR 0.3, with a little noise from the seed. An experiment
waits for the file that TOY_GATE names, and fails where its hypothesis has the text of TOY_FAILS.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from lab.cards import load_cards
from lab.queue import finished_items, load_queue

ROOT = Path(__file__).parent.parent
SCRIPT = f"""
import math, os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from lab import recorder
run = recorder.start(__file__)

MATRIX_LR = 0.04
EMBEDDING_LR = 0.6
WARMDOWN_RATIO = 0.5
WEIGHT_DECAY = 0.2

SEED = int(os.environ.get("AUTORESEARCH_SEED", 42))
config = {{name: value for name, value in globals().items() if name.isupper() and name != "SEED"}}
run.update(seed=SEED, track="toy/box", platform={{"device": "cpu"}}, config=config)
with open(os.environ["TOY_LOG"], "a") as log:
    print(os.getpid(), run.id, file=log)
while "TOY_GATE" in os.environ and not os.path.exists(os.environ["TOY_GATE"]):
    time.sleep(0.02)
fails = os.environ.get("TOY_FAILS")
if fails is not None and fails in os.environ.get("AUTORESEARCH_HYPOTHESIS", ""):
    raise ValueError(f"no good: {{time.time()}}")
bowl = math.log(MATRIX_LR / 0.08) ** 2 + math.log(EMBEDDING_LR / 0.3) ** 2 / 2 + (WARMDOWN_RATIO - 0.7) ** 2
result = 1 + bowl / 50 + (SEED * 5 % 7 - 3) * 1e-4
run.finish({{"val_bpb": result, "tokens_per_second": 1000.0, "total_seconds": 1.0}})
"""


class FakeProject:
    """A git repository with an experiment and an empty commons."""

    def __init__(self, folder, settings=""):
        folder.mkdir(parents=True)
        self.folder, self.knowledge, self.log = folder, folder / "knowledge", folder / "runs.log"
        self.knowledge.mkdir()
        command = f'[tool.autoresearch]\ncommand = "{sys.executable} train.py"\n'
        (folder / "pyproject.toml").write_text(command + settings)
        (folder / ".gitignore").write_text("knowledge/\nruns/\nruns.log\ngate\n__pycache__/\n")
        (folder / "train.py").write_text(SCRIPT)
        (folder.parent / "temporary").mkdir(exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")}
        self.environment = inherited | {
            "GIT_CONFIG_GLOBAL": os.devnull, "TMPDIR": str(folder.parent / "temporary"), "TOY_LOG": str(self.log),
            "KNOWLEDGE_DIR": str(self.knowledge), "AUTORESEARCH_SLOTS": str(folder.parent / "slots"),
        }  # fmt: skip
        for command in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "the baseline")):
            self.git(*command)

    def git(self, *arguments):
        who = ("-c", "user.name=tester", "-c", "user.email=tester@localhost")
        command = ["git", *who, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def start(self, door, *arguments, **environment):
        """A process of one of the doors."""
        return subprocess.Popen(
            [sys.executable, str(door_of(door)), *arguments], cwd=self.folder, env=self.environment | environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, door, *arguments, **environment):
        """The process of a door when it has ended, with its `output` and `errors`."""
        return finished(self.start(door, *arguments, **environment))

    def cards(self):
        """The cards there are, oldest first."""
        return load_cards(self.knowledge)[::-1]

    def open_items(self):
        return load_queue(self.knowledge)

    def ended_items(self):
        return finished_items(self.knowledge)

    def experiments(self):
        """(process, run) of the experiments that have begun, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(int(process), run) for process, run in (line.split() for line in lines)]

    def left_behind(self):
        """Experiments that still run, and checkouts that are still there."""
        worktrees = self.git("worktree", "list", "--porcelain").count("worktree ") - 1
        return [process for process, _ in self.experiments() if lives(process)], worktrees


def door_of(name):
    return ROOT / name


def finished(process):
    process.output, process.errors = process.communicate(timeout=60)
    return process


def events(text):
    """The events of a director or a worker that printed JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def wait_for(condition):
    """What the condition says once it is true; the time limit of the test ends a wait that is in vain."""
    while not (found := condition()):
        time.sleep(0.02)
    return found


def lives(process):
    """Whether a process does anything: one that ended may stay in the table until somebody asks for its exit code."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout.strip()
    return state not in ("", "Z", "Z+")


def names(told):
    """The names of events."""
    return [event["event"] for event in told]


def of(told, name):
    """The events of this name."""
    return [event for event in told if event["event"] == name]


def nothing_is_left(project):
    """Nothing runs, is claimed or lies about."""
    assert project.left_behind() == ([], 0)
    assert not [item for item in project.open_items() if item["lease"]]
    assert project.git("status", "--porcelain") == ""
