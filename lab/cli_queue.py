"""The commands of `director.py` that change and show the queue. Each prints for a person, or JSON with --json."""

import getpass
import json
import os
from datetime import datetime, timezone
from pathlib import Path

from lab.brief import DATA_NOTE, counted, one_line
from lab.cards import utc_now
from lab.cli import Arguments, answer, arg, command
from lab.cli_read import TRACK
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
from lab.options import amount, comma_list, count, positive, setting
from lab.queue import Queue, add_to_queue, finished_items, read_queue
from lab.schema import CATEGORIES, STRATEGIES

ITEM = arg("item", help="its id, or the beginning of it")
LEASE = arg("--lease", type=positive, required=True, metavar="N", help="the number of the lease, as `claim` told it")
OWNER = arg("--owner", metavar="NAME", help="who you are (default: $AUTORESEARCH_AGENT, else user@host)")
HOLDER = arg("--owner", metavar="NAME", help="refuse unless this is who holds the lease")
FOR = arg("--seconds", type=amount, metavar="S", help="the lease lasts so long (default: time budget + 900)")
TITLE = f"{'item':<16} {'status':<9} pr  what for | idea | by whom | why it ended or came back"
LINE = 160  # characters
REASON = arg("--reason", metavar="TEXT", help="why")


def me(args: Arguments) -> str:
    """Who a command is given by."""
    if name := args.owner or os.environ.get("AUTORESEARCH_AGENT"):
        return str(name)
    try:
        user = getpass.getuser()
    except (OSError, LookupError, ImportError):  # a container's user may have no name
        user = "somebody"
    return f"{user}@{os.uname().nodename if hasattr(os, 'uname') else 'this-machine'}"


