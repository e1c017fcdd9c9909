"""What the commons knows, asked of the index: the champion of a track, coverage, near misses, dead ends.

    with Index(knowledge) as index:
        track = main_track(index)
        champion(index, track), coverage(index, track), dead_ends(index, track)

Every function answers from an open `Index` with rows of its tables (docs/protocol.md). Only comparable runs are
compared: a champion, a difference and a coverage belong to one track. Retracted and quarantined runs take no part.
Not covered: what a result means (`lab/judgement.py`), what of all this a brief needs (`lab/briefing.py`).
"""

import os
import re

from lab.errors import CardError, SettingError
from lab.index import Index
from lab.judgement import SHOWN, VALID, Row, judgement
from lab.schema import CATEGORIES
from lab.settings import Settings, time_budget
from lab.stats import Noise, gain

CANDIDATES = 200  # the newest so many runs are looked at for near misses and dead ends
UNKNOWN_NEAR = 0.002  # bpb: how far from the champion a near miss is where nothing tells how large noise is
SEARCH_WORDS = 100  # of a text; SQLite takes no more than 256


def find_id(index: Index, name: str, table: str = "cards") -> str:
    """The one id that starts with `name`, or the newest card's for "last". CardError when there is none, or several."""
    if name == "last":
        found = index.rows(f"SELECT id FROM {table} ORDER BY timestamp DESC, id DESC LIMIT 1")
    else:
        found = index.rows(f"SELECT id FROM {table} WHERE id >= ? AND id < ? ORDER BY id LIMIT 99", name, name + "g")
    what = table.removesuffix("s")
    if not found or not name:
        lists = "read-brief` lists the open questions" if table == "notes" else "history` lists the cards"
        raise CardError(f"no {what} {name!r}; `commons.py {lists}, `commons.py search` finds words")
    if len(found) > 1 and found[0]["id"] != name:  # a whole id may be the beginning of another one
        raise CardError(f"{name!r} names {len(found)} {what}s; give more of the id, such as {found[0]['id']}")
    return str(found[0]["id"])


def main_track(index: Index, wanted: str | None = None) -> str | None:
    """The track that is worked on: of the newest card that has one, or the one that `wanted` is, or is part of."""
    if wanted is None:
        newest = index.row("SELECT track FROM cards WHERE track IS NOT NULL ORDER BY timestamp DESC, id DESC LIMIT 1")
        return str(newest["track"]) if newest else None
    return named_track([row["track"] for row in tracks_of(index)], wanted)


def local_track(index: Index, machine: str) -> str | None:
    """The track of a machine's newest run under the time budget, and the preset, that are set now; None: it has none.

    A track whose name tells no budget is taken for one of this budget.
    """
    preset = os.environ.get("AUTORESEARCH_PRESET") or None
    steps = os.environ.get("AUTORESEARCH_STEPS") or "0"
    now = f"{time_budget():g}s" if steps == "0" else f"{steps}steps"
    rows = index.rows(
        "SELECT track, max(timestamp) AS newest FROM cards WHERE machine = ? AND track IS NOT NULL "
        "AND (preset = coalesce(?, preset) OR preset IS NULL) GROUP BY track ORDER BY newest DESC",
        machine, preset,
    )  # fmt: skip
    clocks = ((row["track"], re.search(r"-([0-9.e+]+s|[0-9]+steps)/", row["track"])) for row in rows)
    return next((track for track, clock in clocks if clock is None or clock[1] == now), None)


def named_track(tracks: list[str], wanted: str) -> str:
    """The track of this name, else the only one that has it in its name. SettingError when none has, or several."""
    found = [track for track in tracks if track == wanted] or [track for track in tracks if wanted in track]
    if len(found) != 1:
        listed = ", ".join(tracks) or "none yet"
        raise SettingError(f"--track {wanted!r} is {'several' if found else 'none'} of the tracks: {listed}")
    return found[0]


def tracks_of(index: Index) -> list[Row]:
    """Every track: name, runs, kept, crashes, direction, the one with most runs first."""
    return index.rows(
        "SELECT track, sum(runs) AS runs, sum((standing = 'keep') * runs) AS kept, "
        "sum((standing = 'crash') * runs) AS crashes, direction "
        "FROM counts WHERE track IS NOT NULL GROUP BY track ORDER BY sum(runs) DESC, track"
    )


