"""Constants of a script given new values, in place: nothing but the characters of the values changes. Pure.

    set_constants(source, {"MATRIX_LR": 0.05, "ADAM_BETAS": [0.9, 0.95]}, {"PRESET": "gpu"})

A constant is an upper-case name that is assigned at module level or in an `if` there. Where both branches assign it,
the one that the configuration takes is changed.
Not covered: which values are worth a try (`lab/suggest.py`); a constant that is computed from others; comments between
the parts of a value that gets another number of parts.
"""

import ast
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lab.edits import number_of
from lab.errors import SettingError

COMPUTED = object()  # the value of what is neither a literal nor arithmetic on numbers

Statement = ast.Assign | ast.AnnAssign
Edit = tuple[ast.expr, str]  # what is to be replaced, and by what


class Assignment(NamedTuple):
    """A constant gets a value; `taken` is whether the configuration comes by there, None where that is unknown."""

    name: str
    statement: Statement
    taken: bool | None

    @property
    def node(self) -> ast.expr:
        """The value as it is written."""
        assert self.statement.value is not None  # `assignments` yields no others
        return self.statement.value


def set_constants(
    source: str, changes: Mapping[str, Any], config: Mapping[str, Any] | None = None, file: str = "train.py"
) -> str:
    """The script with these values (of JSON) for these constants; a list becomes a tuple where a tuple was.

    `config` are the constants of a run, which tell the branches of an `if` apart where its test compares one of them
    with a literal. Where they do not, the assignments of the configuration's value are changed, or else all of them.
    SettingError, naming the constant and `file`, where the script does not parse, the constant is not assigned or is
    computed, or the value is none that can be written down.
    """
    config = config or {}
    tree = _parse(source, file)
    before = list(assignments(tree.body, {**config, **changes}))
    chosen = [number for name in changes for number in _chosen(tree, before, name, config, file)]
    edits: list[Edit] = []
    for number in chosen:
        name, node = before[number].name, before[number].node
        if value_of(node) is COMPUTED:
            raise SettingError(f"{name} is computed in line {node.lineno} of {file}; change it by hand")
        edits += _edits(node, changes[name], name)
    changed = _replaced(source, edits)
    # What was done, asked of the parser: these constants have these values, and nothing else is different.
    tree_after = _parse(changed, file)
    after = list(assignments(tree_after.body, {}))
    for number in chosen:
        before[number].statement.value = after[number].node
        if not _equal(value_of(after[number].node), changes[after[number].name]):
            raise SettingError(f"{after[number].name} in {file} cannot be changed in place; change it by hand")
    if ast.dump(tree) != ast.dump(tree_after):
        raise SettingError(f"{', '.join(changes)} in {file} cannot be changed in place; change them by hand")
    return changed


def assignments(
    statements: Sequence[ast.stmt], config: Mapping[str, Any], taken: bool | None = True
) -> Iterator[Assignment]:
    """Where constants get their values: in these statements and in the branches of an `if` among them."""
    for statement in statements:
        if isinstance(statement, ast.If):
            truth = _truth(statement.test, config)
            yield from assignments(statement.body, config, _both(taken, truth))
            yield from assignments(statement.orelse, config, _both(taken, None if truth is None else not truth))
            continue
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target: ast.expr = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            target = statement.target
        else:
            continue
        if isinstance(target, ast.Name) and target.id.isupper():
            yield Assignment(target.id, statement, taken)


def value_of(node: ast.expr) -> Any:
    """The value of a literal, or of arithmetic on numbers; a tuple is a list, as in JSON. Else COMPUTED."""
    if isinstance(node, (ast.Tuple, ast.List)):
        parts = [value_of(item) for item in node.elts]
        return COMPUTED if COMPUTED in parts else parts
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, str, type(None))):
        return node.value
    number = number_of(node)
    return COMPUTED if number is None else number


def _parse(source: str, file: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the script's, such as an invalid escape
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # ValueError: NUL; MemoryError: nesting
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else type(error).__name__
        raise SettingError(f"{file} does not parse ({where}); mend it") from error


def _truth(test: ast.expr, config: Mapping[str, Any]) -> bool | None:
    """Whether a comparison of a constant with a literal holds; None for any other test."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], (ast.Eq, ast.NotEq)):
        return None
    name, literal = test.left, test.comparators[0]
    if isinstance(literal, ast.Name):
        name, literal = literal, name
    value = value_of(literal)
    if not isinstance(name, ast.Name) or name.id not in config or value is COMPUTED:
        return None
    return bool(config[name.id] == value) is isinstance(test.ops[0], ast.Eq)


def _both(one: bool | None, other: bool | None) -> bool | None:
    if one is False or other is False:
        return False
    return True if one and other else None


def _chosen(
    tree: ast.Module, found: Sequence[Assignment], name: str, config: Mapping[str, Any], file: str
) -> list[int]:
    """Which of the assignments of `name` are to be changed. SettingError where there is none, or it is bound twice."""
    named = [number for number, assignment in enumerate(found) if assignment.name == name]
    stores = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    stores = [node for node in stores if not isinstance(node.ctx, ast.Load)]
    if not stores or not name.isupper():
        raise SettingError(f"{file} has no constant {name!r}; the name of one is upper-case and assigned there")
    if len(stores) != len(named):
        lines = ", ".join(str(node.lineno) for node in stores)
        raise SettingError(f"{name} gets its value in another way too ({file}, lines {lines}); change it by hand")
    open_to = [number for number in named if found[number].taken is not False]
    if not open_to:
        raise SettingError(f"{name} has no value in {file} with the configuration of this track; change it by hand")
    present = [
        number for number in open_to if _equal(value_of(found[number].node), _listed(config.get(name, COMPUTED)))
    ]
    return present or open_to


def _edits(node: ast.expr, value: Any, name: str) -> Iterator[Edit]:
    """What to replace so that the value is another one: of a list as long as before, only the parts that differ."""
    if _equal(value_of(node), value):
        return
    if isinstance(node, (ast.Tuple, ast.List)) and isinstance(value, list) and len(value) == len(node.elts):
        for part, new in zip(node.elts, value, strict=True):
            yield from _edits(part, new, name)
    else:
        yield node, _written(value, isinstance(node, ast.Tuple), name)


def _written(value: Any, as_tuple: bool, name: str) -> str:
    """A value of JSON as Python. SettingError for an object, and for what is no number."""
    if isinstance(value, list):
        parts = [_written(part, as_tuple, name) for part in value]
        if as_tuple:
            return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"
        return f"[{', '.join(parts)}]"
    if isinstance(value, str) and '"' not in value:
        return '"' + repr("'" + value)[2:]  # in double quotes, which repr takes where there is a single one
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    raise SettingError(f"{name} cannot be {value!r}; give a number, a text, true, false, null or a list of these")


def _replaced(source: str, edits: Sequence[Edit]) -> str:
    """The source with other text for these nodes, whose places the parser counts in bytes of UTF-8."""
    raw = source.encode()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    spans = [
        (
            starts[node.lineno - 1] + node.col_offset,
            starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0),
            new,
        )
        for node, new in edits
    ]
    for start, end, new in sorted(spans, reverse=True):
        raw = raw[:start] + new.encode() + raw[end:]
    return raw.decode()


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, (list, tuple)) else value


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are the same to Python and to who reads them: 8, 8.0 and True are three."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and bool(one == other)
