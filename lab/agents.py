"""Who makes an edit: any command line, told the task by a prompt, in a checkout that nobody else uses.

    files, spent = ask_agent("claude -p {prompt}", item, brief, project, knowledge, commit, runs / run)

What it may edit is the project's setting; whatever else it changes is refused. Only the contents of these files are
taken: its commits, its index and what it leaves in ignored places take no part in the run. What it cost is known where
it prints that as JSON, as coding agents do when they are asked to.
Not covered: an agent that reaches outside of its checkout.
"""

import json
import shlex
from pathlib import Path
from typing import Any

from lab.brief import DATA_NOTE, one_line
from lab.checkouts import checkout
from lab.errors import LabError, SettingError, StoreError
from lab.git import repository_path, run_git
from lab.items import Item
from lab.runner import OvertimeError, environment, run_group
from lab.schema import is_number
from lab.settings import Settings, is_among, load_settings
from lab.store import replace

AGENT_SECONDS = 1800.0
MAX_NAMES = 5  # of files, in a message
MAX_FILE_BYTES = 1 << 20  # to find out what a larger script does takes gigabytes
MAX_IDEA_CHARACTERS = 2000
TAIL_BYTES = 1 << 20  # of an agent's output, to look for its cost in
NOTES = ".autoresearch"  # the folder for the agent to read from; it holds a .gitignore that hides it from git


class RefusedError(LabError):
    """What an item of the queue asks for cannot be run; to try again would change nothing."""


class AgentError(LabError):
    """The agent's command failed, by its exit code or at its time limit."""


def task_of(item: Item, settings: Settings, folder: Path) -> str:
    """The prompt for an item that is to be worked on in this folder: the task, what may be done, where to read on."""
    better = "smaller" if settings.direction == "min" else "larger"
    about = {"category": item.get("category"), "why": item.get("why")}
    lines = [
        "You are the worker for one experiment. This folder is a checkout of your own.",
        *(["Read worker.md here before anything else."] if (folder / "worker.md").is_file() else []),
        "",
        "Make the edit that this idea asks for, and nothing else.",
        DATA_NOTE,
        f"  | {one_line(item['description'], MAX_IDEA_CHARACTERS)}",
        *(f"  {name} | {one_line(value, MAX_IDEA_CHARACTERS)}" for name, value in about.items() if value),
        "",
        f"- The metric is {settings.metric}; {better} is better.",
        f"- Edit only {', '.join(settings.editable)}. With any other change, or a new file, the edit is not run.",
        "- Do not run the experiment and do not commit: both are done for you, and the result is recorded.",
        f"- What earlier experiments found: {NOTES}/brief.md (also named by $AUTORESEARCH_BRIEF).",
        "- Where the idea cannot be carried out, change nothing and say why.",
    ]
    return "\n".join(lines) + "\n"


def ask_agent(
    agent: str, item: Item, brief: str, project: Path, knowledge: Path, commit: str, run_folder: Path
) -> tuple[dict[str, bytes], dict[str, float]]:
    """The files that the agent has changed in a checkout of the commit, {path from the project's folder: content}.

    And what it says that it has `spent`. `agent` is a command line; {prompt} in it stands for the task, which otherwise
    comes on standard input. What it prints goes to agent.log in the run's folder. AgentError where it fails,
    RefusedError where it has changed what it may not, SettingError where it cannot be started.
    """
    settings, log = load_settings(project), run_folder / "agent.log"
    with checkout(project, commit, run_folder.name) as (folder, lock):
        notes = folder / NOTES
        task = task_of(item, settings, folder)
        written = {run_folder / "task.md": task, notes / ".gitignore": "*\n", notes / "brief.md": brief + "\n"}
        for path, text in written.items():
            replace(path, text.encode("utf-8", "replace"))
        command = [word.replace("{prompt}", task) for word in command_of(agent)]
        given = None if "{prompt}" in agent else run_folder / "task.md"
        whose = {"AUTORESEARCH_BRIEF": str(notes / "brief.md"), "AUTORESEARCH_FOR_RUN": run_folder.name}
        told = environment(project, knowledge, whose)
        try:
            code = run_group(command, folder, told, log, given=given, limit=AGENT_SECONDS, held=(lock,))
        except OvertimeError as error:
            raise AgentError(f"the agent failed: {error}; {log} has what it said") from error
        if code:
            raise AgentError(f"the agent failed with exit code {code}; {log} has what it said")
        return _changed(folder, commit, settings, run_folder.name), spent(log)


