"""The bandit over edits: what is read from a run, what an arm's tries teach, and how far it reaches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.bandit import Bandit, Trial, Turn, completed, subject_of, told
from lab.effects import prior_effects

EFFECTS, NOISE = prior_effects(0.001), 2e-7


def trial(effect, *, category="optimizer", subject="lr matrix", direction="up", track=None, kept=False, **values):
    """A run of an arm."""
    turn = Turn(subject, direction, values.get("old"), values.get("new"), subject)
    return Trial("0" * 12, category, turn, effect, NOISE, track, kept)


def gain(trials, category="optimizer", subject="lr matrix", direction="up", bet="low"):
    """What one more try of an arm promises after these."""
    return Bandit(trials, EFFECTS, NOISE).promise(category, subject, direction, bet)


@pytest.mark.parametrize(
    ("text", "changes", "turn"),
    [
        ("matrix LR 0.04 to 0.05", {}, Turn("lr matrix", "up", 0.04, 0.05, "matrix LR")),
        ("anything", {"MATRIX_LR": [0.04, 0.05]}, Turn("lr matrix", "up", 0.04, 0.05, "MATRIX_LR")),
        ("halve batch 524288 to 262144", {}, Turn("batch", "down", 524288.0, 262144.0, "batch")),
        ("FINAL_LR_FRAC 0.0 to 0.05", {}, Turn("finallr", "up", 0.0, 0.05, "FINAL_LR_FRAC")),
        ("Adam beta1 0.8 to 0.85", {}, Turn("adam beta1", "up", 0.8, 0.85, "Adam beta1")),
        ("softcap 13", {}, Turn("softcap", "set", None, 13.0, "softcap")),
        ("remove value embeddings", {}, Turn("ve", "remove", None, None, "ve")),
        ("x", {"WINDOW_PATTERN": ["SSSL", "SL"]}, Turn("window", "set", None, None, "WINDOW_PATTERN")),
        ("x", {"DEPTH": [True, 8]}, Turn("depth", "set", None, None, "DEPTH")),
        ("seed 42 to 137", {}, None),  # no idea
        ("x", {"SEED": [42, 137]}, None),
        ("x", {"DEPTH": [8, 9], "ASPECT_RATIO": [64, 57]}, None),  # which of the two it was nobody can tell
        ("depth 9 aspect 57", {}, None),
        ("", {}, None),
        (None, {}, None),
    ],
)
def test_what_an_edit_turned(text, changes, turn):
    assert told(text, changes) == turn


def test_a_constant_and_its_words_are_one_subject():
    assert subject_of("MATRIX_LR") == subject_of("matrix learning rate") == "lr matrix"
    assert subject_of("ZZZ_0") != subject_of("ZZZ_1")


@given(st.text(max_size=200), st.dictionaries(st.text(max_size=9), st.tuples(st.floats(), st.integers()), max_size=2))
def test_any_text_and_any_change_is_read(text, changes):
    turn = told(text, changes)
    assert turn is None or turn.subject


def test_values_that_words_leave_out_are_those_of_then():
    runs = [
        trial(0.0, subject="softcap", direction="up", old=15.0, new=20.0),
        trial(0.0, subject="softcap", direction="set", new=13.0, kept=True),
        trial(0.0, subject="softcap", direction="set", new=14.0),
        trial(0.0, subject="depth", direction="set", new=9.0),
    ]
    turns = [(one.turn.direction, one.turn.old, one.turn.new) for one in completed(runs)]
    assert turns == [("up", 15.0, 20.0), ("down", 15.0, 13.0), ("up", 13.0, 14.0), ("set", None, 9.0)]


def test_nothing_seen_is_worth_what_any_idea_is():
    assert gain([]).better == pytest.approx(sum(part.weight for part in EFFECTS if part.mean < 0), rel=0.06)
    assert gain([]) == gain([], subject="something else")
    assert gain([]).crash == pytest.approx(0.05)


def test_an_arm_that_helped_promises_more_and_its_category_a_little():
    helped = [trial(-0.002)]
    own, kin, other = gain(helped), gain(helped, subject="wd"), gain(helped, category="attention")
    assert own.gain > 1.5 * kin.gain > 1.5 * gain([]).gain * 0.99
    assert kin.gain > other.gain == gain([]).gain


def test_an_arm_that_was_refuted_falls_with_every_run():
    values = [gain([trial(0.002)] * count).gain for count in range(5)]
    assert values == sorted(values, reverse=True) and values[4] < values[0] / 2


def test_a_run_within_the_noise_teaches_little():
    refuted, unclear = gain([trial(0.003)]).gain, gain([trial(0.0002)]).gain
    assert refuted < unclear < 1.5 * gain([]).gain


def test_ruin_counts_as_an_idea_that_hurts():
    assert gain([trial(3.2)]).gain == pytest.approx(gain([trial(0.02)]).gain, rel=0.1)
    assert gain([trial(3.2)]).gain < gain([]).gain


def test_another_track_counts_as_one_try_however_many_runs_it_had():
    elsewhere = [gain([trial(-0.002, track="b")] * count).gain for count in (1, 2, 50)]
    assert elsewhere[1:] == pytest.approx([elsewhere[0]] * 2)
    assert gain([trial(-0.002, track="b"), trial(-0.002, track="c")]).gain > elsewhere[0]
    assert gain([trial(-0.002)]).gain == pytest.approx(elsewhere[0])


def test_crashes_are_counted_by_arm():
    crashed = [trial(None)] * 3 + [trial(0.0, subject="wd")] * 10
    assert gain(crashed).crash > 0.5 > 0.1 > gain(crashed, subject="wd").crash
    assert gain(crashed).gain == gain([trial(0.0, subject="wd")] * 10).gain  # a crash says nothing of the effect


def test_bets_are_weaker_than_runs():
    bets = [gain([], bet=bet).better for bet in ("high", "medium", "low", "removal")]
    assert bets == pytest.approx([0.361, 0.24, 0.155, 0.102], abs=0.002)
    assert gain([trial(0.002)] * 4, bet="high").better < 0.6 * gain([], bet="high").better


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.one_of(st.none(), st.floats(-1e6, 1e6)), st.floats(1e-12, 1e6))),
    st.floats(1e-12, 1e3),
)
def test_any_runs_give_a_promise(runs, noise):
    trials = [trial(effect, subject=subject)._replace(variance=variance) for subject, effect, variance in runs]
    for subject in "abc":
        found = Bandit(trials, EFFECTS, noise).promise("optimizer", subject, "up")
        assert 0 <= found.gain < 0.1 and 0 <= found.better <= 1 and 0 < found.crash < 1
