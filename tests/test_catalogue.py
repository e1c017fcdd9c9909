"""The catalogue of ideas: whole, true to train.py, no idea twice; a damaged line is told by its number."""

import ast
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from lab.catalogue import CATALOGUE, MAX_CHARACTERS, Idea, ideas
from lab.errors import StoreError
from lab.ideas import read
from lab.novelty import SAME_IDEA_THRESHOLD, similarity
from lab.schema import CATEGORIES

TRAIN = Path(__file__).parent.parent / "train.py"
SEQ_LEN = {"gpu": 2048, "small": 256}  # prepare.PRESETS
NOT_TURNED = {"PRESET", "SEED", "EVAL_BATCH_SIZE"}  # the frame, the luck, and what changes no result
HEADER = "\t".join(Idea._fields)
LINE = "deeper\tarchitecture\tDEPTH\tup\t1.5\t\tany\thigh\tRaise DEPTH by half\tnanochat"


def constants(preset):
    """{name: value} of the upper-case names at train.py's module level, also within `if`, for a preset."""
    found = {"PRESET": preset, "SEED": 42}

    def collect(statements):
        for node in statements:
            if isinstance(node, ast.If) and "PRESET" in ast.unparse(node.test):
                collect(node.body if eval(ast.unparse(node.test), {}, found) else node.orelse)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if name.isupper() and name[0] != "_" and name not in found:
                    found[name] = eval(ast.unparse(node.value), {}, found)

    collect(ast.parse(TRAIN.read_text()).body)
    return found


PRESETS = {preset: constants(preset) for preset in SEQ_LEN}
EDITS = [
    pytest.param(idea, preset, id=f"{idea.id}-{preset}")
    for idea in ideas()
    for preset in PRESETS
    if idea.target.isupper() and idea.scale in ("any", preset)
]


