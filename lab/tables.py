"""Read a file that holds rows, whatever its format: TSV, CSV, a markdown table, JSON lines, JSON.

    table = read_table(Path("results.tsv"))
    for row in table.rows():
        row.line, row.cells, row.problem        # 2, ["a1b2c3d", "0.99"], None

Cells are raw: text as it stands in the file, where a byte that is not UTF-8 is a lone surrogate. `clean`, `shown`,
`to_number` and `to_timestamp` make something of a cell. A row that cannot be read says why and does not hide the
next one. A folder stands for its .json files, one row each. Not covered: what the columns mean (`lab/ledger.py`),
UTF-16, a table without a header, markup around a table, several tables in one file.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lab.errors import SettingError
from lab.schema import Card

MAX_FILE_MIB = 256
MAX_ROW_CHARACTERS = 100_000
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")


class Row(NamedTuple):
    """A row as it stands: the line it starts on, its raw cells, how the line ends, or why it cannot be read."""

    line: int
    cells: list[str]
    newline: str = "\n"
    problem: str | None = None
    card: Card | None = None  # a card of our own schema, taken as it is


class Table(NamedTuple):
    """A file's format (tsv, csv, markdown or json), columns, line end of the header, and rows, read anew by a call.

    `columns` is empty where the file has nothing but cards of our own schema.
    """

    format: str
    columns: list[str]
    newline: str
    rows: Callable[[], Iterator[Row]]


def read_table(path: Path) -> Table:
    """The file as a table. SettingError where it is no text, empty, or has no header."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise SettingError(f"{path} is neither a file nor a folder; give a ledger such as results.tsv")
        if (size := path.stat().st_size) > MAX_FILE_MIB << 20:
            raise SettingError(f"{path} has {size >> 20} MiB, at most {MAX_FILE_MIB} can be imported; split it")
        raw = _one_line_each(path) if path.is_dir() else path.read_bytes()
        text = raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except OSError as error:
        raise SettingError(f"cannot read {path}: {error.strerror}; give a ledger such as results.tsv") from error
    if "\r" in text and "\n" not in text:
        raise SettingError(f"{path} ends its lines with carriage returns alone; write it anew with line feeds")
    head = next((found for found in _lines(text) if found[1].strip()), None)
    if head is None and path.is_dir():
        raise SettingError(f"{path} is a folder without .json files; give a ledger such as results.tsv")
    if head is None:
        raise SettingError(f"{path} is empty; give a file with a header and rows")
    number, line, newline = head
    if "\0" in line or (len(line) > MAX_ROW_CHARACTERS and line[0] not in "{["):
        raise SettingError(f"{path} is no table: line {number} is not a header; give a TSV, CSV or JSON lines file")
    if line.lstrip()[0] in "{[":
        return _json_table(path, text)
    if "\t" in line:
        return Table("tsv", line.split("\t"), newline, partial(_line_rows, text, number, lambda row: row.split("\t")))
    if line.lstrip().startswith("|"):
        return Table("markdown", _pipes(line), newline, partial(_line_rows, text, number, _pipes, "|:- \t\r"))
    delimiter = max(",;|", key=line.count)
    try:
        columns = next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error:
        columns = []
    if len(columns) < 2:
        seen = shown(line)
        raise SettingError(f"{path} has no header: line {number} is {seen}; name the columns there, with tabs between")
    return Table("csv", columns, newline, partial(_csv_rows, text, number, delimiter))


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Number, text and line end ("" where the file stops) of every line."""
    for number, found in enumerate(re.finditer("[^\n]*\n|[^\n]+", text), 1):
        line = found[0]
        end = "\r\n" if line.endswith("\r\n") else "\n" if line.endswith("\n") else ""
        yield number, line.removesuffix(end), end


def _line_rows(text: str, header: int, split: Callable[[str], list[str]], blank: str | None = None) -> Iterator[Row]:
    """The lines after the header but those that are nothing but `blank` characters (None: white space)."""
    for number, line, newline in _lines(text):
        if number > header and line.strip(blank):
            yield _row(number, split(line), newline)


def _pipes(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def _csv_rows(text: str, header: int, delimiter: str) -> Iterator[Row]:
    """The records after the header.

    Where one is no CSV it goes on with the next line: a quote never closed does not swallow the rows behind it.
    """
    lines = [line + newline for number, line, newline in _lines(text) if number > header]
    start = 0
    while start < len(lines):
        reader = csv.reader(map(lines.__getitem__, range(start, len(lines))), delimiter=delimiter, strict=True)
        read = 0
        try:
            for cells in reader:
                if "".join(cells).strip():
                    yield _row(header + start + read + 1, cells)
                read = reader.line_num
            return
        except csv.Error as error:
            yield Row(header + start + read + 1, [], problem=f"no CSV: {error}")
            start += read + 1


def _row(line: int, cells: list[str], newline: str = "\n") -> Row:
    problem = None
    if (size := sum(map(len, cells))) > MAX_ROW_CHARACTERS:
        problem = f"{size} characters; a row has at most {MAX_ROW_CHARACTERS}"
    elif any("\0" in cell for cell in cells):
        problem = "a NUL byte; this is not text"
    return Row(line, [] if problem else cells, newline, problem)


def _json_table(path: Path, text: str) -> Table:
    """JSON lines, or one JSON object or list. The columns are all names in the order of their first use."""
    columns: dict[str, None] = {}
    try:
        for _, item in _json_items(text):
            if isinstance(item, dict) and not _is_our_card(item):
                columns |= dict.fromkeys(_flat(item))
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{path} is {_not_json(error)}; give one object a line") from error
    return Table("json", list(columns), "\n", partial(_json_rows, text, columns))


def _json_rows(text: str, columns: dict[str, None]) -> Iterator[Row]:
    for number, item in _json_items(text):
        if isinstance(item, Exception):
            yield Row(number, [], problem=_not_json(item))
        elif not isinstance(item, dict):
            yield Row(number, [], problem="not a JSON object")
        elif _is_our_card(item):
            yield Row(number, [], card=item)
        else:
            flat = _flat(item)
            yield _row(number, [flat.get(column, "") for column in columns])


def _json_items(text: str) -> Iterator[tuple[int, Any]]:
    """Line and value of every line, the error where it is no JSON; or place and value of every item of one list."""
    first = next(line for _, line, _ in _lines(text) if line.strip())
    try:
        by_line = isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        by_line = False
    if not by_line:
        whole = json.loads(text)
        yield from enumerate(whole if isinstance(whole, list) else [whole], 1)
        return
    for number, line, _ in _lines(text):
        if line.strip():
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                item = error
            yield number, item


def _not_json(error: Exception) -> str:
    return f"not JSON ({' '.join(str(error).split())})"


def _is_our_card(item: Card) -> bool:
    return all(isinstance(item.get(name), kind) for name, kind in (("schema", int), ("id", str), ("results", dict)))


def _flat(item: Card) -> dict[str, str]:
    """An object as cells: the members of results, metrics and summary among the others, config's with a prefix."""
    flat: dict[str, str] = {}
    for name, value in item.items():
        if isinstance(value, dict) and name in ("results", "metrics", "summary"):
            flat |= {key: _cell(inner) for key, inner in value.items()}
        elif isinstance(value, dict) and name in ("config", "params"):
            flat |= {f"config.{key}": _cell(inner) for key, inner in value.items()}
        else:
            flat[name] = _cell(value)
    return flat


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _one_line_each(folder: Path) -> bytes:
    """The .json files of a folder as JSON lines, by name. A line break is layout: inside a text JSON escapes it."""
    files = sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))
    return b"\n".join(b" ".join(file.read_bytes().splitlines()) for file in files)


