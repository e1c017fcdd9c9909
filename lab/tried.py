"""Has it been tried, asked of a commons: the earlier runs that an idea or an edit could repeat, and what they mean.

    with Index(knowledge) as index:
        check(index, "raise the embedding LR to 0.9", "explore")["decision"]          # "block"
    edit_of(project, "train.py")      # what the editable script's changes against HEAD say: Edit(changes, edit_key)

Reading every description would take seconds in a large commons: the words of an idea and what else they are called
fetch CANDIDATES runs, changed constants and equal edits fetch theirs, and only those are compared.
Not covered: how ideas are compared and judged (`lab/novelty.py`).
"""

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from lab import facts
from lab.errors import SettingError
from lab.ideas import read
from lab.index import Index
from lab.judgement import SHOWN
from lab.likeness import WordSimilarity
from lab.novelty import MODES, NOT_THE_IDEAS_FAULT, SAME_IDEA_THRESHOLD, Idea, assess
from lab.settings import load_settings, project_root
from lab.store import runs_dir
from lab.words import vocabulary

CANDIDATES = 60  # by words, and as many by constants
MAX_PHRASES = 120  # of a full-text query; SQLite takes no more than 256
CHUNK = 500  # ids of a query
BY_CONSTANTS = "JOIN (SELECT DISTINCT card FROM changes"

Row = dict[str, Any]


class Edit(NamedTuple):
    """What an edit says: its changed constants in words ("DEPTH 8 -> 10; ..."), and the key that repeats share."""

    changes: str
    edit_key: str | None


def check(
    index: Index,
    text: str,
    mode: str = MODES[0],
    edit: Edit | None = None,
    *,
    track: str | None = None,
    family: str | None = None,
    tags: Sequence[str] = (),
    threshold: float = SAME_IDEA_THRESHOLD,
    limit: int = 5,
    embedder: str = "",
) -> dict[str, Any]:
    """What earlier runs of all tracks say of an idea, an edit or both (`lab.novelty.assess`), and `track`.

    `track` is the one that counts as here (default: the newest card's). Only runs of the category `family` and with
    one of `tags` are compared where these are given. `embedder` names a function "module:function" that makes vectors
    of texts: their cosine takes the place of the comparison of words. SettingError when it cannot be used.
    """
    here = track or facts.main_track(index)
    idea = Idea(text, edit.changes if edit else "", edit.edit_key if edit else None, here)
    rows = candidates(index, idea, family, tags)
    words = _embedded(embedder, [*idea.texts, *(row["hypothesis"] or "" for row in rows)]) if embedder else None
    return {"track": here} | assess(idea, rows, mode, facts.track_noise(index, here).sd, threshold, limit, words)


def equal_run(index: Index, edit_key: str, track: str | None) -> Row | None:
    """The newest run (id, status) of this very edit on the track that has a result or crashed by its own fault."""
    marks = ", ".join("?" * len(NOT_THE_IDEAS_FAULT))
    return index.row(
        # What crashed on its way up names no track.
        "SELECT id, status FROM cards WHERE edit_key = ? AND (track IS ? OR track IS NULL) "
        f"AND status != 'retracted' AND coalesce(error_kind, '') NOT IN ({marks}) ORDER BY timestamp DESC LIMIT 1",
        edit_key, track, *NOT_THE_IDEAS_FAULT,
    )  # fmt: skip


def equal_runs(
    index: Index, track: str | None, config: Mapping[str, Any]
) -> Callable[[Mapping[str, Any] | None], bool]:
    """Tells of changes of the champion, whose constants are `config`, whether this very edit has been run on the track.

    They are made in its script; where that is not on this machine, nothing is known to have been run.
    """
    from lab.edits import edit_key  # parsing is for who plans
    from lab.knobs import set_constants

    best = facts.champion(index, track)
    card = index.read(best["id"]) if best else {}
    project = project_root(index.knowledge) or index.knowledge.parent
    name = load_settings(project).editable[0]
    script = runs_dir(project) / str(card.get("run_id") or card.get("id")) / Path(name).name
    source = script.read_bytes() if card.get("edit_key") and script.is_file() else b""
    if not source or edit_key(source) != card["edit_key"]:
        return lambda changes: False

    def has_run(changes: Mapping[str, Any] | None) -> bool:
        if not changes:
            return False
        try:
            changed = set_constants(source.decode(), changes, config, name)
        except (SettingError, UnicodeDecodeError):
            return False  # whoever makes the edit tells what is wrong with it
        key = edit_key(changed.encode())
        return key is not None and equal_run(index, key, track) is not None

    return has_run


