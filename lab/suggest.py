"""What to try next, concretely: values for constants and ideas, each with what it promises; the best of all. Pure.

    found = suggestions(world)                                # in no order
    choose(found, "explore", 10, lambda suggestion: True)     # the best of the mode first, then the best of the others

A suggestion is worth the gain to expect from one run of it that may be kept or left, after the chance that it crashes.
Repeats (`lab.sweep.spend`) are worth the same kind of gain, so all modes can be compared.

Not covered: what was tried or is under way already, which `choose` asks its caller; where a world comes from
(`lab/planning.py`); edits that were made already (`lab/recombine.py`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple

from lab.bandit import UP_AND_DOWN, Bandit, Trial, Turn, subject_of
from lab.brief import counted, one_line
from lab.catalogue import Idea
from lab.edits import SEED_NAME
from lab.recombine import ablations, pairs
from lab.response import CONSERVATIVE_STEP, Move, Scale, Step, fitted, moves
from lab.schema import is_number
from lab.world import TEXT, Suggestion, World

SAME_CATEGORY = 0.8  # what the next one of a category is worth beside those chosen: they err together
LEAST_WORTH = 0.01  # of what a new idea promises: less is not worth a run
MOST_CARDS = 5  # that a suggestion names


class Knob(NamedTuple):
    """A number that can be turned: a constant of the champion's, or one that only earlier runs' words tell of."""

    name: str
    subject: str
    category: str
    value: float
    constant: bool


def suggestions(world: World) -> list[Suggestion]:
    """Everything that could be tried next but repeats, in no order."""
    knobs = list(_knobs(world))
    numbers = {knob.subject for knob in knobs}
    bandit = Bandit(world.trials, world.effects, world.noise)
    found = [suggestion for knob in knobs for suggestion in _turned(world, bandit, knob)]
    if not world.conservative:
        found += _catalogued(world, bandit, numbers)
        found += _transferred(world, bandit, numbers)
    if world.belief and world.champion:
        values = {knob.subject: knob.value for knob in knobs} | dict(world.config)
        found += pairs(world, world.belief, values)
        found += ablations(world, world.belief, values)
    least = LEAST_WORTH * bandit.promise("").gain * world.size
    return [one for one in found if (one.expected or 0.0) > least]


def choose(found: Sequence[Suggestion], mode: str, n: int, allowed: Callable[[Suggestion], bool]) -> list[Suggestion]:
    """At most `n` of the suggestions that are allowed: those of the mode first, then the others, each by its worth.

    One for each thing that is turned; the next of a category counts a little less than the one before.
    """
    chosen: list[Suggestion] = []
    used: set[tuple[bool, str]] = set()
    for pool in ([one for one in found if one.mode == mode], [one for one in found if one.mode != mode]):
        left = sorted(pool, key=lambda one: (one.description, one.target, one.direction, one.cards))
        while left and len(chosen) < n:
            categories = [one.category for one in chosen]
            best = max(left, key=lambda one: (one.per_minute or 0.0) * SAME_CATEGORY ** categories.count(one.category))
            left.remove(best)
            parts = {(best.mode == "combine", part) for part in _parts(best)}
            if not parts & used and allowed(best):
                chosen.append(best)
                used |= parts
    return chosen


def _parts(suggestion: Suggestion) -> list[str]:
    """What a suggestion turns; each repeat is one of its own."""
    return [suggestion.description] if suggestion.replicates else suggestion.target.split(" + ")


# Numbers to turn.


def _knobs(world: World) -> Iterator[Knob]:
    """The constants of the champion that were tried or stand in the catalogue, then the numbers that words tell of.

    Without a catalogue every number of the champion's can be turned: nothing else is known to begin with.
    """
    bets = {subject_of(idea.target): idea for idea in reversed(world.ideas) if idea.target.isupper()}
    categories = {trial.turn.subject: trial.category for trial in world.trials}
    categories |= {subject: idea.category for subject, idea in bets.items()}
    known = set()
    for name, value in world.config.items():
        subject = subject_of(name)
        category = categories.get(subject, None if world.ideas else "hyperparams")
        if is_number(value) and category and name != SEED_NAME:
            known.add(subject)
            yield Knob(name, subject, category, value, True)
    for subject, (value, turn) in _values_in_words(world.trials).items():
        if subject not in known:
            whole = value >= 2 and value == int(value)
            name = bets[subject].target if subject in bets else turn.name
            yield Knob(name, subject, categories[subject], int(value) if whole else value, False)


def _values_in_words(trials: Iterable[Trial]) -> dict[str, tuple[float, Turn]]:
    """The numbers of this track and what they are in the champion: what was kept, or what the last try started from."""
    found: dict[str, tuple[float, Turn]] = {}
    for trial in trials:
        value = trial.turn.new if trial.kept else trial.turn.old
        if trial.track is None and trial.turn.direction in UP_AND_DOWN and value is not None:
            found[trial.turn.subject] = value, trial.turn
    return found


def _turned(world: World, bandit: Bandit, knob: Knob) -> Iterator[Suggestion]:
    """The best value in each direction."""
    about = [trial for trial in world.trials if trial.turn.subject == knob.subject]
    tries = [trial for trial in about if trial.turn.name == knob.name or not trial.turn.name.isupper()]
    here = [trial for trial in tries if trial.track is None]
    bets = {} if here else _bets(world.ideas, knob)  # they are about the value that train.py came with
    for direction, verb in zip(UP_AND_DOWN, ("raise", "lower"), strict=True):
        bet = bets.get(direction)
        move = _move(world, bandit, knob, direction, tries, bet)
        if move is None:
            continue
        kept = any(trial.kept and trial.turn.direction == direction for trial in here)
        ratio = f" (x{move.value / knob.value:.3g})" if knob.value else ""
        yield world.suggestion(
            move.gain,
            bandit.promise(knob.category, knob.subject, direction).crash,
            mode="exploit" if kept else "explore",
            category=knob.category, target=knob.subject, direction=direction,
            description=f"{verb} {one_line(knob.name, 60)} from {knob.value:g} to {move.value:g}{ratio}",
            changes={knob.name: move.value} if knob.constant else None,
            cards=tuple(trial.card for trial in tries[-MOST_CARDS:]),
            why=f"P {move.better:.2f} that it helps; {_seen(tries, bet)}",
            source=bet.source if bet else None,
        )  # fmt: skip


def _move(
    world: World, bandit: Bandit, knob: Knob, direction: str, tries: Sequence[Trial], bet: Idea | None
) -> Move | None:
    """The best move in a direction: the one that the catalogue bets on, else what the response says."""
    scale = Scale(knob.name, knob.value)
    values = [value for value in scale.values() if _way(value, knob) == direction]
    if bet or not knob.value:  # zero has no response: its first values are tried one by one
        untried = [value for value in values if value not in {trial.turn.new for trial in tries}]
        arm = bandit.promise(knob.category, knob.subject, direction, bet.promise if bet else "low")
        first = [_value(bet, knob)] if bet else untried[:1]
        found = [Move(value, scale.place(value) or math.inf, arm.gain, arm.better) for value in first if value]
    else:
        # What its category promises, as a multiple of what any idea does.
        times = bandit.promise(knob.category).gain / bandit.promise("").gain
        found = moves(fitted(_steps(bandit, scale, tries), bandit.sizes), scale, values, world.noise)
        found = [move._replace(gain=move.gain * times) for move in found]
    return next((move for move in found if not world.conservative or abs(move.u) <= CONSERVATIVE_STEP), None)


def _bets(ideas: Iterable[Idea], knob: Knob) -> dict[str, Idea]:
    """The first idea of the catalogue for each direction of a number."""
    found: dict[str, Idea] = {}
    for idea in ideas:
        if value := _value(idea, knob):
            found.setdefault(_way(value, knob), idea)
    return found


def _way(value: float, knob: Knob) -> str:
    return UP_AND_DOWN[value < knob.value]


def _steps(bandit: Bandit, scale: Scale, tries: Iterable[Trial]) -> Iterator[Step]:
    """The steps of a number that were seen: on another track they start from a champion of its own."""
    for trial in tries:
        old, new, effect = trial.turn.old, trial.turn.new, trial.effect
        if old is None or new is None or effect is None:
            continue
        own = scale if trial.track is None else scale._replace(value=old)
        start, end = own.place(old) if old else None, own.place(new)
        if start is not None and end is not None:
            transfer = 0.0 if trial.track is None else bandit.typical**2
            yield Step(start, end, bandit.clipped(effect), trial.variance + transfer)


def _value(idea: Idea, knob: Knob) -> float | None:
    """The value that an idea of the catalogue gives a number, None where it is about something else."""
    if not idea.target.isupper() or subject_of(idea.target) != knob.subject:
        return None
    if idea.factor is not None:
        scale = Scale(knob.name, knob.value)
        place = scale.place(knob.value * idea.factor) if knob.value else None
        return next(iter(scale.values((math.exp(place),))), None) if place is not None else None
    if not is_number(idea.value) or idea.value == knob.value:
        return None
    value: float = type(knob.value)(idea.value)
    return value


# Ideas in words.


def _arm(idea: Idea) -> tuple[str, str, str]:
    return idea.category, subject_of(idea.target), idea.direction


def _catalogued(world: World, bandit: Bandit, numbers: Set[str]) -> Iterator[Suggestion]:
    """The ideas of the catalogue that are no mere numbers here."""
    for idea in world.ideas:
        arm = _arm(idea)
        constant = idea.target.isupper()
        if constant and world.config and idea.target not in world.config:
            continue  # another script's
        removal = idea.direction == "remove" or idea.category == "ablation"
        turned = arm[1] in numbers and not removal and idea.direction != "replace"
        if turned or (constant and _same(world.config.get(idea.target), idea.value)):
            continue
        promise = bandit.promise(*arm, "removal" if removal else idea.promise)
        tries = [trial for trial in world.trials if (trial.category, trial.turn.subject, trial.turn.direction) == arm]
        told_whole = idea.value is not None and idea.target in world.config
        yield world.suggestion(
            promise.gain, promise.crash,
            mode="ablation" if removal else "explore",
            category=idea.category, target=arm[1], direction=idea.direction, description=idea.idea,
            changes={idea.target: idea.value} if told_whole else None,
            cards=tuple(trial.card for trial in tries[-MOST_CARDS:]),
            why=f"P {promise.better:.2f} that it helps; {_seen(tries, idea)}",
            source=idea.source,
        )  # fmt: skip


def _same(here: Any, value: Any) -> bool:
    return value is not None and (list(value) if isinstance(value, tuple) else value) == here


def _transferred(world: World, bandit: Bandit, numbers: Set[str]) -> Iterator[Suggestion]:
    """What helped on other tracks and was not tried here, in the words of its best run."""
    here = {trial.turn.subject for trial in world.trials if trial.track is None}
    arms: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in world.trials:
        if trial.turn.subject not in here and trial.turn.subject not in numbers:
            arms.setdefault((trial.category, trial.turn.subject, trial.turn.direction), []).append(trial)
    for arm, tries in arms.items():
        promise = bandit.promise(*arm)
        best = min(tries, key=lambda trial: math.inf if trial.effect is None else trial.effect)
        if best.text and best.effect is not None and best.effect < 0:
            tracks = counted(len({trial.track for trial in tries}), "other track")
            yield world.suggestion(
                promise.gain,
                promise.crash,
                mode="exploit", category=arm[0], target=arm[1], direction=arm[2],
                description=one_line(best.text, TEXT), changes=None, cards=(best.card,),
                why=f"P {promise.better:.2f} that it helps, as it did on {tracks}",
            )  # fmt: skip


def _seen(tries: Sequence[Trial], bet: Idea | None = None) -> str:
    """What a suggestion rests on."""
    here = sum(trial.track is None for trial in tries)
    there = f" and {len(tries) - here} elsewhere" if len(tries) > here else ""
    said = f"the catalogue's bet is {bet.promise}, " if bet else ""
    return f"{said}{counted(here, 'run')} of it here{there}"
