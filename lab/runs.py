"""Cards as the runs that reports compare: their values, their differences, and which belong together. Pure.

    runs = as_runs(sorted(cards, key=order))      # oldest first
    for track, of_track in by_track(runs):
        champions(of_track), near_misses(of_track)

Results are compared within a track, differences may be pooled across tracks.
Not covered: the same questions asked of the index (`lab/facts.py`), and how it is told (`lab/synthesis.py`).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from lab.belief import Belief
from lab.brief import one_line
from lab.schema import CATEGORIES, Card, finite, metric_value
from lab.stats import Noise, gain, noise_prior
from lab.tree import believe

MIN_FAILURES = 2  # tries of one thing, none kept, to say that it never worked


class Run(NamedTuple):
    """A card with the value of its metric and the difference to the champion of its moment; None is unknown."""

    card: Card
    value: float | None
    delta: float | None

    @property
    def gain(self) -> float | None:
        """The difference with the sign that makes an improvement positive."""
        return None if self.delta is None else gain(self.delta, self.card["direction"])

    @property
    def kept(self) -> bool:
        """Whether it counts as an improvement: a run that is suspect does not."""
        return self.card["status"] == "keep" and not self.card["quarantined"] and self.value is not None

    @property
    def helped(self) -> bool:
        """Whether it was kept and better than the champion of its moment."""
        return self.kept and (self.gain or 0.0) > 0

    @property
    def hardware(self) -> str:
        """The kind of machine: the last part of the track, or the device's name."""
        device = (self.card["platform"] or {}).get("device_name")
        return self.card["track"].rpartition("/")[2] if self.card["track"] else device or "unknown"


def as_runs(cards: Sequence[Card]) -> list[Run]:
    """The cards, oldest first, with their differences; where a card has none, to the best kept result before it."""
    best: dict[str | None, float] = {}
    runs = []
    for card in cards:
        value, track = metric_value(card), card["track"]
        delta = finite(card["results"].get("delta"))
        if delta is None and value is not None and track in best:
            delta = value - best[track]
        run = Run(card, value, delta)
        if run.kept and value is not None and track is not None:
            best[track] = _better(card, value, best.get(track, value))
        runs.append(run)
    return runs


def _better(card: Card, one: float, other: float) -> float:
    return min(one, other) if card["direction"] == "min" else max(one, other)


def valid(runs: Iterable[Run]) -> list[Run]:
    """Without the runs that are retracted or suspect."""
    return [run for run in runs if run.card["status"] != "retracted" and not run.card["quarantined"]]


