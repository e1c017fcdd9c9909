"""Where repeats change the most decisions: a number of runs, spent one by one where each promises most. Pure.

    for repeat in spend(belief, runs, 10):
        repeat.card, repeat.runs, repeat.settles, repeat.gain

What can be decided: for each edit that the champion is made of, whether to leave it in or take it out; for each other
configuration, whether it takes the champion's place. A look at either end of such a difference may turn the decision,
and what that is worth is the expected value of sample information (Raiffa and Schlaifer 1961; spending it greedily is
the knowledge gradient of Frazier, Powell and Dayanik 2008, A knowledge-gradient policy for sequential information
collection, SIAM Journal on Control and Optimization 47). The champion is an end of nearly all of them.

Decisions are taken to add up. Not covered: what a repeat costs (all cost the same), and how it gets to be run.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import count
from typing import Any, NamedTuple

from lab.belief import Belief, Node
from lab.effects import Effect, chances, mean_and_variance, promise, seen_as
from lab.stats import below_zero

MAX_DECISIONS = 60  # those where knowing the truth would be worth most
LEAST_WORTH = 0.01  # of what a new idea promises: a repeat for less is not worth running
NEGLIGIBLE = 1e-3  # of an effect's distribution
FIRST_SEED = 43  # 42 is train.py's default, which a run whose seed is unknown most likely had

Row = dict[str, Any]


class Repeat(NamedTuple):
    """A configuration, by the card that stands for it, to be run so many times more.

    `settles` is the decision that these runs may change most, in words; `gain` what all of them promise together, an
    improvement in units of the metric, positive.
    """

    card: str
    runs: int
    settles: str
    gain: float


class _Decision(NamedTuple):
    """A difference whose sign decides: of `child` to `mother`, whose variances are known so far without it.

    `effect` is what it is believed to be, negative where turning the decision pays.
    """

    child: str
    mother: str
    variances: tuple[float, float]
    effect: list[Effect]
    settles: str


def spend(belief: Belief, runs: Iterable[Row], budget: int, waiting: Sequence[str] = ()) -> list[Repeat]:
    """At most `budget` repeats, the most promising card first; [] where none is worth its run.

    `runs` are the rows that the belief rests on. A finding that somebody has confirmed is settled. `waiting` names a
    run of a configuration for every repeat of it that is planned already: these are part of the budget.
    """
    if belief.champion is None:
        return []
    best = belief.nodes[belief.champion]
    confirmed = {row["id"] for row in runs if row["confirmed"]}
    decisions = sorted(_decisions(belief, best, confirmed), key=_at_stake, reverse=True)[:MAX_DECISIONS]
    of_run = belief.by_run()
    planned = Counter(of_run[run].card for run in waiting if run in of_run)
    known = cache(lambda number, child, mother: _worth(decisions[number], child, mother, belief.variance))

    def worth(number: int, one_more: str = "") -> float:
        """What a decision gains by the runs that are planned, and by one more of a card."""
        ends = decisions[number].child, decisions[number].mother
        return known(number, *(planned[end] + (end == one_more) for end in ends))

    of_card: dict[str, list[int]] = {}
    for number, decision in enumerate(decisions):
        for end in (decision.child, decision.mother):
            of_card.setdefault(end, []).append(number)
    enough = LEAST_WORTH * promise(belief.effects, belief.variance + best.variance)
    chosen: dict[str, list[float]] = {}
    for _ in range(budget - planned.total() if of_card else 0):
        offers = {card: sum(worth(number, card) - worth(number) for number in of_card[card]) for card in of_card}
        card = max(offers, key=offers.__getitem__)
        if offers[card] <= enough:
            break
        planned[card] += 1
        chosen.setdefault(card, []).append(offers[card])
    repeats = []
    for card, gains in chosen.items():
        settles = _settled(card, [decisions[number] for number in of_card[card]], best)
        repeats.append(Repeat(card, len(gains), settles, sum(gains) * belief.unit))
    return repeats


def _settled(card: str, decisions: list[_Decision], best: Node) -> str:
    """What repeats of a card settle, in words, from the decisions that it is an end of."""
    if card == best.card:
        return f"how good the champion is: {len(decisions)} decisions rest on it"
    own = next((decision.settles for decision in decisions if decision.child == card), None)
    return own or f"what {decisions[0].child[:8]}, which was edited from it, does"


def _decisions(belief: Belief, best: Node, confirmed: set[str]) -> Iterator[_Decision]:
    """Everything that can be decided on the track: edits that the champion is made of, and what may replace it."""
    line = set(belief.line(best.card))
    for node in belief.nodes.values():
        if node.card in line:
            if node.parent and node.from_parent and not confirmed.intersection(node.runs):
                yield _edit(belief, node, node.parent, node.from_parent)
        else:
            yield _challenger(belief, node, best)


def _edit(belief: Belief, node: Node, parent: str, mother: tuple[float, float]) -> _Decision:
    """Whether an edit that was kept stays in: it is in, so finding that it hurts is what pays."""
    variances = node.alone[1], mother[1]
    effect = _main(seen_as(node.alone[0] - mother[0], sum(variances), belief.effects))
    settles = f"whether it helps what it was edited from, {parent[:8]}: P {chances(effect)[0]:.2f} now"
    return _Decision(node.card, parent, variances, [part._replace(mean=-part.mean) for part in effect], settles)


def _challenger(belief: Belief, node: Node, best: Node) -> _Decision:
    """Whether a configuration is better than the champion."""
    if node.parent == best.card and node.from_parent:
        variances = node.alone[1], node.from_parent[1]
        effect = _main(seen_as(node.alone[0] - node.from_parent[0], sum(variances), belief.effects))
    else:
        variances = node.variance, best.variance
        effect = [Effect(1.0, node.mean - best.mean, sum(variances))]
    settles = f"whether it is better than the champion, {best.card[:8]}: P {chances(effect)[0]:.2f} now"
    return _Decision(node.card, best.card, variances, effect, settles)


def _main(effects: list[Effect]) -> list[Effect]:
    """The parts of a distribution that are worth their time."""
    parts = [part for part in effects if part.weight >= NEGLIGIBLE]
    total = sum(part.weight for part in parts)
    return [part._replace(weight=part.weight / total) for part in parts]


def _at_stake(decision: _Decision) -> float:
    """What knowing the truth would be worth: the gain to expect beyond that of deciding now."""
    total = 0.0
    for weight, mean, variance in decision.effect:
        if variance:
            density = math.exp(-mean * mean / variance / 2) / math.sqrt(2 * math.pi)
            total += weight * (math.sqrt(variance) * density - mean * below_zero(mean, math.sqrt(variance)))
    return total - _decided_now(decision)


def _decided_now(decision: _Decision) -> float:
    return max(0.0, -mean_and_variance(decision.effect)[0])


def _worth(decision: _Decision, child: int, mother: int, noise: float) -> float:
    """The gain to expect from a decision after so many more runs of its ends, beyond that of deciding now."""
    one, other = decision.variances
    before = one + other
    after = one / (1 + child * one / noise) + other / (1 + mother * other / noise)
    if after >= before:
        return 0.0
    # Looks at the ends are a look at their difference whose precision is what they add to that of the difference.
    return promise(decision.effect, 1 / (1 / after - 1 / before)) - _decided_now(decision)


def fresh_seeds(taken: Iterable[int | None]) -> Iterator[int]:
    """Seeds that are not among those taken, without end."""
    known = set(taken)
    return (seed for seed in count(FIRST_SEED) if seed not in known)
