"""Cards are written once, never lost, and read folded with what was learnt later."""

import copy
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.cards import add_card, card_path, create_card, fold, join, join_run, load_cards, new_id, utc_now
from lab.errors import CardError, StoreError
from lab.library import get_card, retract_card
from lab.notes import load_notes
from lab.schema import CARD, CATEGORIES, SCHEMA, complete
from lab.store import dump_json, read_json, write_new

ROOT = Path(__file__).parent.parent
KEPT = {"status": "keep", "results": {"val_bpb": 0.99}}
WHEN = "2026-01-31T12:00:00.000Z"


def message_of(error, function, *arguments):
    """The message of the error that a call raises."""
    with pytest.raises(error) as raised:
        function(*arguments)
    return str(raised.value)


def test_a_card_is_one_file_named_by_its_id(tmp_path):
    card = add_card(tmp_path, KEPT | {"hypothesis": "wider"})
    assert re.fullmatch("[0-9a-f]{16}", card["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", card["timestamp"])
    assert os.listdir(tmp_path / "cards") == [f"{card['id']}.json"]
    assert load_cards(tmp_path) == [card] == [read_json(tmp_path / "cards" / f"{card['id']}.json")]


def test_a_card_is_never_rewritten(tmp_path):
    add_card(tmp_path, KEPT | {"id": "a" * 12})
    said = message_of(CardError, add_card, tmp_path, KEPT | {"id": "a" * 12, "hypothesis": "other"})
    assert said == "card aaaaaaaaaaaa exists already; `commons.py write-card --run aaaaaaaaaaaa` adds to it"
    assert get_card(tmp_path, "last")["hypothesis"] is None


def test_a_bad_card_is_not_written(tmp_path):
    said = message_of(CardError, add_card, tmp_path, KEPT | {"seed": float("nan")})
    assert said == "card field seed: nan is not allowed; it must be a whole number or null"
    assert not (tmp_path / "cards").exists()
    said = message_of(StoreError, add_card, tmp_path, KEPT | {"config": {"LR": [0.1, float("nan")]}})
    assert said == "config.LR[1]: nan is not a finite number; an unknown value is null"
    assert not (tmp_path / "cards").exists()


def test_ids_differ_for_equal_content():
    assert len({new_id() for _ in range(1000)}) == 1000


def test_cards_are_found_by_the_beginning_of_their_id(tmp_path):
    for number, name in enumerate(("abc000000000", "abd000000000", "123000000000")):
        add_card(tmp_path, KEPT | {"id": name, "timestamp": f"2026-01-0{number + 1}T00:00:00.000Z"})
    assert get_card(tmp_path, "abc")["id"] == "abc000000000"
    assert get_card(tmp_path, "last")["id"] == "123000000000"
    assert message_of(CardError, get_card, tmp_path, "ab") == (
        "'ab' names 2 cards; give more of the id, such as abc000000000"
    )
    remedy = "`commons.py history` lists the cards, `commons.py search` finds words"
    assert message_of(CardError, get_card, tmp_path, "f") == f"no card 'f'; {remedy}"
    assert message_of(CardError, get_card, tmp_path, "") == f"no card ''; {remedy}"
    assert message_of(CardError, get_card, tmp_path / "none", "last") == f"no card 'last'; {remedy}"


def test_the_newest_card_comes_first(tmp_path):
    for name, day in (("b", 1), ("c", 2), ("a", 2)):
        add_card(tmp_path, KEPT | {"id": name * 12, "timestamp": f"2026-01-0{day}T00:00:00.000Z"})
    assert [card["id"][0] for card in load_cards(str(tmp_path))] == ["c", "a", "b"]


def test_no_commons_is_no_cards(tmp_path):
    assert load_cards(tmp_path / "knowledge") == []


def test_a_damaged_card_is_named_and_not_skipped(tmp_path):
    card = add_card(tmp_path, KEPT)
    torn = tmp_path / "cards" / "torn.json"
    torn.write_text('{"id"')
    assert message_of(StoreError, load_cards, tmp_path).startswith(f"{torn} is not JSON (")
    torn.write_text('{"id": "aaaaaaaaaaaa", "timestamp": "2026-01-31T12:00:00.000Z", "status": "superb"}')
    assert message_of(CardError, load_cards, tmp_path) == (
        f"{torn}: card field status: 'superb' is not allowed; it must be one of keep, revert, inconclusive, crash, "
        "retracted; `commons.py doctor` sets it right"
    )
    torn.write_bytes((tmp_path / "cards" / f"{card['id']}.json").read_bytes())
    assert message_of(CardError, load_cards, tmp_path) == (
        f"{torn}: the card in it is {card['id']}, and a card's file has its name; `commons.py doctor` sets it right"
    )
    torn.unlink()
    (tmp_path / "cards" / ".x.json.1.tmp").write_text("being written")
    (tmp_path / "cards" / "README.md").write_text("not a card")
    assert load_cards(tmp_path) == [card]


WRITE_CARDS = """
import sys
from pathlib import Path
from lab.cards import add_card
sys.stdin.readline()
for n in range(25):
    add_card(Path(sys.argv[1]), {"commit": "abcd", "status": "crash", "tags": [sys.argv[2], str(n)]})
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
KNOWN = {field.name for field in CARD}


@settings(max_examples=40)
@given(
    st.dictionaries(st.text().filter(lambda name: name not in KNOWN), JSON),
    st.dictionaries(st.text().filter(lambda name: f"results.{name}" not in KNOWN), JSON),
    st.text(),
)
def test_round_trip_with_keys_of_a_newer_version(unknown, measured, hypothesis):
    with tempfile.TemporaryDirectory() as folder:
        values = KEPT | {"hypothesis": hypothesis} | unknown
        card = add_card(Path(folder), values | {"results": {"val_bpb": 0.99} | measured})
        assert load_cards(Path(folder)) == [card]
        assert {name: card[name] for name in unknown} == unknown
        assert {name: card["results"][name] for name in measured} == measured


def test_an_event_joins_its_card_and_leaves_the_file_alone(tmp_path):
    card = add_card(tmp_path, KEPT | {"decision": {"status": "keep", "reason": "baseline"}})
    before = (tmp_path / "cards" / f"{card['id']}.json").read_bytes()
    said = {"lesson": "memory bound", "tags": ["mlp"], "results": {"val_bpb": 0.5, "peak_vram_mb": 100}}
    joined = join(tmp_path, card, "annotate", said)
    decided = join(tmp_path, joined, "decide", {"status": "revert"})
    assert (joined["lesson"], joined["tags"], joined["status"]) == ("memory bound", ["mlp"], "keep")
    assert (joined["results"]["val_bpb"], joined["results"]["peak_vram_mb"]) == (0.99, 100)
    assert load_cards(tmp_path) == [decided]
    assert (decided["status"], decided["decision"]["status"]) == ("revert", "keep")
    assert (tmp_path / "cards" / f"{card['id']}.json").read_bytes() == before
    assert len(os.listdir(tmp_path / "events")) == 2


def test_an_event_that_breaks_the_card_is_not_written(tmp_path):
    card = add_card(tmp_path, KEPT)
    said = message_of(CardError, join, tmp_path, card, "annotate", {"category": "magic"})
    assert said.startswith("event field fields.category: 'magic' is not allowed; it must be one of architecture, ")
    said = message_of(CardError, join, tmp_path, card, "annotate", {"id": "b" * 12})
    assert said == "an event of kind annotate cannot change 'id'"
    said = message_of(CardError, join, tmp_path, card, "applaud", {})
    allowed = "annotate, decide, retract, suspect, confirm"
    assert said == f"event field kind: 'applaud' is not allowed; it must be one of {allowed}"
    said = message_of(StoreError, join, tmp_path, card, "annotate", {"config_diff": {"LR": [1, float("nan")]}})
    assert said == "fields.config_diff.LR[1]: nan is not a finite number; an unknown value is null"
    assert not (tmp_path / "events").exists()


def event(number, kind, fields, when=WHEN, card="a" * 12):
    """An event as its file has it; its id has the number in it."""
    values = {"schema": SCHEMA, "id": f"e{number:011x}", "card": card, "kind": kind, "timestamp": when}
    return values | {"fields": fields}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"card": None}, "event field card: null is not allowed; it must be 12 to 64 hex characters"),
        (
            {"fields": {"config_diff": {"DEPTH": 8}}},
            "event field fields.config_diff: {'DEPTH': 8} is not allowed; it must be an object of pairs, "
            "{name: [old, new]} or null",
        ),
        ({"fields": {"config": {}}}, "an event of kind annotate cannot change 'config'"),
        ({"id": "f" * 12}, f"the event in it is {'f' * 12}, and an event's file has its name"),
    ],
)
def test_a_damaged_event_is_named(tmp_path, change, reason):
    write_new(tmp_path / "events" / "e00000000001.json", event(1, "annotate", {}) | change)
    said = message_of(CardError, load_cards, tmp_path)
    assert said == f"{tmp_path}/events/e00000000001.json: {reason}; `commons.py doctor` sets it right"


def test_events_that_exclude_each_other_leave_a_readable_card(tmp_path):
    add_card(tmp_path, {"id": "a" * 12, "status": "inconclusive"})
    said = [("annotate", {"results": {"val_bpb": 0.9}, "lesson": "measured later"}), ("decide", {"status": "crash"})]
    for number, (kind, fields) in enumerate(said):
        write_new(tmp_path / "events" / f"e{number:011x}.json", event(number, kind, fields))
    (card,) = load_cards(tmp_path)
    assert (card["status"], card["results"]["val_bpb"], card["lesson"]) == ("inconclusive", 0.9, "measured later")
    later = event(2, "annotate", {"results": {"val_bpb": "high"}}, when="2027-01-01T00:00:00.000Z")
    assert fold(card, [later]) == card
    crashed = fold(complete({"id": "a" * 12, "status": "inconclusive"}), [event(1, *said[1]), event(2, *said[0])])
    assert (crashed["status"], crashed["results"]["val_bpb"], crashed["lesson"]) == ("crash", None, None)


def test_an_event_names_the_whole_id(tmp_path):
    add_card(tmp_path, KEPT | {"id": "a" * 12})
    join(tmp_path, get_card(tmp_path, "aaa"), "annotate", {"lesson": "x"})
    (file,) = (tmp_path / "events").iterdir()
    assert read_json(file)["card"] == "a" * 12
    assert get_card(tmp_path, "last")["lesson"] == "x"


RETRACT, CONFIRM = ("retract", {"reason": "wrong data"}), ("confirm", {})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([RETRACT], ("retracted", "keep", "wrong data")),
        ([("retract", {})], ("retracted", "keep", None)),
        ([RETRACT, ("decide", {"status": "revert"})], ("retracted", "revert", "wrong data")),
        ([("decide", {"status": "revert"}), RETRACT], ("retracted", "revert", "wrong data")),
        ([RETRACT, ("retract", {"reason": "and late"})], ("retracted", "keep", "and late")),
        ([RETRACT, CONFIRM, ("annotate", {"lesson": "x"})], ("retracted", "keep", "wrong data")),
        ([("decide", {"status": "inconclusive"}), ("decide", {"status": "revert"})], ("revert", None, None)),
    ],
)
def test_a_retraction_stays_and_the_status_before_it_is_known(said, expected):
    card = complete({"id": "a" * 12, "timestamp": WHEN, **KEPT})
    events = [event(number, kind, fields) for number, (kind, fields) in enumerate(said)]
    folded = fold(card, events)
    assert tuple(folded[name] for name in ("status", "status_before", "retraction_reason")) == expected


def test_a_confirmation_lifts_a_quarantine(tmp_path):
    suspect = add_card(tmp_path, KEPT | {"quarantined": "half the usual speed"})
    confirmed = join(tmp_path, suspect, "confirm", {"reason": "same result alone on the machine"})
    assert (confirmed["confirmed"], confirmed["quarantined"], confirmed["status"]) == (True, None, "keep")
    assert load_cards(tmp_path) == [confirmed]
    assert read_json(card_path(tmp_path, suspect["id"]))["quarantined"] == "half the usual speed"


def test_a_suspicion_stays_until_somebody_confirms_the_run(tmp_path):
    card = add_card(tmp_path, KEPT)
    suspect = join(tmp_path, join(tmp_path, card, "confirm", {}), "suspect", {"reason": "half the usual speed"})
    assert (suspect["quarantined"], suspect["confirmed"], suspect["status"]) == ("half the usual speed", None, "keep")
    confirmed = join(tmp_path, suspect, "confirm", {})
    assert (confirmed["quarantined"], confirmed["confirmed"]) == (None, True)


def test_retract_card(tmp_path):
    card = add_card(tmp_path, KEPT | {"id": "a" * 12})
    assert message_of(CardError, retract_card, tmp_path, "aaa", " ") == "a retraction needs a reason"
    gone = retract_card(str(tmp_path), "aaa", "wrong data")
    assert (gone["status"], gone["status_before"], gone["retraction_reason"]) == ("retracted", "keep", "wrong data")
    assert (load_cards(tmp_path), read_json(card_path(tmp_path, "a" * 12))) == ([gone], card)


def test_time_then_id_decides_what_was_said_last():
    card = complete({"id": "a" * 12, "timestamp": WHEN, **KEPT})
    later = "2026-01-31T12:00:00.001Z"
    said = [event(3, "annotate", {"lesson": "c"}), event(1, "annotate", {"lesson": "b"}, later)]
    assert fold(card, said)["lesson"] == "b"
    assert fold(card, [*said, event(2, "annotate", {"lesson": "d"}, later)])["lesson"] == "d"


def test_the_first_measurement_stays():
    card = complete({"id": "a" * 12, "timestamp": WHEN, **KEPT})
    said = [{"val_bpb": 0.5, "depth": 8}, {"depth": 9, "delta": None}, {"delta": -0.1}]
    events = [event(number, "annotate", {"results": results}) for number, results in enumerate(said)]
    results = fold(card, events)["results"]
    assert (results["val_bpb"], results["depth"], results["delta"]) == (0.99, 8, -0.1)


ANNOTATIONS = st.fixed_dictionaries(
    {},
    optional={
        "lesson": st.text(max_size=3),
        "tags": st.lists(st.text(max_size=2), max_size=2),
        "category": st.sampled_from(CATEGORIES),
        "results": st.dictionaries(st.sampled_from(["delta", "depth", "val_bpb"]), st.integers(0, 3)),
    },
)
REASONS = st.fixed_dictionaries({}, optional={"reason": st.text(max_size=3)})
SAID = st.one_of(
    st.tuples(st.just("annotate"), ANNOTATIONS),
    st.tuples(st.just("decide"), st.builds(dict, status=st.sampled_from(["keep", "revert", "inconclusive"]))),
    st.tuples(st.just("retract"), REASONS),
    st.tuples(st.just("suspect"), st.just({"reason": "slow"})),
    st.tuples(st.just("confirm"), REASONS),
)
TIMES = st.sampled_from([f"2026-01-0{day}T00:00:00.000Z" for day in range(1, 4)])


@given(st.lists(st.tuples(TIMES, SAID), max_size=4))
def test_the_order_of_reading_events_does_not_matter(said):
    events = [event(number, kind, fields, when) for number, (when, (kind, fields)) in enumerate(said)]
    card = complete({"id": "a" * 12, "timestamp": WHEN, **KEPT})
    before = copy.deepcopy((card, events))
    folded = [fold(card, order) for order in itertools.permutations(events)]
    assert all(one == folded[0] for one in folded)
    assert folded[0]["results"]["val_bpb"] == 0.99
    assert (card, events) == before


CARD_IDS = [name * 12 for name in "abc"]


@st.composite
def commons_of_clones(draw):
    """(files of each clone, name: bytes; in which order who takes what from whom)."""
    records = {}
    for name in draw(st.lists(st.sampled_from(CARD_IDS), min_size=1, unique=True)):
        values = KEPT | {"id": name, "timestamp": draw(TIMES), "quarantined": draw(st.none() | st.just("slow"))}
        records[f"cards/{name}.json"] = complete(values)
    said = st.tuples(st.sampled_from(CARD_IDS), TIMES, SAID)  # also about cards that nobody has
    for number, (card, when, (kind, fields)) in enumerate(draw(st.lists(said, max_size=7))):
        one = event(number, kind, fields, when, card)
        records[f"events/{one['id']}.json"] = one
    for number in range(draw(st.integers(0, 2))):
        note = {"schema": SCHEMA, "id": f"{number:012x}", "timestamp": draw(TIMES), "kind": "memory", "text": "x"}
        records[f"notes/{note['id']}.json"] = note | {"evidence": []}
    count = draw(st.integers(2, 4))
    clones = [{} for _ in range(count)]
    for name, record in records.items():
        for holder in draw(st.sets(st.integers(0, count - 1), min_size=1)):
            clones[holder][name] = dump_json(record)
    pairs = [(one, other) for one in range(count) for other in range(count)]
    # Any exchanges at all, then every pair once in an order of its own.
    return clones, [*draw(st.lists(st.sampled_from(pairs), max_size=6)), *draw(st.permutations(pairs)), *pairs]


def take(source, target):
    """The merge: what the one has and the other has not."""
    for file in source.glob("*/*.json"):
        place = target / file.relative_to(source)
        place.parent.mkdir(exist_ok=True)
        if not place.exists():
            shutil.copyfile(file, place)


@settings(max_examples=50, deadline=None)
@given(commons_of_clones())
def test_merging_in_any_order_and_any_number_of_times_gives_the_same_bytes(drawn):
    clones, exchanges = drawn
    with tempfile.TemporaryDirectory() as top:
        folders = [Path(top) / str(number) for number in range(len(clones))]
        for folder, files in zip(folders, clones, strict=True):
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            folder.mkdir(exist_ok=True)
        for source, target in exchanges:
            take(folders[source], folders[target])
        for folder in folders[1:]:
            take(folder, folders[0])
        for folder in folders[1:]:
            take(folders[0], folder)
        states = {dump_json([load_cards(folder), load_notes(folder)]) for folder in folders}
        assert len(states) == 1


def test_create_card_as_its_users_call_it(tmp_path):
    results = {"val_bpb": 0.99, "delta": -0.01}
    card = create_card(str(tmp_path), "3f2a91c", "wider MLP", {"WIDTH": [4, 8]}, results, "discard", "", ["mlp"])
    assert load_cards(tmp_path) == [card]
    assert (card["commit"], card["status"], card["lesson"], card["category"]) == ("3f2a91c", "revert", None, None)
    assert (card["prior_knowledge_used"], card["metric"]) == ([], "val_bpb")
    given_more = create_card(
        tmp_path, "3f2a91c", "x", None, {"sharpe": 1.5}, "keep", "pays", ["mlp", "activation"], [card["id"]],
        metric="sharpe", direction="max", seed=3,
    )  # fmt: skip
    assert (given_more["category"], given_more["prior_knowledge_used"]) == ("activation", [card["id"]])
    assert (given_more["lesson"], given_more["seed"], given_more["direction"]) == ("pays", 3, "max")


@pytest.mark.parametrize(
    ("difference", "kept"),
    [
        (None, None),
        ({}, {}),
        ({"LR": [0.02, 0.04]}, {"LR": [0.02, 0.04]}),
        ({"LR": (0.02, 0.04)}, {"LR": [0.02, 0.04]}),
        ({"LR": {"old": 0.02, "new": 0.04}}, {"LR": [0.02, 0.04]}),
        ({"LR": {"to": 0.04, "from": 0.02}}, {"LR": [0.02, 0.04]}),
        ({"LR": {"before": None, "after": 0.04}}, {"LR": [None, 0.04]}),
        ({"LR": 0.04}, {"LR": [None, 0.04]}),
        ({"BETAS": [0.9, 0.95, 0.99]}, {"BETAS": [None, [0.9, 0.95, 0.99]]}),
        ({"OPT": {"old": 1}}, {"OPT": [None, {"old": 1}]}),
    ],
)
def test_create_card_takes_a_difference_in_the_forms_there_are(tmp_path, difference, kept):
    card = create_card(tmp_path, "3f2a91c", "x", difference, {"val_bpb": 1.0}, "keep", None, [])
    assert card["config_diff"] == kept


@pytest.mark.parametrize("results", [{"val_bpb": 0.0, "delta": 0.0}, {"val_bpb": None}, {}, {"val_bpb": 0, "depth": 8}])
def test_create_card_writes_no_zero_for_a_crash(tmp_path, results):
    card = create_card(tmp_path, "3f2a91c", "x", None, results, "crash", None, [])
    assert (card["results"]["val_bpb"], card["results"]["delta"]) == (None, None)
    assert card["results"]["depth"] == results.get("depth")


def test_create_card_refuses_what_is_not_allowed(tmp_path):
    usual = (tmp_path, "3f2a91c", "x", None)
    said = message_of(CardError, create_card, *usual, {"val_bpb": 0.9}, "crash", None, [])
    assert said == "card field results.val_bpb: 0.9 is not allowed; a crash has no result, it must be null"
    said = message_of(CardError, create_card, *usual, {}, "discard", None, [])
    assert said == "card field results.val_bpb: null is not allowed; a card with status revert needs a result"
    said = message_of(CardError, create_card, *usual, {"val_bpb": 1.0}, "keep", None, "mlp,wide")
    assert said == "card field tags: 'mlp,wide' is not allowed; it must be a list of texts"
    assert not (tmp_path / "cards").exists()


def test_what_is_written_does_not_change_what_was_given(tmp_path):
    results = {"val_bpb": 0.0}
    create_card(tmp_path, "3f2a91c", "x", None, results, "crash", None, [])
    assert results == {"val_bpb": 0.0}


def test_times_in_the_order_of_text_are_in_the_order_of_time():
    times = [utc_now() for _ in range(1000)]
    assert times == sorted(times)


def test_what_an_agent_says_of_a_run(tmp_path):
    run = add_card(tmp_path, KEPT | {"id": "a" * 12, "run_id": "a" * 12, "tags": ["auto"]})
    values = {"status": "revert", "hypothesis": "wider", "tags": ["mlp"], "results": {"val_bpb": 0.9901, "depth": 8}}
    card = join_run(tmp_path, run, values)
    assert (card["status"], card["hypothesis"], card["tags"]) == ("revert", "wider", ["mlp"])
    assert (card["results"]["val_bpb"], card["results"]["depth"]) == (0.99, 8)
    assert load_cards(tmp_path) == [card]


def test_an_agent_cannot_contradict_a_run(tmp_path):
    kept = add_card(tmp_path, KEPT | {"run_id": "a" * 12})
    crashed = add_card(tmp_path, {"status": "crash", "run_id": "b" * 12})
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
