"""What to run next on a track: suggestions from everything the commons knows, ready to be put into the queue.

    for item in plan_experiments(knowledge, 10):                # best first; nothing is written
        item["description"], item["changes"], item["expected"]
    add_to_queue(knowledge, plan_experiments(knowledge))

What is open in the queue, runs now, or was tried and refuted here is left out. A track without a champion begins with
the unchanged script: nothing can be told without a baseline.
Not covered: what is worth trying (`lab/suggest.py`), and which mode a track needs (`lab/situation.py`).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from lab.bandit import Trial, completed, told, tried
from lab.belief import Belief
from lab.briefing import running
from lab.catalogue import ideas
from lab.edits import SEED_NAME
from lab.effects import Effect, prior_effects
from lab.errors import SettingError
from lab.facts import champion, main_track
from lab.index import Index
from lab.items import Item
from lab.judgement import VALID, Row, judgement
from lab.leases import MARGIN_SECONDS, lease_seconds
from lab.likeness import SAME_IDEA_THRESHOLD, similarity
from lab.novelty import NOT_THE_IDEAS_FAULT
from lab.queue import load_queue
from lab.schema import STRATEGIES
from lab.settings import load_settings, project_root
from lab.situation import strategy_of
from lab.stats import gain, median, noise_prior
from lab.strategy import Choice
from lab.suggest import choose, suggestions
from lab.sweep import Repeat, fresh_seeds, spend
from lab.tree import TYPICAL_GAIN
from lab.tried import CHUNK, check, equal_runs
from lab.world import Suggestion, World

PRIORITIES = {"baseline": 1, "replicate": 3}  # before new ideas, which have 5
NEW_IDEA = 5
BASELINE = "the unchanged script: the baseline that everything else is compared with"
START_UP_SECONDS = 60.0  # that a run takes beyond its time budget, where none tells
TIMED_RUNS = 50  # whose median says what a run takes
LARGEST_SIZE = 1e9  # of a champion, in units of its belief: what is larger is taken to be this large
CRASHES = 200  # the newest so many say what crashes
OTHER_TRACKS, OTHER_RUNS = 20, 100  # the newest runs of the busiest other tracks


class Plan(NamedTuple):
    """What to run next on a track, the best first; `choice` is the strategy, whose mode `mode` may overrule."""

    track: str | None
    choice: Choice
    mode: str
    suggestions: list[Suggestion]


def plan_experiments(
    knowledge: Path, n: int = 10, track: str | None = None, mode: str | None = None, words: bool = True
) -> list[Item]:
    """At most `n` items for `lab.queue.add_to_queue`, the best first: nothing that is open, running or refuted.

    They have `expected`, the improvement that one run promises in units of the metric (null without a champion), and
    `per_minute` of the device. Without `words` they are those that constants say, and repeats: what runs without an
    agent. SettingError for an unknown mode or track, StoreError where queue or pins do not parse.
    """
    with Index(knowledge) as index:
        plan = planned(index, n, track, mode, words=words)
    return [item_of(suggestion, plan.track) for suggestion in plan.suggestions]


def planned(
    index: Index, n: int = 10, track: str | None = None, mode: str | None = None, queue: bool = True, words: bool = True
) -> Plan:
    """The plan of a track (`lab.facts.main_track`); without `queue` as if nothing were queued or running."""
    if mode not in (None, *STRATEGIES):
        raise SettingError(f"no mode {mode!r}; the modes are {', '.join(STRATEGIES)}")
    track = main_track(index, track)
    choice = strategy_of(index, track)
    wanted = mode or choice.mode
    waiting = load_queue(index.knowledge) if queue else []
    now = [run["hypothesis"] for run in running(index)] if queue else []
    under_way = [text for text in (*(item["description"] for item in waiting), *now) if text]
    turned = [set(item["changes"]) for item in waiting if item.get("changes")]
    world = world_of(index, track, choice.conservative)
    has_run = equal_runs(index, track, world.config)
    found = suggestions(world) + (_repeats(index, world, n, waiting) if world.champion else [])

    def allowed(one: Suggestion) -> bool:
        if one.replicates is not None:
            return True
        known = any(similarity(one.description, text) >= SAME_IDEA_THRESHOLD for text in under_way)
        turns = bool(one.changes) and set(one.changes or ()) in turned
        return not (known or turns or _settled(index, track, one) or has_run(one.changes))

    fitting = [one for one in found if words or one.changes is not None or one.replicates is not None]
    if world.champion:
        return Plan(track, choice, wanted, choose(fitting, wanted, n, allowed))
    first = [] if any(item["changes"] == {} for item in waiting) else [_BASELINE]
    ideas_next = choose(fitting, wanted, n - len(first), allowed)
    unknown = [one._replace(expected=None, per_minute=None) for one in ideas_next]  # of what, nobody knows
    return Plan(track, choice, wanted, first + unknown)


def item_of(suggestion: Suggestion, track: str | None) -> Item:
    """The item of the queue for a suggestion."""
    kind = "baseline" if suggestion.target == "baseline" else suggestion.mode
    item: Item = suggestion._asdict()
    return item | {"track": track, "cards": list(suggestion.cards), "priority": PRIORITIES.get(kind, NEW_IDEA)}


def baseline(track: str | None) -> Item:
    """The item of the queue for the unchanged script."""
    return item_of(_BASELINE, track)


_BASELINE = Suggestion(
    "explore", "other", "baseline", "set", BASELINE, {}, (), None, None,
    "no run of this track was kept yet, so nothing can be compared",
)  # fmt: skip


def _settled(index: Index, track: str | None, one: Suggestion) -> bool:
    """Whether an idea was refuted here; for an idea that should be new, whether it was tried here at all."""
    mode = "explore" if one.mode == "explore" else "exploit"
    found = check(index, one.description, mode, track=track, limit=1)  # it names its constants with their values
    if found["decision"] == "block":
        return True
    told = found["classification"] in ("known_success", "repeat_failure") and found["evidence"] != "unclear"
    return told and bool(one.mode == "explore" or one.source) and found["closest"][0]["track"] == track


# What is known.


def world_of(index: Index, track: str | None, conservative: bool = False) -> World:
    """What suggestions for a track are made from."""
    best, belief = champion(index, track), judgement(index, track)
    nodes = belief.nodes if belief else {}
    edits = edits_of(index, list(nodes))
    here = project_root(index.knowledge) or project_root(Path()) or Path()
    metric = best["metric"] if best else load_settings(here).metric
    usual = noise_prior(None, None, metric)
    size, noise, effects = 1.0, 2 * usual**2, prior_effects(TYPICAL_GAIN * usual)
    config: dict[str, Any] = {}
    if best and belief and belief.champion:
        size = min(max(abs(best["mean"]), belief.unit), LARGEST_SIZE * belief.unit)
        share = belief.unit / size
        noise = (belief.variance + nodes[belief.champion].variance) * share**2
        effects = [Effect(weight, mean * share, spread * share**2) for weight, mean, spread in belief.effects]
        config = index.read(best["id"])["config"] or {}
    about = index.row(
        "SELECT preset FROM cards WHERE track = ? AND preset IS NOT NULL ORDER BY timestamp DESC LIMIT 1", track
    )
    scales = ("any", about["preset"] if about else None)
    return World(
        trials=[*_elsewhere(index, track, metric), *_here(index, track, belief, edits, size)],
        config=config,
        belief=belief,
        edits=edits,
        # The catalogue is about a small GPT: a project that measures something else has no use for it.
        ideas=[idea for idea in ideas() if idea.scale in scales and metric == "val_bpb"],
        effects=effects,
        size=size,
        noise=noise,
        minutes=usual_seconds(index, track) / 60,
        conservative=conservative,
    )


def edits_of(index: Index, cards: Sequence[str]) -> dict[str, Row]:
    """hypothesis, category, timestamp and config_diff of cards."""
    found: dict[str, Row] = {}
    for start in range(0, len(cards), CHUNK):
        part = cards[start : start + CHUNK]
        marks = ", ".join("?" * len(part))
        rows = index.rows(f"SELECT id, hypothesis, category, timestamp FROM cards WHERE id IN ({marks})", *part)
        found |= {row["id"]: row | {"config_diff": {}} for row in rows}
        for row in index.rows(f"SELECT card, name, old, new FROM changes WHERE card IN ({marks})", *part):
            if row["name"] != SEED_NAME:  # a repeat's, which is no edit
                found[row["card"]]["config_diff"][row["name"]] = [json.loads(row["old"]), json.loads(row["new"])]
    return found


def _here(index: Index, track: str | None, belief: Belief | None, edits: dict[str, Row], size: float) -> list[Trial]:
    """The edits of this track, oldest first, and what crashed through its own fault."""
    trials = tried(belief, edits, size) if belief else []
    crashed = index.rows(
        "SELECT id FROM cards WHERE track = ? AND status = 'crash' AND coalesce(error_kind, '') NOT IN "
        f"({', '.join('?' * len(NOT_THE_IDEAS_FAULT))}) ORDER BY timestamp DESC LIMIT ?",
        track, *NOT_THE_IDEAS_FAULT, CRASHES,
    )  # fmt: skip
    failed = edits_of(index, [row["id"] for row in crashed])
    for card, row in failed.items():
        if turn := told(row["hypothesis"], row["config_diff"]):
            trials.append(
                Trial(card, row["category"] or "other", turn, None, 0.0, None, False, row["hypothesis"] or "")
            )
    known = edits | failed
    return completed(sorted(trials, key=lambda trial: (known[trial.card]["timestamp"], trial.card)))


def _elsewhere(index: Index, track: str | None, metric: str) -> Iterator[Trial]:
    """The newest edits of the busiest other tracks."""
    tracks = index.rows(
        "SELECT track FROM counts WHERE track IS NOT NULL AND track IS NOT ? GROUP BY track "
        "ORDER BY sum(runs) DESC, track LIMIT ?",
        track, OTHER_TRACKS,
    )  # fmt: skip
    for other in tracks:
        rows = index.rows(
            "SELECT id, delta, delta_stderr, result, direction, preset, device FROM cards WHERE track = ? "
            f"AND metric = ? AND delta IS NOT NULL AND result != 0 AND {VALID} AND status != 'retracted' "
            "ORDER BY timestamp DESC, id DESC LIMIT ?",
            other["track"], metric, OTHER_RUNS,
        )  # fmt: skip
        edits = edits_of(index, [row["id"] for row in rows])
        for row in reversed(rows):
            edit, size = edits[row["id"]], abs(row["result"])
            if turn := told(edit["hypothesis"], edit["config_diff"]):
                sd = (row["delta_stderr"] or 0.0) / size or noise_prior(row["preset"], row["device"], metric) * 2**0.5
                effect = -gain(row["delta"], row["direction"]) / size
                about = row["id"], edit["category"] or "other", turn, effect, sd**2, other["track"], False
                yield Trial(*about, edit["hypothesis"] or "")


def usual_seconds(index: Index, track: str | None) -> float:
    """What a run of the track takes, from start to summary."""
    rows = index.rows(
        f"SELECT total_seconds FROM cards WHERE track = ? AND total_seconds > 0 AND {VALID} "
        "ORDER BY timestamp DESC LIMIT ?",
        track, TIMED_RUNS,
    )  # fmt: skip
    guess = lease_seconds() - MARGIN_SECONDS + START_UP_SECONDS
    return float(median([row["total_seconds"] for row in rows])) if rows else guess


# Repeats.


def runs_of(index: Index, belief: Belief | None) -> dict[str, Row]:
    """The runs that a belief rests on, by their ids: others may write cards meanwhile."""
    runs = [run for node in belief.nodes.values() for run in node.runs] if belief else []
    found = ((run, index.row("SELECT * FROM cards WHERE id = ?", run)) for run in runs)
    return {run: row for run, row in found if row}


def repeat_items(
    belief: Belief | None, known: dict[str, Row], budget: int, queue: Iterable[Item]
) -> tuple[list[Repeat], list[Item]]:
    """The repeats worth running within a budget that those in the queue are part of, and an item for each of the runs.

    `known` are the runs that the belief rests on (`runs_of`).
    """
    waiting = [item for item in queue if item["replicates"] in known]
    repeats = spend(belief, known.values(), budget, [item["replicates"] for item in waiting]) if belief else []
    items: list[Item] = []
    for repeat in repeats:
        runs = belief.nodes[repeat.card].runs if belief else ()
        taken = [known[run]["seed"] for run in runs]
        taken += [item.get("seed") for item in waiting if item["replicates"] in runs]
        items += [_repeat(known[repeat.card], repeat, seed) for seed in islice(fresh_seeds(taken), repeat.runs)]
    return repeats, items


def _repeat(row: Row, repeat: Repeat, seed: int) -> Item:
    return {
        "description": f"repeat of {row['id']} with seed {seed}: {row['hypothesis'] or 'no hypothesis'}",
        "mode": "replicate", "priority": PRIORITIES["replicate"], "category": row["category"], "track": row["track"],
        "replicates": row["id"], "seed": seed, "commit": row["commit_id"], "why": repeat.settles,
    }  # fmt: skip


def _repeats(index: Index, world: World, budget: int, queue: Sequence[Item]) -> list[Suggestion]:
    known = runs_of(index, world.belief)
    repeats, items = repeat_items(world.belief, known, budget + len(queue), queue)
    promised = {repeat.card: repeat.gain / repeat.runs for repeat in repeats}
    return [
        Suggestion(
            mode="replicate", category=item["category"] or "other", target=item["replicates"], direction="repeat",
            description=item["description"], changes=None, cards=(item["replicates"],),
            expected=promised[item["replicates"]], per_minute=promised[item["replicates"]] / world.minutes,
            why=f"it settles {item['why']}", replicates=item["replicates"], seed=item["seed"], commit=item["commit"],
        )
        for item in items
    ]  # fmt: skip
