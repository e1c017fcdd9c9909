"""The cheapest repeats that settle which keeps are real. Pure.

    plan(belief, {"000000012": 0.63, ...})         # probabilities of the keeps, by the card of their configuration

A keep is settled when its probability is at least TRUE or at most FALSE. Repeats of the configuration and of the one
it was edited from both tell, whichever is known less gains more, and a configuration that two keeps share is repeated
once. How many runs are enough is found by looking ahead: over what the repeats may show, weighed by what is believed
now, the keep must come out settled more often than not. Not covered: running them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lab.belief import Belief, Node
from lab.effects import LOOKS, NEGLIGIBLE, Effect, chances, seen_as
from lab.settings import Settings

TRUE, FALSE = Settings().confirm_probability, Settings().refute_probability  # whatever a project sets
ENOUGH = 0.5  # the chance of being settled from which repeats are planned
MAX_RUNS = 16  # for one keep: beyond, the runs are better spent on new ideas
SMALL_WEIGHT = 0.01  # parts of a distribution that matter less are not looked at


class Confirming(NamedTuple):
    """The repeats that settle one keep: runs by configuration, beyond those planned before, and the chance they do."""

    card: str
    repeats: dict[str, int]
    chance: float

    @property
    def cost(self) -> int:
        """How many runs that is."""
        return sum(self.repeats.values())


def plan(belief: Belief, probabilities: Mapping[str, float]) -> tuple[list[Confirming], list[str]]:
    """The repeats for every keep that is not settled, the cheapest first; and the keeps that are not worth it."""
    open_keeps = [card for card, chance in probabilities.items() if FALSE < chance < TRUE]
    planned: dict[str, int] = {}
    found: list[Confirming] = []
    known: dict[str, Confirming | None] = {}
    while open_keeps:
        for card in open_keeps:
            if card not in known:
                known[card] = _cheapest(belief, belief.nodes[card], planned)
        options = [option for card in open_keeps if (option := known[card])]
        if not options:
            break
        best = min(options, key=lambda option: (option.cost, -option.chance))
        found.append(best)
        open_keeps.remove(best.card)
        for card, count in best.repeats.items():
            planned[card] = planned.get(card, 0) + count
        touched = set(best.repeats)
        known = {card: option for card, option in known.items() if not touched & {card, belief.nodes[card].parent}}
    return found, open_keeps


def _cheapest(belief: Belief, node: Node, planned: Mapping[str, int]) -> Confirming | None:
    """The fewest further repeats that are enough, None where MAX_RUNS are not."""
    if node.from_parent is None or node.parent is None:
        return None
    ends, variances = (node.card, node.parent), [node.alone[1], node.from_parent[1]]
    apart = sum(variances)
    now = seen_as(node.alone[0] - node.from_parent[0], apart, belief.effects)
    variances = [
        1 / (1 / was + planned.get(end, 0) / belief.variance) for was, end in zip(variances, ends, strict=True)
    ]
    if settled(now, apart, sum(_spent(variances, belief.variance, MAX_RUNS)[0])) < ENOUGH:
        return None
    for count in range(MAX_RUNS + 1):
        left, repeats = _spent(variances, belief.variance, count)
        chance = settled(now, apart, sum(left))
        if chance >= ENOUGH:
            return Confirming(node.card, {end: n for end, n in zip(ends, repeats, strict=True) if n}, chance)
    return None


def _spent(variances: Sequence[float], noise: float, count: int) -> tuple[list[float], list[int]]:
    """The variances that so many repeats leave, each where it tells most, and how many go where."""
    left, repeats = list(variances), [0, 0]
    for _ in range(count):
        after = [1 / (1 / variance + 1 / noise) for variance in left]
        more = int(left[1] - after[1] > left[0] - after[0])
        left[more] = after[more]
        repeats[more] += 1
    return left, repeats


def settled(now: list[Effect], before: float, after: float) -> float:
    """The chance that a step is settled when the variance of what is seen of it falls from `before` to `after`."""
    if after >= before * (1 - NEGLIGIBLE):
        return 0.0
    look = 1 / (1 / after - 1 / before)
    total = 0.0
    for weight, mean, spread in now:
        if weight < SMALL_WEIGHT:
            continue
        width = math.sqrt(spread + look)
        for place, share in LOOKS:
            better, _ = chances(seen_as(mean + place * width, look, now))
            total += weight * share * (better >= TRUE or better <= FALSE)
    return total
