"""An idea as structure: from a description in the field's language to what is changed, which way, from what to what.

    read("halve batch 524K to 262K (more steps in 5 min)")
    # one Change: subject {batch}, action "lower", old 524000.0, new (262000.0,)

The names come from the field's vocabulary, and words that are not in it stand for themselves (`lab/words.py`).
Purposes ("so that ...") and brackets are remarks: they excuse a difference, and hold the values where the rest has
none. Pure.
Not covered: languages other than English; sentences that tell of several runs.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from lab.vocabulary import PURPOSES
from lab.words import Token, options, together, tokens, vocabulary, weight

MAX_CHANGES = 8
PATTERN_IMPLIES = frozenset({"window", "pattern", "attention"})  # of a window pattern such as SSSL
UNCHANGED = {"unchang", "untouch", "same", "kept", "unmodifi"}  # stems that say of something that it stays
NARROWING = ("quantity!", "counted!", "part!")  # names that always make an idea another one
SIGNS = {"raise": 1, "add": 1, "lower": -1, "remove": -1}


class Change(NamedTuple):
    """One thing that is changed: names it is about, words not known, and what may be said beside them unnoticed.

    `action` is raise, lower, add, remove, replace, set, or "" where nothing tells. `new` are the values it is given,
    `old` is the one it had, `ratio` is new to old, `delta` new minus old, `aside` more values, told in a remark.
    `replaced` are the names and words it takes the place of.
    """

    subject: frozenset[str]
    words: frozenset[str]
    excused: frozenset[str]
    action: str
    new: tuple[float, ...] = ()
    old: float | None = None
    ratio: float | None = None
    delta: float | None = None
    replaced: frozenset[str] = frozenset()
    aside: tuple[float, ...] = ()


@lru_cache(16384)
def read(text: str) -> tuple[Change, ...]:
    """The changes that a description tells of, () where it tells of none."""
    main, remarks = _outside_brackets(list(tokens(text)))
    clauses = [_change(clause) for clause in _clauses(main)]
    found = [change for change in clauses if change.subject or change.words]
    strong = [change for change in found if any(weight(name) == 1 for name in change.subject)]
    strong = [change for change in strong if not _said_better(change, strong)]
    found = (strong or found)[:MAX_CHANGES]
    if remarks and found:
        found[0] = _with_remark(found[0], _change(remarks), alone=len(found) == 1)
    elif remarks:
        found = [change for change in [_change(remarks)] if change.subject or change.words]
    return tuple(dict.fromkeys(found))


def _said_better(change: Change, others: Iterable[Change]) -> bool:
    """Whether another change says it too: "decay later, warmdown 0.5 to 0.3"; "cosine, not the trapezoid"."""
    if change.action == "remove" and not change.new:
        groups = {options(name) for name in change.subject} - {""}
        return any(
            other.action != "remove"
            and (groups & {options(name) for name in other.subject} or change.subject <= other.excused)
            for other in others
        )
    if change.new or change.ratio or change.delta:
        return False
    return any(
        other.new and other is not change and change.subject <= other.subject | other.excused
        and SIGNS.get(change.action, 0) in (0, SIGNS.get(other.action, 0))
        for other in others
    )  # fmt: skip


def _with_remark(change: Change, remark: Change, alone: bool) -> Change:
    """The change, where a remark in brackets may hold its values and what else it could be called."""
    if remark.words & UNCHANGED or change.action == "remove":
        return change
    excused = change.excused | {name for name in remark.subject if options(name) not in NARROWING} | remark.excused
    change = change._replace(excused=excused)
    foreign = bool(remark.words or remark.subject - change.subject - change.excused)
    if not alone or (foreign and remark.old is None):
        return change
    if "mlpratio" in change.subject and remark.ratio and not remark.new:
        remark = remark._replace(new=(remark.ratio,))  # 4x is the ratio itself
    if change.new:
        old = change.old if change.old is not None else remark.old
        told = change._replace(old=old, aside=() if remark.words else remark.new)
    elif remark.new:
        told = change._replace(new=remark.new, old=remark.old, ratio=remark.ratio, delta=remark.delta)
    else:
        told = change._replace(ratio=change.ratio or remark.ratio, delta=change.delta or remark.delta)
    if told.new and told.old:
        told = told._replace(ratio=told.new[0] / told.old, delta=told.new[0] - told.old)
    return told._replace(action=_action(told, change.action))


def _outside_brackets(tokens: list[Token]) -> tuple[list[Token], list[Token]]:
    """What is said, and what stands in brackets or after a word such as "because"."""
    tokens = _changing(tokens)
    main, remarks, depth, said = list[Token](), list[Token](), 0, True
    for place, token in enumerate(tokens):
        if token.kind in ("open", "close"):
            depth = max(0, depth + (1 if token.kind == "open" else -1))
            continue
        following = tokens[place + 1] if place + 1 < len(tokens) else Token("", "")
        purpose = token.kind in ("to", "for") and (
            following.name in PURPOSES
            or (following.kind == "verb" and following.name in ("raise", "lower", "remove"))
        )  # fmt: skip
        if (
            depth == 0
            and main
            and (token.kind == "remark" or purpose)
            and any(t.kind in ("name", "word") for t in main)
        ):
            said = False
        if token.kind != "remark":
            (main if said and not depth else remarks).append(token)
    return main, remarks


def _changing(tokens: list[Token]) -> list[Token]:
    """The tokens without those that say what stays: "with microbatch unchanged", "same total batch"."""
    while (place := next((n for n, token in enumerate(tokens) if token.name in UNCHANGED), None)) is not None:
        edges = [n for n, token in enumerate(tokens) if token.kind in ("separator", "open", "close", "with")]
        start = max((n for n in edges if n < place), default=-1)
        end = min((n for n in edges if n > place), default=len(tokens))
        if tokens[place].name == "same" and start < place - 1:  # depth 10 same dim
            start = place - 1
        tokens = tokens[: start + 1] + tokens[end:] if start >= 0 or end < len(tokens) else [
            token for token in tokens if token.name not in UNCHANGED
        ]  # fmt: skip
    return tokens


def _clauses(tokens: list[Token]) -> list[list[Token]]:
    """The tokens of each change: cut where a new verb or a new quantity with a value begins."""
    clauses: list[list[Token]] = [[]]
    for place, token in enumerate(tokens):
        rest = tokens[place:]
        if token.kind == "separator":
            if _is_change(rest[1:]) and _is_change(clauses[-1]) and not _completes(rest[1:], clauses[-1]):
                clauses.append([])
            continue
        if _begins(rest) and _has_valued_quantity(clauses[-1], rest):
            clauses.append([])
        clauses[-1].append(token)
    return clauses[: 4 * MAX_CHANGES]


def _completes(rest: Sequence[Token], clause: Sequence[Token]) -> bool:
    """Whether what follows a comma is the value of what stands before it: "add LayerScale, init 0.1"."""
    end = next((place for place, token in enumerate(rest) if token.kind == "separator"), len(rest))
    acts = any(token.kind in ("verb", "factor", "arrow", "to") for token in rest[:end])
    return not acts and not any(token.kind in ("number", "factor") for token in clause)


def _is_quantity(token: Token) -> bool:
    return token.kind == "name" and vocabulary().section.get(token.name) in ("quantity!", "counted!", "moment!")


def _begins(rest: Sequence[Token]) -> bool:
    """Whether a quantity with its value begins here: "depth 9" or "9 layers"."""
    near = rest[1:3]
    if _is_quantity(rest[0]):
        return any(token.kind == "number" for token in near)
    return rest[0].kind == "number" and bool(near) and _is_quantity(near[0])


def _has_valued_quantity(clause: Sequence[Token], rest: Sequence[Token]) -> bool:
    """Whether the clause has a value and its quantity, and `rest` begins with another one."""
    told = [token.name for token in clause if _is_quantity(token)]
    new = next(token.name for token in rest[:2] if _is_quantity(token))
    complete = any(token.kind == "number" for token in clause) and clause[-1].kind not in (
        "to",
        "arrow",
        "instead",
        "from",
    )
    return bool(told) and new not in told and complete


def _is_change(tokens: Sequence[Token]) -> bool:
    """Whether tokens up to the next separator tell of a change of their own."""
    end = next((place for place, token in enumerate(tokens) if token.kind == "separator"), len(tokens))
    part = tokens[:end]
    named = any(token.kind == "name" and weight(token.name) == 1 for token in part)
    acts = any(token.kind in ("verb", "factor", "arrow") for token in part)
    valued = any(map(_is_quantity, part)) and any(token.kind == "number" for token in part)
    return named and (acts or valued)


def _change(tokens: Sequence[Token]) -> Change:
    """The one change that the tokens of a clause tell of."""
    left, right, verb = _replacement(tokens)
    kept = right if verb == "replace" else [*left, *right]
    names = frozenset(token.name for token in kept if token.kind == "name")
    if "mlp" in names and any(token.unit == "x" for token in kept) and not any(map(_is_quantity, kept)):
        names = names - {"mlp"} | {"mlpratio"}
    replaced = frozenset(token.name for token in left if token.kind in ("name", "word")) if verb else frozenset[str]()
    if replaced:
        groups = {vocabulary().section.get(name) for name in names if options(name)}
        peers = {name for name in replaced if vocabulary().section.get(name) in groups}
        if peers:
            names |= replaced - peers
            replaced = frozenset(peers)
    names = together(frozenset(names))
    excused = frozenset[str]().union(*(vocabulary().implied.get(name, PATTERN_IMPLIES) for name in names))
    words = frozenset(token.name for token in kept if token.kind == "word") - excused
    change = _valued(Change(names, words, excused, "", replaced=replaced), tokens)
    return change._replace(action=_action(change, verb or _verb(tokens, names)))


def _replacement(tokens: Sequence[Token]) -> tuple[Sequence[Token], Sequence[Token], str]:
    """(what goes, what comes, "replace") where one thing takes another's place, else (everything, (), "")."""
    swaps = next((place for place, token in enumerate(tokens) if token == Token("verb", "replace")), None)
    numbers = any(token.kind in ("number", "factor") for token in tokens)
    kinds = [token.kind for token in tokens]
    origin = kinds.index("from") if "from" in kinds else 0
    if swaps is not None and not numbers and "to" in kinds[:origin]:  # back to random order from packing
        return tokens[origin + 1 :], tokens[:origin], "replace"
    for place, token in enumerate(tokens):
        if token.kind not in ("instead", "arrow", "to", "with", "by", "for"):
            continue
        before, after = tokens[:place], tokens[place + 1 :]
        if not (_tells(before) or swaps is not None) or not _tells(after):
            continue
        if token.kind == "instead" and not _numeric(after):
            return after, before, "replace"
        if token.kind == "arrow" and not numbers:
            return before, after, "replace"
        if swaps is not None and swaps < place and token.kind in ("to", "with", "by", "for") and not _numeric(after):
            return before, after, "replace"
        follows = any(part.name == "follow" for part in before)
        if token.kind == "to" and not numbers and not follows and _same_group(before, after):
            return before, after, "replace"
    return tokens, (), ""


