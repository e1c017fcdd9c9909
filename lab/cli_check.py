"""The command `commons.py check`: has an idea, or the edit in the working tree, been tried?

    commons.py check --description "raise the embedding LR to 0.9" --mode explore --fail-on-similar

Exit code 3 where the answer is block and --fail-on-similar asks for it. Not covered: how it is judged (`lab/tried.py`).
"""

import sys
from typing import Any

from lab.brief import DATA_NOTE, one_line, signed
from lab.cli import Arguments, answer, arg, command
from lab.cli_read import TRACK
from lab.errors import SettingError
from lab.index import Index
from lab.novelty import MODES, SAME_IDEA_THRESHOLD
from lab.options import positive, share
from lab.schema import CATEGORIES
from lab.settings import load_settings
from lab.tried import Edit, check, edit_of

BLOCKED = 3  # exit code
MAX_SHOWN = 5


@command(
    arg("--description", default="", metavar="TEXT", help="the idea, as a commit's subject would tell it"),
    arg("--mode", choices=MODES, default=MODES[0], help=f"what the run is for (default: {MODES[0]})"),
    arg(
        "--diff", action="store_true", help="compare the edit itself too (default: where the script differs from HEAD)"
    ),
    arg("--family", choices=CATEGORIES, metavar="F", help="only runs of this category"),
    arg("--tags", default="", metavar="T,...", help="only runs that have one of these tags"),
    arg(
        "--threshold",
        type=share,
        default=SAME_IDEA_THRESHOLD,
        metavar="X",
        help=f"the similarity from which ideas are the same (default: {SAME_IDEA_THRESHOLD})",
    ),
    arg("--limit", type=positive, default=MAX_SHOWN, metavar="N", help=f"show so many (default: {MAX_SHOWN})"),
    arg("--fail-on-similar", action="store_true", help=f"exit code {BLOCKED} where the answer is block"),
    TRACK,
)
def cmd_check(args: Arguments) -> None:
    """Tell whether an idea or an edit has been tried, and what came of it"""
    settings = load_settings(args.project)
    edit = edit_of(args.project, settings.editable[0])
    if args.diff and edit is None:
        raise SettingError("--diff: the script says what HEAD says, or there is no HEAD; edit it, or leave --diff out")
    if not args.description.strip() and edit is None:
        raise SettingError("nothing to check; give --description TEXT, or edit the script")
    with Index(args.knowledge_dir) as index:
        found = check(
            index,
            args.description,
            args.mode,
            edit,
            track=_track(index, args.track),
            family=args.family,
            tags=[tag for tag in map(str.strip, args.tags.split(",")) if tag],
            threshold=args.threshold,
            limit=args.limit,
            embedder=settings.embedder,
        )
    answer(args, found, check_text(found, edit))
    if found["decision"] == "block" and args.fail_on_similar:
        sys.stdout.flush()
        sys.exit(BLOCKED)


def _track(index: Index, wanted: str | None) -> str | None:
    from lab.facts import main_track

    return main_track(index, wanted) if wanted else None


def check_text(found: dict[str, Any], edit: Edit | None) -> str:
    """`lab.tried.check` for a reader, in plain lines."""
    lines = [
        f"{found['decision']}: {found['classification'].replace('_', ' ')}, in mode {found['mode']}",
        f"  {found['reason']}",
    ]
    if edit and edit.changes:
        lines.append(f"  the edit changes | {one_line(edit.changes, 200)}")
    lines.append(f"Compared with {found['compared']} runs, {found['same']} of the same idea" + _closest(found))
    for row in found["closest"]:
        away = "" if row["track"] == found["track"] else f" on | {one_line(row['track'] or 'no track', 60)}"
        lesson = f" | {one_line(row['lesson'])}" if row["lesson"] and row["lesson"] != row["hypothesis"] else ""
        idea = one_line(row["hypothesis"] or row.get("changes") or "no hypothesis")
        values = f"{row['similarity']:.2f} {row['id'][:8]} {row['outcome']:<8}{signed(row['delta']):>11}"
        lines.append(f"  {values}{away} | {idea}{lesson}")
    return "\n".join([*lines, DATA_NOTE] if found["closest"] else lines)


def _closest(found: dict[str, Any]) -> str:
    return "; the closest: similarity, outcome, delta" if found["closest"] else ""
