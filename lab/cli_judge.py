"""The commands of `commons.py` that tell what results mean: noise, champion, challengers, findings."""

import math
from typing import Any

from lab import facts
from lab.brief import DATA_NOTE, counted, minute, number, one_line, signed
from lab.cli import Arguments, answer, command
from lab.cli_read import LIMIT, TRACK, nothing_in
from lab.findings import Finding, Pooled
from lab.index import Index
from lab.judgement import RECENT, SHOWN, advice, challengers, findings, judgement, lineages, transfer
from lab.schema import STANDINGS
from lab.stats import NORMAL_95
from lab.waiting import failures


@command(TRACK)
def cmd_noise(args: Arguments) -> None:
    """Print how much two runs of one configuration differ, what that rests on, and which repeats would help"""
    with Index(args.knowledge_dir) as index:
        track = facts.main_track(index, args.track)
        belief = judgement(index, track)
        best = facts.champion(index, track)
    if belief is None:
        answer(args, None, f"no result on a track yet: {nothing_in(args)}" if track is None else _unknown(track))
        return
    ledger = belief.repeats
    terms = (
        ("same seed, same machine", ledger.same_seed, ledger.pairs[0]),
        ("what the seed adds", ledger.between_seeds, ledger.pairs[1]),
        ("what the machine adds", ledger.between_machines, ledger.pairs[2]),
    )
    helpful = advice(belief, best)
    lines = [
        f"Track | {one_line(track)}",
        f"between two runs with their own seeds on one machine: sd {_spread(belief.noise.sd)}",
        f"  {belief.noise.basis}",
        f"  so a difference of two single runs has sd {_spread((belief.noise.sd or 0) * math.sqrt(2))}",
        "terms, by the method of moments on pairs of runs of one configuration, without the run it was kept by:",
        *(f"  {name:<24}{_spread(sd):>10}  {counted(pairs, 'pair')}" for name, sd, pairs in terms),
        "repeats that would help most:",
        *(f"  {text}" for text in helpful),
    ]
    answer(args, belief.noise._asdict() | {"terms": ledger._asdict(), "advice": helpful}, "\n".join(lines))


def _spread(sd: float | None) -> str:
    return "unknown" if sd is None else f"{sd:.3g}"


def _unknown(track: str | None) -> str:
    return f"Track | {one_line(track)}\nnothing is known of its noise: no result, or all of them are 0"


@command(TRACK)
def cmd_champion(args: Arguments) -> None:
    """Print the champion of a track, as good as it is believed to be"""
    with Index(args.knowledge_dir) as index:
        track = facts.main_track(index, args.track)
        best, belief = facts.champion(index, track), judgement(index, track)
    if best is None:
        answer(args, None, f"Track | {one_line(track)}\nno kept result yet" if track else nothing_in(args))
        return
    found: dict[str, Any] = best | {"noise": None, "baseline": None, "step": None}
    lines = [f"Track | {one_line(track)}", f"champion {best['id']} of {minute(best['timestamp'])}"]
    lines.append(f"  idea       | {one_line(best['hypothesis'] or 'no hypothesis')}")
    runs = counted(best["runs"], "run")
    lines.append(f"  measured   {one_line(best['metric'], 30)} {number(best['result'])}, {runs} of this configuration")
    if belief and best["id"] in belief.nodes and best["mean"] is not None:
        lines.append(f"  truly      {_interval(best['mean'], best['sd'])}")
        first, step = next(iter(belief.nodes.values())), belief.step(best["id"])
        if step:
            found["step"] = step._asdict()
            lines.append(
                f"  its step   P {step.better:.2f} of a true gain, {signed(step.expected)} ± {step.sd:.2g} to expect"
            )
        if first.card != best["id"]:
            mean, _ = belief.value(first.card)
            found["baseline"] = {"id": first.card, "mean": mean}
            lines.append(
                f"  in all     {signed(best['mean'] - mean)} since {first.card[:12]}, truly about {number(mean)}"
            )
        found["noise"] = belief.noise._asdict()
        lines.append(f"  noise      {_spread(belief.noise.sd)} between runs ({belief.noise.basis})")
    answer(args, found, "\n".join([*lines, DATA_NOTE]))


