"""The vocabulary of the commons and the shape of its records. Pure: nothing here touches the disk.

`CARD`, `EVENT` and `NOTE` are the tables of the records' fields. Validation derives from them, and so do the CLI's
choices and the JSON Schemas in docs/ (`json_schema`). A nested field is written with a dot.
Not covered: what a result means (`lab/decide.py`) and where a record is stored (`lab/cards.py`, `lab/notes.py`).
"""

import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from lab.errors import CardError

SCHEMA = 2

ID_PATTERN = "[0-9a-f]{12,64}"
STATUSES = ("keep", "revert", "inconclusive", "crash", "retracted")
DECISIONS = STATUSES[:-1]  # a retraction is an event of its own
STATUS_ALIASES = {"discard": "revert"}
DIRECTIONS = ("min", "max")
CATEGORIES = (
    "architecture", "optimizer", "hyperparams", "activation", "attention", "embedding", "normalization",
    "regularization", "scheduling", "initialization", "simplification", "combination", "ablation", "other",
)  # fmt: skip
ERROR_KINDS = ("exception", "diverged", "oom", "setting", "data", "device", "disk", "interrupted", "killed", "timeout")
PHASES = ("import", "prepare", "compile", "train", "evaluate", "record")
# What a decision packet may ask for, and what becomes of the commit.
ACTIONS = ("promote", "branch_followup", "replicate", "retry", "abandon", "fix_and_retry", "investigate_crash")
STANDINGS = ("confirmed", "likely", "unclear", "refuted")  # of a finding
GIT_ACTIONS = ("keep_commit", "git_reset")
STRATEGIES = ("explore", "exploit", "combine", "ablation", "replicate")  # what the next experiments are for
# What each kind of event may say about a card that exists.
EVENT_FIELDS = {
    "annotate": (
        "hypothesis", "category", "tags", "lesson", "session", "agent", "prior_knowledge_used", "config_diff",
        "results",
    ),
    "decide": ("status",),
    "retract": ("reason",),
    "suspect": ("reason",),
    "confirm": ("reason",),
}  # fmt: skip
EVENT_KINDS = tuple(EVENT_FIELDS)
NOTE_KINDS = ("insight", "question", "memory", "answer")
PLOT_KINDS = ("progress", "coverage", "lineage", "loss")
EXPORT_FORMATS = ("tsv", "jsonl", "csv", "parquet")
MAX_LOSS_CURVE_POINTS = 64
MAX_NESTING = 100  # objects and lists in each other: not every parser follows deeper
LARGEST = sys.float_info.max

# A record as it is in memory: what its JSON holds.
Card = dict[str, Any]


class Field(NamedTuple):
    """One row of a table: dotted name, a key of `TYPES`, whether null is allowed, and its meaning."""

    name: str
    type: str
    nullable: bool
    meaning: str


class Type(NamedTuple):
    """How a value of a type is recognised, the words that say what is allowed, and the same as JSON Schema."""

    accepts: Callable[[Any], bool]
    words: str
    schema: dict[str, Any]


def is_number(value: Any) -> bool:
    """Whether a value is a number as records have it: finite, within the floats, and not true or false."""
    # Most are floats, a hundred in a loss curve: they are told first.
    known = type(value) is float or (isinstance(value, (int, float)) and not isinstance(value, bool))
    # An integer beyond the floats is a number to Python, and to nobody else who reads the file.
    return known and abs(value) <= LARGEST


def finite(value: Any) -> float | None:
    """`value` as a float, None when it is no number: results of any name may hold anything."""
    return float(value) if is_number(value) else None


def metric_value(card: Card) -> float | None:
    """What the card measured of its metric; None when unknown, or not a number that can be compared."""
    return finite(card["results"].get(card.get("metric") or "val_bpb"))


def _is_integer(value: Any) -> bool:
    return is_number(value) and value == value // 1  # 8.0 is whole too, as in JSON Schema


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_curve(value: Any) -> bool:
    if not isinstance(value, list) or len(value) > MAX_LOSS_CURVE_POINTS:
        return False
    return all(map(_is_point, value))


