"""Which card led to which: ancestors and descendants over cited cards and over commits. Pure: cards in, text out.

    graph = lineage(load_cards(knowledge), "3f2a")   # or lineage(cards) for the whole commons, however large
    print(as_text(graph))

An edge of kind "knowledge" comes from `prior_knowledge_used`, one of kind "commit" from `parent_commit`; a card with
neither hangs on the champion it was compared with ("champion"), as an imported one does. A card cited that is not in
the commons stays as a node of status "missing". Where several cards ran one commit they are siblings, and what was
built on that commit hangs on the first of them that was kept, or else the first.
Not covered: pictures (`lab/plots.py`), and ancestry that git knows but no card has recorded.
"""

import heapq
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from lab.brief import DATA_NOTE, number, one_line, signed
from lab.errors import CardError
from lab.schema import Card, finite, metric_value

MIN_HASH_CHARACTERS = 7  # what git abbreviates a commit to: a shorter prefix names too many
MAX_OTHER_PARENTS = 4  # named on a card's line of text
STATUS_COLOURS = {"keep": "#cfe8dc", "crash": "#f3d3cd", "retracted": "#e3dcec", "missing": "#ffffff"}
OTHER_COLOUR = "#eceef0"

_is_hash = re.compile(f"[0-9a-f]{{{MIN_HASH_CHARACTERS},64}}").fullmatch
_mermaid_special = re.compile(r"[^\w .,+]|_", re.ASCII)


class Edge(NamedTuple):
    """`child` came from `parent` (both ids); `kind` is "knowledge", "commit" or "champion"."""

    parent: str
    child: str
    kind: str


class Graph(NamedTuple):
    """Rows {id, status, timestamp, metric, value, delta, hypothesis}, oldest first, missing last, and their edges."""

    nodes: list[dict[str, Any]]
    edges: list[Edge]


def lineage(cards: Iterable[Card], card_id: str | None = None) -> Graph:
    """The card of this id (or the unique beginning of one) with all it came from and led to; None for all cards.

    CardError when `card_id` names no card or several.
    """
    known = {card["id"]: card for card in sorted(cards, key=lambda card: (card["timestamp"], card["id"]))}
    if card_id is None:
        edges = _edges(known)
        names = [*known, *dict.fromkeys(edge.parent for edge in edges if edge.parent not in known)]
        return Graph([_row(name, known.get(name)) for name in names], edges)
    start = _finder(known)(card_id)
    if start is None:
        raise CardError(f"{card_id!r} does not name one card; `commons.py read-brief` lists the latest")
    edges = _edges(known)
    wanted = _reached(start, [(edge.child, edge.parent) for edge in edges])
    wanted |= _reached(start, [(edge.parent, edge.child) for edge in edges])
    names = [name for name in known if name in wanted] + sorted(wanted - known.keys())
    inside = [edge for edge in edges if edge.parent in wanted and edge.child in wanted]
    return Graph([_row(name, known.get(name)) for name in names], inside)


def _row(name: str, card: Card | None) -> dict[str, Any]:
    if card is None:
        card = {"status": "missing", "timestamp": None, "hypothesis": None, "results": {}}
    return {
        "id": name,
        "status": card["status"],
        "timestamp": card["timestamp"],
        "metric": card.get("metric"),
        "value": metric_value(card),
        "delta": finite(card["results"].get("delta")),
        "hypothesis": card["hypothesis"],
    }


def _edges(known: dict[str, Card]) -> list[Edge]:
    """Every edge once, in the order of the children; no card is its own parent."""
    runs: dict[str, str] = {}  # the card that stands for a commit
    for name, card in known.items():
        if commit := card["commit"]:
            first = runs.setdefault(commit, name)
            if card["status"] == "keep" != known[first]["status"]:
                runs[commit] = name
    find_card, find_commit = _finder(known), _commit_finder(runs)
    edges = []
    for name, card in known.items():
        cited = dict.fromkeys(find_card(entry) or entry for entry in card["prior_knowledge_used"] if entry.strip())
        edges += [Edge(parent, name, "knowledge") for parent in cited if parent != name]
        parent_run = find_commit(card["parent_commit"]) if card["parent_commit"] else None
        # A commit that is its own parent is nonsense, and repeats of it would else be each other's parents.
        if parent_run and parent_run != name and known[parent_run]["commit"] != card["commit"]:
            edges.append(Edge(parent_run, name, "commit"))
        champion = card["champion"] if "champion" in card else (card["decision"] or {}).get("champion")
        if champion in known and champion != name and not (cited or parent_run):
            edges.append(Edge(champion, name, "champion"))
    return edges


