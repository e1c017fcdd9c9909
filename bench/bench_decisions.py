"""Does judging with doubt pay? Simulated nights, where the truth is known: keep-if-smaller against ours, run for run.

    uv run bench/bench_decisions.py                        nights of 100 and of 1,000 runs (a quarter of an hour)
    uv run bench/bench_decisions.py --quick                two nights of 40 runs each: that it works
    uv run bench/bench_decisions.py --only h100 heavy --runs 100 --nights 100
    uv run bench/bench_decisions.py --fit results.tsv      the effects in a log of runs (H100 in nights.py)

What a night is stands in `nights.py`. `ledger` and `first` are ours with and without repeats from earlier nights;
"confirming" is the same night with its last tenth spent on findings. The ± are standard errors over nights. The exit
code is 1 where a target is missed. Not covered: the time a verdict takes.
"""

import argparse
import csv
import math
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from operator import mul
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))


from nights import DISTRIBUTIONS, POLICIES, Outcome, Task, live

NOISES = (0.0002, 0.0005, 0.001, 0.002)
H100_NOISE = 0.0004  # of a run in the log that --fit reads: a change of nothing moved it by 0.0004, a seed by 0.0007
# The targets: true improvement against greedy's by noise, claimed against true, findings, deciles.
TARGETS = {0.0002: 1.0, 0.001: 1.1, 0.002: 1.4}
BIAS_BAR, WRONG_BAR, DECILE_BAR, DECILE_CASES = 0.05, 0.02, 0.05, 200


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)


def error(values: Sequence[float]) -> float:
    """The standard error of the mean."""
    centre = mean(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / max(len(values) - 1, 1) / len(values))


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """The ratio of two means over the same nights, and its standard error (Taylor's, of paired values); nan over 0."""
    if not mean(below):
        return math.nan, math.nan
    over = mean(above) / mean(below)
    apart = [one - over * other for one, other in zip(above, below, strict=True)]
    return over, error(apart) / abs(mean(below))


Nights = dict[str, list[Outcome]]  # by policy


class Target(NamedTuple):
    """A target: what it is about, what was measured with its standard error, the bar and whether it is missed."""

    name: str
    measured: float
    error: float
    bar: float
    missed: bool


def row(noise: float, policy: str, nights: Sequence[Outcome]) -> str:
    """A line of the table of one distribution; metric differences in thousandths."""
    true, claimed = [night.gained for night in nights], [night.claimed for night in nights]
    off, off_error = ratio(claimed, true)
    cells = [f"{noise:g}", policy, f"{1000 * mean(true):.2f} ± {1000 * error(true):.2f}", f"{1000 * mean(claimed):.2f}",
             f"{100 * (off - 1):+.1f} ± {100 * off_error:.1f}%", f"{mean([night.kept for night in nights]):.1f}",
             f"{mean([night.kept_wrongly for night in nights]):.1f}"]  # fmt: skip
    if policy != "greedy":
        offs = [night.champion_off for night in nights]
        cells += [f"{mean([night.repeated for night in nights]):.1f}",
                  f"{mean([night.noise for night in nights]) / noise:.2f}", f"{mean(offs):+.2f} ± {error(offs):.2f}",
                  f"{1000 * mean([night.gained_confirming for night in nights]):.2f}",
                  f"{mean([night.confirmed for night in nights]):.1f}",
                  f"{sum(night.confirmed_wrongly for night in nights)}"]  # fmt: skip
    return "| " + " | ".join(cells + [""] * (13 - len(cells))) + " |"


HEAD = (
    "| noise | policy | true gain | claimed | claimed against true | kept | wrongly | repeats | noise believed / true "
    "| champion off, sd | true gain, confirming | confirmed | wrong, in all |\n|" + "---|" * 13
)


def targets(where: str, noise: float, cell: Nights) -> Iterator[Target]:
    """The targets on a distribution and a noise."""
    smaller = [night.gained for night in cell["greedy"]]
    for policy in POLICIES[1:]:
        nights = cell[policy]
        true = [night.gained for night in nights]
        name = f"{where}, noise {noise:g}, {policy}"
        if noise in TARGETS:
            against, by = ratio(true, smaller)
            yield Target(f"{name}: true gain / greedy's", against, by, TARGETS[noise], against < TARGETS[noise])
        off, by = ratio([night.claimed for night in nights], true)
        yield Target(f"{name}: abs(claimed / true - 1)", abs(off - 1), by, BIAS_BAR, abs(off - 1) > BIAS_BAR)


