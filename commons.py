"""Read and write the knowledge commons: the cards that every run leaves.

    uv run commons.py read-brief            what is known: champions, last runs, crashes
    uv run commons.py show last             one card, by its id, the beginning of it, or "last"
    uv run commons.py write-card --commit HASH --hypothesis TEXT --status keep --tags a,b --result 0.9979
    uv run commons.py update-index          write knowledge/index.json

Every command takes --json and --knowledge-dir. Standard library only, so it answers at once.
Not covered yet: search, notes, retraction, sharing.
"""

import argparse
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from lab.brief import brief_text, card_text, compact, summarise
from lab.cards import create_card, find_card, get_card, join, join_run, load_cards
from lab.errors import CardError, LabError, SettingError
from lab.schema import CATEGORIES, SCHEMA, STATUS_ALIASES, STATUSES, Card, validate_card
from lab.store import dump_json, knowledge_dir, read_json, replace

__all__ = ["create_card", "find_card", "get_card", "join", "join_run", "load_cards", "main", "validate_card"]

# `retracted` is said of a card later, never by the one who writes it.
WRITABLE_STATUSES = [status for status in STATUSES if status != "retracted"] + list(STATUS_ALIASES)


def cmd_read_brief(args: argparse.Namespace) -> None:
    """Print what is known: champions, last runs, crashes"""
    cards = load_cards(args.knowledge_dir)
    if args.json:
        print_json(summarise(cards))
    else:
        print(brief_text(cards) if cards else nothing_in(args.knowledge_dir))


def cmd_show(args: argparse.Namespace) -> None:
    """Print one card"""
    cards = load_cards(args.knowledge_dir)
    card = find_card(cards, args.card) if cards else None
    if args.json:
        print_json(card)
    else:
        print(card_text(card) if card else nothing_in(args.knowledge_dir))


def cmd_write_card(args: argparse.Namespace) -> None:
    """Write a card, or add to the card that the run has made"""
    from lab.git import full_hash  # starts processes, which a command that only reads never needs

    args.commit = full_hash(Path(__file__).parent, args.commit) or args.commit
    summary = read_json(args.summary) if args.summary else {}
    values = card_values(args, summary)
    made = run_card(load_cards(args.knowledge_dir), args.run, summary.get("run_id"), args.commit)
    if made:
        card = join_run(args.knowledge_dir, made, values)
        said = f"added to card {card['id']}: {made['status']} -> {card['status']}"
    else:
        if values["status"] != "crash" and "val_bpb" not in values["results"]:
            raise SettingError(f"--status {args.status} needs --result, the val_bpb of the run")
        card = create_card(args.knowledge_dir, values)
        said = f"wrote card {card['id']}: {card['status']}"
    if args.json:
        print_json(card)
    else:
        print(said)


def cmd_update_index(args: argparse.Namespace) -> None:
    """Write index.json, one row for every card; it can be deleted and made again"""
    cards = load_cards(args.knowledge_dir)
    path = args.knowledge_dir / "index.json"
    replace(path, {"schema": SCHEMA, "cards": [compact(card) for card in cards]})
    if args.json:
        print_json({"path": str(path), "cards": len(cards)})
    else:
        print(f"indexed {len(cards)} cards in {path}")


def card_values(args: argparse.Namespace, summary: dict[str, Any]) -> Card:
    """The card's values as the command line and the summary give them; what is not given is left out."""
    if args.status == "crash" and args.result is not None:
        raise SettingError("--result: a crash has no result; leave it out, or give the status that the result earned")
    results = {name: value for name, value in summary.items() if name not in ("run_id", "artifacts")} | given(
        val_bpb=args.result,
        delta=args.delta,
        peak_vram_mb=args.peak_memory,
        training_seconds=args.training_seconds,
        num_steps=args.num_steps,
    )
    run = given(id=summary.get("run_id"), run_id=summary.get("run_id"))
    return run | given(
        commit=args.commit,
        hypothesis=args.hypothesis,
        status=STATUS_ALIASES.get(args.status, args.status),
        tags=comma_list(args.tags),
        results=results,
        lesson=args.lesson,
        config_diff=json_object("--config-diff", args.config_diff),
        prior_knowledge_used=comma_list(args.prior_cards),
        category=args.category,
        session=args.session,
        agent=args.agent,
    )


