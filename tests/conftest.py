"""The files that take longest run first, so that two workers end together; and no test is timed."""

import os
import signal

import hypothesis
import pytest

# How long an example takes says how busy the machine is: what is asserted is never that.
# The same examples each time: a change is not held up by what it has not touched.
hypothesis.settings.register_profile("untimed", deadline=None, derandomize=True)
hypothesis.settings.load_profile("untimed")

# A shell has what it starts in the background ignore Ctrl-C, and so would every process of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Containers often ask for no bytecode; thousands of processes of the tests would each compile what they import.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

LONGEST_FIRST = (
    "test_train", "test_prepare", "test_docs", "test_torture", "test_work", "test_cli_director", "test_queue_torture",
    "test_bad_input", "test_platform_utils", "test_sync",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
