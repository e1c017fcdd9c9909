"""Does the director's choice of constants beat turning one at random? Simulated nights, where the optimum is known.

    uv run bench/bench_suggest.py [--nights 20] [--runs 50] [--noise 0.0005]

A night has CONSTANTS numbers. Each has a response that is a quadratic in the logarithm of its value, with an optimum
and a width of its own; some do nothing. The effects of two add up. Every policy starts at the same baseline with
the same noise, is judged by `lab.belief` (keep what is expected to be better), and is told the true gain at the end.
Ratios are against `random`: a constant and a factor of `lab.response.FACTORS` at random, never the same value twice.

Not covered: ideas in words, constants that depend on each other, crashes, several workers at once.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from lab.bandit import tried
from lab.belief import Belief
from lab.catalogue import Idea
from lab.effects import Effect
from lab.response import FACTORS
from lab.suggest import choose, suggestions
from lab.tree import believe
from lab.world import World

PRIOR = 0.0005  # the noise that is expected, relative to the metric
CONSTANTS = 12
NOTHING = 3  # of them
TYPICAL = 0.0012  # what a step as wide as the response costs at its optimum
NAMES = tuple(f"KNOB_{letter}" for letter in "ABCDEFGHIJKLMNOP")
IDEAS = [Idea(name, "optimizer", name, "up", 1.25, None, "any", "low", name, "nobody") for name in NAMES[:CONSTANTS]]

Policy = Callable[["Night"], dict[str, float] | None]


class Night:
    """One night's responses and what was run."""

    def __init__(self, noise: float, number: int) -> None:
        truth = random.Random(f"truth {number}")
        self.noise, self._shots = noise, random.Random(f"shot {number}")
        self.chance = random.Random(f"choice {number}")
        self.config = dict.fromkeys(NAMES[:CONSTANTS], 1.0)
        widths = [truth.choice((0.15, 0.3, 0.6, 1.2)) for _ in self.config]
        self._optima = [width * truth.gauss(0, 0.7) for width in widths]
        self._sharpness = [TYPICAL / width**2 for width in widths[NOTHING:]] + [0.0] * NOTHING
        self.rows: list[dict[str, Any]] = []
        self.edits: dict[str, dict[str, Any]] = {}
        self.seen = {tuple(self.config.values())}
        self.champion = ""
        self.belief: Belief | None = None
        self.run({})

    def true(self, config: dict[str, float]) -> float:
        """The true value of a configuration."""
        off = (math.log(value) - best for value, best in zip(config.values(), self._optima, strict=True))
        return 1.0 + sum(sharp * away**2 for sharp, away in zip(self._sharpness, off, strict=True))

    @property
    def gained(self) -> float:
        """The share of what there was to gain that the champion has truly gained."""
        start = self.true(dict.fromkeys(self.config, 1.0))
        return (start - self.true(self.config)) / (start - 1.0)

    def run(self, changes: dict[str, float]) -> None:
        """Run an edit of the champion, and keep it where it is expected to be better."""
        config, number = self.config | changes, len(self.rows)
        result = self._shots.gauss(self.true(config), self.noise)
        kept = number == 0
        if self.belief:
            verdict = self.belief.verdict(result, self.champion)
            kept = verdict is not None and verdict.expected < 0
        parent = None if number == 0 else next(row["commit_id"] for row in self.rows if row["id"] == self.champion)
        row: dict[str, Any] = {
            "id": f"{number:012x}", "timestamp": f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}.000Z",
            "status": "keep" if kept else "revert", "metric": "val_bpb", "result": result, "direction": "min",
            "edit_key": json.dumps(config), "commit_id": f"{number:07x}", "parent_commit": parent, "seed": 42,
            "preset": "gpu", "device": "cuda", "quarantined": None, "train_sha256": None, "champion": None,
            "machine": None, "hypothesis": None, "confirmed": None, "tokens_per_second": None,
        }  # fmt: skip
        self.rows.append(row)
        diff = {name: [self.config[name], value] for name, value in changes.items()}
        self.edits[row["id"]] = {"hypothesis": None, "category": "optimizer", "config_diff": diff, "config": config}
        self.seen.add(tuple(config.values()))
        belief = believe(self.rows, "min", PRIOR)
        assert belief is not None  # there is a result
        self.belief, self.champion = belief, belief.champion or ""
        self.config = self.edits[self.champion]["config"]


def at_random(night: Night) -> dict[str, float] | None:
    """A constant and a factor, of those that give something new."""
    while True:
        name = night.chance.choice(list(night.config))
        changes = {name: float(f"{night.config[name] * night.chance.choice(FACTORS):.1e}")}
        if tuple((night.config | changes).values()) not in night.seen:
            return changes


def by_worth(night: Night) -> dict[str, float] | None:
    """What `lab.suggest` puts first among values, pairs and removals."""
    belief = night.belief
    assert belief is not None
    share = belief.unit
    world = World(
        trials=tried(belief, night.edits, 1.0), config=night.config, belief=belief, edits=night.edits, ideas=IDEAS,
        effects=[Effect(weight, mean * share, spread * share**2) for weight, mean, spread in belief.effects],
        size=1.0, noise=(belief.variance + belief.nodes[night.champion].variance) * share**2, minutes=6.0,
    )  # fmt: skip
    found = [one for one in suggestions(world) if one.changes]
    new = choose(found, "", 1, lambda one: tuple((night.config | (one.changes or {})).values()) not in night.seen)
    return new[0].changes if new else at_random(night)


def main() -> None:
    """Print the share of the possible gain that each policy has after some and after all of the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=20)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--noise", type=float, default=PRIOR)
    args = parser.parse_args()
    policies: dict[str, Policy] = {"random": at_random, "suggest": by_worth}
    stops = [args.runs // 4, args.runs // 2, args.runs]
    gained = {name: [0.0] * len(stops) for name in policies}
    for number in range(args.nights):
        for name, policy in policies.items():
            night = Night(args.noise, number)
            for run in range(1, args.runs + 1):
                night.run(policy(night) or {})
                if run in stops:
                    gained[name][stops.index(run)] += night.gained / args.nights
    print(f"{args.nights} nights, noise {args.noise}: share of the possible gain after so many runs (ratio to random)")
    print(f"{'':<10}" + "".join(f"{stop:>16}" for stop in stops))
    for name, shares in gained.items():
        cells = [f"{share:.2f} ({share / base:.2f}x)" for share, base in zip(shares, gained["random"], strict=True)]
        print(f"{name:<10}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
