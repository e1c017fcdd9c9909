"""Which kind of experiment a track needs next: rules over its recent history, in order, each with its reason. Pure.

    choice = choose(numbers, settings)                 # `numbers` from lab.situation
    choice.mode, choice.reason

The first rule of `RULES` that applies decides. Its thresholds are settings (`lab/settings.py`, from `recent_runs` on).
Not covered: where the numbers come from and what is pinned (`lab/situation.py`), what to try in a mode
(`lab/suggest.py`).
"""

from collections.abc import Callable
from typing import NamedTuple

from lab.settings import Settings

PAIR = 2  # near misses: the least that can be put together


class Numbers(NamedTuple):
    """What the rules look at, of one track.

    A new idea is a run after the baseline that is no repeat: the first look at a configuration. Retracted, quarantined
    and interrupted runs take no part. `recent` counts the newest new ideas, at most the setting `recent_runs`;
    `crashes` and `keeps` are of these. `since_keep` counts those that did not crash since a gain was last kept, and
    `near_misses` those of them, the newest `plateau_runs` at most, that were not kept though they came within `margin`
    (units of the metric) of the champion. `repeat_worth` is what the best repeat promises, as a multiple of what a new
    idea does; None where that is unknown.
    """

    runs: int
    champion: bool
    recent: int
    crashes: int
    keeps: int
    since_keep: int
    near_misses: int
    margin: float
    repeat_worth: float | None


class Choice(NamedTuple):
    """A mode, one of `lab.schema.STRATEGIES`, with the reason in words and the numbers it came from.

    `conservative` asks for small steps from what is known to run.
    """

    mode: str
    conservative: bool
    reason: str
    numbers: Numbers
    pinned: bool = False


class Rule(NamedTuple):
    """When it applies, the mode it stands for, and the reason with its numbers (`n`) and settings (`s`)."""

    applies: Callable[[Numbers, Settings], bool]
    mode: str
    reason: str
    conservative: bool = False


def _tells(n: Numbers, s: Settings) -> bool:
    """Whether the recent ideas are enough for a rate: half of as many as are looked at."""
    return 2 * n.recent >= s.recent_runs


def _crashing(n: Numbers, s: Settings) -> bool:
    return _tells(n, s) and n.crashes / n.recent > s.crash_rate


def _plateau(n: Numbers, s: Settings) -> bool:
    return n.since_keep >= s.plateau_runs


def _near(n: Numbers, s: Settings) -> bool:
    return _plateau(n, s) and n.near_misses >= PAIR


def _gaining(n: Numbers, s: Settings) -> bool:
    return _tells(n, s) and n.keeps / n.recent > s.keep_rate


def _unresolved(n: Numbers, s: Settings) -> bool:
    return n.repeat_worth is not None and n.repeat_worth > s.repeat_worth


_NO_GAIN = "plateau: new ideas since a gain was last kept: {n.since_keep}; "
_NEAR = "near misses, within {n.margin:.2g} of the champion, among the last {s.plateau_runs}: {n.near_misses}; "
RULES = (
    Rule(lambda n, s: not n.champion, "explore", "no champion yet, runs so far: {n.runs}; the baseline comes first"),
    Rule(
        _crashing, "exploit",
        "crashes among the last {n.recent} new ideas: {n.crashes}, more than {s.crash_rate:.0%}; small steps from what "
        "works", conservative=True,
    ),
    Rule(_near, "combine", _NO_GAIN + _NEAR + "put them together"),
    Rule(_plateau, "ablation", _NO_GAIN + _NEAR + "find out what the champion can do without"),
    Rule(
        _gaining, "exploit",
        "kept among the last {n.recent} new ideas: {n.keeps}, more than {s.keep_rate:.0%}; go on from what works",
    ),
    Rule(
        _unresolved, "replicate",
        "unresolved claims: a repeat promises {n.repeat_worth:.3g} times what a new idea does, more than "
        "{s.repeat_worth:.3g}",
    ),
    Rule(
        lambda n, s: True, "explore",
        "among the last {n.recent} new ideas kept: {n.keeps}, crashed: {n.crashes}; since a gain was last kept: "
        "{n.since_keep}; nothing speaks against new ones",
    ),
)  # fmt: skip


def choose(numbers: Numbers, settings: Settings) -> Choice:
    """The mode that the first rule that applies stands for."""
    rule = next(rule for rule in RULES if rule.applies(numbers, settings))
    return Choice(rule.mode, rule.conservative, rule.reason.format(n=numbers, s=settings), numbers)
