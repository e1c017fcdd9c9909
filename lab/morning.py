"""What happened since a moment, asked of the index: the facts of the morning report.

    with Index(knowledge) as index:
        found = gather(index, "2026-01-31T00:00:00.000Z", utc_now())
    print(report(found))                                     # lab/report.py tells it

A run belongs to a report by the time of its card. A card from a ledger without times belongs to one that names its
session, or that begins before 1971. What is believed is as of now, with every run that is known.
Not covered: how it is told (`lab/report.py`), what to do next (`lab/steps.py`), pictures (`lab/library.py`).
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from lab import facts
from lab.belief import Belief
from lab.brief import TIMED
from lab.errors import SettingError
from lab.findings import judged
from lab.ideas import read
from lab.index import Index
from lab.judgement import SHOWN, VALID, Row, challengers, findings, judgement, lineages, row_of, transfer
from lab.novelty import SAME_IDEA_THRESHOLD, outcome, similarity
from lab.schema import STATUSES, finite
from lab.settings import Settings, judging
from lab.stats import gain
from lab.waiting import WAITING_NEEDS, failures, waiting

LONGEST_SECONDS = 1e9  # of a run: thirty years, a slip of the pen
TRACKS = 6  # told; the rest is counted
FAILED_NOW, FAILED_BEFORE = 100, 500  # failed runs that are compared as ideas
MOST_NEAR = 20  # repeats: what needs more is not near
WAYS, LARGEST = 3, 3  # lines of work, and the steps told of each
SELECTED = f"{SHOWN}, {WAITING_NEEDS}, total_seconds, training_seconds, device"


def gather(index: Index, since: str | None, now: str, session: str | None = None, track: str | None = None) -> Row:
    """Everything the report tells of the runs since `since` (None: all), of a session or a track where one is named.

    SettingError when no card belongs to the session, or `track` names no track.
    """
    chosen = facts.main_track(index, track) if track else None
    runs = _runs(index, since, session, chosen)
    if session is not None and not index.row("SELECT 1 FROM cards WHERE session = ? LIMIT 1", session):
        raise SettingError(f"session {session!r} has no cards; {_sessions(index)}")
    start = since or min((run["timestamp"] for run in runs), default="")
    by_track = Counter(run["track"] for run in runs if run["track"])
    tracks = sorted(by_track, key=lambda name: (-by_track[name], name))
    main = tracks[0] if tracks else None
    settings = judging(index.knowledge)
    boards = {name: challengers(index, name) for name in tracks[:TRACKS]}
    near = _near(index, tracks[:TRACKS])
    best = {name: facts.champion(index, name) for name in tracks[:TRACKS]}
    ends = lineages(index, main, WAYS)
    pooled = [one._asdict() for one in transfer(index)] if _count(index, _ALL_TRACKS) > 1 else []
    again = [row for name in tracks[:TRACKS] for row in _again(index, name, runs)]
    # What was long ago, such as the baseline, only a belief of everything knows; the boards above need none.
    beliefs = {name: judgement(index, name, everything=True) for name in tracks[:TRACKS]}
    progress = [_progress(index, name, beliefs[name], best[name], start) for name in tracks[:TRACKS]]
    ids = {run["id"] for run in runs}
    settled = [row for belief in beliefs.values() for row in _settled(index, belief, start, ids, settings)]
    told = {name: [row for row in settled if row["standing"] == name] for name in ("confirmed", "refuted")}
    ways = _ways(index, beliefs[main], [best[main], *ends]) if main else []
    champions = {row["id"] for row in best.values() if row}
    board = [row for rows in boards.values() for row in rows]
    counts = Counter(run["status"] for run in runs)
    return {
        "since": since,
        "first": min((run["timestamp"] for run in runs), default=None),
        "last": max((run["timestamp"] for run in runs), default=None),
        "until": now,
        "session": session,
        "runs": len(runs),
        "status": {name: counts[name] for name in STATUSES if counts[name]},
        "cards": _count(index, "SELECT count(*) AS n FROM cards"),
        "newest": _newest(index),
        "left_out": _left_out(index, since, session, chosen),
        "tracks": [row | {"runs": by_track[row["track"]]} for row in progress],
        "more_tracks": len(tracks) - len(progress),
        "waiting": waiting(index, runs, champions, board, settings),
        "challengers": boards[main] if main else [],
        "lineages": ways,
        **told,
        "near": near,
        "transfer": pooled,
        "failures": failures(runs),
        "again": again,
        "suspects": [run for run in runs if run["quarantined"] and run["status"] != "retracted"],
        "coverage": facts.coverage(index, main) if main else {},
        "spent": _spent(runs, settings) | _per_gain(beliefs.get(main or ""), main, runs, told["confirmed"]),
        "same_error": settings.same_error,
    }


_ALL_TRACKS = "SELECT count(DISTINCT track) AS n FROM counts"


def _count(index: Index, sql: str, *values: Any) -> int:
    return int((index.row(sql, *values) or {"n": 0})["n"])


def _newest(index: Index) -> str | None:
    row = index.row("SELECT max(timestamp) AS newest FROM cards")
    return row["newest"] if row else None


def _runs(index: Index, since: str | None, session: str | None, track: str | None) -> list[Row]:
    """The runs of the report, newest first."""
    where, values = ["1"], []
    if since is not None:
        where.append(f"(timestamp >= ? OR timestamp < '{TIMED}')" if session is not None else "timestamp >= ?")
        values.append(since)
    for name, value in (("session", session), ("track", track)):
        if value is not None:
            where.append(f"{name} = ?")
            values.append(value)
    sql = f"SELECT {SELECTED} FROM cards WHERE {' AND '.join(where)} ORDER BY timestamp DESC, id DESC"
    return index.rows(sql, *values)


def _sessions(index: Index) -> str:
    """The newest sessions, for a message."""
    rows = index.rows(
        "SELECT session FROM cards WHERE session IS NOT NULL GROUP BY session ORDER BY max(timestamp) DESC LIMIT 12"
    )
    return f"the newest are {', '.join(row['session'] for row in rows)}" if rows else "no card names one"


def _left_out(index: Index, since: str | None, session: str | None, track: str | None) -> int:
    """How many cards without a time the report leaves out."""
    if since is None or since < TIMED or session is not None:
        return 0
    where, values = ("AND track = ?", [track]) if track else ("", [])
    return _count(index, f"SELECT count(*) AS n FROM cards WHERE timestamp < '{TIMED}' {where}", *values)


def _progress(index: Index, track: str, belief: Belief | None, best: Row | None, start: str) -> Row:
    """A track's champion now and at the start, as believed now, and the gain between the two."""
    noise = belief.noise._asdict() if belief else {"sd": None, "basis": ""}
    found: Row = {
        "track": track, "champion": best, "start": None, "baseline": False, "expected": None, "sd": None,
        "claimed": None, "noise": noise, "repeats": belief.repeats.runs if belief else 0,
    }  # fmt: skip
    if best is None:
        return found
    kept = index.rows(
        f"SELECT id, timestamp, result FROM cards WHERE track = ? AND metric = ? AND direction = ? "
        f"AND status = 'keep' AND {VALID} ORDER BY timestamp, id",
        track, best["metric"], best["direction"],
    )  # fmt: skip
    before = [row for row in kept if row["timestamp"] < start] or kept[:1]
    better = min if best["direction"] == "min" else max
    found["baseline"] = before[0]["timestamp"] >= start
    found["claimed"] = finite(better(row["result"] for row in kept) - better(row["result"] for row in before))
    ids = {row["id"] for row in before}
    nodes = [node for node in belief.nodes.values() if ids.intersection(node.runs)] if belief else []
    last = belief.by_run().get(best["id"]) if belief else None
    if belief and last and nodes:
        first = min(nodes, key=lambda node: node.mean)
        (mean, sd), (now, sd_now) = belief.value(first.card), belief.value(last.card)
        found["champion"] = best | {"mean": finite(now), "sd": finite(sd_now)}
        found["start"] = row_of(index, first.card) | {"mean": finite(mean), "sd": finite(sd)}
        # The two share what lies below both in the tree: apart they vary less than this, never more.
        found |= {"expected": finite(now - mean), "sd": finite(math.hypot(sd, sd_now)) if first != last else 0.0}
    return found


