"""The command `commons.py sweep-confirm`: repeats where they change the most decisions, put into the queue."""

from collections.abc import Iterable

from lab.brief import DATA_NOTE, counted, one_line
from lab.cli import Arguments, answer, arg, command
from lab.cli_read import TRACK
from lab.facts import main_track
from lab.index import Index
from lab.judgement import judgement
from lab.options import positive
from lab.planning import repeat_items, runs_of
from lab.queue import add_to_queue, load_queue
from lab.sweep import Repeat, Row


@command(
    arg("--budget", type=positive, required=True, metavar="N", help="so many runs, with those that wait in the queue"),
    arg("--dry-run", action="store_true", help="add nothing to the queue"),
    TRACK,
)
def cmd_sweep_confirm(args: Arguments) -> None:
    """Queue the repeats that change the most decisions: what stays in, and what becomes champion"""
    queue = load_queue(args.knowledge_dir)
    with Index(args.knowledge_dir) as index:
        track = main_track(index, args.track)
        belief = judgement(index, track)
        known = runs_of(index, belief)
    repeats, items = repeat_items(belief, known, args.budget, queue)
    waiting = [item for item in queue if item["replicates"] in known]
    added = items if args.dry_run else add_to_queue(args.knowledge_dir, items)
    found = {"track": track, "repeats": [repeat._asdict() for repeat in repeats], "items": added}
    said = _text(track, repeats, {row["id"]: row for row in known.values()}, len(waiting))
    done = "nothing is added to the queue (--dry-run)" if args.dry_run else f"added to the queue: {len(added)}"
    answer(args, found, f"{said}\n{done}" if repeats else said)


def _text(track: str | None, repeats: Iterable[Repeat], rows: dict[str, Row], waiting: int) -> str:
    """The repeats for a reader, in plain lines."""
    already = f"{counted(waiting, 'repeat')} in the queue already" if waiting else ""
    listed = [
        f"  {repeat.runs} x {repeat.card[:8]} promise {repeat.gain:.2g}, {repeat.settles}"
        f" | {one_line(rows[repeat.card]['hypothesis'] or 'no hypothesis')}"
        for repeat in repeats
    ]
    if not listed:
        return f"nothing to add: {already or 'no repeat is worth its run'}"
    title = "Repeats: runs, the improvement that they promise, what they settle"
    return "\n".join([f"Track | {one_line(track)}", title, *listed, DATA_NOTE, *([already] if already else [])])
