"""A quiet picture to draw on: its axes, words and legend, labels that cover nothing, a file whole or not at all.

    figure, axes = new_figure(out)
    axes.plot(...)
    label(axes, [(x, y, text)], points, up=1)
    headline(axes, "Coverage", "12 runs")
    save(figure, out)

What agents wrote is drawn as plain text: no mathematics, no control characters, □ for what the font lacks. matplotlib
is imported when a picture is made. Not covered: what is drawn (`lab/plots.py`).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.brief import one_line
from lab.errors import SettingError
from lab.store import replace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES, DOTS_PER_INCH = (12.8, 7.2), 125
MAX_LABELS = 18
MAX_LABEL_CHARACTERS = 32
MAX_COVERED_POINTS = 4  # by one label; a label that would cover more is left out
LABEL_POINTS = 9.0  # font size
LABEL_DEGREES = 35.0
FENCE_IQR = 10.0  # further from the quartiles than this many interquartile ranges is off the scale
MIN_IQR_RELATIVE = 0.005  # of the median: near-equal values must not push their neighbours off the scale
MAX_DRAWN = 1e100  # beyond it the arithmetic of a scale overflows

INK, QUIET, FAINT, PALE = "#22272e", "#6b7480", "#c3c8ce", "#e6e8eb"
KEPT, CRASHED, RETRACTED = "#17795e", "#c2513f", "#8a6d3b"


def new_figure(out: Path, left: float = 0.075) -> tuple[Figure, Axes]:
    """A picture with one pair of quiet axes; SettingError where `out` is no file that a picture can go to."""
    if out.suffix not in (".png", ".svg"):
        raise SettingError(f"--out {out} ends in {out.suffix or 'nothing'}; name a file that ends in .png or .svg")
    if not out.parent.is_dir():
        raise SettingError(f"--out {out}: there is no folder {out.parent}; make it first")
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, facecolor="white")
    return figure, quietened(figure.add_axes((left, 0.085, 0.985 - left, 0.79)))


def quietened(axes: Axes) -> Axes:
    """The axes, drawn so that what they hold stands out; ticks say the whole number."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=QUIET, labelsize=10)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
    return axes


def headline(axes: Axes, title: str, facts: str) -> None:
    """What the picture shows, and below it the facts in a line."""
    axes.text(0, 1.115, drawable(title, 90), transform=axes.transAxes, fontsize=15, weight="bold", color=INK,
              parse_math=False)  # fmt: skip
    axes.text(0, 1.068, drawable(facts, 200), transform=axes.transAxes, fontsize=10.5, color=QUIET, parse_math=False)


def legend(axes: Axes) -> None:
    """One quiet row over the axes at the right: what marks are there."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.01), ncols=6, frameon=False, fontsize=10, labelcolor=QUIET,
                handletextpad=0.3, columnspacing=1.4, borderaxespad=0.0, numpoints=1)  # fmt: skip


def label(
    axes: Axes, texts: Sequence[tuple[float, float, str]], points: Sequence[tuple[float, float]], up: int
) -> list[str]:
    """Write slanted texts at their places (x, y, text), the first ones first, where they cover no other; those written.

    `up` is the side to prefer (1 up, -1 down). Each text starts or ends at its place, on the side and in the direction
    that cover the fewest of `points`, inside the picture; where there is no room it is left out.
    """
    import numpy
    from matplotlib.patheffects import withStroke

    pixels = axes.transData.transform(numpy.array(points or [(0.0, 0.0)], dtype=float))
    em = LABEL_POINTS * DOTS_PER_INCH / 72
    right = SIZE_INCHES[0] * DOTS_PER_INCH
    # The edge on the other side than the preferred one is where crashes and outliers are marked.
    low, high = axes.bbox.y0 + (3 * em if up > 0 else 0), axes.bbox.y1 - (3 * em if up < 0 else 0)
    taken: list[Any] = []
    written: list[str] = []
    for x, y, text in texts[: 4 * MAX_LABELS]:
        words = drawable(text, MAX_LABEL_CHARACTERS)
        start, length = axes.transData.transform((x, y)), 0.56 * em * len(words) + em
        choices = []
        for side, ahead in ((up, 1), (-up, 1), (up, -1), (-up, -1)):
            angle = math.radians(LABEL_DEGREES)
            along = numpy.array([ahead * math.cos(angle), side * math.sin(angle)])
            across = numpy.array([-along[1], along[0]])
            # Each text as dots along its middle: two texts clash where dots come closer than a line's height.
            dots = start + numpy.outer(numpy.arange(0.7 * em, length, 0.7 * em), along)
            clash = any(numpy.hypot(*(dots[:, None] - other[None]).T).min() < 1.35 * em for other in taken)
            off = pixels - start
            covered = (numpy.abs(off @ across) < 0.7 * em) & (off @ along > 0.6 * em) & (off @ along < length)
            fits = axes.bbox.x0 < dots[-1][0] < right and low < dots[-1][1] < high
            if fits and not clash and (covered.sum() <= MAX_COVERED_POINTS or not taken):
                choices.append((int(covered.sum()) + (side != up) + 2 * (ahead < 0), side, ahead, dots))
        if not choices:
            continue
        _, side, ahead, dots = min(choices, key=lambda choice: choice[0])
        taken.append(dots)
        axes.annotate(words, (x, y), (4 * ahead, 4 * side), textcoords="offset points", rotation_mode="anchor",
                      rotation=side * ahead * LABEL_DEGREES, ha="left" if ahead > 0 else "right", va="center", zorder=6,
                      fontsize=LABEL_POINTS, color=INK, parse_math=False,
                      path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip
        written.append(words)
        if len(written) == MAX_LABELS:
            break
    return written


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """The characters of the font that matplotlib brings along."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))).get_charmap())


def drawable(text: str, length: int = 60) -> str:
    """Untrusted text on one line, □ for a run of characters that the font lacks."""
    return re.sub("□+", "□", "".join(c if ord(c) in _glyphs() else "□" for c in one_line(text, length)))


def save(figure: Figure, out: Path) -> None:
    """Write the picture whole, without a date and with names that depend on nothing but the picture."""
    import matplotlib

    buffer = io.BytesIO()
    matplotlib.rcParams["svg.hashsalt"] = "autoresearch-commons"
    metadata = {"Date": None} if out.suffix == ".svg" else {"Software": None}
    figure.savefig(buffer, format=out.suffix[1:], dpi=DOTS_PER_INCH, metadata=metadata)
    replace(out, buffer.getvalue())


def limits(values: Sequence[float]) -> tuple[float, float]:
    """The scale that shows all but what is far out of the ordinary; (0, 1) where nothing can be shown."""
    ordered = sorted(value for value in values if abs(value) < MAX_DRAWN)
    if not ordered:
        return 0.0, 1.0
    last = len(ordered) - 1
    first_quartile, median, third_quartile = (ordered[int(share * last)] for share in (0.25, 0.5, 0.75))
    fence = FENCE_IQR * max(third_quartile - first_quartile, MIN_IQR_RELATIVE * abs(median))
    core = [value for value in ordered if not fence or first_quartile - fence <= value <= third_quartile + fence]
    low, high = core[0], core[-1]
    pad = max(abs(low), abs(high)) * 1e-3 or 1.0
    return (low, high) if high - low > pad * 1e-3 else (low - pad, high + pad)


def columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Pairs as matplotlib takes them: all x, all y."""
    return [x for x, _ in pairs], [y for _, y in pairs]
