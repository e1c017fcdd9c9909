"""An audit in words: one screen for a terminal, Markdown with every keep for a report. Pure.

    audit_text(found), audit_markdown(found)       # `found` as `commons.py audit --json` prints it

What agents wrote comes last in a line of the screen, after a |, and escaped in the Markdown. Not covered: how it was
found (`lab/audit.py`), the picture (`lab/audit_plot.py`).
"""

from collections.abc import Sequence
from typing import Any

from lab.audit import NOISE, STANDINGS, SUPPORTED
from lab.brief import DATA_NOTE, counted, escaped, one_line, signed
from lab.confirming import ENOUGH, FALSE, MAX_RUNS, TRUE

PICTURE = "progress.png"
MAX_KEEPS, MAX_GROUPS, MAX_STEPS, MAX_BAD, MAX_PAIRS = 3, 4, 6, 3, 2  # lines of a list on the screen
LUCKY = 0.25  # standard deviations below which no keep was lucky
TITLES = {
    "supported": f"supported: P >= {SUPPORTED:g} that it truly improved on what it was edited from",
    "doubtful": f"doubtful: P from {NOISE:g} to {SUPPORTED:g}",
    "noise": f"indistinguishable from noise: P < {NOISE:g}, more likely nothing or harm",
}

Row = dict[str, Any]


def audit_text(found: Row) -> str:
    """The audit in about 45 lines, whatever the size of the ledger."""
    lines = [f"Audit of | {one_line(found['file'])}", DATA_NOTE, *_counts(found), *_bad(found), ""]
    if not found["compared"]:
        return "\n".join([*lines, NO_RESULT])
    lines += [_noise(found), *(f"  {line}" for line in _looks(found, one_line, " | ")[: MAX_PAIRS + 2])]
    lines += [_total(found), _standings(found), *(f"  {line}" for line in _ends(found))]
    lines += ["", f"  {'line':>6}{'claimed':>12}{'expected':>12}     P"] * any(found["standings"].values())
    for standing in STANDINGS:
        keeps = [keep for keep in found["keeps"] if keep["standing"] == standing]
        if keeps:
            lines.append(f"{len(keeps)} {TITLES[standing]}")
            lines += _cut([_keep(keep) for keep in sorted(keeps, key=_largest)], MAX_KEEPS, "in the report: --out")
    lines += [*_luckiest(found, one_line, " | "), *_plan(found)]
    groups = found["repeated"]
    if groups:
        lines += ["", f"Tried more than once: {len(groups)} ideas, with the difference to the best of that time"]
        lines += _cut([_group(group) for group in groups], MAX_GROUPS, "in the report: --out")
    return "\n".join(lines)


NO_RESULT = "No row has a result: noise, improvement and keeps are unknown."


def audit_markdown(found: Row, picture: bool = True) -> str:
    """The audit as a report, with every keep, repeat and bad row, and where there is one the picture PICTURE."""
    lines = [f"# Audit of {escaped(found['file'])}", "", " ".join(_counts(found)), ""]
    if not found["compared"]:
        return "\n".join([*lines, NO_RESULT, *_bad_table(found)]) + "\n"
    lines += [f"**{_total(found)}**", "", _standings(found), "", *[f"![{ALT}]({PICTURE})"] * picture]
    lines += ["", "## Noise", "", _noise(found), "", *(f"- {line}" for line in _looks(found, escaped, ": "))]
    lines += [f"- {line}" for line in _ends(found)]
    lines += ["", "## Keeps", "", KEEPS, *(line.strip() for line in _luckiest(found, escaped, ": ")), ""]
    lines += ["| line | claimed | expected | P | luck | | |", "|---:|---:|---:|---:|---:|---|---|"]
    for keep in found["keeps"]:
        cells = (keep["line"], signed(keep["claimed"]), signed(keep["expected"]), _share(keep["probability"]))
        luck = "-" if keep["luck"] is None else f"{keep['luck']:+.1f}"
        last = (luck, keep["standing"] or "unknown", escaped(keep["idea"] or "no description"))
        lines.append("| " + " | ".join(map(str, (*cells, *last))) + " |")
    plan = [line.strip() for line in _plan(found, len(found["keeps"]))[1:]]
    lines += ["", "## Confirming runs", "", *plan[:1], "", *(f"- {line}" for line in plan[1:])]
    if found["repeated"]:
        lines += ["", "## Tried more than once", "", "With the difference to the best kept result of that time.", ""]
        lines += ["| line | | difference | |", "|---:|---|---:|---|"]
        for group in found["repeated"]:
            lines += [
                f"| {row['line']} | {row['status']} | {signed(row['delta'])} | {escaped(row['idea'])} |"
                for row in group
            ]
    return "\n".join([*lines, *_bad_table(found)]) + "\n"


ALT = "the best kept result as claimed, and as believed after all runs with its 95% band"
KEEPS = (
    "Claimed is the difference of two single runs, of which the better one was picked. Expected is the true difference "
    "to expect from all runs, P the probability that it is an improvement, luck what is claimed too much, in standard "
    "deviations between two runs."
)


def _counts(found: Row) -> list[str]:
    better = "lower" if found["direction"] == "min" else "higher"
    counts = ", ".join(f"{count} {status}" for status, count in found["runs"].items())
    runs = counted(sum(found["runs"].values()), "run") + (f": {counts}" if counts else "")
    lines = [f"{one_line(found['metric'], 64)}, {better} is better; {runs}."]
    return lines + [f"Read so: {one_line('; '.join(found['said']), 220)}."] * bool(found["said"])


def _bad(found: Row) -> list[str]:
    bad = found["bad"]
    if not bad:
        return []
    told = [f"  line {row['line']} | {one_line(row['reason'], 120)}" for row in bad]
    left = f"{counted(len(bad), 'row')} cannot be read and {'is' if len(bad) == 1 else 'are'} left out"
    return [left, *_cut(told, MAX_BAD)]


