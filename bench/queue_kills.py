"""Processes that change the queue in all ways and are killed at random moments; what they told is held against it.

    tally = kill_many(knowledge, 1000)          # tally.wrong has a line for everything that must not be

Told is each change, once it was acknowledged. What is looked for: a change that was told and is not in the history; a
token given twice; an item with two holders; a lease that ended before its time, or never though its holder is dead; a
file that does not parse; counts, or the previous copy, that say something else. bench_queue.py prints it.
Not covered: a power failure, a network file system, Windows.
"""

import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lab.cards import utc_now
from lab.errors import LeaseError
from lab.items import FINISHED, Item
from lab.journal import Journal
from lab.leases import claim_next_experiment, complete_experiment, fail_experiment, heartbeat, release
from lab.queue import add_to_queue, load_queue, read_queue

KILLED_AT_ONCE, LONGEST_LIFE_SECONDS, SHORT_LEASE_SECONDS = 4, 0.04, 0.03  # some leases end before their holders
CONTEXT = multiprocessing.get_context("fork")  # a process starts in a millisecond, with everything imported
Told = tuple[str, str, int | None, str | None]  # event, item, token, card


def worker(knowledge: Path, seed: int, tell: Connection) -> None:
    """Change the queue in all ways until killed, and tell each change that was acknowledged."""
    chance, me = random.Random(seed), f"worker {seed}"
    held: list[Item] = []
    for number in range(10**9):
        try:
            if chance.random() < 0.2:
                (item,) = add_to_queue(knowledge, [{"description": f"{seed} {number}"}], me)
                tell.send(("add", item["id"], None, None))
            elif len(held) < 3 and chance.random() < 0.5:
                pid = os.getpid() if chance.random() < 0.5 else None
                if got := claim_next_experiment(knowledge, me, seconds=SHORT_LEASE_SECONDS, pid=pid):
                    held.append(got)
                    tell.send(("claim", got["id"], got["lease"]["token"], None))
            elif held:
                tell.send(finish(knowledge, chance, held, f"card {seed} {number}"))
        except LeaseError:
            held.clear()  # too late with one of them, and soon with the others


def finish(knowledge: Path, chance: random.Random, held: list[Item], card: str) -> Told:
    """Renew, complete, fail or give back one of the items held."""
    item = chance.choice(held)
    name, token = item["id"], item["lease"]["token"]
    event = chance.choice(("heartbeat", "complete", "complete", "fail", "release"))
    if event == "heartbeat":
        heartbeat(knowledge, name, token, seconds=SHORT_LEASE_SECONDS)
        return event, name, token, None
    if event == "complete":
        complete_experiment(knowledge, name, token, card)
    elif event == "fail":
        fail_experiment(knowledge, name, token, "it did not work", retry=chance.random() < 0.7)
    else:
        release(knowledge, name, token)
    held.remove(item)
    return event, name, token, card if event == "complete" else None


class Life(NamedTuple):
    """A worker, and the end of the pipe that it tells into."""

    process: Any
    pipe: Connection

    def told(self) -> Iterator[Told]:
        """What it has told since the last time; what a kill cut short was not told."""
        try:
            while self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError):
            return


class Tally(NamedTuple):
    """What the kills came to; `wrong` has a line for everything that must not be."""

    kills: int
    acknowledged: int
    items: int
    seconds: float
    wrong: list[str]


def kill_many(knowledge: Path, kills: int, seed: int = 0) -> Tally:
    """Kill so many workers at random moments, and hold what is there against what they told."""
    began, chance = time.monotonic(), random.Random(seed)
    lives: list[Life] = []
    told: list[Told] = []
    deaths: dict[int, str] = {}
    wrong: list[str] = []
    for number in range(kills + KILLED_AT_ONCE - 1):
        here, there = CONTEXT.Pipe(duplex=False)
        process: Any = CONTEXT.Process(target=worker, args=(knowledge, 10**6 * seed + number, there))
        process.start()
        there.close()
        lives.append(Life(process, here))
        if len(lives) < KILLED_AT_ONCE:
            continue
        time.sleep(chance.uniform(0, LONGEST_LIFE_SECONDS))
        kill(lives.pop(chance.randrange(len(lives))), told, deaths)
        told += (change for life in lives for change in life.told())
        wrong += unreadable(knowledge)
    while lives:
        kill(lives.pop(), told, deaths)
    wrong += contradictions(knowledge, told, deaths) + kept_by_the_dead(knowledge)
    return Tally(kills, len(told), len(everything(knowledge)[0]), time.monotonic() - began, wrong)


