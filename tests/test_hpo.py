"""Experiments without a model: what may be turned, what Optuna is told, and that nothing comes twice."""

import json
import math
import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.cards import add_card
from lab.edits import edit_key
from lab.errors import SettingError
from lab.hpo import moves, propose, study_of
from lab.index import Index
from lab.items import check_item, new_item
from lab.knobs import set_constants
from lab.planning import BASELINE
from lab.queue import add_to_queue
from lab.ranges import SPAN, space_of

ROOT = Path(__file__).parent.parent
TRACK = "t-300s/GPU"
CONFIG = {"MATRIX_LR": 0.04, "MUON_MOMENTUM": 0.95, "TOTAL_BATCH_SIZE": 524288, "WARMUP_RATIO": 0.0, "DEPTH": 8}
SCRIPT = """
PRESET = "gpu"
MATRIX_LR = 0.04  # Muon
MUON_MOMENTUM = 0.95
TOTAL_BATCH_SIZE = 2**19
WARMUP_RATIO = 0.0
DEPTH = 8
SEED = 42
NAME, BETAS, FLAG, WIDTH = "x", (0.8, 0.95), True, None
HALF = DEPTH / 2
"""
pytest.importorskip("optuna")


def script(table="", text=SCRIPT):
    return text + f"_RANGES = {table}\n" if table else text


class Commons:
    """A commons whose runs are edits of SCRIPT."""

    def __init__(self, knowledge):
        self.knowledge, self.runs = knowledge, 0

    def run(
        self, result, status="revert", *, error=None, direction="min", config=None, key=None, track=TRACK, **changes
    ):
        """Add a run with these constants; its id."""
        self.runs += 1
        card = {
            "id": f"{self.runs:016x}", "timestamp": f"2026-01-31T12:{self.runs // 60:02d}:{self.runs % 60:02d}.000Z",
            "status": status, "track": track, "metric": "val_bpb", "direction": direction, "preset": "gpu",
            "edit_key": key or edit_key(set_constants(SCRIPT, changes).encode()), "results": {"val_bpb": result},
            "config": CONFIG | changes if config is None else config,
            "error": {"kind": error, "summary": "x", "phase": None, "tail": []} if error else None,
        }  # fmt: skip
        add_card(self.knowledge, card)
        return card["id"]

    def next(self, agent="hpo", seed=0, source=SCRIPT):
        return propose(self.knowledge, TRACK, source, agent, seed)


@pytest.fixture
def commons(tmp_path):
    return Commons(tmp_path / "knowledge")


@pytest.fixture
def night(commons):
    """A champion, and runs that were not kept: a higher MATRIX_LR is better, and nothing else matters."""
    commons.best = commons.run(1.0, "keep")
    for number, factor in enumerate((0.3, 0.4, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)):
        commons.run(1.1 - factor / 10, MATRIX_LR=0.04 * factor, DEPTH=5 + number)
    return commons


# What may be turned.


def test_every_number_that_is_written_down_may_be_turned_but_the_seed():
    space = space_of(SCRIPT, {})
    assert list(space) == list(CONFIG)
    assert (space["DEPTH"].low, space["DEPTH"].high) == (-SPAN, SPAN)
    assert space["MATRIX_LR"].value(SPAN) == 0.16 and space["MATRIX_LR"].value(-SPAN) == 0.01
    assert space["TOTAL_BATCH_SIZE"].value(0.6) == 2**20  # a power of two stays one
    assert space["MUON_MOMENTUM"].value(math.log(2)) == 0.975  # half as far from 1
    assert (space["WARMUP_RATIO"].low, space["WARMUP_RATIO"].high) == (0.0, 0.1)


def test_a_table_beside_the_constants_says_which_and_how_far():
    space = space_of(script('{"MATRIX_LR": (0.03, 0.05), "WARMUP_RATIO": (0, 0.04), "NOT_THERE": (1, 2)}'), {})
    assert list(space) == ["MATRIX_LR", "WARMUP_RATIO"]
    assert [space["MATRIX_LR"].value(end) for end in space["MATRIX_LR"][1:]] == [0.03, 0.05]
    assert space["WARMUP_RATIO"].high == 0.04


