"""A job on the machine that runs it: check out, run, stay until the results are fetched, and leave nothing behind.

    python -m lab.engines.node FOLDER        # the folder holds an opened parcel; see `lab/engines/parcel.py`

It leaves its parent at once (the process started here ends, a child of it goes on), because what starts it may be
killed together with all its children. Standard input is the line to whoever wants the run: {"stop": "why"} ends the
command, and when the line breaks the command is ended and the folder removed. Standard output says nothing, but is
open as long as we live. How it ended is FOLDER/ended.json: {"end": "exit", "code": 0}, or "overtime", "stopped" or
"refused" with a "text". What the run's own card tells of a crash is error.json in the run folder.

The command has the packages of the environment that this Python is in, and its records go into FOLDER.
Not covered: Windows.
"""

import json
import os
import select
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

from lab.cards import card_path
from lab.engines.parcel import other_data, unpack
from lab.errors import LabError, StoreError
from lab.interrupts import interruptible
from lab.outcome import ERROR
from lab.runner import OvertimeError, StoppedError, run_group
from lab.store import read_json, replace

GONE = "whoever wanted this run is gone"


class Line:
    """The line to whoever wants the run, on a descriptor that is read without waiting."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.broken = descriptor, False
        self._read = b""

    def said(self, wait: float = 0.0) -> str | None:
        """Why the run is to be ended; None where nobody says so, for `wait` seconds."""
        while not self.broken and select.select([self.descriptor], [], [], wait)[0]:
            piece = os.read(self.descriptor, 65536)
            self.broken = not piece
            self._read += piece
        if self.broken:
            return GONE
        line, end, _ = self._read.partition(b"\n")
        return str(json.loads(line)["stop"]) if end else None


def environment(told: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment of the command: this machine's, what the run is told, and the places here."""
    # Ray sets it to the CPUs of a task where the owner of the machine has not; the run is told where that matters.
    ours = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "PYTHONPATH")}
    house = Path(sys.prefix)
    places = {
        "AUTORESEARCH_RUN_DIR": str(folder / "run"), "AUTORESEARCH_RUNS_DIR": str(folder / "runs"),
        "KNOWLEDGE_DIR": str(folder / "knowledge"), "UV_PROJECT_ENVIRONMENT": str(house), "UV_NO_SYNC": "1",
        "PATH": f"{house / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # For a project that has no lab/ of its own; what lies beside the script comes first.
        "PYTHONPATH": os.pathsep.join(filter(None, [told.get("PYTHONPATH"), str(folder)])),
    }  # fmt: skip
    return ours | told | places


def execute(folder: Path, line: Line) -> dict[str, Any]:
    """Run the job of an opened parcel; how it ended."""
    try:
        job, run = read_json(folder / "job.json"), folder / "run"
        run.mkdir(exist_ok=True)
        told = environment(job["told"], folder)
        if differs := other_data(job):
            raise StoreError(differs)

        def look() -> str | None:
            return line.said() or other_data(job)  # which the run may have prepared only now

        command = [str(run) if word == job["folder"] else word for word in job["command"]]
        try:
            code = run_group(command, unpack(folder), told, run / job["log"], limit=job["limit"], look=look)
        finally:
            (run / ERROR).unlink(missing_ok=True)  # nobody else is to say so
        _keep_error(folder, told.get("AUTORESEARCH_RUN_ID", ""))
        return {"end": "exit", "code": code}
    except OvertimeError as error:
        return {"end": "overtime", "text": str(error)}
    except StoppedError as error:
        return {"end": "stopped" if line.said() else "refused", "text": str(error)}
    except LabError as error:
        return {"end": "refused", "text": str(error)}


def _keep_error(folder: Path, run: str) -> None:
    """Put beside the results what the card that the run left here says of a crash: its error and its loss curve."""
    place, path = folder / "run" / ERROR, card_path(folder / "knowledge", run)
    if run and path.exists() and (card := read_json(path))["error"]:
        replace(place, {"error": card["error"], "loss_curve": card["results"].get("loss_curve")})


def main(arguments: list[str]) -> NoReturn:
    """`FOLDER`, an opened parcel."""
    if len(arguments) != 1:
        sys.exit("usage: python -m lab.engines.node FOLDER (an engine starts it, nobody else needs to)")
    folder = Path(arguments[0])
    if os.fork():
        os._exit(0)
    os.setsid()
    line = Line(0)
    try:
        with interruptible():
            replace(folder / "ended.json", execute(folder, line))
            while not line.broken:
                line.said(wait=60.0)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
