"""What a ledger's claims are worth: how much noise, which keeps are real, what was truly gained, what would settle it.

    found = audit(runs, "val_bpb", "min")          # what `commons.py audit` prints; the keys are in `audit`
    found["noise"]["sd"], found["total"]["expected"]

Everything follows from one posterior over the configurations (`lab/belief.py`) with the noise of `lab/scatter.py`. A
keep's probability is that it truly improved on what it was edited from. Pure. Not covered: reading files
(`lab/cli_audit.py`) and the words of the report (`lab/audit_text.py`).
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from lab.belief import Belief, Verdict
from lab.confirming import plan
from lab.novelty import SAME_IDEA_THRESHOLD, similarity
from lab.scatter import MAX_COMPARED, Pair, weigh, with_repeats
from lab.schema import Card, finite
from lab.settings import Settings
from lab.stats import NORMAL_95, below_zero, counts, gain

SUPPORTED = Settings().likely_probability  # from which on a true improvement is supported, whatever a project sets
NOISE = 0.5  # below which it more likely did nothing, or harm, than good
STANDINGS = ("supported", "doubtful", "noise")

Row = dict[str, Any]


class Run(NamedTuple):
    """One row of a ledger: the line it starts on, and its card."""

    line: int
    card: Card


def audit(runs: Sequence[Run], metric: str, direction: str, sigma: float | None = None) -> dict[str, Any]:
    """Everything an audit tells, as JSON has it; null is unknown. Differences have the metric's sign.

    `runs` by status, `noise` (`lab.scatter.Estimate` and the `pairs` of lines that repeat), `keeps` in their order,
    `standings` (how many, and at either end of the noise's interval), `total`, `luckiest` (a line), `repeated` ideas,
    `plan` (the repeats that settle keeps), `path` (the running best, claimed and believed), `rows` (line, status,
    value).
    """
    ordered = sorted(runs, key=lambda run: run.card["timestamp"])
    places = {run.card["id"]: f"{at:09d}" for at, run in enumerate(ordered)}
    rows, pairs = with_repeats([_row(places, run, metric) for run in ordered])
    lines = [run.line for run in ordered]
    belief, noise = weigh(rows, direction, sigma)
    sds = {"low": noise.low, "high": noise.high} if belief and sigma is None else {}
    ends = {name: end for name, sd in sds.items() if sd and (end := weigh(rows, direction, sd)[0])}
    keeps = _keeps(rows, lines, direction, belief)
    told = [keep for keep in keeps if keep["luck"] is not None]
    return {
        "metric": metric,
        "direction": direction,
        "runs": Counter(run.card["status"] for run in runs),
        "compared": sum(map(counts, rows)),
        "noise": noise._asdict()
        | {"repeats": noise.repeats._asdict(), "late": noise.late._asdict(), "pairs": _pairs(pairs, rows, lines)},
        "keeps": keeps,
        "standings": standings(keeps),
        "if_noise_is": {name: standings(_keeps(rows, lines, direction, end)) for name, end in ends.items()},
        "total": _total(rows, lines, direction, belief, ends.get("high")),
        "luckiest": max(told, key=lambda keep: keep["luck"])["line"] if told else None,
        "repeated": repeated(rows, lines, direction),
        "plan": _plan(rows, lines, belief, keeps),
        "path": _path(rows, lines, direction, belief),
        "rows": [
            [line, row["status"], row["result"] if counts(row) else None] for line, row in zip(lines, rows, strict=True)
        ],
    }


def _row(places: dict[str, str], run: Run, metric: str) -> Row:
    """A row as `believe` takes it, named by its place in the order; a ledger's row follows the last one kept."""
    card, decision = run.card, run.card["decision"] or {}
    own = card["source"] is None
    return {
        "id": places[card["id"]],
        "timestamp": places[card["id"]],
        "status": card["status"],
        "quarantined": card["quarantined"],
        "result": finite(card["results"].get(metric)),
        "edit_key": card["edit_key"] or card["train_sha256"],
        "train_sha256": None,
        "commit_id": card["commit"] if own else None,
        "parent_commit": card["parent_commit"],
        "champion": places.get(decision.get("champion") or "") if own else None,
        "seed": card["seed"],
        "machine": (card["platform"] or {}).get("device_name"),
        "hypothesis": card["hypothesis"],
    }


def standings(keeps: Sequence[Row]) -> dict[str, int]:
    """How many keeps stand how; empty where nothing is known."""
    found = Counter(keep["standing"] for keep in keeps)
    return {name: found[name] for name in STANDINGS} if None not in found else {}


def _keeps(rows: Sequence[Row], lines: Sequence[int], direction: str, belief: Belief | None) -> list[Row]:
    """Every kept configuration after the first, with what it claims to have gained and what to believe of that."""
    found: list[Row] = []
    last: Row | None = None
    seen: set[str] = set()
    of_run = belief.by_run() if belief else {}
    for at, row in enumerate(rows):
        if row["status"] != "keep" or not counts(row) or row["edit_key"] in seen:
            continue
        seen.add(row["edit_key"])
        parent = last
        node = of_run.get(row["id"])
        if node and node.parent:
            parent = rows[int(node.parent)]
        last = row
        if parent is None:
            continue
        claimed = difference(row["result"], parent["result"])
        step = belief.step(node.card) if belief and node else None
        told = _believed(step, belief.noise.sd, direction, claimed) if belief and belief.noise.sd and step else UNKNOWN
        keep = {"line": lines[at], "from": lines[int(parent["id"])], "idea": row["hypothesis"]}
        found.append(keep | {"value": row["result"], "claimed": claimed} | told)
    return found


UNKNOWN = {"probability": None, "standing": None, "expected": None, "sd": None, "luck": None}


def _believed(step: Verdict, noise: float, direction: str, claimed: float | None) -> Row:
    """A step beside its claim; `luck` is what it claims too much, in standard deviations between two runs."""
    better = step.better
    luck = None if claimed is None else finite(gain(claimed - step.expected, direction) / (math.sqrt(2) * noise))
    standing = STANDINGS[0] if better >= SUPPORTED else STANDINGS[2] if better < NOISE else STANDINGS[1]
    return {
        "probability": better,
        "standing": standing,
        "expected": finite(step.expected),
        "sd": finite(step.sd),
        "luck": luck,
    }


def difference(value: float, other: float) -> float | None:
    """`value - other`, rounded to what is not noise of the subtraction; None where it is beyond the floats."""
    found = value - other
    return float(f"{found:.12g}") if math.isfinite(found) else None


def _total(
    rows: Sequence[Row], lines: Sequence[int], direction: str, belief: Belief | None, noisiest: Belief | None
) -> Row | None:
    """The improvement from the first result to the best kept one: claimed, and its posterior with a 95% interval.

    The interval holds that of the belief at the largest noise that may be, too.
    """
    path = _best_so_far(rows, direction)
    if not path:
        return None
    first, best = rows[path[0]], rows[path[-1]]
    found = {"from": lines[path[0]], "to": lines[path[-1]], "claimed": difference(best["result"], first["result"])}
    if belief is None or len(path) < 2:
        return found | {"expected": None, "low": None, "high": None, "probability": None}
    expected, sd = _apart(belief, first["id"], best["id"])
    ends = [(expected, sd), *([_apart(noisiest, first["id"], best["id"])] if noisiest else [])]
    return found | {
        "expected": finite(expected),
        "low": finite(min(mean - NORMAL_95 * spread for mean, spread in ends)),
        "high": finite(max(mean + NORMAL_95 * spread for mean, spread in ends)),
        "probability": below_zero(-gain(expected, direction), sd),
    }


def _apart(belief: Belief, first: str, last: str) -> tuple[float, float]:
    """(mean, at most the standard deviation) of the true difference of two runs' configurations.

    What is believed of two ends of a path rises and falls together, if at all: as if independent it is a bound.
    """
    of_run = belief.by_run()
    (was, was_sd), (now, now_sd) = (belief.value(of_run[run].card) for run in (first, last))
    return now - was, math.hypot(was_sd, now_sd)


def _best_so_far(rows: Sequence[Row], direction: str) -> list[int]:
    """The places of the kept results that were better than all kept before; the first result where none was kept."""
    path: list[int] = []
    for at, row in enumerate(rows):
        if not counts(row) or row["status"] != "keep":
            continue
        if not path or gain(row["result"] - rows[path[-1]]["result"], direction) > 0:
            path.append(at)
    return path


def _path(rows: Sequence[Row], lines: Sequence[int], direction: str, belief: Belief | None) -> list[Row]:
    """The best kept results in their order: what they claim, and what to believe of them after all runs."""
    found, of_run = [], belief.by_run() if belief else {}
    for at in _best_so_far(rows, direction):
        value, sd = belief.value(of_run[rows[at]["id"]].card) if belief else (None, None)
        claimed = {"place": at + 1, "line": lines[at], "claimed": rows[at]["result"], "idea": rows[at]["hypothesis"]}
        found.append(claimed | {"believed": value, "sd": sd})
    return found


def _plan(rows: Sequence[Row], lines: Sequence[int], belief: Belief | None, keeps: Sequence[Row]) -> Row | None:
    """The cheapest repeats that settle keeps, by their lines; None where nothing is known of the keeps."""
    if belief is None:
        return None
    of_run = belief.by_run()
    cards = {lines[at]: of_run[row["id"]].card for at, row in enumerate(rows) if row["id"] in of_run}
    named = {card: line for line, card in reversed(cards.items())}
    steps, rest = plan(belief, {cards[keep["line"]]: keep["probability"] for keep in keeps if keep["probability"]})
    told = [
        {
            "line": named[step.card],
            "repeats": {str(named[card]): count for card, count in step.repeats.items()},
            "runs": step.cost,
            "chance": step.chance,
        }
        for step in steps
    ]
    return {"steps": told, "runs": sum(step.cost for step in steps), "not_worth": [named[card] for card in rest]}


def _pairs(pairs: Sequence[Pair], rows: Sequence[Row], lines: Sequence[int]) -> list[Row]:
    found = []
    for first, again, why in pairs:
        apart = difference(rows[again]["result"], rows[first]["result"])
        found.append(
            {"lines": [lines[first], lines[again]], "apart": apart, "why": why, "idea": rows[again]["hypothesis"]}
        )
    return found


def repeated(rows: Sequence[Row], lines: Sequence[int], direction: str) -> list[list[Row]]:
    """Ideas that were tried more than once, with what came out each time; of the newest MAX_COMPARED rows."""
    groups: list[list[Row]] = []
    best: float | None = None
    for at, row in enumerate(rows):
        delta = difference(row["result"], best) if counts(row) and best is not None else None
        if counts(row) and row["status"] == "keep" and (best is None or gain(row["result"] - best, direction) > 0):
            best = row["result"]
        text = row["hypothesis"] or ""
        if at < len(rows) - MAX_COMPARED or not text:
            continue
        told = {"line": lines[at], "idea": text, "status": row["status"], "delta": delta}
        mine = next((group for group in groups if similarity(group[0]["idea"], text) >= SAME_IDEA_THRESHOLD), None)
        if mine is None:
            groups.append([told])
        else:
            mine.append(told)
    return sorted((group for group in groups if len(group) > 1), key=lambda group: -len(group))
