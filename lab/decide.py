"""The decision packet: what a run means against the champion of its track, and what to do about it. Pure.

    decided = decide(values, belief, best, settings)       # status, decision, results with delta, config_diff
    packet(card)                                           # the same in at most fifteen lines

Advance optimistically, publish sceptically: a run is kept when a true gain is to be expected, however small; whether
it is a finding is told by runs with other seeds (`lab/findings.py`). Where another run of the same promises more than
a new idea does, that comes first. Thresholds are settings (`lab/settings.py`).
Not covered: where the belief comes from (`lab/judgement.py`).
"""

import math
from typing import Any

from lab.belief import Belief, Verdict
from lab.brief import number, one_line, signed
from lab.findings import repeats_needed
from lab.schema import Card, finite, metric_value
from lab.settings import Settings
from lab.stats import gain

# What to do about a crash, by the kind of error: (action, git action).
CRASHES = {
    "interrupted": ("retry", "keep_commit"),
    "killed": ("investigate_crash", "keep_commit"),
    "data": ("investigate_crash", "keep_commit"),
    "device": ("investigate_crash", "keep_commit"),
    "disk": ("investigate_crash", "keep_commit"),
    "timeout": ("fix_and_retry", "git_reset"),
    "oom": ("fix_and_retry", "git_reset"),
    "diverged": ("fix_and_retry", "git_reset"),
    "setting": ("fix_and_retry", "git_reset"),
    "exception": ("fix_and_retry", "git_reset"),
}
SURPRISE = 3.0  # standard deviations
PRIORITIES = {
    "investigate_crash": 1, "promote": 1, "retry": 2, "replicate": 3, "branch_followup": 4, "fix_and_retry": 4,
    "abandon": 9,
}  # fmt: skip
DOING = {
    "promote": "go on from this commit",
    "branch_followup": "it helps what it was edited from, not the champion: combine it with the champion",
    "replicate": "run it once more with another seed before anything else: that promises more than a new idea",
    "retry": "run it again, nothing speaks against the idea",
    "abandon": "try something else",
    "fix_and_retry": "mend the cause if the idea is worth it, then run it again",
    "investigate_crash": "find out what happened before more time goes into it",
}


def decide(
    values: Card, belief: Belief | None, best: Card | None, settings: Settings, known: bool = True, same_error: int = 0
) -> Card:
    """What a run's card says beyond its facts: status, decision, config_diff and the results with their delta.

    `values` has the results, metric and direction and, as far as they are known, the other fields of a card. `belief`
    is of its track before this run and `best` the card of the champion, None when there is none; `known` is False when
    the commons cannot be read. `same_error` counts earlier crashes that said the same.
    """
    metric = values.get("metric") or "val_bpb"
    results = values["results"]
    value = metric_value(values)
    base = {"champion": best["id"] if best else None}
    if belief:
        base |= {"noise": belief.noise.sd, "noise_basis": belief.noise.basis}
        if belief.champion:
            mean, sd = belief.value(belief.champion)
            base |= {"champion_mean": _rounded(mean), "champion_sd": _rounded(sd)}
    best_value = finite(best["results"].get(metric)) if best else None
    delta = None if value is None or best_value is None else finite(value - best_value)
    stderr = belief.noise.sd * math.sqrt(2) if belief and belief.noise.sd and delta is not None else None
    if value is None:
        found = _crash(values.get("error"), same_error, settings)
    elif not known:
        found = _told("inconclusive", "the commons could not be read: compared with nothing", "replicate")
    elif values.get("track") is None:
        found = _told("inconclusive", "the run names no track to compare it on", "replicate")
    elif best is None:
        found = _told("keep", "first result of its track: the baseline", "promote")
    elif belief is None or belief.champion is None:
        found = _told("inconclusive", "nothing tells how large the noise of this track is", "replicate")
    else:
        found = _judged(values, value, belief, settings)
    return {
        "status": found["status"],
        "results": results | {"delta": delta, "delta_stderr": results.get("delta_stderr") or stderr},
        "decision": found | base,
        "config_diff": config_diff(best["config"], values.get("config")) if best else {},
    }


def _told(status: str, reason: str, action: str, git: str | None = None, **more: Any) -> Card:
    git = git or ("keep_commit" if status == "keep" else "git_reset")
    return {"status": status, "reason": reason, "action": action, "priority": PRIORITIES[action], "git": git} | more


def _crash(error: Card | None, same_error: int, settings: Settings) -> Card:
    kind = (error or {}).get("kind") or "exception"
    action, git = CRASHES.get(kind, CRASHES["exception"])
    if same_error + 1 >= settings.same_error:
        return _told("crash", f"crashed alike {same_error + 1} times: {kind}", "investigate_crash", "git_reset")
    return _told("crash", f"crashed: {kind}", action, git)