def test_a_power_of_two_stays_within_the_table():
    span = space_of(script('{"TOTAL_BATCH_SIZE": (400000, 800000), "MATRIX_LR": (0.01, 0.16)}'), {})["TOTAL_BATCH_SIZE"]
    assert span.value(span.low) is span.value(span.high) is None


def test_it_is_read_and_never_run():
    assert list(space_of('raise SystemExit("run")\nDEPTH = 8\n_RANGES = {"DEPTH": (2, 2**4)}', {})) == ["DEPTH"]


@pytest.mark.parametrize("table", ["[1]", '{"DEPTH": 3}', '{"DEPTH": (3, 2)}', '{"DEPTH": (1, "2")}', "{3: (1, 2)}",
                                   '{"DEPTH": (1, f())}', "dict(DEPTH=(1, 2))", "{**others}"])  # fmt: skip
def test_a_table_that_is_none_is_told_with_its_line(table):
    with pytest.raises(SettingError) as error:
        space_of(f"DEPTH = 3\n_RANGES = {table}\n", {}, "my.py")
    assert str(error.value) == (
        '_RANGES in line 2 of my.py is no table; write {"MATRIX_LR": (lowest, highest), ...}'
    )  # fmt: skip


def test_a_script_that_does_not_parse_is_told():
    with pytest.raises(SettingError, match=r"^train.py does not parse \(SyntaxError\); mend it$"):
        space_of("DEPTH = ", {})


def test_the_champion_s_values_count_and_the_branch_that_its_configuration_takes():
    source = 'PRESET = f()\nif PRESET == "gpu":\n    DEPTH = 8\nelse:\n    DEPTH = 3\n    WIDTH = 64\n'
    space = space_of(source, {"PRESET": "gpu", "DEPTH": 12})
    assert {name: span.scale.value for name, span in space.items()} == {"DEPTH": 12}


HOSTILE = ["a text", [1, [2, 3]], {"a": 1}, True, None, 1e300, -1e300, 1e-300, 10**300, 0, -0.0, -5, 0.999999999999]


@pytest.mark.parametrize("value", HOSTILE)
def test_what_is_no_sensible_number_is_left_alone_and_harms_nothing(commons, value):
    commons.run(1.0, "keep", config=CONFIG | {"DEPTH": value})
    commons.run(1.1, config=CONFIG | {"MATRIX_LR": value, "TOTAL_BATCH_SIZE": value}, key="other")
    commons.run(None, "crash", error="oom", config=CONFIG | {"MATRIX_LR": value}, key="another")
    for agent in ("hpo", "random"):
        assert commons.next(agent)["changes"]


# What Optuna is told.


def test_a_trial_has_the_places_of_its_constants_and_its_result():
    space = space_of(SCRIPT, {})
    config = CONFIG | {"MATRIX_LR": 0.08, "TOTAL_BATCH_SIZE": 2**22, "WARMUP_RATIO": 0.05, "DEPTH": "eight"}
    (trial,) = study_of(space, [(config, 0.9)], 0).get_trials()
    assert trial.state.name == "COMPLETE" and trial.value == 0.9
    assert trial.params["MATRIX_LR"] == pytest.approx(math.log(2))
    assert trial.params["TOTAL_BATCH_SIZE"] == SPAN and trial.params["WARMUP_RATIO"] == 0.05  # at the end of its range
    assert trial.params["DEPTH"] == trial.params["MUON_MOMENTUM"] == 0.0  # where the champion is
    assert {name: space[name].value(place) for name, place in trial.params.items() if place} == {
        "MATRIX_LR": 0.08, "TOTAL_BATCH_SIZE": 2**21, "WARMUP_RATIO": 0.05
    }  # fmt: skip


def test_without_optuna_one_line_says_how_to_get_it(night, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SettingError) as error:
        night.next()
    assert str(error.value) == (
        "--agent hpo needs Optuna; install it with `uv sync --extra hpo`, or run this with `uv run --extra hpo ...`"
    )
    assert night.next("random")["changes"]


