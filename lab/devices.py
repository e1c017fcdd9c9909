"""The slots of this machine: devices on which one experiment runs at a time, and the locks that see to it.

    with take(run, owner, wait=600.0, tell=print) as slot:
        run_group(command, folder, os.environ | slot.environment(), log, held=(slot.fd,))

A lock is a file in one folder of the machine, $AUTORESEARCH_SLOTS (default ~/.cache/autoresearch-commons/slots), which
no setting of a project moves: two clones of one user share the devices. Several users share them where the variable
names one folder for all that each may write in (`chmod 1777`). The lock belongs to the open file: whoever is given
`slot.fd` holds it, and it is free when the last of them has closed it or is gone, by kill -9 too. The file holds who
took it, for others to read; nobody may rely on that, nor remove the file while it is held.

A number counts as torch does, among the GPUs that $CUDA_VISIBLE_DEVICES shows, in nvidia-smi's order (where GPUs
differ, torch has that order with CUDA_DEVICE_ORDER=PCI_BUS_ID). Not covered: a train.py that is started by hand takes
no slot; AMD's GPUs are found where AUTORESEARCH_DEVICE=cuda:0 names one; on Windows nobody reads who holds a slot.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from lab.brief import one_line
from lab.cards import machine, utc_now
from lab.errors import DeviceError, HeldError, StoreError
from lab.nvidia import Gpu, gpus
from lab.schema import ID_PATTERN
from lab.store import dump_json

POLL_SECONDS = 0.25
MAX_HOLDER_BYTES = 4096


class Slot(NamedTuple):
    """A device by its name, as AUTORESEARCH_DEVICE takes it, and what is known of it; `fd` holds the lock once taken.

    `memory_used_mb`, `utilisation_percent` and `temperature_c` are of the moment at which it was looked for.
    """

    name: str
    device_name: str | None
    memory_mb: int | None
    memory_used_mb: int | None = None
    utilisation_percent: int | None = None
    temperature_c: int | None = None
    uuid: str | None = None
    fd: int = -1

    @property
    def kind(self) -> str:
        """cuda, mps or cpu."""
        return self.name.partition(":")[0]

    @property
    def lock(self) -> Path:
        """The file of its lock. A GPU has one name wherever it is seen, other devices that of the machine."""
        named = os.environ.get("AUTORESEARCH_SLOTS")
        folder = Path(named).absolute() if named else Path.home() / ".cache" / "autoresearch-commons" / "slots"
        return folder / f"{self.uuid or f'{machine()}-{self.name}'.replace(':', '-')}.lock".replace("/", "-")

    def environment(self) -> dict[str, str]:
        """What makes train.py use exactly this device."""
        if self.uuid is None:
            return {"AUTORESEARCH_DEVICE": self.name}
        return {"CUDA_VISIBLE_DEVICES": self.uuid, "AUTORESEARCH_DEVICE": "cuda"}


class Holder(NamedTuple):
    """Who said to hold a slot, None where that cannot be read: text of others, all but `pid`, `run` and `since`."""

    pid: int | None
    run: str | None
    since: str | None
    owner: str | None
    project: str | None
    command: str | None


# Which there are.


def slots() -> list[Slot]:
    """The devices of this machine, fastest first, or those of them that $AUTORESEARCH_DEVICE names.

    "cuda" there means every GPU. DeviceError where it names none of them, or nvidia-smi fails.
    """
    wanted = os.environ.get("AUTORESEARCH_DEVICE", "")
    cuda = [] if wanted in ("cpu", "mps") else _cuda(wanted)
    apple = sys.platform == "darwin" and os.uname().machine == "arm64"
    found = [*cuda, *([_host("mps")] if apple else []), _host("cpu")]
    chosen = [slot for slot in found if wanted in ("", slot.name, slot.kind)]
    if not chosen:
        there = f"this machine has {', '.join(slot.name for slot in found)}"
        raise DeviceError(f"AUTORESEARCH_DEVICE={one_line(wanted)}: {there}; name one of these or unset it")
    return chosen


def _cuda(wanted: str) -> list[Slot]:
    shown = visible(gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    found = [
        Slot(f"cuda:{place}", *one[2:7], uuid=one.uuid)  # what is known of it has the same names there
        for place, one in enumerate(shown)
    ]
    if not found and re.fullmatch(r"cuda(:\d+)?", wanted):  # of a maker that we cannot ask; train.py will tell
        return [Slot("cuda:0" if wanted == "cuda" else wanted, None, None)]
    return found


def visible(found: list[Gpu], shown: str | None) -> list[Gpu]:
    """The GPUs that this CUDA_VISIBLE_DEVICES shows, in its order: indexes, or uuids as far as they are unique.

    As CUDA does, the list ends at the first that is not there; None shows all. One that is cut up means its parts.
    """
    if shown is None:
        return found
    chosen: list[Gpu] = []
    for name in map(str.strip, shown.split(",")):
        mine = [gpu for gpu in found if name == str(gpu.number) or name == gpu.parent]
        if not mine and re.match("(GPU|MIG)-.", name):
            mine = [gpu for gpu in found if gpu.uuid.startswith(name)][:2]
            mine = mine if len(mine) == 1 else []
        if not mine:
            break
        chosen += [gpu for gpu in mine if gpu not in chosen]
    return chosen


def _host(name: str) -> Slot:
    """The processor, or on Apple's chips the GPU in it."""
    model, memory = os.uname().machine if hasattr(os, "uname") else None, None
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    with suppress(AttributeError, OSError, ValueError):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return Slot(name, model, memory)