def kill(life: Life, told: list[Told], deaths: dict[int, str]) -> None:
    """Kill -9 a worker, and hear the last that it told."""
    deaths[life.process.pid] = utc_now()
    life.process.kill()
    life.process.join()
    told.extend(life.told())
    life.pipe.close()


def unreadable(knowledge: Path) -> list[str]:
    """What cannot be read any more."""
    try:
        load_queue(knowledge)
        if (knowledge / "queue.json").exists():
            json.loads((knowledge / "queue.json").read_bytes())
    except Exception as error:  # whatever it is, it is what is looked for
        return [f"after a kill: {error!r}"]
    return []


def everything(knowledge: Path, deaths: dict[int, str] | None = None) -> tuple[dict[str, Item], set[Told], list[str]]:
    """All items as the history tells them, all that was done, and what should not have been done."""
    items: dict[str, Item] = {}
    done: set[Told] = set()
    wrong: list[str] = []
    newest = 0
    for event in Journal(knowledge / "queue-history.jsonl").since(None)[0]:
        kind = event["event"]
        for change in event["items"]:
            name, before = change["id"], items.get(change["id"], {"status": "new", "lease": None})
            expected = {"add": "new", "claim": "pending"}.get(kind, "claimed")
            if before["status"] != expected:
                wrong.append(f"{kind} of {name}, which was {before['status']}, not {expected}")
            lease = change.get("lease") or before["lease"] or {}
            if kind == "claim":
                wrong += [f"token {lease['token']} after {newest}"] if lease["token"] <= newest else []
                newest = lease["token"]
            if kind == "expire" and deaths is not None and lease["deadline"] > event["at"]:
                dead = deaths.get(lease.get("pid", 0), "never")
                wrong += [f"lease {lease['token']} expired at {event['at']}, its process died {dead}"] * (
                    dead > event["at"]
                )
            items[name] = before | change
            done.add((kind, name, lease.get("token"), change.get("card")))
    return items, done, wrong


def contradictions(knowledge: Path, told: list[Told], deaths: dict[int, str]) -> list[str]:
    """Where the queue does not say what was acknowledged, or not the same as its history or the previous copy."""
    items, done, wrong = everything(knowledge, deaths)
    wrong += [f"lost: {change}" for change in told if change not in done]
    queue = read_queue(knowledge)
    if queue.items != {name: item for name, item in items.items() if item["status"] not in FINISHED}:
        wrong.append("the queue is not what its history tells")
    statuses = [item["status"] for item in items.values()]
    wrong += [f"{count} are said to be {status}, {statuses.count(status)} are"
              for status, count in queue.counts().items() if statuses.count(status) != count]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        for there, here in (("queue.json.bak", "queue.json"), ("queue-history.jsonl", "queue-history.jsonl")):
            if (knowledge / there).exists():
                Path(name, here).write_bytes((knowledge / there).read_bytes())
        if read_queue(Path(name)).items != queue.items:
            wrong.append("the previous copy, with the history, tells something else")
    return wrong


def kept_by_the_dead(knowledge: Path) -> list[str]:
    """The items that cannot be had though everybody who claimed them is dead."""
    claim_next_experiment(knowledge, "heir", seconds=60)  # bound to a process: at once
    bound = [item["id"] for item in load_queue(knowledge) if (item["lease"] or {}).get("pid") is not None]
    time.sleep(SHORT_LEASE_SECONDS + 0.05)
    while claim_next_experiment(knowledge, "heir", seconds=60):
        pass
    others = [item["id"] for item in load_queue(knowledge) if item["lease"]["owner"] != "heir"]
    return [f"{name} is still held by the dead" for name in (*bound, *others)]
