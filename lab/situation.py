"""Where a track stands: the numbers that its strategy is chosen from, asked of the index, and what somebody has pinned.

    with Index(knowledge) as index:
        strategy_of(index, track)                      # lab.strategy.Choice
    pin(knowledge, track, "combine")                   # whatever the history says, until it is pinned to None

A pin stands in knowledge/strategy.json, for one track or for all (`ALL`); it is this machine's, as the queue is.
Not covered: the rules (`lab/strategy.py`).
"""

from pathlib import Path
from typing import Any, NamedTuple

from lab.belief import Belief
from lab.cards import utc_now
from lab.effects import promise
from lab.errors import StoreError
from lab.facts import CANDIDATES, baseline, champion, near_margin, near_misses
from lab.index import Index
from lab.judgement import Row, evidence, judgement, settings_of
from lab.locks import locked
from lab.queue import load_queue
from lab.schema import STRATEGIES
from lab.settings import Settings
from lab.stats import configuration
from lab.store import read_json, replace
from lab.strategy import Choice, Numbers, choose
from lab.sweep import spend

SCHEMA = 1
ALL = "*"

Pins = dict[str, dict[str, Any]]  # by the track, or `ALL`: mode, since, by


class _Idea(NamedTuple):
    """The first look at a configuration, and whether a run of it was kept, then or later."""

    card: str
    crashed: bool
    kept: bool


def strategy_of(index: Index, track: str | None) -> Choice:
    """What a track needs next: the mode that is pinned for it, else what its history says.

    StoreError where the pins or the queue cannot be read.
    """
    return in_force(from_history(index, track), track, load_pins(index.knowledge))


def from_history(index: Index, track: str | None) -> Choice:
    """What a track needs next by its history alone, whatever is pinned. StoreError as for `numbers`."""
    settings = settings_of(index)
    return choose(numbers(index, track, settings), settings)


def in_force(choice: Choice, track: str | None, pins: Pins) -> Choice:
    """The choice under these pins: that of the track goes before that of all."""
    name = pinned_by(track, pins)
    if name is None:
        return choice
    reason = f"pinned; the history says {choice.mode}: {choice.reason}"
    return choice._replace(mode=pins[name]["mode"], reason=reason, pinned=True)


def pinned_by(track: str | None, pins: Pins) -> str | None:
    """The name of the pin that holds for a track: its own or `ALL`; None without one."""
    return next((name for name in (track, ALL) if name in pins), None)


def numbers(index: Index, track: str | None, settings: Settings) -> Numbers:
    """What the rules look at; see `Numbers`. StoreError where the queue does not parse."""
    belief = judgement(index, track)
    counted = index.row(
        "SELECT sum(runs) AS runs FROM counts WHERE track = ? AND standing NOT IN ('retracted', 'quarantined')", track
    )
    ideas, since = _ideas(index, track, belief, max(CANDIDATES, settings.recent_runs, settings.plateau_runs))
    recent = ideas[-settings.recent_runs :]
    margin = near_margin(index, track, settings)
    near = {row["id"] for row in near_misses(index, track, margin, CANDIDATES)}
    return Numbers(
        runs=counted["runs"] or 0 if counted else 0,
        champion=champion(index, track) is not None,
        recent=len(recent),
        crashes=sum(idea.crashed for idea in recent),
        keeps=sum(idea.kept for idea in recent),
        since_keep=len(since),
        near_misses=sum(idea.card in near for idea in since[-settings.plateau_runs :]),
        margin=margin,
        repeat_worth=_repeat_worth(index, track, belief),
    )


