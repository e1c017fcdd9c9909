"""Edits that were made, suggested anew: two near misses together, or the champion without one of its edits. Pure.

    pairs(world, belief, values)            # values: what the constants and numbers are in the champion
    ablations(world, belief, values)

What an edit does is believed from its runs, as a mixture (`lab/effects.py`). The worth of a suggestion takes that for a
normal of its mean and variance, and the effects of two edits are taken to add up.
Not covered: numbers and ideas that were not tried yet (`lab/suggest.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from lab.bandit import told
from lab.belief import Belief, Node
from lab.brief import one_line
from lab.effects import Effect, chances, mean_and_variance, seen_as
from lab.response import gain_of_a_look
from lab.schema import is_number
from lab.world import TEXT, Suggestion, World

NEAR_MISSES = 12  # that are paired
NEGLIGIBLE = 1e-3  # of the distribution of an effect


class _Made(NamedTuple):
    """An edit that was made: what it turned, in words and constants, and what it does, as shares of the metric."""

    card: str
    target: str
    words: str
    diff: Mapping[str, Sequence[Any]]
    effect: list[Effect]

    @property
    def better(self) -> float:
        """The probability that it helps."""
        return chances(self.effect)[0]


def _made(world: World, belief: Belief, node: Node) -> _Made | None:
    row = world.edits.get(node.card)
    if node.from_parent is None or row is None or not (row["hypothesis"] or row["config_diff"]):
        return None
    diff = row["config_diff"]
    turn = told(row["hypothesis"], diff)
    words = ", ".join(f"{name} {_shown(old)} -> {_shown(new)}" for name, (old, new) in diff.items())
    words = one_line(words or row["hypothesis"], TEXT)
    apart = node.alone[0] - node.from_parent[0], node.alone[1] + node.from_parent[1]
    share = belief.unit / world.size
    effect = [
        Effect(weight, mean * share, variance * share**2)
        for weight, mean, variance in seen_as(*apart, belief.effects)
        if weight >= NEGLIGIBLE
    ]
    return _Made(node.card, turn.subject if turn else words, words, diff, effect)


def _shown(value: Any) -> str:
    return f"{value:g}" if is_number(value) else one_line(value, 40)


def _stands(made: _Made, world: World, values: Mapping[str, Any], which: int) -> bool:
    """Whether what an edit changed has in the champion the value from before it (which = 0), or after it (1)."""
    if made.diff:
        return all(name in values and values[name] == pair[which] for name, pair in made.diff.items())
    turn = told(world.edits[made.card]["hypothesis"], {})
    value = (turn.old, turn.new)[which] if turn else None
    return turn is None or value is None or values.get(turn.subject, value) == value


def pairs(world: World, belief: Belief, values: Mapping[str, Any]) -> Iterator[Suggestion]:
    """Two edits that were close or better, each alone, and are not in the champion."""
    line = set(belief.line(belief.champion or ""))
    near = [
        made
        for node in belief.nodes.values()
        if node.card not in line and node.parent in line and (made := _made(world, belief, node))
        and _stands(made, world, values, 0)
    ]  # fmt: skip
    near.sort(key=lambda made: (-made.better, made.card))
    for one, other in combinations(near[:NEAR_MISSES], 2):
        if one.target == other.target or set(one.diff) & set(other.diff):
            continue
        both = [
            Effect(a.weight * b.weight, a.mean + b.mean, a.variance + b.variance)
            for a in one.effect
            for b in other.effect
        ]
        whole = one.diff and other.diff
        yield world.suggestion(
            gain_of_a_look(*mean_and_variance(both), world.noise),
            mode="combine", category="combination", target=f"{one.target} + {other.target}", direction="set",
            description=f"combine two near misses: {one.words}; {other.words}",
            changes={name: new for made in (one, other) for name, (_, new) in made.diff.items()} if whole else None,
            cards=(one.card, other.card),
            why=f"P {chances(both)[0]:.2f} that they help together, {one.better:.2f} and {other.better:.2f} alone",
        )  # fmt: skip


def ablations(world: World, belief: Belief, values: Mapping[str, Any]) -> Iterator[Suggestion]:
    """Each edit that the champion is made of, taken out."""
    for card in belief.line(belief.champion or ""):
        made = _made(world, belief, belief.nodes[card])
        if made is None or not _stands(made, world, values, 1):
            continue
        mean, variance = mean_and_variance(made.effect)
        yield world.suggestion(
            gain_of_a_look(-mean, variance, world.noise),
            mode="ablation", category="ablation", target=made.target, direction="remove",
            description=f"take out again: {made.words}",
            changes={name: old for name, (old, _) in made.diff.items()} or None,
            cards=(card,),
            why=f"P {made.better:.2f} that it helps where it is",
        )  # fmt: skip
