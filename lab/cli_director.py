"""The command `director.py run`: plan and run experiments, with a live line on a terminal and JSON lines elsewhere."""

import sys

from lab.cards import utc_now
from lab.cli import Arguments, arg, command
from lab.cli_engine import ENGINE, engine_of, for_workers
from lab.cli_read import TRACK
from lab.options import amount, positive

PLANNED = 10  # ideas that --plan-only prints


@command(
    arg("--workers", type=positive, default=1, metavar="N", help="experiments at once (default: 1)"),
    arg("--agent", default="hpo", metavar="CMD", help="makes the edits; hpo or random: no model (default: hpo)"),
    arg("--session", metavar="NAME", help="the series of experiments (default: the branch, autoresearch/ aside)"),
    TRACK,
    arg("--max-experiments", type=positive, metavar="N", help="end after so many"),
    arg("--hours", type=amount, metavar="H", help="end where another does not fit into so many hours"),
    arg("--budget-usd", type=amount, metavar="X", help="or costs more than is left of so much; see price_per_hour"),
    arg("--synthesis-interval", type=positive, default=20, metavar="N", help="a synthesis after so many (default: 20)"),
    *ENGINE,
    arg("--plan-only", action="store_true", help="only print what `director.py plan` does"),
)
def cmd_run(args: Arguments) -> None:
    """Plan and run experiments until a limit is reached, something is wrong, or Ctrl-C; run again, it goes on"""
    if args.plan_only:
        from lab.cli_plan import cmd_plan

        args.n, args.mode = PLANNED, None
        cmd_plan.function(args)
        return
    from lab.director import run_director_loop  # neither is for who asks what the commands are
    from lab.status import json_lines, live

    began, watched = utc_now(), sys.stdout.isatty() and not args.json
    with (
        live() if watched else json_lines() as tell,
        # Its workers share the cluster that we start, or know of.
        engine_of(args, lambda name, **more: None) as engine,
    ):
        ended = run_director_loop(
            args.project,
            args.knowledge_dir,
            workers=args.workers,
            agent=args.agent,
            session=args.session,
            track=args.track,
            max_experiments=args.max_experiments,
            hours=args.hours,
            budget=args.budget_usd,
            synthesis_interval=args.synthesis_interval,
            options=for_workers(args, engine.connect()) if engine else (),
            tell=tell,
        )
    if watched and ended.experiments:
        print(_report(args, began))
    if ended.code:
        sys.stdout.flush()
        sys.exit(ended.code)


def _report(args: Arguments, began: str) -> str:
    """What `commons.py report` says of the time since then."""
    from lab.index import Index
    from lab.morning import gather
    from lab.report import report
    from lab.steps import next_steps

    with Index(args.knowledge_dir) as index:
        found = gather(index, began, utc_now(), None, args.track)
    found["steps"] = next_steps(found)
    return report(found).rstrip("\n")
