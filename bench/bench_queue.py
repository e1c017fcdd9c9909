"""How many claims a second the queue gives, and whether a race or a kill -9 loses anything.

    uv run bench/bench_queue.py                     claims, then 1,000 kills (some minutes)
    uv run bench/bench_queue.py --only kills --kills 100
    uv run bench/bench_queue.py --quick             few of everything: that it works

Claims: processes claim what waits until nothing does, beside items that have ended; ours against a plain queue, one
JSON file that is read, changed and rewritten whole under a lock. Both see the same machine, in turns, so the ratio
travels where claims per second do not. Kills: see queue_kills.py. The exit code is 1 where a target is missed or
anything is lost. Not covered: the first claim of a process, which reads the queue, and Windows.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import filelock  # noqa: F401 - the queue does at the first change: nobody who is forked from here waits for it

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from queue_kills import CONTEXT, kill_many

from lab.cards import utc_now
from lab.items import Item, new_item
from lab.journal import Event, Journal
from lab.leases import claim_next_experiment
from lab.queue import add_to_queue, load_queue

PROCESSES, FINISHED_BEFORE, WAITING = [1, 8, 32], [0, 500, 50_000], 500
# The targets: ours against the plain queue with 8 processes, and how much of it is left beside many finished items.
BAR_RATIO, BAR_INDEPENDENT = 10.0, 0.7
PATIENCE_SECONDS = 5.0  # after which a slow queue has shown how slow it is


def plain_change(folder: Path, change: Callable[[list[Item]], Item | None]) -> Item | None:
    """One change of the plain queue: everything read, changed and rewritten under a lock that blocks."""
    import fcntl

    with open(folder / "queue.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        items = json.loads((folder / "queue.json").read_text())
        changed = change(items)
        (folder / "queue.json").write_text(json.dumps(items, indent=2))
        return changed


def plain_claim(folder: Path, owner: str) -> Item | None:
    """The item of the plain queue that comes first."""

    def take(items: list[Item]) -> Item | None:
        waiting = sorted((item["priority"], item["created"], place) for place, item in enumerate(items)
                         if item["status"] == "pending")  # fmt: skip
        if not waiting:
            return None
        item = items[waiting[0][2]]
        item |= {"status": "claimed", "owner": owner, "claimed": utc_now()}
        return item

    return plain_change(folder, take)


CLAIM: dict[str, Callable[[Path, str], Item | None]] = {"ours": claim_next_experiment, "plain": plain_claim}


def past(count: int) -> Iterator[Event]:
    """The history of so many items that were added, claimed and completed."""
    for number in range(count):
        item = new_item({"description": f"idea {number} of the past", "category": "other"})
        lease = {"token": number + 1, "owner": "me", "since": item["created"], "deadline": utc_now(1200)}
        claim = {"status": "claimed", "attempts": 1, "lease": lease}
        ended = item | claim | {"status": "completed", "finished": utc_now(), "card": item["id"]}
        for event, change in (("add", item), ("claim", {"id": item["id"]} | claim), ("complete", ended)):
            yield {"at": utc_now(), "event": event, "owner": "me", "items": [change]}


def fill(folder: Path, finished: int) -> list[str]:
    """Both queues with WAITING items to claim beside so many finished ones; the ids of those to claim."""
    ours, plain = folder / "ours", folder / "plain"
    plain.mkdir(parents=True)
    Journal(ours / "queue-history.jsonl").append(0, past(finished))
    added = add_to_queue(ours, [{"description": f"idea {number}", "category": "other"} for number in range(WAITING)])
    shown = ("id", "status", "description", "category", "priority", "created")
    plain_items = [{key: item[key] for key in shown} | {"owner": None, "claimed": None} for item in added]
    ended = [plain_items[0] | {"id": f"{number}", "status": "completed", "owner": "me"} for number in range(finished)]
    (plain / "queue.json").write_text(json.dumps(ended + plain_items, indent=2))
    os.sync()  # nobody who is measured waits for what was written here
    return [item["id"] for item in added]


class Race(NamedTuple):
    """What processes that claim against each other did."""

    ids: list[str]
    per_second: float
    worst_wait: float


def claimer(kind: str, folder: Path, start: Any, tell: Connection) -> None:
    """A process that claims until nothing is left or PATIENCE_SECONDS are over."""
    me, ids, worst = str(os.getpid()), [], 0.0
    start.wait()
    began = ended = time.monotonic()
    while ended - began < PATIENCE_SECONDS and (item := CLAIM[kind](folder, me)):
        before, ended = ended, time.monotonic()
        ids.append(item["id"])
        worst = max(worst, ended - before)
    tell.send((ids, began, ended, worst))


def race(kind: str, folder: Path, processes: int) -> Race:
    """So many processes claim what is there."""
    start, told = CONTEXT.Barrier(processes), []
    for _ in range(processes):
        here, there = CONTEXT.Pipe(duplex=False)
        CONTEXT.Process(target=claimer, args=(kind, folder / kind, start, there)).start()
        there.close()
        told.append(here)
    results = [here.recv() for here in told]
    ids = [name for result in results for name in result[0]]
    took = max(result[2] for result in results) - min(result[1] for result in results)
    return Race(ids, len(ids) / took, max(result[3] for result in results))


def once_each(kind: str, folder: Path, ids: list[str], added: list[str]) -> bool:
    """Whether each item was claimed by one process at most, and the others still wait."""
    items = load_queue(folder / kind) if kind == "ours" else json.loads((folder / kind / "queue.json").read_text())
    waiting = [item["id"] for item in items if item["status"] == "pending"]
    return sorted(ids + waiting) == sorted(added)


def claims(finished: int, processes: int, repeats: int) -> tuple[dict[str, Race], bool]:
    """The median race of both queues, and whether all claims of all races were sound."""
    races: dict[str, list[Race]] = {kind: [] for kind in CLAIM}
    sound = True
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            added = fill(folder, finished)
            for kind, done in races.items():
                done.append(race(kind, folder, processes))
                sound &= once_each(kind, folder, done[-1].ids, added)
    middle = {kind: median(one.per_second for one in done) for kind, done in races.items()}
    return {kind: Race([], middle[kind], max(one.worst_wait for one in done)) for kind, done in races.items()}, sound


def print_claims(processes: Sequence[int], finished: Sequence[int], repeats: int) -> bool:
    """Measure and print the claims; whether the targets are met and nothing was claimed twice or lost."""
    print(f"{WAITING} items wait; claims per second (longest wait in ms), median of {repeats}\n")
    print("| processes | finished items | ours | plain | ratio | ours, against none finished | |")
    print("|---|---|---|---|---|---|---|")
    fine = True
    for number in processes:
        alone = 0.0
        for before in finished:
            took, sound = claims(before, number, repeats)
            ours, plain = took["ours"], took["plain"]
            alone = alone or ours.per_second
            ratio, left = ours.per_second / plain.per_second, ours.per_second / alone
            missed = number == 8 and (ratio < BAR_RATIO or left < BAR_INDEPENDENT)
            fine &= sound and not missed
            verdict = "CLAIMED TWICE OR LOST" if not sound else "MISSED" if missed else "ok" if number == 8 else ""
            shown = [f"{one.per_second:,.1f} ({1000 * one.worst_wait:,.0f})" for one in (ours, plain)]
            print(
                f"| {number} | {before:,} | {shown[0]} | {shown[1]} | {ratio:.1f} | {left:.2f} | {verdict} |",
                flush=True,
            )
    return fine


def machine() -> str:
    """The machine and what runs on it, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    return f"{name}, {os.cpu_count()} cores, {load} at the start, Python {platform.python_version()}"


