"""The novelty guard of the queue: why an idea should not be added to it, if anything speaks against it.

    refusal(index, "raise the embedding LR to 0.9", "explore", None)     # "run 7fd63665 tried the same idea and ..."

Not covered: how ideas are compared (`lab/novelty.py`), and what lets one through all the same.
"""

import json
from typing import Any

from lab import facts
from lab.brief import one_line
from lab.briefing import running
from lab.index import Index
from lab.likeness import SAME_IDEA_THRESHOLD, similarity
from lab.queue import load_queue
from lab.tried import Edit, check

Changes = dict[str, Any]


def refusal(index: Index, description: str, mode: str, track: str | None, changes: Changes | None = None) -> str | None:
    """Whether an idea is queued, runs now or is settled on the track (default: the newest card's): in words, else None.

    `mode` is that of an item; to explore needs something new, so that a success settles it, too. `changes` are those of
    an item: what it does to constants counts like a description. StoreError where the queue cannot be read.
    """
    config = _champions_config(index, track)
    words = _in_words(config, changes)
    texts = [description, *words]
    for item in load_queue(index.knowledge):
        if changes is not None and item["changes"] is not None:
            same = changes == item["changes"]  # between two that say what they change that alone decides
        else:
            same = _alike(texts, [item["description"], *_in_words(config, item["changes"])])
        if same:
            name = one_line(item["id"], 64)
            return f"item {name} of the queue is the same idea, {item['status']}{_fenced(item['description'])}"
    for run in running(index):
        if run["hypothesis"] and _alike(texts, [str(run["hypothesis"])]):
            return f"run {run['id']} is at the same idea now{_fenced(run['hypothesis'])}"
    edit = Edit(words[0], None) if words else None
    found = check(index, description, "explore" if mode == "explore" else "exploit", edit, track=track, limit=1)
    if not found["closest"]:
        return None
    run = found["closest"][0]
    known = mode == "explore" and found["classification"] == "known_success" and run["track"] == found["track"]
    if known or found["decision"] == "block":
        return f"{found['reason']}{_fenced(run['hypothesis'] or 'no hypothesis')}"
    return None


def _alike(texts: list[str], others: list[str]) -> bool:
    return any(similarity(text, other) >= SAME_IDEA_THRESHOLD for text in texts for other in others)


def _champions_config(index: Index, track: str | None) -> Changes:
    best = facts.champion(index, track or facts.main_track(index))
    return (index.read(best["id"])["config"] if best else None) or {}


def _in_words(config: Changes, changes: Changes | None) -> list[str]:
    """What the changes do to the champion as one text, "DEPTH 8 -> 4"; none where its values are not known.

    The new value alone does not say in which direction it goes.
    """
    if not changes or not set(changes) <= set(config):
        return []
    return ["; ".join(f"{name} {json.dumps(config[name])} -> {json.dumps(new)}" for name, new in changes.items())]


def _fenced(text: str) -> str:
    return f" | {one_line(text)}"
