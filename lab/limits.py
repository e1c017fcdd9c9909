"""When a run of the director ends: the limits that it was given, and whether another experiment fits. Pure.

    asked = Asked(workers=1, agent="hpo", session="mar8", max_experiments=20, hours=8.0)
    asked.limit(begun=3, passed=1200.0, worked=1100.0, typical=330.0)       # None: another one fits

Not covered: endings that are nobody's wish, such as crashes and signals (`lab/director.py`).
"""

from typing import NamedTuple

from lab.brief import counted

DONE, TROUBLE, INTERRUPTED = 0, 1, 128  # exit codes; to the last the signal's number is added


class Ending(NamedTuple):
    """Why a run of the director ends, and its exit code: DONE, TROUBLE, or INTERRUPTED and the signal's number."""

    reason: str
    code: int


class Ended(NamedTuple):
    """Why a run of the director ended (`Ending`) and what it did; `spent` is None where there is no price."""

    reason: str
    code: int
    experiments: int
    kept: int
    crashed: int
    spent: float | None


class Asked(NamedTuple):
    """What a run of the director was asked for. Its limits are experiments, hours and money; None is no limit.

    `price` is that of an hour of a worker, 0 where it is unknown. A synthesis is written every so many experiments, and
    `same_error` crashes in a row that say the same, or suspect runs, end the run.
    """

    workers: int
    agent: str
    session: str
    track: str | None = None
    max_experiments: int | None = None
    hours: float | None = None
    budget: float | None = None
    price: float = 0.0
    synthesis_interval: int = 20
    same_error: int = 3

    def limit(self, begun: int, passed: float, worked: float, typical: float) -> str | None:
        """Why another experiment does not fit, None where it does.

        `begun` experiments are done or under way; `passed` seconds have gone by, and of work there will have been
        `worked` once those under way are done. Another takes about `typical` seconds.
        """
        if self.max_experiments is not None and begun >= self.max_experiments:
            return f"{counted(begun, 'experiment')} done, as many as were asked for"
        if self.hours is not None and passed + typical > self.hours * 3600:
            left = max(self.hours * 60 - passed / 60, 0.0)
            return f"{left:.1f} minutes of {self.hours:g} h are left, an experiment takes about {typical / 60:.1f}"
        left, cost = (self.budget or 0.0) - self.cost(worked), self.cost(typical)
        if self.budget is not None and cost > left:
            return (
                f"{max(left, 0.0):.2f} of the budget of {self.budget:g} is left, an experiment takes about {cost:.2f}"
            )
        return None

    def cost(self, seconds: float) -> float:
        """What so many seconds of a worker cost."""
        return seconds / 3600 * self.price