def by_track(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """The runs of every track, the one with most runs first; without a track nothing can be compared."""
    tracks: dict[str, list[Run]] = {}
    for run in runs:
        if run.card["track"]:
            tracks.setdefault(run.card["track"], []).append(run)
    return sorted(tracks.items(), key=lambda pair: (-len(pair[1]), pair[0]))


def by_category(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The valid runs of every category, also of those that have none; without a category it is "other"."""
    found: dict[str, list[Run]] = {name: [] for name in CATEGORIES}
    for run in valid(runs):
        found[run.card["category"] or "other"].append(run)
    return found


def champions(of_track: Sequence[Run]) -> list[Run]:
    """The baseline and every kept run that beat all before it: how the champion came to be."""
    path: list[Run] = []
    for run in of_track:
        if run.kept and (not path or _better(run.card, run.value or 0.0, path[-1].value or 0.0) != path[-1].value):
            path.append(run)
    return path


def near_misses(of_track: Sequence[Run]) -> list[Run]:
    """Runs that were not kept though noise could have hidden a gain, the closest first."""
    margin = (track_noise(of_track).sd or 0.0) * 2**0.5  # both runs are noisy
    settled = {run.card["edit_key"] for run in of_track if run.kept and run.card["edit_key"]}
    missed = [
        run for run in valid(of_track)
        if run.card["status"] in ("revert", "inconclusive") and run.gain is not None and run.gain >= -margin
        and run.card["edit_key"] not in settled
    ]  # fmt: skip
    return sorted(missed, key=lambda run: (-(run.gain or 0.0), run.card["id"]))


def track_noise(of_track: Sequence[Run]) -> Noise:
    """The noise of a track, and what it rests on."""
    belief = belief_of(of_track)
    return belief.noise if belief else Noise(None, "no results yet")


def belief_of(of_track: Sequence[Run]) -> Belief | None:
    """What is believed of a track's configurations, from all of its cards of the metric that was measured last."""
    measured = [run for run in valid(of_track) if run.value is not None]
    if not measured:
        return None
    last = measured[-1].card
    kind = last["metric"], last["direction"]
    rows = [_evidence(run) for run in measured if (run.card["metric"], run.card["direction"]) == kind]
    prior = noise_prior(last["preset"], (last["platform"] or {}).get("device"), last["metric"])
    return believe(rows, last["direction"], prior)


def _evidence(run: Run) -> dict[str, Any]:
    """A run as a belief takes it."""
    card = run.card
    names = (
        "id", "timestamp", "status", "quarantined", "edit_key", "train_sha256", "parent_commit", "seed", "hypothesis",
    )  # fmt: skip
    return {name: card[name] for name in names} | {
        "result": run.value,
        "commit_id": card["commit"],
        "champion": (card["decision"] or {}).get("champion"),
        "machine": (card["platform"] or {}).get("machine"),
    }


def change(card: Card) -> str:
    """What was changed, so that the same change on another track reads the same."""
    if card["config_diff"]:
        pairs = sorted(card["config_diff"].items())
        return one_line(", ".join(f"{name} {old} to {new}" for name, (old, new) in pairs), 100)
    return idea(card)


def idea(card: Card) -> str:
    """What was tried, in one line."""
    return one_line(card["hypothesis"] or "no hypothesis", 100)


def dead_ends(of_track: Sequence[Run], spared: Sequence[Run]) -> dict[str, list[list[Run]]]:
    """By category what was tried and never kept, the runs on one subject together, those with most tries first.

    `spared` are left out: near misses that are told elsewhere.
    """
    worked = {_subject(run.card).casefold() for run in of_track if run.kept}
    ids = {run.card["id"] for run in spared}
    found = {}
    for name, runs in by_category(of_track).items():
        failed = [run for run in runs if run.card["status"] == "revert" and run.card["id"] not in ids]
        groups = _grouped((run for run in failed if _subject(run.card).casefold() not in worked), _subject)
        if groups:
            found[name] = sorted(groups, key=_most_tries)
    return found


def never_worked(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs on each subject that was tried again and again and never kept, those with most tries first."""
    groups = _grouped((run for run in valid(runs) if run.gain is not None), _subject)
    failed = (group for group in groups if len(group) >= MIN_FAILURES and not any(run.kept for run in group))
    return sorted(failed, key=_most_tries)


def findings(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs of each change that helped in one of them, by kinds of hardware where it did, then by mean gain.

    The gain is taken as a share of the metric, so that tracks can be pooled.
    """
    ranked = []
    for group in _grouped((run for run in valid(runs) if run.gain is not None), change):
        if held := [run for run in group if run.helped]:
            share = sum((run.gain or 0.0) / abs(run.value or 1.0) for run in group) / len(group)
            ranked.append((-len({run.hardware for run in held}), -share, change(held[0].card), group))
    return [group for *_, group in sorted(ranked, key=lambda rank: rank[:3])]


def crashes(runs: Iterable[Run]) -> list[list[Run]]:
    """The crashes with one kind of error that said the same, numbers aside, together; the most frequent first."""
    groups = _grouped((run for run in runs if run.card["status"] == "crash"), signature)
    return sorted(groups, key=lambda group: (-len(group), signature(group[0].card)))


def error_of(card: Card) -> tuple[str, str]:
    """The kind of error of a crash, and what it said in one line."""
    error = card["error"] or {}
    said = error.get("summary") or card["hypothesis"] or "no error noted"
    return error.get("kind") or "unknown", one_line(said, 120)


def signature(card: Card) -> str:
    """What crashes that are alike have in common: the kind of error and what it said, numbers and folders aside."""
    kind, said = error_of(card)
    said = re.sub(r"([A-Za-z]:)?([/\\][^\s/\\:'\"]+)+(?=[/\\])", "", said)  # every run has a checkout of its own
    return f"{kind} {re.sub(r'[0-9]+([.][0-9]+)?', '#', said)}".casefold()


def _most_tries(group: Sequence[Run]) -> tuple[int, float]:
    return -len(group), -(best_of(group).gain or 0.0)


def _grouped(runs: Iterable[Run], key: Callable[[Card], str]) -> list[list[Run]]:
    """The runs of whose cards `key` says the same, ignoring case."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run.card).casefold(), []).append(run)
    return list(groups.values())


def _subject(card: Card) -> str:
    """What was turned, whichever way: the names of the constants, or the hypothesis without its numbers and asides."""
    if card["config_diff"]:
        return one_line(", ".join(sorted(card["config_diff"])), 100)
    words = re.sub(r"\([^)]*\)", " ", idea(card)).split()
    bare = [word for word in words if not re.search(r"\d", word) and word not in ("to", "from", "by", "->", "=")]
    return " ".join(bare) or idea(card)


def best_of(group: Iterable[Run]) -> Run:
    """The run that gained most; one whose gain is unknown only where all are so."""
    return max(group, key=lambda run: (run.gain is not None, run.gain or 0.0))
