"""Simulated nights of experiments, where the truth is known: for `bench_decisions.py`.

    live(Task("h100", 0.001, 100, "ledger", 7))     # what comes of the seventh night; always the same

A night begins at a baseline of 1.0. An idea changes the metric by a draw from a distribution of effects, whatever it is
added to; a run shows the sum through normal noise. `greedy` keeps what is smaller than the best it saw. Ours keeps what
is expected to be an improvement (`lab.belief`) and repeats what is worth more than a new idea: `ledger` knows repeats
from earlier nights, `first` begins with nothing and repeats the baseline and its champions. Every run of the night
counts, repeats too. The posterior is fitted anew at every keep and repeat and every 10 runs (25 in long nights), to the
runs that `lab.judgement` would take; in between the last one judges.

Not covered: challengers in flight, several machines, ideas that depend on each other or on what was learnt.
"""

import copy
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from lab.belief import Belief
from lab.findings import judged
from lab.judgement import KEPT, RECENT
from lab.settings import Settings
from lab.tree import believe

PRIOR = 0.0005  # the noise that ours expects, relative to the metric
BASELINE = 1.0
SETTINGS = Settings()
MOST_RUNS = 4  # of one edit before it is kept or left
LEDGER_EDITS, LEDGER_RUNS = 8, 4  # earlier nights: so many edits of the baseline, so many runs of each
FIRST_REPEATS, SENTINEL_EVERY = 2, 25  # `first`: of the baseline at the start, and of the champion
CONFIRM_SHARE, MOST_FRESH = 0.1, 6  # findings: the share of a night's runs, and fresh runs of one edit
# Columns of the index that say nothing here.
UNKNOWN = (
    "quarantined", "train_sha256", "commit_id", "parent_commit", "machine", "hypothesis", "config_diff", "confirmed",
)  # fmt: skip
BROKEN, BROKEN_BY = 0.008, 1.0  # the share of ideas that break everything (one in the H100's log), and by how much
DRIFT, STEP = 3.0, 2.0  # of the drifting machine, in standard deviations of the noise: at most so much
# The effects in a real night of 125 runs on an H100, by `bench_decisions.py --fit`: the shares of ideas that help and
# that hurt, each with the mean and the standard deviation of the logarithm of its size; the rest does nothing.
H100 = (0.06, -6.34, 1.38, 0.29, -6.45, 0.96)

Draw = Callable[[random.Random], float]


def ideas(chance: random.Random) -> float:
    """Fifteen of a hundred help, 35 do exactly nothing, half of them hurt."""
    place = chance.random()
    if place < 0.15:
        return -chance.expovariate(1 / 0.0012)
    return 0.0 if place < 0.5 else chance.expovariate(1 / 0.002)


def h100(chance: random.Random) -> float:
    """As in a real night on an H100."""
    helps, gain, gain_spread, hurts, loss, loss_spread = H100
    if chance.random() < BROKEN:
        return BROKEN_BY
    place = chance.random()
    if place < helps:
        return -chance.lognormvariate(gain, gain_spread)
    return chance.lognormvariate(loss, loss_spread) if place < helps + hurts else 0.0


def heavy(chance: random.Random) -> float:
    """Student's t with two degrees of freedom: no variance, nothing that does exactly nothing."""
    return 0.001 + 0.001 * chance.gauss(0, 1) / math.sqrt(chance.expovariate(1))


DISTRIBUTIONS: dict[str, Draw] = {"ideas": ideas, "h100": h100, "heavy": heavy, "drift": ideas}
POLICIES = ("greedy", "ledger", "first")


class Outcome(NamedTuple):
    """What came of a night. Improvements are positive; `stated` are (probability of a gain, whether it was one)."""

    gained: float
    claimed: float
    kept: int
    kept_wrongly: int
    repeated: int = 0
    gained_confirming: float = 0.0  # by the same night when it spends its last tenth on findings
    confirmed: int = 0
    confirmed_wrongly: int = 0
    noise: float = 0.0  # as believed
    champion_off: float = 0.0  # its believed value less its true one, in stated standard deviations
    stated: tuple[tuple[float, bool], ...] = ()