def test_optuna_is_loaded_only_when_it_is_asked_and_says_nothing(night):
    code = (
        "import sys; from pathlib import Path; from lab.hpo import propose\n"
        "assert not {'optuna', 'numpy', 'subprocess'} & set(sys.modules)\n"
        f"print(propose(Path({str(night.knowledge)!r}), None, {SCRIPT!r})['track'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (TRACK + "\n", "")


# What is proposed.


def test_without_a_champion_it_is_the_baseline_once(commons):
    commons.knowledge.mkdir()
    for agent in ("hpo", "random"):
        item = propose(commons.knowledge, None, SCRIPT, agent)
        assert (item["description"], item["changes"]) == (BASELINE, {})
    add_to_queue(commons.knowledge, [item])
    assert propose(commons.knowledge, None, SCRIPT) is None


@pytest.mark.parametrize("agent", ["hpo", "random"])
def test_an_item_says_what_it_turns_and_can_be_queued(night, agent):
    item = night.next(agent)
    check_item(new_item(item), "an item")
    assert item["track"] == TRACK and item["cards"] == [night.best] and item["mode"] == "explore"
    assert item["description"] == ", ".join(
        f"{name} {CONFIG[name]} -> {value}" for name, value in item["changes"].items()
    )
    assert item["why"] == {"hpo": "Optuna's TPE after 9 runs", "random": "at random, what a search has to beat"}[agent]
    assert len(item["changes"]) <= {"hpo": 3, "random": 1}[agent]


def test_the_category_is_the_catalogue_s(commons):
    commons.run(1.0, "keep")
    categories = {
        tuple(item["changes"]): item["category"] for item in (commons.next("random", seed) for seed in range(40))
    }
    assert categories == {
        ("MATRIX_LR",): "optimizer", ("MUON_MOMENTUM",): "optimizer", ("TOTAL_BATCH_SIZE",): "hyperparams",
        ("WARMUP_RATIO",): "scheduling", ("DEPTH",): "architecture",
    }  # fmt: skip
    assert commons.next("random", 0, "WEIGHT_DECAY = 0.2\n")["category"] not in ("ablation", "combination")
    found = [commons.next("hpo", seed) for seed in range(20)]
    mixed = [item["category"] for item in found if {"DEPTH", "MATRIX_LR"} <= set(item["changes"])]
    assert mixed and set(mixed) == {"combination"}


@pytest.mark.parametrize("agent", ["hpo", "random"])
def test_equal_seeds_and_cards_propose_the_same_and_others_do_not(night, agent):
    first = night.next(agent)
    assert night.next(agent) == first
    assert any(night.next(agent, seed) != first for seed in range(1, 5))
    night.run(1.0, DEPTH=13)
    assert any(night.next(agent, seed)["changes"] != first["changes"] for seed in range(5))


@pytest.mark.parametrize("agent", ["hpo", "random"])
def test_what_has_been_run_or_is_queued_does_not_come_again_until_nothing_is_left(commons, agent):
    source = script('{"DEPTH": (7, 9)}')
    commons.run(1.0, "keep")
    first = commons.next(agent, source=source)
    commons.run(1.1, **first["changes"])
    second = commons.next(agent, source=source)
    add_to_queue(commons.knowledge, [second])
    assert {item["changes"]["DEPTH"] for item in (first, second)} == {7, 9}
    assert commons.next(agent, source=source) is None


def test_an_equal_edit_is_not_run_again_whatever_its_card_says_of_constants(commons):
    source = script('{"DEPTH": (7, 9)}')
    commons.run(1.0, "keep")
    commons.run(1.0, config={}, key=edit_key(set_constants(source, {"DEPTH": 7}).encode()))
    assert {commons.next("random", seed, source)["changes"]["DEPTH"] for seed in range(10)} == {9}


def test_a_value_that_has_only_crashed_is_not_tried_again(commons):
    commons.run(1.0, "keep")
    commons.run(None, "crash", error="setting", track=None, TOTAL_BATCH_SIZE=2**18, DEPTH=9)  # on its way up
    commons.run(None, "crash", error="interrupted", TOTAL_BATCH_SIZE=2**20)  # not its fault
    commons.run(0.9, "keep", DEPTH=9)
    found = [
        commons.next("hpo", seed, script('{"TOTAL_BATCH_SIZE": (1, 2**30), "DEPTH": (8, 9)}')) for seed in range(40)
    ]
    values = {item["changes"].get("TOTAL_BATCH_SIZE") for item in found}
    assert 2**18 not in values and {2**17, 2**20} <= values


def test_crashes_count_as_the_worst_result():
    space = space_of("LR = 1.0\n_RANGES = {'LR': (0.25, 4.0)}", {})
    known = [({"LR": value}, 1.0) for value in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)]
    known += [({"LR": value}, 2.0) for value in (1.5, 2.0, 2.5, 3.0, 3.5)]
    proposed = [one["LR"] for one in islice(moves(space, known, "hpo", random.Random(0)), 40)]
    assert sum(value < 1.2 for value in proposed) > 30


