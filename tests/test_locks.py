"""The lock that processes share."""

import multiprocessing
import os

import pytest

from lab.errors import StoreError
from lab.locks import locked


def test_one_who_waits_too_long_is_told_who_is_in_the_way(tmp_path):
    path = tmp_path / "lock"
    with locked(path), pytest.raises(StoreError) as refused, locked(path, timeout=0.01):
        pass
    assert str(refused.value) == f"{path} has been held for 0.01 s; end the process that holds it"


@pytest.mark.skipif(os.name != "posix", reason="fork")
def test_a_process_that_was_forked_within_does_not_keep_it(tmp_path):
    fork = multiprocessing.get_context("fork")
    stop = fork.Event()
    child = fork.Process(target=stop.wait, args=(60,))
    with locked(tmp_path / "lock"):
        child.start()
    with locked(tmp_path / "lock", timeout=0.5):
        assert child.is_alive()
    stop.set()
    child.join()
