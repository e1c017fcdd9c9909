"""What the doors share: a command line of verb-noun commands, errors of one line, JSON on request.

    @command(arg("card", help="its id"))
    def cmd_show(args): ...                           # answers `commons.py show CARD`

    main("commons.py", __doc__, {"show": "lab.cli_read"}, sys.argv[1:])

Only the module and the parser of the command that was asked for are loaded: all of them would cost as much as the
answer.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from lab.brief import one_line
from lab.errors import LabError, SettingError
from lab.settings import project_root
from lab.store import dump_json, knowledge_dir

CHECKOUT = Path(__file__).resolve().parent.parent

HELP_WIDTH = 100
MAX_ERROR_CHARACTERS = 10_000

Arguments = argparse.Namespace
CommandFunction = Callable[[Arguments], Any]


class Command:
    """A function that answers a command: its name, what it takes, and the first line of its docstring as help."""

    def __init__(
        self, function: CommandFunction, arguments: tuple[tuple[tuple[str, ...], dict[str, Any]], ...]
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.name = function.__name__.removeprefix("cmd_").replace("_", "-")
        self.help = (function.__doc__ or "").partition("\n")[0]


def arg(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """One argument of a command, as `argparse.add_argument` takes it."""
    return names, options


def command(*arguments: tuple[tuple[str, ...], dict[str, Any]]) -> Callable[[CommandFunction], Command]:
    """Make a command of a function `cmd_name`: it gets the parsed arguments, prints, and raises LabError."""
    return lambda function: Command(function, arguments)


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, like every error here."""

    def error(self, message: str) -> NoReturn:
        """Print the error and the way to the help; exit code 2."""
        self.exit(2, f"error: {' '.join(message.split())} (see `{self.prog} --help`)\n")


def build_parser(prog: str, chosen: Command) -> argparse.ArgumentParser:
    """The parser of one command."""
    parser = OneLineParser(
        prog=f"{prog} {chosen.name}",
        description=chosen.function.__doc__,
        allow_abbrev=False,
        formatter_class=_formatter,
    )
    for names, options in chosen.arguments:
        parser.add_argument(*names, **options)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--knowledge-dir", type=Path, metavar="DIR", help="the commons (default: $KNOWLEDGE_DIR, else knowledge/)"
    )
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, width=HELP_WIDTH)  # without a width it imports shutil, for every command


def load(commands: dict[str, str], name: str) -> Command:
    """The command of this name from the module that `commands` names for it."""
    found: Command = getattr(import_module(commands[name]), f"cmd_{name.replace('-', '_')}")
    return found


def overview(prog: str, about: str, commands: dict[str, str]) -> str:
    """What `--help` prints: the commands and what each does."""
    lines = [f"usage: {prog} COMMAND [--json] [--knowledge-dir DIR] ...", "", about.partition("\n")[0], ""]
    lines += [f"  {name:<14}{load(commands, name).help}" for name in commands]
    return "\n".join([*lines, "", f"`{prog} COMMAND --help` tells what a command takes."])


def main(prog: str, about: str, commands: dict[str, str], given: list[str]) -> int:
    """Run the command that `given` names, from its module in `commands`; returns the exit code.

    A failure is one line on stderr and 2.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode gets ? for ±
    name = given[0] if given else "--help"
    if name in ("-h", "--help"):
        print(overview(prog, about, commands))
        return 0
    if name not in commands:
        print(f"error: no command {name!r}; the commands are {', '.join(commands)}", file=sys.stderr)
        return 2
    try:
        chosen = load(commands, name)
        args = build_parser(prog, chosen).parse_args(given[1:])
        _require_text(args)
        args.named = args.knowledge_dir is not None or bool(os.environ.get("KNOWLEDGE_DIR"))
        args.project = project_root(_here()) or CHECKOUT
        args.knowledge_dir = args.knowledge_dir or knowledge_dir(args.project)
        if name != "init":
            _require_folder(args.knowledge_dir, args.named)
        chosen.function(args)
        sys.stdout.flush()
    except LabError as error:
        print(f"error: {one_line(error, MAX_ERROR_CHARACTERS)}", file=sys.stderr)  # it may quote what a peer wrote
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130  # as a shell tells it
    except BrokenPipeError:  # the reader has seen enough, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # what no module has words for, such as output on a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: cannot use {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise SettingError(f"the current folder cannot be used: {error.strerror}; change to another one") from error


def _require_text(args: Arguments) -> None:
    """SettingError where a text is not UTF-8, which no record could keep; a path may be any bytes."""
    for name, value in vars(args).items():
        texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
        if any("\udc80" <= char <= "\udcff" for text in texts for char in text):
            raise SettingError(f"{name.replace('_', '-')}: it is not UTF-8; encode it so")


def _require_folder(folder: Path, named: bool) -> None:
    """SettingError where the commons that somebody named is not there: a slip must not found a second one."""
    if folder.exists() and not folder.is_dir():
        raise SettingError(f"{folder} is not a folder; --knowledge-dir or KNOWLEDGE_DIR must name one")
    if named and not folder.exists():
        raise SettingError(f"no folder {folder}; `commons.py init --knowledge-dir {folder}` makes a commons there")
    if folder.exists() and not os.access(folder, os.R_OK | os.X_OK):
        raise SettingError(
            f"cannot read {folder}: Permission denied; make it readable, or name another --knowledge-dir"
        )


def exports(door: str, library: dict[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """A door's `__getattr__` (PEP 562): a name of its library is loaded from its module when it is asked for."""

    def get(name: str) -> Any:
        for module, names in library.items():
            if name in names:
                return getattr(import_module(module), name)
        raise AttributeError(f"module {door!r} has no attribute {name!r}")

    return get


def print_json(value: Any) -> None:
    """Print JSON exactly as it is stored."""
    sys.stdout.buffer.write(dump_json(value))


def answer(args: Arguments, value: Any, text: str) -> None:
    """Print `value` with --json, else `text`."""
    if args.json:
        print_json(value)
    else:
        print(text)
