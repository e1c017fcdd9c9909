"""The rules of the strategy: each at its threshold, in their order, with reasons that carry the numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.schema import STRATEGIES
from lab.settings import Settings
from lab.strategy import RULES, Numbers, choose

USUAL = Settings()
# A night in its middle, where no rule but the last applies.
NUMBERS = Numbers(
    runs=40, champion=True, recent=10, crashes=1, keeps=1, since_keep=4, near_misses=1, margin=0.0007, repeat_worth=0.5
)


def said(settings=USUAL, **changed):
    """(mode, conservative) with these numbers changed."""
    choice = choose(NUMBERS._replace(**changed), settings)
    assert (choice.numbers, choice.pinned) == (NUMBERS._replace(**changed), False)
    return choice.mode, choice.conservative


@pytest.mark.parametrize(
    ("changed", "mode"),
    [
        ({}, "explore"),
        ({"crashes": 5}, "explore"),
        ({"crashes": 6}, "exploit, conservative"),
        ({"crashes": 3, "recent": 5}, "exploit, conservative"),
        ({"crashes": 4, "recent": 4}, "explore"),  # four say too little
        ({"since_keep": 9, "near_misses": 9}, "explore"),
        ({"since_keep": 10, "near_misses": 2}, "combine"),
        ({"since_keep": 10, "near_misses": 1}, "ablation"),  # one is no pair
        ({"since_keep": 10, "near_misses": 0}, "ablation"),
        ({"since_keep": 200, "near_misses": 10}, "combine"),
        ({"keeps": 3}, "explore"),
        ({"keeps": 4}, "exploit"),
        ({"keeps": 2, "recent": 5}, "exploit"),
        ({"keeps": 4, "recent": 4}, "explore"),
        ({"repeat_worth": 1.0}, "explore"),
        ({"repeat_worth": 1.001}, "replicate"),
        ({"repeat_worth": None}, "explore"),
        ({"recent": 0, "crashes": 0, "keeps": 0, "since_keep": 0}, "explore"),
    ],
)
def test_a_rule_applies_beyond_its_threshold(changed, mode):
    assert said(**changed) == (mode.partition(",")[0], mode.endswith("conservative"))


def test_the_first_rule_that_applies_decides():
    """From a state in which all of them apply, one reason after the other is taken away."""
    found, changed = [], {"champion": False, "crashes": 6, "since_keep": 10, "near_misses": 2, "keeps": 4}
    changed["repeat_worth"] = 2.0
    for better in ({"champion": True}, {"crashes": 5}, {"near_misses": 1}, {"since_keep": 9}, {"keeps": 3}, {}):
        found.append(said(**changed))
        changed |= better
    assert found == [
        ("explore", False), ("exploit", True), ("combine", False), ("ablation", False), ("exploit", False),
        ("replicate", False),
    ]  # fmt: skip
    assert said(**changed | {"repeat_worth": 1.0}) == ("explore", False)
    assert len(RULES) == len(found) + 1


@pytest.mark.parametrize(
    ("settings", "changed", "mode"),
    [
        (Settings(crash_rate=0.29), {"recent": 100, "crashes": 29}, "explore"),  # 0.29 * 100 is less than 29
        (Settings(crash_rate=0.29), {"recent": 100, "crashes": 30}, "exploit"),
        (Settings(keep_rate=0.05), {}, "exploit"),
        (Settings(plateau_runs=4), {}, "ablation"),
        (Settings(plateau_runs=5), {}, "explore"),
        (Settings(repeat_worth=0.4), {}, "replicate"),
        (Settings(recent_runs=1), {"recent": 1, "crashes": 1, "keeps": 0}, "exploit"),
        (Settings(recent_runs=21), {"keeps": 10}, "explore"),  # ten of 21 are less than half
    ],
)
def test_thresholds_are_settings(settings, changed, mode):
    assert said(settings, **changed)[0] == mode


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"champion": False, "runs": 3}, "no champion yet, runs so far: 3; the baseline comes first"),
        (
            {"crashes": 7},
            "crashes among the last 10 new ideas: 7, more than 50%; small steps from what works",
        ),
        (
            {"since_keep": 12, "near_misses": 3},
            "plateau: new ideas since a gain was last kept: 12; near misses, within 0.0007 of the champion, among the "
            "last 10: 3; put them together",
        ),
        (
            {"since_keep": 12, "near_misses": 0},
            "plateau: new ideas since a gain was last kept: 12; near misses, within 0.0007 of the champion, among the "
            "last 10: 0; find out what the champion can do without",
        ),
        ({"keeps": 4}, "kept among the last 10 new ideas: 4, more than 30%; go on from what works"),
        (
            {"repeat_worth": 1.5163},
            "unresolved claims: a repeat promises 1.52 times what a new idea does, more than 1",
        ),
        (
            {},
            "among the last 10 new ideas kept: 1, crashed: 1; since a gain was last kept: 4; nothing speaks against "
            "new ones",
        ),
    ],
)
def test_the_reason_is_said_with_its_numbers(changed, reason):
    assert choose(NUMBERS._replace(**changed), USUAL).reason == reason


COUNT = st.integers(0, 10_000)
AMOUNT = st.floats(0, 1e308)


@given(
    st.builds(Numbers, COUNT, st.booleans(), COUNT, COUNT, COUNT, COUNT, COUNT, AMOUNT, st.none() | AMOUNT),
    st.builds(
        Settings, recent_runs=st.integers(1, 10_000), crash_rate=st.floats(0.001, 0.999),
        keep_rate=st.floats(0.001, 0.999), plateau_runs=st.integers(1, 10_000), repeat_worth=AMOUNT,
    ),
)  # fmt: skip
def test_any_numbers_give_a_mode_and_a_reason_that_carries_them(numbers, settings):
    choice = choose(numbers, settings)
    assert choice.mode in STRATEGIES
    decisive = {
        "combine": (numbers.since_keep, numbers.near_misses), "ablation": (numbers.since_keep, numbers.near_misses),
        "replicate": (f"{numbers.repeat_worth or 0:.3g}",), "exploit": (numbers.recent,),
        "explore": (numbers.since_keep,) if numbers.champion else (numbers.runs,),
    }  # fmt: skip
    assert all(f"{number}" in choice.reason for number in decisive[choice.mode])
    assert "\n" not in choice.reason and choice.conservative <= (choice.mode == "exploit")
