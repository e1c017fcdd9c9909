"""The command `worker.py run`: one trusted run of the current tree, from its checks to its packet."""

import os
import sys
import time
from typing import Any

from lab.brief import number, one_line
from lab.cards import card_path
from lab.cli import Arguments, answer, arg, command
from lab.current import commit_of_tree, inspect, settle, subject_of
from lab.decide import packet
from lab.errors import SettingError
from lab.experiment import Experiment, Order
from lab.interrupts import InterruptedRunError, interruptible, undisturbed
from lab.limits import INTERRUPTED
from lab.options import amount, comma_list, count
from lab.schema import CATEGORIES, Card
from lab.work import session_of

CRASHED = 1  # exit code


@command(
    arg("-m", "--message", metavar="TEXT", help="the hypothesis (default: the subject of the commit)"),
    arg("--category", choices=CATEGORIES, metavar="NAME", help="what kind of change it is"),
    arg("--tags", default="", metavar="T,...", help="labels for the card"),
    arg("--seed", type=count, metavar="N", help="of weights and data order"),
    arg("--replicate", action="store_true", help="run what has been run: another seed tells noise from gain"),
    arg("--advance", action="store_true", help="go on from it where it is kept, else return to the champion"),
    arg("--timeout", type=amount, metavar="S", help="end it after S seconds (default: twice the time budget + 600)"),
    arg("--session", metavar="NAME", help="the series of experiments (default: the branch, autoresearch/ aside)"),
)
def cmd_run(args: Arguments) -> None:
    """Run the current tree once, trusted: checked, on a device of its own, recorded and judged"""
    progress = _Progress()
    try:
        with interruptible():
            try:
                card, moved = _run(args, progress)
            finally:
                progress.clear()
    except InterruptedRunError as error:
        begun = progress.run and card_path(args.knowledge_dir, progress.run).exists()
        print(f"error: {error}{f'; card {progress.run}' if begun else ''}", file=sys.stderr)
        sys.exit(INTERRUPTED + error.signal)
    answer(args, {"card": card, "tree": moved, "warnings": progress.warnings}, _told(card, progress.warnings, moved))
    if card["status"] == "crash":
        sys.stdout.flush()
        sys.exit(CRASHED)


def _run(args: Arguments, progress: "_Progress") -> tuple[Card, str | None]:
    """The card, and what became of the tree where that was asked for."""
    session = session_of(args.project, args.session)
    tree = inspect(args.project, args.knowledge_dir, args.replicate)
    message = " ".join(args.message.split()) if args.message else ""
    if tree.edited and not message:
        raise SettingError(f"{next(iter(tree.edited))} has an edit that is not committed; say what it tries: -m TEXT")
    hypothesis = message or subject_of(tree)
    tags = [*(comma_list(args.tags) or []), *(["replicate"] if args.replicate else [])]
    agent = os.environ.get("AUTORESEARCH_AGENT")
    order = Order(
        commit_of_tree(tree, hypothesis), {}, hypothesis, session, agent, args.category, list(dict.fromkeys(tags)),
        args.seed, tree.track,
    )  # fmt: skip
    card = Experiment(args.project, args.knowledge_dir, order, limit=args.timeout, tell=progress.tell).perform()
    with undisturbed():
        return card, settle(tree, order.commit, card, args.knowledge_dir) if args.advance else None


def _told(card: Card, warnings: list[str], moved: str | None) -> str:
    """The packet, and what else an agent needs to know: at most fifteen lines."""
    lines = packet(card)
    if card["quarantined"]:
        lines.append(f"  suspect    | {one_line(card['quarantined'], 200)}")
    if card["results"].get("hidden_bpb") is not None:
        lines.append(f"  hidden     {number(card['results']['hidden_bpb'])} on text that no run has seen")
    lines += [f"  warning    | {one_line(text, 200)}" for text in warnings[:1]]
    if moved:
        lines.append(f"  tree       {moved}")
    return "\n".join(lines)


class _Progress:
    """What a run tells while it goes on: a line on a terminal that says how far it is, and its warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.run: str | None = None
        self._began = time.monotonic()
        self._shown = ""

    def tell(self, event: str, **more: Any) -> None:
        """Take in an event of the experiment."""
        passed = f"{time.monotonic() - self._began:4.0f} s"
        if event == "warning":
            self.warnings.append(more["said"])
        elif event == "waiting":
            print(one_line(more["reason"], 200), file=sys.stderr, flush=True)  # for who has no terminal, too
        elif event == "started":
            self.run, self._began = more["run"], time.monotonic()
            self._show(f"   0 s  run {self.run} has started")
        elif event == "progress":
            self._show(f"{passed}  step {more['step']}, {more['seconds']:.0f} s trained, loss {number(more['loss'])}")

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._show("")

    def _show(self, line: str) -> None:
        if sys.stderr.isatty():
            line = line[: (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1]
            print(f"\r{' ' * len(self._shown)}\r{line}", end="", file=sys.stderr, flush=True)
            self._shown = line
