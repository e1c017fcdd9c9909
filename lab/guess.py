"""What words give away: of a column its role, of a status cell the status, of a description category, tags and change.

    guess_category("embedding LR 0.6 to 0.8")        # "optimizer"
    guess_tags("embedding LR 0.6 to 0.8")            # ["embedding", "lr"]

Guesses, all of them: a card that came from a ledger has them until somebody who knows better annotates it. What no
word tells is null. Not covered: words of languages other than English.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from lab.tables import to_number

# What a column is, by its name in lower case with _ for all that is no letter or digit; the first that is there wins.
ROLES = {
    "commit": (
        "commit", "commit_id", "commit_hash", "commit_sha", "git_commit", "sha", "hash", "parent_commit", "id", "run",
    ),
    "status": ("status", "outcome", "decision", "verdict", "state", "result"),
    "description": (
        "description", "hypothesis", "change", "idea", "notes", "summary", "message", "experiment", "name",
    ),
    "time": ("timestamp", "datetime", "created", "created_at", "start_time", "started_at", "date", "time"),
    "lesson": ("lesson", "lessons", "learnt", "learned", "takeaway"),
    "seed": ("seed",),
}  # fmt: skip
# A column that is no measurement but what was set: params.lr of MLflow, config.lr of W&B, LEARNING_RATE.
CONFIG_COLUMN = re.compile(r"(?:params|config)[./](.+)|([A-Z][A-Z0-9_]{2,})")
STATUS_WORDS = {
    word: status
    for status, words in {
        "keep": "keep kept accept accepted improved baseline success",
        "revert": "discard discarded revert reverted reject rejected worse no",
        "crash": "crash crashed fail failed error oom nan timeout killed",
        "retracted": "retracted",
        "inconclusive": "finished completed inconclusive neutral",
    }.items()
    for word in words.split()
}
ERROR_WORDS = (
    ("oom", r"\boom\b|out of memory"),
    ("timeout", r"\btime(d )?[- ]?out\b"),
    ("disk", r"no space left|\bdisk (is )?full\b"),
    ("killed", r"\bkilled\b"),
    ("diverged", r"\bnan\b|\bdiverged\b"),
)
LESS_IS_BETTER = {
    "loss", "bpb", "error", "err", "ppl", "perplexity", "rmse", "mse", "mae", "nll", "latency", "time",
    "seconds", "runtime", "regret",
}  # fmt: skip
MORE_IS_BETTER = {
    "acc", "accuracy", "sharpe", "f1", "auc", "score", "reward", "bleu", "throughput", "r2", "return",
    "precision", "recall",
}  # fmt: skip
NOT_METRICS = {
    "stderr", "std", "delta", "vram", "mem", "memory", "runtime", "step", "steps", "seconds", "time",
    "timestamp", "epoch", "seed",
}  # fmt: skip
# Judgements that make the parentheses at the end of a description a lesson; "(with WD)" is none.
_JUDGEMENT = re.compile(
    r"\b(better|worse|hurts?|helps?|too|fewer|slower|faster|flat|broken|important|matters?|neutral|unstable|loss"
    r"|no (effect|change|gain)|diverge[sd]?|fail(s|ed)?|error)\b",
    re.I,
)
_LAST_PARENTHESES = re.compile(r"\s*\(([^()]*)\)\s*$")
_CHANGE = re.compile(
    r"(?:(?:raise|increase|lower|decrease|reduce|change|set|bump) )?([A-Za-z]\w*(?:[ -][A-Za-z]\w*){0,4}?)(?: from)?"
    r" ([-+.\deE]+) ?(?:to|->|→) ?([-+.\deE]+)"
)
# The kind of change by the words that name it, a guess: the first row that has a word of the description wins, so
# what is done (decay, initialise, schedule) comes before what it is done to (embedding, layers).
CATEGORY_WORDS = tuple(
    (category, re.compile(rf"(?<![a-z0-9])(?:{words})(?![a-z0-9])", re.I))
    for category, words in (
        ("other", "seeds?|baseline"),
        ("regularization", "weight[ _-]decay|wd|dropout|(?:gradient |grad )?clip(?:ping)?|label smoothing|z[ _-]?loss"),
        ("initialization", "init(?:ial)?(?:ization|ialization|s)?|std"),
        ("scheduling", "warm-?up|warm-?down|cool-?down|cosine|schedules?|anneal(?:ing)?|(?:final_)?lr_frac"),
        ("optimizer", "lr|learning[ _-]rates?|momentum|beta[12]?s?|muon|normuon|adamw?|lion|sgd|ns_steps|nesterov"),
        ("activation", "relu|relu2|gelu|silu|swiglu|geglu|activations?"),
        ("normalization", "norm|rms-?norm|layer-?norm|qk[ _-]norm|normaliz(?:e|ation)"),
        ("embedding", "(?:un)?embed(?:ding)?s?|lm_head|ve|value embeddings?|vocab(?:ulary)?|weight tying|tie"),
        ("attention", "windows?|[sl]{3,}|rope|rotary|(?:n_)?(?:kv_)?heads?|qk|softcap|multi-query|mqa|gqa|flash"),
        ("architecture", "depth|layers?|width|dim|mlp|aspect(?:_ratio)?|hidden|parallel|residual|skip|gates?|"
         "x0_lambdas?|resid_lambdas?|experts?|moe|conv"),
        ("attention", "attn|attention"),
        ("hyperparams", "batch(?:[ _-]size)?|seq(?:uence)?[ _-]len(?:gth)?|grad[ _-]accum|tokens|context"),
        ("combination", "combin(?:e|ed|ation)|together"),
        ("simplification", "simplif(?:y|ied)|clean ?up"),
        ("ablation", "ablat(?:e|ion)|remove|without|disable|drop"),
    )
)  # fmt: skip
_SAME_WORD = {"learning rate": "lr", "weight decay": "wd", "rotary": "rope", "embeddings": "embedding"}
MAX_TAGS = 3


def plain_name(column: str) -> str:
    """A column's name as `ROLES` has it: in lower case, without the prefix that MLflow puts before a measurement."""
    return re.sub(r"[^a-z0-9]+", "_", _bare(column).lower()).strip("_")


