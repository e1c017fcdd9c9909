"""Constants changed in place: the branch that counts, the comments that survive, what is refused."""

import ast
import io
import json
import tokenize
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import SettingError
from lab.knobs import set_constants

TRAIN = (Path(__file__).parent.parent / "train.py").read_text()
KNOBS = TRAIN.partition("\ndef ")[0]  # up to its first function: a tenth of a second less for each example
BRANCHES = """\
PRESET = choose()
if PRESET == "gpu":
    DEPTH = 8  # blocks
    BATCH = 2**19
else:
    DEPTH = 3
    BATCH = 4096
BETAS = (
    0.8,  # first
    0.95,  # second
)
"""


def assigned(source):
    """{name: its values as they are written} of all upper-case names."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            found.setdefault(node.targets[0].id, []).append(ast.unparse(node.value))
    return found


def comments(source):
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


@pytest.mark.parametrize(
    ("source", "changes", "config", "expected"),
    [
        ("DEPTH = 8  # blocks\n", {"DEPTH": 10}, None, "DEPTH = 10  # blocks\n"),
        ("LR: float = -1e-3\n", {"LR": 0.002}, None, "LR: float = 0.002\n"),
        ("BATCH = 2**19 + 4 * 2\n", {"BATCH": 4096}, None, "BATCH = 4096\n"),
        ("N = (\n    2**3  # eight\n)\n", {"N": 9}, None, "N = (\n    9  # eight\n)\n"),
        ("ON = True; N = 1\n", {"ON": False, "N": -2}, None, "ON = False; N = -2\n"),
        ("W = 'SSSL'\n", {"W": "SL"}, None, 'W = "SL"\n'),
        ("W = 'a'\n", {"W": "say \"it's\"\n"}, None, "W = 'say \"it\\'s\"\\n'\n"),
        ("B = (0.8, 0.95)\n", {"B": [0.9, 0.95]}, None, "B = (0.9, 0.95)\n"),
        ("B = (0.8, 0.95)\n", {"B": [0.9]}, None, "B = (0.9,)\n"),
        ("B = 1, 2\n", {"B": []}, None, "B = ()\n"),
        ("B = [[1], [2, 3]]\n", {"B": [[1], [2, 4]]}, None, "B = [[1], [2, 4]]\n"),
        ("B = [1]\n", {"B": [1, None]}, None, "B = [1, None]\n"),
        ("É = 'ü'; N = 1  # für\n", {"N": 2}, None, "É = 'ü'; N = 2  # für\n"),
        ("N = 1\r\nM = 2\r\n", {"M": 3}, None, "N = 1\r\nM = 3\r\n"),
        ("N = 8\n", {"N": 8.0}, None, "N = 8.0\n"),
        ("N = 2**3\n", {"N": 8}, None, "N = 2**3\n"),
        ("N = 8\n", {}, None, "N = 8\n"),
        # Which branch.
        (BRANCHES, {"DEPTH": 9}, {"PRESET": "gpu"}, BRANCHES.replace("DEPTH = 8", "DEPTH = 9")),
        (BRANCHES, {"DEPTH": 9}, {"PRESET": "small"}, BRANCHES.replace("DEPTH = 3", "DEPTH = 9")),
        (BRANCHES, {"BATCH": 9}, {"BATCH": 2**19}, BRANCHES.replace("2**19", "9")),
        (BRANCHES, {"BATCH": 9}, {"BATCH": 1}, BRANCHES.replace("2**19", "9").replace("4096", "9")),
        (BRANCHES, {"BETAS": [0.8, 0.9]}, {"BETAS": (0.8, 0.95)}, BRANCHES.replace("0.95", "0.9")),
        ('N = 1\nif "a" != P:\n    N = 2\n', {"N": 3}, {"P": "a"}, 'N = 3\nif "a" != P:\n    N = 2\n'),
        (
            "if P == 1:\n    N = 1\nelif P == 2:\n    N = 2\nelse:\n    N = 3\n", {"N": 9}, {"P": 2},
            "if P == 1:\n    N = 1\nelif P == 2:\n    N = 9\nelse:\n    N = 3\n",
        ),
        ("P = 1\nif P == 1:\n    N = 1\nelse:\n    N = 2\n", {"N": 9, "P": 3}, {"P": 1},
         "P = 3\nif P == 1:\n    N = 1\nelse:\n    N = 9\n"),
    ],
)  # fmt: skip
def test_only_the_value_changes(source, changes, config, expected):
    assert set_constants(source, changes, config) == expected


@pytest.mark.parametrize(
    ("source", "changes", "config", "message"),
    [
        ("A = 1\n", {"B": 1}, None, "t.py has no constant 'B'; the name of one is upper-case and assigned there"),
        (
            "depth = 1\n", {"depth": 2}, None,
            "t.py has no constant 'depth'; the name of one is upper-case and assigned there",
        ),
        ("print(A)\n", {"A": 2}, None, "t.py has no constant 'A'; the name of one is upper-case and assigned there"),
        ("\nS = setting('S', 42)\n", {"S": 1}, None, "S is computed in line 2 of t.py; change it by hand"),
        ("A = 8\nB = A * 2\n", {"B": 1}, None, "B is computed in line 2 of t.py; change it by hand"),
        ("N = 2 if P else 1\n", {"N": 1}, None, "N is computed in line 1 of t.py; change it by hand"),
        ("A, B = 1, 2\n", {"B": 1}, None, "B gets its value in another way too (t.py, lines 1); change it by hand"),
        (
            "A = 1\nA += 1\n", {"A": 3}, None,
            "A gets its value in another way too (t.py, lines 1, 2); change it by hand",
        ),
        (
            "if P == 1:\n    N = 1\n", {"N": 2}, {"P": 2},
            "N has no value in t.py with the configuration of this track; change it by hand",
        ),
        (
            "A = 1\n", {"A": {"x": 1}}, None,
            "A cannot be {'x': 1}; give a number, a text, true, false, null or a list of these",
        ),
        (
            "A = 1\n", {"A": float("nan")}, None,
            "A cannot be nan; give a number, a text, true, false, null or a list of these",
        ),
        ("A = (\n", {"A": 1}, None, "t.py does not parse (line 1: '(' was never closed); mend it"),
    ],
)  # fmt: skip
def test_what_cannot_be_changed_is_named(source, changes, config, message):
    with pytest.raises(SettingError) as caught:
        set_constants(source, changes, config, "t.py")
    assert str(caught.value) == message


NUMBER_KNOBS = ("DEPTH", "MATRIX_LR", "TOTAL_BATCH_SIZE", "WARMUP_RATIO", "ROPE_BASE", "ADAM_BETAS", "WINDOW_PATTERN")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda parts: st.lists(parts, max_size=3),
    max_leaves=4,
)


def test_the_whole_of_the_real_script_stays_but_for_the_value():
    after = set_constants(TRAIN, {"DEPTH": 10}, {"PRESET": "gpu"})
    assert after == TRAIN.replace("    DEPTH = 8  # tr", "    DEPTH = 10  # tr") != TRAIN


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(NUMBER_KNOBS), values), st.sampled_from(["gpu", "small", None]))
def test_any_change_of_the_real_script_leaves_the_rest_alone(changes, preset):
    after = set_constants(KNOBS, changes, {"PRESET": preset} if preset else None)
    assert comments(after) == comments(KNOBS)
    assert len(after.splitlines()) == len(KNOBS.splitlines())
    old, new = assigned(KNOBS), assigned(after)
    assert {name: new[name] for name in new if name not in changes} == {
        name: old[name] for name in old if name not in changes
    }
    for name, value in changes.items():
        branch = 1 if preset == "small" and len(new[name]) > 1 else 0
        written = eval(new[name][branch])  # 2**19 may stay as it is
        assert json.loads(json.dumps(written)) == json.loads(json.dumps(value))
        if preset and len(new[name]) > 1:
            assert new[name][1 - branch] == old[name][1 - branch]