def _finder(names: Iterable[str]) -> Callable[[str], str | None]:
    """A function from a name or the unique beginning of one to the name, None when there is none or several."""
    ordered = sorted(names)

    def find(prefix: str) -> str | None:
        place = bisect_left(ordered, prefix)
        found = ordered[place : place + 2]
        if not prefix or not found or not found[0].startswith(prefix):
            return None
        return found[0] if found[0] == prefix or not found[1:] or not found[1].startswith(prefix) else None

    return find


def _commit_finder(runs: dict[str, str]) -> Callable[[str], str | None]:
    """A function from a commit to the card that ran it: by the same name, or where one hash begins the other."""
    hashes = [commit for commit in runs if _is_hash(commit)]
    find_longer, lengths = _finder(hashes), sorted({len(commit) for commit in hashes}, reverse=True)

    def find(commit: str) -> str | None:
        if commit in runs or not _is_hash(commit):
            return runs.get(commit)
        found = find_longer(commit) or next((commit[:n] for n in lengths if commit[:n] in runs), None)
        return runs[found] if found else None

    return find


def _reached(start: str, steps: list[tuple[str, str]]) -> set[str]:
    """`start` and all that can be reached from it."""
    ways: dict[str, list[str]] = {}
    for here, there in steps:
        ways.setdefault(here, []).append(there)
    reached, open_ends = {start}, deque([start])
    while open_ends:
        new = set(ways.get(open_ends.popleft(), ())) - reached
        reached |= new
        open_ends.extend(new)
    return reached


class Line(NamedTuple):
    """A node of the tree as drawn: its parent there, its generation (0 is a root), its heir and its other children."""

    parent: str | None
    generation: int
    heir: str | None
    others: list[str]


def tree(graph: Graph) -> dict[str, Line]:
    """Every node under one parent, parents first: the last commit it came from, else the last card it cites.

    The heir is the child with the most descendants, a kept one before others; it continues its parent's line, so that
    no drawing is deeper than the binary logarithm of the number of nodes. A cycle is cut at its oldest card.
    """
    order = _parents_first(graph)
    place = {name: index for index, name in enumerate(order)}
    missing = {row["id"] for row in graph.nodes if row["status"] == "missing"}
    kept = {row["id"] for row in graph.nodes if row["status"] == "keep"}
    best: dict[str, tuple[bool, bool, int, str]] = {}
    for edge in graph.edges:
        if place[edge.parent] < place[edge.child]:
            rank = (edge.kind == "commit", edge.parent not in missing, place[edge.parent], edge.parent)
            best[edge.child] = max(rank, best.get(edge.child, rank))
    parents = {name: best[name][-1] if name in best else None for name in order}
    children: dict[str, list[str]] = {}
    size, generation = dict.fromkeys(order, 1), dict.fromkeys(order, 0)
    for name in order:
        parent = parents[name]
        if parent is not None:
            generation[name] = generation[parent] + 1
            children.setdefault(parent, []).append(name)
    for name in reversed(order):
        if (parent := parents[name]) is not None:
            size[parent] += size[name]
    lines = {}
    for name in order:
        below = children.get(name, [])
        heir = max(below, key=lambda child: (size[child], child in kept, place[child]), default=None)
        lines[name] = Line(parents[name], generation[name], heir, [child for child in below if child != heir])
    return lines


def _parents_first(graph: Graph) -> list[str]:
    """The ids so that parents stand before children and otherwise in the graph's own order."""
    names = [row["id"] for row in graph.nodes]
    place = {name: index for index, name in enumerate(names)}
    children: dict[str, list[str]] = {}
    waits_for = dict.fromkeys(names, 0)
    for edge in graph.edges:
        children.setdefault(edge.parent, []).append(edge.child)
        waits_for[edge.child] += 1
    ready = [place[name] for name in names if not waits_for[name]]
    order: dict[str, None] = {}
    for oldest in range(len(names)):
        if not ready and names[oldest] not in order:
            ready = [oldest]  # all that is left waits for something: cut the cycle here
        while ready:
            name = names[heapq.heappop(ready)]
            if name in order:
                continue
            order[name] = None
            for child in children.get(name, ()):
                waits_for[child] -= 1
                if not waits_for[child]:
                    heapq.heappush(ready, place[child])
    return list(order)


