"""edit_key: equal where nothing has changed but the writing, different where anything else has."""

import ast
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.edits import edit_key

TRAIN = (Path(__file__).parent.parent / "train.py").read_text()


def key(source):
    """The key of a program, which parses."""
    found = edit_key(source.encode())
    assert found and re.fullmatch("[0-9a-f]{16}", found)
    return found


SAME = {
    "comment": ("DEPTH = 8", "# deeper\nDEPTH = 8  # layers"),
    "layout": ("x = f(1,2)\nif x:\n  y()", "\n\nx = f(\n    1,\n    2,\n)\nif x: y()"),
    "line ends": ("x = 1\ny = f()", "x = 1\r\ny = f()\r\n"),
    "byte order mark": ("x = 1", "\ufeffx = 1"),
    "quotes": ("x = 'a'\ny = f('b')", 'x = "a"\ny = f("""b""")'),
    "prefix": ("x = 'a'", "x = u'a'"),
    "joined text": ("x = 'ab'", "x = 'a' 'b'"),
    "brackets": ("x = (a + (b * c))", "x = a + b * c"),
    "docstring": ("def f():\n    '''Say.'''\n    return 1", "'''Module.'''\ndef f():\n    return 1"),
    "pass": ("class A:\n    '''Say.'''", "class A:\n    pass"),
    "hexadecimal": ("DEPTH = 8", "DEPTH = 0x8"),
    "binary": ("f(8)", "f(0b1000)"),
    "underscore": ("f(5000)", "f(5_000)"),
    "exponent": ("x = 0.001", "x = 1e-3"),
    "product": ("DEPTH = 8", "DEPTH = 2 * 4"),
    "power": ("f(2**28)", "f(268435456)"),
    "other arithmetic": ("x = 3", "x = 7 // 2 + 9 % 5 - 4"),
    "division": ("x = 0.5", "x = 1 / 2"),
    "sign": ("f(-1)", "f(1 - 2)"),
    "in a tuple": ("x = (0.5, 8)", "x = (1 / 2, 2 * 4)"),
    "annotation": ("DEPTH = 8", "DEPTH: int = 8"),
    "annotation of what is computed": ("x = f()", "x: float = f()"),
    "order": ("A = 1\nB = 'x'\nC = (1, 2)", "C = (1, 2)\nB = 'x'\nA = 1"),
    "order in a branch": ("if f():\n    A = 1\n    B = 2", "if f():\n    B = 2\n    A = 1"),
    "from another constant": ("DEPTH = 8\nWIDTH = 512", "DEPTH = 8\nWIDTH = DEPTH * 64"),
    "overwritten": ("A = 2", "A = 1\nA = 2"),
    "seed": ("SEED = 1\nf(SEED)", "SEED: int = setting('SEED', 42)\nf(SEED)"),
    "no seed": ("A = 1\nB = 2", "B = 2\nSEED = 3\nA = 1"),
    "seed in a branch": ("if f():\n    SEED = 1\n    g()", "if f():\n    SEED = 2\n    g()"),
}


@pytest.mark.parametrize("name", SAME)
def test_writing_does_not_matter(name):
    one, other = SAME[name]
    assert key(one) == key(other)


