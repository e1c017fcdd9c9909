"""What the runs of a track tell about the true values of their configurations: one posterior over all. Pure.

    belief = believe(rows, "min", 0.0005)              # rows of the index, in any order
    belief.champion, belief.noise.sd
    belief.verdict(0.9712, belief.champion)            # what a new edit of the champion with this result means

The model: a run shows its configuration's true value through noise; a configuration is a step from the one that was
edited, and what the step does has a prior, learnt from all steps (`lab/effects.py`). So the smallest number ever seen
is not taken at its word, a rejected run says something about the champion too, a repeat counts where it was made, and
a challenger that started from an older champion is measured against that one. The posterior over the tree of
configurations is found by expectation propagation (Minka 2001, A family of algorithms for approximate Bayesian
inference), noise and prior by EM in between. Messages may have a negative precision: forbidding that makes the stated
probabilities too small by up to eight points (bench/bench_decisions.py).

Inside, values are in units of the prior's standard deviation, counted from the track's median, smaller is better.
Not covered: where the rows come from (`lab/judgement.py`), what to do about a verdict (`lab/decide.py`).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from lab.effects import Effect, chances, learn, mean_and_variance, moments, prior_effects, promise, seen_as
from lab.schema import LARGEST
from lab.stats import Noise, Repeats, configuration, counts, gain, magnitude, median, repeats, unchosen

Row = dict[str, Any]

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
FARTHEST = 1e6  # standard deviations: what is further off is taken to be this far
LEAST = 1e-9  # a variance, or a precision, below which nothing can be told


class Node(NamedTuple):
    """A configuration (`lab.stats.configuration`): the card that stands for it, its first kept run or else its first.

    `made` has machine and seed of each of its runs. `parent` stands for the configuration it was edited from. `mean`
    and `variance` are of its true value; `alone` and `from_parent` are (mean, variance) of its own value and its
    parent's as known without the step between them.
    """

    key: str
    card: str
    runs: tuple[str, ...]
    made: tuple[tuple[str | None, int | None], ...]
    parent: str | None
    kept: bool
    mean: float
    variance: float
    alone: tuple[float, float]
    from_parent: tuple[float, float] | None


class Verdict(NamedTuple):
    """What a configuration is against the champion, or a step against where it started.

    `better` and `same` are the probabilities of a true gain and of no effect; `expected` is the true difference to
    expect, in the metric and with the sign of a delta, `sd` its standard deviation. `repeat_pays` is how much one more
    run of it promises, as a multiple of what a new idea does; 0 for a step.
    """

    better: float
    same: float
    expected: float
    sd: float
    repeat_pays: float = 0.0


class Belief(NamedTuple):
    """The posterior over the configurations of a track."""

    direction: str
    unit: float
    centre: float
    variance: float  # of a run, in units
    noise: Noise
    repeats: Repeats
    effects: list[Effect]
    nodes: dict[str, Node]  # by the card that stands for them, oldest first
    commits: dict[str, str]  # by the first seven characters of a commit, the card of what was run there
    champion: str | None

    def inside(self, value: float) -> float:
        """A value of the metric in the units of the model."""
        return _inside(value, self.centre, self.unit, self.direction)

    def value(self, card: str) -> tuple[float, float]:
        """(mean, standard deviation) of a configuration's true value, in the metric."""
        node = self.nodes[card]
        mean = self.centre - gain(node.mean * self.unit, self.direction)
        return _number(mean), _number(math.sqrt(node.variance) * self.unit)

    def by_run(self) -> dict[str, Node]:
        """The configuration of every run."""
        return {run: node for node in self.nodes.values() for run in node.runs}

    def line(self, card: str) -> list[str]:
        """The cards from this one, which stands for a configuration, back to the baseline it came from."""
        line = [card]
        while (parent := self.nodes[line[-1]].parent) is not None:
            line.append(parent)
        return line

    def path(self, runs: Sequence[str]) -> list[tuple[float, float]]:
        """(mean, sd) of the champion's true value after each of these runs, as believed now; NaN before the first."""
        of_run = self.by_run()
        best: Node | None = None
        found = []
        for run in runs:
            node = of_run.get(run)
            if node and node.kept and (best is None or node.mean < best.mean):
                best = node
            found.append(self.value(best.card) if best else (math.nan, math.nan))
        return found

    def place(self, row: Row) -> tuple[Node | None, str | None]:
        """Where a run that is not in it yet belongs: (its configuration where that is known, what it was edited from).

        A configuration is edited from what its commit was run as, where the edit was not committed, else from what its
        commit's parent was run as, else from the champion.
        """
        key, commits = configuration(row), self.commits
        known = next((node for node in self.nodes.values() if node.key == key), None)
        if known:
            return known, known.parent
        here = commits.get((row["commit_id"] or "")[:7]) if row["edit_key"] else None
        return None, here or commits.get((row["parent_commit"] or "")[:7]) or self.champion

    def verdict(
        self, result: float | None, parent: str | None, node: Node | None = None, run: Row | None = None
    ) -> Verdict | None:
        """A new run with this result of a new edit of `parent`, or of `node` that is known, against the champion.

        `run` tells its machine and seed: a repeat of a seed is no second look. Without a result it is what is known of
        `node`. None when there is no champion, or `node` is the champion.
        """
        if self.champion is None or (node and node.card == self.champion):
            return None
        best = self.nodes[self.champion]
        start = self.nodes.get(parent or "", best)
        mother = (start.mean, start.variance) if node is None else node.from_parent
        looks = [node.alone] if node else []
        weight = self._weight(node, run) if run else 1.0
        looks += [(self.inside(result), self.variance / weight)] if result is not None and weight else []
        precision = sum(1 / variance for _, variance in looks)
        child, variance = sum(mean / spread for mean, spread in looks) / precision, 1 / precision
        if mother and start.card == best.card:
            step = seen_as(child - mother[0], variance + mother[1], self.effects)
        else:
            if mother:  # what it did to the one it started from says how good it is
                seen, apart = child - mother[0], variance + mother[1]
                expected, spread = mean_and_variance(seen_as(seen, apart, self.effects))
                share = variance / apart
                child += share * (expected - seen)
                variance = variance * (1 - share) + share * share * spread
            step = [Effect(1.0, child - best.mean, variance + best.variance)]
        new_idea = promise(self.effects, self.variance + best.variance)
        expected, _ = mean_and_variance(step)
        again = promise(step, self.variance) - max(0.0, -expected)
        return self._verdict(step)._replace(repeat_pays=again / new_idea if new_idea > 0 else 0.0)

    def _weight(self, node: Node | None, run: Row) -> float:
        """How much one more run tells of a configuration: 1 for a new seed on the usual machine, 0 for nothing new."""
        ledger, name = self.repeats, run["machine"]
        other = min((ledger.between_machines or 0.0) / self.unit, FARTHEST) ** 2 / self.variance
        foreign = other if name is not None and name != ledger.main_machine else 0.0
        same = node.made.count((name, run["seed"])) if node and run["seed"] is not None else 0
        share = ledger.seed_share
        after = 1 / (share + (1 - share) / (same + 1) + foreign)
        return after - 1 / (share + (1 - share) / same + foreign) if same else after

    def step(self, card: str, looks: Sequence[tuple[float, float]] | None = None) -> Verdict | None:
        """What an edit did to the configuration it was made from; None for a baseline.

        `looks` are (result, variance as a multiple of a run's) to judge it by instead of all its runs.
        """
        node = self.nodes[card]
        if node.from_parent is None:
            return None
        mean, variance = node.alone
        if looks:
            precision = sum(1 / factor for _, factor in looks)
            mean = sum(self.inside(result) / factor for result, factor in looks) / precision
            variance = self.variance / precision
        apart = variance + node.from_parent[1]
        return self._verdict(seen_as(mean - node.from_parent[0], apart, self.effects))

    def _verdict(self, step: Sequence[Effect]) -> Verdict:
        expected, spread = mean_and_variance(step)
        there = _number(-gain(expected * self.unit, self.direction)) + 0.0
        return Verdict(*chances(step), there, _number(math.sqrt(spread) * self.unit))


