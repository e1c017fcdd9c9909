"""How alike two ideas are: what speaks for and against it, as numbers, and what each weighs. Pure.

    similarity("halve the batch", "batch 524288 -> 262144") >= SAME_IDEA_THRESHOLD        # True
    evidence("raise the lr", "lower the lr")["verbs clash"]                               # 1.0

Two texts are compared as a whole: what they are about (`lab/ideas.py`), which way, with which values, in which words.
`WEIGHTS` is a logistic model of that, fitted to labelled pairs of ideas. The same frame of words around another name
speaks against two ideas, for such sentences were written to be told apart; the same values of the same thing speak for
them. Not covered: what it means that an idea was tried (`lab/novelty.py`).
"""

import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from lab.ideas import SIGNS, Change, read
from lab.words import content, options, tokens, vocabulary, weight

SAME_IDEA_THRESHOLD = 0.5
WORD_SHARE = 0.08  # of a similarity: what words, or an embedder, say beside the rest
UNKNOWN_WORD = 0.5  # weight of a word that the vocabulary does not have, beside a name's 1
VALUE_ALONE = 0.7  # weight of a value that only one side gives
EXACT, ROUNDED, MEGA = 0.005, 0.03, 0.05  # values are equal within: any; from 1,000 on (K is 1000 or 1024); from 1e6 on

# The log odds that two ideas are the same are the sum of weight times evidence. The weights are a logistic regression's
# on the pairs of tests/data/idea_pairs.tsv (bench/fit_novelty.py fits them, and tells what held-out pairs say).
WEIGHTS = {
    "bias": 1.99,  # two ideas with a name in common and nothing against it
    "share": 0.85,  # of all their names and words, what they share
    "nothing shared": -1.45,  # and nothing that one says is implied by the other
    "own on both": -1.29,  # names, words and a value that only one side has, of the side with fewer
    "thing left": -1.04,  # a quantity, a part or an optimizer that only one side names
    "change left": -1.92,  # a second change of another quantity, on one side
    "value alone": -1.19,  # a value that only one side gives
    "value against name": -1.27,  # one turns a number, the other has a name of its own: 0.2 to 0.1, cosine
    "thing contrast": -0.66,  # kinds of things of which each side has its own: embedding, lm_head
    "contrast in frame": -2.61,  # either, as much as the words around are the same
    "frame": -2.05,  # words in common, where each side has some of its own
    "one piece apart": -1.51,  # the same sentence around one piece
    "verbs clash": -2.18,  # verbs say so, or one removes what the other does not
    "verbs in frame": -2.91,  # the same, as much as the words around are the same
    "swapped": -0.71,  # A takes the place of B, and B of A; twice where nothing else is said
    "swapped in frame": -1.09,  # the same, as much as the words around are the same
    "values agree": 0.72,  # both values of a pair most, a step least
    "values clash": -4.11,  # each gives a value that the other does not have, or they turn it opposite ways
    "values in frame": -2.30,  # the same, as much as the words around are the same
}

# Names that tell which thing is meant: where each side has one of its own of a kind, two things are meant.
KINDS = {
    "quantity!": "quantity", "counted!": "quantity", "moment!": "moment", "part!": "part", "scalars!": "part",
    "optimizer!": "optimizer", "activation!": "activation", "norm kind!": "norm", "attention kind!": "attention",
    "precision!": "precision", "tokenizer kind!": "tokenizer", "skip kind!": "skip", "position!": "position",
}  # fmt: skip

WordSimilarity = Callable[[str, str], float]
Names = frozenset[str]


class Sketch(NamedTuple):
    """A text as a whole: the names and words of all its changes, what they excuse and replace, its values and words.

    `steps` are ratios of new to old, `deltas` differences told without an old value, `order` the names as they come,
    `groups` those of each part between separators.
    """

    changes: tuple[Change, ...]
    names: Names
    words: Names
    excused: Names
    replaced: Names
    new: tuple[float, ...]
    old: tuple[float, ...]
    steps: tuple[float, ...]
    deltas: tuple[float, ...]
    aside: tuple[float, ...]
    order: tuple[str, ...]
    verbs: Names
    groups: frozenset[Names]
    surface: Names

    @property
    def valued(self) -> bool:
        """Whether it gives a value; the zero of what is removed is none."""
        given = any(change.new and (any(change.new) or change.action != "remove") for change in self.changes)
        return given or "zero" in self.names or bool(self.steps or self.deltas)

    @property
    def turns(self) -> bool:
        """Whether it turns a number: gives a value to a quantity, or a step."""
        return self.valued and any(
            change.old is not None or change.ratio is not None or any(map(_is_quantity, change.subject))
            for change in self.changes
        )


