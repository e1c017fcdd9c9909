"""How fast the commons is here, small and large, against starting Python and doing nothing.

    uv run bench/bench_commons.py                   100 cards and 100,000 (some minutes, 1 GB under $TMPDIR)
    uv run bench/bench_commons.py --cards 20000     another large commons
    uv run bench/bench_commons.py --small           20 cards and 1,000, few repeats: that it runs

Commands and `python -c pass` alternate, so that all see the same machine; a figure is the median, and the ratio
travels between machines where milliseconds do not. A command's index is warm. The exit code is 1 where a bar is missed.
Not covered: memory of the commands, a cold page cache, git (`sync`), and figures under load: run it on a quiet machine.
"""

import argparse
import json
import os
import platform
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from lab.cards import create_card
from lab.library import read_brief
from lab.schema import CATEGORIES, EVENT_KINDS, complete, validate_card, validate_event, validate_note
from lab.store import dump_json, write_many

ROOT = Path(__file__).resolve().parent.parent
TRACKS = ("climbmix-v8192-t2048-300s/H100-SXM-80GB", "builtin-v2048-t256-300s/CPU-2")
STATUSES = ("keep", "revert", "revert", "revert", "inconclusive", "crash")
TEXT = (
    "wider MLP with a larger learning rate for the embedding and less weight decay so that attention heads share keys "
    "while warmdown starts earlier because the loss curve is flat near its end and depth costs steps"
)
WORDS = TEXT.split()
EVENT_SHARE, NOTE_SHARE = 0.05, 0.01
CURVES = 16  # different loss curves: writing 64 points as text is most of the work
NEW_CARDS = 1000
# How much slower than the bare interpreter a command may be: with few cards, with many.
BAR_SMALL, BAR_LARGE = 5.0, 8.0
BAR_CREATE, BAR_REBUILD_SECONDS, BAR_REBUILD_MB, BAR_INCREMENTAL_SECONDS = 1.5, 60.0, 400.0, 2.0
READ = (
    ("read-brief",), ("coverage",), ("show", "last"), ("search", "attention", "warmdown"), ("best",), ("history",),
)  # fmt: skip
WRITE = (
    "write-card", "--commit", "HEAD", "--hypothesis", "wider MLP", "--status", "revert", "--tags", "mlp, width",
    "--result", "0.9971", "--lesson", "no gain",
)  # fmt: skip
OPEN_INDEX = """
import json, resource, sys, time
from pathlib import Path
from lab.index import Index
started = time.perf_counter()
Index(Path(sys.argv[1])).close()
took = time.perf_counter() - started
unit = 2**20 if sys.platform == "darwin" else 2**10
print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit]))
"""


class Line(NamedTuple):
    """One figure: what was measured, its value as shown, and what it must not exceed (None: it is only told)."""

    name: str
    shown: str
    value: float = 0.0
    bar: float | None = None

    @property
    def missed(self) -> bool:
        """Whether the bar is missed."""
        return self.bar is not None and self.value > self.bar


def record_id(kind: str, number: int) -> str:
    """The id of a made-up record, the same every time."""
    return sha256(f"{kind} {number}".encode()).hexdigest()[:16]