@command(
    arg("description", help="the idea, as a commit's subject would tell it"),
    arg("--category", choices=CATEGORIES, metavar="C", help="what kind of idea it is"),
    arg("--mode", choices=STRATEGIES, metavar="M", help="what the run is for (default: explore)"),
    arg("--priority", type=positive, default=5, metavar="N", help="1 is high (default: 5)"),
    arg("--set", type=setting, action="append", metavar="NAME=VALUE", help="a constant to change; may be repeated"),
    arg("--patch", type=Path, metavar="FILE", help="the whole edit as a diff, as `git diff` prints it"),
    arg("--cards", metavar="ID,...", help="the cards it rests on"),
    arg("--replicate", metavar="WHY", help="add it though it has been tried, for this reason"),
    arg("--of", metavar="CARD", help="with --replicate: run this card's commit again"),
    arg("--seed", type=count, metavar="N", help="the seed to run it with"),
    arg("--device", metavar="D", help="run it only there, such as cuda"),
    arg("--min-memory-gb", type=amount, metavar="GB", help="run it only where there is so much device memory"),
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
    if args.replicate is not None and not args.replicate.strip():
        raise SettingError("--replicate: say why it should be added though it has been tried")
    given = {"device": args.device, "min_memory_gb": args.min_memory_gb, "labels": comma_list(args.labels)}
    requires = {name: value for name, value in given.items() if value is not None}
    item: Item = {
        "description": args.description, "category": args.category, "priority": args.priority,
        "mode": args.mode or ("replicate" if args.replicate else "explore"), "seed": args.seed,
        "changes": dict(args.set) if args.set else None, "patch": _patch(args), "cards": comma_list(args.cards),
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
        elif not args.replicate and (
            why := refusal(index, args.description, item["mode"], item["track"], item["changes"])
        ):
            raise SettingError(f"refused: {why}; --replicate WHY adds it all the same")
    added = add_to_queue(args.knowledge_dir, [item], me(args))
    if not added:
        raise SettingError("refused: an open item says the same; `director.py list` shows it")
    answer(args, added[0], f"added {added[0]['id']} (priority {args.priority})")


def _patch(args: Arguments) -> str | None:
    """The text of the patch. SettingError where it cannot be read, or --set says an edit too."""
    if args.patch is None:
        return None
    if args.set or args.of:
        raise SettingError("--patch is the whole edit; leave --set and --of out, or make it part of the patch")
    try:
        text: str = args.patch.read_bytes().decode()
    except OSError as error:
        raise SettingError(f"cannot read {args.patch}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{args.patch} is not UTF-8; an experiment's edit is text") from error
    if not text.strip():
        raise SettingError(f"{args.patch} is empty; write one with `git diff`")
    return text


@command(
    arg("--status", choices=(*OPEN, *FINISHED), metavar="S", help=f"only these: {', '.join((*OPEN, *FINISHED))}"),
    arg("--all", action="store_true", help="those that have ended, too"),
    arg("--limit", type=positive, default=50, metavar="N", help="at most so many (default: 50)"),
)
def cmd_list(args: Arguments) -> None:
    """Print the items of the queue, those to be claimed first at the top"""
    queue = read_queue(args.knowledge_dir)
    items = [*_claimed(queue), *(queue.items[place[-1]] for place in queue.waiting)]
    if args.all or args.status in FINISHED:
        items += reversed(finished_items(args.knowledge_dir))
    chosen = [item for item in items if args.status in (None, item["status"])]
    shown, more = chosen[: args.limit], len(chosen) - args.limit
    lines = [TITLE, *(_line(queue, item) for item in shown), DATA_NOTE]
    if more > 0:
        lines.append(f"{counted(more, 'more item')}: `director.py list --limit {len(chosen)}` shows all")
    answer(args, shown, "\n".join(lines) if shown else "no such item" if args.status else "nothing in the queue")


@command()
def cmd_status(args: Arguments) -> None:
    """Print how many items there are, who works on what, and what is next"""
    queue = read_queue(args.knowledge_dir)
    counts, claimed = queue.counts(), _claimed(queue)
    ready = (queue.items[place[-1]] for place in queue.waiting)
    first = next((item for item in ready if not waits_for(queue, item)), None)
    over = sum(is_over(item["lease"], utc_now()) for item in claimed)
    lines = [", ".join(f"{count} {status}" for status, count in counts.items())]
    if claimed or first:
        lines += [TITLE, *(_line(queue, item) for item in [*claimed, *([first] if first else [])]), DATA_NOTE]
    if over:
        lines.append(f"{counted(over, 'lease is', 'leases are')} over: the next claim takes that back")
    if first:
        lines.append(f"next is {_name(first)}")
    else:
        lines.append("nothing to be claimed" + (": what is pending waits for others" if counts["pending"] else ""))
    answer(args, {"counts": counts, "claimed": claimed, "next": first}, "\n".join(lines))


@command(
    arg("--category", choices=CATEGORIES, metavar="C", help="only of this category"),
    arg("--device", metavar="D", help="what you run on, such as cuda: some items ask for it"),
    arg("--memory-gb", type=amount, metavar="GB", help="its memory"),
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
    lease, name = item["lease"], _name(item)
    about = {
        "idea": (item["description"], 400), "category": (item["category"], 40), "track": (item["track"], 100),
        "changes": (item["changes"] and json.dumps(item["changes"], ensure_ascii=False), 1000),
        "repeats": (item["replicates"] and f"card {item['replicates']}", 80), "commit": (item["commit"], 80),
        "seed": (item["seed"], 40), "rests on": (", ".join(item["cards"] or ()), 400), "why": (item["why"], 200),
        "last time": (item["reason"], 200),
    }  # fmt: skip
    lines = [
        f"claimed {name}, lease {lease['token']} until {lease['deadline']}, "
        f"attempt {item['attempts']} of {item['max_attempts']}, mode {item['mode']}",
        *(f"  {key:<10}| {one_line(value, most)}" for key, (value, most) in about.items() if value not in (None, "")),
        DATA_NOTE,
        f"then: director.py complete {name} --lease {lease['token']} --card CARD",
        f"  or: director.py fail {name} --lease {lease['token']} --reason WHY",
    ]
    return "\n".join(lines)


@command(ITEM, LEASE, FOR, HOLDER)
def cmd_heartbeat(args: Arguments) -> None:
    """Renew a lease"""
    item = heartbeat(args.knowledge_dir, args.item, args.lease, args.owner, args.seconds)
    answer(args, item, f"lease {args.lease} of {_name(item)} lasts until {item['lease']['deadline']}")


@command(ITEM, LEASE, arg("--card", metavar="CARD", help="the card of its run"), HOLDER)
def cmd_complete(args: Arguments) -> None:
    """Tell that an item has been run, whatever came of it"""
    card = None
    if args.card:
        with Index(args.knowledge_dir) as index:
            card = find_id(index, args.card)
    item = complete_experiment(args.knowledge_dir, args.item, args.lease, card, args.owner)
    answer(args, item, f"completed {_name(item)}" + (f" with card {card}" if card else ""))


@command(
    ITEM, LEASE, arg("--reason", required=True, metavar="TEXT", help="why"),
    arg("--final", action="store_true", help="do not try it again"), HOLDER,
)  # fmt: skip
def cmd_fail(args: Arguments) -> None:
    """Tell that an item could not be run: it is tried again, until its attempts are used up"""
    item = fail_experiment(args.knowledge_dir, args.item, args.lease, args.reason, not args.final, args.owner)
    left = f"attempt {item['attempts']} of {item['max_attempts']}"
    again = "it waits in the queue again" if item["status"] == "pending" else "it has failed"
    answer(args, item, f"{_name(item)}: {left}, {again}")


@command(ITEM, LEASE, HOLDER)
def cmd_release(args: Arguments) -> None:
    """Give an item back, as if it had not been claimed"""
    item = release(args.knowledge_dir, args.item, args.lease, args.owner)
    answer(args, item, f"released {_name(item)}: it waits in the queue again")


@command(ITEM, REASON, OWNER)
def cmd_cancel(args: Arguments) -> None:
    """Take an item out of the queue"""
    item = cancel(args.knowledge_dir, args.item, args.reason, me(args))
    answer(args, item, f"cancelled {_name(item)}")


@command(ITEM, OWNER)
def cmd_requeue(args: Arguments) -> None:
    """Put an item that has ended into the queue again, with all its attempts"""
    item = requeue(args.knowledge_dir, args.item, me(args))
    answer(args, item, f"requeued {_name(item)} (priority {item['priority']})")


@command(
    arg("--days", type=amount, default=30.0, metavar="N", help="what ended longer ago than this (default: 30)"),
    OWNER,
)
def cmd_prune(args: Arguments) -> None:
    """Return claims that are over to the queue, and drop old items from its history"""
    dropped = prune(args.knowledge_dir, args.days, me(args))
    answer(args, {"dropped": dropped}, f"dropped {counted(dropped, 'item')} from the history")


def _claimed(queue: Queue) -> list[Item]:
    return [item for item in queue.items.values() if item["status"] == "claimed"]


def _name(item: Item) -> str:
    """The id, which a person may have written."""
    return one_line(item["id"], 64)


def _line(queue: Queue, item: Item) -> str:
    """An item in one line of at most LINE characters, under TITLE."""
    about = [item["mode"], item["category"]]
    lease = item["lease"]
    if item["status"] == "claimed":
        about += [f"lease {lease['token']} {'over' if is_over(lease, utc_now()) else _left(lease['deadline'])}"]
    elif item["status"] == "pending" and (missing := waits_for(queue, item)):
        about += [
            f"waits for {one_line(next(iter(missing)))[:8]}" + f" and {len(missing) - 1} more" * (len(missing) > 1)
        ]
    elif item.get("card"):
        about += [f"card {one_line(item['card'])[:8]}"]
    head = f"{one_line(item['id'], 16):<16} {item['status']:<9} {item['priority']:>2}  {', '.join(filter(None, about))}"
    owner, reason = lease and one_line(lease["owner"], 30), item["reason"] and one_line(item["reason"], 50)
    end = "".join(f" | {text}" for text in (owner, reason) if text)
    return f"{head} | {one_line(item['description'], LINE - len(head) - len(end) - 3)}{end}"


def _left(deadline: str) -> str:
    try:
        left = datetime.fromisoformat(deadline.replace("Z", "+00:00")) - datetime.now(timezone.utc)
    except (ValueError, TypeError):  # a person wrote it
        return "with no end"
    return f"{round(left.total_seconds() / 60)} min left"
