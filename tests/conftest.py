"""The files that take longest run first, so that two workers end together."""

import pytest

LONGEST_FIRST = ("test_train", "test_docs", "test_prepare", "test_torture", "test_sync")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