# Cells.


def clean(text: str) -> str:
    """The text for people: U+FFFD for what was not UTF-8 and for control characters."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", "\ufffd", text)


def shown(text: str) -> str:
    """The text as a message quotes it, in at most 62 characters or so, on one line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def to_number(text: str) -> float | None:
    """A finite number; None for anything else. Of `0.97 ± 0.01` the first, of `1,234.5` the whole, of `97%` 97."""
    text = re.split("±|\\+/-", text, maxsplit=1)[0].strip().removesuffix("%").rstrip()
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    whole = text.lstrip("+-").isdigit() and abs(value) < 2**53
    return int(text) if whole else value if math.isfinite(value) else None


def to_timestamp(text: str) -> str | None:
    """A time as cards keep it, UTC where the text names no zone; None where it is no time after 1970.

    It may be ISO 8601, or seconds or milliseconds since 1970.
    """
    number = to_number(text)
    try:
        if number is None:
            # Python 3.10 reads neither Z nor any number of decimals.
            digits = re.sub(r"(\.\d{1,6})\d*", lambda found: found[1].ljust(7, "0"), text.strip())
            moment = datetime.fromisoformat(re.sub("(Z| UTC)$", "+00:00", digits))
        else:  # seconds of our age have 9 or 10 digits, milliseconds 12 or 13
            moment = datetime.fromtimestamp(number / (1000 if number >= 1e11 else 1), timezone.utc)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment.year > 1970 else None