def _tells(tokens: Iterable[Token]) -> bool:
    return any(token.kind in ("name", "word") for token in tokens)


def _numeric(tokens: Sequence[Token]) -> bool:
    return bool(tokens) and tokens[0].kind in ("number", "factor")


def _same_group(before: Iterable[Token], after: Iterable[Token]) -> bool:
    """Whether both sides name options of one kind, such as two activations."""
    section = vocabulary().section
    groups = ({section.get(token.name) for token in side if options(token.name)} for side in (before, after))
    first, second = groups
    return bool(first & second)


def _verb(tokens: Sequence[Token], names: frozenset[str]) -> str:
    """What is done, by the verbs: "use a smaller init" lowers, "use no warmup" removes."""
    verbs = [token.name for token in tokens if token.kind == "verb"]
    verb = next((name for name in verbs if name in ("raise", "lower", "remove")), "")
    verb = verb or next((name for name in ("add", "use", "set") if name in verbs), "")
    if verb == "remove" and any(_is_value(before, token) for before, token in pairwise(tokens)):
        return "lower"  # drop the lr to 0.03
    factor = next((token.value for token in tokens if token.kind == "factor"), None)
    if factor is not None and verb in ("", "add", "set"):
        return "raise" if factor > 1 else "lower"
    if verb in ("add", "remove") and any(vocabulary().section.get(name) == "counted!" for name in names):
        return "raise" if verb == "add" else "lower"
    return "add" if verb == "use" else verb