def _ideas(index: Index, track: str | None, belief: Belief | None, limit: int) -> tuple[list[_Idea], list[_Idea]]:
    """(the new ideas among the newest `limit` runs after the baseline, those since a gain was kept), oldest first."""
    rows = _runs(index, track, limit)
    there = {row["id"] for row in rows}
    nodes = belief.nodes.values() if belief else ()
    seen = {node.key for node in nodes if node.runs[0] not in there}
    kept = {node.key for node in nodes if node.kept and node.card not in there}
    ever = kept | {configuration(row) for row in rows if row["status"] == "keep"}
    ideas: list[_Idea] = []
    since: list[_Idea] = []
    for row in rows:
        key, crashed = configuration(row), row["status"] == "crash"
        if key not in seen:
            ideas.append(_Idea(row["id"], crashed, key in ever))
            since += [] if crashed else ideas[-1:]
        if not crashed:  # what has only crashed is new when it runs
            seen.add(key)
        if row["status"] == "keep" and key not in kept:  # at its first look or at a later one
            kept.add(key)
            since = []
    return ideas, since


def _runs(index: Index, track: str | None, limit: int) -> list[Row]:
    """The newest runs of a track after its baseline, the first that was kept, that tell of an idea; oldest first."""
    first = baseline(index, track)
    if first is None:
        return []
    newest = index.rows(
        "SELECT id, status, edit_key, train_sha256, seed, commit_id FROM cards "
        "WHERE track = ? AND (timestamp, id) > (?, ?) AND quarantined IS NULL AND status != 'retracted' "
        "AND error_kind IS NOT 'interrupted' ORDER BY timestamp DESC, id DESC LIMIT ?",
        track, first["timestamp"], first["id"], limit,
    )  # fmt: skip
    return newest[::-1]


def _repeat_worth(index: Index, track: str | None, belief: Belief | None) -> float | None:
    """What the best repeat promises beyond those that wait in the queue, as a multiple of what a new idea does."""
    if belief is None or belief.champion is None:
        return None
    new_idea = promise(belief.effects, belief.variance + belief.nodes[belief.champion].variance) * belief.unit
    known = belief.by_run()
    waiting = [item["replicates"] for item in load_queue(index.knowledge) if item.get("replicates") in known]
    repeats = spend(belief, evidence(index, track), len(waiting) + 1, waiting)
    return sum(repeat.gain for repeat in repeats) / new_idea if new_idea else None


def load_pins(knowledge: Path) -> Pins:
    """What is pinned. StoreError where the file cannot be used: it is never taken for one without pins."""
    pins: Pins = _read(knowledge / "strategy.json")["pinned"]
    return pins


def pin(knowledge: Path, track: str, mode: str | None, by: str | None = None) -> None:
    """Pin a mode for a track or for `ALL`; None lets the history decide again. StoreError as for `load_pins`."""
    path = knowledge / "strategy.json"
    with locked(knowledge / "strategy.json.lock"):
        content = _read(path)
        others = {name: entry for name, entry in content["pinned"].items() if name != track}
        ours = {track: {"mode": mode, "since": utc_now(), "by": by}} if mode else {}
        replace(path, content | {"pinned": others | ours})


def _read(path: Path) -> dict[str, Any]:
    """The whole file: what another version or a hand has added to it stays."""
    if not path.exists():
        return {"schema": SCHEMA, "pinned": {}}
    try:
        content = read_json(path)
    except StoreError as error:
        raise _unusable(str(error).partition(";")[0]) from error  # the remedy is another one than a record's
    if content.get("schema") != SCHEMA:
        raise _unusable(f"{path} has schema {content.get('schema')!r}, this version reads {SCHEMA}")
    pins = content.get("pinned")
    if not isinstance(pins, dict):
        raise _unusable(f"{path}: pinned is no object")
    for track, entry in pins.items():
        if not isinstance(entry, dict) or entry.get("mode") not in STRATEGIES:
            raise _unusable(f"{path}: pinned[{track!r}] has no mode of {', '.join(STRATEGIES)}")
    return content


def _unusable(what: str) -> StoreError:
    return StoreError(f"{what}; mend it or move it away: it holds what `director.py strategy --set` pinned")
