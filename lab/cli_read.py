"""The commands of `commons.py` that only read. Each prints for a person, or JSON with --json."""

from pathlib import Path
from typing import Any

from lab import facts
from lab.brief import DATA_NOTE, DEFAULT_TOKENS, brief_text, card_text, one_line, row_text, signed
from lab.briefing import gather, queued, running
from lab.cli import Arguments, answer, arg, command
from lab.index import Index
from lab.judgement import settings_of
from lab.options import positive
from lab.schema import EXPORT_FORMATS, PLOT_KINDS
from lab.stats import UNDER_EXPLORED_RUNS, saturated
from lab.store import runs_dir

TRACK = arg("--track", help="a track, or a part of its name (default: the newest card's)")
ANY_TRACK = arg("--track", help="a track, or a part of its name (default: all)")
LIMIT = arg("--limit", type=positive, default=20, metavar="N", help="at most so many (default: 20)")


@command(
    arg(
        "--tokens",
        type=positive,
        default=DEFAULT_TOKENS,
        metavar="N",
        help=f"at most so long (default: {DEFAULT_TOKENS})",
    ),
    arg("--for", dest="idea", metavar="IDEA", help="put what bears on this idea first"),
    TRACK,
)
def cmd_read_brief(args: Arguments) -> None:
    """Print what an agent should know before it plans"""
    with Index(args.knowledge_dir) as index:
        found = gather(index, args.track, args.idea)
        found["running"] = running(index, runs_dir(args.project))
    found["queue"] = queued(args.knowledge_dir)
    answer(args, found, brief_text(found, args.tokens) if _tells(found) else nothing_in(args))


def _tells(found: dict[str, Any]) -> bool:
    """Whether there is anything to tell: the first agent of all may have company, questions or a queue."""
    return any(found[name] for name in ("cards", "questions", "insights", "running", "queue"))


@command()
def cmd_read_meta(args: Arguments) -> None:
    """Print the synthesis over all sessions"""
    from lab.synthesis import get_meta_synthesis

    text = get_meta_synthesis(args.knowledge_dir)
    # The file may be a peer's, not made by us: no line of it stands without the mark of data.
    lines = [f"| {' ' * (len(line) - len(line.lstrip(' ')))}{one_line(line, 2000)}" for line in text.splitlines()]
    answer(args, {"text": text}, "\n".join([DATA_NOTE, *lines]))


@command(TRACK)
def cmd_coverage(args: Arguments) -> None:
    """Print what has been tried on a track, by category and by tag"""
    with Index(args.knowledge_dir) as index:
        track = facts.main_track(index, args.track)
        categories = facts.coverage(index, track)
        tags = facts.tags(index, track)
    lines = [
        f"Track | {one_line(track)}" if track else "no track yet",
        f"{'':<16}{'runs':>6}{'kept':>6}{'best delta':>14}",
    ]
    for name, row in sorted(categories.items(), key=lambda item: (-item[1]["count"], item[0])):
        remark = "  saturated" if saturated(row) else "  under-explored" if row["count"] <= UNDER_EXPLORED_RUNS else ""
        lines.append(f"{name:<16}{row['count']:>6}{row['kept']:>6}{signed(row['best_delta']):>14}{remark}")
    lines += ["", "Tags: kept/runs", DATA_NOTE] if tags else []
    lines += [f"  {row['kept']}/{row['count']} | {one_line(row['tag'])}" for row in tags]
    answer(args, {"track": track, "categories": categories, "tags": tags}, "\n".join(lines))


@command(arg("card", help='a card\'s id, the beginning of it, or "last"'))
def cmd_show(args: Arguments) -> None:
    """Print one card"""
    with Index(args.knowledge_dir) as index:
        empty = args.card == "last" and index.row("SELECT 1 FROM cards LIMIT 1") is None
        card = None if empty else index.read(facts.find_id(index, args.card))
    answer(args, card, card_text(card) if card else nothing_in(args))


@command(arg("words", nargs="+", metavar="WORD"), LIMIT)
def cmd_search(args: Arguments) -> None:
    """Find cards and notes by the words of hypotheses, lessons and notes"""
    with Index(args.knowledge_dir) as index:
        rows = facts.search(index, " ".join(args.words), args.limit)
    _list(args, rows, "nothing has all of these words")


@command(arg("sql", help="such as \"SELECT id, result FROM cards WHERE status = 'keep'\""))
def cmd_query(args: Arguments) -> None:
    """Answer a SELECT over the index; docs/protocol.md lists the tables"""
    with Index(args.knowledge_dir) as index:
        rows = index.query(args.sql)
    names = list(rows[0]) if rows else []
    lines = ["\t".join(one_line(name) for name in names)] if names else ["no rows"]
    lines += ["\t".join("" if value is None else one_line(value, 200) for value in row.values()) for row in rows]
    answer(args, rows, "\n".join(lines))


