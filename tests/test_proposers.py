"""Who thinks of the next experiment: the plan alone at first, then in turns with Optuna, or chance."""

import pytest
from test_hpo import SCRIPT, TRACK, Commons

from lab.proposers import LEARNT_RUNS, needs_words, new_items


@pytest.fixture
def commons(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    return Commons(tmp_path / "knowledge")


def proposed(commons, agent, number=3):
    return new_items(commons.knowledge.parent, commons.knowledge, TRACK, agent, number)


def runs(commons, number):
    """So many configurations, the first of them the champion."""
    commons.run(1.0, "keep")
    for n in range(1, number):
        commons.run(1.0 + n / 100, MATRIX_LR=0.04 + n / 1000)


def is_searched(item):
    return item["why"].startswith("Optuna")


def test_a_track_that_is_not_known_begins_with_the_baseline(commons):
    for agent in ("hpo", "random", "edit {prompt}"):
        (item,) = new_items(commons.knowledge.parent, commons.knowledge, None, agent, 3)
        assert item["changes"] == {}


@pytest.mark.parametrize(
    ("number", "searched"),
    [(LEARNT_RUNS - 2, 0), (LEARNT_RUNS - 1, 0), (LEARNT_RUNS, 1), (LEARNT_RUNS + 1, 0), (LEARNT_RUNS + 2, 1)],
)
def test_hpo_is_the_plan_at_first_and_then_in_turns_with_optuna(commons, number, searched):
    runs(commons, number)
    items = proposed(commons, "hpo")
    assert [is_searched(item) for item in items] == [True] * searched + [False] * (3 - searched)
    assert all(item["changes"] or item["replicates"] for item in items)


def test_without_optuna_hpo_is_the_plan(commons, monkeypatch):
    monkeypatch.setattr("lab.proposers.find_spec", lambda name: None)
    runs(commons, LEARNT_RUNS)
    assert not any(is_searched(item) for item in proposed(commons, "hpo"))


def test_chance_is_one_new_item_at_a_time(commons):
    runs(commons, 2)
    (item,) = proposed(commons, "random")
    assert item["changes"] and item["why"] == "at random, what a search has to beat"
    assert proposed(commons, "random") == [item]


def test_a_command_is_given_ideas_in_words_too(commons):
    assert (needs_words("claude -p {prompt}"), needs_words("hpo"), needs_words("random")) == (True, False, False)
    runs(commons, 2)
    assert any(item["changes"] is None and not item["replicates"] for item in proposed(commons, "x {prompt}", 20))
    assert not any(item["changes"] is None and not item["replicates"] for item in proposed(commons, "hpo", 20))
