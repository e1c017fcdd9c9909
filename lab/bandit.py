"""How much one more try of a kind of edit promises, learnt from every track: a bandit over what was turned. Pure.

    turn = told("matrix LR 0.04 to 0.05", {})           # Turn(subject="lr matrix", direction="up", old=0.04, new=0.05)
    bandit = Bandit(trials, effects, noise)
    bandit.promise("optimizer", "lr matrix", "up")      # Promise(gain, better, crash)

An arm is (category, subject, direction). What an idea does is a mixture of gains, losses and no effect that is learnt
from the track (`lab/effects.py`). Arms differ in how often they give which part of it: an arm's shares are those of its
tries, each spread over the parts by how likely it came from them, together with those of its category as if they were
KIN_TRIES tries; a category's likewise, over those of all ideas (a hierarchical Dirichlet prior: Gelman et al., Bayesian
Data Analysis, chapter 5). So ruin and noise count for what they are, and an arm that was never tried has a value too.
What another track saw of an arm counts as one try of it, however many runs it had.

Not covered: which value a constant should get (`lab/response.py`), and what to do with it all (`lab/suggest.py`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lab.belief import Belief
from lab.effects import Effect, chances, promise
from lab.ideas import Change, read
from lab.schema import is_number
from lab.words import tokens

KIN_TRIES = 3.0  # of an arm, that its category is worth
ALL_TRIES = 30.0  # of a category, that all ideas are worth
FARTHEST = 20.0  # typical effects: one beyond counts as this far, for ruin comes in all sizes
CRASH = 0.05  # of ideas crash
# Tries that helped, or hurt, which a bet of the catalogue is worth: what is in train.py is there because it helped.
BETS = {"high": 1.0, "medium": 0.35, "low": 0.0, "removal": -2.0}
UP_AND_DOWN = ("up", "down")
_DIRECTIONS = {"raise": "up", "lower": "down", "": "set"}

Arm = tuple[str, str, str]


class Turn(NamedTuple):
    """What an edit turned: the subject as names of the vocabulary, which way, from what to what, as it was called."""

    subject: str
    direction: str
    old: float | None
    new: float | None
    name: str


class Trial(NamedTuple):
    """An edit that was tried: what it turned, and its effect with the variance of the look; None where it crashed.

    `track` is None for the track that is planned for. `kept` says that it is in the champion,
    `text` how it was described.
    """

    card: str
    category: str
    turn: Turn
    effect: float | None
    variance: float
    track: str | None
    kept: bool
    text: str = ""


class Promise(NamedTuple):
    """What one more try of an arm is worth: the gain it promises as a share of the metric, P that it helps, crashes."""

    gain: float
    better: float
    crash: float


def told(hypothesis: str | None, changes: Mapping[str, Sequence[Any]]) -> Turn | None:
    """The one thing that an edit turned, by its changed constants {name: [old, new]} or else by its words.

    None where it turned several or nothing tells, and for a seed, which is no idea.
    """
    if len(changes) == 1:
        ((name, (old, new)),) = changes.items()
        if is_number(old) and is_number(new) and old != new:
            turn = Turn(subject_of(name), "up" if new > old else "down", float(old), float(new), name)
        else:
            turn = Turn(subject_of(name), "set", None, None, name)
    else:
        said = read(hypothesis or "")
        if changes or len(said) != 1:
            return None
        turn = _in_words(said[0], hypothesis or "")
    return turn if turn.subject not in ("", "seed") else None


def subject_of(name: str) -> str:
    """What a constant or a component is about, as names of the vocabulary: equal for MATRIX_LR and "matrix LR"."""
    said = read(name)
    return _subject(said[0]) if len(said) == 1 and said[0].subject else name


def _subject(change: Change) -> str:
    return " ".join(sorted((change.subject - change.excused) or change.subject or change.words))


def _in_words(change: Change, text: str) -> Turn:
    new = change.new[0] if len(change.new) == 1 else None
    direction = _DIRECTIONS.get(change.action, change.action)
    if new is not None and change.action in ("add", "remove"):  # from or to zero
        direction = "up" if change.action == "add" else "down"
    return Turn(_subject(change), direction, change.old, new, _name(change, text))


def _name(change: Change, text: str) -> str:
    """What a text calls the thing: what stands before its first value but the verb, or the names of the vocabulary."""
    words: list[str] = []
    for word in text.split():
        if change.old is not None and (word[0].isdigit() or word in ("to", "->", "from")):
            return " ".join(words) or _subject(change)
        if words or all(token.kind not in ("verb", "factor") for token in tokens(word)):
            words.append(word)
    return _subject(change)


def completed(trials: Iterable[Trial]) -> list[Trial]:
    """The trials of a track, oldest first, with what their words leave out: "softcap 13" starts from what it was then.

    That is the value it was kept with, or the one that another run started from.
    """
    values: dict[str, float] = {}
    found = []
    for trial in trials:
        turn, subject = trial.turn, trial.turn.subject
        before = values.get(subject)
        if turn.old is None and turn.new is not None and before is not None and before != turn.new:
            turn = turn._replace(old=before, direction="up" if turn.new > before else "down")
        value = turn.new if trial.kept else turn.old
        if value is not None:
            values[subject] = value
        found.append(trial._replace(turn=turn))
    return found


def tried(belief: Belief, edits: Mapping[str, Mapping[str, Any]], size: float) -> list[Trial]:
    """The edits of a track, oldest first: all runs of one are one look at what it did to what it was made from.

    `edits` has hypothesis, category and config_diff by card, `size` is the metric's, of which effects are shares.
    """
    line = set(belief.line(belief.champion)) if belief.champion else set()
    share = belief.unit / size
    found = []
    for node in belief.nodes.values():
        row = edits.get(node.card)
        if row and node.from_parent and (turn := told(row["hypothesis"], row["config_diff"])):
            effect = (node.alone[0] - node.from_parent[0]) * share
            variance = (node.alone[1] + node.from_parent[1]) * share**2
            category, text = row["category"] or "other", row["hypothesis"] or ""
            found.append(Trial(node.card, category, turn, effect, variance, None, node.card in line, text))
    return found


class Bandit:
    """The arms and what their tries say.

    `effects` is what an idea does, as shares of the metric; `noise` the variance of what a run shows of it. `typical`
    is the size of a typical effect, `sizes` the probability of each size, 0 for none.
    """

    def __init__(self, trials: Sequence[Trial], effects: Sequence[Effect], noise: float) -> None:
        self.typical, self._noise = _typical(effects), noise
        self._reach = FARTHEST * self.typical
        near = [part for part in effects if abs(part.mean) <= self._reach]
        self._base = _mixed([part.weight for part in near], [0.0] * len(near), 0.0)
        self._effects = [part._replace(weight=weight) for part, weight in zip(near, self._base, strict=True)]
        self.sizes: dict[float, float] = {}
        for part in self._effects:
            size = abs(part.mean) if part.variance else 0.0
            self.sizes[size] = self.sizes.get(size, 0.0) + part.weight
        self._helped = _mixed([part.weight * (part.mean < 0) for part in self._effects], self._base, 0.0)
        self._hurt = _mixed([part.weight * (part.mean > 0) for part in self._effects], self._base, 0.0)
        self._arms: dict[Arm, list[float]] = {}
        self._categories: dict[str, list[float]] = {}
        self._crashes: dict[Arm, tuple[float, float]] = {}
        self._known: dict[tuple[str, Arm | None, float], Promise] = {}
        groups: dict[tuple[Arm, str | None], list[Trial]] = {}
        for trial in trials:
            groups.setdefault(((trial.category, trial.turn.subject, trial.turn.direction), trial.track), []).append(
                trial
            )
        for (arm, track), tries in groups.items():
            self._take(arm, tries, 1.0 if track is None else 1 / len(tries))
        tried = sum(times for _, times in self._crashes.values())
        crashed = sum(times for times, _ in self._crashes.values())
        self._crash = (crashed + CRASH * KIN_TRIES) / (tried + KIN_TRIES)

    def _take(self, arm: Arm, tries: Iterable[Trial], weight: float) -> None:
        for trial in tries:
            crashed, tried = self._crashes.get(arm, (0.0, 0.0))
            self._crashes[arm] = crashed + weight * (trial.effect is None), tried + weight
            if trial.effect is not None:
                parts = came_from(self.clipped(trial.effect), trial.variance, self._effects)
                shares = [weight * share for share in parts]
                self._arms[arm] = _added(self._arms.get(arm), shares)
                self._categories[arm[0]] = _added(self._categories.get(arm[0]), shares)

    def clipped(self, effect: float) -> float:
        """An effect as it counts."""
        return min(max(effect, -self._reach), self._reach)

    def promise(self, category: str, subject: str = "", direction: str = "", bet: str = "low") -> Promise:
        """What one more try of an arm promises, which may never have been tried; without a subject, of its category."""
        arm = category, subject, direction
        key = category, arm if arm in self._crashes else None, BETS[bet]
        if key not in self._known:
            weights = self._weights(arm, BETS[bet])
            parts = [part._replace(weight=weight) for part, weight in zip(self._effects, weights, strict=True)]
            crashed, tried = self._crashes.get(arm, (0.0, 0.0))
            crash = (crashed + KIN_TRIES * self._crash) / (tried + KIN_TRIES)
            self._known[key] = Promise(promise(parts, self._noise), chances(parts)[0], crash)
        return self._known[key]

    def _weights(self, arm: Arm, bet: float) -> list[float]:
        own = self._arms.get(arm, [0.0] * len(self._base))
        kin = self._categories.get(arm[0], [0.0] * len(self._base))
        others = [every - mine for every, mine in zip(kin, own, strict=True)]
        category = _mixed(others, self._base, ALL_TRIES)
        bets = [abs(bet) * share for share in (self._hurt if bet < 0 else self._helped)]
        return _mixed(_added(own, bets), category, KIN_TRIES)


def _typical(effects: Sequence[Effect]) -> float:
    """The size of a typical effect: half of those that are not nothing are smaller."""
    sizes = sorted((abs(part.mean), part.weight) for part in effects if part.variance)
    half, below = sum(weight for _, weight in sizes) / 2, 0.0
    for size, weight in sizes:
        below += weight
        if below >= half:
            return size
    return 0.0


def came_from(effect: float, variance: float, effects: Sequence[Effect]) -> list[float]:
    """The probability that an effect that was seen, with this variance of the look, came from each part."""
    logs = [
        math.log(weight) - ((effect - mean) ** 2 / (variance + spread) + math.log(variance + spread)) / 2
        for weight, mean, spread in effects
    ]
    top = max(logs)
    shares = [math.exp(log - top) for log in logs]
    return [share / sum(shares) for share in shares]


def _mixed(counts: Sequence[float], prior: Sequence[float], tries: float) -> list[float]:
    """Shares from counts, and a prior that is worth so many tries."""
    total = sum(counts) + tries
    return [(count + tries * share) / total for count, share in zip(counts, prior, strict=True)]


def _added(counts: Sequence[float] | None, more: Sequence[float]) -> list[float]:
    return [count + one for count, one in zip(counts, more, strict=True)] if counts else list(more)
