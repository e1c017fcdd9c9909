"""The sentinel: the champion run again in a checkout of its own, and what that says about the machine.

The experiment is a script whose result and speed the tests choose; the last test repeats examples/sorting.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_project import lives

from lab.cards import load_cards, machine

ROOT = Path(__file__).parent.parent
TOY = f"""
import os, subprocess, sys, time
sys.path.insert(0, {str(ROOT)!r})
from lab import recorder
run = recorder.start(__file__)
EFFECT = 0.0
SEED = int(os.environ.get("AUTORESEARCH_SEED", 42))
run.update(seed=SEED, track=os.environ.get("TOY_TRACK", "toy/box"), platform={{"device": "cpu"}})
run.update(config={{"EFFECT": EFFECT}})
if "TOY_HANGS" in os.environ:
    child = subprocess.Popen(["sleep", "300"])
    print("child", child.pid, flush=True)
    time.sleep(300)
print("cwd", os.getcwd())
result = 1 + EFFECT + (SEED * 5 % 7 - 3) * 1e-4 + float(os.environ.get("TOY_DRIFT", 0))
assert result < 9, "off the scale"
run.finish({{"val_bpb": result, "tokens_per_second": float(os.environ.get("TOY_SPEED", 1000))}})
"""


class Box:
    """A git repository with an experiment and a commons, and this machine's name as the tests want it."""

    def __init__(self, folder):
        self.folder, self.knowledge, self.script = folder, folder / "knowledge", folder / "train.py"
        settings = f'[tool.autoresearch]\ncommand = "{sys.executable} train.py"\n'
        (folder / "pyproject.toml").write_text(settings)
        (folder / ".gitignore").write_text("knowledge/\nruns/\n")
        self.script.write_text(TOY)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AUTORESEARCH_") and name != "KNOWLEDGE_DIR"
        }
        self.environment = inherited | {"GIT_CONFIG_GLOBAL": os.devnull, "TMPDIR": str(folder.parent / "temporary")}
        self.environment["AUTORESEARCH_SLOTS"] = str(folder.parent / "slots")
        (folder.parent / "temporary").mkdir(exist_ok=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments):
        who = ("-c", "user.name=tester", "-c", "user.email=tester@localhost")
        command = ["git", *who, *arguments]
        return subprocess.run(
            command, cwd=self.folder, check=True, env=self.environment, capture_output=True, text=True
        ).stdout

    def run(self, *command, **environment):
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=self.environment | environment, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip

    def experiment(self, effect, commit=True, **environment):
        """Edit the script, run it; its card."""
        self.script.write_text(TOY.replace("EFFECT = 0.0", f"EFFECT = {effect}"))
        if commit:
            self.git("add", ".")
            self.git("commit", "-q", "--allow-empty", "-m", f"effect {effect}")
        before = {card["id"] for card in load_cards(self.knowledge)}
        done = self.run("train.py", **environment)
        assert done.returncode == 0, done.stderr
        return next(card for card in load_cards(self.knowledge) if card["id"] not in before)

    def sentinel(self, *arguments, **environment):
        return self.run(str(ROOT / "worker.py"), "sentinel", *arguments, **environment)

    def cards(self, tag):
        return [card for card in load_cards(self.knowledge) if tag in card["tags"]]

    def is_clean(self):
        """No checkout is left, in git's books or on disk, and the repository's own was not touched."""
        worktrees = self.git("worktree", "list", "--porcelain").count("worktree ")
        left = [path for path in (self.folder / ".worktrees").glob("*") if path.name != ".gitignore"]
        return (worktrees, left, self.git("status", "--porcelain")) == (1, [], "")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A box with a champion that was committed and run three times, two experiments after it, and one on another
    machine; and the champion's card, with the newest run of it as `newest`.
    """
    folder = tmp_path_factory.mktemp("sentinel") / "box"
    folder.mkdir()
    box = Box(folder)
    box.experiment(0.0)
    champion = box.experiment(-0.01)
    repeats = [box.experiment(-0.01, AUTORESEARCH_SEED=seed) for seed in ("7", "43")]
    box.experiment(0.02)
    box.experiment(0.03)
    box.experiment(0.04, AUTORESEARCH_MACHINE="another")
    return box, champion | {"newest": repeats[-1]["id"]}


@pytest.fixture
def copy(story, tmp_path):
    """The same, to be changed by one test."""
    box, champion = story
    shutil.copytree(box.folder, tmp_path / "box")
    again = Box.__new__(Box)
    again.folder, again.knowledge, again.script = (
        tmp_path / "box",
        tmp_path / "box/knowledge",
        tmp_path / "box/train.py",
    )
    ours = {"TMPDIR": str(tmp_path / "temporary"), "AUTORESEARCH_SLOTS": str(tmp_path / "slots")}
    again.environment = box.environment | ours
    (tmp_path / "temporary").mkdir()
    return again, champion


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ((), {}, "2 experiments after its last run here, {id}; the sentinel runs every 25"),
        (("--every", "3"), {}, "2 experiments after its last run here, {id}; the sentinel runs every 3"),
        (("--every", "0"), {}, "2 experiments after its last run here, {id}; the sentinel runs never"),
        (
            ("--every", "2"),
            {"AUTORESEARCH_MACHINE": "another"},
            "1 experiment here, where it has not run; the sentinel runs every 2",
        ),
    ],
)
def test_nothing_is_run_before_it_is_due(story, arguments, environment, said):
    box, champion = story
    done = box.sentinel(*arguments, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"not due: champion {champion['id'][:8]}, {said.format(id=champion['newest'][:8])}\n"
    assert box.cards("sentinel") == []


def test_a_dry_run_says_what_would_be_run(story):
    box, champion = story
    done = box.sentinel("--every", "2", "--dry-run", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "champion": champion["id"], "seed": 44, "since": champion["newest"], "recorded": 2, "every": 2, "due": True,
        "found": None,
    }  # fmt: skip
    said = box.sentinel("--now", "--dry-run").stdout.splitlines()
    assert said[0].startswith(f"would run {sys.executable} train.py of commit {champion['commit'][:12]} with seed 44: ")
    assert said[1] == "  | effect -0.01"
    assert box.cards("sentinel") == [] and box.is_clean()


def test_the_champion_is_run_again_as_it_ran(copy):
    box, champion = copy
    done = box.sentinel("--every", "2")
    (card,) = box.cards("sentinel")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"fine: {card['results']['val_bpb']:.6f} where 0.9")
    assert done.stdout.endswith(f", 100% of its usual speed (card {card['id']})\n")
    same = ("train_sha256", "edit_key", "commit", "track", "category", "config")
    assert {name: card[name] for name in same} == {name: champion[name] for name in same}
    assert (card["seed"], card["tags"]) == (44, ["replicate", "sentinel"])
    assert card["hypothesis"] == f"repeat of {champion['id']}: effect -0.01"
    assert card["platform"]["machine"] == machine()
    log = (box.folder / "runs" / card["id"] / "run.log").read_text()
    assert log == f"cwd {box.folder}/.worktrees/{card['id']}\n"
    assert box.is_clean()
    assert box.sentinel("--every", "2").stdout.startswith("not due: ")
    assert box.sentinel("--now").returncode == 0
    assert sorted(card["seed"] for card in box.cards("sentinel")) == [44, 45]


@pytest.mark.parametrize("environment", [{"TOY_DRIFT": "0.02"}, {"TOY_DRIFT": "-0.02"}, {"TOY_SPEED": "800"}])
def test_a_machine_that_drifted_is_told(copy, environment):
    box, champion = copy
    done = box.sentinel("--every", "2", **environment)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("drifted or throttled: ")
    assert done.stdout.endswith(f"; results of this machine since {champion['newest']} are suspect\n")
    assert "80% of its usual speed" in done.stdout or "100% of its usual speed" in done.stdout


def test_an_assumption_about_noise_convicts_nobody(tmp_path):
    (tmp_path / "box").mkdir()
    box = Box(tmp_path / "box")
    box.experiment(0.0)
    done = box.sentinel("--now", TOY_DRIFT="0.02")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("unclear: 1.02") and done.stdout.endswith(
        "); the noise is only assumed: run it again, --now\n"
    )


def test_a_champion_that_was_not_committed_runs_as_it_was(copy):
    box, _ = copy
    champion = box.experiment(-0.05, commit=False)
    box.git("checkout", "-q", "--", "train.py")
    assert box.sentinel("--now").returncode == 0
    (card,) = box.cards("sentinel")
    assert (card["train_sha256"], card["edit_key"]) == (champion["train_sha256"], champion["edit_key"])
    assert box.is_clean()
    shutil.rmtree(box.folder / "runs" / champion["id"])
    done = box.sentinel("--now")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: card {champion['id']} cannot be run again: the train.py that ran is neither in "
        f"{box.folder / 'runs' / champion['id']} nor in commit {champion['commit']}; run it where it was run\n"
    )


def test_a_hypothesis_that_no_environment_can_hold(copy):
    box, champion = copy
    path = box.knowledge / "cards" / f"{champion['id']}.json"
    path.write_text(path.read_text().replace('"effect -0.01"', '"effect\\u0000 -0.01\\n"'))
    (box.knowledge / "index.sqlite").unlink()
    assert box.sentinel("--now").returncode == 0
    assert box.cards("sentinel")[0]["hypothesis"] == f"repeat of {champion['id']}: effect -0.01"


def test_without_its_run_folder_the_script_comes_from_the_commit(copy):
    box, champion = copy
    shutil.rmtree(box.folder / "runs")
    assert box.sentinel("--now").returncode == 0
    assert box.cards("sentinel")[0]["train_sha256"] == champion["train_sha256"]


def test_a_commit_that_is_not_here_is_named(copy):
    box, champion = copy
    shutil.rmtree(box.folder / ".git")
    box.git("init", "-q")
    done = box.sentinel("--now")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: card {champion['id']} cannot be run again: its commit {champion['commit']} is not in this "
        "clone; fetch it, or run it where it was run\n"
    )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TOY_DRIFT": "10"}, "gave no result: AssertionError: off the scale; see card {card}"),
        ({"TOY_TRACK": "toy/fast"}, "ran on track toy/fast, the champion on toy/box: they do not compare; "),
    ],
)
def test_a_repeat_that_says_nothing_is_an_error(copy, environment, said):
    box, _ = copy
    done = box.sentinel("--now", **environment)
    (card,) = box.cards("sentinel")
    assert (done.returncode, done.stdout) == (2, "")
    assert said.format(card=card["id"]) in done.stderr
    assert done.stderr.count("\n") == 1 and box.is_clean()


def test_a_command_that_is_not_there_is_named(copy):
    box, _ = copy
    (box.folder / "pyproject.toml").write_text('[tool.autoresearch]\ncommand = "no-such-program train.py"\n')
    done = box.sentinel("--now")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: cannot start 'no-such-program': No such file or directory; install it or name another\n"
    )
    assert box.cards("sentinel") == []


def test_without_a_champion_there_is_nothing_to_run(tmp_path):
    box = Box(tmp_path)
    done = box.sentinel("--now")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no kept result on any track; the sentinel repeats the champion once there is one\n"


@pytest.mark.skipif(os.name != "posix", reason="process groups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_whole_group_and_clears_up(copy, number):
    box, _ = copy
    command = [sys.executable, str(ROOT / "worker.py"), "sentinel", "--now"]
    environment = box.environment | {"TOY_HANGS": "1"}
    process = subprocess.Popen(command, cwd=box.folder, env=environment, stderr=subprocess.PIPE, text=True)
    child = 0
    while not child:
        assert process.poll() is None
        time.sleep(0.02)
        logs = [log.read_text().split() for log in (box.folder / "runs").glob("*/run.log")]
        child = next((int(words[1]) for words in logs if words[:1] == ["child"] and len(words) > 1), 0)
    process.send_signal(number)
    assert process.communicate(timeout=30)[1] == (
        "error: interrupted; what had been started is ended and cleared away\n"
    )
    assert process.returncode == 2
    while lives(child):
        time.sleep(0.02)
    (card,) = box.cards("sentinel")
    assert (card["status"], card["error"]["kind"]) == ("crash", "interrupted")
    assert box.is_clean()


def test_an_experiment_that_is_not_training(tmp_path):
    folder = tmp_path / "repository"
    unwanted = shutil.ignore_patterns("__pycache__", "knowledge", "runs")
    for name in ("lab", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    sorting = folder / "examples" / "sorting"
    settings = (sorting / "pyproject.toml").read_text()
    (sorting / "pyproject.toml").write_text(
        settings.replace("uv run --project ../.. sort.py", f"{sys.executable} sort.py")
    )
    (tmp_path / "temporary").mkdir()
    box = Box.__new__(Box)
    box.folder, box.knowledge = sorting, sorting / "knowledge"
    (sorting / ".gitignore").write_text("knowledge/\nruns/\n__pycache__/\n")
    box.environment = os.environ | {
        "AUTORESEARCH_TIME_BUDGET": "0.2", "GIT_CONFIG_GLOBAL": os.devnull, "TMPDIR": str(tmp_path / "temporary"),
        "AUTORESEARCH_SLOTS": str(tmp_path / "slots"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    box.git("add", str(folder))
    box.git("commit", "-q", "-m", "baseline")
    assert box.run("sort.py").returncode == 0
    done = box.sentinel("--now")
    assert (done.returncode in (0, 1), done.stderr) == (True, "")  # the machine may really be busy
    first, again = sorted(load_cards(box.knowledge), key=lambda card: card["timestamp"])
    assert (again["train_sha256"], again["seed"], again["track"]) == (first["train_sha256"], 43, first["track"])
    assert box.is_clean()
