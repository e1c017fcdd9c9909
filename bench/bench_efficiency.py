"""Research efficiency at equal budget: who finds more in so many runs when only constants may be turned?

    uv run --extra hpo bench/bench_efficiency.py               20 nights of 80 runs each on both landscapes
    uv run --extra hpo bench/bench_efficiency.py --quick       that it works: 2 nights of 10 runs
    uv run --extra hpo bench/bench_efficiency.py --only hpo planner --landscape bent

Told is the share of the possible gain that the champion truly has after so many runs, repeats counted: median (lower
and upper quartile) over nights. Who searches: `random` and `hpo` (lab/hpo.py), `hill` (a constant by a step, larger
after each success, the other way and smaller after a failure, then the next constant), `planner` (lab/suggest.py), and
`both`, which takes turns of planner and hpo. Who decides: `greedy` keeps what measured smaller than the best so far;
`ours` keeps what is expected to be better, and repeats a run while that promises more than a new idea (lab/belief.py).

Two landscapes. `bowl` is that of bench_suggest.py: independent quadratics, which the planner assumes. `bent` is what
nobody here assumes: constants in pairs that depend on each other, responses that are steeper on one side and flatten
out, sizes that differ by orders. Their median and spread, the share that does nothing and the distance to the optima
make a step of half a width do what the 81 turned numbers of a real night on an H100 did: deciles of -0.6, -0.4, -0.3,
-0.2, 0.0, 0.1, 0.3, 0.5 and 0.9 thousandths, noise included (here -0.7, -0.4, -0.3, -0.1, 0.0, 0.2, 0.3, 0.5, 0.8).

Not covered: ideas in words, crashes, several workers, constants that are whole numbers.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
import bench_suggest
from bench_suggest import PRIOR, by_worth

from lab.hpo import moves
from lab.ranges import SPAN, Range
from lab.response import Scale
from lab.tree import believe

STOPS = (10, 20, 40, 80)
MOST_LOOKS = 4  # of one edit before it is kept or left, as in nights.py
NOTHING, SIZE, SPREAD = 0.25, 0.0003, 1.0  # of `bent`: share without effect, median size, sd of its logarithm
WIDTHS, DISTANCE = (0.15, 0.3, 0.6, 1.2), 1.0  # of a response, in logarithms of the value; sd of optima, in widths
BEND, FLAT, TOGETHER = 0.6, 16.0, 0.6  # skew of a response, its largest loss in sizes, how much a pair depends
FIRST_STEP, LONGER, SHORTER = math.log(1.5), 1.5, 0.7  # of `hill`


class Bent:
    """A landscape with its minimum of 1.0 at `optimum`, in logarithms of the values."""

    def __init__(self, number: int, constants: int) -> None:
        truth = random.Random(f"bent {number}")
        self._widths = [truth.choice(WIDTHS) for _ in range(constants)]
        self._away = [truth.gauss(0, DISTANCE) for _ in range(constants)]
        self._sizes = [
            0.0 if truth.random() < NOTHING else truth.lognormvariate(math.log(SIZE), SPREAD) for _ in range(constants)
        ]
        self._bends = [truth.choice((BEND, -BEND)) for _ in range(constants)]
        self._together = [truth.uniform(-TOGETHER, TOGETHER) for _ in range(constants)]

    def value(self, config: Mapping[str, float]) -> float:
        """The true value of a configuration."""
        places = zip(config.values(), self._widths, self._away, strict=True)
        off = [math.log(value) / width - away for value, width, away in places]
        total = 1.0
        for number, (size, bend) in enumerate(zip(self._sizes, self._bends, strict=True)):
            x = bend * (off[number] + self._together[number // 2] * off[number ^ 1])
            loss = 2 * (math.exp(min(x, 50)) - 1 - x) / bend**2
            total += size * loss / (1 + loss / FLAT)
        return total


class Night(bench_suggest.Night):
    """A night on one of the landscapes, judged by one of the two; `history` has the share gained after each run."""

    def __init__(self, task: "Task") -> None:
        self.task, self.history = task, [0.0]
        self.bent = Bent(task.number, bench_suggest.CONSTANTS)
        self.turn: tuple[str, float] | None = None
        self.steps: dict[str, float] = {}
        super().__init__(task.noise, task.number)

    @property
    def done(self) -> int:
        """The runs after the baseline's."""
        return len(self.rows) - 1

    def true(self, config: dict[str, float]) -> float:
        """The true value of a configuration."""
        return self.bent.value(config) if self.task.landscape == "bent" else super().true(config)

    def is_new(self, changes: Mapping[str, float] | None) -> bool:
        """Whether an edit of the champion has not been run."""
        return bool(changes) and tuple((self.config | dict(changes or {})).values()) not in self.seen

    def shot(self, config: dict[str, float], edit: int, parent: str | None) -> dict[str, Any]:
        """One run, as a row of the index."""
        number = len(self.rows)
        row: dict[str, Any] = {
            "id": f"{number:012x}", "timestamp": f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}.000Z",
            "status": "revert" if parent else "keep", "metric": "val_bpb", "direction": "min",
            "result": self._shots.gauss(self.true(config), self.noise), "edit_key": json.dumps(config),
            "commit_id": f"{edit:07x}", "parent_commit": parent, "seed": number, "preset": "gpu", "device": "cuda",
            "quarantined": None, "train_sha256": None, "champion": None, "machine": None, "hypothesis": None,
            "confirmed": None, "tokens_per_second": None,
        }  # fmt: skip
        self.rows.append(row)
        if number:
            self.history.append(self.gained)
        return row

    def fit(self) -> None:
        """Believe what the runs say; greedy has a champion of its own."""
        self.belief = believe(self.rows, "min", PRIOR)
        assert self.belief  # there is a result
        if self.task.ours:
            self.champion = self.belief.champion or ""
            self.config = self.edits[self.champion]["config"]
        else:
            self.belief = self.belief._replace(champion=self.champion)

    def run(self, changes: dict[str, float]) -> None:
        """Run an edit of the champion, and keep it or not."""
        config = self.config | changes
        diff = {name: [self.config[name], value] for name, value in changes.items()}
        before = next((row for row in self.rows if row["id"] == self.champion), None)
        row = self.shot(config, len(self.edits), before and before["commit_id"])
        self.edits[row["id"]] = {"hypothesis": None, "category": "optimizer", "config_diff": diff, "config": config}
        self.seen.add(tuple(config.values()))
        if before is None:
            self.champion = row["id"]
        elif self.task.ours:
            self.judge(row)
        elif row["result"] < before["result"]:
            row["status"], self.champion, self.config = "keep", row["id"], config
        if self.task.ours:
            self.fit()
        self.history[-1] = self.gained

    def judge(self, row: dict[str, Any]) -> None:
        """Repeat the run while that pays, and keep it where it is expected to be better."""
        assert self.belief
        verdict = self.belief.verdict(row["result"], self.champion)
        looks = [row]
        while verdict and len(looks) < MOST_LOOKS and verdict.repeat_pays > 1 and self.done < self.task.runs:
            looks.append(self.shot(json.loads(row["edit_key"]), int(row["commit_id"], 16), row["parent_commit"]))
            self.fit()
            node = self.belief.by_run()[row["id"]]
            verdict = self.belief.verdict(None, node.parent, node)
        if verdict and verdict.expected < 0:
            for look in looks:
                look["status"] = "keep"


