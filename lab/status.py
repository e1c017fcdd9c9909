"""How a run of the director shows: a live line on a terminal with what has ended above it, else JSON lines.

    with live() as tell:                        # or: with json_lines() as tell
        run_director_loop(project, knowledge, tell=tell)

`Board` makes text of events and is pure; rich is loaded by `live` alone. What agents wrote stands after a |.
Not covered: the events themselves (`lab/director.py`).
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lab.brief import counted, number, one_line, signed

REFRESHED_PER_SECOND = 2
MAX_LINE_CHARACTERS = 300

Event = dict[str, Any]
Tell = Callable[[Event], None]


class Board:
    """How a run stands, from its events. Times are seconds of one clock, which only goes forward."""

    def __init__(self) -> None:
        self._asked: Event = {}
        self._state: Event = {}
        self._as_of = 0.0
        self._running: dict[int, tuple[float, str]] = {}

    def take(self, event: Event, now: float) -> str | None:
        """Take in an event; the line that stays on the screen, None where there is nothing to keep."""
        name: str = event["event"]
        worker: int = event.get("worker", 0)
        self._state, self._as_of = event.get("state", self._state), now
        if name in ("started", "stopped"):
            self._asked = event
        elif name == "claimed":
            self._running = self._running | {worker: (now, one_line(event["description"]))}
        elif name in ("ended", "failed", "left", "released") or (name == "warning" and worker):
            self._running = {key: value for key, value in self._running.items() if key != worker}
        return _line(event)

    def lines(self, now: float) -> list[str]:
        """The two lines of this moment: how far it is, and what runs; none when it is over."""
        state = self._state
        if not self._asked or self._asked["event"] == "stopped":
            return []
        best = state["best"]
        parts = [
            f"{counted(state['experiments'], 'experiment')}: {state['kept']} kept, {state['crashed']} crashed",
            _best(best) if best else "no kept result yet",
            f"{state['mode'] or 'no'} mode, {state['queued']} queued",
            *self._left(now),
        ]
        running = [f"{_clock(now - since)} | {what}" for since, what in self._running.values()]
        return ["; ".join(parts), "  ".join(running) or "nothing runs at this moment"]

    def _left(self, now: float) -> list[str]:
        """What is left of the limits: time and money."""
        asked, state = self._asked, self._state
        passed = state["seconds"] + now - self._as_of
        seconds = []
        if asked.get("max_experiments"):
            missing = asked["max_experiments"] - state["experiments"]
            begun = sum(now - since for since, _ in self._running.values())
            seconds.append(max(missing * state["typical"] - begun, 0.0) / asked["workers"])
        if asked.get("hours"):
            seconds.append(max(asked["hours"] * 3600 - passed, 0.0))
        left = [f"about {_clock(min(seconds))} left"] if seconds else []
        if state["spent"] is not None:
            of = f" of {asked['budget']:g}" if asked.get("budget") else ""
            left.append(f"{state['spent']:.2f}{of} spent")
        return left


def _line(event: Event) -> str | None:
    """What is said of an event that is worth a line; a worker's text is data."""
    name = event["event"]
    if name == "ended":
        values = f"{number(event.get('result')):>10} {signed(event.get('delta')):>10}"
        action = f" {event['action']}" if event.get("action") else ""
        what = one_line(event.get("hypothesis") or "no hypothesis")
        return f"{event['card'][:8]} {event['status']:<12} {values}{action} | {what}"
    if name == "failed":
        return f"not run | {one_line(event['reason'], MAX_LINE_CHARACTERS)}"
    if name == "mode":
        return f"mode {event['mode']}: {one_line(event['reason'], MAX_LINE_CHARACTERS)}"
    if name == "warning":
        return f"warning: {one_line(event['said'], MAX_LINE_CHARACTERS)}"
    if name == "stopping":
        return f"{event['reason']}: the workers end their experiments and give them back"
    if name == "synthesized":
        return f"synthesis of session {one_line(event['session'])} written"
    if name == "stopped":
        spent = f", {event['spent']:.2f} spent" if event["spent"] is not None else ""
        done = f"{counted(event['experiments'], 'experiment')}, {event['kept']} kept, {event['crashed']} crashed{spent}"
        return f"{done}; `director.py run` goes on; stopped: {one_line(event['reason'], MAX_LINE_CHARACTERS)}"
    return None


def _best(best: Event) -> str:
    """The champion: its true value as far as it is known, else its result."""
    if best["mean"] is None:
        return f"best {one_line(best['metric'], 64)} {number(best['result'])} ({best['id'][:8]})"
    return f"best {one_line(best['metric'], 64)} {number(best['mean'])} ± {best['sd']:.2g} ({best['id'][:8]})"


def _clock(seconds: float) -> str:
    """A duration as 2:05 or 1:02:05."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def json_lines() -> Iterator[Tell]:
    """Every event as a line of JSON on standard output, at once."""
    yield lambda event: print(json.dumps(event, allow_nan=False), flush=True)


@contextmanager
def live() -> Iterator[Tell]:
    """What ends as a line on the terminal, and below it how things stand, kept up to date."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    board, console = Board(), Console()

    def now() -> Group:
        # How it stands takes a second line on a narrow terminal; what runs may be cut off.
        how, what = (lines := board.lines(time.monotonic()))[:1], lines[1:]
        return Group(*map(Text, how), *(Text(line, no_wrap=True, overflow="ellipsis") for line in what))

    with Live(
        get_renderable=now, console=console, refresh_per_second=REFRESHED_PER_SECOND, transient=True,
        redirect_stdout=False, redirect_stderr=False,
    ) as shown:  # fmt: skip

        def tell(event: Event) -> None:
            if line := board.take(event, time.monotonic()):
                console.print(Text(line), soft_wrap=True)
            shown.refresh()

        yield tell