def as_text(graph: Graph) -> str:
    """A tree, each node once: id, status, value, delta, (other parents) | hypothesis.

    A bracket is one line of descent from top to bottom; what stands inside it branched off the card above.
    """
    rows, lines = {row["id"]: row for row in graph.nodes}, tree(graph)
    others: dict[str, dict[str, None]] = {}
    for edge in graph.edges:
        if edge.parent != lines[edge.child].parent:
            others.setdefault(edge.child, {})[edge.parent] = None
    drawn = []
    stack = [(name, "", True) for name in reversed(lines) if lines[name].parent is None]
    while stack:
        name, indent, first = stack.pop()
        line = lines[name]
        corner = ("┌" if line.heir else "─") if first else ("├" if line.heir else "└")
        drawn.append(f"{indent}{corner} {_text_row(rows[name], list(others.get(name, ())))}")
        if line.heir:
            stack.append((line.heir, indent, False))
        inside = indent + ("│  " if line.heir else "   ")
        stack.extend((child, inside, True) for child in reversed(line.others))
    count = f"{len(rows)} card{'s' if len(rows) != 1 else ''}, {len(graph.edges)} links"
    return "\n".join([f"{count}; a bracket is a line of descent, oldest on top. {DATA_NOTE}", *drawn])


def _text_row(row: dict[str, Any], others: list[str]) -> str:
    if row["status"] == "missing":
        return f"missing, cited below | {one_line(row['id'], 64)}"
    more = f" +{len(others) - MAX_OTHER_PARENTS}" if len(others) > MAX_OTHER_PARENTS else ""
    named = ", ".join(one_line(name, 12) for name in others[:MAX_OTHER_PARENTS])
    also = f" (also from {named}{more})" if others else ""
    idea = one_line(row["hypothesis"] or "no hypothesis")
    return f"{_facts(row)}{also} | {idea}"


def _facts(row: dict[str, Any]) -> str:
    return f"{row['id'][:12]} {row['status']:<12} {number(row['value']):>8} {signed(row['delta']):>9}"


def as_dot(graph: Graph) -> str:
    """The graph for Graphviz; a dashed arrow is knowledge, a solid one a commit or a champion."""

    def quoted(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"')

    names = {row["id"]: f"n{index}" for index, row in enumerate(graph.nodes)}
    lines = ["digraph lineage {", '  rankdir=LR; node [shape=box, style="filled,rounded", fontname="sans-serif"];']
    for row in graph.nodes:
        label = "\\n".join(quoted(part) for part in _label(row))
        lines.append(f'  {names[row["id"]]} [label="{label}", fillcolor="{_colour(row)}"];')
    for edge in graph.edges:
        style = " [style=dashed]" if edge.kind == "knowledge" else ""
        lines.append(f"  {names[edge.parent]} -> {names[edge.child]}{style};")
    return "\n".join([*lines, "}"])


def as_mermaid(graph: Graph) -> str:
    """The graph for Mermaid, which draws up to 500 links; the arrows are those of `as_dot`."""

    def quoted(text: str) -> str:  # every sign that could be syntax becomes its number, also inside quotes
        return _mermaid_special.sub(lambda found: f"#{ord(found[0])};" if found[0] < "\x7f" else found[0], text)

    names = {row["id"]: f"n{index}" for index, row in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for row in graph.nodes:
        label = "<br/>".join(quoted(part) for part in _label(row))
        lines.append(f'  {names[row["id"]]}["{label}"]\n  style {names[row["id"]]} fill:{_colour(row)}')
    for edge in graph.edges:
        arrow = "-.->" if edge.kind == "knowledge" else "-->"
        lines.append(f"  {names[edge.parent]} {arrow} {names[edge.child]}")
    return "\n".join(lines)


def _label(row: dict[str, Any]) -> list[str]:
    """What a box says, by lines; quoting is the caller's."""
    if row["status"] == "missing":
        return ["missing", one_line(row["id"], 64)]
    return [" ".join(_facts(row).split()), one_line(row["hypothesis"] or "no hypothesis", 60)]


def _colour(row: dict[str, Any]) -> str:
    return STATUS_COLOURS.get(row["status"], OTHER_COLOUR)


def as_json(graph: Graph) -> dict[str, Any]:
    """The graph as plain data: {"nodes": rows, "edges": [{parent, child, kind}]}."""
    return {"nodes": graph.nodes, "edges": [edge._asdict() for edge in graph.edges]}