DIFFERENT = {
    "value": ("DEPTH = 8", "DEPTH = 9"),
    "last digit": ("x = 0.1", "x = 0.10000000000000002"),
    "float": ("x = 8", "x = 8.0"),
    "bool": ("x = 1", "x = True"),
    "text": ("x = 'SSSL'", "x = 'SSLL'"),
    "bytes": ("x = 'a'", "x = b'a'"),
    "none": ("x = None", "x = 'None'"),
    "sign of zero": ("x = 0.0", "x = -0.0"),
    "imaginary": ("x = 1", "x = 1j"),
    "tuple and list": ("x = (1, 2)", "x = [1, 2]"),
    "operands": ("x = a - b", "x = b - a"),
    "operator": ("x = a + b", "x = a * b"),
    "comparison": ("if a < b: f()", "if a <= b: f()"),
    "call": ("x = relu(y)", "x = gelu(y)"),
    "argument": ("x = f(y, a=1)", "x = f(y, b=1)"),
    "argument left out": ("def f(a, *, b=1, c): g()", "def f(a, *, b, c=1): g()"),
    "order of statements": ("f()\ng()", "g()\nf()"),
    "order across a call": ("A = 1\nf()\nA = 2", "A = 2\nf()\nA = 1"),
    "new constant": ("A = 1", "A = 1\nB = 2"),
    "constant in a function": ("def f():\n    SEED = 1\n    return SEED", "def f():\n    SEED = 2\n    return SEED"),
    "seed in use": ("SEED = 1\nf(SEED)", "SEED = 1\nf(SEED + 1)"),
    "which branch": ("if f():\n    A = 1\nelse:\n    A = 2", "if f():\n    A = 2\nelse:\n    A = 1"),
    "else": ("if f():\n    A = 1\nelse:\n    B = 2", "if f():\n    A = 1\nB = 2"),
    "known in its run only": ("A = 1\nf()\nB = A", "A = 1\nf()\nB = 1"),
    "text is no number": ("A = '1'\nB = A", "A = '1'\nB = 1"),
    "a number no more": ("A = 1\nA = 'x'\nB = A", "A = 1\nA = 'x'\nB = 1"),
    "annotation of a field": ("class A:\n    x: int = 1", "class A:\n    x: float = 1"),
    "format": ("x = f'{y:.2f}'", "x = f'{y:.3f}'"),
    "conversion": ("x = f'{y!r}'", "x = f'{y!s}'"),
    "star": ("x = {**a, 'b': c}", "x = {None: a, 'b': c}"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_meaning_matters(name):
    one, other = DIFFERENT[name]
    assert key(one) != key(other)


# What every version of Python must make of this: cards of several machines are compared.
GOLDEN = '''"""Say."""
import os
A: int = 2 * 4
B = (0x10, 1e-3, -1.5, True, None, "\\u00e9\\ud800", b"\\xff", 1j, ...)
def f(a, /, b=1, *c, d, e=2, **g) -> int:
    """Say."""
    global A
    with open(a) as b, c[1:2, ::3]: x = [y async for y in b if not y] if d else {**g, "k": lambda: 0}
    return f"{a!r:>{b}}{c=}" "x", (z := a @ b), -a ** b
class C(int, metaclass=type):
    x: int
    try: del x
    except (E, F) as e: raise G from e
    finally: assert not x, "no"
match A:
    case [1, *_] | {"a": -1, **k} if k: pass
    case C(x=None): print(*k)
'''


def test_the_key_is_the_same_under_every_version_of_python():
    assert key(GOLDEN) == "055167e8936f6619"


@pytest.mark.parametrize(
    "source",
    [
        b"x = (",
        b"x = 1\0",
        b"x = '\xff'",
        b"x = " + b"(" * 9000,
        b"x = " + b"-" * 99999 + b"1",
        b"x = a" + b"+a" * 99999,
    ],
    ids=["syntax", "NUL", "not UTF-8", "brackets", "signs", "operators"],
)
def test_what_cannot_be_parsed_has_no_key(source):
    assert edit_key(source) is None


HOPELESS = ("9**9**9", "2**4097", "1e308 * 10 - 1e999", "1 / 0", "1 % 0", "0**-1", "10**400 / 1.0", "'a' * 10**12",
            "(2**4096)**2", "0x1" + "0" * 9000, "3**0.5", "(-1)**0.5")  # fmt: skip


@pytest.mark.parametrize("value", HOPELESS)
def test_arithmetic_that_leads_nowhere_is_kept_as_written(value):
    assert key(f"x = {value}") == key(f"x = ({value})") != key("x = 1")


def test_a_number_is_squared_only_so_often():
    doubling = "A = 3\n" + "A = A * A\n" * 200
    assert key(doubling) != key(doubling + "A = A + 1")


def test_a_program_that_python_warns_of_warns_nobody(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert key("x = '\\d'") == key("x = '\\\\d'")
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------------------------------------------------------
# train.py


def constants():
    """(line, name, value) of every upper-case constant of train.py whose value is a literal."""
    for node in ast.walk(ast.parse(TRAIN)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            yield node.value


def replaced(node, text):
    """train.py with other text where the node stands."""
    lines = TRAIN.splitlines(keepends=True)
    assert node.lineno == node.end_lineno
    line = lines[node.lineno - 1].encode()
    lines[node.lineno - 1] = (line[: node.col_offset] + text.encode() + line[node.end_col_offset :]).decode()
    return "".join(lines)


def changed(value):
    """Another value of the same type."""
    return not value if isinstance(value, bool) else value + "x" if isinstance(value, str) else value + 1


NUMBERS = [node for value in constants() for node in ast.walk(value)
           if isinstance(node, ast.Constant) and "AUTORESEARCH_SEED" not in ast.unparse(value)]  # fmt: skip


def test_every_constant_of_train_py_is_in_the_key():
    assert len(NUMBERS) > 40
    keys = [key(replaced(node, repr(changed(node.value)))) for node in NUMBERS]
    assert len({key(TRAIN), *keys}) == len(keys) + 1


def test_the_seed_of_train_py_is_not():
    assert 'AUTORESEARCH_SEED", 42' in TRAIN
    assert key(TRAIN) == key(TRAIN.replace('AUTORESEARCH_SEED", 42', 'AUTORESEARCH_SEED", 43'))


def test_train_py_written_anew_is_the_same():
    assert key(ast.unparse(ast.parse(TRAIN))) == key(TRAIN)
    assert key(re.sub("  +#.*", "", TRAIN)) == key(TRAIN)


SWAP = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


def test_every_operator_of_train_py_is_in_the_key():
    tree = ast.parse(TRAIN)
    operations = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and type(node.op) in SWAP]
    assert len(operations) > 50
    for node in operations[::4]:
        old, node.op = node.op, SWAP[type(node.op)]()
        assert key(ast.unparse(tree)) != key(TRAIN)
        node.op = old


# ---------------------------------------------------------------------------------------------------------------
# Any program

NAMES = st.sampled_from(["A", "B", "WIDTH", "x"])
EXPRESSIONS = st.recursive(
    st.integers(-50, 50).map(repr) | st.floats(allow_nan=False, allow_infinity=False).map(repr) | NAMES
    | st.text(max_size=3).map(ascii) | st.booleans().map(repr),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "<", "and"]), inner).map(
        lambda parts: "({} {} {})".format(*parts)
    ) | st.tuples(NAMES, inner).map("{0[0]}({0[1]})".format) | st.tuples(inner, inner).map("({0[0]}, {0[1]})".format),
    max_leaves=6,
)  # fmt: skip
ASSIGNMENTS = st.tuples(NAMES, EXPRESSIONS).map("{0[0]} = {0[1]}".format)
PROGRAMS = st.lists(ASSIGNMENTS | EXPRESSIONS | ASSIGNMENTS.map("if x:\n    {}".format), max_size=6).map("\n".join)


