"""What is believed of a track: its runs asked of the index, judged by `lab/belief.py`, kept until a card changes.

    with Index(knowledge) as index:
        belief = judgement(index, track)                    # None where nothing can be said yet
        challengers(index, track), findings(index, track)

A track's newest runs and its best and newest kept ones stand for all of it: what was tried and dropped hundreds of
runs ago says next to nothing about today's champion, and a verdict must not wait for it. `everything` takes all.
Not covered: what to do about a verdict (`lab/decide.py`), how it is told (`lab/cli_judge.py`).
"""

import json
from typing import Any

from lab.belief import Belief, as_json, from_json
from lab.findings import Finding, Pooled, judged, pooled
from lab.index import Index
from lab.settings import Settings, judging
from lab.stats import below_zero, gain, noise_prior
from lab.tree import believe

Row = dict[str, Any]

MODEL = 3  # another number: what an earlier version computed and kept is computed anew
RECENT, KEPT = 200, 100
ENOUGH_PAIRS = 10  # of runs that differ in their seeds: the noise is then known to about a quarter
ELSEWHERE_TRACKS, ELSEWHERE_RUNS = 20, 50
TRANSFER_TRACKS = 20  # judging one takes 20 to 200 milliseconds
# What lists of runs show of each.
SHOWN = (
    "id, timestamp, status, track, metric, direction, result, delta, category, hypothesis, lesson, agent, session, "
    "commit_id, probability, peak_vram_mb, error_kind, error_summary, quarantined, confirmed, edit_key, seed, preset"
)
VALID = "quarantined IS NULL AND result IS NOT NULL"
EVIDENCE = (
    "id, timestamp, status, quarantined, metric, result, direction, edit_key, train_sha256, commit_id, parent_commit, "
    "champion, seed, machine, hypothesis, preset, device, confirmed, tokens_per_second"
)


def evidence(index: Index, track: str | None, everything: bool = False) -> list[Row]:
    """The runs of a track that a belief rests on, oldest first: those of one metric and direction.

    It is what most of its newest runs have: one stray card must not turn the track over.
    """
    valid = f"FROM cards WHERE track = ? AND {VALID} AND status != 'retracted'"
    kind = index.row(
        f"SELECT metric, direction FROM (SELECT metric, direction, timestamp {valid} "
        "ORDER BY timestamp DESC, id DESC LIMIT ?) "
        "GROUP BY metric, direction ORDER BY count(*) DESC, max(timestamp) DESC, metric, direction LIMIT 1",
        track, RECENT,
    )  # fmt: skip
    if kind is None:
        return []
    chosen = f"SELECT {EVIDENCE} {valid} AND metric = ? AND direction = ?"
    asked = track, kind["metric"], kind["direction"]
    if everything:
        return index.rows(f"{chosen} ORDER BY timestamp, id", *asked)
    # Equal times and results are told apart by the id: the same window on every machine.
    order = "DESC" if kind["direction"] == "max" else "ASC"
    kept = f"{chosen} AND status = 'keep' ORDER BY"
    found = [
        *index.rows(f"{chosen} ORDER BY timestamp DESC, id DESC LIMIT ?", *asked, RECENT),
        *index.rows(f"{kept} timestamp DESC, id DESC LIMIT ?", *asked, KEPT),
        *index.rows(f"{kept} result {order}, timestamp, id LIMIT ?", *asked, KEPT),
    ]
    keys = {row["edit_key"] for row in found if row["status"] == "keep" and row["edit_key"]}
    found += index.rows(f"{chosen} AND edit_key IN ({', '.join('?' * len(keys))})", *asked, *keys)
    once = {row["id"]: row for row in found}
    return sorted(once.values(), key=lambda row: (row["timestamp"], row["id"]))


def judgement(index: Index, track: str | None, everything: bool = False) -> Belief | None:
    """The posterior of a track; None where it has no result, or all are 0 and nothing tells how large noise is."""
    if track is None:
        return None
    settings = settings_of(index)
    name, about = f"belief {track} {everything}", f"{MODEL} {settings.noise}"
    if name not in index.made:
        known = index.recall(name, about)
        try:
            values = json.loads(known or "")
            belief = None if values is None else from_json(values)
        except (ValueError, TypeError, LookupError, AttributeError):  # nothing is known, or what is is damaged
            belief = _judged(index, track, everything, settings.noise)
            index.remember(name, about, json.dumps(as_json(belief) if belief else None))
        index.made[name] = belief
    return index.made[name]  # type: ignore[no-any-return]


def settings_of(index: Index) -> Settings:
    """The settings of the commons, read once for an open index: a brief asks five times."""
    if "settings" not in index.made:
        index.made["settings"] = judging(index.knowledge)
    found: Settings = index.made["settings"]
    return found


def _judged(index: Index, track: str, everything: bool, noise: float) -> Belief | None:
    rows = evidence(index, track, everything)
    if not rows:
        return None
    last = rows[-1]
    prior = noise or noise_prior(last["preset"], last["device"], last["metric"])
    return believe(rows, last["direction"], prior, _elsewhere(index, track, last["metric"]))