def _number(value: float) -> float:
    """A value of the metric as a record can hold it: results near the largest float have means beyond it."""
    return min(max(value, -LARGEST), LARGEST)


def _inside(value: float, centre: float, unit: float, direction: str) -> float:
    away = -gain(value - centre, direction) / unit
    return min(max(away, -FARTHEST), FARTHEST)


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
    tree = _Tree(seen, ledger, centre, unit, direction)
    tree.fit([(effect / prior, noise / prior) for effect, noise in elsewhere], None if sd is None else (sd / unit) ** 2)
    given, sd = sd is not None, _number(math.sqrt(tree.variance) * unit)
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


def as_json(belief: Belief) -> list[Any]:
    """A belief as plain data, which `from_json` reads."""
    return list(belief)


def from_json(values: list[Any]) -> Belief:
    """The belief that `as_json` gave."""
    belief = Belief(*values)
    repeats = Repeats(*belief.repeats)
    return belief._replace(
        noise=Noise(*belief.noise),
        repeats=repeats._replace(
            pairs=(repeats.pairs[0], repeats.pairs[1], repeats.pairs[2]), machines=tuple(repeats.machines)
        ),
        effects=[Effect(*effect) for effect in belief.effects],
        nodes={card: _node(values) for card, values in belief.nodes.items()},
    )


def _node(values: Any) -> Node:
    node = Node(*values)
    made = tuple((name, seed) for name, seed in node.made)
    mother = node.from_parent and (node.from_parent[0], node.from_parent[1])
    return node._replace(runs=tuple(node.runs), made=made, alone=(node.alone[0], node.alone[1]), from_parent=mother)


class _Tree:
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
                value = _inside(row["result"], centre, unit, direction)
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
