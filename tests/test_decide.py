"""Verdicts against the champion of a track."""

import pytest

from lab.decide import champion, config_diff, decide, noise_prior, verdict
from lab.schema import complete


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


def test_champion_is_the_best_kept_card_of_the_track():
    cards = [
        card("a" * 12, 1.0),
        card("b" * 12, 0.9, "retracted"),
        card("c" * 12, 0.8, track="other"),
        card("d" * 12, 0.95, "revert"),
        card("e" * 12, 0.97),
        card("f" * 12, None, "crash"),
    ]
    assert champion(cards, "t")["id"] == "e" * 12
    assert champion(cards, "nobody") is None
    assert champion([card("a" * 12, 1.0, track=None)], None) is None


def test_decision_of_a_run():
    best = card("a" * 12, 1.0, config={"DEPTH": 8, "LR": 0.04, "OLD": 1})
    values = {
        "track": "t",
        "preset": "gpu",
        "config": {"DEPTH": 10, "LR": 0.04, "NEW": 2},
        "results": {"val_bpb": 0.75},
    }
    assert decide(values, [best]) == {
        "status": "keep",
        "results": {"val_bpb": 0.75, "delta": -0.25},
        "decision": {
            "status": "keep",
            "reason": "0.250000 lower than the champion, noise 0.000707",
            "champion": "a" * 12,
            "noise_prior": 0.0005,
            "probability": None,
        },
        "config_diff": {"DEPTH": [8, 10], "NEW": [None, 2], "OLD": [1, None]},
    }


def test_without_anything_to_compare_with_nothing_is_claimed():
    first = decide({"track": "t", "results": {"val_bpb": 0.75}}, [])
    assert (first["status"], first["results"]["delta"], first["config_diff"]) == ("keep", None, {})
    trackless = decide({"results": {"val_bpb": 0.75}}, [card("a" * 12, 1.0)])
    assert trackless["decision"]["reason"] == "the run names no track to compare it on"
    unreadable = decide({"track": "t", "results": {"val_bpb": 0.75}}, None)
    assert unreadable["decision"]["reason"] == "the commons could not be read: compared with nothing"
    assert trackless["status"] == unreadable["status"] == "inconclusive"


def test_an_unknown_configuration_has_no_difference():
    assert config_diff(None, {"A": 1}) is None
    assert config_diff({"A": 1}, None) is None
    assert config_diff({"A": 1}, {"A": 1}) == {}
