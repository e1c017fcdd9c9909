"""What a job asks of a Ray cluster, and which of its nodes have it. Pure: nodes are what `ray.nodes()` returns.

    wish = demand({"device": "cuda", "labels": ["H100", "rack=a"]}, gpus=1, cpus=None, memory_gb=None, labels={})
    if any(wish.fits(node) for node in nodes):
        actor.options(**wish.options(nodes))

A label is "H100", the accelerator's type as Ray names it, or "key=value", a label that a node was started with. The
memory of a GPU is not known to Ray: it is the label memory_gb of a node, that of one of its devices.
Not covered: whether a node that has it is free, which Ray decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lab.engines import EngineError

MEMORY_LABEL = "memory_gb"

Node = Mapping[str, Any]  # Alive, Resources, Labels


class Demand(NamedTuple):
    """What a node must have; `cpus` None is all of the smallest node without a GPU asked for, else one."""

    gpus: float
    cpus: float | None
    memory_gb: float | None  # of the node
    device_memory_gb: float | None  # of one of its devices, at least
    accelerator: str | None
    labels: Mapping[str, str]

    def fits(self, node: Node) -> bool:
        """Whether the node is alive and has it all when nothing else is on it."""
        has, marks = node["Resources"], node.get("Labels") or {}
        return bool(
            node["Alive"]
            and has.get("GPU", 0) >= self.gpus
            and has.get("CPU", 0) >= (self.cpus or 1)
            and has.get("memory", 0) >= (self.memory_gb or 0) * 2**30
            and (self.accelerator is None or has.get(f"accelerator_type:{self.accelerator}", 0) > 0)
            and all(marks.get(key) == value for key, value in self.labels.items())
            and (self.device_memory_gb is None or _device_memory(node) >= self.device_memory_gb)
        )

    def options(self, nodes: Sequence[Node]) -> dict[str, Any]:
        """The same as options of a Ray task, given the nodes of now, of which at least one fits."""
        fitting = [node for node in nodes if self.fits(node)]
        whole = min(node["Resources"]["CPU"] for node in fitting)
        labels = dict(self.labels)
        if self.device_memory_gb is not None:
            enough = sorted({node["Labels"][MEMORY_LABEL] for node in fitting})
            labels[MEMORY_LABEL] = f"in({', '.join(enough)})"
        found = {
            "num_gpus": self.gpus or None, "num_cpus": self.cpus or (1 if self.gpus else whole),
            "memory": int(self.memory_gb * 2**30) if self.memory_gb else None, "accelerator_type": self.accelerator,
            "label_selector": labels or None,
        }  # fmt: skip
        return {name: value for name, value in found.items() if value is not None}

    def words(self) -> str:
        """What is asked for, in words."""
        said = [
            f"{self.gpus:g} GPU" if self.gpus else "",
            f"{self.cpus:g} CPU" if self.cpus else "",
            f"{self.memory_gb:g} GB of memory" if self.memory_gb else "",
            self.accelerator or "",
            f"{self.device_memory_gb:g} GB on the device" if self.device_memory_gb else "",
            *(f"label {key}={value}" for key, value in self.labels.items()),
        ]
        return ", ".join(filter(None, said)) or "1 CPU"


def _device_memory(node: Node) -> float:
    try:
        return float((node.get("Labels") or {}).get(MEMORY_LABEL, 0))
    except ValueError:
        return 0.0


def demand(
    requires: Mapping[str, Any], gpus: float, cpus: float | None, memory_gb: float | None, labels: Mapping[str, str]
) -> Demand:
    """The engine's own wishes (`gpus` and so on) and what an item of the queue requires, as one.

    EngineError where they contradict each other, or a cluster cannot offer what is asked for.
    """
    device, least = requires.get("device"), requires.get("min_memory_gb")
    if device == "mps":
        raise EngineError("the item requires device mps, which Ray does not know; run it on a local worker there")
    gpus = {"cuda": gpus or 1.0, "cpu": 0.0, None: gpus}[device]
    wanted, accelerator = dict(labels), None
    for label in requires.get("labels") or ():
        key, equals, value = label.partition("=")
        if not equals:
            accelerator = label
        elif wanted.setdefault(key, value) != value:
            raise EngineError(f"the item requires {label}, and this engine {key}={wanted[key]}; start another engine")
    if least and not gpus:
        memory_gb, least = max(memory_gb or 0.0, least), None
    return Demand(gpus, cpus, memory_gb, least, accelerator, wanted)


def offers(nodes: Sequence[Node]) -> str:
    """What the nodes of a cluster have, in words."""
    alive = [_offer(node) for node in nodes if node["Alive"]]
    return "; ".join(f"{alive.count(offer)} x ({offer})" for offer in dict.fromkeys(alive)) or "no node"


def _offer(node: Node) -> str:
    has = node["Resources"]
    types = [name.removeprefix("accelerator_type:") for name in has if name.startswith("accelerator_type:")]
    marks = [f"{key}={value}" for key, value in (node.get("Labels") or {}).items() if not key.startswith("ray.io/")]
    counts = [f"{has[name]:g} {name}" for name in ("CPU", "GPU") if has.get(name)]
    return ", ".join([*counts, f"{has.get('memory', 0) / 2**30:.0f} GB", *types, *marks])
