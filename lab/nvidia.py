"""What nvidia-smi tells of this machine's GPUs: which there are, how they are, which processes compute on them.

    gpus()                       # [Gpu(number=0, uuid="GPU-5d5b...", name="NVIDIA H100 80GB HBM3", ...)]
    computing("GPU-5d5b...")     # [Process(pid=4711, name="python", memory_mb=1024)]

The program, not a binding: it is there wherever the driver is, and its own process is the one that hangs with it.
Not covered: AMD (rocm-smi), Jetson boards, which have no nvidia-smi, and graphics that compute nothing.
"""

import re
from pathlib import PurePath
from typing import NamedTuple

from lab.brief import one_line
from lab.errors import DeviceError

ANSWER_SECONDS = 10.0  # it takes one or two where the driver has to wake up
FIELDS = "uuid,memory.total,memory.used,utilization.gpu,temperature.gpu,mig.mode.current,name"
NO_GPU = "No devices were found"
PROCESS_FIELDS = "gpu_uuid,pid,used_memory,process_name"  # a name may have commas: it comes last


class Gpu(NamedTuple):
    """A GPU, or a part of one (MIG), whose `parent` is the uuid of the whole; None is what the driver does not tell.

    `number` is nvidia-smi's index, which a part shares with its whole. Of a part the memory is not known, and how busy
    and how warm it is, is that of the whole.
    """

    number: int
    uuid: str
    name: str
    memory_mb: int | None
    memory_used_mb: int | None
    utilisation_percent: int | None
    temperature_c: int | None
    parent: str | None = None


class Process(NamedTuple):
    """A process that computes on a GPU; `name` is that of its program, without the folder."""

    pid: int
    name: str
    memory_mb: int | None


def gpus() -> list[Gpu]:
    """The GPUs in nvidia-smi's order, each that is cut up (MIG) as its parts; none where there is no nvidia-smi.

    DeviceError where nvidia-smi is there and does not answer.
    """
    found = []
    for number, (uuid, *state, mig, name) in enumerate(_rows("--query-gpu", FIELDS)):
        memory, used, busy, warm = map(_number, state)
        gpu = Gpu(number, uuid, name, memory, used, busy, warm)
        found += _parts(gpu) if mig == "Enabled" else [gpu]
    return found


def computing(uuid: str) -> list[Process]:
    """The processes that compute on this GPU, by id. Those on a part (MIG) are not told apart: none are named for it.

    DeviceError where nvidia-smi does not answer. In a container the ids may be those of the host.
    """
    rows = _rows("--query-compute-apps", PROCESS_FIELDS)
    found = [
        Process(int(pid), one_line(PurePath(name).name or name, 40), _number(memory))
        for at, pid, memory, name in rows
        if at == uuid and pid.isdecimal()
    ]
    return sorted(found)


def _parts(gpu: Gpu) -> list[Gpu]:
    """The parts of a GPU that is cut up; nvidia-smi only lists them."""
    listed = re.split(r"(?m)^(?=GPU )", _ask("-L") or "")
    mine = next((block for block in listed if f"(UUID: {gpu.uuid})" in block), "")
    return [
        gpu._replace(uuid=uuid, name=f"{gpu.name} MIG {kind}", memory_mb=None, memory_used_mb=None, parent=gpu.uuid)
        for kind, uuid in re.findall(r"(?m)^\s+MIG (\S+)\s+Device +\d+: +\(UUID: (MIG-[^)]+)\)", mine)
    ]


def _rows(query: str, fields: str) -> list[list[str]]:
    answer = _ask(f"{query}={fields}", "--format=csv,noheader,nounits")
    if answer is None or answer.startswith(NO_GPU):
        return []
    commas = fields.count(",")
    rows = [[cell.strip() for cell in line.split(",", commas)] for line in answer.splitlines() if line.strip()]
    if strange := [row for row in rows if len(row) <= commas]:
        raise _failure(f"says {one_line(', '.join(strange[0]))!r} where {fields} were asked for")
    return rows


def _ask(*arguments: str) -> str | None:
    """What nvidia-smi prints; None where there is none."""
    import subprocess  # 15 ms that a machine without a GPU need not spend

    command = ["nvidia-smi", *arguments]
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failure(f"cannot be started: {error.strerror}") from error
    try:
        output = child.communicate(timeout=ANSWER_SECONDS)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired as error:
        child.kill()  # and not waited for: one that hangs in the driver does not die either
        raise _failure(f"has not answered in {ANSWER_SECONDS:g} s") from error
    if child.returncode and not output.startswith(NO_GPU):
        raise _failure(f"failed with exit code {child.returncode}: {one_line(output)}")
    return output


def _failure(what: str) -> DeviceError:
    return DeviceError(f"nvidia-smi {what}; mend the driver, or set AUTORESEARCH_DEVICE=cpu")


def _number(cell: str) -> int | None:
    """A whole number; None for [N/A], [Not Supported] and the like."""
    return int(cell) if cell.isdecimal() else None
