"""The same edit or another: a key that is equal for two versions of train.py that do the same.

    edit_key(Path("train.py").read_bytes())     16 hex characters, or None

The key is a hash of the syntax tree, so comments, layout, quotes and brackets do not matter. Beyond that only what
certainly means nothing is set aside, because a false "new" costs one run and a false "tried" costs an idea:

- docstrings, `pass` and other statements that do nothing;
- how a number is written: `8`, `0x8` and `2 * 4`; but 8, 8.0 and True are three values;
- in an unbroken run of constants at module level, their order, annotations (`DEPTH: int = 8`), and numbers that are
  computed from constants earlier in the run;
- the constant SEED at module level: a repeat with another seed is the same edit.

So these do make another key: a new constant, even an unused one; renamed variables; the order of imports and
functions; annotations elsewhere (torch reads some). Nothing is evaluated but arithmetic on numbers, within a size.
Not covered: what the environment selects, such as the preset, which the track and the card name.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

MAX_INTEGER_BITS = 4096
SEED_NAME = "SEED"

Number = int | float

# Each gives the same bits on every machine. A power of floats does not: the C libraries differ in its last digit.
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
# Fields that say nothing about what code does, and that not every version of Python has.
_IDLE_FIELDS = {"ctx", "kind", "type_comment", "type_ignores"}
_NOTHING_KNOWN: Mapping[str, Number] = {}


def edit_key(source: bytes) -> str | None:
    """A hash of what the program does, 16 hex characters, the same under every version of Python.

    None where this version cannot parse it, or it is nested too deeply to follow.
    """
    import hashlib  # loads OpenSSL, which a command that only reads has no use for

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the program's, such as an invalid escape
            tree = ast.parse(source)
        text = _module_text(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: NUL bytes; MemoryError: nesting
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _module_text(statements: list[ast.stmt]) -> str:
    """The statements of the module, or of a branch of an `if` there, with runs of constants in order of their names."""
    parts: list[str] = []
    run: dict[str, str] = {}
    known: dict[str, Number] = {}
    for statement in statements:
        name, value = _assignment(statement)
        if name == SEED_NAME or _does_nothing(statement):
            continue
        if name is not None and value is not None and _is_constant(value, known):
            run[name] = _text(value, known)
            number = number_of(value, known)
            known.pop(name, None)
            if number is not None:
                known[name] = number
            continue
        parts += _sorted_run(run)
        # Whatever follows may rebind the names in ways that only running it would show.
        run, known = {}, {}
        parts.append(_statement_text(statement, name, value))
    return "[" + ",".join(parts + _sorted_run(run)) + "]"


def _sorted_run(run: dict[str, str]) -> list[str]:
    return [f"{name!a}={text}" for name, text in sorted(run.items())]


def _statement_text(statement: ast.stmt, name: str | None, value: ast.expr | None) -> str:
    """A statement at module level that is no constant; `name` and `value` are what it assigns."""
    if isinstance(statement, ast.If):
        test, body, other = _text(statement.test), _module_text(statement.body), _module_text(statement.orelse)
        return f"If({test},{body},{other})"
    return _text(statement) if name is None else f"{name!a}={_text(value)}"


def _assignment(statement: ast.stmt) -> tuple[str | None, ast.expr | None]:
    """(name, value) where the statement gives one name a value, else (None, None)."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target: ast.expr = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target = statement.target
    else:
        return None, None
    return (target.id, statement.value) if isinstance(target, ast.Name) else (None, None)


def _is_constant(node: ast.expr, known: Mapping[str, Number]) -> bool:
    if isinstance(node, (ast.Tuple, ast.List)):
        return all(_is_constant(item, known) for item in node.elts)
    return isinstance(node, ast.Constant) or number_of(node, known) is not None


def _does_nothing(node: Any) -> bool:
    """Whether this is a statement without effect: `pass`, a docstring, any lone literal."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _text(node: Any, known: Mapping[str, Number] = _NOTHING_KNOWN) -> str:
    """A syntax tree, a list in one, or a leaf, as text. `ast.dump` is not stable: it changes with Python's version."""
    if isinstance(node, list):
        return "[" + ",".join(_text(item, known) for item in node if not _does_nothing(item)) + "]"
    if isinstance(node, ast.JoinedStr):  # Python 3.12 may leave an empty text in an f-string, others do not
        parts = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
        return f"JoinedStr({_text(parts, known)})"
    if not isinstance(node, ast.AST):
        return ascii(node)  # repr shows a character or not, depending on the version of Unicode
    number = number_of(node, known)
    if number is not None:
        return number.hex() if isinstance(number, float) else f"{number:#x}"
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__}:{node.value!a}"
    fields = (
        f"{name}={_text(value, known)}"
        for name, value in ast.iter_fields(node)
        if name not in _IDLE_FIELDS and value is not None and value != []
    )
    return f"{type(node).__name__}({','.join(fields)})"


def number_of(node: ast.AST, known: Mapping[str, Number] = _NOTHING_KNOWN) -> Number | None:
    """The number that an expression of literals and `known` names stands for; None when it is anything else."""
    if isinstance(node, ast.Constant):
        literal = node.value  # a bool is an int to Python, but no number here
        return literal if isinstance(literal, (int, float)) and not isinstance(literal, bool) else None
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        operand = number_of(node.operand, known)
        return None if operand is None else -operand
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = number_of(node.left, known), number_of(node.right, known)
        return None if left is None or right is None else _calculate(type(node.op), left, right)
    return None


def _calculate(op: type[ast.operator], left: Number, right: Number) -> Number | None:
    """The result, None where there is none or it would be too long to write down."""
    if op is ast.Pow and not (
        isinstance(left, int) and isinstance(right, int) and 0 <= left.bit_length() * right <= MAX_INTEGER_BITS
    ):
        return None
    try:
        result: Number = _ARITHMETIC[op](left, right)
    except ArithmeticError:  # divided by zero, or too large for a float
        return None
    return None if isinstance(result, int) and result.bit_length() > MAX_INTEGER_BITS else result
