"""The vocabulary, and what validation says of a card, an event and a note."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import CardError
from lab.schema import (
    CARD,
    CATEGORIES,
    EVENT,
    EVENT_FIELDS,
    NOTE,
    STATUS_ALIASES,
    STATUSES,
    TYPES,
    complete,
    validate_card,
    validate_event,
    validate_note,
)

BASE = {"id": "0123456789ab", "timestamp": "2026-01-31T12:00:00.000Z", "status": "keep", "results": {"val_bpb": 0.99}}
EVENT_BASE = {
    "schema": 2, "id": "e" * 12, "card": "c" * 12, "kind": "annotate", "timestamp": BASE["timestamp"], "fields": {},
}  # fmt: skip
NOTE_BASE = {
    "schema": 2, "id": "e" * 12, "timestamp": BASE["timestamp"], "kind": "insight", "text": "wider is better",
    "evidence": [], "answers": None, "session": None, "agent": None,
}  # fmt: skip


def card(**values):
    """A valid card with these values laid over it."""
    return complete(BASE | values)


def refusal(values, validate=validate_card):
    """The message with which a record is refused."""
    with pytest.raises(CardError) as refused:
        validate(values)
    return str(refused.value)


def test_complete_card_is_valid_and_follows_the_table():
    whole = card(from_the_future={"x": 1})
    validate_card(whole)
    assert [*whole][:-1] == [field.name for field in CARD if "." not in field.name]
    assert [*whole][-1] == "from_the_future"
    assert whole["results"]["delta"] is None and whole["tags"] == [] and whole["hypothesis"] is None
    assert (whole["metric"], whole["direction"], whole["confirmed"]) == ("val_bpb", "min", None)


@pytest.mark.parametrize("table", [CARD, EVENT, NOTE])
def test_a_table_is_sound(table):
    names = [field.name for field in table]
    assert len(names) == len(set(names))
    for position, field in enumerate(table):
        assert field.type in TYPES and field.meaning
        parent = field.name.rpartition(".")[0]
        assert not parent or parent in names[:position], f"{field.name} stands before its parent"


def test_the_vocabulary_is_sound():
    assert set(STATUS_ALIASES.values()) <= set(STATUSES) and not set(STATUS_ALIASES) & set(STATUSES)
    assert len(CATEGORIES) == 14
    assert {name for names in EVENT_FIELDS.values() for name in names} <= {field.name for field in CARD} | {"reason"}


STATUS_WORDS = "it must be one of keep, revert, inconclusive, crash, retracted"
REFUSALS = [
    (card(status="keeep"), f"card field status: 'keeep' is not allowed; {STATUS_WORDS}"),
    (card(status=["keep"]), f"card field status: ['keep'] is not allowed; {STATUS_WORDS}"),
    (card(status=None), f"card field status: null is not allowed; {STATUS_WORDS}"),
    (card(id="ABC"), "card field id: 'ABC' is not allowed; it must be 12 to 64 hex characters"),
    (card(id="0123456789ab\n"), "card field id: '0123456789ab\\n' is not allowed; it must be 12 to 64 hex characters"),
    (card(tags="a,b"), "card field tags: 'a,b' is not allowed; it must be a list of texts"),
    (card(tags=[1]), "card field tags: [1] is not allowed; it must be a list of texts"),
    (card(tags=None), "card field tags: null is not allowed; it must be a list of texts"),
    (card(seed=4.5), "card field seed: 4.5 is not allowed; it must be a whole number or null"),
    (card(seed=True), "card field seed: True is not allowed; it must be a whole number or null"),
    (card(results=[]), "card field results: [] is not allowed; it must be an object"),
    (card(results={"val_bpb": "low"}),
     "card field results.val_bpb: 'low' is not allowed; it must be a finite number or null"),
    (card(platform="cpu"), "card field platform: 'cpu' is not allowed; it must be an object or null"),
    (card(commit="--HEAD"), "card field commit: '--HEAD' is not allowed; it must be a commit's hash or name: at most "
                            "64 letters, digits, dots, dashes or null"),
    (card(timestamp="yesterday"), "card field timestamp: 'yesterday' is not allowed; it must be a UTC time such as "
                                  "2026-01-31T12:00:00.000Z"),
    (card(config_diff={"DEPTH": 8}), "card field config_diff: {'DEPTH': 8} is not allowed; it must be an object of "
                                     "pairs, {name: [old, new]} or null"),
    (card(category="magic"), f"card field category: 'magic' is not allowed; it must be one of {', '.join(CATEGORIES)} "
                             "or null"),
    (card(error={"summary": "x", "tail": []}),
     "card field error.kind: null is not allowed; it must be one of exception, diverged, oom, setting, "
     "data, device, disk, interrupted, killed, timeout"),
    (card(status="crash"), "card field results.val_bpb: 0.99 is not allowed; a crash has no result, it must be null"),
    (card(results={}), "card field results.val_bpb: null is not allowed; a card with status keep needs a result"),
    (card(results={"val_bpb": 1.0, "delta": math.nan}),
     "card field results.delta: nan is not allowed; it must be a finite number or null"),
    (card(seed=math.inf), "card field seed: inf is not allowed; it must be a whole number or null"),
    (card(metric="val acc"), "card field metric: 'val acc' is not allowed; it must be a name of at most 64 letters, "
                             "digits and _ . / -"),
    (card(metric=None), "card field metric: null is not allowed; it must be a name of at most 64 letters, digits and "
                        "_ . / -"),
    (card(direction="up"), "card field direction: 'up' is not allowed; it must be one of min, max"),
    (card(confirmed=1), "card field confirmed: 1 is not allowed; it must be true or null"),
    (card(metric="sharpe"),
     "card field results.sharpe: null is not allowed; a card with status keep needs a result"),
    (card(metric="sharpe", results={"sharpe": "high"}),
     "card field results.sharpe: 'high' is not allowed; it must be a number or null"),
    (card(metric="sharpe", results={"sharpe": math.nan}),
     "card field results.sharpe: nan is not allowed; it must be a number or null"),
    (card(metric="sharpe", status="crash", results={"sharpe": 0.0}),
     "card field results.sharpe: 0.0 is not allowed; a crash has no result, it must be null"),
    (card(hypothesis=["x" * 200]),
     "card field hypothesis: ['" + "x" * 75 + "... is not allowed; it must be text or null"),
    ([], "a card must be an object, not []"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "message"), REFUSALS)
def test_refusal_names_field_value_and_what_is_allowed(values, message):
    assert refusal(values) == message


def test_loss_curve_is_bounded():
    points = [[step, step * 0.1, 3.0] for step in range(65)]
    validate_card(card(results={"val_bpb": 1.0, "loss_curve": [*points[:63], [64, 6.4, None]]}))
    assert "it must be at most 64 points [step, seconds, loss or null] or null" in refusal(
        card(results={"val_bpb": 1.0, "loss_curve": points})
    )


def test_a_whole_float_is_a_whole_number():
    validate_card(card(results={"val_bpb": 1.0, "depth": 8.0}, seed=42))


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_can_be_valid(status):
    validate_card(card(status=status, results={"val_bpb": None if status == "crash" else 1.0}))


def test_another_metric_and_direction():
    validate_card(card(metric="val/sharpe", direction="max", results={"val/sharpe": 1.5}))
    validate_card(card(metric="sharpe", direction="max", results={"sharpe": -1.5, "val_bpb": None}))


@pytest.mark.parametrize(("commit", "allowed"), [
    ("baseline", True), ("3f2a91c", True), ("f" * 64, True), ("f" * 65, False), ("", False), ("a b", False),
    ("../x", False), ("-x", False), (None, True),
])  # fmt: skip
def test_commits(commit, allowed):
    if allowed:
        validate_card(card(commit=commit))
    else:
        assert refusal(card(commit=commit)).startswith("card field commit: ")


def test_a_number_that_no_other_reader_could_hold():
    said = refusal(card(results={"val_bpb": 10**400}))
    assert said.endswith("is not allowed; it must be a finite number or null")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"card": None}, "event field card: null is not allowed; it must be 12 to 64 hex characters"),
        ({"timestamp": "2026"}, "event field timestamp: '2026' is not allowed; it must be a UTC time such as "
                                "2026-01-31T12:00:00.000Z"),
        ({"kind": "applaud"}, "event field kind: 'applaud' is not allowed; it must be one of annotate, decide, "
                              "retract, suspect, confirm"),
        ({"kind": "suspect"}, "event field fields.reason: a suspect event must say why"),
        ({"fields": []}, "event field fields: [] is not allowed; it must be an object"),
        ({"fields": {"results": 1}}, "event field fields.results: 1 is not allowed; it must be an object"),
        ({"fields": {"results": None}}, "event field fields.results: null is not allowed; it must be an object"),
        ({"fields": {"config": {}}}, "an event of kind annotate cannot change 'config'"),
        ({"kind": "decide", "fields": {"lesson": "x"}}, "an event of kind decide cannot change 'lesson'"),
        ({"kind": "retract", "fields": {"reason": 1}},
         "event field fields.reason: 1 is not allowed; it must be text"),
    ],
)  # fmt: skip
def test_refusal_of_an_event(change, message):
    validate_event(EVENT_BASE)
    assert refusal(EVENT_BASE | change, validate_event) == message


@pytest.mark.parametrize("fields", [{}, {"status": None}, {"status": "superb"}, {"status": "retracted"}])
def test_a_decision_says_what(fields):
    assert refusal(EVENT_BASE | {"kind": "decide", "fields": fields}, validate_event).startswith(
        "event field fields.status: "
    )


ANSWERS = "note field answers: an answer, and only an answer, names the question it answers"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "rumour"},
         "note field kind: 'rumour' is not allowed; it must be one of insight, question, memory, answer"),
        ({"text": None}, "note field text: null is not allowed; it must be text"),
        ({"text": " \n"}, "note field text: a note must say something"),
        ({"evidence": "a"}, "note field evidence: 'a' is not allowed; it must be a list of texts"),
        ({"kind": "answer"}, ANSWERS),
        ({"kind": "question", "answers": "b" * 12}, ANSWERS),
    ],
)  # fmt: skip
def test_refusal_of_a_note(change, message):
    assert refusal(NOTE_BASE | change, validate_note) == message


def test_a_note_may_leave_out_what_is_null():
    validate_note({name: value for name, value in NOTE_BASE.items() if value is not None})


NAMES = st.sampled_from([field.name for field in CARD if "." not in field.name])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(st.dictionaries(NAMES, VALUES))
def test_any_card_is_accepted_or_refused_in_one_line(values):
    try:
        validate_card(card(**values))
    except CardError as refused:
        assert "\n" not in str(refused) and str(refused).startswith("card field ")