def _judged(values: Card, value: float, belief: Belief, settings: Settings) -> Card:
    """The verdict for a result that can be compared."""
    names = ("id", "edit_key", "train_sha256", "parent_commit", "seed")
    row = {name: values.get(name) for name in names} | {"commit_id": values.get("commit")}
    row["machine"] = (values.get("platform") or {}).get("machine")
    node, parent = belief.place(row)
    verdict = belief.verdict(value, parent, node, row)
    if verdict is None or belief.champion is None:  # None where the run repeats the champion
        mean, sd = belief.value(belief.champion or "")
        away = abs(value - mean) / math.hypot(belief.noise.sd or 0.0, sd)
        words = f"a repeat of the champion, {away:.1f} standard deviations from where it is believed to be"
        if away > SURPRISE:
            return _told(
                "keep", f"{words}: more noise than assumed, or the machine drifted", "replicate", parent=parent
            )
        return _told("keep", words, "promote", parent=parent)
    start = f", edited from {'the champion' if parent == belief.champion else 'an older champion'}" if not node else ""
    words = (
        f"P {verdict.better:.2f} of a true gain, {signed(_rounded(verdict.expected))} to expect "
        f"(±{_rounded(verdict.sd):.2g}){start}{f', run {len(node.runs) + 1} of it' if node else ''}"
    )
    status, action, why = _ruled(verdict, belief, parent, settings, value, node is not None)
    mother = belief.nodes[parent if parent in belief.nodes else belief.champion].variance
    repeats = repeats_needed(belief, mother, verdict.expected, settings) if status == "keep" else None
    return _told(
        status, f"{why}: {words}", action, parent=parent, repeats=repeats, probability=round(verdict.better, 4),
        same=round(verdict.same, 4), expected=_rounded(verdict.expected), expected_sd=_rounded(verdict.sd),
    )  # fmt: skip


def _ruled(
    verdict: Verdict, belief: Belief, parent: str | None, settings: Settings, value: float, again: bool
) -> tuple[str, str, str]:
    """(status, action, why) of a verdict."""
    worth = verdict.repeat_pays > settings.repeat_worth
    if gain(verdict.expected, belief.direction) > 0:
        return "keep", "replicate" if worth else "promote", "a gain is to be expected"
    if worth:
        return "inconclusive", "replicate", "no gain is to be expected, but one more run may show one"
    if parent != belief.champion and parent in belief.nodes and not again:
        mean, _ = belief.value(parent)
        if belief.inside(value) < belief.inside(mean):
            return "inconclusive", "branch_followup", "better than what it was edited from, not than the champion"
    if verdict.better <= settings.revert_probability:
        return "revert", "abandon", "no gain"
    return "inconclusive", "abandon", "too little to tell from noise"


def _rounded(value: float) -> float:
    """Six significant digits: more would only pretend."""
    return float(f"{value:.6g}")


def config_diff(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, list[Any]] | None:
    """{name: [old, new]} of what differs between two configurations; None when one of them is unknown."""
    if old is None or new is None:
        return None
    names = [*new, *(name for name in old if name not in new)]
    return {name: [old.get(name), new.get(name)] for name in names if old.get(name) != new.get(name)}


def _has(decision: Card, *names: str) -> bool:
    """Whether all of these are known: another version, or a hand, may have left some out."""
    return all(decision.get(name) is not None for name in names)


def packet(card: Card) -> list[str]:
    """The decision of a card in at most fifteen lines, for an agent's context; what is unknown is left out."""
    decision, results, error = card["decision"] or {}, card["results"], card["error"]
    value, metric = metric_value(card), one_line(card["metric"], 30)
    lines = [f"card {card['id']}: {card['status']}"]
    if card["hypothesis"]:
        lines.append(f"  idea       | {one_line(card['hypothesis'])}")
    if error:
        lines.append(f"  error      | {one_line(error['kind'])}: {one_line(error['summary'])}")
    if value is not None:
        against = f", {signed(results['delta'])} against the champion" if results["delta"] is not None else ""
        lines.append(f"  result     {metric} {number(value)}{against}")
    if _has(decision, "champion", "champion_mean", "champion_sd"):
        mean, sd = decision["champion_mean"], decision["champion_sd"]
        lines.append(f"  champion   {decision['champion'][:12]}, truly about {number(mean)} ± {sd:.2g}")
    if _has(decision, "probability", "same", "expected", "expected_sd"):
        lines.append(
            f"  chances    {decision['probability']:.2f} better, {decision['same']:.2f} no effect; "
            f"{signed(decision['expected'])} ± {decision['expected_sd']:.2g} to expect"
        )
    if _has(decision, "noise", "noise_basis"):
        lines.append(f"  noise      {decision['noise']:.2g} between runs, {one_line(decision['noise_basis'], 80)}")
    if decision:
        lines.append(f"  verdict    {decision['status']}: {one_line(decision['reason'], 160)}")
    if _has(decision, "action", "priority", "git"):
        action = decision["action"]
        lines.append(f"  do         {action} (priority {decision['priority']}), {decision['git']}: {DOING[action]}")
    if decision.get("repeats") is not None:
        lines.append(f"  to settle  {decision['repeats']} runs with other seeds would confirm or refute it")
    return lines
