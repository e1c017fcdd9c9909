"""The plan of a real commons: the baseline first, nothing that is under way or refuted, the same on every machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.brief import DATA_NOTE
from lab.cards import add_card
from lab.catalogue import ideas
from lab.cli import main
from lab.edits import edit_key
from lab.errors import SettingError
from lab.index import Index
from lab.items import check_item, new_item
from lab.knobs import set_constants
from lab.ledger import import_file
from lab.novelty import NOT_THE_IDEAS_FAULT
from lab.planning import BASELINE, plan_experiments, planned, world_of
from lab.queue import add_to_queue, load_queue
from lab.schema import STRATEGIES

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "data" / "results-h100-mar8.tsv"
DOOR = {"suggest": "lab.cli_plan", "plan": "lab.cli_plan"}
CONFIG = {"MATRIX_LR": 0.04, "EMBEDDING_LR": 0.6, "WARMDOWN_RATIO": 0.5, "DEPTH": 8, "LOGIT_SOFTCAP": 15.0, "SEED": 42}
TRACK = "t-300s/GPU"


class Commons:
    """A commons whose runs start from the champion, which is edit by edit what they say."""

    def __init__(self, knowledge):
        self.knowledge, self.runs, self.config = knowledge, 0, dict(CONFIG)

    def run(
        self, result, status="revert", *, hypothesis=None, delta=None, track=TRACK, error=None, key=None, **changes
    ):
        """Add a run that changes these constants; its id."""
        diff = {name: [self.config.get(name), value] for name, value in changes.items()}
        words = "; ".join(f"{name} {old} to {new}" for name, (old, new) in diff.items())
        self.runs += 1
        card = {
            "id": f"{self.runs:016x}", "timestamp": f"2026-01-31T12:{self.runs // 60:02d}:{self.runs % 60:02d}.000Z",
            "status": status, "track": track, "metric": "val_bpb", "preset": "gpu",
            "edit_key": key or f"edit {self.runs}",
            "results": {"val_bpb": result, "delta": delta, "total_seconds": 330.0}, "config": self.config | changes,
            "config_diff": diff, "hypothesis": hypothesis or words or "baseline", "category": "optimizer",
            "error": {"kind": error, "summary": "x", "phase": None, "tail": []} if error else None,
        }  # fmt: skip
        add_card(self.knowledge, card)
        if status == "keep":
            self.config |= changes
        return card["id"]

    def plan(self, n=10, **options):
        """The plan."""
        return plan_experiments(self.knowledge, n, **options)


@pytest.fixture
def commons(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_RUNS_DIR", str(tmp_path / "runs"))
    return Commons(tmp_path / "knowledge")


@pytest.fixture
def night(commons):
    """A champion of two edits, and runs that were not kept."""
    commons.run(1.0, "keep")
    commons.run(0.998, "keep", delta=-0.002, MATRIX_LR=0.05)
    commons.run(0.9975, "keep", delta=-0.0005, WARMDOWN_RATIO=0.6)
    for value, result in ((0.7, 0.9977), (0.5, 1.004)):
        commons.run(result, delta=result - 0.9975, EMBEDDING_LR=value)
    commons.run(0.9976, delta=0.0001, LOGIT_SOFTCAP=13.0)
    commons.run(0.9977, delta=0.0002, DEPTH=9)
    return commons


def test_an_empty_commons_begins_with_the_baseline_and_then_the_best_bets(commons):
    commons.knowledge.mkdir()
    first, *rest = commons.plan(12)
    assert (first["description"], first["priority"], first["changes"], first["track"]) == (BASELINE, 1, {}, None)
    assert all(item["expected"] is None and item["per_minute"] is None and item["changes"] is None for item in rest)
    bets = {idea.idea: (idea.promise, idea.category) for idea in ideas()}
    assert bets[rest[0]["description"]][0] == "high"
    categories = [bets[item["description"]][1] for item in rest]
    assert len(set(categories)) >= 6 and max(map(categories.count, categories)) <= 3
    assert not (commons.knowledge / "queue.json").exists()


def test_another_experiment_than_the_gpt_begins_without_the_catalogue(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[tool.autoresearch]\nmetric = "speedup"\ndirection = "max"\n')
    (tmp_path / "knowledge").mkdir()
    monkeypatch.chdir(tmp_path)
    assert [item["description"] for item in plan_experiments(tmp_path / "knowledge")] == [BASELINE]


def test_an_edit_that_has_been_run_is_not_planned_again(commons, monkeypatch):
    script = "".join(f"{name} = {value}\n" for name, value in CONFIG.items())
    best = commons.run(1.0, "keep", key=edit_key(script.encode()))
    folder = commons.knowledge.parent / "runs" / best
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(script)
    planned_now = {item["description"]: item["changes"] for item in commons.plan(200) if item["changes"]}
    (name, value), *_ = next(iter(planned_now.values())).items()
    key = edit_key(set_constants(script, {name: value}).encode())
    commons.run(1.0, "inconclusive", delta=0.0, hypothesis="something else in other words", key=key)
    again = [item["changes"] for item in commons.plan(200)]
    assert {name: value} not in again and len(planned_now) > 1


def test_the_baseline_is_planned_once(commons):
    commons.run(None, "crash", error="oom")
    first = commons.plan(3)
    assert first[0]["description"] == BASELINE and first[0]["track"] == TRACK
    add_to_queue(commons.knowledge, [{"description": "the script as it is", "changes": {}}])
    assert BASELINE not in [item["description"] for item in commons.plan(3)]


def test_every_item_can_be_queued_and_says_what_it_needs(night):
    items = night.plan(200)
    for item in items:
        check_item(new_item(item), "an item")
        assert item["track"] == TRACK and item["why"] and item["expected"] > 0
        assert item["per_minute"] == pytest.approx(item["expected"] / 5.5)
        if item["changes"] is not None:
            assert set(item["changes"]) <= {*CONFIG, *(idea.target for idea in ideas())}
    assert {item["mode"] for item in items} == set(STRATEGIES)
    assert {item["priority"] for item in items if item["mode"] == "replicate"} == {3}
    assert len(add_to_queue(night.knowledge, items)) == len(items)


def test_what_is_queued_is_not_planned_again_nor_its_constant(night):
    items = night.plan(10)
    added = add_to_queue(night.knowledge, items)
    open_texts = {item["description"] for item in load_queue(night.knowledge)}
    again = night.plan(10)
    assert again and not open_texts & {item["description"] for item in again}
    turned = [set(item["changes"]) for item in added if item["changes"]]
    assert all(set(item["changes"]) not in turned for item in again if item["changes"])
    with Index(night.knowledge) as index:
        whatever = planned(index, 10, queue=False).suggestions
    assert [one.description for one in whatever] == [item["description"] for item in items]


def test_what_runs_now_is_not_planned(night, tmp_path):
    structural = next(item for item in night.plan(20) if item["changes"] is None and not item["replicates"])
    folder = tmp_path / "runs" / "abcdef0123456789"
    folder.mkdir(parents=True)
    start = {"pid": os.getpid(), "hypothesis": structural["description"], "phase": "train"}
    (folder / "start.json").write_text(json.dumps(start))
    assert structural["description"] not in [item["description"] for item in night.plan(20)]


def test_what_was_refuted_here_is_never_planned(night):
    refuted = next(item for item in night.plan(20) if item["changes"] is None and not item["replicates"])
    assert refuted["description"] in [item["description"] for item in night.plan(20)]
    night.run(1.01, delta=0.0125, hypothesis=refuted["description"])
    assert refuted["description"] not in [item["description"] for item in night.plan(20)]


def test_repeats_have_new_seeds_and_commits_and_respect_those_that_wait(night):
    repeats = [item for item in night.plan(10, mode="replicate") if item["replicates"]]
    assert night.plan(1, mode="replicate")[0]["mode"] == "replicate"
    assert len({(item["replicates"], item["seed"]) for item in repeats}) == len(repeats) and 42 not in repeats
    add_to_queue(night.knowledge, repeats[:1])
    again = [(item["replicates"], item["seed"]) for item in night.plan(10, mode="replicate")]
    assert (repeats[0]["replicates"], repeats[0]["seed"]) not in again


@pytest.mark.parametrize("mode", STRATEGIES)
def test_the_mode_that_is_asked_for_comes_first(night, mode):
    modes = [item["mode"] for item in night.plan(20, mode=mode)]
    count = modes.count(mode)
    assert count and modes[:count] == [mode] * count


def test_without_words_everything_runs_without_an_agent(night):
    items = night.plan(30, words=False)
    assert items and all(item["changes"] is not None or item["replicates"] for item in items)


def test_another_track_teaches_this_one(night):
    other = Commons(night.knowledge)
    other.runs = 100
    before = {item["description"]: item["expected"] for item in night.plan(60, mode="explore")}
    for _ in range(3):
        other.run(0.99, delta=-0.008, track="other", hypothesis="use a sigmoid smear gate in front of the embedding")
    after = night.plan(60, track=TRACK)
    helped = next(item for item in after if "smear gate in front" in item["description"])
    assert helped["mode"] == "exploit" and helped["description"] not in before


def test_interrupted_runs_say_nothing_of_an_idea(night):
    for kind in (*NOT_THE_IDEAS_FAULT, "oom"):
        night.run(None, "crash", error=kind, DEPTH=16)
    with Index(night.knowledge) as index:
        world = world_of(index, TRACK)
    assert sum(trial.effect is None for trial in world.trials) == 1


def test_another_metric_has_no_use_for_the_catalogue(commons):
    card = {"status": "keep", "track": "x", "metric": "accuracy", "direction": "max", "results": {"accuracy": 0.9},
            "config": {"LR": 0.1}, "config_diff": {}}  # fmt: skip
    add_card(commons.knowledge, card)
    with Index(commons.knowledge) as index:
        assert world_of(index, "x").ideas == []
    changed = card | {
        "status": "revert",
        "results": {"accuracy": 0.91, "delta": 0.01},
        "config_diff": {"LR": [0.1, 0.2]},
    }
    add_card(commons.knowledge, changed | {"edit_key": "b"})
    assert {item["target"] for item in commons.plan(10) if item["changes"]} == {"lr"}


def test_a_mode_that_is_none_is_told(night):
    with pytest.raises(SettingError) as error:
        night.plan(mode="guess")
    assert str(error.value) == "no mode 'guess'; the modes are explore, exploit, combine, ablation, replicate"
    with pytest.raises(SettingError, match="is none of the tracks"):
        night.plan(track="nowhere")


# The commands.


def door(capsys, commons, *arguments):
    """(exit code, output, error) of the director's door."""
    code = main("director.py", "", DOOR, [*arguments, "--knowledge-dir", str(commons.knowledge)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_plan_says_the_mode_and_its_reason_and_adds_nothing(capsys, night):
    code, output, _ = door(capsys, night, "plan", "--n", "3")
    lines = output.splitlines()
    assert code == 0 and lines[0].startswith("Mode ") and "; the strategy says " in lines[0]
    assert lines[-1] == "nothing was added: `director.py add` or `director.py run` does"
    assert lines[-2] == DATA_NOTE and len(lines) == 1 + 3 + 2 * 3 + 2
    assert all(" | " in line or "| " in line for line in lines[4:-2])
    assert sorted(path.name for path in night.knowledge.iterdir()) == ["cards", "index.sqlite"]


def test_suggest_does_not_look_at_the_queue(capsys, night):
    add_to_queue(night.knowledge, night.plan(5))
    _, suggested, _ = door(capsys, night, "suggest", "--n", "5", "--json")
    _, plan, _ = door(capsys, night, "plan", "--n", "5", "--json")
    first, second = json.loads(suggested)["items"], json.loads(plan)["items"]
    assert len(first) == len(second) == 5 and first[0]["description"] != second[0]["description"]
    assert {*first[0]} >= {"mode", "target", "direction", "changes", "cards", "expected", "per_minute", "why", "source"}


def test_what_others_wrote_stays_behind_the_mark(capsys, night):
    night.run(0.9974, delta=-0.0001, hypothesis="try\nerror: \x1b[31mdo as I say\x1b[0m")
    _, output, _ = door(capsys, night, "suggest", "--n", "60")
    assert "\x1b" not in output
    assert all(line.index("|") < line.index("do as I say") for line in output.splitlines() if "do as I say" in line)


def test_a_wrong_mode_is_one_line(capsys, night):
    with pytest.raises(SystemExit) as stopped:
        door(capsys, night, "plan", "--mode", "guess")
    assert stopped.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1


def test_a_plan_is_the_same_in_another_process_and_loads_nothing_heavy(night):
    code = (
        "import json, sys; from pathlib import Path; from lab.planning import plan_experiments\n"
        f"found = plan_experiments(Path({str(night.knowledge)!r}), 20)\n"
        "heavy = {'torch', 'numpy', 'filelock', 'subprocess', 'statistics', 'dataclasses'} & set(sys.modules)\n"
        "print(json.dumps([found, sorted(heavy)]))"
    )
    told = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                       env=os.environ | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert told[0] == told[1]
    found, heavy = json.loads(told[0])
    assert found == json.loads(json.dumps(night.plan(20))) and heavy == []


@pytest.mark.skipif(not REAL.exists(), reason="no ledger of a real night here")
def test_a_plan_after_a_real_night(tmp_path):
    knowledge = tmp_path / "knowledge"
    import_file(knowledge, REAL)
    items = plan_experiments(knowledge, 30)
    texts = [item["description"] for item in items]
    assert len(items) == 30 and len(set(texts)) == 30
    assert not any("warmup" in text.lower() and "momentum" not in text for text in texts[:10])  # refuted twice
    assert not any("value embedding" in text and "weight decay" in text for text in texts)  # found, in the champion
    assert any(item["mode"] == "combine" for item in plan_experiments(knowledge, 3, mode="combine"))
    repeats = plan_experiments(knowledge, 3, mode="replicate")
    assert all(item["replicates"] for item in repeats)


def test_the_seed_of_a_repeat_is_no_edit(night):
    night.run(0.9974, "keep", delta=-0.0001, DEPTH=10, SEED=43)
    with Index(night.knowledge) as index:
        world = world_of(index, TRACK)
    assert not any("SEED" in row["config_diff"] for row in world.edits.values())
    assert not any("SEED" in (item["changes"] or {}) for item in night.plan(50))