def _is_value(before: Token, token: Token) -> bool:
    return before.kind in ("to", "by") and token.kind in ("number", "factor") and token.value != 0


def _action(change: Change, verb: str) -> str:
    """What is done: values say it, else the verb."""
    new = change.new[0] if change.new else None
    if new is not None and change.old is not None:
        if new != 0 and change.old != 0:
            return "raise" if new > change.old else "lower" if new < change.old else "set"
        return "remove" if new == 0 else "add"
    if new == 0 and ("decay" not in change.subject or "wd" in change.subject) and verb in ("", "set", "lower", "add"):
        return "remove"
    for turned, neutral in ((change.ratio, 1.0), (change.delta, 0.0)):
        if turned is not None and turned != neutral:
            return "raise" if turned > neutral else "lower"
    return verb


def _valued(change: Change, tokens: Sequence[Token]) -> Change:
    """The change with the values that the tokens give it."""
    new, old, ratio, delta = list[float](), None, None, None
    verb = _verb(tokens, change.subject)
    swapped = Token("verb", "replace") in tokens
    counted = any(vocabulary().section.get(name) == "counted!" for name in change.subject)
    numbers = [place for place, token in enumerate(tokens) if token.kind == "number"]
    pair = len(numbers) > 1 and all(tokens[place].unit == "x" for place in numbers)
    for place, token in enumerate(tokens):
        if token.kind == "factor":
            ends = [*tokens[max(0, place - 1) : place], *tokens[place + 1 : place + 2]]
            by = any(end.kind == "by" or end == Token("verb", "lower") for end in ends)
            ratio = 1 - token.value if by and token.value < 1 else token.value
            ratio = 1 + token.value if token.value < 1 and verb == "raise" else ratio
        if token.kind != "number":
            continue
        before = tokens[place - 1].kind if place else ""
        after = tokens[place + 1] if place + 1 < len(tokens) else Token("", "")
        turned = after.kind == "verb" and after.name in ("raise", "lower")
        if before in ("from", "instead") or after.kind == "arrow" or _goes_on(tokens, place):
            old = token.value if old is None else old
        elif token.unit == "x" and not pair and ("mlpratio" not in change.subject or token.value < 1):
            ratio = 1 / token.value if verb == "lower" and token.value > 1 else token.value
        elif "%" in token.unit and ((before == "by" and verb in ("raise", "lower")) or turned or token.unit == "+%"):
            ratio = 1 + token.value if verb != "lower" or token.value < 0 else 1 - token.value
        elif before == "by" and "scale" in change.subject:
            ratio = token.value
        elif (before == "by" and not swapped) or token.unit == "+" or (counted and (turned or _adds(tokens, place))):
            delta = -abs(token.value) if verb == "lower" or token.value < 0 else token.value
        else:
            new.insert(0 if before in ("arrow", "to") and old is not None else len(new), token.value)
    if "mlpratio" not in change.subject and old and not new and ratio:
        new = [old * ratio]
    if new and old:
        ratio, delta = new[0] / old, new[0] - old
    elif old is not None and delta is not None:
        new = [old + delta]
    return change._replace(new=tuple(new), old=old, ratio=ratio, delta=delta)


def _goes_on(tokens: Sequence[Token], place: int) -> bool:
    """Whether a value is the old one of two: 0.04 to 0.05, 0.04 up by 10%."""
    following = tokens[place + 1 : place + 3]
    if len(following) < 2 or following[0].kind == "number":
        return False
    stepped = following[0].name in ("raise", "lower") and following[1].kind == "by"
    values = following[1].kind == "number" and following[0].kind in ("to", "by")
    return stepped or values or (following[0].kind == "by" and following[1].kind == "factor")


def _adds(tokens: Sequence[Token], place: int) -> bool:
    """Whether a number says how many more: add two layers, 2 extra heads, one layer deeper."""
    near = [*tokens[max(0, place - 1) : place], *tokens[place + 1 : place + 2]]
    deeper = [token.name for token in tokens[place + 2 : place + 3] if _is_quantity(tokens[place + 1])]
    added = any(token.kind == "verb" and token.name in ("add", "remove") for token in near)
    return added or deeper in (["raise"], ["lower"])
