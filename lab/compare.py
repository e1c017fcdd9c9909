"""Two cards side by side: what differs in their configuration, results and train.py.

    found = compare(card, other, project)
    print(compare_text(found))

The scripts are those in the run folders of this machine, else those of the commits. Not covered: more than two.
"""

import difflib
from pathlib import Path
from typing import Any

from lab.brief import DATA_NOTE, number, one_line, signed
from lab.decide import config_diff
from lab.git import git
from lab.schema import Card, is_number
from lab.settings import load_settings
from lab.store import runs_dir

MAX_DIFF_LINES = 400


def compare(first: Card, second: Card, project: Path) -> dict[str, Any]:
    """The differences of two cards: `config` and `results` {name: [first, second]}, `script` a unified diff.

    null is unknown: a configuration that was not recorded, a script that this machine does not have.
    """
    names = [name for name in first["results"] if name != "loss_curve"]
    results = {name: [first["results"][name], second["results"].get(name)] for name in names}
    old, new = (_script(card, project) for card in (first, second))
    script = None
    if old is not None and new is not None:
        script = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2))[2:]
    return {
        "cards": [first["id"], second["id"]],
        "comparable": first["track"] is not None and first["track"] == second["track"],
        "hypotheses": [first["hypothesis"], second["hypothesis"]],
        "config": config_diff(first["config"], second["config"]),
        "results": {name: pair for name, pair in results.items() if pair[0] != pair[1]},
        "script": script,
    }


def _script(card: Card, project: Path) -> str | None:
    """The editable script as it ran, from the run's folder, else as the commit has it, None where neither is here."""
    name = load_settings(project).editable[0]
    try:
        raw = (runs_dir(project) / str(card["run_id"] or card["id"]) / Path(name).name).read_bytes()
    except OSError:
        answer = git(project, "show", "--end-of-options", f"{card['commit']}:./{name}") if card["commit"] else None
        if answer is None:
            return None
        raw = answer
    return raw.decode("utf-8", "replace")


def compare_text(found: dict[str, Any]) -> str:
    """`compare` for a reader, in plain lines."""
    lines = [f"a {found['cards'][0]}", f"b {found['cards'][1]}", DATA_NOTE, ""]
    if not found["comparable"]:
        lines.append("They ran on different tracks: their results do not compare.")
    lines += [
        f"{side} | {one_line(idea or 'no hypothesis')}" for side, idea in zip("ab", found["hypotheses"], strict=True)
    ]
    config = found["config"]
    lines += ["", "Configuration: " + ("not recorded" if config is None else "the same" if not config else "a -> b")]
    lines += [
        f"  | {one_line(name)}: {one_line(old)} -> {one_line(new)}" for name, (old, new) in (config or {}).items()
    ]
    lines += ["", "Results: a, b, b - a" if found["results"] else "Results: the same"]
    for name, (old, new) in found["results"].items():
        lines.append(f"  {one_line(name, 40):<20}{_value(old):>16}{_value(new):>16}{_change(old, new):>16}")
    script = found["script"]
    lines += ["", "Script: " + ("not on this machine" if script is None else "the same" if not script else "a -> b")]
    lines += [f"  | {one_line(line, 200)}" for line in (script or [])[:MAX_DIFF_LINES]]
    if script and len(script) > MAX_DIFF_LINES:
        lines.append(f"  and {len(script) - MAX_DIFF_LINES} lines more (--json has all)")
    return "\n".join(lines)


def _value(value: Any) -> str:
    return number(value) if is_number(value) else "-" if value is None else one_line(value, 16)


def _change(old: Any, new: Any) -> str:
    return signed(new - old) if is_number(old) and is_number(new) else ""
