"""Did others use the device while an experiment ran on it? A result under a time budget is worth less then.

    watch = Watch(slot, run)          # before the experiment starts, in the process that starts it
    watch.look()                      # about once a second
    watch.reason()                    # None, or "suspect_device: others used 0.9 of 2 cores on average"

On a GPU any process that computes there and is not the experiment's makes it suspect. On a processor others always do
something: what counts is how much of the cores that we may use they took on average, the hypervisor included. Ours is
what this process and all that descend from it used, the children that have ended too.

Nothing is told (None) of Apple's GPU, of a part of a GPU (MIG), of a container with a quota of CPU time, and where
there is no /proc. Not covered: a GPU's process that comes and goes between two looks, or that a container hides from
us; the load that others put on the processor beside an experiment on a GPU.
"""

import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from lab.devices import Slot
from lab.errors import DeviceError
from lab.keeper import is_of
from lab.nvidia import Process, computing

LOOK_SECONDS = 5.0
LEAST_SECONDS = 20.0  # a shorter time says little: what starts or ends beside it weighs too much
# Of the cores that we may use. Measured on 2 cores with a small transformer on 2 threads, medians of 8 bursts of a
# second: beside a load of 0.1 and 0.2 cores it made 5 to 10% fewer steps, hardly to be told from noise; beside 0.5 40%
# fewer, beside 1.0 65% (each thread waits for the slowest). A desktop at rest, with editor and browser open, should
# pass (we take that to be 0.1 of a laptop's cores at most); a long compilation or another training should not.
MAX_OTHERS_SHARE = 0.15
MAX_NAMED = 3
PROC = Path("/proc")


class Watch:
    """Looks at a slot while run `run` is on it; `reason` is of the time from its making to the last look."""

    def __init__(self, slot: Slot, run: str) -> None:
        self._slot, self._run = slot, run
        self._seen: dict[int, Process] = {}
        self._first = self._last = _sample() if slot.name == "cpu" else None
        self._next = time.monotonic() + LOOK_SECONDS
        self._blind = slot.name != "cpu" and slot.uuid is None

    def look(self) -> None:
        """Look, if the last time is at least LOOK_SECONDS ago; costs milliseconds, or as long as nvidia-smi takes."""
        if self._blind or time.monotonic() < self._next:
            return
        if self._slot.name == "cpu":
            self._last = _sample()
        else:
            try:
                self._seen |= {process.pid: process for process in foreign(self._slot, self._run, os.getpid()) or ()}
            except DeviceError:
                self._blind = True  # one that hangs would hold up whoever calls us, again and again
        self._next = time.monotonic() + LOOK_SECONDS

    def reason(self) -> str | None:
        """Why the result is suspect; None where nothing speaks against it, or nothing can be told."""
        if self._seen:
            named = [f"process {one.pid} ({one.name})" for one in list(self._seen.values())[:MAX_NAMED]]
            more = f" and {len(self._seen) - MAX_NAMED} more" if len(self._seen) > MAX_NAMED else ""
            was = "was" if len(self._seen) == 1 else "were"
            return f"suspect_device: {', '.join(named)}{more} {was} on {self._slot.name}"
        first, last = self._first, self._last
        if first is None or last is None or last.at - first.at < LEAST_SECONDS:
            return None
        others = ((last.busy - first.busy) - (last.ours - first.ours)) / (last.at - first.at)
        if others <= MAX_OTHERS_SHARE * last.cores:
            return None
        return f"suspect_device: others used {others:.1f} of {last.cores} cores on average"


def foreign(slot: Slot, run: str | None, root: int | None) -> list[Process] | None:
    """The processes that compute on the slot and belong neither to the run nor to the family of process `root`.

    None where that cannot be told. DeviceError where nvidia-smi does not answer.
    """
    if slot.uuid is None or slot.uuid.startswith("MIG") or not PROC.is_dir():
        return None
    found = computing(slot.uuid)
    if not found:
        return []
    table = _table()
    family = _family(table, root) if root else set()
    # One that is not in /proc has ended, or is seen from a container by its number outside: it may well be ours.
    return [one for one in found if one.pid in table and one.pid not in family and not (run and is_of(one.pid, run))]


class _Sample(NamedTuple):
    """CPU seconds up to a moment: of everybody on the cores that we may use, and of our family."""

    at: float
    busy: float
    ours: float
    cores: int


def _sample() -> _Sample | None:
    cores = _cores()
    try:
        lines = (PROC / "stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal (Linux, proc_stat(5)); of guests user tells already
    rows = [line.split() for line in lines if re.match(r"cpu\d", line)]
    mine = [[int(cell) for cell in row[1:9]] for row in rows if int(row[0][3:]) in cores]
    if not mine:
        return None
    table, at = _table(), time.monotonic()
    ours = sum(table[pid].ticks for pid in _family(table, os.getpid()))
    busy = sum(sum(row) - row[3] - row[4] for row in mine)
    hertz = os.sysconf("SC_CLK_TCK")
    return _Sample(at, busy / hertz, ours / hertz, len(mine))


def _cores() -> set[int]:
    """The cores that we may use; none under a quota, which neighbours cannot take and others within can."""
    try:
        quota = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()[0]
    except OSError:
        quota = "max"
    return os.sched_getaffinity(0) if quota == "max" and hasattr(os, "sched_getaffinity") else set()


class _Entry(NamedTuple):
    """A process: its parent, and the clock ticks that it and those of its children that have ended used."""

    parent: int
    ticks: int


def _table() -> dict[int, _Entry]:
    """Every process of the machine by its id."""
    found = {}
    for name in os.listdir(PROC):
        if name.isdecimal():
            try:
                cells = (PROC / name / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended since
            found[int(name)] = _Entry(int(cells[1]), sum(map(int, cells[11:15])))
    return found


def _family(table: dict[int, _Entry], root: int) -> set[int]:
    """The process and all that descend from it, as far as they are there."""
    children: dict[int, list[int]] = {}
    for pid, entry in table.items():
        children.setdefault(entry.parent, []).append(pid)
    family, fresh = set(), [root] if root in table else []
    while fresh:
        pid = fresh.pop()
        family.add(pid)
        fresh += children.get(pid, [])
    return family
