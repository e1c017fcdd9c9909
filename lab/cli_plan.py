"""The commands `director.py suggest` and `director.py plan`: what to try next, and what would be added to the queue."""

from lab.brief import DATA_NOTE, one_line
from lab.cli import Arguments, answer, arg, command
from lab.cli_read import TRACK
from lab.index import Index
from lab.options import positive
from lab.planning import Plan, item_of, planned
from lab.schema import STRATEGIES
from lab.world import Suggestion

N = arg("--n", type=positive, default=10, metavar="N", help="at most so many (default: 10)")
MODE = arg("--mode", choices=STRATEGIES, help="what the experiments are for (default: the strategy's)")


@command(N, MODE, TRACK)
def cmd_suggest(args: Arguments) -> None:
    """Print what is worth trying next, by what a minute of the device promises"""
    with Index(args.knowledge_dir) as index:
        plan = planned(index, args.n, args.track, args.mode, queue=False)
    answer(args, _found(plan), "\n".join(_lines(plan)))


@command(N, MODE, TRACK)
def cmd_plan(args: Arguments) -> None:
    """Print the strategy and what would be added to the queue; nothing is added"""
    with Index(args.knowledge_dir) as index:
        plan = planned(index, args.n, args.track, args.mode)
    asked = " (asked for)" if args.mode else ""
    head = f"Mode {plan.mode}{asked}; the strategy says {plan.choice.mode}: {plan.choice.reason}"
    end = "nothing was added: `director.py add` or `director.py run` does"
    answer(args, _found(plan), "\n".join([head, *_lines(plan), end]))


def _found(plan: Plan) -> dict[str, object]:
    items = [item_of(suggestion, plan.track) for suggestion in plan.suggestions]
    return {"track": plan.track, "strategy": plan.choice._asdict(), "mode": plan.mode, "items": items}


def _lines(plan: Plan) -> list[str]:
    if not plan.suggestions:
        return ["nothing to suggest: all that is known is queued, running or refuted"]
    track = f"Track | {one_line(plan.track)}" if plan.track else "no track yet"
    title = f"{'gain a run':>10}  {'a minute':>8}  mode, category"
    rows = [line for suggestion in plan.suggestions for line in _two_lines(suggestion)]
    return [track, "The improvement of the metric that each promises", title, *rows, DATA_NOTE]


def _two_lines(one: Suggestion) -> list[str]:
    gains = [f"{value:.2g}" if value is not None else "-" for value in (one.expected, one.per_minute)]
    rests = f" [{', '.join(card[:8] for card in one.cards)}]" if one.cards else ""
    source = f"; {one.source}" if one.source else ""
    first = f"{gains[0]:>10}  {gains[1]:>8}  {one.mode}, {one.category} | {one_line(one.description, 160)}"
    return [first, f"{'':>22}| {one_line(one.why + source, 160)}{rests}"]
