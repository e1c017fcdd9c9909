"""An append-only file of JSON lines, read on from a position; its older lines may be dropped.

    journal = Journal(knowledge / "queue-history.jsonl")
    end = journal.append(journal.end(), [{"event": "add"}])     # whoever appends holds a lock of the caller's
    journal.since(0)                                            # ([{"event": "add"}], end)

A position counts the bytes of all lines that were ever written: the first line of the file says how many were dropped,
so a position stays true when they are. A last line without its end was never finished, by a killed writer or on a full
disk: it is passed over, and cut off by who appends next.
Not covered: the lock, and what the lines mean (`lab/queue.py`).
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lab.errors import StoreError
from lab.store import replace

SCHEMA = 1
HEADER_BYTES = 200  # the first line is shorter
Event = dict[str, Any]


class Journal(NamedTuple):
    """The file; it need not exist."""

    path: Path

    def end(self) -> int:
        """The position behind the last whole line; 0 without a file. StoreError when it cannot be read."""
        try:
            with open(self.path, "rb") as file:
                start = self._start(file)
                return _whole_end(file) - start
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise self._unreadable(error) from error

    def since(self, position: int | None = None) -> tuple[list[Event], int]:
        """The whole lines from a position on, None: from the first that is there; and the position behind them.

        StoreError where a line is damaged, none starts there, or it has been dropped.
        """
        lines, position = self._since(position)
        found = []
        for line in lines:
            try:
                event = json.loads(line)
                if not isinstance(event, dict):
                    raise ValueError("no object")
            except (ValueError, RecursionError) as error:
                raise self._damaged(f"the line at position {position} is no event ({error})") from error
            position += len(line) + 1
            found.append(event)
        return found, position

    def append(self, position: int, events: Iterable[Event], wait: bool = True) -> int:
        """Write lines behind the last one, whose end is at this position; return the new end. All of them, or none.

        `wait` is for the disk: without it a power failure may take the lines back, a kill does not. StoreError when
        they cannot be written.
        """
        text = _lines(events)
        try:
            if not self.path.exists():
                replace(self.path, _header(position))
            with open(self.path, "r+b", buffering=0) as file:
                end = position + self._start(file)
                file.truncate(end)  # what a killed writer began
                file.seek(end)
                try:
                    if file.write(text) != len(text):
                        raise StoreError(f"cannot write {self.path}: the disk is full; free space there")
                    if wait:
                        os.fsync(file.fileno())
                except BaseException:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}; free space there") from error
        return position + len(text)

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        if self.path.exists():
            with open(self.path, "rb+") as file:
                os.fsync(file.fileno())

    def keep(self, events: Iterable[Event], end: int) -> None:
        """Put these lines in the place of all, with the same end. StoreError when it cannot be written."""
        text = _lines(events)
        replace(self.path, _header(end - len(text)) + text)

    def _since(self, position: int | None) -> tuple[list[bytes], int]:
        """The whole lines from a position on, None: from the first that is there; and the position of the first."""
        try:
            with open(self.path, "rb") as file:
                start = self._start(file)
                first = file.tell() - start
                position = first if position is None else position
                if position < first:
                    raise StoreError(f"{self.path}: what stood before position {first} was dropped, {position} too")
                file.seek(start + position - 1)
                text = file.read()
        except FileNotFoundError:
            return [], position or 0
        except OSError as error:
            raise self._unreadable(error) from error
        if text[:1] != b"\n":
            raise self._damaged(f"no line starts at position {position}: it was edited or cut")
        return text[1:].split(b"\n")[:-1], position

    def _start(self, file: BinaryIO) -> int:
        """Where in the file position 0 would be; the file is left behind its first line."""
        header, newline, _ = file.read(HEADER_BYTES).partition(b"\n")
        try:
            found = json.loads(header)
            schema, dropped = found["schema"], found["dropped"]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise self._damaged("it does not begin as a history does") from error
        if schema != SCHEMA or type(dropped) is not int or not newline:
            raise StoreError(f"{self.path} has schema {schema!r}, this version reads {SCHEMA}; use a newer version")
        file.seek(len(header) + 1)
        return len(header) + 1 - dropped

    def _damaged(self, what: str) -> StoreError:
        return StoreError(f"{self.path}: {what}; mend it, or move it away: what is open in the queue stays")

    def _unreadable(self, error: OSError) -> StoreError:
        return StoreError(f"cannot read {self.path}: {error.strerror}; make it readable")


def _header(dropped: int) -> bytes:
    return json.dumps({"schema": SCHEMA, "dropped": dropped}).encode() + b"\n"


def _lines(events: Iterable[Event]) -> bytes:
    return b"".join(json.dumps(event, allow_nan=False).encode() + b"\n" for event in events)


def _whole_end(file: BinaryIO) -> int:
    """Where the last whole line of a file ends."""
    end = os.fstat(file.fileno()).st_size
    while True:  # the header is a whole line
        start = max(0, end - 65536)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0 or start == 0:
            return start + place + 1
        end = start
