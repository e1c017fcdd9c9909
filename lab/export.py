"""Write cards for other programs: a results.tsv, JSON lines, a spreadsheet, a Parquet file.

    export_file(knowledge, "tsv", Path("results.tsv"), track="h100")

- tsv: a ledger as autoresearch keeps it. Cards imported from one TSV ledger give it back byte for byte, in the order
  of its lines; what was learnt about them since is in the other formats. Otherwise the header is the classic one
  (commit, the metric, memory_gb, status, description): a row imported under that same header is given back raw, every
  other card is written in those five columns, oldest first.
- jsonl: the cards as they are given, one a line, oldest first. `lab/ledger.py` imports them with their ids.
- csv, parquet: the same columns in both, oldest first; `value` is the metric's, every number of `results` follows.

Not covered: loss curves and platforms in csv and parquet, events and notes, other compressions.
"""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lab.cards import load_cards, order
from lab.errors import SettingError
from lab.facts import named_track
from lab.schema import EXPORT_FORMATS, STATUS_ALIASES, Card, is_number
from lab.store import replace

CLASSIC_STATUS = {status: alias for alias, status in STATUS_ALIASES.items()}
TEXT_COLUMNS = (
    "id", "timestamp", "session", "agent", "track", "commit", "status", "category", "hypothesis", "lesson", "metric",
    "direction",
)  # fmt: skip
JSON_COLUMNS = ("tags", "prior_knowledge_used", "config", "config_diff")
# A spreadsheet runs a cell that begins so; behind an apostrophe it is text.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def export_file(
    knowledge: Path, format: str, out: Path | None, *, session: str | None = None, track: str | None = None
) -> int:
    """Write the commons' cards to a file, which is whole or not changed, or to standard output; returns how many.

    Only those of a session where one is given, and of a track, which may be a part of its name. SettingError for a
    format we cannot write, a track that is none or several, and an `out` that is no file.
    """
    if out and not out.absolute().parent.is_dir():
        raise SettingError(f"--out {out}: no folder {out.absolute().parent}; make it first")
    if out and out.exists() and not out.is_file():  # a device would be replaced by a file
        raise SettingError(f"--out {out} is no file; leave --out away to print")
    cards = load_cards(knowledge)
    if track is not None:
        track = named_track(sorted({card["track"] for card in cards if card["track"] is not None}), track)
    chosen = [card for card in cards if session in (None, card["session"]) and track in (None, card["track"])]
    content = io.BytesIO()
    count = export_cards(chosen, format, content)
    if out:
        replace(out, content.getvalue())
    else:
        sys.stdout.buffer.write(content.getvalue())
    return count


