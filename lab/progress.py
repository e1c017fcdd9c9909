"""The picture of progress on a track: every experiment in the order of time, and the best kept result so far.

    plot_progress(load_cards(knowledge), "climbmix-v8192-t2048-300s/H100-SXM-80GB", Path("progress.png"))

Not covered: the other pictures, which are in `lab/plots.py` as this one is, and choosing the track.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lab.brief import counted, number, one_line
from lab.canvas import (
    CRASHED,
    FAINT,
    KEPT,
    MAX_DRAWN,
    QUIET,
    RETRACTED,
    columns,
    drawable,
    headline,
    label,
    legend,
    limits,
    new_figure,
    save,
)
from lab.cards import order
from lab.errors import SettingError
from lab.schema import Card, metric_value
from lab.stats import NORMAL_95

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Point(NamedTuple):
    """One experiment of a progress plot: its place in time from 1, its value if any, and what it is drawn as."""

    x: int
    y: float | None
    kind: str  # keep, retracted, crash (no value) or other
    label: str


def plot_progress(
    cards: Sequence[Card], track: str | None, out: Path, band: Sequence[tuple[float, float]] | None = None
) -> None:
    """Every experiment of the track in the order of time, and the best kept result so far.

    `band`: the champion's (mean, standard deviation) after each of these experiments, drawn as mean ± 1.96 of it.
    """
    chosen = sorted((card for card in cards if card["track"] == track), key=order)
    if not chosen:
        where = f"on track {track}" if track else "yet"
        raise SettingError(f"no results {where}: nothing to plot; `commons.py coverage` lists the tracks")
    metric, sign = chosen[-1]["metric"], -1 if chosen[-1]["direction"] == "max" else 1
    points = [_point(x, card, metric) for x, card in enumerate(chosen, 1)]
    path = _running_best(points, sign)
    figure, axes = new_figure(out)
    low, high = limits([point.y for point in points if point.y is not None])
    step = (high - low) * 0.05
    # The empty side, where nothing is better than the best, has room for labels; beyond the other side the edge marks.
    axes.set_ylim((low - 7 * step, high + 2 * step) if sign > 0 else (low - 2 * step, high + 7 * step))
    axes.set_xlim(1 - 0.02 * len(points), 1 + 1.13 * max(len(points) - 1, 1))
    if band:
        _draw_band(axes, band, len(points))
    _draw_points(axes, points, sign)
    line = _step_line(path, len(points))
    axes.plot(*columns(line), color=KEPT, linewidth=1.6, zorder=4)
    gains = [math.inf, *(abs(now.y - last.y) for last, now in pairwise(path))]
    ranked = sorted(zip(gains, path, strict=False), key=lambda pair: (pair[1] is not path[-1], -pair[0]))
    seen = [(point.x, point.y) for point in points if point.y is not None and abs(point.y) < MAX_DRAWN]
    label(axes, [(best.x, best.y, best.label) for _, best in ranked], seen + line, -sign)
    headline(axes, *_progress_title(track, points, path, metric))
    axes.set_xlabel("experiment", color=QUIET)
    better = "lower" if sign > 0 else "higher"
    axes.set_ylabel(f"{drawable(metric)} ({better} is better)", color=QUIET, parse_math=False)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick == int(tick) and 1 <= tick <= len(points)])
    legend(axes)
    save(figure, out)


def _point(x: int, card: Card, metric: str) -> Point:
    value, status = metric_value(card) if card["metric"] == metric else None, card["status"]
    kind = "retracted" if status == "retracted" else "crash" if value is None else "other"
    if status == "keep" and value is not None and not card["quarantined"]:
        kind = "keep"
    return Point(x, value, kind, card["hypothesis"] or card["id"][:8])


class Best(NamedTuple):
    """A kept result that was better than all kept before it."""

    x: int
    y: float
    label: str


def _running_best(points: Sequence[Point], sign: int) -> list[Best]:
    """The kept points that were better than all kept before; a value too large to draw is no best."""
    path: list[Best] = []
    for point in points:
        drawable = point.kind == "keep" and point.y is not None and abs(point.y) < MAX_DRAWN
        if drawable and point.y is not None and (not path or sign * (point.y - path[-1].y) < 0):
            path.append(Best(point.x, point.y, point.label))
    return path


def _step_line(path: Sequence[Best], count: int) -> list[tuple[float, float]]:
    """The running best as places along its line, dense enough to see what a text would cover."""
    line: list[tuple[float, float]] = []
    for last, now in pairwise([*path, *([Best(count, path[-1].y, "")] if path else [])]):
        shares = [step / 8 for step in range(9)]
        line += [(last.x + share * (now.x - last.x), last.y) for share in shares]
        line += [(now.x, last.y + share * (now.y - last.y)) for share in shares]
    return line


def _draw_band(axes: Axes, band: Sequence[tuple[float, float]], count: int) -> None:
    if len(band) != count:
        raise ValueError(f"the band has {len(band)} places for {count} experiments")
    # Before the first result nothing is known of a champion: no band there.
    known = [(m, sd) if abs(m) < MAX_DRAWN and sd < MAX_DRAWN else (math.nan, math.nan) for m, sd in band]
    low, high = ([mean + side * NORMAL_95 * sd for mean, sd in known] for side in (-1, 1))
    x = range(1, count + 1)
    axes.fill_between(x, low, high, step="post", color=KEPT, alpha=0.16, linewidth=0, label="champion, 95%", zorder=1)


def _draw_points(axes: Axes, points: Sequence[Point], sign: int) -> None:
    """The marks of all kinds; what is off the scale becomes an arrow at its edge, what has no value a cross."""
    size = min(6.5, max(2.2, 75 / math.sqrt(len(points))))
    looks: dict[str, dict[str, Any]] = {
        "keep": {"label": "kept", "color": KEPT, "marker": "o", "markersize": size, "zorder": 5},
        "other": {"label": "not kept", "color": FAINT, "marker": "o", "markersize": size * 0.8, "zorder": 2},
        "retracted": {"label": "retracted", "color": RETRACTED, "marker": "o", "markersize": size + 1, "zorder": 3,
                      "markerfacecolor": "none", "markeredgewidth": 1.2},
        "crash": {"label": "no result", "color": CRASHED, "marker": "x", "markersize": min(size, 5), "zorder": 3},
    }  # fmt: skip
    bottom, top = axes.get_ylim()

    def at(share: float) -> float:
        return bottom + share * (top - bottom)

    for kind, look in looks.items():
        mine = [point for point in points if point.kind == kind]
        if not mine:
            continue
        valued = [(point.x, point.y) for point in mine if point.y is not None]
        inside = [(x, y) for x, y in valued if bottom < y < top]
        worst = [(point.x, at(0.985 if sign > 0 else 0.015)) for point in mine if point.y is None]
        axes.plot(*columns(inside + worst), linestyle="none", **look)
        if kind == "retracted":
            axes.plot(*columns(inside + worst), linestyle="none", marker=(2, 2, 45), markersize=size + 6,
                      color=RETRACTED, markeredgewidth=1.2, zorder=3)  # fmt: skip
        colour = QUIET if kind == "other" else look["color"]
        above = [(x, at(0.955)) for x, y in valued if y >= top]
        below = [(x, at(0.045)) for x, y in valued if y <= bottom]
        for marker, off in (("^", above), ("v", below)):
            axes.plot(*columns(off), linestyle="none", marker=marker, markersize=5, color=colour, zorder=3)


def _progress_title(track: str | None, points: Sequence[Point], path: Sequence[Best], metric: str) -> tuple[str, str]:
    keeps, crashes = (sum(point.kind == kind for point in points) for kind in ("keep", "crash"))
    parts = [counted(len(points), "run"), f"{keeps:,} kept", f"{crashes:,} without a result"]
    if path:
        first, best = path[0].y, path[-1].y
        change = f" ({(best - first) / abs(first):+.2%})" if first and abs((best - first) / first) < 100 else ""
        parts.append(f"{one_line(metric, 30)} {number(first)} → {number(best)}{change}")
    return track or "runs of no track", " · ".join(parts)
