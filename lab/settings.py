"""What an experiment is, in this project: metric, direction, command and files, from `[tool.autoresearch]`.

    root = project_root(Path.cwd()) or Path.cwd()
    load_settings(root).metric

The section stands in pyproject.toml under a header line of its own; what it leaves out has the default of the GPT
loop. Not covered: settings of one run, which are environment variables, and whether the files named exist.
"""

import math
import os
import re
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from lab.errors import SettingError
from lab.schema import TYPES, is_number

DEFAULT_BUDGET_SECONDS = 300.0  # prepare.py's, which nothing here may load
_HEADER = rb"(?m)^[ \t]*\[[ \t]*tool[ \t]*\.[ \t]*autoresearch[ \t]*\]"


class Settings(NamedTuple):
    """`[tool.autoresearch]`: `command` runs one experiment in the project's folder, paths are relative to it.

    `direction` says whether the smaller ("min") or the larger ("max") value of `metric` is the better one. A name in
    `editable` or `frozen` may be a folder. `knowledge_branch` is where `commons.py sync` shares the records.

    What follows `knowledge_branch` decides what a result means (docs/judgement.md), and from `recent_runs` on what is
    tried next (`lab/strategy.py`); `ALLOWED` has a word on each.
    """

    metric: str = "val_bpb"
    direction: str = "min"
    command: str = "uv run train.py"
    editable: tuple[str, ...] = ("train.py",)
    frozen: tuple[str, ...] = ("prepare.py", "platform_utils.py", "evaluate.py", "lab")
    second_look: str = ""
    embedder: str = ""
    knowledge_branch: str = "commons"
    noise: float = 0.0
    confirm_probability: float = 0.99
    confirm_repeats: int = 2
    likely_probability: float = 0.9
    refute_probability: float = 0.05
    revert_probability: float = 0.1
    repeat_worth: float = 1.0
    same_error: int = 3
    sentinel_every: int = 25
    price_per_hour: float = 0.0
    recent_runs: int = 10
    crash_rate: float = 0.5
    keep_rate: float = 0.3
    plateau_runs: int = 10
    near_miss: float = 0.0


def load_settings(folder: Path) -> Settings:
    """The settings of the project in `folder`; the defaults where it has no pyproject.toml or no such section.

    SettingError when the file cannot be read or parsed, a setting is unknown, or its value is not allowed.
    """
    path = folder / "pyproject.toml"
    section = _section(path)
    if strange := [name for name in section if name not in Settings._fields]:
        names = ", ".join(Settings._fields)
        raise SettingError(f"{path}: [tool.autoresearch] has no setting {strange[0]!r}; the settings are {names}")
    for name, value in section.items():
        accepts, words, _ = ALLOWED[name]
        if not accepts(value):
            raise SettingError(f"{path}: [tool.autoresearch] {name} = {value!r} is not allowed; it must be {words}")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in section.items()}
    return Settings(**values)


def time_budget() -> float:
    """The seconds that a run trains for. SettingError where AUTORESEARCH_TIME_BUDGET is no number above 0."""
    given = os.environ.get("AUTORESEARCH_TIME_BUDGET") or str(DEFAULT_BUDGET_SECONDS)
    try:
        budget = float(given)
    except ValueError:
        budget = 0.0
    if not 0 < budget < math.inf:
        raise SettingError(f"AUTORESEARCH_TIME_BUDGET={given!r} is not a number of seconds above 0")
    return budget


def is_among(path: str, named: Iterable[str]) -> bool:
    """Whether a path is one of those named, or lies in a folder that is named."""
    return any(path == name or path.startswith(f"{name}/") for name in named)


def judging(knowledge: Path) -> Settings:
    """What the results of a commons mean and what to do next: the settings of the project around it, or this folder's.

    Nothing is parsed where the project leaves them at their defaults: that costs more than a command has to spare.
    """
    root = project_root(knowledge) or project_root(Path())
    if root is None or not any(name.encode() in (root / "pyproject.toml").read_bytes() for name in JUDGING + DIRECTING):
        return Settings()
    return load_settings(root)


def project_root(start: Path) -> Path | None:
    """The nearest folder from `start` upward whose pyproject.toml has the line `[tool.autoresearch]`; None if none.

    Cheap, because nothing is parsed. A pyproject.toml that cannot be read is passed over.
    """
    absolute = start.absolute()
    return next((folder for folder in (absolute, *absolute.parents) if _has_section(folder / "pyproject.toml")), None)


def _has_section(path: Path) -> bool:
    try:
        return re.search(_HEADER, path.read_bytes()) is not None
    except OSError:
        return False


