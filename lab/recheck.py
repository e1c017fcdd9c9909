"""The second look: what the evaluation of a kept run on text that no run has seen says of the run.

    card, warning = look_again(project, knowledge, card, run_folder, run)     # after a keep, before it is a champion
    judge_gap(1.912, 1.957, 0.02, [(1.950, 1.941), (1.931, 1.925)], "min")    # the reason, or None

The command of the setting `second_look` gets the run's folder and prints, as its last line, one JSON object: the metric
under its name, `hidden_bpb`, the standard errors of both over text, `val_stderr` and `hidden_stderr`, and `suspect`, a
text where the run's weights do not do what the run has said. Unknown is null. In this repository it is evaluate.py.
Not covered: the evaluation itself, and where the command runs (`run`).
"""

import json
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.brief import one_line
from lab.cards import join
from lab.errors import LabError
from lab.index import Index
from lab.judgement import VALID
from lab.recorder import EVALUATION
from lab.schema import Card, finite, metric_value
from lab.settings import load_settings
from lab.stats import gain

LOG = "second_look.log"
NOT_MEASURED = "does not reproduce: the evaluator has measured nothing in this run, somebody wrote its results by hand"
TAIL_BYTES = 65_536
SURE_SDS = 4.0  # a gap is outside the noise from so many standard deviations on
# Rows of one document are alike, so the error over rows is too small for two texts: those of `builtin` differ by six of
# them for every model.
ALIKE_ROWS = 3.0
# How much of the sampling error of two texts remains where two models are compared on the same two texts, before
# the track's own runs tell; it counts as much as so many of them.
SHARED_TEXT = 0.25
PRIOR_RUNS = 3
SAME_VALUE = 1e-4  # metrics that differ by less, as a share, are the same one

Pair = tuple[float, float]


def look_again(
    project: Path, knowledge: Path, card: Card, run_folder: Path, run: Callable[[list[str], str], int]
) -> tuple[Card, str | None]:
    """Evaluate a run again and say on its card what comes of it; (the card as it reads now, a warning or None).

    `run(command, log)` runs the command in a checkout of the run's commit, with what it prints in the file `log` of the
    run's folder, and returns its exit code. Where it fails the card stays as it is and the warning says why. StoreError
    or CardError where the commons cannot be read or written.
    """
    if not (run_folder / EVALUATION).is_file():  # without which `lab.recorder` takes no result
        return join(knowledge, card, "suspect", {"reason": NOT_MEASURED}), None
    command = [*shlex.split(load_settings(project).second_look), str(run_folder)]
    try:
        code = run(command, LOG)
    except LabError as error:
        return card, _warning(card, str(error))
    lines = _last_lines(run_folder / LOG)
    said = _object(lines[-1]) if lines and code == 0 else None
    if said is None:
        return card, _warning(card, lines[-1].removeprefix("error: ") if lines else f"exit code {code}, and no word")
    measured = {name: finite(said.get(name)) for name in ("hidden_bpb", "hidden_stderr")}
    card = join(knowledge, card, "annotate", {"results": measured})
    if reason := _suspicion(knowledge, card, said):
        card = join(knowledge, card, "suspect", {"reason": one_line(reason, 400)})
    return card, None


def judge_gap(value: float, hidden: float, sampling: float, earlier: Sequence[Pair], direction: str) -> str | None:
    """Why a run is worse on hidden text than its value tells, None where that can be noise.

    `earlier` are the (value, hidden) of the track's other kept runs; `sampling` is the standard error of the difference
    of the two over rows. The first run is held against ALIKE_ROWS times that. Later ones see the same two texts, of
    which one may be the harder: they are held against the gaps of the earlier, scaled to their values, with the spread
    of those (a Student-like predictive error: the prior SHARED_TEXT * sampling counts as PRIOR_RUNS gaps).
    """
    gap = -gain(hidden - value, direction)
    gaps = [-gain(h - v, direction) * _scale(value, v) for v, h in earlier]
    expected, sd = 0.0, ALIKE_ROWS * sampling
    if gaps:
        expected = sum(gaps) / len(gaps)
        squares = PRIOR_RUNS * (SHARED_TEXT * sampling) ** 2 + sum((one - expected) ** 2 for one in gaps)
        sd = math.sqrt(squares / (PRIOR_RUNS + len(gaps) - 1) * (1 + 1 / len(gaps)))
    if gap - expected <= SURE_SDS * sd:
        return None
    return (
        f"suspect_overfit: {hidden:.4f} on hidden text and {value:.4f} on the validation text is {gap - expected:.4f} "
        f"worse than runs of this track are, of which {SURE_SDS * sd:.4f} can be noise"
    )


def _scale(value: float, other: float) -> float:
    """A gap grows with what it is a gap of."""
    return value / other if value > 0 and other > 0 else 1.0


def _suspicion(knowledge: Path, card: Card, said: Card) -> str | None:
    """What speaks against the run, by what was said of it and by the other runs of its track."""
    value, again = metric_value(card), finite(said.get(card["metric"]))
    if isinstance(said.get("suspect"), str):
        return str(said["suspect"])
    if value is not None and again is not None and abs(again - value) > SAME_VALUE * abs(value):
        return f"does not reproduce: {card['metric']} is {value:.6f} on the card, and its evaluation was {again:.6f}"
    hidden, errors = finite(said.get("hidden_bpb")), [finite(said.get(f"{one}_stderr")) for one in ("hidden", "val")]
    if value is None or hidden is None or errors[0] is None:
        return None
    sampling = math.hypot(errors[0], errors[1] or 0.0)
    return judge_gap(value, hidden, sampling, _earlier(knowledge, card), card["direction"])


def _earlier(knowledge: Path, card: Card) -> list[Pair]:
    """(value, hidden) of the track's other kept runs that were looked at."""
    with Index(knowledge) as index:
        rows = index.rows(
            "SELECT result, hidden_bpb FROM cards WHERE track = ? AND metric = ? AND id != ? AND status = 'keep' "
            f"AND hidden_bpb IS NOT NULL AND {VALID}",
            card["track"], card["metric"], card["id"],
        )  # fmt: skip
    return [(row["result"], row["hidden_bpb"]) for row in rows]


def _warning(card: Card, why: str) -> str:
    return f"card {card['id'][:12]} could not be evaluated again: {one_line(why, 400)}"


def _last_lines(log: Path) -> list[str]:
    """What the log ends with, without blank lines; [] where there is none."""
    try:
        text = log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()]


def _object(line: str) -> Card | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