# Who searches.


def by(agent: str) -> Callable[[Night], dict[str, Any]]:
    """One of the proposers of lab/hpo.py. Greedy has results to learn from, ours what is believed of them."""

    def search(night: Night) -> dict[str, Any]:
        space = {name: Range(Scale(name, value), -SPAN, SPAN) for name, value in night.config.items()}
        if night.task.ours and night.belief:
            known = [(night.edits[node.card]["config"], node.mean) for node in night.belief.nodes.values()]
        else:
            known = [(night.edits[row["id"]]["config"], row["result"]) for row in night.rows]
        return next(changes for changes in moves(space, known, agent, night.chance) if night.is_new(changes))

    return search


def hill(night: Night) -> dict[str, Any]:
    """One constant after the other, each for as long as it helps."""
    names = list(night.config)
    if night.turn is None:
        night.steps, name = dict.fromkeys(names, FIRST_STEP), names[0]
    else:
        name, value = night.turn
        if night.config[name] == value:
            night.steps[name] *= LONGER
        else:
            night.steps[name] *= -SHORTER
            name = names[(names.index(name) + 1) % len(names)]
    for _ in range(100):
        values = Scale(name, night.config[name]).values((math.exp(night.steps[name]),))
        if values and night.is_new({name: values[0]}):
            night.turn = name, values[0]
            return {name: values[0]}
        night.steps[name] *= -SHORTER
        name = names[(names.index(name) + 1) % len(names)]
    return by("random")(night)


