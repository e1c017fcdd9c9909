"""What led to what: edges over citations and commits, hostile shapes, and texts that nobody can write syntax into."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import CardError
from lab.lineage import as_dot, as_json, as_mermaid, as_text, lineage, tree
from lab.schema import complete, finite


def card(number, *cites, commit=None, parent=None, status="revert", value=0.99, hypothesis="idea"):
    return complete(
        {
            "id": f"{number:012x}",
            "timestamp": f"2026-01-01T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}.000Z",
            "status": status,
            "commit": commit,
            "parent_commit": parent,
            "prior_knowledge_used": [f"{c:012x}" if isinstance(c, int) else c for c in cites],
            "hypothesis": hypothesis,
            "results": {"val_bpb": value, "delta": None},
        }
    )


def links(graph):
    return [
        (int(edge.parent, 16) if len(edge.parent) == 12 else edge.parent, int(edge.child, 16), edge.kind)
        for edge in graph.edges
    ]


HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("commit", "parent", "linked"),
    [
        (HASH, HASH, True),
        (HASH, HASH[:7], True),
        (HASH[:7], HASH, True),
        (HASH, HASH[:6], False),
        ("baseline", "baseline", True),
        ("baseline-2", "baseline", False),
    ],
)
def test_a_commit_links_by_name_or_by_the_beginning_of_a_hash(commit, parent, linked):
    graph = lineage([card(2, commit="f" * 40, parent=parent), card(1, commit=commit)])
    assert links(graph) == ([(1, 2, "commit")] if linked else [])


def test_an_ambiguous_hash_links_nothing():
    cards = [card(1, commit=HASH), card(2, commit=HASH[:-1] + "0"), card(3, commit="f" * 40, parent=HASH[:9])]
    assert lineage(cards).edges == []


def test_repeats_of_a_commit_are_siblings_and_the_kept_one_has_the_children():
    cards = [
        card(1, commit="a" * 40),
        *(card(n, commit="b" * 40, parent="a" * 40, status="keep" if n == 3 else "revert") for n in (2, 3, 4)),
        card(5, commit="c" * 40, parent="b" * 40),
    ]
    assert links(lineage(cards)) == [(1, 2, "commit"), (1, 3, "commit"), (1, 4, "commit"), (3, 5, "commit")]


def test_citations_may_be_cut_and_a_missing_one_stays_as_a_node():
    graph = lineage([card(1), card(2, "gone", " "), card(0xABC, "00000000000", "000000000a", "00000000000")])
    names = [(edge.parent, int(edge.child, 16)) for edge in graph.edges]
    assert names == [("gone", 2), ("00000000000", 0xABC)]  # an ambiguous one; not itself
    graph = lineage([card(1), card(0xABC), card(3, "000000000a")])
    assert links(graph) == [(0xABC, 3, "knowledge")]
    graph = lineage([card(2, "gone")])
    assert [(row["id"], row["status"]) for row in graph.nodes] == [(f"{2:012x}", "revert"), ("gone", "missing")]
    assert as_text(graph).splitlines()[1] == "┌ missing, cited below | gone"


def test_with_an_id_only_what_led_there_and_what_came_of_it():
    cards = [card(1), card(2, 1), card(3, 1), card(4, 2), card(5, 4, 6), card(6), card(7, 3)]
    graph = lineage(cards, f"{2:012x}")
    assert [int(row["id"], 16) for row in graph.nodes] == [1, 2, 4, 5]
    assert links(graph) == [(1, 2, "knowledge"), (2, 4, "knowledge"), (4, 5, "knowledge")]


@pytest.mark.parametrize("name", ["f", "", "0000"])
def test_an_id_that_names_no_card_or_several(name):
    with pytest.raises(CardError) as raised:
        lineage([card(1), card(2)], name)
    assert str(raised.value) == f"{name!r} does not name one card; `commons.py read-brief` lists the latest"


def test_the_text_is_a_tree_with_each_card_once():
    cards = [
        card(1, status="keep", hypothesis="baseline"),
        card(2, 1, hypothesis="worse"),
        card(3, 1, status="keep", value=0.98, hypothesis="better"),
        card(4, 3, 2, status="crash", value=None, hypothesis="too\nlarge"),
    ]
    assert as_text(lineage(cards)).splitlines()[1:] == [
        "┌ 000000000001 keep         0.990000         - | baseline",
        "│  ─ 000000000002 revert       0.990000         - | worse",
        "├ 000000000003 keep         0.980000         - | better",
        "└ 000000000004 crash               -         - (also from 000000000002) | too large",
    ]
    assert as_text(lineage([])).startswith("0 cards, 0 links; a bracket is a line of descent, oldest on top. ")


def test_a_long_chain_stays_narrow_and_a_cycle_ends():
    chain = lineage([card(1), *(card(n, n - 1) for n in range(2, 5001))])
    assert max(len(line) for line in as_text(chain).splitlines()[1:]) < 60
    assert tree(chain)[f"{5000:012x}"].generation == 4999
    cycle = lineage([card(1, 3, 1), card(2, 1), card(3, 2)], f"{2:012x}")
    assert len(cycle.nodes) == len(cycle.edges) == 3
    assert [line[2:14] for line in as_text(cycle).splitlines()[1:]] == [f"{n:012x}" for n in (1, 2, 3)]


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 12), max_size=3), max_size=12), st.booleans())
def test_any_graph_is_drawn_whole(cites, commits):
    cards = [
        card(n, *cited, commit=f"{n:040x}" if commits else None, parent=f"{cited[0]:040x}" if cited else None)
        for n, cited in enumerate(cites)
    ]
    graph = lineage(reversed(cards))
    assert graph == lineage(cards)
    lines = tree(graph)
    assert set(lines) == {row["id"] for row in graph.nodes}
    assert all(list(lines).index(line.parent) < place for place, line in enumerate(lines.values()) if line.parent)
    assert len(as_text(graph).splitlines()) == 1 + len(graph.nodes)
    assert json.loads(json.dumps(as_json(graph)))["nodes"] == graph.nodes


HOSTILE = 'a"]; style x:y#z; --> b\n%%{init: {"theme": "x"}}%%\n`<script>` \\" }\x1b[31m end'


@settings(max_examples=60)
@given(st.text() | st.just(HOSTILE))
def test_text_cannot_become_syntax(text):
    graph = lineage([card(1, text, hypothesis=text, status="keep"), card(2, 1, hypothesis=text)])
    for line in as_mermaid(graph).splitlines()[1:]:
        assert re.fullmatch(
            r'  n\d+\["([\w .,+]|#\d+;|<br/>|[^\x00-\x7f])*"\]|  style n\d fill:#\w{6}|  n\d+ -?-\.?->? ?.*n\d', line
        )
    for line in as_dot(graph).splitlines()[2:-1]:
        assert re.fullmatch(
            r'  n\d+ \[label="([^"\\\n]|\\.)*", fillcolor="#\w{6}"\];|  n\d+ -> n\d+( \[style=dashed\])?;', line
        )
    assert "\x1b" not in as_text(graph)


@pytest.mark.parametrize(
    ("value", "read"), [(1, 1.0), (True, None), ("1", None), (None, None), (10**400, None), (float("nan"), None)]
)
def test_a_result_of_any_kind_is_a_number_or_nothing(value, read):
    assert finite(value) == read


def test_every_kind_of_edge_can_be_drawn():
    champion, knowledge, commit = card(1, commit="aa"), card(2, 1), card(3, commit="bb", parent="aa")
    graph = lineage([champion, knowledge, commit, card(4) | {"decision": {"champion": f"{1:012x}"}}])
    assert [edge.kind for edge in graph.edges] == ["knowledge", "commit", "champion"]
    assert as_mermaid(graph).splitlines()[-3:] == ["  n0 -.-> n1", "  n0 --> n2", "  n0 --> n3"]
    assert as_dot(graph).splitlines()[-4:-1] == ["  n0 -> n1 [style=dashed];", "  n0 -> n2;", "  n0 -> n3;"]
