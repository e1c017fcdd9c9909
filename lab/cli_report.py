"""The command of `commons.py` that reports on a night. It only reads the commons."""

import re
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

from lab.cards import utc_now
from lab.cli import Arguments, answer, arg, command
from lab.errors import SettingError
from lab.index import Index
from lab.morning import gather
from lab.report import report
from lab.steps import next_steps

DEFAULT_SINCE = "12h"
PICTURES = ("progress", "coverage")
HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0, "w": 168.0}


@command(
    arg("--since", metavar="TIME", help=f"90m, 12h, 2d, 1w ago, or a date or time in UTC (default: {DEFAULT_SINCE})"),
    arg("--session", help="only the runs of this session (then --since defaults to its beginning)"),
    arg("--track", help="only the runs of a track, named by a part of its name (default: all)"),
    arg("--out", type=Path, metavar="FILE", help="a .md or .html, with pictures (default: print Markdown)"),
)
def cmd_report(args: Arguments) -> None:
    """Print what a night of experiments came to, and what to do next"""
    if args.out:
        from lab.page import require_page

        require_page(args.out)
    now = utc_now()
    text = args.since or (None if args.session is not None else DEFAULT_SINCE)
    with Index(args.knowledge_dir) as index:
        found = gather(index, since_when(text, now) if text else None, now, args.session, args.track)
    found["steps"] = next_steps(found)
    if not args.out:
        answer(args, found, report(found).rstrip("\n"))
        return
    from lab.page import write_page

    track = found["tracks"][0]["track"] if found["tracks"] else None
    pictures = _pictures(args.knowledge_dir, track) if track else {}
    names = {Path(name).stem: name for name in pictures}
    files = write_page(args.out, "Morning report", report(found, names), pictures)
    answer(args, {"files": [str(file) for file in files]}, "wrote " + ", ".join(str(file) for file in files))


def _pictures(knowledge: Path, track: str) -> dict[str, bytes]:
    """The pictures of a track by file name; one that has nothing to show is not there."""
    from lab.library import draw
    from lab.page import drawn

    pictures = {}
    for kind in PICTURES:
        try:
            pictures[f"{kind}.png"] = drawn(partial(draw, knowledge, kind, track=track))
        except SettingError:
            continue
    return pictures


def since_when(text: str, now: str) -> str:
    """The moment that `text` names, as cards have it: 90m, 12h, 2d or 1w before `now`, or a date or time in UTC.

    SettingError when it names none.
    """
    try:
        if found := re.fullmatch(r"([0-9]{1,9})([mhdw])", text.strip()):
            moment = _time(now) - timedelta(hours=int(found[1]) * HOURS[found[2]])
        else:
            moment = _time(text.strip())
        moment = moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError) as error:
        ways = "90m, 12h, 2d or 1w, or a date in UTC such as 2026-01-31 or 2026-01-31T22:00"
        raise SettingError(f"--since {text!r} is no time; give a duration such as {ways}") from error
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # before 3.11 it knows no Z