def main() -> int:
    """Measure and print; 1 where a target is missed or something was lost."""
    parser = argparse.ArgumentParser(description="How fast and how safe the queue is on this machine.")
    parser.add_argument("--kills", type=int, default=1000, metavar="N", help="processes to kill (default 1000)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="races for a figure (default 3)")
    parser.add_argument("--only", choices=("claims", "kills"), help="one of the two parts")
    parser.add_argument(
        "--quick", action="store_true", help="1 and 8 processes, 500 finished items, one race, 20 kills"
    )
    args = parser.parse_args()
    processes, finished, repeats, kills = PROCESSES, FINISHED_BEFORE, args.repeats, args.kills
    if args.quick:
        processes, finished, repeats, kills = processes[:2], finished[:2], 1, 20
    print(machine(), end="\n\n")
    fine = args.only == "kills" or print_claims(processes, finished, repeats)
    if args.only != "claims":
        with tempfile.TemporaryDirectory() as folder:
            tally = kill_many(Path(folder), kills)
        lost = sum(line.startswith("lost") for line in tally.wrong)
        print("\n| kill -9 | changes acknowledged | lost | anything else wrong | items | seconds |")
        print("|---|---|---|---|---|---|")
        counts = (tally.kills, tally.acknowledged, lost, len(tally.wrong) - lost, tally.items, round(tally.seconds))
        print(*(f"| {count:,} " for count in counts), "|", sep="")
        print(*tally.wrong[:20], sep="\n")
        fine &= not tally.wrong
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
