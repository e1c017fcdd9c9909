"""examples/sorting: the commons serves an experiment that is not training, with a metric to maximise, unchanged.

A story of four commits, each run as a user runs it in a repository of its own: a baseline, an edit that is clearly
better, one that is clearly worse, and one that does not sort. torch is there, but breaks whoever imports it.
Not covered: how good the example's sort is.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cards import load_cards
from lab.edits import edit_key
from lab.settings import load_settings, project_root

ROOT = Path(__file__).parent.parent
SORTING = ROOT / "examples" / "sorting"
BETTER = {"RUN = 4": "RUN = 8", "SKIP_ORDERED = False": "SKIP_ORDERED = True"}
WORSE = {"RUN = 8": "RUN = 64"}
UNSORTED = {"RUN = 64": "RUN = 8", "    return runs[0]": "    return runs[0][::-1]"}

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(SORTING))
    import measure


class Lab:
    """A copy of the repository's commons and example, under git, with a commons in a folder of its own."""

    def __init__(self, folder):
        self.root, self.sort, self.knowledge = folder, folder / "examples" / "sorting" / "sort.py", folder / "known"
        unwanted = shutil.ignore_patterns("__pycache__", "knowledge", "runs", ".venv", "uv.lock")
        for name in ("lab", "examples"):
            shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
        for name in ("commons.py", "pyproject.toml", ".gitignore"):
            shutil.copy(ROOT / name, folder)
        poison = folder / "poison"
        poison.mkdir()
        for name in ("torch", "numpy", "matplotlib", "pyarrow"):
            (poison / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")}
        self.environment = inherited | {
            "KNOWLEDGE_DIR": str(self.knowledge),
            "AUTORESEARCH_TIME_BUDGET": "0.3",
            "PYTHONPATH": str(poison),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments):
        who = ("-c", "user.name=tester", "-c", "user.email=tester@localhost")
        subprocess.run(["git", *who, *arguments], cwd=self.root, check=True, env=self.environment)

    def python(self, *arguments, **environment):
        """A script of the repository, run in its root."""
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.root, env=self.environment | environment, capture_output=True, text=True, timeout=60
        )

    def experiment(self, idea, changes, **environment):
        """Edit sort.py as an agent does, commit it with the idea as the subject, run it; the process and its card."""
        source = self.sort.read_text()
        for old, new in changes.items():
            assert source.count(old) == 1
            source = source.replace(old, new)
        self.sort.write_text(source)
        self.git("add", ".")
        self.git("commit", "-q", "--allow-empty", "-m", idea)
        before = {card["id"] for card in load_cards(self.knowledge)}
        done = self.python("examples/sorting/sort.py", **environment)
        (card,) = (card for card in load_cards(self.knowledge) if card["id"] not in before)
        return done, card

    def commons(self, *arguments):
        """What a command of commons.py prints; it must succeed."""
        done = self.python("commons.py", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The copy, and {chapter: (process, card)}."""
    lab = Lab(tmp_path_factory.mktemp("example"))
    chapters = {
        "baseline": lab.experiment("baseline", {}),
        "better": lab.experiment("longer runs, and join those in order", BETTER),
        "worse": lab.experiment("even longer runs", WORSE, AUTORESEARCH_CATEGORY="hyperparams"),
        "broken": lab.experiment("turn the result around", UNSORTED),
    }
    return lab, chapters


def test_the_example_is_a_project_of_its_own():
    assert project_root(SORTING) == SORTING
    settings = load_settings(SORTING)
    assert (settings.metric, settings.direction) == (measure.METRIC, measure.DIRECTION)
    assert settings.command.split()[-1] == "sort.py"
    assert all((SORTING / name).is_file() for name in settings.editable + settings.frozen)


def test_a_run_leaves_a_card_with_metric_direction_and_track(story):
    _, chapters = story
    done, card = chapters["baseline"]
    assert (done.returncode, done.stderr) == (0, "")
    assert (card["metric"], card["direction"], card["status"]) == ("speedup", "max", "keep")
    assert card["results"]["speedup"] > 0.1
    assert card["results"]["delta"] is None
    assert card["track"].startswith(f"sorting-n2000-0.3s-py{sys.version_info.major}.{sys.version_info.minor}/")
    assert (card["hypothesis"], card["seed"]) == ("baseline", 42)
    assert card["config"] == {"SEED": 42, "RUN": 4, "SKIP_ORDERED": False}
    assert (card["platform"]["device"], card["platform"].get("torch")) == ("cpu", None)
    assert f"card:                 {card['id']} keep: " in done.stdout
    assert f"speedup:              {card['results']['speedup']:.6f}\n" in done.stdout


def test_more_is_better_where_the_direction_is_max(story):
    _, chapters = story
    baseline, better, worse = (chapters[name][1] for name in ("baseline", "better", "worse"))
    assert (better["status"], worse["status"]) == ("keep", "revert")
    assert better["results"]["delta"] == pytest.approx(better["results"]["speedup"] - baseline["results"]["speedup"])
    assert better["results"]["delta"] > 0 > worse["results"]["delta"]
    assert better["decision"]["champion"] == baseline["id"]
    assert worse["decision"]["champion"] == better["id"]
    assert better["config_diff"] == {"RUN": [4, 8], "SKIP_ORDERED": [False, True]}
    assert worse["config_diff"] == {"RUN": [8, 64]}


def test_a_sort_that_does_not_sort_is_a_crash(story):
    _, chapters = story
    done, card = chapters["broken"]
    said = "the list 'shuffled' of seed 42 is not in order after sort(); mend sort.py"
    assert (done.returncode, done.stderr) == (2, f"error: {said}\n")
    assert (card["status"], card["results"].get("speedup")) == ("crash", None)
    assert (card["metric"], card["error"]["phase"], card["error"]["summary"]) == ("speedup", "evaluate", said)


def test_a_card_has_the_key_of_its_edit(story):
    _, chapters = story
    keys = [card["edit_key"] for _, card in chapters.values()]
    assert keys[0] == edit_key((SORTING / "sort.py").read_bytes())
    assert len(set(keys)) == len(keys)


def test_the_commons_tells_of_it(story):
    lab, chapters = story
    best = chapters["better"][1]
    brief = lab.commons("read-brief")
    assert best["id"][:8] in brief and "longer runs, and join those in order" in brief
    assert "val_bpb" not in brief
    assert best["id"] in json.dumps(json.loads(lab.commons("read-brief", "--json")))
    assert best["id"][:8] in lab.commons("best")
    assert "hyperparams" in lab.commons("coverage")
    assert f"{best['results']['speedup']:.6f}"[:6] in lab.commons("show", best["id"])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AUTORESEARCH_SEED", "x", "give a number above zero, or unset it for the default of 42"),
        ("AUTORESEARCH_TIME_BUDGET", "-1", "give a number above zero, or unset it for the default of 2"),
        ("AUTORESEARCH_TIME_BUDGET", "nan", "give a number above zero, or unset it for the default of 2"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(tmp_path, name, value, said):
    done, card = Lab(tmp_path).experiment("baseline", {}, **{name: value})
    assert (done.returncode, done.stderr) == (2, f"error: {name}={value}: {said}\n")
    assert (card["status"], card["error"]["kind"]) == ("crash", "setting")


def test_plain_sort_sorts():
    rng = random.Random(0)
    for length in range(1, 40):
        values = rng.choices(range(20), k=length)
        assert measure.plain_sort(values) == sorted(values)


def test_the_lists_are_those_of_the_seed():
    assert measure.lists(1) == measure.lists(1) != measure.lists(2)
    assert all(len(values) == measure.LENGTH for values in measure.lists(1).values())


def test_a_wrong_order_is_named(monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", "0.01")
    assert measure.speed(sorted).rounds >= measure.MIN_ROUNDS
    with pytest.raises(measure.WrongOrderError, match="the list 'shuffled' of seed 42 is not in order"):
        measure.speed(lambda values: values)
