"""Import what other projects wrote down: results.tsv, CSV exports of W&B and MLflow, JSON lines, cards.

    done = import_file(knowledge, Path("results.tsv"))
    done.added, done.known, done.bad        # new cards, rows that had one already, [(line, why not)]

A row becomes a card that depends on nothing but the file's content, the options and the project's metric, so a
second import adds nothing and a ledger that has grown adds its new rows. Its raw cells are kept in `source`, from
which `lab/export.py` writes the ledger back byte for byte. Not covered: the formats of files (`lab/tables.py`), what
columns (`lab/columns.py`) and descriptions (`lab/guess.py`) mean. A row is the same row under any metric: importing
again with another --metric or --direction changes no card.
"""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lab.cards import card_path, pairs
from lab.columns import Layout, aligned, layout_of, role_of, status_of, value_of
from lab.errors import CardError, SettingError
from lab.guess import (
    CONFIG_COLUMN,
    guess_category,
    guess_config_diff,
    guess_error_kind,
    guess_lesson,
    guess_tags,
    metric_name,
    plain_name,
)
from lab.schema import CATEGORIES, DIRECTIONS, RESULT_NAMES, TYPES, Card, complete, validate_card
from lab.settings import Settings, load_settings, project_root
from lab.store import dump_json, write_many
from lab.tables import Row, Table, clean, read_table, shown, to_number, to_timestamp

COMPARED = "the status is the ledger's; compared with its best row kept before"
OBJECT_FIELDS = ("tags", "config_diff", "prior_knowledge_used", "platform")


class Imported(NamedTuple):
    """What an import did: cards added, rows known before, rows refused (line, reason), and what was guessed.

    `ids` are the cards of all good rows in the order of the file; metric and direction are null where every row was
    a card of our own. `said` are sentences for the user.
    """

    added: int
    known: int
    bad: list[tuple[int, str]]
    metric: str | None
    direction: str | None
    said: list[str]
    ids: list[str]


def import_file(
    knowledge: Path, path: Path, *, metric: str | None = None, direction: str | None = None, track: str | None = None,
    session: str | None = None, settings: Settings | None = None,
) -> Imported:  # fmt: skip
    """Add a card for every row of the file that has none yet; on disk when this returns.

    `metric` and `direction` (min or max) are guessed from the header and the kept rows when not given; `track` and
    `session` come from the file's name. `settings` are the project's, by default those of the one around the commons.
    SettingError where the file cannot be read, or its columns do not tell.
    """
    if direction not in (None, *DIRECTIONS):
        raise SettingError(f"--direction {direction}: it is one of {', '.join(DIRECTIONS)}")
    said: list[str] = []
    table = read_table(path)
    if settings is None:
        root = project_root(knowledge)
        settings = load_settings(root) if root else Settings()
    layout = layout_of(path, table, metric, direction, settings, said) if table.columns else None
    bad: list[tuple[int, str]] = []
    ids: list[str] = []

    def new_files() -> Iterator[tuple[str, bytes]]:
        for line, card in cards_of(path, table, layout, track, session):
            if isinstance(card, CardError):
                bad.append((line, str(card)))
                continue
            ids.append(card["id"])
            if not (file := card_path(knowledge, card["id"])).exists():
                yield file.name, dump_json(card)

    added = sum(write_many(knowledge / "cards", new_files()))
    metric, direction = (layout.metric, layout.direction) if layout else (None, None)
    return Imported(added, len(ids) - added, bad, metric, direction, said, ids)


def cards_of(
    path: Path, table: Table, layout: Layout | None, track: str | None = None, session: str | None = None
) -> Iterator[tuple[int, Card | CardError]]:
    """The line and the card of every row, or why it has none."""
    stem = clean(path.stem)
    named = {"track": track or "imported:" + re.sub("[^0-9A-Za-z]+", "-", stem).strip("-"), "session": session or stem}
    seen: Counter[bytes] = Counter()
    best: Card | None = None
    renamed: dict[str, str] = {}  # ids of the other project's cards -> ours
    for row in table.rows():
        try:
            if row.problem:
                raise CardError(row.problem)
            if row.card:
                card = complete(row.card)
            elif layout is None:
                raise CardError("an object without members")
            else:
                card = complete(named | _values(row, layout, best) | _of_object(row, layout, renamed))
                source = _source(row, table, path)
                identity = "\0".join((*source["columns"], "", *source["cells"], *named.values()))
                key = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()
                seen[key] += 1  # the same row again is another experiment
                card |= {"source": source, "id": hashlib.sha256(key + b"%d" % seen[key]).hexdigest()[:16]}
                if "id" in table.columns:
                    renamed[row.cells[table.columns.index("id")]] = card["id"]
            validate_card(card)
        except CardError as error:
            yield row.line, error
            continue
        if layout and not row.card and card["status"] == "keep":
            sign = 1 if layout.direction == "min" else -1
            values = [record["results"][layout.metric] * sign for record in (card, best) if record]
            best = card if values[0] == min(values) else best
        yield row.line, card


