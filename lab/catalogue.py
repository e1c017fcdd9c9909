"""Ideas worth trying on a small GPT: what a first night starts from, when no run has taught anything yet.

    ideas()[0]                  # Idea(id="halve-batch", category="hyperparams", target="TOTAL_BATCH_SIZE", ...)

They stand in catalogue.tsv beside this file, one a line, for people to add to: `Idea` says what its columns mean, and a
line that breaks them is told by its number. A constant is spelled as train.py spells it, every other target is told in
words. What to bet on an idea is a guess of before the first run.
Not covered: which of them to try (`lab/suggest.py`), whether one was tried (`lab/tried.py`), metrics of other programs.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lab.errors import StoreError
from lab.schema import CATEGORIES

DIRECTIONS = ("up", "down", "set", "add", "remove", "replace")
SCALES = ("any", "gpu", "small")
PROMISES = ("high", "medium", "low")
MAX_CHARACTERS = 140  # of an idea: it stands in one line of a plan
CATALOGUE = Path(__file__).with_suffix(".tsv")


class Idea(NamedTuple):
    """One line of the catalogue; the fields are its columns.

    `target` is a constant of train.py, in upper case, or a component in words. A constant goes `up` or `down` by
    `factor`, or is `set` to `value`; of a component the sentence says all. `scale` is the preset it fits.
    """

    id: str
    category: str
    target: str
    direction: str
    factor: float | None  # new value to old; above 1 for up, between 0 and 1 for down
    value: Any  # JSON in the file: a tuple of train.py is a list here; None where nothing is set
    scale: str
    promise: str
    idea: str  # one sentence that begins with a verb
    source: str  # authors and year, or a public repository


@cache
def ideas(path: Path = CATALOGUE) -> list[Idea]:
    """The catalogue, in the order of the file; it is read once, so leave the list as it is.

    StoreError, with file and line, where it cannot be read or a line is not whole.
    """
    try:
        header, *lines = path.read_text("utf-8").split("\n")
    except OSError as error:
        raise StoreError(
            f"cannot read {path}: {error.strerror}; it comes with the repository: restore it with git"
        ) from error
    except UnicodeDecodeError as error:
        raise StoreError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    if header != "\t".join(Idea._fields):
        raise StoreError(f"{path} line 1: the columns are {', '.join(Idea._fields)}, with tabs between")
    found: dict[str, Idea] = {}
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        idea = _idea(line.split("\t"))
        if isinstance(idea, Idea) and idea.id in found:
            idea = f"id {idea.id!r} is taken; give it another"
        if isinstance(idea, str):
            raise StoreError(f"{path} line {number}: {idea}")
        found[idea.id] = idea
    return list(found.values())


def _idea(cells: list[str]) -> Idea | str:
    """A line's cells as an idea, or what is wrong with them and what to do."""
    if len(cells) != len(Idea._fields):
        return f"{len(cells)} cells, {len(Idea._fields)} are needed; put a tab between two, an empty cell too"
    row = dict(zip(Idea._fields, cells, strict=True))
    if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", row["id"]):
        return f"id {row['id']!r} is no name of small letters, digits and dashes"
    closed = {"category": CATEGORIES, "direction": DIRECTIONS, "scale": SCALES, "promise": PROMISES}
    for name, allowed in closed.items():
        if row[name] not in allowed:
            return f"{name} {row[name]!r} is none of {', '.join(allowed)}"
    for name in ("target", "idea", "source"):
        if row[name] != row[name].strip() or not row[name].isprintable() or not row[name]:
            return f"{name} {row[name]!r} is empty, or has more than plain words; write it anew"
    if len(row["idea"]) > MAX_CHARACTERS:
        return f"the idea has {len(row['idea'])} characters, at most {MAX_CHARACTERS} are read; shorten it"
    return _with_numbers(row)


def _with_numbers(row: dict[str, Any]) -> Idea | str:
    """The idea with its factor and value read, where it has exactly those that its direction takes."""
    turned = row["direction"] in ("up", "down") and row["target"].isupper()
    for name, needed in (("factor", turned), ("value", row["direction"] == "set")):
        if bool(row[name]) != needed:
            rule = "up or down of a constant takes a factor, set a value, nothing else takes one"
            return f"the {name} {'is missing' if needed else f'{row[name]!r} is too much'}: {rule}"
    if row["target"].isupper() != (turned or row["direction"] == "set"):
        return (
            f"{row['direction']} does not go with {row['target']!r}: constants go up, down or are set, nothing else is"
        )
    try:
        factor = float(row["factor"]) if row["factor"] else None
        value = json.loads(row["value"]) if row["value"] else None
    except ValueError:
        return f"{row['factor'] or row['value']!r} cannot be read: a factor is a number, a value is JSON"
    if factor is not None and not (1 < factor < 1e9 if row["direction"] == "up" else 0 < factor < 1):
        return f"factor {factor:g} does not turn it {row['direction']}: above 1 is up, between 0 and 1 is down"
    return Idea(**row | {"factor": factor, "value": value})