def run_card(cards: list[Card], run: str | None, summary_run: str | None, commit: str) -> Card | None:
    """The card of the run that --run or the summary names; without either, of the newest run of the commit."""
    of_runs = [card for card in reversed(cards) if card["run_id"]]
    if run is None and summary_run is None:
        same_commit = (card for card in of_runs if card["commit"] and card["commit"].startswith(commit))
        return next(same_commit, None)
    found = next((card for card in of_runs if card["run_id"].startswith(run or summary_run)), None)
    if run and not found:
        raise CardError(f"--run {run}: no run of this id has a card; without --run a card of its own is written")
    return found


def given(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def comma_list(text: str | None) -> list[str] | None:
    """`a, b` as ["a", "b"]."""
    return None if text is None else [item.strip() for item in text.split(",") if item.strip()]


def json_object(option: str, text: str | None) -> dict[str, Any] | None:
    """The JSON object given to an option."""
    try:
        value = None if text is None else json.loads(text)
    except ValueError as error:
        raise SettingError(f"{option}: {text!r} is not JSON ({error}); give an object") from error
    if value is not None and not isinstance(value, dict):
        raise SettingError(f"{option}: {text!r} is not an object")
    return value


def nothing_in(knowledge: Path) -> str:
    """What to say of an empty commons."""
    return f"no cards in {knowledge} yet: `uv run train.py` writes the first one"


def print_json(value: Any) -> None:
    """Print JSON exactly as it is stored."""
    sys.stdout.buffer.write(dump_json(value))


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, like every error here."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see `{self.prog} --help`)\n")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(prog="commons.py", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = OneLineParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("--knowledge-dir", type=Path, metavar="DIR", default=knowledge_dir(Path(__file__).parent))

    def command(name: str, function: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[common], help=function.__doc__, description=function.__doc__)
        added.set_defaults(run_command=function)
        return added

    command("read-brief", cmd_read_brief)
    command("show", cmd_show).add_argument("card", help='a card\'s id, the beginning of it, or "last"')
    write = command("write-card", cmd_write_card)
    write.add_argument("--commit", required=True, help="the commit that ran: HEAD, or its hash")
    write.add_argument("--hypothesis", required=True, help="what was tried and why it should help")
    write.add_argument("--status", required=True, choices=WRITABLE_STATUSES)
    write.add_argument("--tags", required=True, help="labels, separated by commas")
    write.add_argument("--result", type=float, help="val_bpb; not for a crash")
    write.add_argument("--run", metavar="ID", help="the run whose card to add to (default: the newest of the commit)")
    write.add_argument("--summary", type=Path, metavar="FILE", help="summary.json of the run, for its results")
    write.add_argument("--delta", type=float, help="val_bpb minus the champion's")
    write.add_argument("--peak-memory", type=float, metavar="MIB")
    write.add_argument("--training-seconds", type=float)
    write.add_argument("--num-steps", type=int)
    write.add_argument("--lesson", help="what was learnt")
    write.add_argument("--config-diff", metavar="JSON", help="changed constants, such as '{\"DEPTH\": [8, 10]}'")
    write.add_argument("--prior-cards", metavar="IDS", help="cards that led here, separated by commas")
    write.add_argument("--category", choices=CATEGORIES)
    write.add_argument("--session")
    write.add_argument("--agent")
    command("update-index", cmd_update_index)
    return parser


def main() -> None:
    """Run the command; a failure is one line and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode gets ? for ±
    args = build_parser().parse_args()
    try:
        args.run_command(args)
        sys.stdout.flush()
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader has seen enough, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
