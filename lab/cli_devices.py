"""The command `worker.py devices`: the slots of this machine and who holds them."""

from typing import Any

from lab.brief import DATA_NOTE, minute, one_line
from lab.cli import Arguments, answer, command
from lab.devices import Slot, holder, slots
from lab.foreign import foreign

HEADER = ("slot", "device", "MiB used/all", "busy", "temp", "held since", "run")


@command()
def cmd_devices(args: Arguments) -> None:
    """Which devices experiments can run on, who holds each, and what else computes there"""
    rows = [_row(slot) for slot in slots()]
    answer(args, rows, devices_text(rows))


def _row(slot: Slot) -> dict[str, Any]:
    held = holder(slot)
    others = foreign(slot, held and held.run, held and held.pid)
    return {
        "slot": slot.name, "uuid": slot.uuid, "device_name": slot.device_name, "memory_mb": slot.memory_mb,
        "memory_used_mb": slot.memory_used_mb, "utilisation_percent": slot.utilisation_percent,
        "temperature_c": slot.temperature_c, "held": held and held._asdict(),
        "foreign": None if others is None else [process._asdict() for process in others],
    }  # fmt: skip


def devices_text(rows: list[dict[str, Any]]) -> str:
    """The table: a line for each slot, and below it who holds it and which processes are not the run's."""
    table = [HEADER, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    told = [[line, *_below(row)] for line, row in zip(lines[1:], rows, strict=True)]
    below = [line for part in told for line in part]
    return "\n".join([lines[0], *below, *([DATA_NOTE] if len(below) > len(rows) else [])])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    held = row["held"] or {}
    used = f"{_shown(row['memory_used_mb'])}/{_shown(row['memory_mb'])}"
    since = minute(held["since"]) if held.get("since") else "unknown" if held else "-"
    return (
        row["slot"],
        one_line(_shown(row["device_name"]), 40),
        "-" if used == "-/-" else used,
        _shown(row["utilisation_percent"], "%"),
        _shown(row["temperature_c"], " C"),
        since,
        _shown(held.get("run")),
    )


def _below(row: dict[str, Any]) -> list[str]:
    held, others = row["held"] or {}, row["foreign"] or ()
    holds = [one_line(held[name]) for name in ("owner", "project", "command") if held.get(name)]
    by = f" by process {held['pid']}" if held.get("pid") else ""
    return [
        *([f"  held{by} | {', '.join(holds) or 'it left no name'}"] if held else []),
        *(f"  foreign process {one['pid']}, {_shown(one['memory_mb'])} MiB | {one['name']}" for one in others),
    ]


def _shown(value: Any, unit: str = "") -> str:
    return "-" if value is None else f"{value}{unit}"