class World:
    """One night's ideas and machine: the same ideas in the same order for every policy."""

    def __init__(self, distribution: str, noise: float, runs: int, night: int) -> None:
        self.noise, self.runs, self.done = noise, runs, 0
        self._draw = DISTRIBUTIONS[distribution]
        self._ideas, self._shots = random.Random(f"idea {night}"), random.Random(f"shot {night}")
        self._before = random.Random(f"before {night}")
        weather = random.Random(f"weather {night}")
        share = noise if distribution == "drift" else 0.0
        self._drift, self._step = share * weather.uniform(-DRIFT, DRIFT), share * weather.uniform(-STEP, STEP)
        self._step_at = weather.random()

    @property
    def over(self) -> bool:
        """Whether the night's runs are spent."""
        return self.done >= self.runs

    def idea(self) -> float:
        """The effect of the next idea."""
        return self._draw(self._ideas)

    def earlier_idea(self) -> float:
        """The effect of an idea of an earlier night."""
        return self._draw(self._before)

    def earlier(self, true: float) -> float:
        """What a run showed on an earlier night, when the machine stood still."""
        return self._shots.gauss(true, self.noise)

    def run(self, true: float) -> float:
        """What a run now shows."""
        at = self.done / self.runs
        self.done += 1
        return self._shots.gauss(true, self.noise) + self._drift * at + self._step * (at >= self._step_at)


def greedy(world: World) -> Outcome:
    """Keep what is smaller than the best seen."""
    true, first = BASELINE, world.run(BASELINE)
    best, kept, wrong = first, 0, 0
    while not world.over:
        effect = world.idea()
        result = world.run(true + effect)
        if result < best:
            best, true, kept, wrong = result, true + effect, kept + 1, wrong + (effect >= 0)
    return Outcome(BASELINE - true, first - best, kept, wrong)