def _settled(index: Index, belief: Belief | None, start: str, ids: set[str], settings: Settings) -> list[Row]:
    """The findings of a track that the report's runs, or somebody in its time, confirmed or refuted."""
    if belief is None:
        return []
    stood_up = {
        row["card"] for row in index.rows("SELECT card FROM events WHERE kind = 'confirm' AND timestamp >= ?", start)
    }
    found = []
    for node in belief.nodes.values():
        # As many fresh runs as settle anything, and the one it was kept by.
        touched = (
            (ids if len(node.runs) > settings.confirm_repeats else stood_up).union(stood_up).intersection(node.runs)
        )
        if touched and node.from_parent:
            finding = judged(belief, node, {run: row_of(index, run) for run in node.runs}, settings)
            found.append(finding._asdict())
    found.sort(key=lambda row: (-gain(row["expected"], belief.direction), row["card"]))
    return found


def _near(index: Index, tracks: Iterable[str]) -> list[Row]:
    """The findings that the fewest repeats would settle, those first."""
    rows = [finding._asdict() for track in tracks for finding in findings(index, track)]
    near = [row for row in rows if row["repeats"] and row["repeats"] <= MOST_NEAR]
    return sorted(near, key=lambda row: (row["repeats"], -row["probability"], row["card"]))


