"""Where an experiment's command runs when not on a slot of this machine: an engine takes a job and fills its folder.

    engine = RayEngine(address, gpus=1)                 # lab/engines/ray.py
    code = engine.run(job, look)                        # the run folder is here when this returns
    engine.close()

An engine writes no card: it brings back what the run wrote, and whoever called it makes the card from that.
Not covered: a run on this machine, which needs no engine (`lab/runner.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lab.errors import LabError


class EngineError(LabError):
    """An engine could not run a job: nobody has what it asks for, or the machines were lost."""

    kind = "device"


class Job(NamedTuple):
    """A command to run in a checkout of a commit, somewhere.

    `files` {path from the project's folder: content} are put over the checkout. `told` is what the command finds in its
    environment. What the run folder `folder` holds already goes along, and a word of the command that is the folder's
    path becomes the path it has there. `log` is the name of the log in it, `limit` are seconds, and `requires` what an
    item of the queue asks for: {"device": "cuda", "min_memory_gb": 40, "labels": ["H100", "rack=a"]}.
    """

    project: Path
    commit: str
    files: Mapping[str, bytes]
    command: Sequence[str]
    told: Mapping[str, str]
    folder: Path
    log: str
    limit: float
    requires: Mapping[str, Any]


class Engine(Protocol):
    """What runs jobs elsewhere."""

    def run(self, job: Job, look: Callable[[], str | None]) -> int:
        """Run the job and bring its folder back; the exit code of its command, -N for signal N.

        `look` is called about once a second from when the command has begun; the run is ended when it returns a text,
        and StoppedError says that text. OvertimeError at the limit, EngineError where there is no telling how the
        command ended. KeyboardInterrupt passes through when the run has been ended.
        """
        ...

    def connect(self) -> str:
        """Get ready to run jobs; the address at which other processes find the same machines. EngineError if not."""
        ...

    def close(self) -> None:
        """Let go of everything that is held for further jobs."""
        ...