class Ours:
    """A night judged by `lab.belief`. Configurations are known by their edit, 0 is the baseline."""

    def __init__(self, world: World, ledger: bool) -> None:
        self.world, self.sentinel_every = world, 0 if ledger else SENTINEL_EVERY
        self.fit_every = 25 if world.runs > 300 else 10
        self.rows: list[dict[str, Any]] = []
        self.true = {0: BASELINE}
        self.parent: dict[int, int] = {}
        self.first_run: dict[int | None, str] = {}
        self.changed: list[int] = []  # the edits that were kept
        self.wrong = self.repeated = 0
        self.stated: list[tuple[float, bool]] = []
        self._record(0, world.run(BASELINE))["status"] = "keep"
        if ledger:
            for _ in range(LEDGER_EDITS):
                edit = self._new(0, world.earlier_idea())
                for _ in range(LEDGER_RUNS):
                    self._record(edit, world.earlier(self.true[edit]))
        else:
            for _ in range(FIRST_REPEATS):
                self.run(0)
        self.fit()

    def _new(self, parent: int, effect: float) -> int:
        edit = len(self.true)
        self.true[edit], self.parent[edit] = self.true[parent] + effect, parent
        return edit

    def _record(self, edit: int, result: float) -> dict[str, Any]:
        number = len(self.rows)
        row: dict[str, Any] = dict.fromkeys(UNKNOWN)
        kept = edit == 0 or edit in self.changed
        row |= {"id": f"{number:08d}", "timestamp": f"{number:08d}", "seed": number, "edit_key": f"edit {edit}",
                "status": "keep" if kept else "revert", "result": result, "edit": edit,
                "champion": self.first_run.get(self.parent.get(edit))}  # fmt: skip
        self.rows.append(row)
        self.first_run.setdefault(edit, f"{number:08d}")
        return row

    def run(self, edit: int) -> dict[str, Any]:
        """Run an edit once more."""
        return self._record(edit, self.world.run(self.true[edit]))

    def fit(self) -> None:
        """Fit the posterior: to the newest runs and the newest that were kept."""
        newest = len(self.rows) - RECENT
        kept = [number for number, row in enumerate(self.rows) if row["status"] == "keep"][-KEPT:]
        told = {row["edit"] for row in (self.rows[number] for number in kept)}
        rows = [row for number, row in enumerate(self.rows) if number >= newest or row["edit"] in told]
        self.take(rows)

    def take(self, rows: list[dict[str, Any]]) -> None:
        """Believe what these runs say."""
        belief = believe(rows, "min", PRIOR)
        assert belief and belief.champion
        self.belief: Belief = belief
        self.nodes = {node.key: node for node in belief.nodes.values()}
        self.fitted = len(self.rows)

    @property
    def champion(self) -> int:
        """The edit that is believed to be best."""
        return int(self.rows[int(self.belief.champion or 0)]["edit"])

    def search(self, until: int) -> None:
        """Try ideas until so many of the night's runs are spent."""
        since = 0
        while self.world.done < until:
            if self.sentinel_every and since >= self.sentinel_every:
                self.run(self.champion)
                self.fit()
                since = 0
                continue
            before = self.world.done
            self.attempt(until)
            since += self.world.done - before
            if len(self.rows) - self.fitted >= self.fit_every:
                self.fit()

    def attempt(self, until: int) -> None:
        """Try an idea, repeat it while that is worth more than a new one, and keep it if it is expected to improve."""
        champion = self.champion
        edit = self._new(champion, self.world.idea())
        helps = self.true[edit] < self.true[champion]
        row = self.run(edit)
        verdict = self.belief.verdict(row["result"], self.belief.champion)
        assert verdict
        self.stated.append((verdict.better, helps))
        looks = 1
        while looks < MOST_RUNS and verdict.repeat_pays > 1 and self.world.done < until:
            self.run(edit)
            looks, self.repeated = looks + 1, self.repeated + 1
            self.fit()
            node = self.nodes[f"edit {edit}"]
            verdict = self.belief.verdict(None, node.parent, node)
            assert verdict
            self.stated.append((verdict.better, self.true[edit] < self.true[self.champion]))
        if verdict.expected < 0:
            self.changed.append(edit)
            self.wrong += not helps
            for row in self.rows:
                if row["edit"] == edit:
                    row["status"] = "keep"
            self.fit()

    def standing(self, edit: int) -> str:
        """What the finding that this edit helps stands at: confirmed, likely, unclear or refuted."""
        node = self.nodes[f"edit {edit}"]
        if node.from_parent is None:  # nothing but the step tells what it or its parent is
            return "unclear"
        return judged(
            self.belief, node, {row["id"]: row for row in self.rows if row["edit"] == edit}, SETTINGS
        ).standing

    def confirm(self) -> None:
        """Spend the rest of the night on fresh runs of the largest gains."""

        def gain(edit: int) -> float:
            verdict = self.belief.step(self.nodes[f"edit {edit}"].card)
            return verdict.expected if verdict else 0.0

        for edit in sorted(self.changed, key=gain):
            for _ in range(MOST_FRESH):
                if self.world.over or self.standing(edit) in ("confirmed", "refuted"):
                    break
                self.run(edit)

    def night(self) -> Outcome:
        """The whole night, and beside it the one that spends its last tenth on findings."""
        self.search(self.world.runs - round(self.world.runs * CONFIRM_SHARE))
        confirming = copy.deepcopy(self)
        self.search(self.world.runs)
        self.take(self.rows)
        confirming.take(confirming.rows)
        confirming.confirm()
        confirming.take(confirming.rows)
        best = self.champion
        value, sd = self.belief.value(self.nodes[f"edit {best}"].card)
        baseline, _ = self.belief.value(self.nodes["edit 0"].card)
        found = [edit for edit in confirming.changed if confirming.standing(edit) == "confirmed"]
        return Outcome(
            BASELINE - self.true[best], baseline - value, len(self.changed), self.wrong, self.repeated,
            BASELINE - confirming.true[confirming.champion], len(found),
            sum(self.true[edit] >= self.true[self.parent[edit]] for edit in found),
            self.belief.noise.sd or 0.0, (value - self.true[best]) / sd, tuple(self.stated),
        )  # fmt: skip


class Task(NamedTuple):
    """A night to be lived through."""

    distribution: str
    noise: float
    runs: int
    policy: str
    night: int


def live(task: Task) -> Outcome:
    """What comes of a night; equal tasks have equal outcomes."""
    world = World(task.distribution, task.noise, task.runs, task.night)
    return greedy(world) if task.policy == "greedy" else Ours(world, task.policy == "ledger").night()
