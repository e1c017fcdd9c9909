"""What a night left undone: decisions that nobody has acted upon, and errors that repeat.

    with Index(knowledge) as index:
        waiting(index, runs, best, challengers(index, track), judging(knowledge))
        failures(runs)

`runs` are rows of the index with WAITING_NEEDS beside `lab.judgement.SHOWN`, newest first.
Not covered: which runs a report is about (`lab/morning.py`), and how the packets came about (`lab/decide.py`).
"""

from collections.abc import Iterable, Sequence

from lab.index import Index
from lab.judgement import Row
from lab.runs import Run, crashes, error_of
from lab.settings import Settings

WAITING_NEEDS = "train_sha256, parent_commit, champion"
LOOKED_AT = 200  # of the newest runs


def waiting(index: Index, runs: Sequence[Row], best: set[str], board: Iterable[Row], settings: Settings) -> list[Row]:
    """Rows with action and priority that nobody has acted upon, the most urgent first; `times` counts alike crashes.

    What a packet asked for stands until a later run repeats the card, cites it or was made from it; a promotion and a
    repeat, as long as it is a champion, one of `best`. Which others to repeat `board`, the challengers, tells.
    """
    cited = {row["prior"] for row in index.rows("SELECT DISTINCT prior FROM links")}
    newest: dict[tuple[str, str], str] = {}  # when something was last built on, compared with, or run
    for run in runs:
        for name in ("champion", "parent_commit", "edit_key", "train_sha256"):
            newest.setdefault((name, run[name]), run["timestamp"])
    alike: dict[str, list[Run]] = {run.card["id"]: group for group in _clusters(runs) for run in group}
    found: dict[tuple[str, str], Row] = {}
    candidates = [run for run in runs if run["status"] in ("keep", "inconclusive", "crash")]
    for run in candidates[:LOOKED_AT]:
        decision = index.read(run["id"])["decision"] or {}
        action = str(decision.get("action") or "")
        keys = [("edit_key", run["edit_key"]), ("train_sha256", run["train_sha256"])]
        if action != "replicate":
            keys += [("champion", run["id"]), ("parent_commit", run["commit_id"])]
        done = run["id"] in cited or any(newest.get(key, "") > run["timestamp"] for key in keys if key[1])
        overtaken = action in ("promote", "replicate") and run["id"] not in best
        if not action or action == "abandon" or done or overtaken or (run["status"] == "crash" and run["lesson"]):
            continue
        group = alike.get(run["id"], [])
        key = action, group[0].card["id"] if group else run["id"]
        found.setdefault(key, run | {"action": action, "priority": decision["priority"], "times": len(group) or 1})
    for row in (row for row in board if row["repeat_pays"] > settings.repeat_worth):
        found.setdefault(("replicate", row["id"]), row | {"action": "replicate", "priority": 3, "times": 1})
    return sorted(found.values(), key=lambda row: (row["priority"], -row["times"], -(row["probability"] or 0)))


def _clusters(runs: Iterable[Row]) -> list[list[Run]]:
    """The crashes that say the same, together, the newest first."""
    cards = [
        {name: run[name] for name in ("id", "status", "hypothesis")}
        | {"error": {"kind": run["error_kind"], "summary": run["error_summary"]}}
        for run in runs if run["status"] == "crash"
    ]  # fmt: skip
    return crashes(Run(card, None, None) for card in cards)


def failures(runs: Sequence[Row]) -> list[Row]:
    """The crashes that say the same, together: times, kind, summary, id of the newest; the most frequent first."""
    told = [(len(group), *error_of(group[0].card), group[0].card["id"]) for group in _clusters(runs)]
    return [{"times": times, "kind": kind, "summary": said, "id": name} for times, kind, said, name in told]