def _section(path: Path) -> dict[str, Any]:
    """`[tool.autoresearch]` as it stands in the file, {} when there is none."""
    # Before 3.11 it is a package. Either costs 14 ms to import, more than a command needs to start.
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        holder: Any = toml.loads(path.read_bytes().decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingError(f"cannot read {path}: {error.strerror}; make it a file you may read") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or brackets nested by the thousand
        raise SettingError(f"{path} is not TOML ({' '.join(str(error).split())}); mend it") from error
    for key, name in (("tool", "[tool]"), ("autoresearch", "[tool.autoresearch]")):
        holder = holder.get(key, {})
        if not isinstance(holder, dict):
            raise SettingError(f"{path}: {name} is {holder!r}; it must be a table of settings")
    section: dict[str, Any] = holder
    return section


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _are_paths(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and _stays_below(item) for item in value)


def _stays_below(path: str) -> bool:
    """Whether the path is relative, stays below its folder and is spelt as git prints it."""
    return not {"", ".", ".."} & set(path.split("/")) and re.search(r"[\\:\x00-\x1f\x7f]", path) is None


_SHARE = lambda value: is_number(value) and 0 < value < 1, "a number between 0 and 1"
_AMOUNT = lambda value: is_number(value) and value >= 0, "a number, 0 or more"
_COUNT = lambda value: type(value) is int and value >= 1, "a whole number, 1 or more"
_WHOLE = lambda value: type(value) is int and value >= 0, "a whole number, 0 or more"
_PATHS = _are_paths, 'a list of paths below this folder, such as ["train.py", "lab"], without .. or a / at an end'
# What each setting accepts, the words for that, and what the setting is for.
ALLOWED: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "metric": (*TYPES["metric"][:2], "what is measured"),
    "direction": (*TYPES["direction"][:2], "which values of it are better"),
    "command": (
        _matches(r"[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*"), "a command on one line",
        "runs one experiment",
    ),
    "editable": (*_PATHS, "what agents may edit"),
    "frozen": (*_PATHS, "what nobody may edit"),
    "second_look": (
        _matches(r"[^\x00-\x1f\x7f]*"), "empty, or a command on one line",
        "evaluates a kept run again: gets its folder, prints JSON (docs/metric.md)",
    ),
    "embedder": (
        _matches(r"|[A-Za-z_][\w.]*:[A-Za-z_]\w*"), 'empty, or a function such as "my_module:embed"',
        "makes vectors of texts, to rank ideas of equal structure by",
    ),
    # A name that starts with - would be an option of git.
    "knowledge_branch": (
        _matches(r"(?!-)(?!.*\.\.)[^\s~^:?*\[\\\x00-\x1f\x7f]+"), "the name of a git branch",
        "where sync shares records",
    ),
    "noise": (*_AMOUNT, "noise to expect between runs, as a share of the metric; 0: what the preset is known for"),
    "confirm_probability": (*_SHARE, "a finding is confirmed when runs with new seeds make a gain this probable"),
    "confirm_repeats": (*_COUNT, "and there are so many of them"),
    "likely_probability": (*_SHARE, "a finding is likely when all its runs make a gain this probable"),
    "refute_probability": (*_SHARE, "a finding is refuted when runs with new seeds leave a gain at most this probable"),
    "revert_probability": (*_SHARE, "revert where a gain is at most this probable, else inconclusive"),
    "repeat_worth": (*_AMOUNT, "repeat a run first where that promises so many times what a new idea does"),
    "same_error": (*_COUNT, "crashes alike, or suspect runs in a row, after which `director.py run` ends"),
    "sentinel_every": (*_WHOLE, "experiments on a machine before `worker.py sentinel` repeats the champion; 0: never"),
    "price_per_hour": (*_AMOUNT, "of the device, in any currency, for the report and for `--budget-usd`; 0: unknown"),
    "recent_runs": (*_COUNT, "the newest so many new ideas make the rates of crashes and of kept ones"),
    "crash_rate": (*_SHARE, "exploit, with small steps, when more of them crash"),
    "keep_rate": (*_SHARE, "exploit when more of them are kept"),
    "plateau_runs": (*_COUNT, "new ideas in a row without a gain are a plateau: combine near misses, or ablate"),
    "near_miss": (
        *_AMOUNT, "how far from the champion a near miss is, in the metric; 0: as far as noise reaches, or 0.002 "
        "where that is unknown",
    ),
}  # fmt: skip
_FIRST = Settings._fields.index("knowledge_branch") + 1, Settings._fields.index("recent_runs")
JUDGING, DIRECTING = Settings._fields[_FIRST[0] : _FIRST[1]], Settings._fields[_FIRST[1] :]
