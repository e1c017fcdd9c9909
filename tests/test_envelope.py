"""Which runs are lost: by their losses alone, and against those of the runs that finished before them."""

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.envelope import MIN_RUNS, SLOTS, Envelope, Past, envelope_of

ROOT = Path(__file__).parent.parent
NAN = math.nan


def curve(start=9.0, end=3.0, ticks=40, seconds=100.0, bend=lambda share, loss: loss):
    """A straight way down, a point a tick, ten steps a tick; `bend` changes a loss given the share of the budget."""
    shares = [tick / ticks for tick in range(ticks + 1)]
    return [
        (round(10 * ticks * share) + 1, seconds * share, bend(share, start - (start - end) * share)) for share in shares
    ]


def past(*kept, **shape):
    """Five finished runs, a hundredth apart; `kept` are the numbers of those that were kept."""
    return [Past(curve(end=3.0 + number / 100, **shape), number in kept) for number in range(MIN_RUNS)]


def ended(envelope, points):
    """(seconds at which the run would be ended, why), or None."""
    told = ((points[at][1], envelope.lost(points[: at + 1])) for at in range(len(points)))
    return next(((seconds, why) for seconds, why in told if why), None)


@pytest.mark.parametrize("envelope", [Envelope(), envelope_of(past(0))], ids=["no history", "history"])
@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_a_loss_that_is_no_number_twice_is_the_end(envelope, bad):
    points = [(1, 0.1, 9.0), (40, 1.0, bad), (80, 2.0, bad)]
    assert envelope.lost(points) == "diverged: loss is not a number at step 40"
    assert envelope.lost(points[:2]) is None
    assert envelope.lost([*points[:2], (80, 2.0, 8.0)]) is None
    assert envelope.lost(points[1:]) == "diverged: loss is not a number at step 40"


def test_nothing_is_told_of_a_run_that_has_not_begun():
    assert envelope_of(past(0)).lost([]) is None


def test_a_loss_that_stays_high_is_lost():
    stuck = curve(bend=lambda share, loss: 8.5)
    assert ended(envelope_of(past(0)), stuck) == (
        40.0,  # three slots from the end of the first quarter: a loss in the next one shows that they are over
        "diverged: smoothed loss 8.50 at step 160; the worst of 5 runs had 6.84 there, 0.54 of margin",
    )


def test_a_track_of_steps_is_compared_by_steps():
    runs = [
        Past(curve(end=3.0 + number / 100, seconds=100.0 * (1 + number)), number == 0) for number in range(MIN_RUNS)
    ]
    envelope = envelope_of(runs)
    assert (envelope.by_steps, envelope.budget) == (True, 401)
    slow = curve(bend=lambda share, loss: 8.5, seconds=9000.0)
    assert ended(envelope, slow)[1].startswith("diverged: smoothed loss 8.50 at step 160; the worst of 5 runs had 6.8")


def test_a_track_of_seconds_is_compared_by_seconds():
    runs = [Past([(step * (9 + number), *rest) for step, *rest in curve()], False) for number in range(MIN_RUNS)]
    assert envelope_of(runs)[:2] == (100.0, False)
    _, why = ended(envelope_of(runs), curve(bend=lambda share, loss: 8.5))
    assert why == "diverged: smoothed loss 8.50 at 40.0 s; the worst of 5 runs had 6.83 there, 0.54 of margin"


@pytest.mark.parametrize(
    "bend",
    [
        lambda share, loss: loss + 0.7,  # merely worse
        lambda share, loss: loss + 6 * math.exp(-share / 0.1),  # a rate too high at first
        lambda share, loss: loss + (6 if 0.5 <= share < 0.599 else 0),  # two slots, no more
        lambda share, loss: loss * 1.5,  # another scale
        lambda share, loss: loss * 0.1,
        lambda share, loss: loss + 3.0,  # another term
        lambda share, loss: 9.0 if share < 0.25 else loss,
    ],
)
def test_what_may_end_well_is_not_lost(bend):
    assert ended(envelope_of(past(0)), curve(bend=bend)) is None


