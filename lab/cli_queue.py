"""The commands of `director.py` that change and show the queue."""

import getpass
import json
import os
from argparse import ArgumentTypeError
from datetime import datetime, timezone
from typing import Any

from lab.brief import DATA_NOTE, counted, one_line
from lab.cards import utc_now
from lab.cli import Arguments, answer, arg, command
from lab.cli_read import TRACK, positive
from lab.cli_write import comma_list
from lab.errors import SettingError
from lab.facts import find_id, main_track
from lab.guard import refusal
from lab.index import Index
from lab.items import FINISHED, OPEN, Item
from lab.leases import (
    cancel,
    claim_next_experiment,
    complete_experiment,
    fail_experiment,
    heartbeat,
    is_over,
    prune,
    release,
    requeue,
    waits_for,
)
from lab.queue import Queue, add_to_queue, finished_items, read_queue
from lab.schema import CATEGORIES, STRATEGIES


def above_zero(text: str) -> float:
    """The type of an option that is a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e12:
        raise ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def setting(text: str) -> tuple[str, Any]:
    """The type of --set: NAME=VALUE, the value as JSON, or else as text."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier() and name.isupper()):
        raise ArgumentTypeError(f"{text!r} is not NAME=VALUE with the name of a constant")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


ITEM = arg("item", help="its id, or the beginning of it")
LEASE = arg("--lease", type=positive, required=True, metavar="N", help="the number of the lease, as `claim` told it")
OWNER = arg("--owner", metavar="NAME", help="who you are (default: $AUTORESEARCH_AGENT, else user@host)")
HOLDER = arg("--owner", metavar="NAME", help="refuse unless this is who holds the lease")
FOR = arg("--seconds", type=above_zero, metavar="S", help="the lease lasts so long (default: time budget + 900)")
REASON = arg("--reason", metavar="TEXT", help="why")


def me(args: Arguments) -> str:
    """Who a command is given by."""
    name = args.owner or os.environ.get("AUTORESEARCH_AGENT")
    return name or f"{getpass.getuser()}@{os.uname().nodename if hasattr(os, 'uname') else 'this-machine'}"


@command(
    arg("description", help="the idea, as a commit's subject would tell it"),
    arg("--category", choices=CATEGORIES, metavar="C", help="what kind of idea it is"),
    arg("--mode", choices=STRATEGIES, metavar="M", help="what the run is for (default: explore)"),
    arg("--priority", type=positive, default=5, metavar="N", help="1 is high (default: 5)"),
    arg("--set", type=setting, action="append", metavar="NAME=VALUE", help="a constant to change; may be repeated"),
    arg("--cards", metavar="ID,...", help="the cards it rests on"),
    arg("--replicate", metavar="WHY", help="add it though it has been tried, for this reason"),
    arg("--of", metavar="CARD", help="with --replicate: run this card's commit again"),
    arg("--seed", type=positive, metavar="N", help="the seed to run it with"),
    arg("--device", metavar="D", help="run it only there, such as cuda"),
    arg("--min-memory-gb", type=above_zero, metavar="GB", help="run it only where there is so much device memory"),
    arg("--labels", metavar="L,...", help="run it only by who offers these"),
    arg("--depends-on", metavar="ID,...", help="items to be completed first"),
    arg("--max-attempts", type=positive, default=3, metavar="N", help="claims before it has failed (default: 3)"),
    arg("--why", metavar="TEXT", help="what speaks for it"),
    TRACK,
    OWNER,
)
def cmd_add(args: Arguments) -> None:
    """Add an experiment to the queue, unless it has been tried, is queued or running"""
    if args.of and not args.replicate:
        raise SettingError("--of: running a card again needs --replicate WHY, the reason")
    given = {"device": args.device, "min_memory_gb": args.min_memory_gb, "labels": comma_list(args.labels)}
    requires = {name: value for name, value in given.items() if value is not None}
    item: Item = {
        "description": args.description, "category": args.category, "priority": args.priority,
        "mode": args.mode or ("replicate" if args.replicate else "explore"), "seed": args.seed,
        "changes": dict(args.set) if args.set else None, "cards": comma_list(args.cards),
        "requires": requires or None, "depends_on": comma_list(args.depends_on), "max_attempts": args.max_attempts,
        "why": args.replicate or args.why,
    }  # fmt: skip
    with Index(args.knowledge_dir) as index:
        item["track"] = main_track(index, args.track)
        if args.cards:
            item["cards"] = [find_id(index, name) for name in item["cards"]]
        if args.of:
            card = index.read(find_id(index, args.of))
            item |= {"replicates": card["id"], "commit": card["commit"], "track": card["track"]}
        elif not args.replicate and (why := refusal(index, args.description, item["mode"], item["track"])):
            raise SettingError(f"refused: {why}; --replicate WHY adds it all the same")
    added = add_to_queue(args.knowledge_dir, [item], me(args))
    if not added:
        raise SettingError("refused: an open item says the same; `director.py list` shows it")
    answer(args, added[0], f"added {added[0]['id']} (priority {args.priority})")


