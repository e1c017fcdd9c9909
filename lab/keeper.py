"""The process between us and a command: whatever happens, it ends everything that the command has started.

    python -I -S lab/keeper.py GIVEN,HELD,... COMMAND ...       # which only `lab.runner.run_group` calls
    ended = end_leftovers(run)                                  # after kill -9 of a worker and of its keeper

The keeper is told on its standard input, where end of file means: end it, or that who asked for it is gone. It tells
on standard output, a line each, "failed ERRNO" or "started PID", and "ended CODE" when the command has; it exits when
nobody is left. The command reads the descriptor GIVEN and prints where the keeper's standard error goes.

On Linux it is a subreaper: who detaches from the command, by setsid or a double fork, becomes its child, so it knows
exactly who is left. Elsewhere, or without ctypes, it walks the process table now and then and misses who detaches in
between. Not covered: Windows (`run_group` goes without it), processes of another user, and what others were asked to
start, such as a container. The keeper itself killed: the kernel takes the command along (Linux), `run_group` the rest.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

GRACE_SECONDS = 10.0  # for a command to record its end before it is killed
SETTLE_SECONDS = 5.0  # for who outlives it to end by itself: the recorder's watcher writes the card of a killed run
KILL_SECONDS = 60.0  # for killed processes to be gone: one may be stuck in a driver
LONGEST_SECONDS = GRACE_SECONDS + 2 * SETTLE_SECONDS + KILL_SECONDS + 10.0  # that all of this takes
POLL_SECONDS = 0.05
WALK_SECONDS = 2.0  # between two looks at the process table where there is no subreaper
MARKERS = ("AUTORESEARCH_RUN_ID", "AUTORESEARCH_FOR_RUN")  # in the environment of a run, and of who edits for it
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)


class Process(NamedTuple):
    """A line of the process table: the parent, and when it was born, which tells it from a later one of its number."""

    parent: int
    born: str


Table = dict[int, Process]
Look = Callable[[], Iterable[int]]  # who is there now


def processes() -> Table:
    """The processes of this machine that have not ended."""
    if not os.path.exists("/proc/self/stat"):
        return _told_by_ps()
    table = {}
    for pid in _everyone():
        if stat := _read(f"/proc/{pid}/stat"):
            # The name before it is in brackets, and may hold anything. What follows is in proc(5).
            state, parent, *more = stat.rpartition(b")")[2].split()
            if state not in b"ZX":
                table[pid] = Process(int(parent), more[17].decode())
    return table


def _everyone() -> Iterator[int]:
    """All of /proc, and who is born meanwhile: or one that forks and ends, and forks again, would never be seen."""
    seen = set[int]()
    while new := {int(name) for name in os.listdir("/proc") if name.isdigit()} - seen:
        seen |= new
        yield from new


def _told_by_ps() -> Table:
    import subprocess  # 15 ms that Linux has no use for

    command = ["ps", "-axo", "pid=,ppid=,stat=,lstart="]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as ps:
        lines = [line.split(None, 3) for line in ps.stdout or ()]
    found = {int(pid): Process(int(parent), born) for pid, parent, state, born in lines if state[0] != "Z"}
    return {pid: process for pid, process in found.items() if pid != ps.pid}


def _read(path: str) -> bytes:
    """A file of /proc; empty where the process is gone, or another user's."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


class Family:
    """Processes and their descendants. Whoever was seen once is known, also when its parent has gone."""

    def __init__(self) -> None:
        self.known: dict[int, str] = {}

    def look(self, table: Table, roots: Iterable[int]) -> set[int]:
        """Those of the family who live, `roots` among them."""
        known = {pid: born for pid, born in self.known.items() if pid in table and table[pid].born == born}
        known |= {pid: table[pid].born for pid in roots if pid in table}
        while new := {pid: one.born for pid, one in table.items() if pid not in known and one.parent in known}:
            known |= new
        self.known = known
        return set(known)


def end_leftovers(run_id: str) -> int:
    """End all processes of ours that have this run in their environment, and their descendants; how many they were.

    They have GRACE_SECONDS to end by themselves, as the recorder and a keeper do, before they are killed. Never ended
    are this process and its ancestors. Linux only: elsewhere it finds nobody.
    """
    if not os.path.exists("/proc/self/environ"):
        return 0
    family, found = Family(), set[int]()

    def look() -> set[int]:
        marked = {pid for pid in _everyone() if is_of(pid, run_id)}
        table = processes()
        marked -= _lineage(table)
        left = family.look(table, marked) | marked  # of the latter some may have ended, and left somebody in between
        found.update(left)
        return left

    _send(look(), signal.SIGTERM)
    if _outlast(look, GRACE_SECONDS):
        _kill(look)
    return len(found)


def is_of(pid: int, run_id: str) -> bool:
    """Whether a process of this user was told, by its environment, that it is of this run."""
    try:
        ours = os.stat(f"/proc/{pid}").st_uid == os.getuid()
    except OSError:
        return False  # it has ended
    told = _read(f"/proc/{pid}/environ").split(b"\0") if ours else []
    return any(f"{name}={run_id}".encode() in told for name in MARKERS)


