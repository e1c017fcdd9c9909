"""Verdicts against the champion of a track."""

import pytest

from lab.cards import add_card
from lab.decide import config_diff, decide, verdict
from lab.library import get_champion
from lab.schema import complete
from lab.stats import noise_prior


def card(card_id, bpb, status="keep", track="t", config=None):
    """A card as the commons holds it."""
    when = "2026-01-31T12:00:00.000Z"
    values = {"id": card_id, "timestamp": when, "status": status, "track": track, "config": config}
    return complete(values | {"results": {"val_bpb": bpb}})


@pytest.mark.parametrize(
    ("value", "stderr", "best", "noise", "expected"),
    [
        (1.0, None, None, 0.0005, ("keep", "first result of its track: the baseline")),
        (0.999, None, 1.0, 0.0005, ("keep", "0.001000 lower than the champion, noise 0.000707")),
        (1.001, None, 1.0, 0.0005, ("revert", "0.001000 higher than the champion, noise 0.000707")),
        (0.9996, None, 1.0, 0.0005, ("inconclusive", "0.000400 lower than the champion, noise 0.000707: "
                                                     "cannot be told from noise, one run each")),
        (1.0, 0.1, 1.0, 0.0, ("inconclusive", "0.000000 higher than the champion, noise 0.100000: "
                                              "cannot be told from noise, one run each")),
        (1.99, None, 2.0, 0.003, ("keep", "0.010000 lower than the champion, noise 0.008485")),
        (1.995, 0.008, 2.0, 0.003, ("inconclusive", "0.005000 lower than the champion, noise 0.011662: "
                                                    "cannot be told from noise, one run each")),
    ],
)  # fmt: skip
def test_verdict(value, stderr, best, noise, expected):
    assert verdict(value, stderr, best, noise) == expected


def test_an_unknown_preset_is_judged_with_the_widest_prior():
    assert [noise_prior(name) for name in ("gpu", "small", "mine", None)] == [0.0005, 0.005, 0.005, 0.005]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.001, ("keep", "0.001000 higher than the champion, noise 0.000707")),
        (0.999, ("revert", "0.001000 lower than the champion, noise 0.000707")),
        (1.0004, ("inconclusive", "0.000400 higher than the champion, noise 0.000707: "
                                  "cannot be told from noise, one run each")),
    ],
)  # fmt: skip
def test_verdict_where_more_is_better(value, expected):
    assert verdict(value, None, 1.0, 0.0005, "max") == expected


@pytest.mark.parametrize("direction", ["min", "max"])
def test_a_champion_below_zero_is_as_noisy_as_one_above(direction):
    better, worse = (-1.1, -0.9) if direction == "min" else (-0.9, -1.1)
    assert verdict(better, None, -1.0, 0.0005, direction)[0] == "keep"
    assert verdict(worse, None, -1.0, 0.0005, direction)[0] == "revert"
    assert verdict(-1.0004, None, -1.0, 0.0005, direction)[0] == "inconclusive"


def test_champion_is_the_best_kept_card_of_the_track(tmp_path):
    cards = [
        card("a" * 12, 1.0),
        card("b" * 12, 0.9, "retracted"),
        card("c" * 12, 0.8, track="other"),
        card("d" * 12, 0.95, "revert"),
        card("e" * 12, 0.97),
        card("f" * 12, None, "crash"),
    ]
    for one in [*cards, card("9" * 12, 1.0, track=None)]:
        add_card(tmp_path, one)
    assert get_champion(tmp_path, "t")["id"] == "e" * 12
    assert get_champion(tmp_path, "nobody") is None
    assert get_champion(tmp_path, None) is None


def test_champion_where_more_is_better(tmp_path):
    for name, value, suspect in (("a", 1.0, None), ("b", 3.0, "another process on the device"), ("c", 2.0, None)):
        values = {"id": name * 12, "status": "keep", "track": "t", "metric": "sharpe", "direction": "max"}
        add_card(tmp_path, values | {"results": {"sharpe": value}, "quarantined": suspect})
    assert get_champion(tmp_path, "t")["id"] == "c" * 12


def test_decision_of_a_run():
    best = card("a" * 12, 1.0, config={"DEPTH": 8, "LR": 0.04, "OLD": 1})
    values = {
        "track": "t",
        "preset": "gpu",
        "config": {"DEPTH": 10, "LR": 0.04, "NEW": 2},
        "results": {"val_bpb": 0.75},
    }
    assert decide(values, best) == {
        "status": "keep",
        "results": {"val_bpb": 0.75, "delta": -0.25},
        "decision": {
            "status": "keep",
            "reason": "0.250000 lower than the champion, noise 0.000707",
            "champion": "a" * 12,
            "noise_prior": 0.0005,
            "probability": 1.0,
        },
        "config_diff": {"DEPTH": [8, 10], "NEW": [None, 2], "OLD": [1, None]},
    }


def test_without_anything_to_compare_with_nothing_is_claimed():
    first = decide({"track": "t", "results": {"val_bpb": 0.75}}, None)
    assert (first["status"], first["results"]["delta"], first["config_diff"]) == ("keep", None, {})
    trackless = decide({"results": {"val_bpb": 0.75}}, card("a" * 12, 1.0))
    assert trackless["decision"]["reason"] == "the run names no track to compare it on"
    unreadable = decide({"track": "t", "results": {"val_bpb": 0.75}}, None, known=False)
    assert unreadable["decision"]["reason"] == "the commons could not be read: compared with nothing"
    assert trackless["status"] == unreadable["status"] == "inconclusive"
    assert trackless["decision"]["probability"] is first["decision"]["probability"] is None


def test_decision_on_another_metric_where_more_is_better():
    about = {"track": "t", "preset": "gpu", "metric": "sharpe", "direction": "max"}
    best = card("a" * 12, None) | about | {"results": {"sharpe": 1.0}}
    up, down, same = (decide(about | {"results": {"sharpe": value}}, best) for value in (1.5, 0.5, 1.0))
    assert [one["status"] for one in (up, down, same)] == ["keep", "revert", "inconclusive"]
    assert [one["results"]["delta"] for one in (up, down, same)] == [0.5, -0.5, 0.0]
    assert [one["decision"]["probability"] for one in (up, down, same)] == [1.0, 0.0, 0.5]


def test_an_unknown_configuration_has_no_difference():
    assert config_diff(None, {"A": 1}) is None
    assert config_diff({"A": 1}, None) is None
    assert config_diff({"A": 1}, {"A": 1}) == {}
