"""Does ending lost runs early end any that would have been kept? Every run of a history against those before it.

    uv run bench/bench_envelope.py                             simulated nights, their loss curves made up
    uv run bench/bench_envelope.py --knowledge knowledge       the recorded curves of a commons, track by track
    uv run bench/bench_envelope.py --quick                     one short night: that it works

A run is watched as `lab.losses.lookout` does: every second, or at every recorded point, by the envelope of the runs
that finished before it; one that is ended leaves no finished curve. Columns: runs; kept; kept runs that it ended (the
target is none, else the exit code is 1); other runs that it ended though they were not lost; how many were lost, the
share of them that was ended, and the share of the time spent on them that this saved. A recorded run is lost where it
diverged, or ended worse than its track's first kept result by a tenth. A recorded night is one order out of many: it is
replayed in `--orders` random ones too. "sharpest" is the least margin, as a share of MARGIN_SHARE's, that would have
ended no kept run: how far the rule is from harm.
Not covered: whether made-up curves look like those of the next track.
"""

import argparse
import math
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from lab import envelope
from lab.envelope import Past, Point, envelope_of
from lab.facts import tracks_of
from lab.index import Index
from lab.judgement import RECENT
from lab.outcome import thin
from lab.schema import finite, metric_value
from lab.stats import gain

START = math.log(8192)
LOST_SHARE = 0.1  # worse than the baseline: what a recorded run must be to count as lost
SHARPER = (1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1)


class Run(NamedTuple):
    """A run as it went on: its losses, whether it was kept, and whether nothing could have come of it."""

    points: Sequence[Point]
    kept: bool
    lost: bool


class Told(NamedTuple):
    """What came of a replay: counts of runs, and the seconds spent on lost runs with and without an envelope."""

    runs: int = 0
    kept: int = 0
    keeps_ended: int = 0
    others_ended: int = 0
    lost: int = 0
    lost_ended: int = 0
    seconds: float = 0.0
    saved: float = 0.0

    def __add__(self, other: tuple) -> "Told":  # type: ignore[override]
        """The sum of both."""
        return Told(*(one + two for one, two in zip(self, other, strict=True)))


def replay(runs: Sequence[Run]) -> Told:
    """Every run against the envelope of those before it."""
    past: list[Past] = []
    told = Told()
    for run in runs:
        known = envelope_of(past[-RECENT:])
        ended = next((end for end in range(1, len(run.points) + 1) if known.lost(run.points[:end])), None)
        seconds = run.points[-1][1]
        saved = seconds - run.points[ended - 1][1] if ended else 0.0
        told += Told(
            1, run.kept, bool(ended) and run.kept, bool(ended) and not run.kept and not run.lost, run.lost,
            bool(ended) and run.lost, seconds * run.lost, saved * run.lost,
        )  # fmt: skip
        if (not ended or run.kept) and math.isfinite(run.points[-1][2]):
            curve = [(step, at, math.nan if loss is None else loss) for step, at, loss in thin(list(run.points))]
            past.append(Past(curve, run.kept))
    return told


# What an edit does to a curve: (share of the budget, ordinary loss there) -> loss.
Bend = Callable[[float, float], float]


def straight(share: float, loss: float) -> float:
    """What an edit does that does nothing of the kind."""
    return loss


def learning(share: float, speed: float = 1.0, floor: float = 2.7) -> float:
    """An ordinary loss at a share of the budget: a power law, and what the falling rate adds in the second half."""
    steps = 1000 * share * speed
    return floor + 0.2 * (share < 0.5 or 2 * (1 - share)) + (START - floor - 0.2) * (1 + steps / 4) ** -0.6


def fine(chance: random.Random) -> tuple[float, float, Bend]:
    """(speed, floor, bend) of an edit that trains: most hardly differ, some look bad for long and end well."""
    floor, place, speed = 2.7 + chance.gauss(0.005, 0.02), chance.random(), chance.lognormvariate(0, 0.2)
    at, high, long = chance.uniform(0, 0.8), chance.uniform(0.5, 5), chance.uniform(0.05, 0.2)
    if place < 0.10:  # a larger model: few steps, good ones
        return chance.uniform(0.15, 0.5), floor - 0.05, straight
    if place < 0.20:  # a rate too high at first: up, and down again
        return speed, floor, lambda share, loss: loss + high * math.exp(-share / long)
    if place < 0.25:  # a spike on the way
        return speed, floor, lambda share, loss: loss + (high if at < share < at + 0.06 else 0)
    if place < 0.30:  # the loss has another term
        return speed, floor, lambda share, loss: loss + 0.3 * high
    if place < 0.35:  # or another scale
        return speed, floor, lambda share, loss: loss * high
    if place < 0.42:  # a warm-up over the first half
        return speed, floor, lambda share, loss: learning(min(share, share * share * 2), speed, floor)
    return speed, floor, straight


