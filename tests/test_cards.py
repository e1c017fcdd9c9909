"""Cards are written once, never lost, and read folded with what was learnt later."""

import copy
import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.cards import create_card, find_card, fold, get_card, join, join_run, load_cards, new_id
from lab.errors import CardError, StoreError
from lab.schema import FIELDS, SCHEMA, complete
from lab.store import read_json, write_new

ROOT = Path(__file__).parent.parent
KEPT = {"status": "keep", "results": {"val_bpb": 0.99}}


def message_of(error, function, *arguments):
    """The message of the error that a call raises."""
    with pytest.raises(error) as raised:
        function(*arguments)
    return str(raised.value)


def test_a_card_is_one_file_named_by_its_id(tmp_path):
    card = create_card(tmp_path, KEPT | {"hypothesis": "wider"})
    assert re.fullmatch("[0-9a-f]{16}", card["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", card["timestamp"])
    assert os.listdir(tmp_path / "cards") == [f"{card['id']}.json"]
    assert load_cards(tmp_path) == [card] == [read_json(tmp_path / "cards" / f"{card['id']}.json")]


def test_a_card_is_never_rewritten(tmp_path):
    create_card(tmp_path, KEPT | {"id": "a" * 12})
    said = message_of(CardError, create_card, tmp_path, KEPT | {"id": "a" * 12, "hypothesis": "other"})
    assert said == "card aaaaaaaaaaaa exists already; `commons.py write-card --run aaaaaaaaaaaa` adds to it"
    assert get_card(tmp_path, "last")["hypothesis"] is None


def test_a_bad_card_is_not_written(tmp_path):
    said = message_of(CardError, create_card, tmp_path, KEPT | {"seed": float("nan")})
    assert said == "card field seed: nan is not a finite number; an unknown value is null"
    assert not (tmp_path / "cards").exists()


def test_ids_differ_for_equal_content():
    assert len({new_id(b"same") for _ in range(1000)}) == 1000


def test_cards_are_found_by_the_beginning_of_their_id(tmp_path):
    for number, name in enumerate(("abc000000000", "abd000000000", "123000000000")):
        create_card(tmp_path, KEPT | {"id": name, "timestamp": f"2026-01-0{number + 1}T00:00:00.000Z"})
    assert get_card(tmp_path, "abc")["id"] == "abc000000000"
    assert get_card(tmp_path, "last")["id"] == "123000000000"
    assert message_of(CardError, get_card, tmp_path, "ab") == (
        "'ab' names 2 cards; give more of the id, such as abd000000000"
    )
    assert message_of(CardError, get_card, tmp_path, "f") == "no card 'f'; `commons.py read-brief` lists the latest"
    assert message_of(CardError, find_card, [], "last") == "no card 'last'; `commons.py read-brief` lists the latest"


def test_no_commons_is_no_cards(tmp_path):
    assert load_cards(tmp_path / "knowledge") == []


def test_a_damaged_card_is_named_and_not_skipped(tmp_path):
    card = create_card(tmp_path, KEPT)
    torn = tmp_path / "cards" / "torn.json"
    torn.write_text('{"id"')
    assert message_of(StoreError, load_cards, tmp_path).startswith(f"{torn} is not JSON (")
    torn.write_text('{"id": "aaaaaaaaaaaa", "timestamp": "2026-01-31T12:00:00.000Z", "status": "superb"}')
    assert message_of(CardError, load_cards, tmp_path) == (
        f"{torn}: card field status: 'superb' is not allowed; it must be one of keep, revert, inconclusive, crash, "
        "retracted; mend the file or move it out of the folder"
    )
    torn.write_bytes((tmp_path / "cards" / f"{card['id']}.json").read_bytes())
    assert message_of(CardError, load_cards, tmp_path) == (
        f"{torn}: the card in it is {card['id']}, and a card's file has its name; mend the file or move it out of the "
        "folder"
    )
    torn.unlink()
    (tmp_path / "cards" / ".x.json.1.tmp").write_text("being written")
    (tmp_path / "cards" / "README.md").write_text("not a card")
    assert load_cards(tmp_path) == [card]


WRITE_CARDS = """
import sys
from pathlib import Path
from lab.cards import create_card
sys.stdin.readline()
for n in range(25):
    create_card(Path(sys.argv[1]), {"commit": "abcd", "status": "crash", "tags": [sys.argv[2], str(n)]})
"""


def test_eight_processes_write_25_cards_each(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE_CARDS, tmp_path, str(me)], cwd=ROOT, stdin=subprocess.PIPE)
        for me in range(8)
    ]
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0] * 8
    expected = sorted([str(me), str(n)] for me in range(8) for n in range(25))
    assert sorted(card["tags"] for card in load_cards(tmp_path)) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KNOWN = {field.name for field in FIELDS}


@settings(max_examples=40)
@given(
    st.dictionaries(st.text().filter(lambda name: name not in KNOWN), JSON),
    st.dictionaries(st.text().filter(lambda name: f"results.{name}" not in KNOWN), JSON),
    st.text(),
)
def test_round_trip_with_keys_of_a_newer_version(unknown, measured, hypothesis):
    with tempfile.TemporaryDirectory() as folder:
        values = KEPT | {"hypothesis": hypothesis} | unknown
        card = create_card(Path(folder), values | {"results": {"val_bpb": 0.99} | measured})
        assert load_cards(Path(folder)) == [card]
        assert {name: card[name] for name in unknown} == unknown
        assert {name: card["results"][name] for name in measured} == measured


