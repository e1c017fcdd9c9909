"""What the columns of somebody else's ledger mean: which is the metric, which way is better, where the rest stands.

    said: list[str] = []
    layout = layout_of(path, table, None, None, Settings(), said)     # guessed; `said` tells what and from what
    cells = aligned(row.cells, layout)                                # one for every column, or None
    status_of(cells, layout), value_of(cells, layout)

Not covered: the words themselves (`lab/guess.py`), and the card that a row becomes (`lab/ledger.py`).
"""

import re
from pathlib import Path
from typing import NamedTuple

from lab.errors import CardError, SettingError
from lab.guess import guess_direction, guess_metrics, guess_roles, guess_status, metric_name, plain_name
from lab.settings import Settings
from lab.tables import Table, clean, shown, to_number

# A zero is a measurement where other values come near it, closer than this share of the middle one.
NEAR_ZERO = 0.1
NO_NUMBER = {"", "-", "--", "---", "\u2013", "\u2014", "?", "n/a", "na", "nan", "none", "null", "inf", "-inf", "+inf"}


class Layout(NamedTuple):
    """What a table's columns mean: the metric with its direction and column, and every role's columns, best first."""

    table: Table
    metric: str
    direction: str
    value: int
    roles: dict[str, list[int]]
    zero_counts: bool


def layout_of(
    path: Path, table: Table, metric: str | None, direction: str | None, settings: Settings, said: list[str]
) -> Layout:
    """What the columns mean; what was guessed is added to `said`. SettingError where they do not tell."""
    value = _metric_column(path, table, metric, settings.metric)
    name = metric_name(metric or table.columns[value])
    roles = {role: [at for at in found if at != value] for role, found in guess_roles(table.columns).items()}
    said.append(f"read {path.name} as {table.format}")
    if metric is None:
        said.append(f"metric: {name}, from the header")
    layout = Layout(table, name, "min", value, roles, False)
    kept, magnitudes = _survey(layout)
    if direction is None:
        usual = (settings.direction, "the project's setting")
        found = usual if name == settings.metric else guess_direction(name, kept)
        if found is None:
            why = f"neither the name {name!r} nor the kept rows tell whether less is better"
            raise SettingError(f"{path}: {why}; say which with --direction min or --direction max")
        direction = found[0]
        said.append(f"direction: {direction}, from {found[1]}")
    used = ", ".join(f"{clean(table.columns[columns[0]])} = {role}" for role, columns in roles.items() if columns)
    if used:
        said.append(f"columns: {used}")
    near = bool(magnitudes) and magnitudes[0] < NEAR_ZERO * magnitudes[len(magnitudes) // 2]
    return layout._replace(direction=direction, zero_counts=near)


def _metric_column(path: Path, table: Table, metric: str | None, usual: str) -> int:
    """The metric's column: the one asked for, else the project's, else the only one that is named like a metric."""
    columns = table.columns
    plain = [plain_name(column) for column in columns]
    seen = ", ".join(clean(column) for column in columns[:20])
    if metric is not None:
        if metric in columns or plain_name(metric) in plain:
            return columns.index(metric) if metric in columns else plain.index(plain_name(metric))
        raise SettingError(f"--metric {metric}: {path} has the columns {seen}; name one of them")
    if plain_name(usual) in plain:
        return plain.index(plain_name(usual))
    numeric = _numeric_columns(table)
    for named in guess_metrics(columns):
        if found := sorted(named & numeric):
            if len(found) == 1:
                return found[0]
            names = ", ".join(clean(columns[at]) for at in found)
            raise SettingError(f"{path} has several columns that could be the metric: {names}; choose with --metric")
    raise SettingError(f"{path} has no column that looks like a metric among {seen}; name it with --metric")


def _numeric_columns(table: Table) -> set[int]:
    """The columns that hold a number in some row."""
    found: set[int] = set()
    for row in table.rows():
        found |= {at for at, cell in enumerate(row.cells) if at not in found and to_number(cell) is not None}
    return found


def _survey(layout: Layout) -> tuple[list[float], list[float]]:
    """The kept values in the order of the file, and the magnitude of every value that is not zero, sorted."""
    kept, magnitudes = [], []
    for row in layout.table.rows():
        cells = aligned(row.cells, layout) if row.cells else None
        if cells and (value := to_number(cells[layout.value])):
            magnitudes.append(abs(value))
            if status_of(cells, layout) == "keep":
                kept.append(value)
    return kept, sorted(magnitudes)


def aligned(cells: list[str], layout: Layout) -> list[str] | None:
    """One cell for every column; None where they cannot be told.

    A description may hold the delimiter. In a short row the last cells are missing, or spaces stand for tabs: it
    counts only where the metric's and the status's cell read as such.
    """
    width, text, tabs = len(layout.table.columns), layout.roles["description"][:1], layout.table.format == "tsv"
    if len(cells) == width:
        return cells
    readings = []
    if len(cells) < width:
        readings.append(cells + [""] * (width - len(cells)))
        if tabs:
            line = "\t".join(cells)
            readings += [re.split(r"\t+| {2,}", line.strip(), maxsplit=width - 1), line.split(None, width - 1)]
    elif text:
        end = text[0] + len(cells) - width + 1
        whole = ("\t" if tabs else ",").join(cells[text[0] : end])
        readings.append([*cells[: text[0]], whole, *cells[end:]])
    elif not "".join(cells[width:]).strip():
        return cells[:width]
    return next((reading for reading in readings if len(reading) == width and _reads(reading, layout)), None)


def _reads(cells: list[str], layout: Layout) -> bool:
    value, statuses = cells[layout.value], layout.roles["status"][:1]
    known = all(guess_status(cells[at]) for at in statuses)
    return known and (to_number(value) is not None or (bool(statuses) and value.strip().lower() in NO_NUMBER))


def role_of(cells: list[str], layout: Layout, role: str) -> str:
    """The first text in the role's columns, clean; "" when there is none. W&B writes - where there is no note."""
    return next((text for at in layout.roles[role] if (text := clean(cells[at]).strip()) not in ("", "-")), "")


def status_of(cells: list[str], layout: Layout) -> str:
    """The status that the row's word for it means; a word nobody knows is inconclusive."""
    return guess_status(role_of(cells, layout, "status")) or "inconclusive"


def value_of(cells: list[str], layout: Layout) -> float:
    """The metric's value. CardError where there is none."""
    value = to_number(cells[layout.value])
    if value is None or (value == 0 and not layout.zero_counts):
        why = "is no number" if value is None else "is unlike all others"
        status = shown(role_of(cells, layout, "status"))
        raise CardError(f"{layout.metric} {shown(cells[layout.value])} {why}, and status {status} is no crash")
    return value