@lru_cache(8192)
def sketch(text: str) -> Sketch:
    """What a text says, all its changes taken together."""
    changes = read(text)
    join = frozenset[str]().union
    names = join(*(change.subject for change in changes))
    said = content(text)
    return Sketch(
        changes,
        names,
        join(*(change.words for change in changes)),
        join(*(change.excused for change in changes)),
        join(*(change.replaced for change in changes)),
        tuple(value for change in changes for value in change.new) + (0.0,) * ("zero" in names),
        tuple(change.old for change in changes if change.old is not None),
        tuple(change.ratio for change in changes if change.ratio is not None),
        tuple(change.delta for change in changes if change.delta is not None and change.old is None),
        tuple(value for change in changes for value in change.aside),
        tuple(token.name for token in said if token.kind in ("name", "word")),
        frozenset(token.name for token in said if token.kind == "verb"),
        _groups(text),
        _surface(text),
    )


def _groups(text: str) -> frozenset[Names]:
    """The names and words of each part of a text between separators."""
    parts = [set[str]()]
    for token in tokens(text):
        if token.kind == "separator":
            parts.append(set())
        elif token.kind in ("name", "word"):
            parts[-1].add(token.name)
    return frozenset(frozenset(part) for part in parts if part)


def similarity(a: str, b: str, words: WordSimilarity | None = None) -> float:
    """How alike two ideas are, from 0 to 1; from SAME_IDEA_THRESHOLD on they are the same. Symmetric.

    `words` takes the place of the comparison of words, such as the cosine of an embedder.
    """
    first, second = sorted((" ".join(a.split()), " ".join(b.split())))
    if not any(map(str.isalnum, first)) or not any(map(str.isalnum, second)):
        return 0.0
    if first.casefold() == second.casefold():
        return 1.0
    alike = min(1.0, max(0.0, (words or word_similarity)(first, second)))
    told = [bool(sketch(text).changes) for text in (first, second)]
    if not all(told):  # nothing is known of one: words alone
        return alike * (WORD_SHARE if any(told) else 1.0)
    odds = sum(WEIGHTS[name] * value for name, value in evidence(first, second).items())
    return (1 - WORD_SHARE + WORD_SHARE * alike) / (1 + math.exp(-odds))


def word_similarity(a: str, b: str) -> float:
    """The share of words that two texts have in common (Dice)."""
    return _dice(sketch(a).surface, sketch(b).surface)


def evidence(a: str, b: str) -> dict[str, float]:
    """What speaks for and against two texts being one idea, by the names of WEIGHTS."""
    one, two = sketch(a), sketch(b)
    frame = _dice(one.surface, two.surface)
    thing, aspect = _contrasts(one.names - two.names, two.names - one.names)
    turned, verbs, removal = _directions(one, two)
    agree, clash = (0.0, 1.0) if turned else _values(one, two)
    swapped = 1.0 + (sorted(one.order) == sorted(two.order)) if _swapped(one, two) else 0.0
    bags = [frozenset(side.order) | side.verbs for side in (one, two)]
    return _subjects(one, two) | {
        "thing contrast": min(thing, 2.0),
        "contrast in frame": min(thing + aspect, 1.0) * frame,
        "frame": frame * bool(bags[0] - bags[1] and bags[1] - bags[0]),
        "one piece apart": _one_piece_apart(one.order, two.order),
        "verbs clash": max(verbs, removal),
        "verbs in frame": (verbs + removal > 0) * frame,
        "swapped": swapped,
        "swapped in frame": swapped * frame,
        "values agree": agree * (not thing) * min(1.0, _weight(one.names & two.names) + len(one.words & two.words) / 2),
        "values clash": clash,
        "values in frame": clash * frame,
    }


