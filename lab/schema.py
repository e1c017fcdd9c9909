"""The vocabulary of the commons and the shape of a card. Pure: nothing here touches the disk.

`FIELDS` is the one table of a card's fields; validation derives from it, and so do the CLI's choices
and (from the next release of the protocol) the JSON Schema. A nested field is written with a dot.
Not covered: what a result means (`lab/decide.py`) and where a card is stored (`lab/cards.py`).
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from lab.errors import CardError

SCHEMA = 2

STATUSES = ("keep", "revert", "inconclusive", "crash", "retracted")
STATUS_ALIASES = {"discard": "revert"}
CATEGORIES = (
    "architecture", "optimizer", "hyperparams", "activation", "attention", "embedding", "normalization",
    "regularization", "scheduling", "initialization", "simplification", "combination", "ablation", "other",
)  # fmt: skip
ERROR_KINDS = ("exception", "diverged", "oom", "setting", "data", "device", "interrupted", "killed", "timeout")
PHASES = ("import", "prepare", "compile", "train", "evaluate", "record")
# What each kind of event may say about a card that exists.
EVENT_FIELDS = {
    "annotate": (
        "hypothesis", "category", "tags", "lesson", "session", "agent", "prior_knowledge_used", "config_diff",
        "results",
    ),
    "decide": ("status",),
}  # fmt: skip
MAX_LOSS_CURVE_POINTS = 64

Card = dict[str, Any]


class Field(NamedTuple):
    """One row of the table: dotted name, a key of `TYPES`, whether null is allowed, and its meaning."""

    name: str
    type: str
    nullable: bool
    meaning: str


class Type(NamedTuple):
    """How a value of a type is recognised, and the words that say what is allowed."""

    accepts: Callable[[Any], bool]
    words: str


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and value == value // 1  # 8.0 is whole too, as in JSON Schema


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_curve(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_LOSS_CURVE_POINTS and all(
        isinstance(point, list) and len(point) == 3 and _is_integer(point[0]) and _is_number(point[1])
        and (point[2] is None or _is_number(point[2])) for point in value
    )  # fmt: skip


def _is_difference(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(pair, list) and len(pair) == 2 for pair in value.values())


def _matches(pattern: str) -> Callable[[Any], bool]:
    fullmatch = re.compile(pattern).fullmatch
    return lambda value: isinstance(value, str) and fullmatch(value) is not None


def _one_of(names: tuple[str, ...]) -> Type:
    return Type(lambda value: value in names, "one of " + ", ".join(names))


TYPES = {
    "text": Type(_is_text, "text"),
    "texts": Type(_is_texts, "a list of texts"),
    "integer": Type(_is_integer, "a whole number"),
    "number": Type(_is_number, "a finite number"),
    "object": Type(lambda value: isinstance(value, dict), "an object"),
    "curve": Type(_is_curve, f"at most {MAX_LOSS_CURVE_POINTS} points [step, seconds, loss or null]"),
    "difference": Type(_is_difference, "an object of pairs, {name: [old, new]}"),
    "id": Type(_matches("[0-9a-f]{12,64}"), "12 to 64 hex characters"),
    "commit": Type(_matches("[0-9a-f]{4,64}"), "4 to 64 hex characters (what `git rev-parse HEAD` prints)"),
    "sha256": Type(_matches("[0-9a-f]{64}"), "64 hex characters"),
    "time": Type(_matches(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "a UTC time such as 2026-01-31T12:00:00.000Z"),
    "status": _one_of(STATUSES),
    "category": _one_of(CATEGORIES),
    "error kind": _one_of(ERROR_KINDS),
}

FIELDS = (
    Field("schema", "integer", False, "version of this table"),
    Field("id", "id", False, "the card's name; for a card made by a run it is the run's id"),
    Field("run_id", "id", True, "the run that made the card; null when written by hand"),
    Field("timestamp", "time", False, "when the card was written, UTC"),
    Field("session", "text", True, "the series of experiments it belongs to (the branch autoresearch/<session>)"),
    Field("agent", "text", True, "who proposed the experiment"),
    Field("track", "text", True, "what must be equal for two results to be compared"),
    Field("preset", "text", True, "the set of defaults that train.py started from"),
    Field("platform", "object", True, "the machine"),
    Field("platform.device", "text", True, "cuda, mps or cpu"),
    Field("platform.device_name", "text", True, "the device as its maker calls it"),
    Field("platform.memory_gb", "number", True, "device memory, GiB"),
    Field("platform.cpu_count", "integer", True, "CPU cores the process may use"),
    Field("platform.framework", "text", True, "what computes: cuda, rocm, mps or cpu"),
    Field("platform.torch", "text", True, "version of torch"),
    Field("platform.os", "text", True, "operating system and architecture"),
    Field("commit", "commit", True, "the commit the run started from"),
    Field("parent_commit", "commit", True, "the first parent of that commit"),
    Field("train_sha256", "sha256", True, "SHA-256 of train.py as it ran"),
    Field("edit_key", "text", True, "hash of train.py's meaning: equal keys are repeats"),
    Field("hypothesis", "text", True, "what was tried and why it should help"),
    Field("category", "category", True, "what kind of change it is"),
    Field("tags", "texts", False, "free labels"),
    Field("config", "object", True, "every upper-case constant of train.py"),
    Field("config_diff", "difference", True, "{name: [old, new]} against the champion of that moment"),
    Field("results", "object", False, "what was measured; null is unknown"),
    Field("results.val_bpb", "number", True, "validation bits per byte, lower is better; null for a crash"),
    Field("results.val_bpb_stderr", "number", True, "standard error of val_bpb over the evaluation's text"),
    Field("results.delta", "number", True, "val_bpb minus the champion's, negative is better"),
    Field("results.delta_stderr", "number", True, "standard error of delta"),
    Field("results.peak_vram_mb", "number", True, "peak memory, MiB"),
    Field("results.training_seconds", "number", True, "training time under the budget, seconds"),
    Field("results.total_seconds", "number", True, "from start to summary, seconds"),
    Field("results.num_steps", "integer", True, "optimizer steps"),
    Field("results.total_tokens_M", "number", True, "tokens trained on, millions"),
    Field("results.mfu_percent", "number", True, "model FLOP/s as a share of the device's own peak, percent"),
    Field("results.num_params", "integer", True, "parameters"),
    Field("results.num_params_M", "number", True, "parameters, millions"),
    Field("results.estimated_flops", "number", True, "FLOPs of the whole training, counted from the model"),
    Field("results.depth", "integer", True, "layers"),
    Field("results.tokens_per_second", "number", True, "training throughput"),
    Field("results.utilisation", "number", True, "share of the documents' tokens that packing kept"),
    Field("results.eval_tokens", "integer", True, "tokens evaluated on"),
    Field("results.loss_curve", "curve", True, "training loss: [step, seconds, loss]"),
    Field("seed", "integer", True, "seed of the run"),
    Field("status", "status", False, "what became of the change"),
    Field("lesson", "text", True, "what was learnt"),
    Field("prior_knowledge_used", "texts", False, "ids of the cards that led here"),
    Field("novelty", "object", True, "whether it had been tried before"),
    Field("decision", "object", True, "the verdict when the run ended, and against what"),
    Field("decision.status", "status", False, "the verdict"),
    Field("decision.reason", "text", False, "why, in one line"),
    Field("decision.champion", "id", True, "the card it was compared with; null when it was the first"),
    Field("decision.noise_prior", "number", True, "assumed standard deviation between repeats, relative to val_bpb"),
    Field("decision.probability", "number", True, "probability that it beats the champion"),
    Field("error", "object", True, "why there is no result"),
    Field("error.kind", "error kind", False, "the kind of failure"),
    Field("error.phase", "text", True, "where the run was: " + ", ".join(PHASES)),
    Field("error.summary", "text", False, "the failure in one line"),
    Field("error.tail", "texts", False, "the last lines of the traceback or the log"),
    Field("artifacts", "object", True, "files the run left, by name, relative to its run folder"),
)

# The table in the form that validation walks: (field, parent object or "", key, type).
_ROWS = tuple((field, *field.name.rpartition(".")[::2], TYPES[field.type]) for field in FIELDS)
_TOP_LEVEL = tuple(field for field, parent, _, _ in _ROWS if not parent)
RESULT_NAMES = tuple(key for _, parent, key, _ in _ROWS if parent == "results")


def complete(values: Card) -> Card:
    """`values` as a whole card in the table's order, its results too: unknown is null or [], other keys follow.

    Nothing is checked: see `validate_card`.
    """
    card: Card = {field.name: [] if field.type == "texts" else None for field in _TOP_LEVEL}
    card |= {"schema": SCHEMA, "results": {}} | values
    if isinstance(card["results"], dict):
        card["results"] = dict.fromkeys(RESULT_NAMES) | card["results"]
    return card


def validate_card(card: Card) -> None:
    """Raise CardError naming the field, the value and what is allowed. Unknown keys are accepted."""
    if not isinstance(card, dict):
        raise CardError(f"a card must be an object, not {_shown(card)}")
    _refuse_non_finite(card, "")
    for field, parent, key, type_ in _ROWS:
        holder = card.get(parent) if parent else card
        if not isinstance(holder, dict):
            continue  # a null parent; a parent of the wrong type was refused at its own row
        value = holder.get(key)
        if not (field.nullable if value is None else type_.accepts(value)):
            raise CardError(
                f"card field {field.name}: {_shown(value)} is not allowed; "
                f"it must be {type_.words}{' or null' if field.nullable else ''}"
            )
    bpb, status = card["results"].get("val_bpb"), card["status"]
    if status == "crash" and bpb is not None:
        raise CardError(f"card field results.val_bpb: {bpb} is not allowed; a crash has no result, it must be null")
    if status in ("keep", "revert") and bpb is None:
        raise CardError(f"card field results.val_bpb: null is not allowed; a card with status {status} needs a result")


def _refuse_non_finite(value: Any, place: str) -> None:
    """Raise CardError where `value` holds NaN or infinity, at any depth: JSON has no such numbers."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CardError(f"card field {place}: {value} is not a finite number; an unknown value is null")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{place}[{index}]")


def _shown(value: Any) -> str:
    """The value as a message names it: one line, cut when long."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