def lost(chance: random.Random) -> Bend:
    """An edit that ruins the run: a rate too high, from the start or late, or a loss that is no number."""
    level, at, place = chance.uniform(5.5, 10), chance.uniform(0.05, 0.9), chance.random()
    if place < 0.4:
        return lambda share, loss: max(loss, level - 0.5 * share)
    if place < 0.7:
        return lambda share, loss: loss if share < at else min(loss + 60 * (share - at), level)
    if place < 0.8:
        return lambda share, loss: START
    return lambda share, loss: loss if share < at else math.nan


def night(chance: random.Random, runs: int, budget: float) -> list[Run]:
    """A night: a baseline, then edits; kept where the end of it, without what the edit measures anew, is the best."""
    best, made = math.inf, []
    for number in range(runs):
        ruined = number > 0 and chance.random() < 0.12
        speed, floor, bend = (1.0, 2.7, straight) if number == 0 or ruined else fine(chance)
        if ruined:
            bend = lost(chance)
        noise, ends = chance.uniform(0.02, 0.1), learning(1, speed, floor) + chance.gauss(0, 0.002)
        kept = not ruined and ends < best
        best = ends if kept else best
        points = []
        for tick in range(int(budget) + 1):
            loss = bend(tick / budget, learning(tick / budget, speed, floor)) + chance.gauss(0, noise)
            points.append((round(1000 * speed * tick / budget) + 1, float(tick), loss))
        made.append(Run(points, kept, ruined))
    return made


def recorded(knowledge: Path, track: str) -> list[Run]:
    """The runs of a track whose curve is known, oldest first."""
    with Index(knowledge) as index:
        ids = index.rows("SELECT id FROM cards WHERE track = ? ORDER BY timestamp, id", track)
        cards = [index.read(row["id"]) for row in ids]
    first = next((value for card in cards if card["status"] == "keep" and (value := metric_value(card))), None)
    made = []
    for card in cards:
        curve = card["results"]["loss_curve"]
        value, error = metric_value(card), card["error"] or {}
        if not curve or (value is None and error.get("kind") != "diverged"):
            continue
        worse = value is None or (
            first is not None and gain(value - first, card["direction"]) < -LOST_SHARE * abs(first)
        )
        points = [(step, at, math.nan if finite(loss) is None else loss) for step, at, loss in curve]
        made.append(Run(points, card["status"] == "keep", worse))
    return made


def row(name: str, told: Told) -> str:
    """A line of the table."""
    share = f"{told.lost_ended / told.lost:.0%}" if told.lost else "-"
    saved = f"{told.saved / 60:.1f} of {told.seconds / 60:.1f} min" if told.lost else "-"
    return (
        f"{name[-44:]:<44} {told.runs:>6} {told.kept:>5} {told.keeps_ended:>11} {told.others_ended:>12} "
        f"{told.lost:>5} {share:>6} {saved}"
    )


def measured(name: str, nights: Sequence[Sequence[Run]], sharper: bool) -> int:
    """Print what came of the nights, with `sharper` also under smaller margins; kept runs that were ended."""
    told = sum(map(replay, nights), Told())
    print(row(name, told), flush=True)
    if sharper:
        usual, harmless = envelope.MARGIN_SHARE, None
        for share in SHARPER:
            envelope.MARGIN_SHARE = usual * share
            if sum(map(replay, nights), Told()).keeps_ended:
                break
            harmless = share
        envelope.MARGIN_SHARE = usual
        print(f"{'':<44} sharpest: {'none' if harmless is None else f'{harmless:g}'}", flush=True)
    return told.keeps_ended


def main() -> int:
    """Replay and print; 1 where a kept run was ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--knowledge", type=Path, help="a commons: replay its recorded curves")
    parser.add_argument("--orders", type=int, default=20, help="random orders of each recorded track (default 20)")
    parser.add_argument("--nights", type=int, default=20, help="simulated nights (default 20)")
    parser.add_argument("--runs", type=int, default=100, help="runs of a simulated night (default 100)")
    parser.add_argument("--sharper", action="store_true", help="try smaller margins too")
    parser.add_argument("--quick", action="store_true", help="one night of 30 runs")
    args = parser.parse_args()
    print(
        f"{'history':<44} {'runs':>6} {'kept':>5} {'kept, ended':>11} "
        f"{'other, ended':>12} {'lost':>5} {'ended':>6} saved"
    )
    ended = 0
    if args.knowledge:
        with Index(args.knowledge) as index:
            tracks = [one["track"] for one in tracks_of(index)]
        for track in tracks:
            runs = recorded(args.knowledge, track)
            if runs:
                ended += measured(track, [runs], False)
                orders = [random.Random(seed).sample(runs, len(runs)) for seed in range(args.orders)]
                ended += measured(f"  the same in {args.orders} orders", orders, args.sharper)
        return int(ended > 0)
    nights, runs = (1, 30) if args.quick else (args.nights, args.runs)
    for budget in (300, 20):
        made = [night(random.Random(f"{budget}/{number}"), runs, budget) for number in range(nights)]
        ended += measured(f"{nights} x {runs} runs of {budget} s", made, args.sharper)
    return int(ended > 0)


if __name__ == "__main__":
    sys.exit(main())