@command(
    arg("--status", choices=(*OPEN, *FINISHED), metavar="S", help=f"only these: {', '.join((*OPEN, *FINISHED))}"),
    arg("--all", action="store_true", help="those that have ended, too"),
    arg("--limit", type=positive, default=50, metavar="N", help="at most so many, the newest (default: 50)"),
)
def cmd_list(args: Arguments) -> None:
    """Print the items of the queue, those to be claimed first at the top"""
    queue = read_queue(args.knowledge_dir)
    items = [queue.items[place[-1]] for place in queue.waiting]
    items = [item for item in queue.items.values() if item["status"] == "claimed"] + items
    if args.all or args.status in FINISHED:
        items += reversed(finished_items(args.knowledge_dir))
    chosen = [item for item in items if args.status in (None, item["status"])][: args.limit]
    lines = [_line(queue, item) for item in chosen]
    answer(args, chosen, "\n".join([*lines, DATA_NOTE]) if lines else "nothing in the queue")


@command()
def cmd_status(args: Arguments) -> None:
    """Print how many items there are, who works on what, and what is next"""
    queue = read_queue(args.knowledge_dir)
    counts = queue.counts()
    claimed = [item for item in queue.items.values() if item["status"] == "claimed"]
    ready = [queue.items[place[-1]] for place in queue.waiting]
    first = next((item for item in ready if not waits_for(queue, item)), None)
    lines = [", ".join(f"{count} {status}" for status, count in counts.items())]
    lines += [_line(queue, item) for item in claimed]
    lines += [f"next: {_line(queue, first)}"] if first else ["nothing to be claimed"]
    answer(args, {"counts": counts, "claimed": claimed, "next": first}, "\n".join(lines))


@command(
    arg("--category", choices=CATEGORIES, metavar="C", help="only of this category"),
    arg("--device", metavar="D", help="what you run on, such as cuda: some items ask for it"),
    arg("--memory-gb", type=above_zero, metavar="GB", help="its memory"),
    arg("--labels", metavar="L,...", help="what else you offer"),
    FOR,
    OWNER,
)
def cmd_claim(args: Arguments) -> None:
    """Take the next item: it is yours while the lease lasts"""
    item = claim_next_experiment(
        args.knowledge_dir,
        me(args),
        category=args.category,
        device=args.device,
        memory_gb=args.memory_gb,
        labels=comma_list(args.labels) or (),
        seconds=args.seconds,
    )
    answer(args, item, claim_text(item) if item else "nothing to be claimed")


def claim_text(item: Item) -> str:
    """What whoever has claimed an item needs to know."""
    lease = item["lease"]
    about = {
        "category": item["category"], "changes": item["changes"] and json.dumps(item["changes"]), "seed": item["seed"],
        "commit": item["commit"], "rests on": item["cards"] and ", ".join(item["cards"]), "why": item["why"],
    }  # fmt: skip
    lines = [
        f"claimed {item['id']}, lease {lease['token']} until {lease['deadline']}, "
        f"attempt {item['attempts']} of {item['max_attempts']}, mode {item['mode']}",
        f"  idea      | {one_line(item['description'], 400)}",
        *(f"  {name:<10}| {one_line(value, 200)}" for name, value in about.items() if value not in (None, "")),
        DATA_NOTE,
        f"then: director.py complete {item['id']} --lease {lease['token']} --card CARD",
    ]
    return "\n".join(lines)