def spent(log: Path) -> dict[str, float]:
    """What the last JSON object in an agent's output says of its cost: `agent_usd` and `agent_tokens`, where told.

    Understood are the members total_cost_usd or cost_usd, and usage with counts whose names end in tokens.
    """
    with open(log, "rb") as file:
        file.seek(max(log.stat().st_size - TAIL_BYTES, 0))
        text = file.read().decode("utf-8", "replace")
    said = next((found for line in reversed(text.splitlines()) if (found := _object(line))), None) or _object(text)
    if said is None:
        return {}
    usd = next((said[name] for name in ("total_cost_usd", "cost_usd") if is_number(said.get(name))), None)
    usage = said["usage"] if isinstance(said.get("usage"), dict) else {}
    counts = [count for name, count in usage.items() if name.endswith("tokens") and is_number(count) and count >= 0]
    told = {"agent_usd": usd if usd is None or usd >= 0 else None, "agent_tokens": sum(counts) if counts else None}
    return {name: value for name, value in told.items() if value is not None}


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, None where it is none."""
    try:
        found = json.loads(text) if text.strip().startswith("{") else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def command_of(agent: str) -> list[str]:
    """The words of an agent's command line. SettingError where it has none, or a quote that does not end."""
    try:
        words = shlex.split(agent)
    except ValueError as error:
        raise SettingError(f"--agent {agent!r} is no command line ({error}); mend its quotes") from error
    if not words:
        raise SettingError('--agent is empty; give a command such as "claude -p {prompt}", or hpo')
    return words


def _changed(folder: Path, commit: str, settings: Settings, run: str) -> dict[str, bytes]:
    """The files in a checkout's folder of the project that differ from the commit. RefusedError where one may not."""
    found = repository_path(folder, folder)
    if found is None or found[0].name != run:  # without one of its own, git takes the repository around it
        raise RefusedError("the agent took the checkout out of git: what it changed cannot be told")
    top, below = found
    try:
        tracked = run_git(top, "diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", commit)
        new = run_git(top, "ls-files", "--others", "--exclude-standard", "-z")
    except StoreError as error:
        raise RefusedError(f"what the agent changed cannot be told: {error}") from error
    names = sorted({name.decode("utf-8", "replace") for name in (tracked + new).split(b"\0") if name})
    allowed = [below + name for name in settings.editable]
    forbidden = [name for name in names if not is_among(name, allowed)]
    if forbidden:
        more = f" and {len(forbidden) - MAX_NAMES} more" if len(forbidden) > MAX_NAMES else ""
        listed = ", ".join(one_line(name) for name in forbidden[:MAX_NAMES]) + more
        raise RefusedError(f"the agent changed {listed}; only {', '.join(settings.editable)} may be edited")
    if gone := [name for name in names if (top / name).is_symlink() or not (top / name).is_file()]:
        raise RefusedError(f"the agent removed {one_line(gone[0])}, or left no plain file there; edit it in place")
    if large := [name for name in names if (top / name).stat().st_size > MAX_FILE_BYTES]:
        raise RefusedError(
            f"the agent left more than {MAX_FILE_BYTES >> 20} MiB in {one_line(large[0])}; keep it small"
        )
    return {name.removeprefix(below): (top / name).read_bytes() for name in names}