def plain(value):
    """The value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def width(config):
    return -(-config["DEPTH"] * config["ASPECT_RATIO"] // config["HEAD_DIM"]) * config["HEAD_DIM"]


def test_there_are_enough_ideas_of_every_kind():
    count = Counter(idea.category for idea in ideas())
    assert len(ideas()) >= 60
    assert [name for name in CATEGORIES if count[name] < 2 and name not in ("other", "combination")] == []
    assert {idea.promise for idea in ideas()} == {"high", "medium", "low"}
    # A first plan of ten is no list of learning rates.
    assert len({idea.category for idea in ideas() if idea.promise == "high"}) >= 6


@pytest.mark.parametrize("scale", SEQ_LEN)
def test_a_first_night_on_any_machine_has_a_plan(scale):
    fits = [idea for idea in ideas() if idea.scale in ("any", scale)]
    assert len(fits) >= 60
    assert len([idea for idea in fits if idea.promise != "low"]) >= 20


@pytest.mark.parametrize("idea", ideas(), ids=lambda idea: idea.id)
def test_a_line_is_said_as_it_should_be(idea):
    assert re.match("[A-Z][a-z]+ ", idea.idea)  # a verb begins
    assert not idea.idea.endswith(".")
    assert re.search("[a-z]", idea.source)
    assert any(change.subject for change in read(idea.target)), "the field's vocabulary knows what it is about"


def test_no_idea_is_there_twice():
    same = [
        (one.id, other.id)
        for one, other in combinations(ideas(), 2)
        if similarity(one.idea, other.idea) >= SAME_IDEA_THRESHOLD
    ]
    assert same == []


def test_every_constant_that_may_be_turned_is():
    assert set(PRESETS["gpu"]) == set(PRESETS["small"])
    assert {idea.target for idea in ideas() if idea.target.isupper()} == set(PRESETS["gpu"]) - NOT_TURNED


@pytest.mark.parametrize(("idea", "preset"), EDITS)
def test_a_constant_gets_a_new_value_that_train_py_can_use(idea, preset):
    before = PRESETS[preset]
    old = before[idea.target]
    new = idea.value
    if idea.factor:
        assert old and not isinstance(old, (tuple, str, bool))
        new = old * idea.factor
        assert (new > old) == (idea.direction == "up")
        if isinstance(old, int):
            assert abs(new - round(new)) < 0.01 * new
            new = round(new)
    assert type(new) is type(plain(old)) and new != plain(old)
    told = f"{idea.target} {old} -> {new:.6g}" if idea.factor else f"{idea.target} {old} -> {new}"
    assert similarity(idea.idea, told) >= SAME_IDEA_THRESHOLD, "the sentence and the columns say the same"
    config = before | {idea.target: new}
    rest = config["TOTAL_BATCH_SIZE"] % (config["DEVICE_BATCH_SIZE"] * SEQ_LEN[preset])
    assert rest == 0 and config["TOTAL_BATCH_SIZE"] >= config["DEVICE_BATCH_SIZE"] * SEQ_LEN[preset]
    assert set(config["WINDOW_PATTERN"]) <= set("SL")
    assert config["HEAD_DIM"] % 2 == 0 and config["GATE_CHANNELS"] <= width(config)
    assert 1 <= config["MUON_STEPS"] <= 5
    assert 0 <= config["WARMUP_RATIO"] + config["WARMDOWN_RATIO"] <= 1
    assert 0 <= config["MUON_MOMENTUM"] < 1 and 0 <= config["FINAL_LR_FRAC"] < 1
    if idea.target == "ASPECT_RATIO":  # the width is rounded up to whole heads: a small step may be none
        assert width(config) != width(before)


def test_it_is_read_once():
    assert ideas() is ideas()
    assert len(ideas()) == len(CATALOGUE.read_text().splitlines()) - 1


def test_columns_become_what_they_mean(tmp_path):
    path = tmp_path / "catalogue.tsv"
    betas = "betas\toptimizer\tADAM_BETAS\tset\t\t[0.9, 0.95]\tgpu\tlow\tSet the betas\tGPT-3"
    path.write_bytes(f"{HEADER}\r\n{LINE}\r\n\r\n{betas}".encode())
    one, other = ideas(path)
    assert one == Idea(
        "deeper", "architecture", "DEPTH", "up", 1.5, None, "any", "high", "Raise DEPTH by half", "nanochat"
    )
    assert (other.factor, other.value) == (None, [0.9, 0.95])


NEITHER = "up or down of a constant takes a factor, set a value, nothing else takes one"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("\tany", "any", "9 cells, 10 are needed; put a tab between two, an empty cell too"),
        ("deeper", "Deeper!", "id 'Deeper!' is no name of small letters, digits and dashes"),
        ("architecture", "design", f"category 'design' is none of {', '.join(CATEGORIES)}"),
        ("\tup", "\thigher", "direction 'higher' is none of up, down, set, add, remove, replace"),
        ("any", "tpu", "scale 'tpu' is none of any, gpu, small"),
        ("high", "sure", "promise 'sure' is none of high, medium, low"),
        ("nanochat", "", "source '' is empty, or has more than plain words; write it anew"),
        ("by half", "\x1b[2J", r"idea 'Raise DEPTH \x1b[2J' is empty, or has more than plain words; write it anew"),
        ("by half", "on" * 99, f"the idea has 210 characters, at most {MAX_CHARACTERS} are read; shorten it"),
        ("1.5", "", f"the factor is missing: {NEITHER}"),
        ("1.5\t", "1.5\t8", f"the value '8' is too much: {NEITHER}"),
        ("DEPTH\tup\t1.5\t", "DEPTH\tset\t\t", f"the value is missing: {NEITHER}"),
        ("DEPTH\tup", "more layers\tup", f"the factor '1.5' is too much: {NEITHER}"),
        ("up\t1.5", "remove\t", "remove does not go with 'DEPTH': constants go up, down or are set, nothing else is"),
        ("DEPTH\tup\t1.5\t", "more layers\tset\t\t9",
         "set does not go with 'more layers': constants go up, down or are set, nothing else is"),
        ("1.5", "half", "'half' cannot be read: a factor is a number, a value is JSON"),
        ("up\t1.5\t", "set\t\t(8, 9)", "'(8, 9)' cannot be read: a factor is a number, a value is JSON"),
        ("1.5", "0.5", "factor 0.5 does not turn it up: above 1 is up, between 0 and 1 is down"),
        ("1.5", "nan", "factor nan does not turn it up: above 1 is up, between 0 and 1 is down"),
        ("up\t1.5", "down\t-2", "factor -2 does not turn it down: above 1 is up, between 0 and 1 is down"),
    ],
)  # fmt: skip
def test_a_damaged_line_is_told_with_its_number(tmp_path, old, new, fault):
    path = tmp_path / "catalogue.tsv"
    path.write_text(f"{HEADER}\n{LINE.replace('deeper', 'first')}\n{LINE.replace(old, new, 1)}\n")
    with pytest.raises(StoreError) as told:
        ideas(path)
    assert str(told.value) == f"{path} line 3: {fault}"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", " line 1: the columns are " + ", ".join(Idea._fields) + ", with tabs between"),
        (f"{HEADER}\n{LINE}\n{LINE}\n".encode(), " line 3: id 'deeper' is taken; give it another"),
        (HEADER.encode() + b"\n\xff\n", f" is not UTF-8 (byte {len(HEADER) + 1}); save it as UTF-8"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, content, fault):
    path = tmp_path / "catalogue.tsv"
    path.write_bytes(content)
    with pytest.raises(StoreError) as told:
        ideas(path)
    assert str(told.value) == f"{path}{fault}"


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(StoreError) as told:
        ideas(tmp_path / "none.tsv")
    assert str(told.value) == (
        f"cannot read {tmp_path / 'none.tsv'}: No such file or directory; "
        "it comes with the repository: restore it with git"
    )