def candidates(index: Index, idea: Idea, family: str | None = None, tags: Sequence[str] = ()) -> list[Row]:
    """The earlier runs that could be the same idea, with `keeps_since` and, where a constant led to them, `changes`."""
    found: dict[str, Row] = {}
    narrowed, more = _narrowed(family, tags)
    for where, values in (*_by_words(idea), *_by_edit(idea), *_by_constants(index, idea)):
        sql = f"SELECT {SHOWN} FROM cards {where} AND status != 'retracted' {narrowed}"
        rows = {row["id"]: row for row in index.rows(f"{sql} LIMIT {CANDIDATES}", *values, *more)}
        if where.startswith(BY_CONSTANTS):
            _add_changes(index, rows)
        found |= rows
    if "kept times" not in index.made:  # a plan asks twenty times
        times_kept: dict[str | None, list[str]] = {}
        for row in index.rows("SELECT track, timestamp FROM cards WHERE status = 'keep' ORDER BY timestamp"):
            times_kept.setdefault(row["track"], []).append(row["timestamp"])
        index.made["kept times"] = times_kept
    kept = index.made["kept times"]
    for row in found.values():
        times = kept.get(row["track"], [])
        row["keeps_since"] = len(times) - bisect_right(times, row["timestamp"])
    return list(found.values())


def _narrowed(family: str | None, tags: Sequence[str]) -> tuple[str, list[str]]:
    sql, values = "", []
    if family:
        sql, values = "AND category = ?", [family]
    if tags:
        sql += f" AND id IN (SELECT card FROM tags WHERE tag IN ({', '.join('?' * len(tags))}))"
        values += tags
    return sql, values


def _by_words(idea: Idea) -> Iterable[tuple[str, list[str]]]:
    """Runs whose hypothesis has the idea's words or what else they are called, the best match first."""
    phrases: dict[str, None] = {}
    for change in (change for text in idea.texts for change in read(text)):
        for name in sorted(change.subject):
            phrases |= dict.fromkeys(_called(name))
        phrases |= dict.fromkeys(sorted(change.words))
    for text in idea.texts:
        phrases |= dict.fromkeys("".join(char if char.isalnum() else " " for char in text[:1000]).split())
    quoted = " OR ".join(f'"{phrase}"' for phrase in list(phrases)[:MAX_PHRASES])
    if quoted:
        yield (
            "JOIN (SELECT rowid AS number FROM words WHERE words MATCH ? AND rowid > 0 ORDER BY rank "
            f"LIMIT {CANDIDATES}) ON cards.rowid = number WHERE 1",
            [f"{{hypothesis}} : ({quoted})"],
        )


def _called(name: str) -> list[str]:
    """What a name of the vocabulary is called, as phrases of stems, and that of its parts."""
    known = vocabulary()
    called = [" ".join(phrase) for phrase, token in known.base.items() if token.name == name]
    parts = [part for phrase, token in known.compound.items() if token.name == name for part in phrase]
    return called + parts


def _by_constants(index: Index, idea: Idea) -> Iterable[tuple[str, list[str]]]:
    """Runs that changed a constant whose name means what the idea is about."""
    subjects = [change.subject for text in idea.texts for change in read(text) if change.subject]
    if "constants" not in index.made:
        index.made["constants"] = [row["name"] for row in index.rows("SELECT DISTINCT name FROM changes")]
    constants = index.made["constants"]
    about = [name for name in constants if any(change.subject in subjects for change in read(name))]
    if about[:CHUNK]:
        marks = ", ".join("?" * len(about[:CHUNK]))
        yield f"{BY_CONSTANTS} WHERE name IN ({marks})) ON card = id WHERE 1", about[:CHUNK]


