"""What is believed of the configurations of a track: their true values, and what a new run or an edit means. Pure.

    belief = believe(rows, "min", 0.0005)              # lab.tree: rows of the index, in any order
    belief.champion, belief.noise.sd
    belief.verdict(0.9712, belief.champion)            # what a new edit of the champion with this result means

Inside, values are in units of the prior's standard deviation, counted from the track's median, smaller is better.
Not covered: how the belief is found (`lab/tree.py`), what to do about a verdict (`lab/decide.py`).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from lab.effects import Effect, chances, mean_and_variance, promise, seen_as
from lab.schema import LARGEST
from lab.stats import Noise, Repeats, configuration, gain

Row = dict[str, Any]

FARTHEST = 1e6  # standard deviations: what is further off is taken to be this far
LEAST = 1e-9  # a variance, or a precision, below which nothing can be told


class Node(NamedTuple):
    """A configuration (`lab.stats.configuration`): the card that stands for it, its first kept run or else its first.

    `made` has machine and seed of each of its runs. `parent` stands for the configuration it was edited from. `mean`
    and `variance` are of its true value; `alone` and `from_parent` are (mean, variance) of its own value and its
    parent's as known without the step between them.
    """

    key: str
    card: str
    runs: tuple[str, ...]
    made: tuple[tuple[str | None, int | None], ...]
    parent: str | None
    kept: bool
    mean: float
    variance: float
    alone: tuple[float, float]
    from_parent: tuple[float, float] | None


class Verdict(NamedTuple):
    """What a configuration is against the champion, or a step against where it started.

    `better` and `same` are the probabilities of a true gain and of no effect; `expected` is the true difference to
    expect, in the metric and with the sign of a delta, `sd` its standard deviation. `repeat_pays` is how much one more
    run of it promises, as a multiple of what a new idea does; 0 for a step.
    """

    better: float
    same: float
    expected: float
    sd: float
    repeat_pays: float = 0.0


class Belief(NamedTuple):
    """The posterior over the configurations of a track."""

    direction: str
    unit: float
    centre: float
    variance: float  # of a run, in units
    noise: Noise
    repeats: Repeats
    effects: list[Effect]
    nodes: dict[str, Node]  # by the card that stands for them, oldest first
    commits: dict[str, str]  # by the first seven characters of a commit, the card of what was run there
    champion: str | None

    def inside(self, value: float) -> float:
        """A value of the metric in the units of the model."""
        return inside(value, self.centre, self.unit, self.direction)

    def value(self, card: str) -> tuple[float, float]:
        """(mean, standard deviation) of a configuration's true value, in the metric."""
        node = self.nodes[card]
        mean = self.centre - gain(node.mean * self.unit, self.direction)
        return as_number(mean), as_number(math.sqrt(node.variance) * self.unit)

    def by_run(self) -> dict[str, Node]:
        """The configuration of every run."""
        return {run: node for node in self.nodes.values() for run in node.runs}

    def line(self, card: str) -> list[str]:
        """The cards from this one, which stands for a configuration, back to the baseline it came from."""
        line = [card]
        while (parent := self.nodes[line[-1]].parent) is not None:
            line.append(parent)
        return line

    def path(self, runs: Sequence[str]) -> list[tuple[float, float]]:
        """(mean, sd) of the champion's true value after each of these runs, as believed now; NaN before the first."""
        of_run = self.by_run()
        best: Node | None = None
        found = []
        for run in runs:
            node = of_run.get(run)
            if node and node.kept and (best is None or node.mean < best.mean):
                best = node
            found.append(self.value(best.card) if best else (math.nan, math.nan))
        return found

    def place(self, row: Row) -> tuple[Node | None, str | None]:
        """Where a run that is not in it yet belongs: (its configuration where that is known, what it was edited from).

        A configuration is edited from what its commit was run as, where the edit was not committed, else from what its
        commit's parent was run as, else from the champion.
        """
        key, commits = configuration(row), self.commits
        known = next((node for node in self.nodes.values() if node.key == key), None)
        if known:
            return known, known.parent
        here = commits.get((row["commit_id"] or "")[:7]) if row["edit_key"] else None
        return None, here or commits.get((row["parent_commit"] or "")[:7]) or self.champion

    def verdict(
        self, result: float | None, parent: str | None, node: Node | None = None, run: Row | None = None
    ) -> Verdict | None:
        """A new run with this result of a new edit of `parent`, or of `node` that is known, against the champion.

        `run` tells its machine and seed: a repeat of a seed is no second look. Without a result it is what is known of
        `node`. None when there is no champion, or `node` is the champion.
        """
        if self.champion is None or (node and node.card == self.champion):
            return None
        best = self.nodes[self.champion]
        start = self.nodes.get(parent or "", best)
        mother = (start.mean, start.variance) if node is None else node.from_parent
        looks = [node.alone] if node else []
        weight = self._weight(node, run) if run else 1.0
        looks += [(self.inside(result), self.variance / weight)] if result is not None and weight else []
        precision = sum(1 / variance for _, variance in looks)
        child, variance = sum(mean / spread for mean, spread in looks) / precision, 1 / precision
        if mother and start.card == best.card:
            step = seen_as(child - mother[0], variance + mother[1], self.effects)
        else:
            if mother:  # what it did to the one it started from says how good it is
                seen, apart = child - mother[0], variance + mother[1]
                expected, spread = mean_and_variance(seen_as(seen, apart, self.effects))
                share = variance / apart
                child += share * (expected - seen)
                variance = variance * (1 - share) + share * share * spread
            step = [Effect(1.0, child - best.mean, variance + best.variance)]
        new_idea = promise(self.effects, self.variance + best.variance)
        expected, _ = mean_and_variance(step)
        again = promise(step, self.variance) - max(0.0, -expected)
        return self._verdict(step)._replace(repeat_pays=again / new_idea if new_idea > 0 else 0.0)

    def _weight(self, node: Node | None, run: Row) -> float:
        """How much one more run tells of a configuration: 1 for a new seed on the usual machine, 0 for nothing new."""
        ledger, name = self.repeats, run["machine"]
        other = min((ledger.between_machines or 0.0) / self.unit, FARTHEST) ** 2 / self.variance
        foreign = other if name is not None and name != ledger.main_machine else 0.0
        same = node.made.count((name, run["seed"])) if node and run["seed"] is not None else 0
        share = ledger.seed_share
        after = 1 / (share + (1 - share) / (same + 1) + foreign)
        return after - 1 / (share + (1 - share) / same + foreign) if same else after

    def step(self, card: str, looks: Sequence[tuple[float, float]] | None = None) -> Verdict | None:
        """What an edit did to the configuration it was made from; None for a baseline.

        `looks` are (result, variance as a multiple of a run's) to judge it by instead of all its runs.
        """
        node = self.nodes[card]
        if node.from_parent is None:
            return None
        mean, variance = node.alone
        if looks:
            precision = sum(1 / factor for _, factor in looks)
            mean = sum(self.inside(result) / factor for result, factor in looks) / precision
            variance = self.variance / precision
        apart = variance + node.from_parent[1]
        return self._verdict(seen_as(mean - node.from_parent[0], apart, self.effects))

    def _verdict(self, step: Sequence[Effect]) -> Verdict:
        expected, spread = mean_and_variance(step)
        there = as_number(-gain(expected * self.unit, self.direction)) + 0.0
        return Verdict(*chances(step), there, as_number(math.sqrt(spread) * self.unit))