def _source(row: Row, table: Table, path: Path) -> Card:
    """Where the row came from, raw; of a JSON object only the names it has, so that later lines change nothing."""
    columns, cells = table.columns, row.cells
    if table.format == "json":
        columns = [name for name, cell in zip(columns, cells, strict=True) if cell]
        cells = [cell for cell in cells if cell]
    about = {"file": clean(path.name), "format": table.format, "line": row.line}
    return about | {"columns": columns, "cells": cells, "newline": row.newline, "header_newline": table.newline}


def _values(row: Row, layout: Layout, best: Card | None) -> Card:
    """What the row says, as the values of a card; `best` is the best kept row before it.

    CardError where it has neither a number nor a crash.
    """
    columns = layout.table.columns
    if row.cells == columns:
        raise CardError("the header again")
    cells = aligned(row.cells, layout)
    if cells is None:
        raise CardError(f"{len(row.cells)} cells where the header has {len(columns)}: {shown(' '.join(row.cells))}")
    status = status_of(cells, layout)
    value = None if status == "crash" else value_of(cells, layout)
    # Rounded to 12 digits: the rest is noise of the subtraction.
    delta = None if value is None or best is None else float(f"{value - best['results'][layout.metric]:.12g}")
    description = role_of(cells, layout, "description")
    summary = " ".join(description.split()) or "crash, no details in the ledger"
    kind = guess_error_kind(f"{role_of(cells, layout, 'status')} {summary}")
    commit = role_of(cells, layout, "commit")
    # A row without a time has 1970 and a millisecond a line, which is the order of the file.
    in_order = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(row.line // 1000)) + f".{row.line % 1000:03d}Z"
    return {
        "timestamp": to_timestamp(role_of(cells, layout, "time")) or in_order,
        "metric": layout.metric,
        "direction": layout.direction,
        "commit": commit if TYPES["commit"].accepts(commit) else None,
        "hypothesis": description or None,
        "category": guess_category(description),
        "tags": guess_tags(description),
        "config": _config(cells, layout) or None,
        "config_diff": guess_config_diff(description),
        "results": _others(cells, layout, status) | {layout.metric: value, "delta": delta},
        "seed": _whole(role_of(cells, layout, "seed")),
        "status": status,
        "lesson": role_of(cells, layout, "lesson") or guess_lesson(description),
        "decision": {"status": status, "reason": COMPARED, "champion": best["id"]} if best else None,
        "error": {"kind": kind, "phase": None, "summary": summary, "tail": []} if status == "crash" else None,
    }


def _of_object(row: Row, layout: Layout, renamed: dict[str, str]) -> Card:
    """What only a JSON object says as a card does: tags, config_diff, what it rests on, the machine."""
    if layout.table.format != "json":
        return {}
    found: Card = {}
    for name in OBJECT_FIELDS:
        cell = row.cells[layout.table.columns.index(name)] if name in layout.table.columns else ""
        if cell[:1] in ("{", "["):
            found[name] = json.loads(cell)
    fields: Card = {}
    if isinstance(found.get("tags"), list):
        fields["tags"] = [clean(str(tag)) for tag in found["tags"]]
        if named := [tag for tag in fields["tags"] if tag in CATEGORIES]:
            fields["category"] = named[0]
    of = dict(zip(layout.table.columns, row.cells, strict=True))
    if of.get("category") in CATEGORIES:
        fields["category"] = of["category"]
    if (parent := of.get("parent_id", "")) in renamed:
        fields["prior_knowledge_used"] = [renamed[parent]]
    if reason := clean(of.get("retraction_reason", "")):
        fields["retraction_reason"] = reason
    if isinstance(found.get("config_diff"), dict):
        fields["config_diff"] = pairs(found["config_diff"])
    if isinstance(found.get("prior_knowledge_used"), list):
        fields["prior_knowledge_used"] = [
            renamed.get(str(name), clean(str(name))) for name in found["prior_knowledge_used"]
        ]
    if isinstance(platform := found.get("platform"), dict) and isinstance(platform.get("gpu"), str):
        fields["platform"] = {"device_name": clean(platform["gpu"])}
    return fields


def _others(cells: list[str], layout: Layout, status: str) -> Card:
    """Every other number of the row, under its column's name; memory as peak_vram_mb where the name has a unit."""
    used = {layout.value, *(at for columns in layout.roles.values() for at in columns)}
    results: Card = {}
    for at, column in enumerate(layout.table.columns):
        number = to_number(cells[at]) if at not in used and not CONFIG_COLUMN.fullmatch(column) else None
        if number is None or (status == "crash" and number == 0):
            continue
        name = plain_name(column)
        words = set(name.split("_"))
        if name not in RESULT_NAMES:
            name = metric_name(clean(column))
        if words & {"memory", "mem", "vram"} and words & {"gb", "gib", "mb", "mib"}:
            name, number = "peak_vram_mb", number * (1024 if words & {"gb", "gib"} else 1)
        if name not in ("delta", "loss_curve"):
            results.setdefault(name, number)
    return results


def _config(cells: list[str], layout: Layout) -> Card:
    config: Card = {}
    for column, cell in zip(layout.table.columns, cells, strict=True):
        if (found := CONFIG_COLUMN.fullmatch(column)) and cell:
            number = to_number(cell)
            config[clean(found[1] or found[2])] = clean(cell) if number is None else number
    return config


def _whole(text: str) -> int | None:
    value = to_number(text)
    return int(value) if value is not None and value == int(value) else None
