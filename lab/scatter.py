"""The noise of a ledger that knows nothing but values and descriptions: its repeats and its scatter. Pure.

    rows, pairs = with_repeats(rows)          # rows as `lab.belief.believe` takes them; repeats share an edit_key
    belief, noise = weigh(rows, "min")        # the posterior, and one figure for the noise with its interval

Three looks at one number. Near-duplicates (a changed seed, the champion again, one idea twice on one champion) differ
by noise alone, but are few: they have an interval, mostly a wide one. The late runs' differences from others on the
same champion are many, but hold real effects, which only widen them: they give an upper end. The belief
(`lab/belief.py`) weighs both, with a model of the effects. Where effects are small and of all sizes no model can tell
them from noise, so its figure is used only inside the interval of the other two, and its own is not stated.

Not covered: seeds and machines apart (`lab/stats.py`), and what the runs mean (`lab/audit.py`).
"""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from lab.belief import Belief
from lab.brief import counted
from lab.novelty import SAME_IDEA_THRESHOLD, similarity
from lab.stats import MIN_PAIRS, counts, magnitude
from lab.tree import MIN_STEPS, QUARTER_OF_NORMAL, believe

MAX_COMPARED = 300  # the newest so many ideas are compared with each other
MAX_MATES = 50  # earlier runs of the same champion that a run is paired with
LATE = 0.5  # the share of the runs that is late
# A description of these words and numbers alone, one of KEYS among them, is a run of what there was before.
KEYS = {
    "seed", "seeds", "rerun", "reruns", "rerunning", "repeat", "repeated", "repeats", "replicate", "replicated",
    "replication", "reproduce", "noop", "unchanged", "duplicate", "baseline", "again",
}  # fmt: skip
FILLERS = {
    "a", "an", "the", "of", "to", "from", "with", "for", "and", "as", "is", "on", "at", "random", "new", "different",
    "another", "other", "change", "changed", "changing", "changes", "no", "nothing", "only", "same", "config",
    "configuration", "settings", "code", "champion", "best", "current", "run", "runs", "check", "noise", "sanity",
    "test", "control", "verify", "confirm", "confirming", "confirmation", "variance", "original", "default",
    "defaults", "second", "third", "time", "numerical", "re",
}  # fmt: skip
_BASELINE = {"baseline", "original", "default", "defaults"}

Row = dict[str, Any]


class Pair(NamedTuple):
    """A run that repeats an earlier one's configuration: the places of both, and what tells."""

    first: int
    again: int
    why: str


def with_repeats(rows: Sequence[Row]) -> tuple[list[Row], list[Pair]]:
    """The rows, in their order, with an `edit_key` for every configuration, and the repeats that were found.

    Rows that know their edit_key keep it. A repeat is told by its words, or by an idea and a value tried twice on one
    champion.
    """
    keyed: list[Row] = []
    pairs: list[Pair] = []
    tried: list[int] = []  # what was edited from the champion of the moment
    baseline = champion = None
    for at, row in enumerate(rows):
        words = _words(row["hypothesis"])
        earlier, why = None, ""
        if not row["edit_key"] and counts(row):
            if champion is not None and words & KEYS and words <= KEYS | FILLERS:
                earlier, why = (baseline if words & _BASELINE else champion), "said to be a repeat"
            else:
                earlier, why = _same_idea(rows, tried[-MAX_MATES:], at), "one idea, one value, one champion"
        if earlier is not None:
            pairs.append(Pair(earlier, at, why))
        key = row["edit_key"] or (keyed[earlier]["edit_key"] if earlier is not None else f"row {at}")
        keyed.append(row | {"edit_key": key})
        if counts(row):
            tried.append(at)
            if row["status"] == "keep" and earlier is None:
                baseline, champion, tried = (at if baseline is None else baseline), at, []
    return keyed, pairs


def _words(text: str | None) -> frozenset[str]:
    """The words of a description without numbers and what stands in parentheses."""
    plain = re.sub(r"\([^)]*\)", " ", (text or "").casefold())
    return frozenset(word.replace("-", "") for word in re.findall(r"[^\W\d_][\w-]*", plain))


def _same_idea(rows: Sequence[Row], tried: Sequence[int], at: int) -> int | None:
    """The run of the same idea with the same numbers, among those tried on this champion.

    Without a number two descriptions may differ in what they do not say.
    """
    text = rows[at]["hypothesis"] or ""
    if not (numbers := _numbers(text)):
        return None
    for other in reversed(tried):
        words = rows[other]["hypothesis"] or ""
        if _numbers(words) == numbers and similarity(words, text) >= SAME_IDEA_THRESHOLD:
            return other
    return None


def _numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", re.sub(r"\([^)]*\)", " ", text.casefold())))


class Look(NamedTuple):
    """What one look says of the noise, in units of the metric: the figure, a 95% interval, and how many stand behind.

    None is unknown.
    """

    sd: float | None
    low: float | None
    high: float | None
    behind: int


