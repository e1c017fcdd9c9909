"""Does the loss of a run leave what its track has seen of runs that finished? Pure.

    envelope = envelope_of([Past([(1, 0.3, 9.01), ...], kept=True), ...])      # the track's finished runs
    envelope.lost([(1, 0.3, 9.02), ..., (240, 62.0, 7.9)])                     # why this one is lost, or None

The budget is cut into twenty slots, and the median of a slot's losses is compared with those of the finished runs in
the same slot. A run is lost where three slots on end, none in the first quarter, lie above the worst of them by a
margin. The margin is several spreads of those runs (median absolute deviation, Hampel 1974), and never less than a
quarter of the way that they had come down by then. So it has no unit: it fits any loss that falls. Where training does
not lower the loss, there is no envelope.

Two things keep it honest. A run that finished though it was lost must not widen the envelope for all after it: of the
runs that were not kept those far from the middle one are left out. And an edit may change what its loss measures (an
auxiliary term, another scale): it is not lost while it has come down as far as the others did, wherever it started.

Not covered: a run that hangs (it has no losses: the time limit ends it), and one that is merely worse, which finishes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lab.stats import median

Point = tuple[int, float, float]  # step, seconds into training, loss

SLOTS = 20  # of the budget: losses are smoothed over a slot
FIRST_SLOT = 5  # the first that is judged: in the first quarter a loss may do anything
LASTING_SLOTS = 3  # on end that a run must be outside
MIN_RUNS = 5  # that finished, before there is an envelope
MARGIN_SPREADS = 6.0  # robust standard deviations between the runs
MARGIN_SHARE = 0.25  # of the way down that the runs have come
SD_PER_MAD = 1.4826  # of a normal distribution


class Past(NamedTuple):
    """A run that finished: its losses in the order of time, and whether it was kept."""

    points: Sequence[Point]
    kept: bool


class Bar(NamedTuple):
    """What `runs` finished runs had in a slot: the worst loss, the least way down, and the margin, in units of loss."""

    runs: int
    worst: float
    least: float
    margin: float


class Envelope(NamedTuple):
    """What a track's runs had by slot of the budget; `by_steps` where that is steps, else it is seconds.

    Without bars only a loss that is no number is told.
    """

    budget: float = 0.0
    by_steps: bool = False
    bars: tuple[Bar | None, ...] = ()

    def lost(self, points: Sequence[Point]) -> str | None:
        """Why a run with these losses so far cannot end well, in one line; None where it may."""
        if len(points) >= 2 and not any(math.isfinite(loss) for *_, loss in points[-2:]):
            return f"diverged: loss is not a number at step {points[-2][0]}"
        start = _start(points)
        if start is None or not self.bars:
            return None
        smoothed = _smoothed(points, self.budget, self.by_steps)
        judged = list(smoothed)[-LASTING_SLOTS - 1 : -1]  # the last slot may be half full
        if len(judged) < LASTING_SLOTS or judged[0] < FIRST_SLOT:
            return None
        for slot in judged:
            bar = self.bars[slot]
            if bar is None or smoothed[slot] <= max(bar.worst, start - bar.least) + bar.margin:
                return None
        assert bar is not None
        end = self.budget * (slot + 1) / SLOTS
        place = f"step {end:.0f}" if self.by_steps else f"{end:.1f} s"
        return (
            f"diverged: smoothed loss {smoothed[slot]:.2f} at {place}; "
            f"the worst of {bar.runs} runs had {bar.worst:.2f} there, {bar.margin:.2f} of margin"
        )


def envelope_of(runs: Sequence[Past]) -> Envelope:
    """The envelope of runs that finished, at least MIN_RUNS with losses; without bars where there are fewer."""
    runs = [run for run in runs if _start(run.points) is not None]
    if len(runs) < MIN_RUNS:
        return Envelope()
    steps, seconds = ([run.points[-1][at] for run in runs] for at in (0, 1))
    by_steps = steps.count(median(steps)) * 2 > len(runs)  # as many steps: they, not the seconds, are the budget
    budget = median(steps if by_steps else seconds)
    if budget <= 0:
        return Envelope()
    curves = [_smoothed(run.points, budget, by_steps) for run in runs]
    return Envelope(budget, by_steps, tuple(_bar(slot, runs, curves) for slot in range(SLOTS)))


def _bar(slot: int, runs: Sequence[Past], curves: Sequence[dict[int, float]]) -> Bar | None:
    """The bar of a slot; None where too few runs have losses in it, or they have not come down."""
    there = [
        (curve[slot], (_start(run.points) or 0.0) - curve[slot], run.kept)
        for run, curve in zip(runs, curves, strict=True)
        if slot in curve
    ]
    if len(there) < MIN_RUNS:
        return None
    middle, way = median([loss for loss, _, _ in there]), median([down for _, down, _ in there])
    if way <= 0:
        return None
    spread = SD_PER_MAD * median([abs(loss - middle) for loss, _, _ in there])
    margin = max(MARGIN_SPREADS * spread, MARGIN_SHARE * way)
    counted = [(loss, down) for loss, down, kept in there if kept or loss <= middle + margin]
    return Bar(len(counted), max(loss for loss, _ in counted), min(down for _, down in counted), margin)


def _start(points: Sequence[Point]) -> float | None:
    """The first loss that is a number."""
    return next((loss for *_, loss in points if math.isfinite(loss)), None)


def _smoothed(points: Sequence[Point], budget: float, by_steps: bool) -> dict[int, float]:
    """{slot: median of its losses}, the slots in order; those without a loss that is a number are not there."""
    slots: dict[int, list[float]] = {}
    for step, seconds, loss in points:
        if math.isfinite(loss):
            share = (step if by_steps else seconds) / budget
            slots.setdefault(min(max(int(share * SLOTS), 0), SLOTS - 1), []).append(loss)
    return {slot: median(slots[slot]) for slot in sorted(slots)}