@pytest.mark.parametrize("direction", ["min", "max"])
def test_it_goes_where_the_results_are_better(commons, direction):
    sign = {"min": 1, "max": -1}[direction]
    source = script('{"MATRIX_LR": (0.01, 0.16)}')
    for number in range(16):
        u = number / 8 - 1
        commons.run(1 + sign * 0.01 * (u - 0.9) ** 2, "revert" if number != 8 else "keep", direction=direction,
                    MATRIX_LR=0.04 * math.exp(u))  # fmt: skip
    proposed = [commons.next("hpo", seed, source)["changes"]["MATRIX_LR"] for seed in range(12)]
    assert sum(value > 0.05 for value in proposed) >= 9


def test_a_track_that_is_none_is_told(commons):
    commons.run(1.0, "keep")
    with pytest.raises(SettingError, match=r"^--track 'nowhere' is none of the tracks: "):
        propose(commons.knowledge, "nowhere", SCRIPT)


def test_where_nothing_can_be_turned_nothing_is_proposed(commons):
    commons.run(1.0, "keep")
    assert commons.next(source="A = 1\nB = f()\n_RANGES = {}\n") is None
    assert commons.next(source="DEPTH = 8\nfor DEPTH in (1, 2): pass\n") is None  # bound in another way, too


def test_the_real_script_has_a_space_for_each_preset():
    source = (ROOT / "train.py").read_text()
    for preset in ("gpu", "tiny"):
        space = space_of(source, {"PRESET": preset})
        assert {"MATRIX_LR", "DEPTH", "WARMDOWN_RATIO"} <= set(space) and "SEED" not in space
        for changes in islice(moves(space, [], "random", random.Random(0)), 9):
            assert set_constants(source, changes, {"PRESET": preset}) != source


numbers = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.floats(1e-6, 1e6))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["LR", "MOMENTUM", "WARM_RATIO", "DEPTH", "BATCH"]), numbers, min_size=1),
       st.sampled_from(["hpo", "random"]), st.integers(0, 9))  # fmt: skip
def test_whatever_it_proposes_can_be_written_down(config, agent, seed):
    source = "".join(f"{name} = {value!r}\n" for name, value in config.items())
    space = space_of(source, {})
    known = [(config, 1.0), (dict.fromkeys(config, 0.5), 2.0)]
    for changes in islice(moves(space, known, agent, random.Random(seed)), 5):
        changed = set_constants(source, changes)
        assert {**config, **changes} != config and json.dumps(changes)
        values = {}
        exec(compile(changed, "script", "exec"), values)
        for name, value in changes.items():
            assert values[name] == value and type(value) is type(config[name])


def test_an_imported_ledger_knows_no_constants_and_harms_nothing(tmp_path):
    add_card(tmp_path / "knowledge", {"status": "keep", "track": TRACK, "results": {"val_bpb": 1.0}})
    assert propose(tmp_path / "knowledge", TRACK, SCRIPT)["changes"]
    with Index(tmp_path / "knowledge") as index:
        assert len(index.rows("SELECT id FROM cards")) == 1
