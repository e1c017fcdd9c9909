"""When a run of the director ends by what it was asked for."""

import pytest

from lab.limits import Asked

NOW = {"begun": 3, "passed": 1000.0, "worked": 900.0, "typical": 300.0}


@pytest.mark.parametrize(
    ("asked", "now", "reason"),
    [
        ({}, {"begun": 10**6, "passed": 1e9, "worked": 1e9}, None),
        ({"max_experiments": 4}, {}, None),
        ({"max_experiments": 3}, {}, "3 experiments done, as many as were asked for"),
        ({"max_experiments": 1}, {"begun": 1}, "1 experiment done, as many as were asked for"),
        ({"hours": 0.5}, {"passed": 1500.0}, None),
        ({"hours": 0.5}, {"passed": 1501.0}, "5.0 minutes of 0.5 h are left, an experiment takes about 5.0"),
        ({"hours": 0.01}, {}, "0.0 minutes of 0.01 h are left, an experiment takes about 5.0"),
        ({"budget": 1.0, "price": 3.0}, {}, None),
        ({"budget": 0.9, "price": 3.0}, {}, "0.15 of the budget of 0.9 is left, an experiment takes about 0.25"),
        ({"budget": 0.1, "price": 3.0}, {}, "0.00 of the budget of 0.1 is left, an experiment takes about 0.25"),
    ],
)
def test_another_experiment_begins_only_where_it_fits(asked, now, reason):
    assert Asked(workers=1, agent="hpo", session="s", **asked).limit(**NOW | now) == reason