@command(ANY_TRACK)
def cmd_best(args: Arguments) -> None:
    """Print the best kept result of every track, or of one"""
    with Index(args.knowledge_dir) as index:
        tracks = facts.tracks_of(index)
        wanted = facts.main_track(index, args.track) if args.track else None
        rows = [facts.best_kept(index, row["track"]) for row in tracks if wanted in (None, row["track"])]
    best = [row for row in rows if row]
    text = "\n".join(f"{row_text(row)}\n  track | {one_line(row['track'])}" for row in best)
    answer(args, best, f"{text}\n{DATA_NOTE}" if best else "no kept result on any track yet")


@command(ANY_TRACK, LIMIT)
def cmd_history(args: Arguments) -> None:
    """List the runs, newest first"""
    with Index(args.knowledge_dir) as index:
        track = facts.main_track(index, args.track) if args.track else None
        rows = facts.history(index, track, args.limit)
    _list(args, rows, nothing_in(args))


@command(TRACK, LIMIT)
def cmd_near_misses(args: Arguments) -> None:
    """List runs that were not kept though noise could hide a gain"""
    with Index(args.knowledge_dir) as index:
        track = facts.main_track(index, args.track)
        margin = facts.near_margin(index, track, settings_of(index))
        rows = facts.near_misses(index, track, margin, args.limit)
    _list(args, rows, "no run came close to its champion")


@command()
def cmd_tags(args: Arguments) -> None:
    """List the tags and how often each was used and kept"""
    with Index(args.knowledge_dir) as index:
        rows = facts.tags(index, None, limit=10_000)
    text = "\n".join(f"{row['kept']}/{row['count']} | {one_line(row['tag'])}" for row in rows)
    answer(args, rows, f"kept/runs\n{text}\n{DATA_NOTE}" if rows else "no card has a tag")


@command(arg("a", help="a card"), arg("b", help="another one"))
def cmd_diff(args: Arguments) -> None:
    """Compare two cards: configuration, results and train.py"""
    from lab.compare import compare, compare_text

    with Index(args.knowledge_dir) as index:
        first, second = (index.read(facts.find_id(index, name)) for name in (args.a, args.b))
    found = compare(first, second, args.project)
    answer(args, found, compare_text(found))


@command(
    arg("card", nargs="?", help="only its ancestors and descendants (default: everything)"),
    arg("--format", choices=["text", "dot", "mermaid", "json"], default="text"),
)
def cmd_lineage(args: Arguments) -> None:
    """Print which cards led to which"""
    from lab.lineage import as_dot, as_json, as_mermaid, as_text, lineage

    with Index(args.knowledge_dir) as index:
        cards = index.outlines()
        graph = lineage(cards, facts.find_id(index, args.card) if args.card else None)
    forms: dict[str, Any] = {"text": as_text, "dot": as_dot, "mermaid": as_mermaid}
    if args.format == "json":
        args.json = True
    answer(args, as_json(graph), "" if args.json else forms[args.format](graph) if cards else nothing_in(args))


@command(
    TRACK,
    arg("--kind", choices=PLOT_KINDS, default=PLOT_KINDS[0]),
    arg("--out", type=Path, metavar="FILE", help="a .png or .svg (default: KIND.png)"),
)
def cmd_plot(args: Arguments) -> None:
    """Draw the progress of a track, its coverage, its lineage or its loss curves"""
    from lab.library import draw

    path = args.out or Path(f"{args.kind}.png")
    draw(args.knowledge_dir, args.kind, path, args.track)
    answer(args, {"path": str(path)}, f"drew {path}")


@command(
    arg("--format", choices=EXPORT_FORMATS, default=EXPORT_FORMATS[0]),
    arg("--out", type=Path, metavar="FILE", help="where to write it (default: standard output)"),
    arg("--session", help="only the cards of this session"),
    ANY_TRACK,
)
def cmd_export(args: Arguments) -> None:
    """Write the cards as a table or as JSON lines, oldest first"""
    from lab.export import export_file

    count = export_file(args.knowledge_dir, args.format, args.out, session=args.session, track=args.track)
    if args.out:
        answer(args, {"path": str(args.out), "cards": count}, f"wrote {count} cards to {args.out}")


def nothing_in(args: Arguments) -> str:
    """What to say of an empty commons."""
    ways = "`uv run train.py` writes the first one, `commons.py sync` brings those of others"
    return f"no cards in {args.knowledge_dir} yet: {ways}"


def _list(args: Arguments, rows: list[dict[str, Any]], nothing: str) -> None:
    answer(args, rows, "\n".join([*(row_text(row) for row in rows), DATA_NOTE]) if rows else nothing)
