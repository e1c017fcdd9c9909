"""What makes runs of sort.py comparable: the lists, the clock and the metric. Frozen for agents.

    speed = measure.speed(sort)               in a run of sort.py

The metric is `speedup`, higher is better: the CPU time of a plain merge sort over that of `sort`. Each round times the
two one after the other on every list, and the metric is the median of the rounds: what else the machine does slows
both, so the ratio of two runs agrees to half a percent where elements per second are off by a quarter.
Not covered: threads and processes (their time is not counted, so they are not allowed).
"""

import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from lab.errors import LabError, SettingError

METRIC, DIRECTION = "speedup", "max"
LENGTH = 2000  # elements of a list
TIME_BUDGET_SECONDS = 2.0
MIN_ROUNDS = 3  # however slow the sort is

Sort = Callable[[list[int]], list[int]]


class WrongOrderError(LabError):
    """The sort did not sort: the run is a crash, however fast it was."""


class Speed(NamedTuple):
    """The median speedup, millions of elements sorted a second of CPU time, and the rounds they come from."""

    speedup: float
    melements_per_second: float
    rounds: int


def seed() -> int:
    """$AUTORESEARCH_SEED (default 42), of the numbers in the lists. SettingError when it is no whole number."""
    return int(_setting("AUTORESEARCH_SEED", 42, int))


def budget() -> float:
    """$AUTORESEARCH_TIME_BUDGET, seconds (default 2). SettingError when it is no number above zero."""
    return _setting("AUTORESEARCH_TIME_BUDGET", TIME_BUDGET_SECONDS, float)


def _setting(name: str, default: float, kind: type[float]) -> float:
    text = os.environ.get(name) or str(default)
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not 0 < value < 2**63:
        raise SettingError(f"{name}={text}: give a number above zero, or unset it for the default of {default:g}")
    return value


def track() -> str:
    """What two runs must share to be compared; Python's version is part of it, because it decides the speed."""
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return f"sorting-n{LENGTH}-{budget():g}s-{python}/{platform.machine()}-{os.cpu_count()}c"


def machine() -> dict[str, Any]:
    """What the card says about the machine."""
    return {
        "device": "cpu",
        "device_name": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "framework": "cpu",
        "os": f"{platform.system()} {platform.machine()}",
    }


def lists(number: int) -> dict[str, list[int]]:
    """The lists to sort, by what is special about each; `number` is the seed."""
    rng = random.Random(number)
    shuffled = rng.sample(range(LENGTH * 10), LENGTH)
    nearly = sorted(shuffled)
    for _ in range(LENGTH // 50):
        a = rng.randrange(LENGTH - 1)
        nearly[a], nearly[a + 1] = nearly[a + 1], nearly[a]
    few = rng.choices(range(10), k=LENGTH)
    return {"shuffled": shuffled, "nearly sorted": nearly, "few values": few, "falling": sorted(shuffled)[::-1]}


def plain_sort(values: list[int]) -> list[int]:
    """What speedup 1.0 is: a merge sort without any trick."""
    runs = [[value] for value in values]
    while len(runs) > 1:
        pairs = zip(runs[::2], runs[1::2], strict=False)
        runs = [_plain_merge(left, right) for left, right in pairs] + runs[len(runs) // 2 * 2 :]
    return runs[0]


def _plain_merge(left: list[int], right: list[int]) -> list[int]:
    merged, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if right[j] < left[i]:
            merged.append(right[j])
            j += 1
        else:
            merged.append(left[i])
            i += 1
    return merged + left[i:] + right[j:]


def _timed(sort: Sort, values: list[int]) -> tuple[list[int], float]:
    """A sorted copy, and the seconds of CPU time it took."""
    fresh = values.copy()
    began = time.process_time()
    result = sort(fresh)
    return result, time.process_time() - began


def speed(sort: Sort) -> Speed:
    """How fast `sort` is, over as many rounds as fit into the budget. WrongOrderError when it does not sort."""
    inputs = lists(seed())
    ratios: list[float] = []
    seconds: list[float] = []
    ends = time.perf_counter() + budget()
    while len(ratios) < MIN_ROUNDS or time.perf_counter() < ends:
        ours = plain = 0.0
        for name, values in inputs.items():
            expected, plain_took = _timed(plain_sort, values)
            result, took = _timed(sort, values)
            if result != expected:
                raise WrongOrderError(f"the list {name!r} of seed {seed()} is not in order after sort(); mend sort.py")
            ours, plain = ours + took, plain + plain_took
        ratios.append(plain / ours)
        seconds.append(ours)
    rate = LENGTH * len(inputs) / statistics.median(seconds) / 1e6
    return Speed(statistics.median(ratios), rate, len(ratios))