def _is_point(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    step, seconds, loss = value
    # What nearly all of the millions in a large commons are, told without a call.
    plain = type(step) is int and type(seconds) is float and type(loss) is float and 0 <= step < 2**53
    if plain and abs(seconds) + abs(loss) <= LARGEST:
        return True
    return _is_integer(step) and is_number(seconds) and (loss is None or is_number(loss))


def _is_difference(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(pair, list) and len(pair) == 2 for pair in value.values())


def _matching(pattern: str, words: str) -> Type:
    # re keeps what it has compiled: a reading command, which validates nothing, compiles nothing.
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return Type(lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None, words, schema)


def _one_of(names: tuple[str, ...]) -> Type:
    return Type(lambda value: value in names, "one of " + ", ".join(names), {"enum": list(names)})


_POINT = {
    "type": "array",
    "prefixItems": [{"type": "integer"}, {"type": "number"}, {"type": ["number", "null"]}],
    "minItems": 3,
    "maxItems": 3,
}
_PAIR = {"type": "array", "minItems": 2, "maxItems": 2}
TYPES = {
    "text": Type(_is_text, "text", {"type": "string"}),
    "texts": Type(_is_texts, "a list of texts", {"type": "array", "items": {"type": "string"}}),
    "integer": Type(_is_integer, "a whole number", {"type": "integer"}),
    "number": Type(is_number, "a finite number", {"type": "number"}),
    "true": Type(lambda value: value is True, "true", {"const": True}),
    "object": Type(lambda value: isinstance(value, dict), "an object", {"type": "object"}),
    "curve": Type(
        _is_curve,
        f"at most {MAX_LOSS_CURVE_POINTS} points [step, seconds, loss or null]",
        {"type": "array", "maxItems": MAX_LOSS_CURVE_POINTS, "items": _POINT},
    ),
    "difference": Type(
        _is_difference,
        "an object of pairs, {name: [old, new]}",
        {"type": "object", "additionalProperties": _PAIR},
    ),
    "id": _matching(ID_PATTERN, "12 to 64 hex characters"),
    # Not only hashes: the ledgers of other projects call their first row "baseline".
    "commit": _matching(
        "[0-9A-Za-z][0-9A-Za-z._-]{0,63}", "a commit's hash or name: at most 64 letters, digits, dots, dashes"
    ),
    "sha256": _matching("[0-9a-f]{64}", "64 hex characters"),
    "time": _matching(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z",
        "a UTC time such as 2026-01-31T12:00:00.000Z",
    ),
    "metric": _matching("[A-Za-z_][0-9A-Za-z_./-]{0,63}", "a name of at most 64 letters, digits and _ . / -"),
    "direction": _one_of(DIRECTIONS),
    "status": _one_of(STATUSES),
    "category": _one_of(CATEGORIES),
    "error kind": _one_of(ERROR_KINDS),
    "action": _one_of(ACTIONS),
    "git action": _one_of(GIT_ACTIONS),
    "event kind": _one_of(EVENT_KINDS),
    "note kind": _one_of(NOTE_KINDS),
}

CARD = (
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
    Field("platform.machine", "text", True, "which machine of its kind: a hash that tells nothing else of it"),
    Field("platform.torch", "text", True, "version of torch"),
    Field("platform.os", "text", True, "operating system and architecture"),
    Field("metric", "metric", False, "what is measured; its value is the member of results of this name"),
    Field("direction", "direction", False, "which values of the metric are better: min, the smaller; max, the larger"),
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
    Field("results.val_bpb", "number", True, "validation bits per byte; null for a crash"),
    Field("results.val_bpb_stderr", "number", True, "standard error of val_bpb over the evaluation's text"),
    Field("results.hidden_bpb", "number", True, "bits per byte of text that no run sees, from the checkpoint"),
    Field("results.hidden_stderr", "number", True, "standard error of hidden_bpb over that text"),
    Field("results.delta", "number", True, "the metric minus the champion's of that moment"),
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
    Field("phases", "object", True, "seconds spent in each phase, by the recorder's clock"),
    Field("status", "status", False, "what became of the change"),
    Field("lesson", "text", True, "what was learnt"),
    Field("prior_knowledge_used", "texts", False, "ids of the cards that led here"),
    Field("novelty", "object", True, "whether it had been tried before"),
    Field("decision", "object", True, "the decision packet: the verdict when the run ended, and what to do"),
    Field("decision.status", "status", False, "the verdict"),
    Field("decision.reason", "text", False, "why, in one line"),
    Field("decision.action", "action", True, "what to do next"),
    Field("decision.priority", "integer", True, "how soon: 1 first, 9 last"),
    Field("decision.git", "git action", True, "what becomes of the commit"),
    Field("decision.champion", "id", True, "the card it was compared with; null when it was the first"),
    Field("decision.parent", "id", True, "the card of what was edited, where that is known"),
    Field("decision.probability", "number", True, "probability of a true improvement over the champion"),
    Field("decision.same", "number", True, "probability of no effect at all"),
    Field("decision.expected", "number", True, "the true difference to expect, in the metric, signed as delta"),
    Field("decision.expected_sd", "number", True, "its standard deviation"),
    Field("decision.champion_mean", "number", True, "the champion's true value to expect, before this run"),
    Field("decision.champion_sd", "number", True, "its standard deviation"),
    Field("decision.noise", "number", True, "standard deviation between runs of one configuration, in the metric"),
    Field("decision.noise_basis", "text", True, "what that rests on"),
    Field("decision.repeats", "integer", True, "runs with new seeds that would settle it; null: too many, or unknown"),
    Field("error", "object", True, "why there is no result"),
    Field("error.kind", "error kind", False, "the kind of failure"),
    Field("error.phase", "text", True, "where the run was: " + ", ".join(PHASES)),
    Field("error.summary", "text", False, "the failure in one line"),
    Field("error.tail", "texts", False, "the last lines of the traceback or the log"),
    Field("artifacts", "object", True, "files the run left, by name, relative to its run folder"),
    Field("source", "object", True, "where an imported card came from: file, line, columns, cells"),
    Field("quarantined", "text", True, "why the run is suspect; it takes no part in verdicts until it is confirmed"),
    Field("confirmed", "true", True, "true once somebody stood up for it (a confirm event)"),
    Field("status_before", "status", True, "what the status was before a retraction"),
    Field("retraction_reason", "text", True, "why it was retracted (a retract event)"),
)

EVENT = (
    Field("schema", "integer", False, "version of this table"),
    Field("id", "id", False, "the event's name"),
    Field("card", "id", False, "the card it is about"),
    Field("kind", "event kind", False, "what it says"),
    Field("timestamp", "time", False, "when it was said, UTC; events are folded in the order of (timestamp, id)"),
    Field("fields", "object", False, "the fields of the card that it changes; see the kinds"),
)

NOTE = (
    Field("schema", "integer", False, "version of this table"),
    Field("id", "id", False, "the note's name"),
    Field("timestamp", "time", False, "when it was written, UTC"),
    Field("kind", "note kind", False, "an insight, an open question, a memory, or the answer to a question"),
    Field("text", "text", False, "what it says"),
    Field("evidence", "texts", False, "ids of the cards it rests on"),
    Field("answers", "id", True, "the question that an answer answers"),
    Field("session", "text", True, "the series of experiments it belongs to"),
    Field("agent", "text", True, "who wrote it"),
)


class _Row(NamedTuple):
    """A field in the form that validation walks: its parent object ("" for the record itself) and its key in it."""

    field: Field
    parent: str
    key: str
    type: Type


def _rows(table: tuple[Field, ...]) -> tuple[_Row, ...]:
    splits = ((field, field.name.rpartition(".")) for field in table)
    return tuple(_Row(field, parent, key, TYPES[field.type]) for field, (parent, _, key) in splits)


_CARD_ROWS, _EVENT_ROWS, _NOTE_ROWS = _rows(CARD), _rows(EVENT), _rows(NOTE)
_EMPTY_CARD: Card = {row.key: None for row in _CARD_ROWS if not row.parent}
_EMPTY_CARD |= {"schema": SCHEMA, "metric": "val_bpb", "direction": "min"}
RESULT_NAMES = tuple(row.key for row in _CARD_ROWS if row.parent == "results")
_EMPTY_RESULTS = dict.fromkeys(RESULT_NAMES)


def complete(values: Card) -> Card:
    """`values` as a whole card in the table's order, its results too: unknown is null or [], other keys follow.

    Nothing is checked: see `validate_card`.
    """
    card: Card = _EMPTY_CARD | {"tags": [], "prior_knowledge_used": [], "results": {}} | values
    if isinstance(card["results"], dict):
        card["results"] = _EMPTY_RESULTS | card["results"]
    return card


def validate_card(card: Card) -> None:
    """Raise CardError naming the field, the value and what is allowed. Unknown keys are accepted."""
    _validate("card", card, _CARD_ROWS)
    if reason := contradiction(card):
        raise CardError(reason)


def contradiction(card: Card) -> str | None:
    """Why status and result contradict each other, None when they do not. The card is valid in all else."""
    metric, status = card["metric"], card["status"]
    value = card["results"].get(metric)
    if not (value is None or is_number(value)):
        return f"card field results.{metric}: {_shown(value)} is not allowed; it must be a number or null"
    if status == "crash" and value is not None:
        return f"card field results.{metric}: {value} is not allowed; a crash has no result, it must be null"
    if status in ("keep", "revert") and value is None:
        return f"card field results.{metric}: null is not allowed; a card with status {status} needs a result"
    return None


def validate_event(event: Card) -> None:
    """Raise CardError where this is not an event that can be laid over a card."""
    _validate("event", event, _EVENT_ROWS)
    kind, fields = event["kind"], event["fields"]
    if strange := [name for name in fields if name not in EVENT_FIELDS[kind]]:
        raise CardError(f"an event of kind {kind} cannot change {strange[0]!r}")
    for row in _CARD_ROWS:
        holder = fields if not row.parent else fields.get(row.parent)
        if isinstance(holder, dict) and row.key in holder:
            _check("event", row._replace(field=row.field._replace(name=f"fields.{row.field.name}")), holder[row.key])
    if kind == "decide" and fields.get("status") not in DECISIONS:
        allowed = ", ".join(DECISIONS)
        raise CardError(
            f"event field fields.status: {_shown(fields.get('status'))} is not allowed; it must be one of {allowed}"
        )
    if kind == "suspect" and not fields.get("reason"):
        raise CardError("event field fields.reason: a suspect event must say why")
    if not isinstance(fields.get("reason", ""), str):
        raise CardError(f"event field fields.reason: {_shown(fields['reason'])} is not allowed; it must be text")


def validate_note(note: Card) -> None:
    """Raise CardError naming the field, the value and what is allowed. Unknown keys are accepted."""
    _validate("note", note, _NOTE_ROWS)
    if not note["text"].strip():
        raise CardError("note field text: a note must say something")
    if (note["kind"] == "answer") != (note.get("answers") is not None):
        raise CardError("note field answers: an answer, and only an answer, names the question it answers")


def too_deep(record: Card) -> bool:
    """Whether objects and lists are nested deeper than MAX_NESTING: readable here, perhaps not under a deeper stack."""
    holders: list[Any] = [record]
    for _ in range(MAX_NESTING):
        inside = (holder.values() if isinstance(holder, dict) else holder for holder in holders)
        holders = [item for items in inside for item in items if isinstance(item, (dict, list))]
    return bool(holders)


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a card as it is in its file, an event or a note; what docs/ publishes."""
    table = {"card": CARD, "event": EVENT, "note": NOTE}[kind]
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind,
        "type": "object",
        "required": [field.name for field in table if not field.nullable and "." not in field.name],
        "properties": {},
    }
    for field in table:
        parent, _, key = field.name.rpartition(".")
        holder = schema["properties"][parent] if parent else schema
        holder = next((item for item in holder.get("anyOf", ()) if item.get("type") == "object"), holder)
        type_ = TYPES[field.type].schema
        shape = {"anyOf": [{"type": "null"}, dict(type_)]} if field.nullable else dict(type_)
        holder.setdefault("properties", {})[key] = {"description": field.meaning} | shape
        if parent and not field.nullable:
            holder.setdefault("required", []).append(key)
    return schema


def _validate(what: str, record: Any, rows: tuple[_Row, ...]) -> None:
    """Raise CardError where a field of the record is not what its row allows."""
    if not isinstance(record, dict):
        raise CardError(f"a {what} must be an object, not {_shown(record)}")
    for row in rows:
        holder = record.get(row.parent) if row.parent else record
        if not isinstance(holder, dict):
            continue  # a null parent; a parent of the wrong type was refused at its own row
        value = holder.get(row.key)
        if not (row.field.nullable if value is None else row.type.accepts(value)):
            _check(what, row, value)


def _check(what: str, row: _Row, value: Any) -> None:
    """Raise CardError where the value is not what its row allows."""
    if not (row.field.nullable if value is None else row.type.accepts(value)):
        allowed = f"{row.type.words}{' or null' if row.field.nullable else ''}"
        raise CardError(f"{what} field {row.field.name}: {_shown(value)} is not allowed; it must be {allowed}")


def _shown(value: Any) -> str:
    """The value as a message names it: one line, cut when long."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
