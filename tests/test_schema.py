"""The vocabulary, and what validation says of a card."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import CardError
from lab.schema import CATEGORIES, FIELDS, STATUS_ALIASES, STATUSES, TYPES, complete, validate_card

BASE = {"id": "0123456789ab", "timestamp": "2026-01-31T12:00:00.000Z", "status": "keep", "results": {"val_bpb": 0.99}}


def card(**values):
    """A valid card with these values laid over it."""
    return complete(BASE | values)


def refusal(values):
    """The message with which a card is refused."""
    with pytest.raises(CardError) as refused:
        validate_card(values)
    return str(refused.value)


def test_complete_card_is_valid_and_follows_the_table():
    whole = card(from_the_future={"x": 1})
    validate_card(whole)
    assert [*whole][:-1] == [field.name for field in FIELDS if "." not in field.name]
    assert [*whole][-1] == "from_the_future"
    assert whole["results"]["delta"] is None and whole["tags"] == [] and whole["hypothesis"] is None


def test_the_table_is_sound():
    names = [field.name for field in FIELDS]
    assert len(names) == len(set(names))
    for position, field in enumerate(FIELDS):
        assert field.type in TYPES and field.meaning
        parent = field.name.rpartition(".")[0]
        assert not parent or parent in names[:position], f"{field.name} stands before its parent"
    assert set(STATUS_ALIASES.values()) <= set(STATUSES) and not set(STATUS_ALIASES) & set(STATUSES)
    assert len(CATEGORIES) == 14


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
    (card(commit="HEAD"), "card field commit: 'HEAD' is not allowed; it must be 4 to 64 hex characters "
                          "(what `git rev-parse HEAD` prints) or null"),
    (card(timestamp="yesterday"), "card field timestamp: 'yesterday' is not allowed; it must be a UTC time such as "
                                  "2026-01-31T12:00:00.000Z"),
    (card(config_diff={"DEPTH": 8}), "card field config_diff: {'DEPTH': 8} is not allowed; it must be an object of "
                                     "pairs, {name: [old, new]} or null"),
    (card(category="magic"), f"card field category: 'magic' is not allowed; it must be one of {', '.join(CATEGORIES)} "
                             "or null"),
    (card(error={"summary": "x", "tail": []}),
     "card field error.kind: null is not allowed; it must be one of exception, diverged, oom, setting, "
     "data, device, interrupted, killed, timeout"),
    (card(status="crash"), "card field results.val_bpb: 0.99 is not allowed; a crash has no result, it must be null"),
    (card(results={}), "card field results.val_bpb: null is not allowed; a card with status keep needs a result"),
    (card(results={"val_bpb": 1.0, "delta": math.nan}),
     "card field results.delta: nan is not a finite number; an unknown value is null"),
    (card(extra={"deep": [0, [-math.inf]]}),
     "card field extra.deep[1][0]: -inf is not a finite number; an unknown value is null"),
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


@given(st.recursive(st.sampled_from([math.nan, math.inf, -math.inf]), lambda inner: st.lists(inner, min_size=1)
                    | st.dictionaries(st.text(), inner, min_size=1), max_leaves=4))  # fmt: skip
def test_no_hiding_place_for_a_number_that_is_not_finite(value):
    assert "is not a finite number; an unknown value is null" in refusal(card(anything=value))


NAMES = st.sampled_from([field.name for field in FIELDS if "." not in field.name])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(st.dictionaries(NAMES, VALUES))
def test_any_card_is_accepted_or_refused_in_one_line(values):
    try:
        validate_card(card(**values))
    except CardError as refused:
        assert "\n" not in str(refused) and str(refused).startswith("card field ")