def wrong_share(where: str, nights: Sequence[Outcome]) -> Target:
    """The target of the confirmed findings."""
    confirmed, wrong = sum(night.confirmed for night in nights), sum(night.confirmed_wrongly for night in nights)
    share = wrong / confirmed if confirmed else 0.0
    name = f"{where}: wrong of {confirmed} confirmed findings"
    return Target(name, share, math.sqrt(share * (1 - share) / max(confirmed, 1)), WRONG_BAR, share > WRONG_BAR)


def reliability(where: str, nights: Sequence[Outcome]) -> Iterator[tuple[str, Target | None]]:
    """A line for every decile of the stated probability of a gain, with its target where it has one."""
    deciles: list[list[tuple[float, bool]]] = [[] for _ in range(10)]
    for night in nights:
        for stated, was in night.stated:
            deciles[min(int(10 * stated), 9)].append((stated, was))
    for number, cases in enumerate(deciles):
        if not cases:
            continue
        stated, observed = mean([said for said, _ in cases]), mean([was for _, was in cases])
        by = math.sqrt(observed * (1 - observed) / len(cases))
        target = None
        if len(cases) >= DECILE_CASES:
            name = f"{where}: decile {number}, abs(stated - observed)"
            target = Target(name, abs(stated - observed), by, DECILE_BAR, abs(stated - observed) > DECILE_BAR)
        mark = "OFF" if target and target.missed else ""
        yield f"| {where} | {stated:.2f} | {observed:.2f} ± {by:.2f} | {len(cases)} | {mark} |", target


def report(runs: int, found: dict[tuple[str, float], Nights]) -> list[Target]:
    """Print what came of the nights of one length, and return its targets."""
    goals: list[Target] = []
    for distribution in dict.fromkeys(distribution for distribution, _ in found):
        cells = {noise: cell for (name, noise), cell in found.items() if name == distribution}
        print(f"\n## {distribution}, {runs} runs a night, {len(next(iter(cells.values()))['greedy'])} nights; gains in "
              f"thousandths of the metric\n\n{HEAD}")  # fmt: skip
        for noise, cell in cells.items():
            for policy in POLICIES:
                print(row(noise, policy, cell[policy]))
            goals += targets(f"{distribution}, {runs} runs", noise, cell)
        print("\n| stated probability of a gain | mean | observed | cases | |\n|---|---|---|---|---|")
        for policy in POLICIES[1:]:
            every = [night for cell in cells.values() for night in cell[policy]]
            goals.append(wrong_share(f"{distribution}, {runs} runs, {policy}", every))
            for line, target in reliability(f"{distribution}, {runs} runs, {policy}", every):
                print(line)
                goals += [target] if target else []
            for noise, cell in cells.items():
                where = f"{distribution}, {runs} runs, noise {noise:g}, {policy}"
                goals += [target for _, target in reliability(where, cell[policy]) if target]
    return goals


def log_differences(path: Path) -> list[float]:
    """What the edits in a log did to the champion of their time; what broke everything is left out."""
    best, found = None, []
    with path.open(newline="") as lines:
        for run in csv.DictReader(lines, delimiter="\t"):
            value = float(run["val_bpb"])
            if run["status"] == "crash":
                continue
            if best is not None and abs(value - best) < 0.1:
                found.append(value - best)
            if run["status"] == "keep":
                best = value
    return found


