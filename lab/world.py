"""What suggestions are made from, and what one is: the records that the planning modules share. Pure.

    world.suggestion(0.0004, 0.05, mode="explore", category="optimizer", ...)     # with what it promises

Not covered: where a world comes from (`lab/planning.py`), what is suggested (`lab/suggest.py`, `lab/recombine.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lab.bandit import Trial
from lab.belief import Belief
from lab.catalogue import Idea
from lab.effects import Effect

TEXT = 120  # characters of what others wrote, in a description


class Suggestion(NamedTuple):
    """An experiment to run. `changes` is {CONSTANT: new value} where that says all of it, None where words must.

    `expected` is the improvement that one run promises in units of the metric, None where there is no champion to say
    how large that is, and `per_minute` that for a minute of the device. `cards` are those it rests on; `replicates`,
    `seed` and `commit` are a repeat's.
    """

    mode: str
    category: str
    target: str
    direction: str
    description: str
    changes: dict[str, Any] | None
    cards: tuple[str, ...]
    expected: float | None
    per_minute: float | None
    why: str
    source: str | None = None
    replicates: str | None = None
    seed: int | None = None
    commit: str | None = None


class World(NamedTuple):
    """What suggestions are made from.

    `trials` oldest first; `config` of the champion, {} where unknown; `edits` has hypothesis, category and config_diff
    of the cards in `belief`. `size` is the champion's value; as shares of it, `effects` is what an idea does and
    `noise` the variance of what a run shows of that. `minutes` is what a run takes of the device.
    """

    trials: Sequence[Trial]
    config: Mapping[str, Any]
    belief: Belief | None
    edits: Mapping[str, Mapping[str, Any]]
    ideas: Sequence[Idea]
    effects: Sequence[Effect]
    size: float
    noise: float
    minutes: float
    conservative: bool = False

    @property
    def champion(self) -> str | None:
        """The champion's card."""
        return self.belief.champion if self.belief else None

    def suggestion(self, gain: float, crash: float = 0.0, **about: Any) -> Suggestion:
        """A suggestion whose run promises this gain, a share of the metric, unless it crashes, which has a chance."""
        expected = gain * (1 - crash) * self.size
        return Suggestion(expected=expected, per_minute=expected / self.minutes, **about)
