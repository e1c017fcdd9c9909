"""One experiment in a process group and a checkout of its own: what it is told (the rest: test_work, test_sentinel)."""

from pathlib import Path

import pytest

from lab.runner import environment


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("local:notes", "local:{}/notes"),
        ("local:/data/notes", "local:/data/notes"),
        ("local:~/notes", f"local:{Path.home()}/notes"),
        ("climbmix", "climbmix"),
    ],
)
def test_a_data_set_named_relative_to_the_project_is_found_from_the_checkout(tmp_path, monkeypatch, given, told):
    monkeypatch.setenv("AUTORESEARCH_DATASET", given)
    monkeypatch.setenv("AUTORESEARCH_CACHE", "cache")
    found = environment(tmp_path, tmp_path / "knowledge", {})
    assert found["AUTORESEARCH_DATASET"] == told.format(tmp_path)
    assert found["AUTORESEARCH_CACHE"] == str(tmp_path / "cache")


def test_where_nothing_is_named_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("AUTORESEARCH_DATASET", raising=False)
    monkeypatch.delenv("AUTORESEARCH_CACHE", raising=False)
    assert not {"AUTORESEARCH_DATASET", "AUTORESEARCH_CACHE"} & environment(tmp_path, tmp_path, {}).keys()