def champion(index: Index, track: str | None) -> Row | None:
    """The kept run of the track that is believed to be truly the best, None when none is kept or the track unknown.

    With `mean` and `sd` of its true value, and `runs` of its configuration; None where they are not known. Among
    configurations the best posterior mean decides, not the luckiest result.
    """
    belief = judgement(index, track)
    if belief and belief.champion:
        mean, sd = belief.value(belief.champion)
        known = {"mean": mean, "sd": sd, "runs": len(belief.nodes[belief.champion].runs)}
        row = index.row(f"SELECT {SHOWN} FROM cards WHERE id = ?", belief.champion)
        return row and row | known
    best = best_kept(index, track)
    return best and best | {"mean": None, "sd": None, "runs": 1}


def best_kept(index: Index, track: str | None) -> Row | None:
    """The kept run of the track with the best result as it was measured, lucky or not."""
    best = None
    for direction, order in (("min", "ASC"), ("max", "DESC")):
        best = best or index.row(
            f"SELECT {SHOWN} FROM cards WHERE track = ? AND status = 'keep' AND direction = ? AND {VALID} "
            f"ORDER BY result {order}, timestamp, id LIMIT 1",
            track, direction,
        )  # fmt: skip
    return best


def baseline(index: Index, track: str | None) -> Row | None:
    """The first kept run of the track."""
    return index.row(
        f"SELECT {SHOWN} FROM cards WHERE track = ? AND status = 'keep' AND {VALID} ORDER BY timestamp, id LIMIT 1",
        track,
    )


def track_noise(index: Index, track: str | None) -> Noise:
    """The noise of a track, and what it rests on."""
    belief = judgement(index, track)
    return belief.noise if belief else Noise(None, "no results yet")


def coverage(index: Index, track: str | None = None) -> dict[str, Row]:
    """{category: {count, kept, crashed, best_delta, best_bpb}} of a track, or of everything; 0 where never tried.

    `best_bpb` is of whatever the metric is.
    """
    where, values = ("WHERE track = ? AND", [track]) if track else ("WHERE", [])
    rows = index.rows(
        "SELECT coalesce(category, 'other') AS name, sum(runs) AS count, sum((standing = 'keep') * runs) AS kept, "
        "sum((standing = 'crash') * runs) AS crashed, "
        "CASE max(direction) WHEN 'min' THEN min(delta) ELSE max(delta) END AS best_delta, "
        "CASE max(direction) WHEN 'min' THEN min(result) ELSE max(result) END AS best_bpb "
        f"FROM (SELECT *, {_best_of_group('delta')}, {_best_of_group('result')} FROM counts) "
        f"{where} standing != 'retracted' GROUP BY 1",
        *values,
    )
    empty = {"count": 0, "kept": 0, "crashed": 0, "best_delta": None, "best_bpb": None}
    return {name: dict(empty) for name in CATEGORIES} | {row.pop("name"): row for row in rows}


def _best_of_group(name: str) -> str:
    """The best delta or result of the cards that a row of `counts` counts: the first or last entry of an index."""
    columns = ("track", "category", "standing", "direction")
    group = " AND ".join(f"cards.{column} IS counts.{column}" for column in columns)
    valid = "standing != 'quarantined'"
    low, high = (f"(SELECT {which}({name}) FROM cards WHERE {group} AND {valid})" for which in ("min", "max"))
    return f"iif(direction = 'min', {low}, {high}) AS {name}"


def tags(index: Index, track: str | None, limit: int = 20) -> list[Row]:
    """The tags of a track, or of all: tag, count, kept; the one used most first."""
    where, values = ("AND track = ?", [track]) if track else ("", [])
    return index.rows(
        "SELECT tag, sum(runs) AS count, sum((standing = 'keep') * runs) AS kept FROM tag_counts "
        f"WHERE standing != 'retracted' {where} GROUP BY tag ORDER BY count DESC, tag LIMIT ?",
        *values, limit,
    )  # fmt: skip


def tag_coverage(index: Index) -> dict[str, Row]:
    """{tag: {count, kept, best_delta, best_bpb}} over all tracks, in the order of the tags."""
    rows = index.rows(
        "SELECT tag, count(*) AS count, sum(standing = 'keep') AS kept, "
        f"{_best_valid('delta')} AS best_delta, {_best_valid('result')} AS best_bpb "
        "FROM tags WHERE standing != 'retracted' GROUP BY tag ORDER BY tag"
    )
    return {row.pop("tag"): row for row in rows}