# Who holds them.


@contextmanager
def take(
    run: str,
    owner: str,
    wait: float | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> Iterator[Slot]:
    """Hold a free slot while the block runs, and after it as long as somebody who was given its `fd` does.

    It is any of the fastest kind. Waits up to `wait` seconds (None: for ever) while others hold them all, and calls
    `tell` once, saying who. HeldError at the end of the time, StoreError where the lock's file cannot be written.
    """
    found = slots()
    slot = _first_free([slot for slot in found if slot.kind == found[0].kind], wait, tell)
    try:
        _sign(slot, {"pid": os.getpid(), "run": run, "since": utc_now(), "owner": owner})
        yield slot
    finally:
        os.close(slot.fd)  # never unlocked: that would free it for the processes of the experiment, too


def holder(slot: Slot) -> Holder | None:
    """Who holds the slot, None while nobody does. StoreError where its lock cannot be tried."""
    if not slot.lock.is_file():
        return None
    descriptor = _try_lock(slot.lock)
    if descriptor is not None:
        os.close(descriptor)
        return None
    told: Any = None
    with suppress(OSError, ValueError, RecursionError), open(slot.lock, "rb") as file:
        told = json.loads(file.read(MAX_HOLDER_BYTES))
    told = told if isinstance(told, dict) else {}
    texts = {name: told[name] for name in Holder._fields if isinstance(told.get(name), str)}
    pid = told.get("pid")
    return Holder(
        pid if type(pid) is int and 0 < pid < 2**31 else None,
        _matching(ID_PATTERN, texts.get("run")),
        _matching(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", texts.get("since")),
        texts.get("owner"),
        texts.get("project"),
        texts.get("command"),
    )


def _matching(pattern: str, text: str | None) -> str | None:
    return text if text is not None and re.fullmatch(pattern, text, re.ASCII) else None


def _first_free(candidates: list[Slot], wait: float | None, tell: Callable[[str], object]) -> Slot:
    """Take the lock of the first that is free."""
    begun, told = time.monotonic(), False
    while True:
        for slot in candidates:
            if (descriptor := _try_lock(slot.lock)) is not None:
                return slot._replace(fd=descriptor)
        if told and wait is not None and time.monotonic() - begun >= wait:
            raise HeldError(f"no slot was free within {wait:g} s; wait longer, or end what runs: {_who(candidates)}")
        if not told:
            tell(f"waiting for a slot: {_who(candidates)}")
            told = True
        # Once more in any case: who only asks whether a slot is held (`holder`) holds it for a moment.
        time.sleep(POLL_SECONDS if wait is None else min(POLL_SECONDS, max(wait, 0.01)))


def _who(candidates: list[Slot]) -> str:
    return "; ".join(f"{slot.name} is held{_since(held)}" for slot in candidates if (held := holder(slot)))


def _since(held: Holder) -> str:
    since = f" since {held.since[:19]}Z" if held.since else ""
    run = f" for run {held.run}" if held.run else ""
    pid = f" by process {held.pid}" if held.pid else ""
    return f"{since}{run}{pid}" + (f" | {one_line(held.owner, 60)}" if held.owner else "")


def _try_lock(path: Path) -> int | None:
    """Try the lock of this file, made when missing: the descriptor that holds it, or None while another does."""
    from filelock import lock_descriptor  # 60 ms that a reader has no use for

    try:
        descriptor = _open(path)
    except OSError as error:
        raise StoreError(
            f"cannot lock {path}: {error.strerror}; make it writable, or set AUTORESEARCH_SLOTS"
        ) from error
    try:
        # One that was removed, or replaced, since it was opened keeps nobody out.
        if lock_descriptor(descriptor, blocking=False) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
            held, descriptor = descriptor, -1
            return held
    except FileNotFoundError:
        return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return None


def _open(path: Path) -> int:
    """Open the file. Whoever may write in its folder may take its lock, whatever the umask of its maker."""
    how = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)  # a link in a folder for all would have us write into our own files
    with suppress(FileNotFoundError):
        return os.open(path, how)  # not O_CREAT: Linux refuses that for another's file in a folder like /tmp
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, how | os.O_CREAT, 0o666)
    with suppress(OSError):
        os.chmod(path, path.parent.stat().st_mode & 0o666)
    return descriptor


def _sign(slot: Slot, about: dict[str, Any]) -> None:
    """Write down who holds the slot, which is a help to others and no more. Of the command not what may be secret."""
    with suppress(OSError):
        os.ftruncate(slot.fd, 0)  # the descriptor is new: it stands at the start
        about |= {"project": str(Path.cwd()), "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])}
        os.write(slot.fd, dump_json(about))
