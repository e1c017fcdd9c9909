"""The posterior over a track's configurations: one tree, in which every run counts where it was made. Pure.

    belief = believe(rows, "min", 0.0005)              # rows of the index, in any order

The model: a run shows its configuration's true value through noise; a configuration is a step from the one that was
edited, and what the step does has a prior, learnt from all steps (`lab/effects.py`). So the smallest number ever seen
is not taken at its word, a rejected run says something about the champion too, a repeat counts where it was made, and
a challenger that started from an older champion is measured against that one. The posterior over the tree of
configurations is found by expectation propagation (Minka 2001, A family of algorithms for approximate Bayesian
inference), noise and prior by EM in between. Messages may have a negative precision: where that was forbidden, stated
probabilities came out too small.

Not covered: where the rows come from (`lab/judgement.py`), what the belief answers (`lab/belief.py`).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lab.belief import FARTHEST, LEAST, Belief, Node, Row, as_number, inside
from lab.effects import learn, moments, prior_effects
from lab.stats import Noise, Repeats, configuration, counts, magnitude, median, repeats, unchosen

TYPICAL_GAIN = 2.5  # of an idea, in standard deviations of the noise, before there are results
TYPICAL_WEIGHT = 10  # how many experiments that is worth
PRIOR_RUNS = 1.0  # how many runs the prior of the noise is worth
ELSEWHERE_WEIGHT = 0.5  # what an experiment on another track counts
MAX_LEARNT, MAX_SEARCHED = 400, 100  # the newest so many steps tell the effects, and the noise
FINER = (1 / 4, 1.0, 4.0)  # multiples of the variance that are tried once it is known roughly
MOST_TRIED = 12  # before that
SEARCH_STEPS = 2  # of EM, to compare them
ENOUGH_REPEATS = 10  # beyond the first run of each edit: then the noise is theirs, and steps are not asked
MIN_STEPS = 20  # before their scatter says something about the noise
QUARTER_OF_NORMAL = 0.3186  # a quarter of standard normal values lie this close to zero


def believe(
    rows: Iterable[Row], direction: str, prior: float, elsewhere: Sequence[tuple[float, float]] = (),
    sd: float | None = None,
) -> Belief | None:  # fmt: skip
    """The posterior of a track from its runs; None where no run has a result, or nothing tells the scale of noise.

    `prior` is the noise to expect, relative to the metric. `elsewhere` are effects on other tracks, negative where they
    improved the metric, each with the standard deviation of what was seen; both relative to the metric. `sd`
    is the noise in the metric where it is known: then it is not estimated.
    """
    seen = [row for row in sorted(rows, key=lambda row: (row["timestamp"], row["id"])) if counts(row)]
    if not seen:
        return None
    results = [row["result"] for row in seen]
    centre = median(results)
    unit = prior * magnitude(results)
    if unit < 1e-300:
        return None
    ledger = repeats(seen)
    tree = Tree(seen, ledger, centre, unit, direction)
    tree.fit([(effect / prior, noise / prior) for effect, noise in elsewhere], None if sd is None else (sd / unit) ** 2)
    given, sd = sd is not None, as_number(math.sqrt(tree.variance) * unit)
    scatter = f"the scatter of {len(seen)} runs" if len(tree.parent) > MIN_STEPS else ""
    edits = "one edit" if ledger.configurations == 1 else f"{ledger.configurations} edits"
    repeated = f"{ledger.runs} repeats of {edits}" if ledger.runs else ""
    told = " and ".join(part for part in (repeated, scatter) if part)
    basis = (f"from {told}" if told else "assumed") + ("" if repeated else "; no repeats yet")
    basis = "as given" if given else basis
    nodes = {node.card: node for node in tree.nodes()}
    kept = [node for node in nodes.values() if node.kept]
    champion = min(kept, key=lambda node: node.mean, default=None)
    return Belief(
        direction, unit, centre, tree.variance, Noise(sd, basis), ledger, tree.effects, nodes, tree.commits(),
        champion.card if champion else None,
    )  # fmt: skip


def _normal(known: tuple[float, float]) -> tuple[float, float]:
    """(mean, variance) of (precision, precision times mean)."""
    return known[1] / known[0], 1 / known[0]


def _scatter(looks: Sequence[tuple[float, float]]) -> float:
    """The sum of squares of looks at one configuration around their mean, each by its factor of the variance."""
    weight = sum(1 / factor for _, factor in looks)
    mean = sum(value / factor for value, factor in looks) / weight
    return sum((value - mean) ** 2 / factor for value, factor in looks)


def _highest(score: Callable[[float], float], multiples: Sequence[float]) -> float:
    """Where the score is highest: at the best of the multiples, or where a parabola through it has its top."""
    scores = [score(times) for times in multiples]
    best = max(range(len(multiples)), key=scores.__getitem__)
    if best in (0, len(multiples) - 1):
        return multiples[best]
    left, top, right = scores[best - 1 : best + 2]
    bend = left - 2 * top + right
    step = multiples[1] / multiples[0]
    return multiples[best] * float(step ** (0.5 * (left - right) / bend)) if bend else multiples[best]


class Tree:
    """The configurations of a track and the messages between them; nodes are numbers, parents before children.

    Means are kept as (precision, precision times mean), which add up.
    """

    def __init__(self, rows: Sequence[Row], ledger: Repeats, centre: float, unit: float, direction: str) -> None:
        self.members: list[list[Row]] = []
        self.parent: list[int] = []
        self.by_commit: dict[str, int] = {}
        self._plant(rows)
        machine = min((ledger.between_machines or 0.0) / unit, FARTHEST) ** 2

        def looks_of(runs: Sequence[Row]) -> list[tuple[float, float]]:
            """(value, variance as a share of the noise's): runs of one seed on one machine are one look together."""
            groups: dict[Any, list[float]] = {}
            for row in runs:
                seed = row["id"] if row["seed"] is None else row["seed"]
                value = inside(row["result"], centre, unit, direction)
                groups.setdefault((row["machine"], seed), []).append(value)
            share = ledger.seed_share
            return [
                (sum(group) / len(group), share + (1 - share) / len(group) + (name != ledger.main_machine) * machine)
                for (name, _), group in groups.items()
            ]

        self.looks = [looks_of(members) for members in self.members]
        fair = [looks_of(unchosen(members)) for members in self.members]
        self.freedom = sum(len(looks) - 1 for looks in fair)
        self.squares = sum(_scatter(looks) for looks in fair)
        self.variance = 1.0
        self.effects = prior_effects(TYPICAL_GAIN)
        self.own: list[tuple[float, float]] = []
        self.total: list[tuple[float, float]] = []
        self.up: list[tuple[float, float]] = []  # what a step tells about the parent
        self.down: list[tuple[float, float]] = []  # what it tells about the child
        self.inner = sorted({parent for parent in self.parent if parent >= 0})

    def _plant(self, rows: Sequence[Row]) -> None:
        """Group the runs by configuration, and find what each was edited from.

        That is what its commit says, or its card; else the run that was kept last.
        """
        place: dict[str, int] = {}
        by_card: dict[str, int] = {}
        by_commit = self.by_commit
        last_kept = -1
        for row in rows:
            key, commit = configuration(row), (row["commit_id"] or "")[:7]
            node = place.setdefault(key, len(self.members))
            if node == len(self.members):
                self.members.append([])
                known = (
                    by_commit.get(commit, -1) if row["edit_key"] else -1,  # an edit that was not committed
                    by_commit.get((row["parent_commit"] or "")[:7], -1),
                    by_card.get(row["champion"] or "", -1),
                    last_kept,
                    node - 1,
                )
                self.parent.append(next((parent for parent in known if parent >= 0), -1))
            self.members[node].append(row)
            by_card[row["id"]] = node
            kept = row["status"] == "keep"
            if commit and (kept or commit not in by_commit):
                by_commit[commit] = node
            if kept:
                last_kept = node

    def fit(self, elsewhere: Sequence[tuple[float, float]], variance: float | None = None) -> None:
        """Learn the effects, and the noise where its variance is not given, and find the posterior."""
        if variance is None and self.freedom >= ENOUGH_REPEATS:
            variance = (PRIOR_RUNS + self.squares) / (PRIOR_RUNS + self.freedom)
        rough = self._roughly() if variance is None else (1.0,)
        self.variance = max(self.variance if variance is None else variance, LEAST)
        for multiples in (rough, FINER if variance is None else (1.0,)):
            self._reset()
            self._spread()
            self._learn(elsewhere, multiples)
        self._reset()
        self._spread()
        self._spread()

    def _roughly(self) -> Sequence[float]:
        """Set the noise to where its search begins, and return the multiples to try, a geometric series.

        It begins at as much as the closest steps allow. From below the noise would not be found: a lucky champion seems
        to be as good as it looked, and what follows worse. The series reaches beyond what the repeats say.
        """
        repeated = self.variance = max((PRIOR_RUNS + self.squares) / (PRIOR_RUNS + self.freedom), LEAST)
        own = [looks[0][0] for looks in self.looks]
        steps = sorted(abs(own[node] - own[parent]) for node, parent in enumerate(self.parent) if parent >= 0)
        if len(steps) < MIN_STEPS:
            return (1.0,)
        self.variance = max((steps[len(steps) // 4] / QUARTER_OF_NORMAL) ** 2 / 2, LEAST)
        low, high = min(repeated / self.variance, 1.0) / 16, max(repeated / self.variance, 1.0) * 4
        count = min(math.ceil(math.log(high / low, 4)) + 1, MOST_TRIED)
        return [low * (high / low) ** (place / (count - 1)) for place in range(count)]

    def _reset(self) -> None:
        """Begin from what the runs show by themselves."""
        self.own = []
        for looks in self.looks:
            precision = sum(1 / factor for _, factor in looks) / self.variance
            self.own.append((precision, sum(value / factor for value, factor in looks) / self.variance))
        self.total = self.own[:]
        self.up, self.down = ([(0.0, 0.0)] * len(self.own) for _ in range(2))

    def _spread(self) -> None:
        """Pass messages along all steps towards the root, and back to the configurations that have children."""
        for node in range(len(self.parent) - 1, -1, -1):
            self._pass(node)
        for node in self.inner:
            self._pass(node)

    def apart(self, node: int) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """(mean, variance) of the child and of the parent of a step, as known without the step."""
        parent = self.parent[node]
        if parent < 0:
            return None
        child_precision = self.total[node][0] - self.down[node][0]
        parent_precision = self.total[parent][0] - self.up[node][0]
        if child_precision <= LEAST or parent_precision <= LEAST:
            return None
        child = (self.total[node][1] - self.down[node][1]) / child_precision
        mother = (self.total[parent][1] - self.up[node][1]) / parent_precision
        return (child, 1 / child_precision), (mother, 1 / parent_precision)

    def _pass(self, node: int) -> None:
        """Tell both ends of the step to this configuration what the other end and the prior say about them."""
        apart = self.apart(node)
        if apart is None:
            return
        (child, child_variance), (mother, mother_variance) = apart
        variance = child_variance + mother_variance
        mean, spread = moments(child - mother, variance, self.effects)
        moved, share = mean - (child - mother), child_variance / variance
        self._tell(node, self.down, node, apart[0], share * moved, share, spread)
        self._tell(self.parent[node], self.up, node, apart[1], (share - 1) * moved, 1 - share, spread)

    def _tell(
        self, end: int, messages: list[tuple[float, float]], step: int, known: tuple[float, float], moved: float,
        share: float, spread: float,
    ) -> None:  # fmt: skip
        """Replace a step's message to one of its ends, whose mean it moves by `moved`."""
        mean, variance = known
        now = max(variance * (1 - share) + share * share * spread, LEAST)
        precision, lean = 1 / now - 1 / variance, (mean + moved) / now - mean / variance
        before, total = messages[step], self.total[end]
        messages[step] = (precision, lean)
        self.total[end] = (total[0] + precision - before[0], total[1] + lean - before[1])

    def _learn(self, elsewhere: Sequence[tuple[float, float]], multiples: Sequence[float]) -> None:
        """Fit the prior of effects to all steps, and where it is wanted the noise, to the repeats too."""
        found = [apart for node in range(len(self.parent)) if (apart := self.apart(node))]
        steps = [(child[0] - mother[0], child[1] + mother[1], 1.0) for child, mother in found[-MAX_LEARNT:]]
        others = [
            (effect, max(noise * noise, LEAST), ELSEWHERE_WEIGHT)
            for effect, noise in elsewhere
            if abs(effect) < FARTHEST and noise < FARTHEST
        ]
        sizes = [abs(seen) for seen, _, _ in steps]
        logs = TYPICAL_WEIGHT * math.log(TYPICAL_GAIN)
        logs += len(sizes) * math.log(max(median(sizes), LEAST)) if sizes else 0.0
        typical = math.exp(logs / (TYPICAL_WEIGHT + len(sizes)))
        few = steps[-MAX_SEARCHED:]

        def score(times: float) -> float:
            """How well the noise at this multiple of what it was fits."""
            squares = (PRIOR_RUNS + self.squares) / (self.variance * times)
            own = -0.5 * ((PRIOR_RUNS + self.freedom) * math.log(times) + squares)
            tried = [(seen, variance * times, weight) for seen, variance, weight in few]
            return own + learn(tried, typical, SEARCH_STEPS)[1]

        if len(steps) >= MIN_STEPS and len(multiples) > 1:
            self.variance = max(self.variance * _highest(score, multiples), LEAST)
        self.effects, _ = learn(steps + others, typical)

    def nodes(self) -> list[Node]:
        """The configurations as they are believed to be."""
        found = []
        for number, members in enumerate(self.members):
            parent, own = self.parent[number], self.own[number]
            alone, mother = self.apart(number) or (_normal(own), _normal(self.own[parent]) if parent >= 0 else None)
            found.append(
                Node(
                    configuration(members[0]),
                    self._card(number),
                    tuple(row["id"] for row in members),
                    tuple((row["machine"], row["seed"]) for row in members),
                    self._card(parent) if parent >= 0 else None,
                    any(row["status"] == "keep" for row in members),
                    *_normal(self.total[number] if self.total[number][0] > LEAST else own),
                    alone,
                    mother,
                )
            )
        return found

    def commits(self) -> dict[str, str]:
        """The card of what was run at each commit."""
        return {commit: self._card(number) for commit, number in self.by_commit.items()}

    def _card(self, number: int) -> str:
        members = self.members[number]
        return str(next((row["id"] for row in members if row["status"] == "keep"), members[0]["id"]))