def _best_valid(name: str) -> str:
    """The best of a group of tags, suspect runs left out."""
    valid = f"iif(standing != 'quarantined', {name}, NULL)"
    return f"CASE max(direction) WHEN 'min' THEN min({valid}) ELSE max({valid}) END"


def near_margin(index: Index, track: str | None, settings: Settings) -> float:
    """How far from the champion a near miss is, in the metric: as it is set, or as far as noise reaches."""
    sd = track_noise(index, track).sd
    return settings.near_miss or (sd * 2**0.5 if sd else UNKNOWN_NEAR)  # both runs are noisy


def near_misses(index: Index, track: str | None, margin: float, limit: int = 10) -> list[Row]:
    """Runs that were not kept and came this close to the champion of their moment, or past it; the closest first."""
    close = [row for row in _not_kept(index, track) if row["delta"] is not None and _loss(row) <= margin]
    return sorted(close, key=_loss)[:limit]


def dead_ends(index: Index, track: str | None, sd: float | None, limit: int = 10) -> list[Row]:
    """Runs that were worse by more than noise: of every category the worst of late, then the next of every category."""
    worse = [row for row in _not_kept(index, track) if row["delta"] is not None and _loss(row) > 2 * (sd or 0.0)]
    of_category: dict[str, int] = {}
    ranked = []
    for row in sorted(worse, key=_loss, reverse=True):
        place = of_category[row["category"]] = of_category.get(row["category"], 0) + 1
        ranked.append((place, row))
    return [row for _, row in sorted(ranked, key=lambda pair: pair[0])][:limit]


def _not_kept(index: Index, track: str | None) -> list[Row]:
    return index.rows(
        f"SELECT {SHOWN} FROM cards WHERE track = ? AND status IN ('revert', 'inconclusive') AND {VALID} "
        "ORDER BY timestamp DESC, id DESC LIMIT ?",
        track, CANDIDATES,
    )  # fmt: skip


def _loss(row: Row) -> float:
    """How much worse than the champion of its moment; negative is better."""
    return -gain(row["delta"], row["direction"])


def history(index: Index, track: str | None = None, limit: int = 20) -> list[Row]:
    """The newest runs, newest first, of a track or of all."""
    where, values = ("WHERE track = ?", [track]) if track else ("", [])
    return index.rows(f"SELECT {SHOWN} FROM cards {where} ORDER BY timestamp DESC, id DESC LIMIT ?", *values, limit)


def suspects(index: Index, track: str | None, limit: int = 5) -> list[Row]:
    """Runs that take no part in verdicts until somebody confirms them, newest first."""
    return index.rows(
        f"SELECT {SHOWN} FROM cards WHERE track = ? AND quarantined IS NOT NULL AND status != 'retracted' "
        "ORDER BY timestamp DESC, id DESC LIMIT ?",
        track, limit,
    )  # fmt: skip


def open_questions(index: Index, limit: int = 10) -> list[Row]:
    """Questions that no note answers, newest first."""
    return index.rows(
        "SELECT * FROM notes AS asked WHERE kind = 'question' "
        "AND NOT EXISTS (SELECT 1 FROM notes WHERE answers = asked.id) ORDER BY timestamp DESC, id DESC LIMIT ?",
        limit,
    )


def insights(index: Index, limit: int = 10) -> list[Row]:
    """Insights and memories, newest first."""
    return index.rows(
        "SELECT * FROM notes WHERE kind IN ('insight', 'memory') ORDER BY timestamp DESC, id DESC LIMIT ?", limit
    )


def search(index: Index, text: str, limit: int = 20, every_word: bool = True) -> list[Row]:
    """Cards and notes whose hypothesis, lesson or text has these words (in any form), the best match first."""
    words = ["".join(char for char in word if char.isalnum() or char in "._") for word in text.split()[:SEARCH_WORDS]]
    quoted = (" " if every_word else " OR ").join(f'"{word}"' for word in words if word)
    if not quoted:
        return []
    found = index.rows("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?", quoted, limit)
    rows = []
    for hit in found:
        if hit["rowid"] > 0:
            rows += index.rows(f"SELECT {SHOWN} FROM cards WHERE rowid = ?", hit["rowid"])
        else:
            rows += index.rows("SELECT * FROM notes WHERE rowid = ?", -hit["rowid"])
    return rows