def values(program):
    """What the program's names stand for when it has run, None where it divides by zero."""
    names = {}
    try:
        exec(program, {"__builtins__": {}}, names)
    except ZeroDivisionError:
        return None
    return {name: (type(value), repr(value)) for name, value in names.items()}


@settings(max_examples=150)
@given(PROGRAMS)
def test_the_writing_of_any_program_does_not_matter(program):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = ast.unparse(ast.parse(program))
    assert key(program) == key(again) == key("# note\n\n" + program.replace("\n    ", "\n  # note\n  ") + "\n'end'")


NUMBER = st.sampled_from("ABC") | st.integers(0, 9).map(repr) | st.just("2.5") | st.just("-7")
# No powers: they are computed for whole numbers only, and a tower of them would never end.
ARITHMETIC = st.lists(
    st.tuples(st.sampled_from("ABC"), NUMBER, st.sampled_from(["+", "-", "*", "/", "//", "%"]), NUMBER), max_size=5
).map(lambda rows: "\n".join(["A = 1", "B = 2.0", "C = 3", *("{} = {} {} {}".format(*row) for row in rows)]))


@settings(max_examples=150)
@given(ARITHMETIC)
def test_a_constant_is_what_python_computes(program):
    found = values(program)
    if found is not None:
        assert key(program) == key("\n".join(f"{name} = {text}" for name, (_, text) in found.items()))


@settings(max_examples=150)
@given(ARITHMETIC, ARITHMETIC)
def test_constants_with_other_values_have_another_key(one, other):
    if values(one) != values(other) and None not in (values(one), values(other)):
        assert key(one) != key(other)


@settings(max_examples=100)
@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_bytes_have_a_key_or_none(source):
    found = edit_key(source)
    assert found is None or len(found) == 16
