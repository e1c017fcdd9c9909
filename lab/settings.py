"""What an experiment is, in this project: metric, direction, command and files, from `[tool.autoresearch]`.

    root = project_root(Path.cwd()) or Path.cwd()
    load_settings(root).metric

The section stands in pyproject.toml under a header line of its own; what it leaves out has the default of the GPT
loop. Not covered: settings of one run, which are environment variables, and whether the files named exist.
"""

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from lab.errors import SettingError
from lab.schema import TYPES

_HEADER = rb"(?m)^[ \t]*\[[ \t]*tool[ \t]*\.[ \t]*autoresearch[ \t]*\]"


class Settings(NamedTuple):
    """`[tool.autoresearch]`: `command` runs one experiment in the project's folder, paths are relative to it.

    `direction` says whether the smaller ("min") or the larger ("max") value of `metric` is the better one. A name in
    `editable` or `frozen` may be a folder. `knowledge_branch` is where `commons.py sync` shares the records.
    """

    metric: str = "val_bpb"
    direction: str = "min"
    command: str = "uv run train.py"
    editable: tuple[str, ...] = ("train.py",)
    frozen: tuple[str, ...] = ("prepare.py", "platform_utils.py", "lab")
    knowledge_branch: str = "commons"


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
        accepts, words = ALLOWED[name]
        if not accepts(value):
            raise SettingError(f"{path}: [tool.autoresearch] {name} = {value!r} is not allowed; it must be {words}")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in section.items()}
    return Settings(**values)


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


_PATHS = _are_paths, 'a list of paths below this folder, such as ["train.py", "lab"], without .. or a / at an end'
# What each setting accepts, and the words for it.
ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "metric": TYPES["metric"][:2],
    "direction": TYPES["direction"][:2],
    "command": (_matches(r"[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*"), "a command on one line"),
    "editable": _PATHS,
    "frozen": _PATHS,
    # A name that starts with - would be an option of git.
    "knowledge_branch": (_matches(r"(?!-)(?!.*\.\.)[^\s~^:?*\[\\\x00-\x1f\x7f]+"), "the name of a git branch"),
}