def export_cards(cards: Sequence[Card], format: str, out: BinaryIO) -> int:
    """Write the cards, given in any order, and return how many. SettingError for a format we cannot write."""
    writers = {"tsv": _write_tsv, "jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet}
    if format not in writers:
        raise SettingError(f"--format {format}: it is one of {', '.join(EXPORT_FORMATS)}")
    writers[format](sorted(cards, key=order), out)
    return len(cards)


def _write_tsv(cards: list[Card], out: BinaryIO) -> None:
    sources = [_ledger_of(card) for card in cards]
    headers = {tuple(source["columns"]) for source in sources if source}
    if cards and None not in sources and len(headers) == 1:
        found = [source for source in sources if source]
        _write_ledger(sorted(found, key=lambda source: (source["file"], source["line"])), out)
        return
    metrics = sorted({card["metric"] for card in cards}) or ["val_bpb"]
    if len(metrics) > 1:
        names = ", ".join(metrics)
        raise SettingError(f"--format tsv has one column for the metric, and the cards have {names}; use jsonl")
    columns = ["commit", metrics[0], "memory_gb", "status", "description"]
    rows = [columns]
    for card, source in zip(cards, sources, strict=True):
        rows.append(source["cells"] if source and source["columns"] == columns else _classic_row(card))
    for row in rows:
        out.write(_bytes("\t".join(row) + "\n"))


def _write_ledger(sources: list[Card], out: BinaryIO) -> None:
    """The lines of the ledgers as they were; a line that ended its file gets an end where another follows."""
    header_newline = sources[0]["header_newline"]
    out.write(_bytes("\t".join(sources[0]["columns"]) + header_newline))
    for position, source in enumerate(sources, 1):
        end = source["newline"] or ("" if position == len(sources) else header_newline)
        out.write(_bytes("\t".join(source["cells"]) + end))


def _ledger_of(card: Card) -> Card | None:
    """The source of a card that was a line of a TSV ledger; None for any other, also where a peer's card pretends."""
    source = card.get("source")
    if not isinstance(source, dict) or source.get("format") != "tsv":
        return None
    columns, cells = source.get("columns"), source.get("cells")
    whole = all(_is_line(value) for value in (columns, cells))
    ends = source.get("newline") in ("", "\n", "\r\n") and source.get("header_newline") in ("\n", "\r\n")
    return source if whole and ends and isinstance(source.get("line"), int) and _is_line([source.get("file")]) else None


def _is_line(cells: Any) -> bool:
    return isinstance(cells, list) and all(isinstance(cell, str) and not {"\n", "\t"} & set(cell) for cell in cells)


def _classic_row(card: Card) -> list[str]:
    """The five columns of results.tsv. A crash has zeros, as there; what is unknown otherwise is empty."""
    value, memory_mb = card["results"].get(card["metric"]), card["results"].get("peak_vram_mb")
    crash = card["status"] == "crash"
    row: list[str] = [
        card["commit"] or "",
        ("0.000000" if crash else "") if value is None else _decimals(value),
        ("0.0" if crash else "") if memory_mb is None else f"{memory_mb / 1024:.1f}",
        CLASSIC_STATUS.get(card["status"]) or card["status"],
        card["hypothesis"] or "",
    ]
    return [" ".join(cell.replace("\t", " ").splitlines()) for cell in row]


def _decimals(value: float) -> str:
    return f"{value:.6f}" if value == 0 or abs(value) >= 0.001 else f"{value:.6g}"


def _bytes(text: str) -> bytes:
    """UTF-8; what was no UTF-8 when it was imported gets its bytes back, any other lone surrogate is a ?."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _write_jsonl(cards: list[Card], out: BinaryIO) -> None:
    for card in cards:  # a lone surrogate becomes \udcXX, which is its JSON escape
        out.write((json.dumps(card, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace"))


def _write_csv(cards: list[Card], out: BinaryIO) -> None:
    text = io.TextIOWrapper(out, "utf-8", errors="replace", newline="", write_through=True)
    writer = csv.writer(text)
    names = _number_names(cards)
    writer.writerow([_harmless(name) for name in _columns(names)])
    for row in _flat_rows(cards, names):
        writer.writerow([_harmless(value) for value in row])
    text.detach()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _write_parquet(cards: list[Card], out: BinaryIO) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise SettingError("--format parquet needs pyarrow, which is not installed; `uv sync` or use csv") from error
    names = _number_names(cards)
    fields = [(name, pa.string()) for name in (*TEXT_COLUMNS, *JSON_COLUMNS)]
    schema = pa.schema(fields + [(name, pa.float64()) for name in _columns(names)[len(fields) :]])
    columns = [list(column) for column in zip(*_flat_rows(cards, names), strict=True)] or [[] for _ in schema]
    for position, field in enumerate(schema):
        convert = float if field.type == pa.float64() else _storable
        columns[position] = [None if value is None else convert(value) for value in columns[position]]
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, schema.types, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), out)


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _number_names(cards: list[Card]) -> list[str]:
    """The names of results that are numbers in some card, in the order of their first use."""
    names: dict[str, None] = {}
    for card in cards:
        names |= dict.fromkeys(name for name, value in card["results"].items() if is_number(value))
    return list(names)


def _columns(names: list[str]) -> list[str]:
    return [*TEXT_COLUMNS, *JSON_COLUMNS, "seed", "value", *(f"results.{name}" for name in names)]


def _flat_rows(cards: list[Card], names: list[str]) -> Iterator[list[Any]]:
    for card in cards:
        results = card["results"]
        numbers = (results.get(name) for name in (card["metric"], *names))
        yield [
            *(card[name] for name in TEXT_COLUMNS),
            *(json.dumps(card[name], ensure_ascii=False) if card[name] else None for name in JSON_COLUMNS),
            card["seed"],
            *(number if is_number(number) else None for number in numbers),
        ]