def timestamp(number: int) -> str:
    """A time five minutes after that of the record before."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(1_700_000_000 + 300 * number))


def make_card(number: int) -> dict[str, Any]:
    """A card as train.py leaves one; every field has a value, the loss curve is filled in by `card_files`."""
    chance = random.Random(number)
    status = STATUSES[chance.randrange(len(STATUSES))] if number > 1 else "keep"
    bpb = None if status == "crash" else 1.0 - 0.05 * number / (number + 5000) + abs(chance.gauss(0, 0.003))
    delta = None if bpb is None else chance.gauss(-0.002 if status == "keep" else 0.003, 0.002)
    earlier = [record_id("card", chance.randrange(number)) for _ in range(chance.randrange(3))] if number else []
    names = {"DEPTH": 8, "WIDTH": 512, "HEAD_DIM": 128, "MATRIX_LR": 0.04, "EMBEDDING_LR": 0.6, "WEIGHT_DECAY": 0.2}
    summary = "CUDA out of memory. Tried to allocate 2.00 GiB"
    error = {"kind": "oom", "phase": "train", "summary": summary, "tail": [f"line {n}" for n in range(20)]}
    decision = {"reason": "below the champion by more than noise", "champion": record_id("card", 0)}
    return complete({
        "id": record_id("card", number), "run_id": record_id("card", number), "timestamp": timestamp(number),
        "session": f"night-{number // 100}", "agent": f"agent-{number % 7}", "track": TRACKS[number % 10 == 0],
        "preset": "default", "commit": sha256(b"%d" % number).hexdigest()[:40],
        "parent_commit": sha256(b"%d" % max(0, number - 1)).hexdigest()[:40],
        "train_sha256": sha256(b"train %d" % number).hexdigest(), "edit_key": record_id("edit", number // 2),
        "platform": {"device": "cuda", "device_name": "NVIDIA H100 80GB HBM3", "memory_gb": 79.6, "cpu_count": 16,
                     "framework": "cuda", "torch": "2.13.0", "os": "Linux x86_64"},
        "hypothesis": " ".join(chance.choices(WORDS, k=14)), "lesson": " ".join(chance.choices(WORDS, k=10)),
        "category": chance.choice(CATEGORIES), "tags": [chance.choice(WORDS), f"tag-{chance.randrange(300)}"],
        "config": names | {f"CONSTANT_{n}": n * 0.5 for n in range(20)},
        "config_diff": {name: [value, value * 2] for name, value in chance.sample(sorted(names.items()), 2)},
        "results": {
            "val_bpb": bpb, "val_bpb_stderr": 0.0004, "delta": delta, "delta_stderr": 0.0006, "peak_vram_mb": 45060.2,
            "training_seconds": 300.1, "total_seconds": 331.4, "num_steps": 953, "total_tokens_M": 499.6,
            "mfu_percent": 39.8, "num_params": 50332176, "num_params_M": 50.3, "estimated_flops": 1.2e17, "depth": 8,
            "tokens_per_second": 1665000.0, "utilisation": 1.0, "eval_tokens": 20971520, "loss_curve": None,
        },
        "seed": chance.randrange(4), "status": status, "prior_knowledge_used": earlier,
        "novelty": {"class": "novel", "decision": "allow"},
        "decision": decision | {"status": status, "noise_prior": 0.0005, "probability": chance.random()},
        "error": error if status == "crash" else None,
        "artifacts": {"log": "run.log", "summary": "summary.json", "train": "train.py", "diff": "diff.patch"},
    })  # fmt: skip


def make_event(number: int, cards: int) -> dict[str, Any]:
    """Something said later about one of the cards."""
    fields: dict[str, dict[str, Any]] = {"annotate": {"lesson": "it pays from depth 8 on", "tags": ["later"]}}
    fields |= {"decide": {"status": "inconclusive"}, "retract": {"reason": "the clock was wrong"}, "confirm": {}}
    fields |= {"suspect": {"reason": "half the usual speed"}}
    card = 2 + number * 7 % (cards - 2)
    # A crash has no result, so it cannot be decided otherwise.
    kinds = [kind for kind in EVENT_KINDS if kind != "decide" or make_card(card)["status"] != "crash"]
    about = {"schema": 2, "id": record_id("event", number), "card": record_id("card", card)}
    kind = kinds[number % len(kinds)]
    return about | {"kind": kind, "timestamp": timestamp(cards + number), "fields": fields[kind]}


def make_note(number: int, cards: int) -> dict[str, Any]:
    """A question or an insight with evidence."""
    about = {"schema": 2, "id": record_id("note", number), "timestamp": timestamp(cards + number)}
    about |= {"kind": ("insight", "question")[number % 2], "text": " ".join(random.Random(number).choices(WORDS, k=12))}
    return about | {"evidence": [record_id("card", number)], "answers": None, "session": "night-1", "agent": "agent-1"}


def card_files(first: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(name, content) of cards; the first of them is validated."""
    chance = random.Random(0)
    curves = [
        b"[\n      " + b",\n      ".join(
            b"[%d, %.3f, %.6f]" % (15 * n, 4.7 * n, 9.0 / (n + 1) ** 0.4 + chance.gauss(0, 0.02)) for n in range(64)
        ) + b"\n    ]"
        for _ in range(CURVES)
    ]  # fmt: skip
    for number in range(first, first + count):
        card = make_card(number)
        if number == first:
            validate_card(card)
        content = dump_json(card).replace(b'"loss_curve": null', b'"loss_curve": ' + curves[number % CURVES])
        yield f"{card['id']}.json", content


def make_commons(folder: Path, cards: int) -> Path:
    """A commons of so many cards with their events and notes, its index warm and its folders long unchanged."""
    write_many(folder / "cards", card_files(0, cards))
    events = [make_event(number, cards) for number in range(int(cards * EVENT_SHARE))]
    notes = [make_note(number, cards) for number in range(int(cards * NOTE_SHARE) or 1)]
    for kind, records, validate in (("events", events, validate_event), ("notes", notes, validate_note)):
        validate(records[0])
        write_many(folder / kind, ((f"{record['id']}.json", dump_json(record)) for record in records))
    settle(folder)
    return folder