def fit(path: Path) -> tuple[list[float], float, float]:
    """(the parameters of H100, the luck of the champions, the logarithm of the likelihood) by maximum likelihood.

    A difference is an effect (lognormal gains, lognormal losses or nothing) plus the noise of two runs and the luck of
    the champion, which was chosen for being small. The lognormals are summed over a grid; a compass search climbs.
    """
    seen, sd = log_differences(path), H100_NOISE * math.sqrt(2)
    grid = [math.log(1e-5) + number * math.log(3e3) / 119 for number in range(120)]

    def share(centre: float, spread: float) -> list[float]:
        weights = [math.exp(-0.5 * ((place - centre) / spread) ** 2) for place in grid]
        return [weight / sum(weights) for weight in weights]

    def climb(luck: float) -> tuple[list[float], float, float]:
        def density(difference: float, effect: float) -> float:
            return math.exp(-0.5 * ((difference - luck - effect) / sd) ** 2) / sd

        table = [
            ([density(d, -math.exp(g)) for g in grid], [density(d, math.exp(g)) for g in grid], density(d, 0.0))
            for d in seen
        ]

        def score(place: Sequence[float]) -> float:
            helps, gain, gain_spread, hurts, loss, loss_spread = place
            if min(helps, hurts, 1 - helps - hurts) < 0 or min(gain_spread, loss_spread) < 0.15:
                return -math.inf
            gains, losses = share(gain, gain_spread), share(loss, loss_spread)
            return sum(
                math.log(helps * sum(map(mul, gains, better)) + hurts * sum(map(mul, losses, worse))
                         + (1 - helps - hurts) * same + 1e-300)
                for better, worse, same in table
            )  # fmt: skip

        place, steps = [0.2, -7.5, 1.0, 0.5, -7.0, 1.0], [0.1, 0.5, 0.3, 0.1, 0.5, 0.3]
        best = score(place)
        while max(steps) > 0.004:
            before = best
            for number, step in enumerate(steps):
                for way in (step, -step):
                    tried = [*place[:number], place[number] + way, *place[number + 1 :]]
                    if score(tried) > best:
                        best, place = score(tried), tried
            if best == before:
                steps = [step / 2 for step in steps]
        return place, luck, best

    return max((climb(luck) for luck in (0.0, 0.0002, 0.0004, 0.0006)), key=lambda found: found[2])


def main() -> int:
    """Simulate and print; 1 where a target is missed."""
    parser = argparse.ArgumentParser(
        description="Judging with doubt against keeping what is smaller, on made-up nights."
    )
    parser.add_argument("--nights", type=int, help="nights of 100 runs (default 24; of longer ones a twelfth)")
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000], help="runs of a night (default 100 1000)")
    parser.add_argument("--only", nargs="+", choices=DISTRIBUTIONS, default=list(DISTRIBUTIONS), metavar="NAME",
                        help=f"some of {', '.join(DISTRIBUTIONS)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="two nights of 40 runs, two noises")
    parser.add_argument("--fit", type=Path, metavar="FILE", help="fit the effects in a results.tsv instead")
    args = parser.parse_args()
    if args.fit:
        place, luck, score = fit(args.fit)
        print(f"H100 = ({', '.join(f'{value:.2f}' for value in place)})  luck {luck:g}, log likelihood {score:.2f}")
        return 0
    started, goals = time.time(), []
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for runs in [40] if args.quick else args.runs:
            nights = 2 if args.quick else (args.nights or 24) if runs <= 300 else max((args.nights or 24) // 12, 2)
            tasks = [
                Task(name, noise, runs, policy, night) for name in args.only
                for noise in (NOISES[2:] if args.quick else NOISES) for policy in POLICIES for night in range(nights)
            ]  # fmt: skip
            found: dict[tuple[str, float], Nights] = {}
            for task, outcome in zip(tasks, pool.imap(live, tasks), strict=True):
                cell = found.setdefault((task.distribution, task.noise), {})
                cell.setdefault(task.policy, []).append(outcome)
            goals += report(runs, found)
    missed = [goal for goal in goals if goal.missed]
    print(f"\n## Targets: {len(goals) - len(missed)} of {len(goals)} hold; {time.time() - started:.0f} s\n")
    print("| missed, or within two standard errors of it | measured | bar |\n|---|---|---|")
    for goal in goals:
        if goal.missed or abs(goal.measured - goal.bar) < 2 * goal.error:
            verdict = "MISSED" if goal.missed else "holds"
            sure = "" if abs(goal.measured - goal.bar) > 2 * goal.error else ", within two standard errors"
            print(f"| {goal.name} | {goal.measured:.3f} ± {goal.error:.3f} | {goal.bar:g} | {verdict}{sure} |")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
