"""The command `worker.py work`: run experiments from the queue. One line an event, or one of JSON with --json."""

import json
import os
import sys
from pathlib import Path

from lab.agents import command_of
from lab.brief import number, one_line, signed
from lab.cards import machine
from lab.cli import Arguments, arg, command
from lab.cli_engine import ENGINE, engine_of
from lab.interrupts import InterruptedRunError
from lab.limits import INTERRUPTED
from lab.options import seconds
from lab.proposers import HPO
from lab.work import Event, session_of, work

MAX_REASON_CHARACTERS = 500


@command(
    arg(
        "--agent",
        default=HPO,
        metavar="CMD",
        help="makes the edits: a command, {prompt} in it or on standard input; hpo: only what says its whole edit",
    ),
    arg("--once", action="store_true", help="one experiment, or none where none waits"),
    arg("--idle-exit", type=seconds, metavar="S", help="end after S seconds without work (default: wait for it)"),
    arg("--session", metavar="NAME", help="keep on the branch autoresearch/NAME (default: the current one)"),
    arg("--owner", metavar="NAME", help="who works, for the queue and the cards (default: $AUTORESEARCH_AGENT)"),
    *ENGINE,
)
def cmd_work(args: Arguments) -> None:
    """Claim experiments from the queue, run and record them, and keep what helps on a branch"""
    words = command_of(args.agent)
    # No name of a user or a machine: cards are for others to read.
    default = f"{Path(words[0]).name}@{machine()}:{os.getpid()}"
    idle_exit = 0.0 if args.once and args.idle_exit is None else args.idle_exit
    tell = _tell_json if args.json else _tell
    try:
        with engine_of(
            args, lambda name, **more: tell({"event": name, "item": None, "description": None} | more)
        ) as engine:
            work(
                args.project,
                args.knowledge_dir,
                session=session_of(args.project, args.session),
                agent=args.agent,
                owner=args.owner or os.environ.get("AUTORESEARCH_AGENT") or default,
                once=args.once,
                idle_exit=idle_exit,
                engine=engine,
                tell=tell,
            )
    except InterruptedRunError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(INTERRUPTED + error.signal)


def _tell_json(event: Event) -> None:
    print(json.dumps(event, allow_nan=False), flush=True)


def _tell(event: Event) -> None:
    name = event["event"]
    if name == "claimed":
        text = f"{event['mode']} | {one_line(event['description'])}"
    elif name == "started":
        text = f"run {event['run']} of commit {event['commit'][:12]}"
    elif name == "ended":
        text = _ended(event)
    else:
        said = event.get("reason") or event.get("said")
        text = f"| {one_line(said, MAX_REASON_CHARACTERS)}" if said else "nothing to do"
    print(f"{name:<9}{(event['item'] or '')[:8]:<9}{text}", flush=True)


def _ended(event: Event) -> str:
    """What an experiment came to, in a line."""
    if event["result"] is None:
        return f"{event['status']}, card {event['card']} | {one_line(event['summary'] or '')}"
    found = f"{event['status']} {number(event['result'])}, delta {signed(event['delta'])}, card {event['card']}"
    return f"{found}; {event['branch']}" if event["branch"] else found