def _elsewhere(index: Index, track: str, metric: str) -> list[tuple[float, float]]:
    """What edits did on other tracks, negative where they improved the metric, and how sure that is: shares of it.

    A noisy track must not pass for one of large effects: without a standard error its preset's noise counts.
    """
    tracks = index.rows(
        "SELECT DISTINCT track FROM counts WHERE track IS NOT NULL AND track != ? ORDER BY track", track
    )
    found = []
    for row in tracks[:ELSEWHERE_TRACKS]:
        found += index.rows(
            "SELECT delta, delta_stderr, result, direction, preset, device FROM cards "
            "WHERE track = ? AND metric = ? AND delta IS NOT NULL AND result != 0 AND quarantined IS NULL "
            "AND status != 'retracted' ORDER BY timestamp DESC, id DESC LIMIT ?",
            row["track"], metric, ELSEWHERE_RUNS,
        )  # fmt: skip
    shares = []
    for row in found:
        size, assumed = abs(row["result"]), noise_prior(row["preset"], row["device"], metric) * 2**0.5
        shares.append((-gain(row["delta"], row["direction"]) / size, (row["delta_stderr"] or 0.0) / size or assumed))
    return shares


def challengers(index: Index, track: str | None, limit: int = 10) -> list[Row]:
    """The configurations that may truly be better than the champion, the likeliest first.

    Rows of the index with probability, expected (the difference to the champion, signed as delta), expected_sd,
    runs (how many it has had) and repeat_pays.
    """
    belief = judgement(index, track)
    if belief is None or belief.champion is None:
        return []
    best = belief.nodes[belief.champion]
    others = [node for node in belief.nodes.values() if node is not best]
    # A verdict takes a millisecond: first those that a glance at the marginals puts in front.
    others.sort(key=lambda node: below_zero(best.mean - node.mean, (best.variance + node.variance) ** 0.5))
    rows = []
    for node in others[: 2 * limit]:
        verdict = belief.verdict(None, node.parent, node)
        if verdict:
            rows.append(
                row_of(index, node.card)
                | {"probability": verdict.better, "expected": verdict.expected, "expected_sd": verdict.sd,
                   "runs": len(node.runs), "repeat_pays": verdict.repeat_pays}
            )  # fmt: skip
    return sorted(rows, key=lambda row: (-row["probability"], row["id"]))[:limit]


def findings(index: Index, track: str | None, limit: int = 100) -> list[Finding]:
    """What was found out on a track: every kept edit, and every other that was repeated; the largest gain first."""
    belief = judgement(index, track)
    if belief is None:
        return []
    chosen = [node for node in belief.nodes.values() if node.from_parent and (node.kept or len(node.runs) > 1)]
    chosen.sort(key=lambda node: node.alone[0] - (node.from_parent or node.alone)[0])
    settings = settings_of(index)
    found = [
        judged(belief, node, {run: row_of(index, run) for run in node.runs}, settings) for node in chosen[: 2 * limit]
    ]
    return sorted(found, key=lambda finding: (-gain(finding.expected, belief.direction), finding.card))[:limit]


def transfer(index: Index) -> list[Pooled]:
    """Changes that were tried on several of the TRANSFER_TRACKS busiest tracks, with their effect over all of them."""
    found = []
    for row in index.rows(
        "SELECT track FROM counts WHERE track IS NOT NULL GROUP BY track ORDER BY sum(runs) DESC, track LIMIT ?",
        TRANSFER_TRACKS,
    ):
        if belief := judgement(index, row["track"]):
            found += [(row["track"], belief, finding) for finding in findings(index, row["track"])]
    return pooled(found)


def lineages(index: Index, track: str | None, limit: int = 3) -> list[Row]:
    """The kept configurations that nothing kept was made from, the truly best first: where the lines of work stand.

    Rows of the index with mean, gained (since the baseline, signed as delta) and steps.
    """
    belief = judgement(index, track)
    if belief is None:
        return []
    kept = [node for node in belief.nodes.values() if node.kept]
    tips = {node.card for node in kept} - {node.parent for node in kept}
    found = []
    for node in sorted((node for node in kept if node.card in tips), key=lambda node: node.mean)[:limit]:
        line = belief.line(node.card)
        mean, start = belief.value(node.card)[0], belief.value(line[-1])[0]
        found.append(row_of(index, node.card) | {"mean": mean, "gained": mean - start, "steps": len(line) - 1})
    return found


def advice(belief: Belief, champion: Row | None) -> list[str]:
    """Which repeats would tell most about the noise of a track, in words."""
    ledger, told = belief.repeats, []
    name = champion["id"][:12] if champion else "the champion"
    if (missing := ENOUGH_PAIRS - ledger.pairs[1]) > 0:
        runs = 3 if not ledger.pairs[1] else 2 if missing > 1 else 1
        told.append(f"{runs} runs of {name} with new seeds: the seed's term rests on {ledger.pairs[1]} pairs")
    if ledger.main_machine and not ledger.pairs[2] and len(ledger.machines) > 1:
        told.append(f"{name} on another machine: {len(ledger.machines)} machines have no configuration in common")
    return told or ["none: new ideas tell more than another repeat"]


def row_of(index: Index, card: str) -> Row:
    """A card's row, with its changes as the card has them."""
    row = index.row(f"SELECT {SHOWN}, machine FROM cards WHERE id = ?", card) or {}
    changes = index.rows("SELECT name, old, new FROM changes WHERE card = ?", card)
    return row | {"config_diff": {row["name"]: [json.loads(row["old"]), json.loads(row["new"])] for row in changes}}
