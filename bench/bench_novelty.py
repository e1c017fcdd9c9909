"""How well repeats of ideas are found, and how fast, against starting Python and doing nothing.

    uv run bench/bench_novelty.py                   pairs, a replayed night, 10,000 earlier runs (a minute)
    uv run bench/bench_novelty.py --runs 1000       another commons
    uv run bench/bench_novelty.py --night FILE      another night's results.tsv to replay

The pairs (tests/data/idea_pairs.tsv: same, kind, a, b) are labelled by people; a night is replayed row by row in mode
explore: every block of a run that was then kept would have cost an improvement. The exit code is 1 where a bar is
missed.
Not covered: embedders, and how well other projects' notes are read.
"""

import argparse
import csv
import itertools
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from lab.novelty import MODES, SAME_IDEA_THRESHOLD, Idea, assess, similarity
from lab.schema import complete
from lab.store import dump_json, write_many

ROOT = Path(__file__).resolve().parent.parent
PAIRS = ROOT / "tests" / "data" / "idea_pairs.tsv"
NIGHT = ROOT.parent / "shared" / "data" / "results-h100-mar8.tsv"
NIGHT_SD = 0.0005  # bpb, between repeats on one H100
REPEATS = 9
BAR_AUC, BAR_PRECISION, BAR_RECALL, BAR_BLOCKED_KEEPS, BAR_COMMAND_MS = 0.93, 0.9, 0.8, 1, 300.0
IDEA = "raise the embedding LR from 0.6 to 0.8"
PARTS = ("embedding", "unembedding", "matrix", "scalar", "value embedding", "attention", "MLP", "lm_head")
NUMBERS = ("LR", "weight decay", "init std", "warmup", "dropout", "momentum")


Pair = tuple[bool, str, str, str]  # same, kind, a, b


def quality(pairs: list[Pair], scores: list[float] | None = None) -> tuple[float, float, float]:
    """AUC, and precision and recall at the threshold, of labelled pairs by their similarity, or by other scores."""
    scores = scores or [similarity(a, b) for _, _, a, b in pairs]
    same = [score for score, pair in zip(scores, pairs, strict=True) if pair[0]]
    other = [score for score, pair in zip(scores, pairs, strict=True) if not pair[0]]
    wins = sum((one > two) + (one == two) / 2 for one, two in itertools.product(same, other))
    found, false = (sum(value >= SAME_IDEA_THRESHOLD for value in values) for values in (same, other))
    return wins / (len(same) * len(other)), found / max(1, found + false), found / len(same)


def read_pairs(path: Path) -> list[Pair]:
    """The labelled pairs of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["same"] == "1", row["kind"], row["a"], row["b"]) for row in rows]


def replay(path: Path) -> dict[str, int]:
    """What the guard would have said to each run of a results.tsv: counts by "status: decision"."""
    earlier: list[dict[str, Any]] = []
    told: dict[str, int] = {}
    best, keeps = None, 0
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for number, row in enumerate(rows):
        result = float(row["val_bpb"]) or None
        for past in earlier:
            past["keeps_since"] = keeps - past["kept_before"]
        if number:
            found = assess(Idea(row["description"], track="night"), earlier, MODES[0], NIGHT_SD)
            name = f"{row['status']}: {found['decision']}"
            told[name] = told.get(name, 0) + 1
        delta = None if result is None or best is None else result - best
        if row["status"] == "keep":
            best, keeps = result, keeps + 1
        earlier.append({
            "id": f"{number:012x}", "status": row["status"].replace("discard", "revert"), "track": "night",
            "direction": "min", "delta": delta, "hypothesis": row["description"], "lesson": None, "edit_key": None,
            "quarantined": None, "error_kind": None, "kept_before": keeps,
        })  # fmt: skip
    return told


def made_up_card(number: int) -> dict[str, Any]:
    """A card whose hypothesis is like the field's."""
    chance = random.Random(number)
    part, what = chance.choice(PARTS), chance.choice(NUMBERS)
    old = chance.randrange(1, 100) / 100
    new = round(old * chance.choice((0.5, 0.8, 1.25, 2)), 4)
    status = chance.choice(("keep", "revert", "revert", "inconclusive"))
    return complete({
        "id": f"{number + 2**48:016x}", "status": status, "track": "made-up/H100", "category": "hyperparams",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(1_700_000_000 + 300 * number)),
        "hypothesis": f"{part} {what} {old} to {new}", "edit_key": f"{number:016x}",
        "config_diff": {f"{part} {what}".upper().replace(" ", "_"): [old, new]},
        "results": {"val_bpb": 0.99 + chance.gauss(0, 0.002), "delta": chance.gauss(0.001, 0.002)},
    })  # fmt: skip


def command_ms(runs: int) -> tuple[float, float]:
    """Medians in milliseconds of `commons.py check` over so many earlier runs, and of `python -c pass`."""
    with tempfile.TemporaryDirectory() as folder:
        cards = Path(folder) / "knowledge" / "cards"
        made = (made_up_card(number) for number in range(runs))
        write_many(cards, ((f"{card['id']}.json", dump_json(card)) for card in made))
        environment = os.environ | {"KNOWLEDGE_DIR": str(cards.parent)}
        check = [sys.executable, "commons.py", "check", "--description", IDEA]
        subprocess.run(check, cwd=ROOT, env=environment, check=True, capture_output=True)  # builds the index
        took: dict[str, list[float]] = {"check": [], "pass": []}
        for _ in range(REPEATS):
            for name, words in (("check", check), ("pass", [sys.executable, "-c", "pass"])):
                started = time.perf_counter()
                subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True)
                took[name].append(1000 * (time.perf_counter() - started))
    return statistics.median(took["check"]), statistics.median(took["pass"])


def main() -> int:
    """Print the figures; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000, help="earlier runs of the timed command (default: 10000)")
    parser.add_argument("--night", type=Path, default=NIGHT, help="a results.tsv to replay")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    missed = False
    if PAIRS.exists():
        pairs = read_pairs(PAIRS)
        auc, precision, recall = quality(pairs)
        print(f"{len(pairs)} pairs: AUC {auc:.3f}, precision {precision:.3f} and recall {recall:.3f} at the threshold")
        missed |= auc < BAR_AUC or precision < BAR_PRECISION or recall < BAR_RECALL
    else:
        print(f"no {PAIRS.relative_to(ROOT)}: the pairs are left out")
    if args.night.exists():
        told = replay(args.night)
        print(f"replay of {args.night.name}: " + ", ".join(f"{name} {count}" for name, count in sorted(told.items())))
        missed |= told.get("keep: block", 0) > BAR_BLOCKED_KEEPS
    else:
        print(f"no {args.night}: the replay is left out")
    check, nothing = command_ms(args.runs)
    ratio = f"{check / nothing:.1f} x python -c pass ({nothing:.0f} ms)"
    print(f"check with {args.runs:,} earlier runs: {check:.0f} ms, {ratio}")
    return int(missed or check > BAR_COMMAND_MS)


if __name__ == "__main__":
    sys.exit(main())
