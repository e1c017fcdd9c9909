"""The command `director.py strategy`: which kind of experiment a track needs next and why; and to pin one."""

import os
from typing import Any

from lab.brief import counted, one_line
from lab.cli import Arguments, answer, arg, command
from lab.errors import SettingError
from lab.facts import main_track
from lab.index import Index
from lab.schema import STRATEGIES
from lab.situation import ALL, from_history, in_force, load_pins, pin, pinned_by
from lab.strategy import Choice


@command(
    arg("--set", choices=STRATEGIES, metavar="MODE", help=f"pin a mode: {', '.join(STRATEGIES)}"),
    arg("--reset", action="store_true", help="take away the pin that holds for the track"),
    arg("--track", help=f'a track, or a part of its name (default: the newest card\'s); "{ALL}" pins for all'),
)
def cmd_strategy(args: Arguments) -> None:
    """Print which kind of experiment a track needs next, with the reason and the numbers; or pin one"""
    if args.set and args.reset:
        raise SettingError("--set and --reset exclude each other; give one of them")
    with Index(args.knowledge_dir) as index:
        track = main_track(index, None if args.track == ALL else args.track)
        history = from_history(index, track)
    asked = ALL if args.track == ALL else track or ALL
    done = None
    if args.set:
        pin(args.knowledge_dir, asked, args.set, os.environ.get("AUTORESEARCH_AGENT") or None)
        done = f"pinned for {_named(asked)}: {args.set}; the history says {history.mode}"
    elif args.reset:
        name = pinned_by(asked, load_pins(args.knowledge_dir))
        if name:
            pin(args.knowledge_dir, name, None)
        done = f"no longer pinned for {_named(name)}" if name else "nothing was pinned"
    pins = load_pins(args.knowledge_dir)
    choice = in_force(history, track, pins)
    pinned = pins.get(pinned_by(track, pins) or "")
    found = {"track": track} | _plain(choice) | {"history": _plain(history), "pin": pinned, "done": done}
    answer(args, found, "\n".join(_lines(track, choice, pinned, done)))


def _named(name: str) -> str:
    return "all tracks" if name == ALL else "the track"


def _plain(choice: Choice) -> dict[str, Any]:
    return choice._asdict() | {"numbers": choice.numbers._asdict()}


def _lines(track: str | None, choice: Choice, pinned: dict[str, Any] | None, done: str | None) -> list[str]:
    """The choice for a reader, in at most ten lines."""
    known = choice.numbers
    worth = "is unknown" if known.repeat_worth is None else f"{known.repeat_worth:.3g} times that of a new idea"
    lines = [
        f"Track | {one_line(track) if track else 'none yet'}",
        f"mode: {choice.mode}{', conservative' if choice.conservative else ''}",
        f"  {choice.reason}",
        f"  {counted(known.runs, 'run')}; the last {counted(known.recent, 'new idea')}: {known.keeps} kept, "
        f"{known.crashes} crashed",
        f"  since a gain was last kept: {counted(known.since_keep, 'new idea')}",
        f"  near misses of late, within {known.margin:.2g} of the champion: {known.near_misses}",
        f"  what the best repeat promises: {worth}",
    ]
    if pinned:
        lines.append(
            f"pinned, by and since | {one_line(pinned.get('by') or 'unknown')}, {one_line(pinned.get('since'))}"
        )
    return lines + ([done] if done else [])
