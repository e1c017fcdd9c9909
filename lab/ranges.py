"""Which constants of a script may be turned without understanding it, and how far. Pure.

    space = space_of(Path("train.py").read_text(), config)            # {"MATRIX_LR": Range(...), ...}
    space["MATRIX_LR"].value(space["MATRIX_LR"].low)                  # the lowest value that may be tried

A script may say so itself, beside its constants: _RANGES = {"MATRIX_LR": (0.005, 0.2)}, lowest and highest. Without
that table it is every number that is written down, but the seed. In either case an experiment goes no farther than
four times the champion's value, on the scale of `lab.response.Scale`. The script is read and never run.
Not covered: constants that are no numbers, and which of them depend on each other.
"""

import ast
import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from lab.edits import SEED_NAME
from lab.errors import SettingError
from lab.knobs import COMPUTED, assignments, value_of
from lab.response import FROM_ZERO, SIGNIFICANT, Scale
from lab.schema import is_number

TABLE = "_RANGES"
SPAN = math.log(4)  # how far from the champion, on the scale of a constant
ROUNDING = 0.05  # what two digits are off, on the scale
LARGEST = 1e12  # a constant beyond it, or below its inverse, is left alone


class Range(NamedTuple):
    """The values that a constant may get: between two places of its scale, or between two values where it is 0 now."""

    scale: Scale
    low: float
    high: float

    def place(self, value: Any) -> float:
        """Where a value is, at the nearest end where it is outside; where the champion is for what is no number."""
        now = self.scale.value
        if not is_number(value):
            return self.place(now)
        place = float(value) if now == 0 else self.scale.place(value)
        if place is None:  # zero, or what has no logarithm for another reason
            return self.low if value < now else self.high
        return min(max(place, self.low), self.high)

    def value(self, place: float) -> float | None:
        """The value at a place, as it would be written; None where that is the champion's, or there is none."""
        if self.scale.value == 0:
            return float(f"{place:.{SIGNIFICANT - 1}e}") or None
        found = next(iter(self.scale.values((math.exp(place),))), None)
        there = None if found is None else self.scale.place(found)
        # The nearest power of two, or multiple, may be beyond an end.
        return found if there is not None and self.low - ROUNDING <= there <= self.high + ROUNDING else None


def space_of(source: str, config: Mapping[str, Any], file: str = "train.py") -> dict[str, Range]:
    """What may be turned of a script whose constants have these values (else those in the script), by name.

    SettingError where its table of ranges is none, or the script does not parse.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the script's, such as an invalid escape
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SettingError(f"{file} does not parse ({type(error).__name__}); mend it") from error
    table = _table(tree, file)
    found = {}
    for name, statement, taken in assignments(tree.body, config):
        written = value_of(statement.value) if statement.value else COMPUTED
        if written is COMPUTED or taken is False or name == SEED_NAME or (table is not None and name not in table):
            continue
        value = config.get(name, written)
        if is_number(written) and is_number(value) and (value == 0 or 1 / LARGEST < abs(value) < LARGEST):
            bounds = table[name] if table else (-math.inf, math.inf)
            if span := _range(Scale(name, value), bounds):
                found[name] = span
    return found


def _table(tree: ast.Module, file: str) -> dict[str, tuple[float, float]] | None:
    """The script's table of ranges, None where it has none."""
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if not any(isinstance(target, ast.Name) and target.id == TABLE for target in targets):
            continue
        assert isinstance(statement, ast.Assign)
        rows = statement.value
        table = {}
        for key, bounds in zip(rows.keys, rows.values, strict=True) if isinstance(rows, ast.Dict) else ():
            name, ends = value_of(key) if key else None, value_of(bounds)
            sound = isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends)) and ends[0] < ends[1]
            if not isinstance(name, str) or not sound:
                break
            table[name] = (float(ends[0]), float(ends[1]))
        if not isinstance(rows, ast.Dict) or len(table) < len(rows.keys):
            where = f"line {statement.lineno} of {file}"
            raise SettingError(f'{TABLE} in {where} is no table; write {{"MATRIX_LR": (lowest, highest), ...}}')
        return table
    return None


def _range(scale: Scale, bounds: tuple[float, float]) -> Range | None:
    """As far as the span and the bounds allow; None for a whole number that is 0, and where that is nowhere."""
    if scale.value == 0:
        if isinstance(scale.value, int):
            return None
        low, high = max(bounds[0], 0.0), min(bounds[1], 2 * max(FROM_ZERO))
    else:
        ends = [scale.place(bound) if math.isfinite(bound) else None for bound in bounds]
        if scale.value < 0:
            ends.reverse()
        low = -SPAN if ends[0] is None else max(-SPAN, min(ends[0], 0.0))
        high = SPAN if ends[1] is None else min(SPAN, max(ends[1], 0.0))
    return Range(scale, low, high) if low < high else None
