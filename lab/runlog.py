"""What a run's log says: the summary it ends with, or how it crashed. A log is untrusted text, and may be huge.

    read_log(Path("run.log"), "val_bpb", crashed=False)     # {"val_bpb": 0.9979, "num_steps": 953, ...}

Not covered: the loss curve, which the run itself records (`lab/recorder.py`).
"""

import re
from pathlib import Path
from typing import Any

from lab.errors import StoreError
from lab.outcome import make_error
from lab.schema import RESULT_NAMES

TAIL_BYTES = 65_536
_SIGNS = (("disk", "no space left on device"), ("oom", "out of memory"), ("oom", "outofmemory"))
_LINE = re.compile(r"^([A-Za-z_][0-9A-Za-z_]*):\s+([-+]?[0-9][0-9,]*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\s*$")


def read_log(path: Path, metric: str, crashed: bool) -> dict[str, Any]:
    """The results in the last lines of a log, each `name: value`; of a crash, `error` with its last lines.

    StoreError when the log cannot be read.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if crashed:
        said = [line.strip() for line in lines if line.strip()]
        words = " ".join(said[-3:]).lower()
        kind = next((kind for kind, sign in _SIGNS if sign in words), "exception")
        return {"error": make_error(kind, None, said[-1] if said else "the log is empty", said)}
    found = {match[1]: float(match[2].replace(",", "")) for line in lines if (match := _LINE.match(line))}
    return {name: _whole(value) for name, value in found.items() if name in (*RESULT_NAMES, metric)}


def _whole(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
