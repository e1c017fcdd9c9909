"""Has it been tried: what an idea's closest earlier runs mean for it. Pure.

    similarity("halve the batch", "batch 524288 -> 262144") >= SAME_IDEA_THRESHOLD        # True
    assess(Idea("raise the embedding LR to 0.9"), earlier, "explore", sd=0.0005)          # {"decision": "block", ...}

`TABLE` says what each finding means in each mode. Not covered: how alike two ideas are (`lab/likeness.py`); where
earlier runs come from and what an edit changed (`lab/tried.py`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lab.likeness import SAME_IDEA_THRESHOLD, WordSimilarity, goes_on, similarity

__all__ = ["MODES", "SAME_IDEA_THRESHOLD", "TABLE", "Idea", "assess", "outcome", "similarity"]

Row = dict[str, Any]


class Idea(NamedTuple):
    """What somebody is about to try: its description, and what its edit says: changed constants in words, its key."""

    text: str
    changes: str = ""
    edit_key: str | None = None
    track: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that tells of it in words."""
        return tuple(text for text in (self.text, self.changes) if text)


# What to do, by mode. A duplicate is an equal edit on this track; a repeat's evidence is "here", or "distant" (another
# track, or many keeps ago against another champion), or "unclear" (noise was too large to tell).
MODES = ("explore", "exploit", "replicate")
TABLE: dict[tuple[str, str], tuple[str, str, str]] = {
    ("novel", ""): ("allow", "allow", "caution"),
    ("known_success", ""): ("caution", "allow", "allow"),
    ("incremental_followup", ""): ("allow", "allow", "caution"),
    ("repeat_failure", "here"): ("block", "block", "allow"),
    ("repeat_failure", "distant"): ("caution", "caution", "allow"),
    ("repeat_failure", "unclear"): ("caution", "allow", "allow"),
    ("duplicate_run", ""): ("block", "block", "allow"),
}
NOISE_DIFFERENCES = 2 * 2**0.5  # standard deviations of one run: two of the difference of two
MANY_KEEPS = 8  # so many improvements later the champion is another one
NOT_THE_IDEAS_FAULT = ("interrupted", "killed", "device", "disk")  # kinds of crashes that say nothing of what was tried


def assess(
    idea: Idea,
    earlier: Sequence[Row],
    mode: str,
    sd: float | None,
    threshold: float = SAME_IDEA_THRESHOLD,
    limit: int = 5,
    words: WordSimilarity | None = None,
) -> dict[str, Any]:
    """What earlier runs say of an idea: `classification`, `decision`, `evidence`, `reason` and the `closest` runs.

    Rows are of the index (`lab.facts.SHOWN`) and may have `changes` (config_diff in words) and `keeps_since`, how many
    runs of their track were kept after them. `sd` is the noise between repeats, in the metric's unit. Of equally close
    runs those of the idea's own track come first. Retracted runs take no part.
    """
    ranked = sorted(
        (_closeness(idea, row, words) for row in earlier if row["status"] != "retracted"),
        key=lambda found: (-found[0], found[1]["track"] != idea.track, found[1]["id"]),
    )
    told = [row | {"similarity": round(close, 4), "outcome": outcome(row, sd)} for close, row in ranked]
    same = [row for row in told if row["similarity"] >= threshold]
    same.sort(key=lambda row: (row["track"] != idea.track, -row["similarity"]))
    classification, evidence, row = _classify(idea, told, same)
    decision = TABLE[classification, evidence][MODES.index(mode)]
    shown = [row for row in [*same, *(row for row in told if row["similarity"] < threshold)] if row["similarity"] > 0.3]
    if row is not None:
        shown = [row, *(other for other in shown if other is not row)]
    return {
        "classification": classification,
        "evidence": evidence,
        "decision": decision,
        "mode": mode,
        "reason": _reason(classification, evidence, decision, idea, row),
        "same": len(same),
        "compared": len(earlier),
        "threshold": threshold,
        "closest": shown[:limit],
    }


def outcome(row: Row, sd: float | None) -> str:
    """What an earlier run says of its idea: helped, refuted, unclear or crashed."""
    if row["quarantined"] or row["status"] == "inconclusive":
        return "unclear"
    if row["status"] == "keep":
        return "helped"
    if row["status"] == "crash":
        return "unclear" if row["error_kind"] in NOT_THE_IDEAS_FAULT else "crashed"
    if row["delta"] is None:
        return "refuted"  # without a number the verdict of whoever wrote the card counts
    loss = row["delta"] if row["direction"] == "min" else -row["delta"]
    return "refuted" if loss > NOISE_DIFFERENCES * (sd or 0.0) else "unclear"


def _closeness(idea: Idea, row: Row, words: WordSimilarity | None) -> tuple[float, Row]:
    if idea.edit_key and idea.edit_key == row["edit_key"]:
        return 1.0, row
    texts = [text for text in (row["hypothesis"], row.get("changes")) if text]
    return max((similarity(one, other, words) for one in idea.texts for other in texts), default=0.0), row


def _classify(idea: Idea, told: Sequence[Row], same: Sequence[Row]) -> tuple[str, str, Row | None]:
    """(classification, evidence, the run that decides it)."""
    here = [row for row in same if row["track"] == idea.track]
    for row in here:
        if idea.edit_key and row["edit_key"] == idea.edit_key:
            return "duplicate_run", "", row
    if found := next((row for row in (*here, *same) if row["outcome"] == "helped"), None):
        return "known_success", "", found
    if same:
        return "repeat_failure", *_worst(idea, same)
    kept = (row for row in told if row["outcome"] == "helped" and row["track"] == idea.track and row["hypothesis"])
    for row in kept:
        if any(goes_on(text, row["hypothesis"]) for text in idea.texts):
            return "incremental_followup", "", row
    return "novel", "", None


def _worst(idea: Idea, same: Sequence[Row]) -> tuple[str, Row]:
    """The strongest evidence that the idea does not help, and the run it is from."""
    failed = [row for row in same if row["outcome"] != "unclear"]
    for row in failed:
        if row["track"] == idea.track and row.get("keeps_since", 0) < MANY_KEEPS:
            return "here", row
    return ("distant", failed[0]) if failed else ("unclear", same[0])


def _reason(classification: str, evidence: str, decision: str, idea: Idea, row: Row | None) -> str:
    """The verdict in a sentence."""
    if row is None:
        return "no earlier run is close to it"
    run = f"run {row['id'][:8]}" + ("" if row["track"] == idea.track else " on another track")
    bad = "crashed" if row["outcome"] == "crashed" else "was refuted"
    delta = f" (delta {row['delta']:+.6f})" if row["delta"] is not None else ""
    return {
        "known_success": f"{run} tried the same idea and was kept{delta}",
        "incremental_followup": f"it goes on from {run}, which was kept{delta}",
        "duplicate_run": f"{run} is this very edit{delta}; repeat it with --mode replicate",
        "repeat_failure": {
            "here": f"{run} tried the same idea and {bad}{delta}",
            "distant": f"{run} tried the same idea without success{delta}, but against another champion",
            "unclear": f"{run} tried the same idea, and noise was too large to tell{delta}: a repeat would",
        }.get(evidence, ""),
    }[classification]
