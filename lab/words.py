"""The words of an idea: from characters to tokens that have the names of the field's vocabulary. Pure.

    tokens("EMBEDDING_LR 0.6 -> 0.8")       # name embedding, name lr, number 0.6, arrow, number 0.8

`lab/vocabulary.py` has the tables. A word is told by its stem, a phrase by the longest one that fits, one letter may be
wrong in a long word, and a constant is read like its words. Only the first MAX_CHARACTERS are read, in linear time.
Not covered: what the tokens say together (`lab/ideas.py`).
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

from lab.rewrites import rewritten
from lab.vocabulary import (
    ALIASES,
    BASE,
    COMPARATIVES,
    COMPOUND,
    FACTORS,
    NUMBER_WORDS,
    REMARKS,
    STOPWORDS,
    TOGETHER,
    VERBS,
)  # fmt: skip

MAX_CHARACTERS = 1000
MIN_FUZZY_LETTERS = 6  # shorter words are too often one letter from another word: later, layer
SOFT_WEIGHT = 0.15  # of words such as `layer` or `scale`, beside a name's 1

# Characters that stand for a word or for another character.
_GREEK = str.maketrans({
    "\u03b2": " beta", "\u03bb": " lambda", "\u03b5": " eps", "\u03f5": " eps", "\u03b8": " theta", "\u03bc": " mu",
    "\u03c3": " sigma", "\u221a": " sqrt ", "\u00d7": "x", "\u2044": "/", "\u2212": "-", "\u2013": "-", "\u2014": " ; ",
    "\u2019": "'",
})  # fmt: skip
_LEXER = re.compile(
    r"(?P<arrow>[-=]+>|[→⇒➜➡])"
    r"|(?P<times>[xX](?:\d*\.\d+|[1-9]\d*)(?![\w]))"
    r"|(?P<ordinal>\d+(?:st|nd|rd|th)\b)"
    r"|(?P<word>[12][dD]\b|[^\W\d_]+[^\W_]*(?<![_]))"
    r"|(?P<number>(?:(?<![\w)])[-+])?(?:\d[\d_]*(?:,\d{3}(?!\d))*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
    r"(?:(?:\*\*|\^)-?\d+|/\d+(?![\d.])|\s?\*\s?\d+(?![\d.]))?"
    r"(?:\s?%|(?:[kKM]i?B?|[xX])(?![^\W\d]))?)"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<separator>[;,&+|]|\.\s)"
)
_CONNECTORS = {
    "to": "to", "into": "to", "toward": "to", "towards": "to", "becomes": "to", "become": "to", "from": "from",
    "by": "by", "with": "with", "for": "for",
    "was": "instead", "vs": "instead", "versus": "instead", "previously": "instead", "formerly": "instead",
    "and": "separator", "then": "separator", "plus": "separator", "while": "separator", "but": "separator",
}  # fmt: skip
_INSTEAD = {("instead",), ("rather", "than"), ("in", "place"), ("in", "lieu"), ("in", "favor"), ("in", "favour")}
_ARTICLES = {"the", "a", "an", "of", "its", "our", "way"}  # they stand inside of phrases


class Token(NamedTuple):
    """A piece of a text: its kind, its name, and its value with the unit ("x", "%", "+" or "") where it is a number."""

    kind: str
    name: str
    value: float = 0.0
    unit: str = ""


class Vocabulary(NamedTuple):
    """What the tables of `lab/vocabulary.py` say, by phrases of stems; `sizes` are the phrases' by their first word."""

    base: dict[tuple[str, ...], Token]
    compound: dict[tuple[str, ...], Token]
    section: dict[str, str]
    implied: dict[str, frozenset[str]]
    sizes: dict[str, list[int]]


