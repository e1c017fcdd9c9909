"""Whether the kernel has ended a process of ours because memory was full.

    before = oom_kills()
    code = run_group(...)
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL) and memory_ran_out(before):
        ...                                                     # the card's error is "oom", not "killed"

Not covered: other systems than Linux, the memory of a GPU, and an allocation that is refused (MemoryError).
"""

from pathlib import Path


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has ended for want of memory so far, None where it does not tell.

    Those of our control group (version 2, else 1) where it counts them, else those of the whole machine: see
    memory.events in the kernel's cgroup-v2.rst, and oom_kill in proc(5) under vmstat.
    """
    counters = ["proc/vmstat"]
    for line in _text(root / "proc/self/cgroup").splitlines():
        controllers, _, place = line.partition(":")[2].partition(":")
        if "memory" in controllers.split(","):
            counters.insert(0, f"sys/fs/cgroup/memory{place}/memory.oom_control")
        elif place and not controllers:
            counters.insert(0, f"sys/fs/cgroup{place}/memory.events")
    for counter in counters:
        for line in _text(root / counter).splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return None


def memory_ran_out(before: int | None) -> bool:
    """Whether the kernel has ended somebody for want of memory since `oom_kills` gave `before`."""
    return before is not None and (oom_kills() or 0) > before


def _text(path: Path) -> str:
    """A file of the kernel's; empty where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
