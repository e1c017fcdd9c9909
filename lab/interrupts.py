"""Ctrl-C and SIGTERM while experiments run: what they end, and what they wait for.

    with interruptible():                       # InterruptedRunError comes out of it
        ...
        with undisturbed():
            clear_up()

Not covered: how a process that was started is ended (`lab/runner.py`).
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from lab.errors import LabError


class InterruptedRunError(LabError):
    """Ctrl-C or SIGTERM ended a run before it had a result; `signal` is which of them."""

    kind = "interrupted"

    def __init__(self, number: int) -> None:
        super().__init__("interrupted; what had been started is ended and cleared away")
        self.signal = number


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM is a KeyboardInterrupt too, and either comes out as an InterruptedRunError."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError(error.args[0] if error.args else signal.SIGINT) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM wait until the end of it: what is begun is finished, such as clearing up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda number, frame: came.append(number)) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for number in came[:1]:
            signal.raise_signal(number)
