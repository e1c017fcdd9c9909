"""Pictures of a commons: progress on a track, coverage, lineage, loss curves. matplotlib is imported when one is made.

    plot_progress(load_cards(knowledge), "climbmix-v8192-t2048-300s/H100-SXM-80GB", Path("progress.png"))

Each function writes a picture of 1600x900 (.png or .svg) at once or not at all, the same bytes for the same cards and
matplotlib, and raises SettingError where `out` cannot be used or there is nothing to draw. What agents wrote is drawn
as plain text: no mathematics, no control characters, □ for what the font lacks. Not covered: choosing the track.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.brief import counted, signed
from lab.canvas import (
    CRASHED,
    FAINT,
    INK,
    KEPT,
    MAX_DRAWN,
    PALE,
    QUIET,
    RETRACTED,
    columns,
    drawable,
    headline,
    label,
    legend,
    new_figure,
    save,
)
from lab.cards import order
from lab.errors import SettingError
from lab.lineage import Graph, Line, tree
from lab.progress import plot_progress as plot_progress  # one of the pictures, in a module of its own
from lab.runs import as_runs, champions
from lab.schema import Card, finite

MAX_CATEGORIES = 24
MAX_BACKBONE = 150
LABEL_PIXELS, ATTEMPT_PIXELS = 230, 13  # heights: above the first lane, and of one attempt below its parent
MAX_CURVES = 10


def plot_coverage(coverage: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Runs of every category by what became of them, and the best delta: rows as `lab.facts.coverage` gives them."""
    rows = sorted(coverage.items(), key=lambda item: (-item[1]["count"], item[0]))
    if not any(row["count"] for _, row in rows):
        raise SettingError("no results in any category: nothing to plot; record runs first")
    shown = rows[:MAX_CATEGORIES]
    figure, axes = new_figure(out, left=0.15)
    places = range(len(shown))
    kept = [row.get("kept") or 0 for _, row in shown]
    crashed = [row.get("crashed") or 0 for _, row in shown]
    other = [max(row["count"] - good - bad, 0) for (_, row), good, bad in zip(shown, kept, crashed, strict=True)]
    start = [0] * len(shown)
    for counts, colour, name in ((kept, KEPT, "kept"), (other, FAINT, "not kept"), (crashed, CRASHED, "crashed")):
        if any(counts):
            axes.barh(places, counts, left=start, height=0.62, color=colour, label=name, zorder=2)
        start = [before + count for before, count in zip(start, counts, strict=True)]
    widest = max(start)
    for place, (_, row) in enumerate(shown):
        best = finite(row.get("best_delta"))
        said = f"{kept[place]} of {row['count']} kept" + (f", best {signed(best)}" if best is not None else "")
        said = said if row["count"] else "not tried"
        axes.text(start[place] + widest * 0.012, place, said, va="center", color=INK if row["count"] else QUIET)
    axes.set_yticks(places, [""] * len(shown))
    for place, (name, _) in enumerate(shown):
        axes.text(-0.012, place, drawable(name, 22), transform=axes.get_yaxis_transform(), ha="right", va="center",
                  color=INK, fontsize=10.5, parse_math=False)  # fmt: skip
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, widest * 1.25)
    axes.grid(axis="y", visible=False)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick == int(tick) and tick <= widest])
    axes.set_xlabel("runs", color=QUIET)
    more = f" · {len(rows) - len(shown)} smaller ones not shown" if len(rows) > len(shown) else ""
    headline(
        axes, "Coverage", f"{counted(sum(row['count'] for _, row in rows), 'run')} in {len(rows)} categories{more}"
    )
    legend(axes)
    save(figure, out)


def plot_lineage(graph: Graph, out: Path) -> None:
    """What was kept or led on, generations from left to right; below each the attempts that ended there, as dots."""
    if not graph.nodes:
        raise SettingError("no cards in this lineage: nothing to plot; record runs first")
    rows, lines = {row["id"]: row for row in graph.nodes}, tree(graph)
    backbone = [name for name, line in lines.items() if line.heir or rows[name]["status"] == "keep"]
    drawn = set((backbone or list(lines))[-MAX_BACKBONE:])
    figure, axes = new_figure(out, left=0.03)
    place = _lanes(lines, drawn)
    lane_pixels = (axes.bbox.height - LABEL_PIXELS) / (max(y for _, y in place.values()) + 1)
    last = max(x for x, _ in place.values())
    axes.set_ylim(axes.bbox.height / lane_pixels - LABEL_PIXELS / lane_pixels, -LABEL_PIXELS / lane_pixels)
    axes.set_xlim(-0.03 * last - 0.3, last * 1.18 + 0.6)
    axes.set_axis_off()
    room = max(0, int(lane_pixels / ATTEMPT_PIXELS) - 3)
    for name in drawn:
        (x, y), parent = place[name], lines[name].parent
        if parent in place:
            from_x, from_y = place[parent]
            axes.plot([from_x, from_x + 0.5, x], [from_y, y, y], color=FAINT, linewidth=1.2, zorder=1)
        tried = [child for child in _children(lines[name]) if child not in drawn]
        shown = tried[:room]
        place |= {child: (x, y + (row + 2) * ATTEMPT_PIXELS / lane_pixels) for row, child in enumerate(shown)}
        if left_out := len(tried) - len(shown):
            below = y + (len(shown) + 2) * ATTEMPT_PIXELS / lane_pixels
            axes.text(x, below, f"+{left_out}", ha="center", va="center", color=QUIET, fontsize=8)
    looks = {"keep": ("kept", KEPT), "crash": ("crashed", CRASHED), "retracted": ("retracted", RETRACTED),
             "missing": ("not in the commons", PALE), "other": ("not kept", FAINT)}  # fmt: skip
    for kind, (named, colour) in looks.items():
        mine = [name for name in place if (rows[name]["status"] if rows[name]["status"] in looks else "other") == kind]
        for names, size in (([n for n in mine if n in drawn], 7.0), ([n for n in mine if n not in drawn], 4.0)):
            if names:
                axes.plot(*columns([place[name] for name in names]), linestyle="none", marker="o", markersize=size,
                          color=colour, label=named, zorder=3)  # fmt: skip
                named = "_"  # one entry of the legend for both sizes
    ranked = sorted(drawn, key=lambda name: (rows[name]["status"] != "keep", -abs(rows[name]["delta"] or 0), name))
    texts = [(*place[name], rows[name]["hypothesis"] or name[:8]) for name in ranked]
    label(axes, texts, list(place.values()), 1)
    hidden = f" · {len(drawn)} drawn large: kept, or others came from them" if len(drawn) < len(rows) else ""
    headline(axes, "Lineage", f"{counted(len(rows), 'card')}, {counted(len(graph.edges), 'link')}{hidden}")
    legend(axes)
    save(figure, out)