class Estimate(NamedTuple):
    """The noise in one figure, in units of the metric: None where nothing tells it. `basis` says why it is this.

    `low` to `high` holds it with 95%; the looks behind are those at the repeats and at the late runs.
    """

    sd: float | None
    low: float | None
    high: float | None
    basis: str
    repeats: Look
    late: Look


def weigh(rows: Sequence[Row], direction: str, sigma: float | None = None) -> tuple[Belief | None, Estimate]:
    """The posterior of the runs and the noise it rests on; no posterior where the noise is unknown.

    `sigma` is the noise where somebody knows it.
    """
    results = [row["result"] for row in rows if counts(row)]
    scale = magnitude(results)
    again, late = of_repeats(rows), of_late_runs(rows)
    if sigma is not None:
        belief = _believe(rows, direction, sigma, scale, sigma)
        return belief, Estimate(sigma, None, None, "as given", again, late)
    low, high, why = _interval(again, late, results)
    if high is None:
        return None, Estimate(None, low, None, why, again, late)
    belief = _believe(rows, direction, math.sqrt((low or high / 4) * high), scale)
    sd = belief.noise.sd if belief else None
    if belief is None or sd is None:
        return None, Estimate(None, low, high, "the results are too close to zero to tell", again, late)
    inside = min(max(sd, low or 0.0), high)
    if inside != sd:
        belief = _believe(rows, direction, inside, scale, inside)
    return belief, Estimate(inside, low, high, why, again, late)


def _believe(rows: Sequence[Row], direction: str, prior: float, scale: float, sd: float | None = None) -> Belief | None:
    return believe(rows, direction, prior / scale, sd=sd) if scale and 0 < prior / scale < math.inf else None


def _interval(again: Look, late: Look, results: Sequence[float]) -> tuple[float | None, float | None, str]:
    """Where the noise lies, and what that rests on: low and high are None where nothing tells them."""
    if len(set(results)) == 1:
        return None, None, f"all {len(results)} results are equal" if len(results) > 1 else "there is one result"
    if late.high is not None and (again.low is None or again.low < late.high):
        high = late.high if again.high is None else min(late.high, again.high)
        if again.low is None:
            return None, high, "a model of all runs; nothing repeats, so it may be smaller"
        return again.low, high, "a model of all runs, within what repeats and late runs allow"
    if again.behind >= MIN_PAIRS and again.low:
        return again.low, again.high, "the repeats"
    few = f"{counted(again.behind, 'repeat')} ({MIN_PAIRS} would do)" if again.behind else "nothing repeats"
    return again.low, None, f"{few}, and {late.behind} late runs are too few or too equal"


def of_repeats(rows: Sequence[Row]) -> Look:
    """The pooled standard deviation within configurations, by chi-square; `behind` is its degrees of freedom."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if counts(row):
            groups.setdefault(row["edit_key"], []).append(row["result"])
    squares, freedom = 0.0, 0
    for group in groups.values():
        mean = sum(value / len(group) for value in group)
        squares += sum((value - mean) * (value - mean) for value in group)
        freedom += len(group) - 1
    if not freedom or not math.isfinite(squares):
        return Look(None, None, None, freedom)
    if not squares:
        return Look(0.0, None, None, freedom)
    low, high = (math.sqrt(squares / chi_square(share, freedom)) for share in (0.975, 0.025))
    return Look(math.sqrt(squares / freedom), low, high, freedom)


def chi_square(share: float, freedom: int) -> float:
    """The quantile of chi-square, by bisection of its distribution function (Abramowitz and Stegun 26.4.6 and 7)."""
    low, high = 0.0, freedom + 20.0 * math.sqrt(freedom) + 20.0
    for _ in range(100):
        middle = (low + high) / 2
        half, odd = middle / 2, freedom % 2
        below = math.erf(math.sqrt(half)) if odd else -math.expm1(-half)
        for term in range(odd or 2, freedom, 2):
            below -= math.exp(term / 2 * math.log(half) - half - math.lgamma(term / 2 + 1)) if half else 0.0
        low, high = (middle, high) if below < share else (low, middle)
    return (low + high) / 2


def of_late_runs(rows: Sequence[Row]) -> Look:
    """At most how large the noise is: the late runs' differences from earlier ones on the same champion.

    Of all these differences a quarter is smaller than 0.45 standard deviations where there is noise alone (Rousseeuw
    and Croux 1993, Alternatives to the median absolute deviation); real effects only widen them. `high` is the
    figure; `behind` is how many runs were late.
    """
    seen = [row for row in rows if counts(row)]
    late = int(len(seen) * LATE)
    mates: list[float] = []
    apart: list[float] = []
    for at, row in enumerate(seen):
        if at >= late:
            apart += [abs(row["result"] - mate) for mate in mates[-MAX_MATES:]]
        mates = [] if row["status"] == "keep" else [*mates, row["result"]]
    if len(apart) < MIN_STEPS:
        return Look(None, None, None, len(seen) - late)
    quarter = sorted(apart)[len(apart) // 4] / QUARTER_OF_NORMAL / math.sqrt(2)
    known = quarter if 0 < quarter < math.inf else None
    return Look(None, None, known, len(seen) - late)