def _bad_table(found: Row) -> list[str]:
    if not found["bad"]:
        return []
    rows = [f"- line {row['line']}: {escaped(row['reason'], 200)}" for row in found["bad"]]
    return ["", "## Rows left out", "", *rows]


def _noise(found: Row) -> str:
    noise = found["noise"]
    if noise["sd"] is None:
        remedy = "repeat the best configuration three times, or give --sigma"
        return f"Noise between repeats: unknown, {noise['basis']}; {remedy}."
    low, high = noise["low"], noise["high"]
    interval = "" if high is None else f", at most {high:.2g}" if not low else f" (95%: {low:.2g} to {high:.2g})"
    return f"Noise between repeats: {noise['sd']:.2g}{interval}, {noise['basis']}."


def _looks(found: Row, told: Any, mark: str) -> list[str]:
    """What the looks at the noise say by themselves."""
    again, late = found["noise"]["repeats"], found["noise"]["late"]
    lines = []
    if again["sd"] is not None and again["high"] is None:
        lines.append(f"{counted(again['behind'], 'repeat')}: equal results")
    elif again["sd"] is not None:
        lines.append(
            f"{counted(again['behind'], 'repeat')}: {again['sd']:.2g} (95%: {again['low']:.2g} to {again['high']:.2g})"
        )
    if late["high"] is not None:
        lines.append(f"the scatter of {late['behind']} late runs: at most {late['high']:.2g}, as real effects widen it")
    for pair in found["noise"]["pairs"]:
        first, second = pair["lines"]
        lines.append(f"line {second} repeats {first}: {signed(pair['apart'])}{mark}{told(pair['idea'] or pair['why'])}")
    return lines


def _total(found: Row) -> str:
    total = found["total"]
    if total is None:
        return "Improvement: unknown, no result was kept."
    where = f"Improvement from line {total['from']} to {total['to']}"
    if total["from"] == total["to"]:
        return f"Improvement: none was claimed; no kept result is better than line {total['from']}."
    if total["expected"] is None:
        return f"{where}: {signed(total['claimed'])} claimed, truly unknown."
    interval = f"95%: {signed(total['low'])} to {signed(total['high'])}"
    return f"{where}: claimed {signed(total['claimed'])}, truly about {signed(total['expected'])} ({interval})."


def _standings(found: Row) -> str:
    keeps = found["keeps"]
    if not keeps:
        return "Keeps: none after the first."
    if not found["standings"]:
        return f"Keeps: {len(keeps)}; without the noise none can be told from it."
    return f"Of {counted(len(keeps), 'keep')}, {_stand(found['standings'])}."


def _stand(standings: Row) -> str:
    return f"{standings['supported']} supported, {standings['doubtful']} doubtful, {standings['noise']} within noise"


def _ends(found: Row) -> list[str]:
    noise = found["noise"]
    ends = [(end, counts) for end, counts in found["if_noise_is"].items() if counts]
    told = "; ".join(f"{noise[end]:.2g}: {_stand(counts)}" for end, counts in ends)
    return [f"were the noise {told}"] if told else []


def _largest(keep: Row) -> float:
    return -abs(float(keep["claimed"] or 0.0))


def _keep(keep: Row) -> str:
    values = f"{signed(keep['claimed']):>12}{signed(keep['expected']):>12}{_share(keep['probability']):>6}"
    return f"  {keep['line']:>6}{values} | {one_line(keep['idea'] or 'no description', 60)}"


def _share(probability: float | None) -> str:
    """A probability in two decimals: cut and not rounded, so that it stays on its side of a limit; never certain."""
    return "-" if probability is None else f"{min(max(int(probability * 100), 1), 99) / 100:.2f}"


def _luckiest(found: Row, told: Any, mark: str) -> list[str]:
    keep = next((keep for keep in found["keeps"] if keep["line"] == found["luckiest"]), None)
    if keep is None or keep["luck"] < LUCKY:
        return []
    claim = f"claimed {signed(keep['claimed'])}, expected {signed(keep['expected'])}: {keep['luck']:.1f} deviations"
    return ["", f"Luckiest keep: line {keep['line']}, {claim}{mark}{told(keep['idea'] or 'no description')}"]


def _plan(found: Row, most: int = MAX_STEPS) -> list[str]:
    plan = found["plan"]
    if plan is None or not found["keeps"]:
        return []
    settle = f"Repeats that settle keeps (to P >= {TRUE:g} or <= {FALSE:g}, with a chance of {ENOUGH:.0%} or more)"
    lines = ["", f"{settle}: {counted(plan['runs'], 'run') + ' in all' if plan['steps'] else 'none is worth it'}."]
    steps = [
        f"  keep of line {step['line']}: "
        + (" and ".join(f"{count} x line {line}" for line, count in step["repeats"].items()) or "by the repeats above")
        for step in plan["steps"]
    ]
    lines += _cut(steps, most, "in the report: --out")
    left = len(plan["not_worth"])
    rest = f"  {counted(left, 'more keep')} would take over {MAX_RUNS} runs each: new ideas are worth more"
    return [*lines, rest] if left else lines


def _group(group: Sequence[Row]) -> str:
    told = ", ".join(f"{row['line']}: {signed(row['delta'])}" for row in group[:4])
    more = f", and {len(group) - 4} more" if len(group) > 4 else ""
    return f"  {told}{more} | {one_line(group[0]['idea'], 50)}"


def _cut(lines: list[str], most: int, where: str = "") -> list[str]:
    left = len(lines) - most
    return lines if left <= 0 else [*lines[:most], f"  and {left} more" + f" {where}" * bool(where)]