def as_number(value: float) -> float:
    """A value of the metric as a record can hold it: results near the largest float have means beyond it."""
    return min(max(value, -LARGEST), LARGEST)


def inside(value: float, centre: float, unit: float, direction: str) -> float:
    """A value of the metric in the units of a belief."""
    away = -gain(value - centre, direction) / unit
    return min(max(away, -FARTHEST), FARTHEST)


def as_json(belief: Belief) -> list[Any]:
    """A belief as plain data, which `from_json` reads."""
    return list(belief)


def from_json(values: list[Any]) -> Belief:
    """The belief that `as_json` gave."""
    belief = Belief(*values)
    repeats = Repeats(*belief.repeats)
    return belief._replace(
        noise=Noise(*belief.noise),
        repeats=repeats._replace(
            pairs=(repeats.pairs[0], repeats.pairs[1], repeats.pairs[2]), machines=tuple(repeats.machines)
        ),
        effects=[Effect(*effect) for effect in belief.effects],
        nodes={card: _node(values) for card, values in belief.nodes.items()},
    )


def _node(values: Any) -> Node:
    node = Node(*values)
    made = tuple((name, seed) for name, seed in node.made)
    mother = node.from_parent and (node.from_parent[0], node.from_parent[1])
    return node._replace(runs=tuple(node.runs), made=made, alone=(node.alone[0], node.alone[1]), from_parent=mother)
