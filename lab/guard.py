"""The novelty guard of the queue: why an idea should not be added to it, if anything speaks against it.

    refusal(index, "raise the embedding LR to 0.9", "explore", None)     # "run 7fd63665 tried the same idea and ..."

Not covered: how ideas are compared (`lab/novelty.py`), and what lets one through all the same.
"""

from lab.brief import one_line
from lab.briefing import running
from lab.index import Index
from lab.likeness import SAME_IDEA_THRESHOLD, similarity
from lab.queue import load_queue
from lab.settings import project_root
from lab.store import runs_dir
from lab.tried import check


def refusal(index: Index, description: str, mode: str, track: str | None) -> str | None:
    """Whether an idea is queued, runs now or is settled on the track (default: the newest card's): in words, else None.

    `mode` is that of an item; to explore needs something new, so that a success settles it, too. StoreError where the
    queue cannot be read.
    """
    for item in load_queue(index.knowledge):
        if similarity(description, item["description"]) >= SAME_IDEA_THRESHOLD:
            return f"item {item['id']} of the queue is the same idea, {item['status']}{_fenced(item['description'])}"
    for run in running(index, runs_dir(project_root(index.knowledge) or index.knowledge.parent)):
        if run["hypothesis"] and similarity(description, run["hypothesis"]) >= SAME_IDEA_THRESHOLD:
            return f"run {run['id']} is at the same idea now{_fenced(run['hypothesis'])}"
    found = check(index, description, "explore" if mode == "explore" else "exploit", track=track, limit=1)
    if not found["closest"]:
        return None
    run = found["closest"][0]
    known = mode == "explore" and found["classification"] == "known_success" and run["track"] == found["track"]
    if known or found["decision"] == "block":
        return f"{found['reason']}{_fenced(run['hypothesis'] or 'no hypothesis')}"
    return None


def _fenced(text: str) -> str:
    return f" | {one_line(text)}"