def _children(line: Line) -> list[str]:
    return [*line.others, *([line.heir] if line.heir else [])]


def _lanes(lines: dict[str, Line], drawn: set[str]) -> dict[str, tuple[float, float]]:
    """(generation, lane) of the nodes drawn: an heir stays in its parent's lane, others open a new one below."""
    first = min(lines[name].generation for name in drawn)
    place: dict[str, tuple[float, float]] = {}
    stack = [(name, -1) for name in reversed(lines) if name in drawn and lines[name].parent not in drawn]
    lanes = 0
    while stack:
        name, lane = stack.pop()
        if lane < 0:
            lane, lanes = lanes, lanes + 1
        place[name] = (float(lines[name].generation - first), float(lane))
        stack.extend((child, -1) for child in lines[name].others if child in drawn)
        heir = lines[name].heir
        if heir in drawn and heir is not None:
            stack.append((heir, lane))
    return place


def plot_loss(cards: Sequence[Card], out: Path) -> None:
    """Training loss over time of the champion of these cards and of the newest others, at most 10 with a curve."""
    curved = sorted((card for card in cards if _curve(card)), key=order)
    if not curved:
        raise SettingError("no card has a loss curve: nothing to plot; train.py records one with every run")
    path = champions(as_runs([card for card in curved if card["track"] == curved[-1]["track"]]))
    best = path[-1].card if path else None
    others = [card for card in curved if card is not best][-(MAX_CURVES - 1) :]
    figure, axes = new_figure(out)
    ends, late = [], []
    for rank, card in enumerate([*others, *([best] if best else [])]):
        curve, champion = _curve(card), card is best
        colour = KEPT if champion else f"{0.78 - 0.4 * rank / MAX_CURVES:.2f}"
        axes.plot(*columns(curve), color=colour, linewidth=2.2 if champion else 1.2, zorder=4 if champion else 3)
        x, y = next(point for point in reversed(curve) if not math.isnan(point[1]))
        ends.append((y, x, f"{card['id'][:6]} {card['hypothesis'] or card['status']}", KEPT if champion else QUIET))
        late += [value for _, value in curve[len(curve) // 10 :] if abs(value) < MAX_DRAWN]  # not the first fall
    low, high = (min(late), max(late)) if late else (0.0, 1.0)
    pad = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    axes.set_ylim(low - pad, high + pad)
    last = max(x for _, x, _, _ in ends)
    axes.set_xlim(0, last * 1.36 or 1.0)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= last])
    gap = (high - low + 2 * pad) * 0.034
    below = -math.inf
    for y, x, text, colour in sorted(ends):
        below = max(min(max(y, low), high), below + gap)  # the texts stay apart, a thin line leads to each
        axes.plot([x, last * 1.02], [y, below], color=colour, linewidth=0.5, zorder=2)
        axes.text(last * 1.026, below, drawable(text, 36), color=colour, va="center", fontsize=9, parse_math=False)
    axes.set_xlabel("training seconds", color=QUIET)
    axes.set_ylabel("training loss (lower is better)", color=QUIET)
    headline(axes, "Training loss", f"{counted(len(ends), 'run')} of {len(curved)} with a curve; the champion in green")
    save(figure, out)


def _curve(card: Card) -> list[tuple[float, float]]:
    """(seconds, loss) of the card's curve, NaN for a loss unknown; [] where no loss is known."""
    curve = card["results"].get("loss_curve")
    pairs = [(seconds, finite(loss)) for _, seconds, loss in curve] if isinstance(curve, list) else []
    known = [(seconds, math.nan if loss is None or abs(loss) > MAX_DRAWN else loss) for seconds, loss in pairs]
    return known if any(not math.isnan(loss) for _, loss in known) else []