@lru_cache(8192)
def stem(word: str) -> str:
    """The word without the endings that do not change what it is about: layers, layer; halving, halve."""
    word = ALIASES.get(word, word)
    if word.startswith("normali"):
        return "norm"
    word = word[:-1] if len(word) > 8 and word.endswith("ations") else word
    if len(word) <= 3 or not word.isascii() or word[-1].isdigit():
        return word
    word = word.replace("isation", "ization").removesuffix("ation") if len(word) > 8 else word
    word = re.sub("is(e|ed|es|ing)$", r"iz\1", word) if len(word) > 6 else word
    if word.endswith("ies"):
        return word[:-3] + "y"
    for ending, least in (("s", 4), ("ing", 6), ("ed", 5), ("e", 5)):
        if len(word) >= least and word.endswith(ending) and not word.endswith(("ss", "us", "is", "eed")):
            word = word.removesuffix(ending)
            if ending in ("ing", "ed") and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
    return word


@cache
def vocabulary() -> Vocabulary:
    """The tables, read once."""
    found = Vocabulary({}, {}, {}, {}, {})
    for table, phrases in ((BASE, found.base), (COMPOUND, found.compound)):
        section, general = "", frozenset[str]()
        for line in table.splitlines():
            if line.startswith("#"):
                section, _, rest = line.strip("# ").partition(" > ")
                general = frozenset(rest.split())
            elif line:
                name, _, rest = line.partition(":")
                synonyms, _, implied = rest.partition(">")
                found.section.setdefault(name, section)
                found.implied[name] = found.implied.get(name, general) | frozenset(implied.split())
                for synonym in synonyms.split(","):
                    words = [word for word in synonym.split() if word not in _ARTICLES]
                    key = tuple(words if phrases is found.compound else map(stem, words))
                    phrases.setdefault(key, Token("name", name))
    for line in VERBS.strip().splitlines():
        name, _, rest = line.partition(":")
        for synonym in rest.split(","):
            words = [word for word in synonym.split() if word not in _ARTICLES]
            found.base.setdefault(tuple(map(stem, words)), Token("verb", name))
    for phrase in (*found.base, *found.compound):
        sizes = found.sizes.setdefault(phrase[0], [])
        if len(phrase) > 1 and len(phrase) not in sizes:
            sizes.append(len(phrase))
            sizes.sort(reverse=True)
    return found


@cache
def _misspelt() -> dict[str, str]:
    """The words of the vocabulary by what may be left of them, one letter being wrong."""
    found: dict[str, str] = {}
    for word in sorted({word for phrase in vocabulary().base for word in phrase}):
        if len(word) >= MIN_FUZZY_LETTERS and word.isalpha():
            for slip in _slips(word):
                found.setdefault(slip, word)
    return found


def _slips(word: str) -> Iterator[str]:
    """The word and what is left of it without one of its letters: two words one slip apart share one of these."""
    yield word
    for place in range(len(word)):
        yield word[:place] + word[place + 1 :]


@lru_cache(8192)
def _spelt(word: str) -> str:
    """The stem that the vocabulary has for a word, though a letter be wrong; else the word's own stem."""
    known, root = vocabulary(), stem(word)
    if (root,) in known.base or root in known.sizes or len(word) < MIN_FUZZY_LETTERS - 1 or len(word) > 30:
        return root
    for place in range(len(word) - 1):  # two letters exchanged, or one doubled
        first, second = word[place], word[place + 1]
        exchanged = stem(word[:place] + (second + first if first != second else first) + word[place + 2 :])
        if exchanged in known.sizes and len(exchanged) > 3:
            return exchanged
    if len(root) < MIN_FUZZY_LETTERS - 1 or not root.isalpha() or len(root) > 30:
        return root
    slips = _slips(root) if len(root) >= MIN_FUZZY_LETTERS else (root,)
    return next((_misspelt()[slip] for slip in slips if slip in _misspelt()), root)


def weight(name: str) -> float:
    """How much of an idea a name of the vocabulary is: words such as `layer` or `scale` hardly tell two apart."""
    # What is not said to be anywhere is everywhere.
    return SOFT_WEIGHT if vocabulary().section.get(name) == "soft" or name == "every" else 1.0


def options(name: str) -> str:
    """The section of the vocabulary whose names exclude each other and that has this one, "" without one."""
    section = vocabulary().section.get(name, "pattern!" if " " in name else "")
    return section if section.endswith("!") else ""


