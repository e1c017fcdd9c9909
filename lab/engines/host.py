"""A job on a node of a Ray cluster, as the actor that opens its parcel there and hands out what it writes.

It travels as its code alone (pickled by value): on the node there is nothing of ours before the parcel is opened, so it
imports only the standard library. What runs the job is a program of its own (`lab/engines/node.py`).
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from typing import Any

PIECE_BYTES = 8 << 20  # of a file, in one message: must fit a small object store


class Host:
    """The actor of one job on a node."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="autoresearch-")
        self.program: Any = None

    def begin(self, parcel: bytes) -> str:
        """Open the parcel and start `lab/engines/node.py` on it; the node's name. A second call changes nothing."""
        if self.program is None:
            with tarfile.open(fileobj=BytesIO(parcel)) as tar:
                tar.extractall(self.folder)
            with open(f"{self.folder}/node.log", "wb") as log:
                self.program = subprocess.Popen(
                    [sys.executable, "-m", "lab.engines.node", self.folder],
                    cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                )  # fmt: skip
            self.program.wait()  # it goes on in a child of its own
            os.set_blocking(self.program.stdout.fileno(), False)
        return os.uname().nodename

    def stop(self, why: str) -> None:
        """Have the run ended."""
        with contextlib.suppress(BrokenPipeError):
            self.program.stdin.write(json.dumps({"stop": why}).encode() + b"\n")
            self.program.stdin.flush()

    def news(self, read: dict[str, int]) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
        """How the run ended, and what files have beyond the bytes that were read; in this order, so nothing is missed.

        Where the program that runs it is gone, it ended as "died".
        """
        ended = None
        try:
            ended = json.loads(self._read(f"{self.folder}/ended.json", 0))
        except FileNotFoundError:
            if self.program.stdout.read(1) is not None:  # b"": nobody holds the other end any more
                said = b""
                with contextlib.suppress(FileNotFoundError):
                    said = self._read(f"{self.folder}/node.log", 0)
                text = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
                ended = {"end": "died", "text": text or "the program that runs it was killed"}
                shutil.rmtree(self.folder, ignore_errors=True)  # as it would have done
        added = {}
        for name, at in read.items():
            with contextlib.suppress(FileNotFoundError):
                added[name] = self.piece(name, at)
        return ended, added

    def files(self) -> dict[str, int]:
        """The sizes of the plain files of the run that did not come with the parcel as they are."""
        with os.scandir(f"{self.folder}/run") as entries:
            plain = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
        return {entry.name: entry.stat().st_size for entry in plain if entry.stat().st_mtime != 0}

    def piece(self, name: str, at: int) -> bytes:
        """What a file of the run has from there on, as much as fits a small object store."""
        return self._read(f"{self.folder}/run/{name}", at)

    def _read(self, path: str, at: int) -> bytes:
        with open(path, "rb") as file:
            file.seek(at)
            return file.read(PIECE_BYTES)