def _swapped(one: Sketch, two: Sketch) -> bool:
    """Whether what takes the other's place, or stands with or before what, is the other way round."""
    if one.replaced & (two.names | two.words) and two.replaced & (one.names | one.words):
        return True
    related = one.names & two.names & {"before", "after"}
    if any(_sides(one, name) == _sides(two, name)[::-1] for name in related):
        return True
    regrouped = len(one.groups) == len(two.groups) > 1 and not one.groups & two.groups
    return regrouped and sorted(one.order) == sorted(two.order)


def _sides(side: Sketch, relation: str) -> tuple[Names, Names]:
    """The names before and after one that relates them: (attention, MLP) of "attention before the MLP"."""
    place = side.order.index(relation)
    return frozenset(side.order[:place]), frozenset(side.order[place + 1 :])


def _subjects(one: Sketch, two: Sketch) -> dict[str, float]:
    """What the two are about: what they share, and what is left on each side, but for what the other implies."""
    shared = one.names & two.names
    sides = ((one, two), (two, one))
    own = [side.names - other.names for side, other in sides]
    kept = {name for name in _contrasting(*own) if _kind(name) == "part"}
    only = [(mine - other.excused | mine & kept) - other.replaced for mine, (_, other) in zip(own, sides, strict=True)]
    unknown = [side.words - other.words - other.excused for side, other in sides]
    left = [_weight(names) + UNKNOWN_WORD * math.sqrt(len(words)) for names, words in zip(only, unknown, strict=True)]
    valued = [side.valued and not other.valued for side, other in sides]
    common = _weight(shared) + UNKNOWN_WORD * len(one.words & two.words)
    excusing = _weight((one.names & two.excused) | (two.names & one.excused))
    kinds = [{KINDS.get(options(name), "") for name in names} for names in only]
    implied = not common and bool(excusing) and min(left) < 0.5 and max(left) < 1
    return {
        "bias": 1.0,
        "share": common / (common + sum(left)) if common else 0.0,
        "nothing shared": float(not common and not implied),
        "own on both": min(*(rest + VALUE_ALONE * own for rest, own in zip(left, valued, strict=True)), 2.0),
        "thing left": float(any(kind & {"quantity", "part", "optimizer"} for kind in kinds)),
        "change left": float(_other_change(one, two) or _other_change(two, one)),
        "value alone": float(one.valued != two.valued),
        "value against name": float(
            any(valued[k] and sides[k][0].turns and any(weight(n) == 1 for n in only[1 - k]) for k in (0, 1))
        ),
    }


def _other_change(one: Sketch, two: Sketch) -> bool:
    """Whether one side, beside a change that both have, has another one of its own: raise lr, raise lr and lower wd."""
    known = two.names | two.words | two.excused | two.replaced
    foreign = [any(map(_is_quantity, change.subject)) and not change.subject & known for change in one.changes]
    return any(foreign) and not all(foreign)


def _is_quantity(name: str) -> bool:
    return options(name) in ("quantity!", "counted!", "moment!")


def _weight(names: Iterable[str]) -> float:
    return sum(map(weight, sorted(names)))


def _contrasts(first: Names, second: Names) -> tuple[int, int]:
    """How many kinds of things, and of other options, each side has its own of: GELU and SiLU; first and last."""
    both = {_kind(name) for name in _contrasting(first, second)}
    things = both & set(KINDS.values())
    return len(things), len(both - things)


def _contrasting(first: Names, second: Names) -> Names:
    """The names of which each side has another one of the same kind."""
    first, second = first - _implied(second), second - _implied(first)
    both = {_kind(name) for name in first} & {_kind(name) for name in second} - {""}
    return frozenset(name for name in first | second if _kind(name) in both)


def _kind(name: str) -> str:
    return KINDS.get(options(name), options(name))


def _implied(names: Names) -> Names:
    return frozenset[str]().union(*(vocabulary().implied.get(name, ()) for name in names))


