"""The options that say where experiments run, for `worker.py work` and `director.py run`.

@command(*ENGINE, ...)
def cmd_x(args):
    with engine_of(args, tell) as engine: ...           # None: on the devices of this machine
"""

from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.cli import Arguments, arg
from lab.engines import Engine
from lab.errors import SettingError
from lab.options import amount

ENGINES = ("local", "ray")


def _labels(text: str) -> dict[str, str]:
    """KEY=VALUE,... of a node."""
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    if not all(key.strip() and equals and value.strip() for key, equals, value in pairs):
        raise ArgumentTypeError(f"{text!r} is not KEY=VALUE,...")
    return {key.strip(): value.strip() for key, _, value in pairs}


ENGINE = (
    arg("--engine", choices=ENGINES, default=ENGINES[0], help="this machine's devices, or a Ray cluster"),
    arg("--address", metavar="HOST:PORT", help="of the cluster (default: $RAY_ADDRESS, else one is started here)"),
    arg("--gpus", type=amount, metavar="N", help="its GPUs, such as 0.5 (default: 1 where the cluster has any)"),
    arg("--cpus", type=amount, metavar="N", help="its CPU cores (default: 1 with a GPU, else all of a node)"),
    arg("--memory-gb", type=amount, metavar="GB", help="its memory on a node"),
    arg("--labels", type=_labels, metavar="KEY=VALUE,...", help="labels that a node must have"),
)
_OF_RAY = ("address", "gpus", "cpus", "memory_gb", "labels")


@contextmanager
def engine_of(args: Arguments, tell: Callable[..., object]) -> Iterator[Engine | None]:
    """The engine that was asked for, closed afterwards; None is this machine. SettingError for options without it."""
    if args.engine == ENGINES[0]:
        if given := [name for name in _OF_RAY if getattr(args, name) is not None]:
            raise SettingError(f"--{given[0].replace('_', '-')} is for a cluster; add --engine ray")
        yield None
        return
    from lab.engines.ray import RayEngine  # which most commands have no use for

    engine = RayEngine(args.address, args.gpus, args.cpus, args.memory_gb, args.labels, tell=tell)
    try:
        yield engine
    finally:
        engine.close()


def for_workers(args: Arguments, address: str) -> list[str]:
    """The same options for a worker, which connects to the cluster at `address`."""
    words = [f"--engine={args.engine}", f"--address={address}"]
    numbers = {"gpus": args.gpus, "cpus": args.cpus, "memory-gb": args.memory_gb}
    words += [f"--{name}={value:g}" for name, value in numbers.items() if value is not None]
    labels = ",".join(f"{key}={value}" for key, value in (args.labels or {}).items())
    return [*words, *([f"--labels={labels}"] if labels else [])]
