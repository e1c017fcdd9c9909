"""queue.json as it is read: sound in every item, or one clear line that says what is wrong with it.

    read_snapshot(knowledge / "queue.json")["items"]
    mark(knowledge / "queue.json") != before            # somebody has put another one in its place

Not covered: what has changed since it was written, which the history tells (`lab/queue.py`).
"""

import os
from pathlib import Path
from typing import Any

from lab.errors import SettingError, StoreError
from lab.items import DEFAULTS, KEYS, check_item
from lab.store import read_json

SCHEMA = 2


def read_snapshot(path: Path) -> dict[str, Any]:
    """The whole file, with a list of sound items as `items`. StoreError where it is anything else."""
    try:
        queue = read_json(path)
    except StoreError as error:
        # What is wrong with it; the remedy is another one than a record's.
        raise _unusable(str(error).partition(";")[0]) from error
    if (schema := queue.get("schema", SCHEMA)) not in (1, SCHEMA):
        raise StoreError(f"{path} has schema {schema!r}, this version reads {SCHEMA}; use a newer version")
    items = queue.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _unusable(f"{path}: its items are no list of objects")
    head = {"through": int, "token": int, "finished": dict, "dependencies": dict}
    for name in (name for name, kind in head.items() if name in queue and type(queue[name]) is not kind):
        raise _unusable(f"{path}: its {name} is {queue[name]!r}")
    if not all(type(count) is int for count in queue.get("finished", {}).values()):
        raise _unusable(f"{path}: its finished is {queue['finished']!r}")
    places: dict[str, int] = {}
    for place, item in enumerate(items):
        items[place] = item = dict.fromkeys(KEYS) | DEFAULTS | item
        try:
            check_item(item, f"{path}: items[{place}]")
        except SettingError as error:
            raise _unusable(str(error).replace("; it", ", it")) from error
        if places.setdefault(item["id"], place) != place:
            raise _unusable(f"{path}: items[{places[item['id']]}] and items[{place}] have one id, {item['id']!r}")
    return queue


def _unusable(what: str) -> StoreError:
    return StoreError(f"{what}; mend it, or copy queue.json.bak over it: with the history nothing is lost")


def mark(path: Path) -> tuple[int, int, int] | None:
    """What tells one version of a file from another: inode, time and size; None where it is not there."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}; make it a file that you may read") from error
    return found.st_ino, found.st_mtime_ns, found.st_size