def _lineage(table: Table) -> set[int]:
    """This process and its ancestors."""
    line, pid = set[int](), os.getpid()
    while pid in table and pid not in line:
        line.add(pid)
        pid = table[pid].parent
    return line


def _send(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):  # it has ended, or has become another user's
            os.kill(pid, number)


def _outlast(look: Look, seconds: float) -> bool:
    """Whether somebody is left after so long; at once when nobody is."""
    deadline = time.monotonic() + seconds
    while left := bool(look()):
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return left


def _kill(look: Look) -> None:
    """Kill until nobody is left. They are all stopped first, or some would fork while others are killed."""
    deadline = time.monotonic() + KILL_SECONDS
    while time.monotonic() < deadline:
        stopped = set[int]()
        while new := set(look()) - stopped:
            _send(new, signal.SIGSTOP)
            stopped |= new
        _send(stopped, signal.SIGKILL)
        if not _outlast(look, 10 * POLL_SECONDS):
            return
    print(f"keeper: these could not be ended: {sorted(look())}", file=sys.stderr)


class _Keeper:
    """The keeper of a command: `child` is the command's process, `code` its exit code once it has ended."""

    def __init__(self, command: list[str], given: int) -> None:
        self.adopts = _prctl(_SET_CHILD_SUBREAPER)
        self.family = Family()
        self.code: int | None = None
        self.bell = _bell()
        self.child = _start(command, given)
        _tell("started", self.child)

    def keep(self) -> None:
        """Wait for the end of the command, or to be told to end it; then see to it that nobody is left."""
        while self.code is None:
            heard, _, _ = select.select([0, self.bell], [], [], None if self.adopts else WALK_SECONDS)
            if 0 in heard or (self.bell in heard and set(os.read(self.bell, 4096)) != {signal.SIGCHLD}):
                break
            if self.reap() and not self.adopts:
                self.walk()
        self.end()

    def reap(self) -> bool:
        """Take in who has ended; whether we have children left, which a subreaper has as long as anybody is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self.child:
                self.code = os.waitstatus_to_exitcode(status)
                _tell("ended", self.code)

    def walk(self) -> set[int]:
        """The command's processes, as far as the process table tells."""
        return self.family.look(processes(), {os.getpid()}) - {os.getpid()}

    def left(self) -> set[int]:
        """Who is left, exactly so for a subreaper."""
        for _ in range(3):  # a parent that ends while the table is read may hide its child
            if not self.reap() and self.adopts:
                break
            if found := self.walk():
                return found
        return set()

    def group(self) -> set[int]:
        """The command's process group, where somebody is left of it."""
        self.reap()
        try:
            os.killpg(self.child, 0)
        except (ProcessLookupError, PermissionError):
            return set()
        return {-self.child}

    def end(self) -> None:
        """End everybody: asked first, then the command's group is killed, and at last who has left that."""
        _send(self.left(), signal.SIGTERM)
        _outlast(self.group, GRACE_SECONDS if self.code is None else SETTLE_SECONDS)
        _send(self.group(), signal.SIGKILL)
        if _outlast(self.left, SETTLE_SECONDS):
            _kill(self.left)


def _prctl(option: int, value: int = 1) -> bool:
    """Ask the kernel for something; whether it is done. Only Linux does."""
    if sys.platform != "linux":
        return False
    try:
        import ctypes
    except ImportError:  # Python was built without it
        return False
    return bool(ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value)) == 0)


def _bell() -> int:
    """A descriptor from which the number of each signal that comes can be read."""
    bell, clapper = os.pipe()
    os.set_blocking(clapper, False)
    signal.set_wakeup_fd(clapper, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)
    return bell


def _start(command: list[str], given: int) -> int:
    """Start the command in a process group of its own; its process. Where it cannot be started, tell so and exit."""
    keeper = os.getpid()
    trouble, done = os.pipe()  # the latter is closed by the start of another program
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            _prctl(_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != keeper:
                os._exit(1)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and a program would inherit that
                signal.signal(number, signal.SIG_DFL)
            for source, target in ((given, 0), (2, 1)):
                os.dup2(source, target)
            os.execvp(command[0], command)
        except OSError as error:
            os.write(done, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(given)
    os.close(done)
    if failure := os.read(trouble, 16):
        _tell("failed", int(failure))
        sys.exit(0)
    return child


def _tell(word: str, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody is there to hear it
        os.write(1, f"{word} {number}\n".encode())


def main(arguments: list[str]) -> None:
    """`GIVEN,HELD,... COMMAND ...`: the descriptors to read from and to keep open, and what to start."""
    given, *held = map(int, arguments[0].split(","))
    for descriptor in (given, *held):
        os.set_inheritable(descriptor, False)
    _Keeper(arguments[1:], given).keep()


if __name__ == "__main__":
    main(sys.argv[1:])
