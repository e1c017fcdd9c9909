"""Write what the documents say about the code from the code: parts of docs/*.md, and docs/schemas/*.json.

    uv run python -m docs.generate

A generated part of a page stands between `<!-- begin NAME -->` and `<!-- end NAME -->`, NAME a key of `PARTS`.
tests/test_protocol.py fails when a file is not what this would write. Not covered: the text around the parts.
"""

import inspect
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import commons
import director
from lab.catalogue import ideas
from lab.cli import overview
from lab.items import FIELDS
from lab.mirror import TABLES
from lab.schema import (
    CARD,
    CATEGORIES,
    DIRECTIONS,
    ERROR_KINDS,
    EVENT,
    EVENT_FIELDS,
    NOTE,
    NOTE_KINDS,
    STATUS_ALIASES,
    STATUSES,
    TYPES,
    Field,
    json_schema,
)
from lab.settings import ALLOWED, DIRECTING, JUDGING, Settings
from lab.store import dump_json

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent


def documents() -> dict[Path, str]:
    """Every generated file and what it should hold. KeyError when a part in a page has no function here."""
    pages = {
        page: re.sub(
            r"(?s)(<!-- begin ([a-z-]+) -->\n).*?(<!-- end \2 -->)",
            lambda match: match[1] + PARTS[match[2]]() + "\n" + match[3],
            page.read_text(encoding="utf-8"),
        )
        for page in (*sorted(DOCS.glob("*.md")), ROOT / "director.md")
    }
    schemas = {kind: dump_json(json_schema(kind)).decode() for kind in ("card", "event", "note")}
    return pages | {DOCS / "schemas" / f"{kind}.json": content for kind, content in schemas.items()} | for_agents()


def for_agents() -> dict[Path, str]:
    """worker.md in the places and with the heads that coding agents look for: a subagent, and a skill."""
    body = (ROOT / "worker.md").read_text(encoding="utf-8")
    about = "one train.py experiment, from its hypothesis to its card"
    subagent = (
        f"---\nname: experiment-worker\ndescription: Runs {about}. Use when one experiment is to be run in a "
        "worktree of its own.\ntools: Bash, Read, Edit, Grep, Glob\n---\n\n"
    )
    skill = (
        f"---\nname: run-experiment\ndescription: Run {about}. Use when asked to try an idea on train.py, or "
        "given an item of the experiment queue.\n---\n\n"
    )
    return {
        ROOT / ".claude" / "agents" / "experiment-worker.md": subagent + body,
        ROOT / ".claude" / "skills" / "run-experiment" / "SKILL.md": skill + body,
        ROOT / ".agents" / "skills" / "run-experiment" / "SKILL.md": skill + body,
    }


def fields(table: tuple[Field, ...]) -> str:
    """The fields of a record as a table of Markdown."""
    rows = [
        f"| `{field.name}` | {TYPES[field.type].words}{' or null' if field.nullable else ''} | {field.meaning} |"
        for field in table
    ]
    return "\n".join(["| field | value | meaning |", "|---|---|---|", *rows])


def vocabulary() -> str:
    """The closed lists."""
    lists = {
        "statuses": STATUSES,
        "statuses accepted as input": tuple(f"{alias} (means {name})" for alias, name in STATUS_ALIASES.items()),
        "directions": DIRECTIONS,
        "categories": CATEGORIES,
        "kinds of error": ERROR_KINDS,
        "kinds of note": NOTE_KINDS,
    }
    return "\n".join(f"- {name}: {', '.join(values)}" for name, values in lists.items())


def events() -> str:
    """What each kind of event may carry."""
    rows = [f"| `{kind}` | {', '.join(f'`{name}`' for name in names)} |" for kind, names in EVENT_FIELDS.items()]
    return "\n".join(["| kind | members of `fields` |", "|---|---|", *rows])


def tables() -> str:
    """The tables of the index with their columns."""
    db = sqlite3.connect(":memory:")
    db.executescript(TABLES)
    names = re.findall(r"CREATE (?:VIRTUAL )?TABLE (\w+)", TABLES)
    columns = {name: [row[1] for row in db.execute(f"PRAGMA table_info({name})")] for name in names}
    db.close()
    return "\n".join(f"- `{name}`: {', '.join(f'`{column}`' for column in columns[name])}" for name in names)


def settings(names: tuple[str, ...]) -> str:
    """These settings of `[tool.autoresearch]` and their defaults."""
    rows = [
        f"| `{name}` | {ALLOWED[name][1]} | {_shown(Settings._field_defaults[name])} | {ALLOWED[name][2]} |"
        for name in names
    ]
    return "\n".join(["| setting | value | default | what for |", "|---|---|---|---|", *rows])


def _shown(value: object) -> str:
    return f"`{list(value) if isinstance(value, tuple) else value}`".replace("'", '"') if value != "" else "empty"


def library(exported: dict[str, tuple[str, ...]]) -> str:
    """The functions that a door exports, with their parameters and the first paragraph of their docstrings."""
    lines = []
    for module, names in exported.items():
        for name in names:
            function = getattr(import_module(module), name)
            # Without annotations: how Python prints them differs between its versions.
            found = inspect.signature(function)
            plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found.parameters.values()]
            signature = found.replace(parameters=plain, return_annotation=inspect.Signature.empty)
            first = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
            shown = re.sub(r"=<function .* at 0x[0-9a-f]+>", "=...", str(signature))
            lines.append(f"- `{name}{shown}` {first}")
    return "\n".join(lines)


def items() -> str:
    """The keys of an item of the queue as a table of Markdown."""
    rows = [f"| `{name}` | {meaning} |" for name, meaning in FIELDS.items()]
    return "\n".join(["| key | meaning |", "|---|---|", *rows])


def catalogue() -> str:
    """How many ideas the catalogue has of each category."""
    found = Counter(idea.category for idea in ideas())
    return (
        f"{found.total()} ideas: " + ", ".join(f"{count} {category}" for category, count in found.most_common()) + "."
    )


PARTS: dict[str, Callable[[], str]] = {
    "card": lambda: fields(CARD),
    "event": lambda: fields(EVENT),
    "note": lambda: fields(NOTE),
    "vocabulary": vocabulary,
    "event-kinds": events,
    "tables": tables,
    "settings": lambda: settings(Settings._fields),
    "judging": lambda: settings(JUDGING),
    "directing": lambda: settings(DIRECTING),
    "library": lambda: library(commons.LIBRARY),
    "director-library": lambda: library(director.LIBRARY),
    "director-help": lambda: f"```\n{overview('director.py', director.__doc__ or '', director.COMMANDS)}\n```",
    "catalogue": catalogue,
    "item": items,
}


if __name__ == "__main__":
    for path, content in documents().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