def test_a_run_that_rises_late_is_lost():
    seconds, _ = ended(envelope_of(past(0)), curve(bend=lambda share, loss: 8.0 if share > 0.7 else loss))
    assert 80 < seconds < 90


@pytest.mark.parametrize("bend", [lambda share, loss: 8.5, lambda share, loss: 1.5 * loss if share < 0.1 else 12.8])
def test_few_runs_tell_nothing(bend):
    assert envelope_of(past(0)[1:]) == Envelope()
    assert ended(envelope_of(past(0)[1:]), curve(bend=bend)) is None
    assert ended(envelope_of(past(0)), curve(bend=bend)) is not None


def test_runs_without_losses_do_not_count():
    assert envelope_of([*past(0)[1:], Past([], True), Past([(1, 0.0, NAN)], True)]) == Envelope()


@pytest.mark.parametrize("kept", [True, False])
def test_a_lost_run_that_finished_widens_nothing_unless_it_was_kept(kept):
    stuck = curve(bend=lambda share, loss: 8.5)
    assert (ended(envelope_of([*past(0), Past(stuck, kept)]), stuck) is None) == kept


def test_a_loss_that_does_not_fall_has_no_envelope():
    envelope = envelope_of([Past(curve(3.0, 9.0), True)] * MIN_RUNS)
    assert envelope.bars == (None,) * SLOTS
    assert ended(envelope, curve(bend=lambda share, loss: 99.0)) is None


def test_a_budget_of_nothing_has_no_envelope():
    assert envelope_of([Past([(step, 0.0, 9.0)], True) for step in range(-2, 3)]) == Envelope()


def test_a_slot_that_few_runs_reached_is_not_judged():
    runs = [Past([point for point in run.points if point[1] < 60 or point[1] == 100], run.kept) for run in past(0)]
    envelope = envelope_of(runs)
    assert [slot for slot, bar in enumerate(envelope.bars) if bar is None] == list(range(12, 19))


NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([NAN, math.inf])
POINTS = st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 1e4), NUMBERS), max_size=30)


@settings(max_examples=40)
@given(st.lists(st.builds(Past, POINTS, st.booleans()), max_size=8), POINTS)
def test_no_history_and_no_run_is_too_strange(runs, points):
    why = envelope_of(runs).lost(points)
    assert why is None or (why.startswith("diverged: ") and "\n" not in why)


def noisy(chance, start=9.0):
    """A finished run as they are: a way down with noise, spikes and stretches without a loss that is a number."""
    end, spike = chance.uniform(1, 9), chance.uniform(0, 1)
    bend = lambda share, loss: loss + chance.gauss(0, 0.5) + 9 * (spike < share < spike + 0.2)  # noqa: E731
    return Past(curve(start, end, bend=bend), chance.random() < 0.3)


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_no_kept_run_of_the_history_is_lost(seed):
    chance = random.Random(seed)
    runs = [noisy(chance) for _ in range(chance.randint(5, 12))]
    envelope = envelope_of(runs)
    assert [ended(envelope, run.points) for run in runs if run.kept] == [None for run in runs if run.kept]


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.floats(0.01, 100), st.floats(-100, 100))
def test_the_verdict_has_no_unit(seed, factor, shift):
    chance = random.Random(seed)
    runs, points = [noisy(chance) for _ in range(7)], noisy(chance).points

    def turned(points):
        return [(step, seconds, loss * factor + shift) for step, seconds, loss in points]

    before = ended(envelope_of(runs), points)
    after = ended(envelope_of([Past(turned(run.points), run.kept) for run in runs]), turned(points))
    assert (before and before[0]) == (after and after[0])


def test_the_bench_ends_no_run_that_was_kept():
    done = subprocess.run([sys.executable, ROOT / "bench/bench_envelope.py", "--quick"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3
