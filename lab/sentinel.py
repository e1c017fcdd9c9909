"""The champion run again on this machine every so often: has the machine drifted, is it throttled?

    watch = plan(index, track, 25)                    # which run, with which seed, and whether it is due
    found = judge(watch, repeat(watch, project, knowledge))

The repeat is an ordinary run with a card of its own, tagged `replicate, sentinel`: it counts as evidence too.
Not covered: what to do about the results of a machine that drifted, and runs of cards that name no machine.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lab.belief import Belief, Node
from lab.brief import one_line
from lab.cards import machine
from lab.errors import LabError, SettingError, StoreError
from lab.experiment import Experiment, Order
from lab.facts import main_track
from lab.git import full_hash, git
from lab.index import Index
from lab.interrupts import interruptible
from lab.judgement import judgement
from lab.schema import Card, finite, metric_value
from lab.settings import load_settings
from lab.stats import median
from lab.store import runs_dir
from lab.sweep import fresh_seeds
from lab.tree import MIN_STEPS

DRIFT_SDS = 3.0  # standard deviations of a new run that a repeat of the champion may be off
SLOW_SHARE = 0.9  # of the champion's usual tokens per second here; less is a throttled or a shared device
# What must stand behind the noise before it tells a drift: repeats beyond the first of a configuration, or else steps
# enough for their scatter to tell. An assumption about the noise convicts nobody.
MIN_REPEATS = 2
TAGS = ("replicate", "sentinel")

Row = dict[str, Any]


class Watch(NamedTuple):
    """What the sentinel would do: the champion's card and configuration, the seed to run it with, and when.

    `since` is the newest run of it on this machine, `recorded` how many experiments were recorded here after that;
    it is due when they are `every`. `speeds` are tokens per second of its runs here.
    """

    belief: Belief
    node: Node
    card: Card
    seed: int
    since: str | None
    recorded: int
    every: int
    speeds: Sequence[float]

    @property
    def due(self) -> bool:
        """Whether it is time; never where `every` is 0."""
        return 0 < self.every <= self.recorded


class Found(NamedTuple):
    """What the repeat told: its result against the one expected, `z` in standard deviations `sd` of a new run.

    `measured` is False where the noise is little more than an assumption. `speed` is its tokens per second as a share
    of the usual; None is unknown.
    """

    card: str
    result: float
    expected: float
    sd: float
    z: float
    measured: bool
    speed: float | None

    @property
    def off(self) -> bool:
        """Whether the result is further from the expected one than noise takes it."""
        return abs(self.z) > DRIFT_SDS

    @property
    def drifted(self) -> bool:
        """Whether the machine is not what it was."""
        return (self.off and self.measured) or (self.speed is not None and self.speed < SLOW_SHARE)


def plan(index: Index, track: str | None, every: int) -> Watch:
    """What the sentinel would do on a track. SettingError where there is no champion to run."""
    track = main_track(index, track)
    belief = judgement(index, track)
    if belief is None or belief.champion is None:
        where = f"track {track}" if track else "any track"
        raise SettingError(f"no kept result on {where}; the sentinel repeats the champion once there is one")
    node = belief.nodes[belief.champion]
    marks = ", ".join("?" * len(node.runs))
    runs = index.rows(f"SELECT * FROM cards WHERE id IN ({marks}) ORDER BY timestamp, id", *node.runs)
    here = [run for run in runs if run["machine"] == machine()]
    since = here[-1] if here else {"id": None, "timestamp": ""}
    recorded = index.rows(
        "SELECT count(*) AS runs FROM cards WHERE track = ? AND machine = ? AND timestamp > ?",
        track, machine(), since["timestamp"],
    )[0]["runs"]  # fmt: skip
    return Watch(
        belief,
        node,
        index.read(node.card),
        next(fresh_seeds(run["seed"] for run in runs)),
        since["id"],
        recorded,
        every,
        [run["tokens_per_second"] for run in here if run["tokens_per_second"]],
    )


def commit_of(card: Card, project: Path) -> str:
    """The whole hash of the commit that the card's run started from. StoreError where this clone does not have it."""
    named = card["commit"] or ""
    found = full_hash(project, named) if named else None
    if found is None or not found.startswith(named):  # a ledger's "baseline" may be the name of a branch here
        raise StoreError(
            f"card {card['id']} cannot be run again: its commit {named or '(unknown)'} is not in this "
            "clone; fetch it, or run it where it was run"
        )
    return found


def script_of(card: Card, project: Path) -> bytes:
    """The script as the card's run had it: from the run's folder, else from its commit.

    StoreError where neither holds the script that the card tells the hash of.
    """
    name = load_settings(project).editable[0]
    kept = runs_dir(project) / str(card["run_id"] or card["id"]) / Path(name).name
    sources = [kept.read_bytes() if kept.is_file() else None]
    sources.append(git(project, "show", "--end-of-options", f"{card['commit']}:./{name}"))
    for source in sources:
        if source is not None and card["train_sha256"] in (None, hashlib.sha256(source).hexdigest()):
            return source
    raise StoreError(
        f"card {card['id']} cannot be run again: the {name} that ran is neither in {kept.parent} nor in "
        f"commit {card['commit']}; run it where it was run"
    )


def repeat(watch: Watch, project: Path, knowledge: Path) -> Card:
    """Run the champion again as it ran, in a checkout of its commit, and return the card of that run.

    LabError where it cannot be run, is interrupted or gives no result; StoreError where its script is not here.
    """
    card = watch.card
    order = Order(
        commit_of(card, project), {load_settings(project).editable[0]: script_of(card, project)},
        f"repeat of {card['id']}: {one_line(card['hypothesis'] or 'no hypothesis')}", None, None,
        card["category"], TAGS, watch.seed, card["track"],
    )  # fmt: skip
    with interruptible():
        made = Experiment(project, knowledge, order).perform()
    if metric_value(made) is None:
        said = (made["error"] or {}).get("summary") or "it measured nothing"
        raise LabError(f"the repeat of {card['id']} gave no result: {said}; see card {made['id']}")
    if made["track"] != card["track"]:
        raise SettingError(
            f"the repeat ran on track {made['track']}, the champion on {card['track']}: they do not compare; "
            "set AUTORESEARCH_TIME_BUDGET and the like as they were"
        )
    return made


def judge(watch: Watch, card: Card) -> Found:
    """What the repeat says about this machine."""
    belief, result = watch.belief, card["results"][card["metric"]]
    expected, sd = belief.value(watch.node.card)
    noise = belief.noise.sd or 0.0
    elsewhere = belief.repeats.main_machine not in (None, machine())
    machines = (belief.repeats.between_machines or 0.0) if elsewhere else 0.0
    spread = math.hypot(noise, sd, machines)
    ledger = belief.repeats
    measured = ledger.runs - ledger.configurations >= MIN_REPEATS or len(belief.nodes) > MIN_STEPS
    speed = finite(card["results"].get("tokens_per_second"))
    usual = median(watch.speeds) if watch.speeds else None
    share = speed / usual if speed and usual else None
    return Found(card["id"], result, expected, spread, (result - expected) / spread, measured, share)