def _directions(one: Sketch, two: Sketch) -> tuple[float, float, float]:
    """How firmly the changes of the same things go opposite ways: by values, by verbs, by removing what the other has.

    Verbs are as firm as the two changes are about the same.
    """
    turned = verbs = removal = 0.0
    single = len(one.changes) == len(two.changes) == 1
    for a, b in ((a, b) for a in one.changes for b in two.changes):
        alike = _dice(a.subject | a.words, b.subject | b.words)
        ways = [SIGNS.get(change.action, 0) for change in (a, b)]
        if not (alike or single):
            continue
        if (a.action == "remove") != (b.action == "remove"):
            gone, other = (a, b) if a.action == "remove" else (b, a)
            if not (gone.subject & other.replaced or (other.action == "lower" and not any(other.new))):
                removal = max(removal, alike)
        elif all(ways) and ways[0] != ways[1]:
            if alike and all(change.ratio is not None or change.delta is not None for change in (a, b)):
                turned = 1.0
            else:
                verbs = max(verbs, alike)
    return turned, verbs, removal


def _values(one: Sketch, two: Sketch) -> tuple[float, float]:
    """(how much the values agree, whether they clash): a pair of values is hardly ever a coincidence, a step may be."""
    if one.new and two.new:
        sides = ((one, two), (two, one))
        if all(any(not _within(value, (*b.new, *b.aside)) for value in a.new) for a, b in sides):
            return 0.0, 1.0
        if not (one.old and two.old):
            return 1.0, 0.0
        return (1.5 if any(_within(value, two.old) for value in one.old) else 0.5), 0.0
    if any(a.new and not any(a.new) and b.steps and not b.new for a, b in ((one, two), (two, one))):
        return 0.0, 1.0  # no step leads to nothing
    if any(a.new and not a.steps and not b.new and _within_steps(a.new, b) for a, b in ((one, two), (two, one))):
        return 0.0, 1.0  # by 20% is not to 20%
    for first, second in ((one.steps, two.steps), (one.deltas, two.deltas)):
        if first and second:
            found = any(_within(value, second) for value in first)
            return found / 2, float(not found)
    return 0.0, 0.0


def _within_steps(values: Iterable[float], side: Sketch) -> bool:
    """Whether a value is as much as a step of the other side; a half is too often both."""
    steps = [abs(step - 1) for step in side.steps if step != 0.5] + list(map(abs, side.deltas))
    return any(value and _within(value, steps) for value in values)


def _within(value: float, others: Iterable[float]) -> bool:
    return any(_equal(value, other) for other in others)


def _equal(a: float, b: float) -> bool:
    largest = max(abs(a), abs(b))
    if 0.5 < a < 1 and 0.5 < b < 1:  # 0.99 and 0.999 are far apart
        return abs(a - b) <= ROUNDED * (1 - min(a, b))
    return abs(a - b) <= largest * (MEGA if largest >= 1e6 else ROUNDED if largest >= 1000 else EXACT)


def _one_piece_apart(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    """How much of two sentences is the same around a piece that differs: sort by length, sort by loss."""
    shortest = min(len(first), len(second))
    head = next((n for n in range(shortest) if first[n] != second[n]), shortest)
    tail = next((n for n in range(shortest - head) if first[-1 - n] != second[-1 - n]), shortest - head)
    same = head + tail
    if same == shortest:
        return 0.0
    return same / max(len(first), len(second))


def goes_on(text: str, earlier: str) -> bool:
    """Whether an idea turns what the earlier one turned, the same way, to another value."""
    one, two = sketch(text), sketch(earlier)
    apart = (one.names ^ two.names) - one.excused - two.excused
    same_way = any(
        SIGNS.get(a.action) == SIGNS.get(b.action) is not None and a.subject & b.subject
        for a in one.changes
        for b in two.changes
    )
    return same_way and not any(weight(name) == 1 for name in apart) and _values(one, two)[1] == 1


def _surface(text: str) -> Names:
    """The words of a text as they stand, without numbers."""
    return frozenset(re.findall(r"[^\W\d_]+", text[:1000].casefold()))


def _dice(a: Names, b: Names) -> float:
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 0.0
