"""A lock that processes share: a file that one of them holds at a time.

    with locked(knowledge / "queue.json.lock") as descriptor:
        ...                                             # nobody else is in here

It works on every system (filelock) and is free at once when its holder dies, by kill -9 too; a process that inherited
the descriptor is a holder as well.
Not covered: file systems whose locks do not work between machines.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import HeldError, StoreError

TIMEOUT_SECONDS = 60.0
POLL_SECONDS, LONGEST_POLL_SECONDS = 0.002, 0.05


@contextmanager
def locked(path: Path, timeout: float = TIMEOUT_SECONDS) -> Iterator[int]:
    """Hold the lock of this file, made when missing: no other process, or thread, does within. Yields its descriptor.

    HeldError where it cannot be had within `timeout` seconds, StoreError where not at all.
    """
    from filelock import lock_descriptor, unlock_descriptor  # 60 ms that a reader has no use for

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOINHERIT", 0), 0o666)
    except OSError as error:
        raise StoreError(f"cannot lock {path}: {error.strerror}; make the folder writable") from error
    try:
        # A try costs microseconds, where a FileLock's costs as much as what is done under it.
        give_up, pause = time.monotonic() + timeout, POLL_SECONDS
        while not lock_descriptor(descriptor, blocking=False):
            if time.monotonic() > give_up:
                raise HeldError(f"{path} has been held for {timeout:g} s; end the process that holds it")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_POLL_SECONDS)  # many who wait would take the time of the one who works
        try:
            yield descriptor
        finally:
            unlock_descriptor(descriptor)  # a process that was forked within holds it open beyond our closing it
    finally:
        os.close(descriptor)
