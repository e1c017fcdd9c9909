"""One experiment: sort lists in plain Python and report the speedup over a plain merge sort (higher is better).

    uv run --project . examples/sorting/sort.py      in the root; leaves a card in examples/sorting/knowledge

This is the file to edit: the constants and the algorithm. sorted() and list.sort() are not allowed, nor threads,
processes or other libraries. What makes runs comparable (lists, clock, metric) is measure.py.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # before the rest, so that a run that dies in its first second leaves a card too
    sys.path.append(str(Path(__file__).resolve().parents[2]))  # lab/ is in the root of the repository
    from lab import recorder
    from lab.decide import packet

    run = recorder.start(__file__)

import time

import measure

# Constants: every upper-case name here is recorded in the card

SEED = measure.seed()  # of the lists
RUN = 4  # elements that are sorted by insertion before runs are merged
SKIP_ORDERED = False  # join two runs without merging where the first ends below the start of the second


def insertion(values: list[int], start: int, stop: int) -> None:
    """Sort values[start:stop] in place."""
    for i in range(start + 1, stop):
        value, j = values[i], i
        while j > start and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value


def merge(left: list[int], right: list[int]) -> list[int]:
    """Two sorted lists as one."""
    if SKIP_ORDERED and left[-1] <= right[0]:
        return left + right
    merged, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if right[j] < left[i]:
            merged.append(right[j])
            j += 1
        else:
            merged.append(left[i])
            i += 1
    return merged + left[i:] + right[j:]


def sort(values: list[int]) -> list[int]:
    """The values in rising order: runs of RUN by insertion, then merged in pairs until one is left."""
    for start in range(0, len(values), RUN):
        insertion(values, start, min(start + RUN, len(values)))
    runs = [values[start : start + RUN] for start in range(0, len(values), RUN)]
    while len(runs) > 1:
        odd = runs[len(runs) // 2 * 2 :]
        runs = [merge(runs[i], runs[i + 1]) for i in range(0, len(runs) - 1, 2)] + odd
    return runs[0]


def main() -> None:
    """Run the experiment and record it."""
    began = time.perf_counter()
    constants = {n: v for n, v in globals().items() if n.isupper() and isinstance(v, (bool, int, float, str))}
    run.update(metric=measure.METRIC, direction=measure.DIRECTION, seed=SEED, config=constants)
    run.update(platform=measure.machine(), track=measure.track())
    run.phase("evaluate")
    speed = measure.speed(sort)
    run.phase("record")
    results = {measure.METRIC: speed.speedup, "melements_per_second": speed.melements_per_second}
    card = run.finish(results | {"num_steps": speed.rounds, "total_seconds": time.perf_counter() - began})
    print("---")
    print(f"{measure.METRIC}:              {speed.speedup:.6f}")
    print(f"melements_per_second: {speed.melements_per_second:.3f}")
    print(f"rounds:               {speed.rounds}")
    print(f"card:                 {card['id']} {card['status']}: {card['decision']['reason']}")
    print("\n".join(packet(card)[1:]))


if __name__ == "__main__":
    main()