def _by_edit(idea: Idea) -> Iterable[tuple[str, list[str]]]:
    if idea.edit_key:
        yield "WHERE edit_key = ?", [idea.edit_key]


def _add_changes(index: Index, found: dict[str, Row]) -> None:
    """Give every row its config_diff in words."""
    ids = list(found)
    changes: dict[str, list[str]] = {}
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        for row in index.rows(f"SELECT * FROM changes WHERE card IN ({', '.join('?' * len(part))})", *part):
            words = f"{row['name']} {json.loads(row['old'])} -> {json.loads(row['new'])}"
            changes.setdefault(row["card"], []).append(words)
    for name, row in found.items():
        row["changes"] = "; ".join(changes.get(name, ()))


# What an edit says.


def edit_of(project: Path, name: str) -> Edit | None:
    """What a file of the project says that HEAD does not; None where they are the same, or there is no HEAD.

    SettingError when the file cannot be read.
    """
    from lab.git import git  # subprocess costs as much as the index: asked once, by the command

    try:
        new = (project / name).read_bytes()
    except OSError as error:
        raise SettingError(
            f"cannot read {project / name}: {error.strerror}; name the file in [tool.autoresearch]"
        ) from error
    old = git(project, "show", f"HEAD:./{name}")
    if old is None or old == new:
        return None
    from lab.edits import edit_key

    return Edit(changed_constants(old, new), edit_key(new))


def changed_constants(old: bytes, new: bytes) -> str:
    """The upper-case constants that two versions of a script give other values, in words; "" where one is no Python."""
    before, after = _constants(old), _constants(new)
    names = [*after, *(name for name in before if name not in after)]
    parts = []
    for name in names:
        was, now = before.get(name, []), after.get(name, [])
        if was != now:
            # A constant has a value a preset: only those that differ are told.
            pairs = [(a, b) for a, b in zip(was, now, strict=False) if a != b]
            old_value, new_value = pairs[0] if pairs else (was[-1] if was else "none", now[-1] if now else "none")
            parts.append(f"{name} {old_value} -> {new_value}")
    return "; ".join(parts)


def _constants(source: bytes) -> dict[str, list[str]]:
    """{name: its values in the order of the file} of what stands at module level or in an `if` there."""
    import ast  # a clean working tree needs none of it

    found: dict[str, list[str]] = {}
    try:
        pending: list[ast.stmt] = list(ast.parse(source).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    while pending:
        statement = pending.pop(0)
        if isinstance(statement, ast.If):
            pending = [*statement.body, *statement.orelse, *pending]
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name) and target.id.isupper():
                    found.setdefault(target.id, []).append(ast.unparse(statement.value))
    return found


# A user's own embedder.


def _embedded(embedder: str, texts: Sequence[str]) -> WordSimilarity:
    """A word similarity that is the cosine of the vectors of an embedder. SettingError when it gives none."""
    unique = list(dict.fromkeys(" ".join(text.split()) for text in texts))
    vectors = _vectors(embedder, unique)
    if len(vectors) != len(unique) or len({len(vector) for vector in vectors}) > 1:
        raise SettingError(
            f"embedder {embedder!r} made {len(vectors)} vectors of {len(unique)} texts; one of equal length each"
        )
    by_text = dict(zip(unique, vectors, strict=True))
    return lambda a, b: _cosine(by_text[a], by_text[b]) if a in by_text and b in by_text else 0.0


def _vectors(embedder: str, texts: list[str]) -> list[list[float]]:
    """What the embedder "module:function" makes of the texts. SettingError when it cannot be loaded, or fails."""
    module, _, name = embedder.partition(":")
    fault, advice = "cannot be loaded", "give module:function"
    try:
        function = getattr(import_module(module), name)
        fault, advice = "failed", "mend it, or leave the setting out"
        return [[float(value) for value in vector] for vector in function(texts)]
    # The one place where foreign code runs, a user's module: whatever it raises is a setting that is wrong, told in a
    # line. What is not an Exception, such as Ctrl-C, goes on its way.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise SettingError(f"embedder {embedder!r} {fault}: {reason}; {advice}") from error


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(one * other for one, other in zip(a, b, strict=True)) / lengths if lengths else 0.0