def metric_name(column: str) -> str:
    """A column's name as `results` keeps it: without the prefix, and in the letters that a metric may have."""
    name = re.sub(r"[^0-9A-Za-z_./-]+", "_", _bare(column)).rstrip("_")
    return (name if re.match("[A-Za-z_]", name) else f"_{name}")[:64]


def _bare(column: str) -> str:
    return re.sub(r"^(metrics|summary|results)[./]", "", column.strip(), flags=re.I)


def guess_roles(columns: list[str]) -> dict[str, list[int]]:
    """The columns of every role in `ROLES`, the best first."""
    plain = [plain_name(column) for column in columns]
    return {role: [plain.index(name) for name in names if name in plain] for role, names in ROLES.items()}


def guess_metrics(columns: list[str]) -> Iterator[set[int]]:
    """The columns that are named like a metric: the likely names first, then those with a known word, then the rest."""
    words = {
        at: plain_name(column).split("_") for at, column in enumerate(columns) if not CONFIG_COLUMN.fullmatch(column)
    }
    free = {at: found for at, found in words.items() if not NOT_METRICS & set(found)}
    yield {at for at, found in free.items() if (found[0] == "val" and found[1:]) or found[-1].endswith("bpb")}
    yield {at for at, found in free.items() if (LESS_IS_BETTER | MORE_IS_BETTER) & set(found)}
    yield {at for at, found in free.items() if "_".join(found) in ("metric", "value", "objective", "fitness", "result")}


def guess_status(text: str) -> str | None:
    """The status that the first word of a cell says; None for a word we do not know."""
    word = re.search("[a-z]+", text.lower())
    return STATUS_WORDS.get(word[0]) if word else None


def guess_error_kind(text: str) -> str:
    """The kind of a crash, one of `lab.schema.ERROR_KINDS`."""
    return next((kind for kind, words in ERROR_WORDS if re.search(words, text, re.I)), "exception")


def guess_direction(metric: str, kept: list[float]) -> tuple[str, str] | None:
    """The better way, min or max, and what tells it: a word of the name, or the kept values in their order."""
    words = set(re.findall("[a-z0-9]+", metric.lower()))
    less, more = words & LESS_IS_BETTER, words & MORE_IS_BETTER
    if bool(less) != bool(more):
        return ("min" if less else "max"), f"the word {min(less or more)!r}"
    rises = {later > earlier for earlier, later in pairwise(kept) if later != earlier}
    if len(rises) == 1:
        return ("max", "the kept rows, which only rise") if rises.pop() else ("min", "the kept rows, which only fall")
    return None


def _subject(description: str) -> str:
    """What is changed: without the parentheses at the end, and what it is combined with."""
    return _LAST_PARENTHESES.sub("", description).partition(" with ")[0]


def guess_category(description: str) -> str | None:
    """The kind of change, by `CATEGORY_WORDS`; None when no word is known."""
    for text in (_subject(description), description):
        for category, words in CATEGORY_WORDS:
            if words.search(text):
                return category
    return None


def guess_tags(description: str) -> list[str]:
    """At most three words that name what was changed, in their order."""
    subject = _subject(description)
    spans = {match.span() for _, words in CATEGORY_WORDS for match in words.finditer(subject)}
    tags, end = [], 0
    for start, stop in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= end:  # the `head` in lm_head is no word of its own
            word, end = subject[start:stop].lower(), stop
            tags.append(_SAME_WORD.get(word, word).replace(" ", "-"))
    return list(dict.fromkeys(tags))[:MAX_TAGS]


def guess_config_diff(description: str) -> dict[str, list[float]] | None:
    """{name: [old, new]} of a description that is plainly `name number to number`; None of any other."""
    found = _CHANGE.fullmatch(_LAST_PARENTHESES.sub("", description))
    pair = [to_number(text) for text in found.groups()[1:]] if found else []
    return {found[1]: [number for number in pair if number is not None]} if found and None not in pair else None


def guess_lesson(description: str) -> str | None:
    """The parentheses at the end of a description where they hold a judgement, such as `(too few steps)`."""
    found = _LAST_PARENTHESES.search(description)
    return found[1] if found and _JUDGEMENT.search(found[1]) else None