def planner(night: Night) -> dict[str, Any]:
    """What the planner puts first."""
    if not night.task.ours:
        night.fit()
    return by_worth(night) or {}


def both(night: Night) -> dict[str, Any]:
    """Planner and Optuna, taking turns."""
    return (planner if len(night.edits) % 2 else by("hpo"))(night)


SEARCHES: dict[str, Callable[[Night], dict[str, Any]]] = {
    "random": by("random"), "hill": hill, "hpo": by("hpo"), "planner": planner, "both": both,
}  # fmt: skip


class Task(NamedTuple):
    """A night to be lived through; `ours` is who decides."""

    landscape: str
    search: str
    ours: bool
    noise: float
    runs: int
    number: int


def live(task: Task) -> list[float]:
    """The share of the possible gain after 0, 1, 2, ... runs; equal tasks have equal ones."""
    night = Night(task)
    while night.done < task.runs:
        night.run(SEARCHES[task.search](night))
    return night.history


def main() -> None:
    """Simulate and print a table for each landscape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=20)
    parser.add_argument("--runs", type=int, default=max(STOPS))
    parser.add_argument("--noise", type=float, default=PRIOR, help=f"of a run, relative (default {PRIOR})")
    parser.add_argument("--only", nargs="+", choices=SEARCHES, default=list(SEARCHES), metavar="NAME")
    parser.add_argument("--landscape", nargs="+", choices=("bent", "bowl"), default=["bent", "bowl"])
    parser.add_argument("--quick", action="store_true", help="2 nights of 10 runs")
    args = parser.parse_args()
    nights, runs = (2, 10) if args.quick else (max(args.nights, 2), args.runs)
    stops = [stop for stop in STOPS if stop <= runs] or [runs]
    about = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{about}, Optuna {version('optuna')}; {nights} nights, noise {args.noise:g}", flush=True)
    started = time.time()
    rows = [(land, search, ours) for land in args.landscape for search in args.only for ours in (False, True)]
    tasks = [Task(*row, args.noise, runs, number) for row in rows for number in range(nights)]
    heads = "".join(f" {stop} runs |" for stop in stops)
    with multiprocessing.Pool(os.cpu_count()) as pool:
        found = pool.imap(live, tasks)
        for place, (land, search, ours) in enumerate(rows):
            if place % (2 * len(args.only)) == 0:
                print(f"\n## {land}\n\n| who searches | who decides |{heads}\n|---|---|" + "---|" * len(stops))
            shares = [next(found) for _ in range(nights)]
            cells = []
            for stop in stops:
                low, middle, high = quantiles([share[stop] for share in shares], n=4, method="inclusive")
                cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
            print(f"| {search} | {'ours' if ours else 'greedy'} | {' | '.join(cells)} |", flush=True)
    print(f"\n{time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