def test_an_event_joins_its_card_and_leaves_the_file_alone(tmp_path):
    card = create_card(tmp_path, KEPT | {"decision": {"status": "keep", "reason": "baseline"}})
    before = (tmp_path / "cards" / f"{card['id']}.json").read_bytes()
    said = {"lesson": "memory bound", "tags": ["mlp"], "results": {"val_bpb": 0.5, "peak_vram_mb": 100}}
    joined = join(tmp_path, card["id"], "annotate", said)
    decided = join(tmp_path, card["id"], "decide", {"status": "revert"})
    assert (joined["lesson"], joined["tags"], joined["status"]) == ("memory bound", ["mlp"], "keep")
    assert (joined["results"]["val_bpb"], joined["results"]["peak_vram_mb"]) == (0.99, 100)
    assert load_cards(tmp_path) == [decided]
    assert (decided["status"], decided["decision"]["status"]) == ("revert", "keep")
    assert (tmp_path / "cards" / f"{card['id']}.json").read_bytes() == before
    assert len(os.listdir(tmp_path / "events")) == 2


def test_an_event_that_breaks_the_card_is_not_written(tmp_path):
    card = create_card(tmp_path, KEPT)
    said = message_of(CardError, join, tmp_path, card["id"], "annotate", {"category": "magic"})
    assert said.startswith("card field category: 'magic' is not allowed; it must be one of architecture, ")
    said = message_of(CardError, join, tmp_path, card["id"], "annotate", {"id": "b" * 12})
    assert said == "an event of kind annotate cannot change 'id'"
    said = message_of(CardError, join, tmp_path, card["id"], "applaud", {})
    assert said == "event kind 'applaud' is not one of annotate, decide"
    assert not (tmp_path / "events").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"card": None}, "event field card: None is not allowed; it must be text"),
        ({"kind": "applaud"}, "event kind 'applaud' is not one of annotate, decide"),
        ({"fields": []}, "event field fields: it must be an object, and so must its results"),
        ({"fields": {"results": 1}}, "event field fields: it must be an object, and so must its results"),
        ({"fields": {"config": {}}}, "an event of kind annotate cannot change 'config'"),
    ],
)
def test_a_damaged_event_is_named(tmp_path, change, reason):
    event = {"schema": SCHEMA, "id": "e", "card": "c", "kind": "annotate", "timestamp": "2026", "fields": {}} | change
    write_new(tmp_path / "events" / "e.json", event)
    said = message_of(CardError, load_cards, tmp_path)
    assert said == f"{tmp_path}/events/e.json: {reason}; mend the file or move it out of the folder"


def test_events_that_break_a_card_are_named(tmp_path):
    create_card(tmp_path, KEPT | {"id": "a" * 12})
    about = {"schema": SCHEMA, "id": "e1", "card": "a" * 12, "kind": "annotate", "timestamp": "2026"}
    write_new(tmp_path / "events" / "e1.json", about | {"fields": {"config_diff": {"DEPTH": 8}}})
    assert message_of(CardError, load_cards, tmp_path) == (
        "the events e1 break card aaaaaaaaaaaa: card field config_diff: {'DEPTH': 8} is not allowed; it must be an "
        "object of pairs, {name: [old, new]} or null; move them out of the folder"
    )


def test_an_event_names_the_whole_id(tmp_path):
    create_card(tmp_path, KEPT | {"id": "a" * 12})
    join(tmp_path, "aaa", "annotate", {"lesson": "x"})
    assert get_card(tmp_path, "last")["lesson"] == "x"


FIELDS_OF_EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "lesson": st.text(max_size=3),
        "tags": st.lists(st.text(max_size=2), max_size=2),
        "results": st.dictionaries(st.sampled_from(["delta", "depth", "val_bpb"]), st.integers(0, 3)),
    },
)


@given(st.lists(st.tuples(st.integers(0, 2), FIELDS_OF_EVENTS), max_size=4))
def test_the_order_of_reading_events_does_not_matter(said):
    events = [
        {"id": str(number), "timestamp": str(time), "kind": "annotate", "fields": fields}
        for number, (time, fields) in enumerate(said)
    ]
    card = complete({"id": "a" * 12, **KEPT})
    before = copy.deepcopy((card, events))
    folded = [fold(card, order) for order in itertools.permutations(events)]
    assert all(one == folded[0] for one in folded)
    assert folded[0]["results"]["val_bpb"] == 0.99
    assert (card, events) == before


def test_what_an_agent_says_of_a_run(tmp_path):
    run = create_card(tmp_path, KEPT | {"id": "a" * 12, "run_id": "a" * 12, "tags": ["auto"]})
    values = {"status": "revert", "hypothesis": "wider", "tags": ["mlp"], "results": {"val_bpb": 0.9901, "depth": 8}}
    card = join_run(tmp_path, run, values)
    assert (card["status"], card["hypothesis"], card["tags"]) == ("revert", "wider", ["mlp"])
    assert (card["results"]["val_bpb"], card["results"]["depth"]) == (0.99, 8)
    assert load_cards(tmp_path) == [card]


def test_an_agent_cannot_contradict_a_run(tmp_path):
    kept = create_card(tmp_path, KEPT | {"run_id": "a" * 12})
    crashed = create_card(tmp_path, {"status": "crash", "run_id": "b" * 12})
    claim = {"status": "keep", "results": {"val_bpb": 0.95}}
    assert message_of(CardError, join_run, tmp_path, kept, claim) == (
        "result 0.95 contradicts run aaaaaaaaaaaa, which measured 0.990000; give the right run's id"
    )
    assert message_of(CardError, join_run, tmp_path, kept, {"status": "crash"}) == (
        "status 'crash' contradicts run aaaaaaaaaaaa, which has a result (0.990000)"
    )
    assert message_of(CardError, join_run, tmp_path, crashed, claim) == (
        "status 'keep' contradicts run bbbbbbbbbbbb, which crashed"
    )
    assert not (tmp_path / "events").exists()