def _ways(index: Index, belief: Belief | None, ends: Iterable[Row | None]) -> list[Row]:
    """The champion and the other ends of lines of work: rows with mean, gained and steps since the baseline.

    `shared` is how many of the steps are the champion's too (0 for itself), `largest` are those of the others that
    gained most: rows with `expected`.
    """
    if belief is None:
        return []
    of_run = belief.by_run()
    nodes = [of_run[end["id"]] for end in ends if end and end["id"] in of_run]
    known: set[str] = set()
    found = []
    for end in list(dict.fromkeys(node.card for node in nodes))[:WAYS]:
        way = belief.line(end)
        shared = [card for card in way[:-1] if card in known]
        known = known or set(way)
        steps = [(step.expected, card) for card in way if card not in shared and (step := belief.step(card))]
        steps.sort(key=lambda step: -gain(step[0], belief.direction))
        mean, start = belief.value(end)[0], belief.value(way[-1])[0]
        largest = [row_of(index, card) | {"expected": finite(expected)} for expected, card in steps[:LARGEST]]
        counted = {"mean": finite(mean), "gained": finite(mean - start), "steps": len(way) - 1, "shared": len(shared)}
        found.append(row_of(index, end) | counted | {"largest": largest})
    return found


def _again(index: Index, track: str, runs: Sequence[Row]) -> list[Row]:
    """Ideas of the report's runs that failed as they had before, another run of one edit aside: rows with `before`.

    Only ideas that name something in common are compared: all with all would take seconds.
    """
    sd = facts.track_noise(index, track).sd
    earlier = index.rows(
        f"SELECT {SHOWN} FROM cards WHERE track = ? AND status IN ('revert', 'crash') AND hypothesis IS NOT NULL "
        "ORDER BY timestamp DESC, id DESC LIMIT ?",
        track, FAILED_NOW + FAILED_BEFORE,
    )  # fmt: skip
    earlier = [row for row in earlier if outcome(row, sd) in ("refuted", "crashed")]
    about: dict[str, list[int]] = {}
    for place, row in enumerate(earlier):
        for name in _names(row):
            about.setdefault(name, []).append(place)
    places = {row["id"]: place for place, row in enumerate(earlier)}
    mine = [run for run in runs if run["track"] == track and run["id"] in places][:FAILED_NOW]
    found = []
    for run in mine:
        near = {other for name in _names(run) for other in about.get(name, ()) if other > places[run["id"]]}
        same = [earlier[other] for other in sorted(near) if _same_idea(run, earlier[other])]
        if same:
            found.append(run | {"before": same[0], "times": len(same)})
    return sorted(found, key=lambda row: (-row["times"], row["id"]))


def _names(row: Row) -> set[str]:
    return {name for change in read(row["hypothesis"]) for name in change.subject | change.words}


def _same_idea(run: Row, other: Row) -> bool:
    repeats = run["edit_key"] is not None and run["edit_key"] == other["edit_key"]
    return not repeats and similarity(run["hypothesis"], other["hypothesis"]) >= SAME_IDEA_THRESHOLD


def _seconds(run: Row) -> float | None:
    """How long a run took, the start and the evaluation with it where that is known."""
    values = (finite(run[name]) for name in ("total_seconds", "training_seconds"))
    return next((value for value in values if value is not None and 0 <= value < LONGEST_SECONDS), None)


def _hours(runs: Iterable[Row]) -> float | None:
    """None where no run says how long it took."""
    known = [seconds for run in runs if (seconds := _seconds(run)) is not None]
    return sum(known) / 3600 if known else None


def _spent(runs: Sequence[Row], settings: Settings) -> Row:
    """{hours, untold: runs that do not say, device, price: per hour, None where it is not set}."""
    devices = {run["device"] for run in runs if run["device"]}
    return {
        "hours": _hours(runs),
        "untold": sum(_seconds(run) is None for run in runs),
        "device": "CPU" if devices == {"cpu"} else "GPU",
        "price": settings.price_per_hour or None,
    }


def _per_gain(belief: Belief | None, track: str | None, runs: Sequence[Row], confirmed: Sequence[Row]) -> Row:
    """{confirmed_gain: on the way to the busiest track's champion, hours_per_thousandth of it}, None where unknown."""
    way = belief.line(belief.champion) if belief and belief.champion else []
    gains = [gain(row["expected"], belief.direction) for row in confirmed if belief and row["card"] in way]
    total = finite(sum(gains))
    hours = _hours(run for run in runs if run["track"] == track)
    each = hours / (total * 1000) if total and total > 0 and hours is not None else None
    return {"confirmed_gain": total or None, "hours_per_thousandth": finite(each)}