def settle(folder: Path) -> None:
    """Make the record folders look unchanged for an hour, so that a reader's one listing is the last."""
    an_hour_ago = time.time() - 3600
    for kind in ("cards", "events", "notes"):
        os.utime(folder / kind, (an_hour_ago, an_hour_ago))


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def medians(arms: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median time of every arm in seconds; the arms take turns, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(repeats + 1):
        for name, function in arms.items():
            took = seconds(function)
            if turn:
                times[name].append(took)
    return {name: statistics.median(taken) for name, taken in times.items()}


def child(*arguments: str, runs: Path | None = None) -> str:
    """What a Python process prints; it fails where the process does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"AUTORESEARCH_RUNS_DIR": str(runs)} if runs else {})
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def commons(knowledge: Path, *command: str) -> Callable[[], object]:
    """A call that runs a command of commons.py on this commons."""
    return lambda: child("commons.py", *command, "--knowledge-dir", str(knowledge), runs=knowledge.parent / "runs")


def open_index(knowledge: Path) -> tuple[float, float]:
    """(seconds to open the index, peak memory of the process in MiB)."""
    took, memory = json.loads(child("-c", OPEN_INDEX, str(knowledge)))
    return took, memory


def index_lines(large: Path, cards: int) -> list[Line]:
    """Building the index from the files, and taking in what came. Leaves it warm."""
    rebuild, memory = open_index(large)
    write_many(large / "cards", card_files(cards, NEW_CARDS))
    settle(large)
    incremental, _ = open_index(large)
    return [
        Line("index from files", f"{rebuild:.1f} s", rebuild, BAR_REBUILD_SECONDS),
        Line("  a card", f"{1000 * rebuild / cards:.3f} ms"),
        Line("  peak memory", f"{memory:.0f} MiB", memory, BAR_REBUILD_MB),
        Line(f"index, {NEW_CARDS:,} new cards", f"{incremental:.2f} s", incremental, BAR_INCREMENTAL_SECONDS),
    ]


def command_lines(small: Path, large: Path, repeats: int) -> list[Line]:
    """Commands against the bare interpreter. The readers are timed before anything is written."""
    lines = []
    for commands in (READ, (WRITE,)):
        arms: dict[str, Callable[[], object]] = {"bare": lambda: child("-c", "pass")}
        arms |= {f"{size} {' '.join(command)}": commons(knowledge, *command)
                 for command in commands for size, knowledge in (("few", small), ("many", large))}  # fmt: skip
        took = medians(arms, repeats)
        bare = took["bare"]
        if commands is READ:
            lines.append(Line("python -c pass", f"{1000 * bare:.1f} ms"))
        for command in commands:
            for size, bar in (("few", BAR_SMALL), ("many", BAR_LARGE)):
                time_taken = took[f"{size} {' '.join(command)}"]
                shown = f"{time_taken / bare:.2f}x ({1000 * time_taken:.0f} ms)"
                name = " ".join(command[:2]) if command[0] == "show" else command[0]
                lines.append(Line(f"{name}, {size} cards", shown, time_taken / bare, bar))
    return lines


def library_lines(small: Path, large: Path, repeats: int) -> list[Line]:
    """Functions in this process: a durable card, a brief."""
    values = {"track": TRACKS[0], "config": make_card(0)["config"], "platform": make_card(0)["platform"]}

    def create(knowledge: Path) -> Callable[[], object]:
        results = make_card(2)["results"] | {"val_bpb": 0.99}
        arguments = ("abcdef0", "wider MLP", {"WIDTH": [4, 8]}, results, "revert", "no gain", ["mlp"])
        return lambda: create_card(knowledge, *arguments, **values)

    briefs = medians({"few": lambda: read_brief(small), "many": lambda: read_brief(large)}, repeats)
    made = medians({"few": create(small), "many": create(large)}, repeats * 10)
    ratio = made["many"] / made["few"]
    return [
        Line("create_card, many / few", f"{ratio:.2f}x ({1000 * made['many']:.2f} ms)", ratio, BAR_CREATE),
        *(Line(f"read_brief, {size} cards", f"{1000 * took:.1f} ms") for size, took in briefs.items()),
    ]


def bulk_lines(large: Path) -> list[Line]:
    """Commands that go through every card, once each."""
    out = str(large.parent / "cards.jsonl")
    commands = (("lineage",), ("export", "--format", "jsonl", "--out", out), ("update-index",))
    return [Line(f"{command[0]}, many cards", f"{seconds(commons(large, *command)):.1f} s") for command in commands]


def machine() -> str:
    """The machine and what runs on it, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    versions = f"Python {platform.python_version()}, sqlite {sqlite3.sqlite_version}"
    return f"{name}, {os.cpu_count()} cores, {load} at the start, {versions}"


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description="How fast the commons is on this machine.")
    parser.add_argument("--cards", type=int, default=100_000, help="cards of the large commons (default 100,000)")
    parser.add_argument("--small", action="store_true", help="20 cards and 1,000, few repeats")
    args = parser.parse_args()
    few, many, repeats = (20, 1000, 3) if args.small else (100, args.cards, 15)
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        small = make_commons(Path(folder, "few/knowledge"), few)
        large = make_commons(Path(folder, "many/knowledge"), many)
        lines = index_lines(large, many)
        lines += command_lines(small, large, repeats) + library_lines(small, large, repeats) + bulk_lines(large)
    print(f"{about}\nfew = {few:,} cards, many = {many:,}; a ratio is against `python -c pass`, or as named\n")
    print("| | measured | bar | |\n|---|---|---|---|")
    for line in lines:
        verdict = "" if line.bar is None else "MISSED" if line.missed else "ok"
        print(f"| {line.name.strip()} | {line.shown} | {'' if line.bar is None else f'{line.bar:g}'} | {verdict} |")
    return int(any(line.missed for line in lines))


if __name__ == "__main__":
    sys.exit(main())
