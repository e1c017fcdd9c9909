"""The picture of an audit: the best kept result as claimed and as believed, and below how far the two are apart.

    plot_audit(found, Path("progress.png"))        # `found` as `lab.audit.audit` gives it

What is believed of a moment's champion is what all runs say of it, the later ones too. Not covered: the words of the
audit (`lab/audit_text.py`).
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.brief import counted, signed
from lab.canvas import (
    CRASHED,
    FAINT,
    INK,
    KEPT,
    MAX_DRAWN,
    QUIET,
    columns,
    drawable,
    headline,
    label,
    legend,
    limits,
    new_figure,
    quietened,
    save,
)
from lab.stats import NORMAL_95

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UPPER, LOWER = (0.075, 0.315, 0.91, 0.56), (0.075, 0.085, 0.91, 0.185)
MAX_IDEAS = 9  # of the largest claims are named
COLOURS = {"supported": KEPT, "doubtful": "#c9a227", "noise": CRASHED, None: QUIET}
WORDS = {"noise": "within noise", None: "kept"}


def drawable_path(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The running best without what is too large to be drawn; without one there is no picture."""
    return [best for best in found["path"] if abs(best["claimed"]) < MAX_DRAWN]


def plot_audit(found: dict[str, Any], out: Path) -> None:
    """Draw it; there must be a kept result. SettingError where no picture can be written to `out`."""
    figure, frame = new_figure(out)
    frame.set_axis_off()
    axes = quietened(figure.add_axes(UPPER))
    sign = -1 if found["direction"] == "max" else 1
    rows = [
        (at, value) for at, (_, _, value) in enumerate(found["rows"], 1) if value is not None and abs(value) < MAX_DRAWN
    ]
    path = drawable_path(found)
    low, high = limits([value for _, value in rows])
    step = (high - low) * 0.05
    axes.set_ylim((low - 2 * step, high + step) if sign > 0 else (low - step, high + 2 * step))
    axes.set_xlim(1 - 0.02 * len(found["rows"]), 1 + 1.06 * max(len(found["rows"]) - 1, 1))
    kept = {best["place"] for best in path}
    axes.plot(
        *columns([row for row in rows if row[0] not in kept]),
        "o",
        color=FAINT,
        markersize=3,
        zorder=2,
        label="not kept",
    )
    _steps(axes, found, path)
    for standing, colour in COLOURS.items():
        lines = {keep["line"] for keep in found["keeps"] if keep["standing"] == standing}
        mine = [(best["place"], best["claimed"]) for best in path if best["line"] in lines]
        if mine:
            axes.plot(*columns(mine), "o", color=colour, markersize=6.5, zorder=5, label=WORDS.get(standing, standing))
    gains = [math.inf, *(abs(now["claimed"] - last["claimed"]) for last, now in pairwise(path))]
    ranked = sorted(zip(gains, path, strict=False), key=lambda pair: -pair[0])
    places = [(best["place"], best["claimed"], best["idea"] or "") for _, best in ranked[1:] if best["idea"]]
    label(axes, places[:MAX_IDEAS], rows + _line(path, len(found["rows"])), sign)
    better = "lower" if sign > 0 else "higher"
    axes.set_ylabel(f"{drawable(found['metric'], 24)} ({better} is better)", color=QUIET, parse_math=False)
    headline(frame, f"Audit of {found['file']}", _facts(found))
    legend(axes)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick == int(tick) and 1 <= tick <= len(found["rows"])])
    if any(best["believed"] is not None for best in path):
        axes.tick_params(labelbottom=False)
        _apart(quietened(figure.add_axes(LOWER, sharex=axes)), path, len(found["rows"]), sign)
    else:
        axes.set_xlabel("experiment", color=QUIET)
    save(figure, out)


def _steps(axes: Axes, found: dict[str, Any], path: list[dict[str, Any]]) -> None:
    """The running best as claimed, and as believed with its band."""
    x = [best["place"] for best in path] + [len(found["rows"])]
    claimed = [best["claimed"] for best in path]
    axes.plot(x, [*claimed, claimed[-1]], drawstyle="steps-post", color=INK, linewidth=1.1, zorder=4, label="claimed")
    if all(best["believed"] is not None for best in path):
        believed, sd = ([best[name] for best in path] for name in ("believed", "sd"))
        believed, sd = [*believed, believed[-1]], [*sd, sd[-1]]
        axes.plot(x, believed, drawstyle="steps-post", color=KEPT, linewidth=1.6, zorder=3, label="believed, 95%")
        _band(axes, x, believed, sd)


def _band(axes: Axes, x: list[int], middle: list[float], sd: list[float]) -> None:
    low = [mean - NORMAL_95 * spread for mean, spread in zip(middle, sd, strict=True)]
    high = [mean + NORMAL_95 * spread for mean, spread in zip(middle, sd, strict=True)]
    axes.fill_between(x, low, high, step="post", color=KEPT, alpha=0.16, linewidth=0, zorder=1)


def _line(path: list[dict[str, Any]], count: int) -> list[tuple[float, float]]:
    """Places along the claimed line, dense enough to see what a text would cover."""
    ends = [*(best["place"] for best in path[1:]), count]
    return [
        (best["place"] + eighth / 8 * (end - best["place"]), best["claimed"])
        for best, end in zip(path, ends, strict=True)
        for eighth in range(9)
    ]


def _apart(axes: Axes, path: list[dict[str, Any]], count: int, sign: int) -> None:
    """Believed minus claimed along the same experiments: where it leaves zero, luck was booked as progress."""
    x = [best["place"] for best in path] + [count]
    apart = [best["believed"] - best["claimed"] for best in path]
    sd = [best["sd"] for best in path]
    axes.axhline(0, color=INK, linewidth=1.1, zorder=2)
    axes.plot(x, [*apart, apart[-1]], drawstyle="steps-post", color=KEPT, linewidth=1.6, zorder=3)
    _band(axes, x, [*apart, apart[-1]], [*sd, sd[-1]])
    side = "above" if sign > 0 else "below"
    words = f"believed minus claimed: {side} the line, less was gained than claimed"
    axes.text(0, 1.06, words, transform=axes.transAxes, color=QUIET, fontsize=10)
    axes.set_xlabel("experiment", color=QUIET)


def _facts(found: dict[str, Any]) -> str:
    total, standings, noise = found["total"], found["standings"], found["noise"]["sd"]
    parts = [counted(sum(found["runs"].values()), "run")]
    if standings:
        told = ", ".join(f"{count} {WORDS.get(name, name)}" for name, count in standings.items())
        parts.append(f"{counted(len(found['keeps']), 'keep')}: {told}")
    parts.append("noise unknown" if noise is None else f"noise between repeats {noise:.2g}")
    if total and total["expected"] is not None:
        parts.append(f"claimed {signed(total['claimed'])}, truly about {signed(total['expected'])}")
    return " · ".join(parts)
