"""The commands of `worker.py`, the door to running experiments. Each prints for a person, or JSON with --json."""

import shlex
import sys

from lab.brief import DATA_NOTE, counted, number, one_line
from lab.cli import Arguments, answer, arg, command
from lab.cli_read import TRACK
from lab.index import Index
from lab.options import count
from lab.sentinel import Found, Watch, commit_of, judge, plan, repeat, script_of
from lab.settings import load_settings

DRIFTED = 1  # exit code


@command(
    arg("--every", type=count, metavar="N", help="due after N experiments; 0: never (default: setting sentinel_every)"),
    arg("--now", action="store_true", help="run it, due or not"),
    arg("--dry-run", action="store_true", help="only say what would be run"),
    TRACK,
)
def cmd_sentinel(args: Arguments) -> None:
    """Run the champion again where it is due, and tell whether this machine has drifted (exit code 1)"""
    every = load_settings(args.project).sentinel_every if args.every is None else args.every
    with Index(args.knowledge_dir) as index:
        watch = plan(index, args.track, every)
    told = {
        "champion": watch.node.card, "seed": watch.seed, "since": watch.since, "recorded": watch.recorded,
        "every": every, "due": watch.due, "found": None,
    }  # fmt: skip
    if not (watch.due or args.now):
        answer(args, told, f"not due: {_when(watch)}")
    elif args.dry_run:
        commit = commit_of(watch.card, args.project)
        script_of(watch.card, args.project)  # which tells what would be in the way
        run = shlex.join(shlex.split(load_settings(args.project).command))
        text = f"would run {run} of commit {commit[:12]} with seed {watch.seed}: {_when(watch)}"
        answer(args, told, f"{text}\n  | {one_line(watch.card['hypothesis'] or 'no hypothesis')}\n{DATA_NOTE}")
    else:
        found = judge(watch, repeat(watch, args.project, args.knowledge_dir))
        answer(args, told | {"found": found._asdict() | {"drifted": found.drifted}}, found_text(found, watch))
        if found.drifted:
            sys.stdout.flush()
            sys.exit(DRIFTED)


def _when(watch: Watch) -> str:
    """How far it is to the next time."""
    never = "never" if watch.every == 0 else f"every {watch.every}"
    since = f"after its last run here, {watch.since[:8]}" if watch.since else "here, where it has not run"
    experiments = counted(watch.recorded, "experiment")
    return f"champion {watch.node.card[:8]}, {experiments} {since}; the sentinel runs {never}"


def found_text(found: Found, watch: Watch) -> str:
    """What the repeat told, in one line."""
    expected = f"{number(found.expected)} ± {found.sd:.2g}"
    parts = [f"{number(found.result)} where {expected} was expected", f"z {found.z:+.1f}"]
    if found.speed is not None:
        parts.append(f"{found.speed:.0%} of its usual speed")
    if found.off and not found.drifted:
        unsure = "the noise is only assumed: run it again, --now"
        return f"unclear: {', '.join(parts)} (card {found.card}); {unsure}"
    if not found.drifted:
        return f"fine: {', '.join(parts)} (card {found.card})"
    since = f" since {watch.since}" if watch.since else ""
    return f"drifted or throttled: {', '.join(parts)} (card {found.card}); results of this machine{since} are suspect"