@command(ITEM, LEASE, FOR, HOLDER)
def cmd_heartbeat(args: Arguments) -> None:
    """Renew a lease"""
    item = heartbeat(args.knowledge_dir, args.item, args.lease, args.owner, args.seconds)
    answer(args, item, f"lease {args.lease} of {item['id']} lasts until {item['lease']['deadline']}")


@command(ITEM, LEASE, arg("--card", metavar="CARD", help="the card of its run"), HOLDER)
def cmd_complete(args: Arguments) -> None:
    """Tell that an item has been run, whatever came of it"""
    card = None
    if args.card:
        with Index(args.knowledge_dir) as index:
            card = find_id(index, args.card)
    item = complete_experiment(args.knowledge_dir, args.item, args.lease, card, args.owner)
    answer(args, item, f"completed {item['id']}" + (f" with card {card}" if card else ""))


@command(
    ITEM, LEASE, arg("--reason", required=True, metavar="TEXT", help="why"),
    arg("--final", action="store_true", help="do not try it again"), HOLDER,
)  # fmt: skip
def cmd_fail(args: Arguments) -> None:
    """Tell that an item could not be run: it is tried again, until its attempts are used up"""
    item = fail_experiment(args.knowledge_dir, args.item, args.lease, args.reason, not args.final, args.owner)
    left = f"attempt {item['attempts']} of {item['max_attempts']}"
    again = "it waits in the queue again" if item["status"] == "pending" else "it has failed"
    answer(args, item, f"{item['id']}: {left}, {again}")


@command(ITEM, LEASE, HOLDER)
def cmd_release(args: Arguments) -> None:
    """Give an item back, as if it had not been claimed"""
    item = release(args.knowledge_dir, args.item, args.lease, args.owner)
    answer(args, item, f"released {item['id']}: it waits in the queue again")


@command(ITEM, REASON, OWNER)
def cmd_cancel(args: Arguments) -> None:
    """Take an item out of the queue"""
    item = cancel(args.knowledge_dir, args.item, args.reason, me(args))
    answer(args, item, f"cancelled {item['id']}")


@command(ITEM, OWNER)
def cmd_requeue(args: Arguments) -> None:
    """Put an item that has ended into the queue again, with all its attempts"""
    item = requeue(args.knowledge_dir, args.item, me(args))
    answer(args, item, f"requeued {item['id']} (priority {item['priority']})")


@command(
    arg("--days", type=above_zero, default=30.0, metavar="N", help="what ended longer ago than this (default: 30)"),
    OWNER,
)
def cmd_prune(args: Arguments) -> None:
    """Return claims that are over to the queue, and drop old items from its history"""
    dropped = prune(args.knowledge_dir, args.days, me(args))
    answer(args, {"dropped": dropped}, f"dropped {counted(dropped, 'item')} from the history")


def _line(queue: Queue, item: Item) -> str:
    """An item in one line."""
    about = [item["mode"], item["category"] or "no category"]
    lease = item["lease"]
    if item["status"] == "claimed":
        left = "is over" if is_over(lease, utc_now()) else f"{_minutes_to(lease['deadline'])} min left"
        about.append(f"lease {lease['token']} of {one_line(lease['owner'], 40)}, {left}")
    elif item["status"] == "pending" and (missing := waits_for(queue, item)):
        about.append("after " + ", ".join(f"{name[:8]} ({status})" for name, status in missing.items()))
    elif item.get("card"):
        about.append(f"card {item['card'][:8]}")
    why = f" | {one_line(item['reason'], 80)}" if item["reason"] else ""
    head = f"{item['id']} {item['status']:<9} {item['priority']}  {', '.join(about)}"
    return f"{head} | {one_line(item['description'])}{why}"


def _minutes_to(deadline: str) -> int:
    now = datetime.now(timezone.utc)
    return round((datetime.fromisoformat(deadline.replace("Z", "+00:00")) - now).total_seconds() / 60)