def _interval(mean: float, sd: float) -> str:
    low, high = mean - NORMAL_95 * sd, mean + NORMAL_95 * sd
    return f"about {number(mean)}, with 95% between {number(low)} and {number(high)}"


@command(TRACK, LIMIT)
def cmd_challengers(args: Arguments) -> None:
    """List what may be better than the champion, the best lineages, and what keeps failing"""
    with Index(args.knowledge_dir) as index:
        track = facts.main_track(index, args.track)
        best = facts.champion(index, track)
        rows = challengers(index, track, args.limit)
        lines_of_descent = lineages(index, track)
        crashed = f"SELECT {SHOWN} FROM cards WHERE track IS ? AND status = 'crash' ORDER BY timestamp DESC, id DESC"
        clusters = [row for row in failures(index.rows(f"{crashed} LIMIT ?", track, RECENT)) if row["times"] > 1]
    found = {"champion": best, "challengers": rows, "lineages": lines_of_descent, "failures": clusters}
    if best is None and not clusters:
        answer(args, found, f"Track | {one_line(track)}\nno kept result yet" if track else nothing_in(args))
        return
    lines = [f"Track | {one_line(track)}", DATA_NOTE]
    if best:
        lines += ["", f"champion {best['id'][:12]} {number(best['result'])}{_idea(best)}"]
    lines += _section(
        "Challengers: P better than the champion, difference to expect, runs, what a repeat promises",
        [
            f"{row['id'][:12]} {row['probability']:.2f} {signed(row['expected']):>10} ± {row['expected_sd']:.2g}"
            f" {row['runs']:>3} {row['repeat_pays']:>6.2f}{_idea(row)}"
            for row in rows
        ],
    )
    lines += _section(
        "Lineages: true value to expect, true gain since the baseline, steps",
        [f"{row['id'][:12]} {number(row['mean'])} {signed(row['gained']):>10} {row['steps']:>3}{_idea(row)}"
         for row in lines_of_descent],
    )  # fmt: skip
    lines += _section(
        "Failures that repeat: times, kind",
        [f"{row['times']:>3} {row['kind']} {row['id'][:12]} | {one_line(row['summary'])}" for row in clusters],
    )
    answer(args, found, "\n".join(lines))


def _idea(row: dict[str, Any]) -> str:
    return f" | {one_line(row['hypothesis'] or 'no hypothesis', 80)}"


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


@command(TRACK, LIMIT)
def cmd_findings(args: Arguments) -> None:
    """List what was found out: confirmed, likely, unclear or refuted, and where else it holds"""
    with Index(args.knowledge_dir) as index:
        track = facts.main_track(index, args.track)
        found = findings(index, track, args.limit)
        across = transfer(index)[: args.limit]
    if not found and not across:
        answer(args, {"findings": [], "transfer": []}, f"Track | {one_line(track)}\nno finding yet: no edit was kept"
               if track else nothing_in(args))  # fmt: skip
        return
    lines = [f"Track | {one_line(track)}", DATA_NOTE]
    for standing in STANDINGS:
        mine = [finding for finding in found if finding.standing == standing]
        lines += _section(
            f"{standing.capitalize()}: P that it helps, gain to expect, fresh runs", list(map(_told, mine))
        )
    lines += _section("On several tracks: P that it helps, mean share of the metric", list(map(_pooled, across)))
    value = {"findings": [one._asdict() for one in found], "transfer": [one._asdict() for one in across]}
    answer(args, value, "\n".join(lines))


def _told(finding: Finding) -> str:
    more = ", too small to settle" if finding.repeats is None else f", {finding.repeats} more" * (finding.repeats > 0)
    return (
        f"{finding.card[:12]} {finding.probability:.2f} {signed(finding.expected):>10} ± {finding.sd:.2g}, "
        f"{finding.fresh} fresh{more} | {one_line(finding.change, 80)}"
    )


def _pooled(one: Pooled) -> str:
    return (
        f"{one.probability:.2f} {one.effect:+.3%} ± {one.sd:.2%}, holds on {one.holds} of {one.tried} kinds of hardware"
        f" ({one.tracks} tracks) | {one_line(one.change, 80)}"
    )