@lru_cache(8192)
def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a description, in its order."""
    text = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS])[: 2 * MAX_CHARACTERS]
    text = text.translate(_GREEK)
    return tuple(_named(list(_raw(rewritten(text)))))


def _raw(text: str) -> Iterator[Token]:
    """Words (their stems, known or not), numbers and marks, as they stand."""
    base = vocabulary().base
    for match in _LEXER.finditer(text):
        kind, piece = str(match.lastgroup), match[0]
        if kind == "word":
            folded = piece.casefold()
            parts = [folded]
            if (stem(folded),) not in base and re.search("[a-z][A-Z]", piece):  # camelCase
                parts = re.sub("([a-z0-9])([A-Z])", r"\1 \2", piece).casefold().split()
            yield from (Token("word", part) for part in parts if part not in _ARTICLES)
        elif kind in ("number", "times", "ordinal"):
            number = _number(piece, kind)
            yield number if number else Token("word", piece.casefold())
        else:
            yield Token(kind, piece)


def _number(piece: str, kind: str) -> Token | None:
    """The number that is written there, None where it is beyond the floats."""
    text = piece.replace("_", "").replace(",", "").replace(" ", "").lower()
    unit = "+" if text[0] in "+-" else ""
    if kind == "times":
        text, unit = text[1:], "x"
    text = re.sub("(st|nd|rd|th)$", "", text)
    scale = 1.0
    if ending := re.search("(%|ki?b?|mi?b?|x)$", text):
        text = text[: ending.start()]
        scale = {"%": 0.01, "k": 1e3, "m": 1e6}.get(ending[0][0], 1.0)
        scale = scale * 1.024 ** (2 if scale > 1e3 else 1) if "i" in ending[0] else scale
        unit += {"%": "%", "x": "x"}.get(ending[0], "")
    try:
        if scale > 1 and text.replace(".", "").isdigit():
            scale = _binary(float(text), scale)  # tokens told in K or M are a power of two where that is close
        left, operator, right = (*re.split(r"(\*\*|\^|/|\*)", text, maxsplit=1), "", "")[:3]
        value = float(left)
        if operator:
            second = float(right)
            value = value * second if operator == "*" else value / second if operator == "/" else value**second
        value *= scale
    except (ValueError, ArithmeticError):
        return None
    return Token("number", piece, value, unit) if abs(value) < 1e300 else None


def _binary(count: float, scale: float) -> float:
    """The scale that makes a rounded power of two exact: 524K is 2**19, 1M is 2**20; other counts keep theirs."""
    exact = 2.0 ** round(math.log2(count * scale)) if count else 0.0
    return exact / count if exact and abs(count * scale - exact) <= (0.05 if scale > 1e3 else 0.03) * exact else scale


def _named(raw: list[Token]) -> list[Token]:
    """Words as what they name in the vocabulary, the longest phrase first, then names as what they mean together."""
    known = vocabulary()
    words = [_spelt(token.name) if token.kind == "word" else "" for token in raw]
    found: list[Token] = []
    place = 0
    while place < len(raw):
        size, token = _phrase(known.base, words, place)
        if raw[place].name in ("instead", "rather", "in"):
            plain = [token.name for token in raw[place : place + 2]]
            if instead := next((size for size in (2, 1) if tuple(plain[:size]) in _INSTEAD), 0):
                size, token = instead, Token("instead", "instead")
        found += [token] if token else _single(raw[place], words[place])
        place += size
    # "Rather than to zero": what is replaced is no goal.
    told = [
        token for before, token in pairwise([Token("", ""), *found]) if (before.kind, token.kind) != ("instead", "to")
    ]
    return _compounds(_zeros(_counted(_without_one(told))))


def _without_one(tokens: list[Token]) -> list[Token]:
    """Without the "one" that counts nothing: one layer, but not "as one matrix"."""
    known = ("quantity!", "counted!", "moment!")
    nexts = [*tokens[1:], Token("", "")]
    return [
        token
        for before, token, after in zip([Token("", ""), *tokens], tokens, nexts, strict=False)
        if token.name != "one" or token.kind != "number" or after.name in ("layer", "step", "expert")
        or after.kind in ("verb", "arrow") or vocabulary().section.get(after.name) in known
        or (before.kind == "by" and after.kind != "number")
    ]  # fmt: skip


def _zeros(tokens: list[Token]) -> list[Token]:
    """Zero as a number where something is set to it, but for weights: they start at it."""
    if any(token.name == "init" for token in tokens):
        return [Token("name", "zero") if token.kind == "number" and token.value == 0 else token for token in tokens]
    after = ["", *(token.kind for token in tokens)]
    return [
        Token("number", "zero") if token.name == "zero" and before in ("to", "from", "instead", "name") else token
        for before, token in zip(after, tokens, strict=False)
    ]


def _single(token: Token, root: str) -> list[Token]:
    """What one token means by itself."""
    name = token.name
    if token.kind != "word":
        return [token]
    if name in _CONNECTORS:
        return [Token(_CONNECTORS[name], name)]
    if name in COMPARATIVES:
        verb, subject = COMPARATIVES[name]
        return [Token("verb", verb), Token("name", subject)]
    if factor := _factors().get(root):
        return [Token("factor", name, factor, "x")]
    if name in NUMBER_WORDS:
        return [Token("number", name, NUMBER_WORDS[name], "word")]
    if name in ("second", "third", "fourth"):
        return [Token("number", name, float(("second", "third", "fourth").index(name) + 2), "word")]
    if re.fullmatch("[sl]{3,}", name) and len(set(name)) == 2:
        return [Token("name", f"pattern {name}")]
    if found := vocabulary().base.get((root,)):
        return [found]
    if name in REMARKS:
        return [Token("remark", name)]
    return [] if name in STOPWORDS else [Token("word", root)]


def together(names: frozenset[str]) -> frozenset[str]:
    """The names of one change, those that mean one thing together as that: the gate of VE, 32 channels."""
    for parts, name in _together():
        if parts <= names:
            names = names - parts | {name}
    return names


@cache
def _together() -> list[tuple[frozenset[str], str]]:
    lines = (line.split(":") for line in TOGETHER.strip().splitlines())
    return [(frozenset(parts.split()), name) for name, called in lines for parts in called.split(",")]


@cache
def _factors() -> dict[str, float]:
    """The factors that words name, by their stems: doubled, doubling."""
    return {stem(word): factor for word, factor in FACTORS.items()}


def _counted(tokens: list[Token]) -> list[Token]:
    """Layers that are counted (10 layers, fewer blocks, add a layer) are the depth; others are a place."""
    section, found = vocabulary().section, list(tokens)
    for place, token in enumerate(tokens):
        if token.name != "layer" or token.kind != "name":
            continue
        before = tokens[max(0, place - 3) : place]
        placed = any(section.get(item.name) == "place!" for item in before)
        after = tokens[place + 1].kind if place + 1 < len(tokens) else ""
        near = before[-1] if before else Token("", "")
        counts = near.kind == "number" or (near.kind == "verb" and near.name in ("raise", "lower"))
        counts = counts or (near.kind == "verb" and near.name in ("add", "remove") and after not in ("name", "word"))
        if counts and not placed and near.unit != "%":
            found[place] = Token("name", "depth")
    return found


def _compounds(tokens: list[Token]) -> list[Token]:
    names, found, place = [token.name for token in tokens], list[Token](), 0
    while place < len(tokens):
        size, token = _phrase(vocabulary().compound, names, place)
        found.append(token or tokens[place])
        place += size
    return found


def _phrase(table: dict[tuple[str, ...], Token], words: Sequence[str], place: int) -> tuple[int, Token | None]:
    """How many words from `place` on the longest phrase of the table has, and what it names; (1, None) without one."""
    for size in vocabulary().sizes.get(words[place], ()):
        if token := table.get(tuple(words[place : place + size])):
            return size, token
    return 1, None


@lru_cache(4096)
def content(text: str) -> tuple[Token, ...]:
    """The names, words, verbs and values of a description, without what joins them."""
    return tuple(token for token in tokens(text) if token.kind in ("name", "word", "number", "verb", "factor"))
