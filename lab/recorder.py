"""The run, seen from inside train.py: every run leaves exactly one card, however it ends.

    if __name__ == "__main__":
        from lab import recorder
        run = recorder.start(__file__)        # before anything heavy is imported
    run.update(config={...}, seed=42)         # facts as they become known
    run.phase("train")                        # so that a crash card can say where
    run.log_loss(step, seconds, loss)
    card = run.finish({"val_bpb": 0.9979, ...})

    run = recorder.current()              # prepare.py's evaluator, which is not train.py's to change
    run.evaluated({"val_bpb": 0.9979, "eval_tokens": 20971520, ...})

A card is made from the run's folder alone: start.json (the facts), summary.json (the results) and the error, by
one function, `record`, which three callers share: `finish`, the hooks for an end that Python notices (exception,
Ctrl-C, SIGTERM, sys.exit), and the watcher for one it does not (kill -9, a segfault, the system out of memory).
A card's file is created exclusively, so whoever comes second changes nothing.

The watcher is a second process in a session of its own, started as `python -m lab.recorder --watch RUN_DIR PID`.
Ten times a second it asks whether its parent is still the trainer. The parent changes at the moment the trainer is
gone, whatever took it. The alternatives are weaker: the end of a pipe is held open by every child the trainer forks
(data loader workers), and a parent-death signal follows the thread that forked, not the process.

What an evaluator has measured is what the card says: `finish` refuses other values (docs/metric.md).
Not covered: Windows, where a killed run leaves no card, and the death of the whole machine or container.
"""

import atexit
import hashlib
import math
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from lab.cards import card_path, machine, new_id, utc_now
from lab.edits import edit_key
from lab.errors import DivergedError, LabError, SettingError, StoreError
from lab.git import git
from lab.losses import read_losses, write_loss
from lab.memory import memory_ran_out, oom_kills
from lab.outcome import Terminated, card_of, classify, make_error, outcome_of, plain, record, summarise_error, thin
from lab.schema import CATEGORIES, ID_PATTERN, PHASES, Card, finite, validate_card
from lab.settings import Settings, load_settings, time_budget
from lab.store import knowledge_dir, read_json, replace, runs_dir

WATCH_INTERVAL_SECONDS = 0.1
TAIL_BYTES = 16_384
LINE_SECONDS = 1.0  # of training between two lines of losses.jsonl
# How far the training time may be from the budget, and from what the run says: a step is not cut short.
CLOCK_SHARE, CLOCK_SECONDS = 0.05, 5.0
CHECKPOINT = "checkpoint.safetensors"  # the weights as they were evaluated, in the run's folder
EVALUATION = "evaluation.json"  # what the evaluator has measured
_now = time.monotonic  # as it was before train.py was read

_current: "Run | None" = None


def start(script: str) -> "Run":
    """Begin the run of `script` (its `__file__`): make the run folder and see to it that a card will be written.

    A setting that cannot be used, or a folder that cannot be written, ends the process here: one line, exit code 2.
    """
    try:
        global _current
        _current = Run(Path(script).resolve())
        return _current
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def current() -> "Run | None":
    """The run of this process, None where it is none, as in a notebook or a test."""
    return _current


class Run:
    """One run of train.py, made by `start`. `id` names it and its card, `dir` is its folder, `watcher` the process."""

    def __init__(self, script: Path) -> None:
        source = script.read_bytes()
        self.id = _run_id()
        named = os.environ.get("AUTORESEARCH_RUN_DIR")
        self.dir = Path(named).absolute() if named else runs_dir(script.parent) / self.id
        settings = load_settings(script.parent)
        patch, facts = _facts(script, source, settings)
        self._facts: Card = {"run_id": self.id} | facts
        _make_folder(self.dir, script.name, source, patch, self._facts)
        self._must_be_evaluated = bool(settings.second_look)
        self._budget = _budget()
        self._evaluation: Card | None = None
        self._since = _now()
        self._losses: list[tuple[int, float, float]] = []
        self._next_line = -math.inf
        self._ended = False
        self._python_hook = sys.excepthook
        sys.excepthook = self._on_exception
        atexit.register(self._on_exit)
        signal.signal(signal.SIGTERM, _terminate)
        self.watcher: subprocess.Popen[bytes] | None = None
        if os.name == "posix":
            # Python forgets a signal that reaches a child in the middle of the fork: hold it back until it is done.
            os.register_at_fork(
                before=lambda: _block_sigterm(True),
                after_in_parent=lambda: _block_sigterm(False),
                after_in_child=self._in_forked_child,
            )
            self.watcher = _start_watcher(self.dir)

    def update(self, **facts: Any) -> None:
        """Note facts of the run for its card: config, platform, track, seed, preset, ... On disk when this returns.

        CardError when the schema does not allow a value; StoreError when it cannot be written.
        """
        known = self._facts | plain(facts)
        if facts.get("platform"):
            known["platform"] |= {"machine": machine()}
        validate_card(card_of(known, {"status": "inconclusive"}))
        replace(self.dir / "start.json", known)
        self._facts = known

    def phase(self, name: str) -> None:
        """Note where the run is, one of `lab.schema.PHASES`. One small file written: call it between the phases."""
        if name not in PHASES:
            raise SettingError(f"phase {name!r} is not one of {', '.join(PHASES)}")
        now = _now()
        spent = self._facts["phases"]
        ended = {self._facts["phase"]: round(spent.get(self._facts["phase"], 0.0) + now - self._since, 3)}
        self.update(phase=name, phases=spent | ended)
        self._since = now

    def evaluated(self, evaluation: Card) -> None:
        """Note what the project's evaluator has measured: `evaluation.json` in the run's folder.

        `finish` takes no other values of these names. `track` in it is what the card's track must begin with.
        SettingError where the run has been evaluated before: who may choose among evaluations fits the text.
        """
        if self._evaluation is not None:
            raise SettingError("the run has been evaluated before; a run is evaluated once, at its end")
        if self._facts["phase"] == "train":  # a script may leave out the phase `evaluate`
            self.phase("evaluate")
        self._evaluation = evaluation = plain(evaluation)
        replace(self.dir / EVALUATION, evaluation)

    def log_loss(self, step: int, seconds: float, loss: float) -> None:
        """Note the training loss of a step, `seconds` into training. Costs an append, and a line in a file a second."""
        self._losses.append((step, seconds, loss))
        if seconds >= self._next_line:
            self._next_line = seconds + LINE_SECONDS
            write_loss(self.dir, step, seconds, loss)

    def finish(self, results: Card) -> Card:
        """Write the results down, then the card, and return the card. The names are `results.*` of the schema.

        The results are on disk (summary.json; also $AUTORESEARCH_SUMMARY_PATH when set) before the card is made.
        DivergedError when the metric is not finite; CardError when the schema does not allow a value; SettingError when
        it is not what the project's evaluator has measured; StoreError, with the place of the results, when a file
        cannot be written. A run whose clock was wrong is recorded as suspect.
        """
        summary = {"run_id": self.id} | plain(results) | {"loss_curve": thin(self._losses)}
        metric = self._facts["metric"]
        value = summary.get(metric)
        if value is None:
            raise DivergedError(f"{metric} is {results.get(metric)}: the evaluation gave no result")
        validate_card(card_of(self._facts, outcome_of(summary) | {"status": "inconclusive"}))
        self._check_evaluation(summary, metric)
        if self._evaluation is not None and (reason := self._wrong_clock(finite(summary.get("training_seconds")))):
            self.update(quarantined=reason)
        handlers = _ignore_signals()  # the run is over: nothing is left that a Ctrl-C could stop
        try:
            replace(self.dir / "summary.json", summary)
        except StoreError as error:
            raise StoreError(f"{error}; {metric} {value:.6f} is recorded nowhere else") from error
        self._ended = True  # the results are safe: if this process cannot make the card, the watcher will
        try:
            if copy := os.environ.get("AUTORESEARCH_SUMMARY_PATH"):
                replace(Path(copy), summary)
            card = record(self.dir)
        except LabError as error:
            raise StoreError(f"{error}; the results are safe in {self.dir / 'summary.json'}") from error
        if card["status"] != "keep":
            with suppress(OSError):  # weights are large, and only what is kept is evaluated again
                (self.dir / CHECKPOINT).unlink()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return card

    def _check_evaluation(self, summary: Card, metric: str) -> None:
        """SettingError where the results are not those of the project's evaluator."""
        if self._evaluation is None:
            if self._must_be_evaluated:
                raise SettingError(
                    f"{metric} {summary[metric]:.6f} was not measured by the evaluator in this run; call "
                    "prepare.evaluate_bpb once, at the end"
                )
            return
        for name, measured in self._evaluation.items():
            if name in summary and summary[name] != measured:
                raise SettingError(
                    f"{name} is {summary[name]} in the results and the evaluator has measured {measured}; hand on what "
                    "it has returned"
                )
        frame, track = self._evaluation.get("track"), self._facts.get("track")
        if frame and not (track or "").startswith(frame):
            raise SettingError(f"the track {track} is not what was evaluated, which is {frame}...; use prepare.track")

    def _wrong_clock(self, said: float | None) -> str | None:
        """What is wrong with the time that the run has trained, None where nothing is."""
        trained = self._facts["phases"].get("train", 0.0)
        if trained > self._budget * (1 + CLOCK_SHARE) + CLOCK_SECONDS:
            return f"trained {trained:.1f} s by the recorder's clock, and the budget is {self._budget:g} s"
        if said is not None and abs(said - trained) > trained * CLOCK_SHARE + CLOCK_SECONDS:
            return f"training_seconds is {said:.1f}, and the recorder's clock has counted {trained:.1f} s"
        return None

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """sys.excepthook: record first, then tell. Python exits with the code of the SystemExit raised here."""
        _ignore_signals()
        name, code = classify(error)
        tail = "".join(traceback.format_exception(kind, error, trace)).splitlines()
        failure = self._record_crash(name, summarise_error(error), tail)
        if isinstance(error, LabError):
            print(f"error: {error}", file=sys.stderr)
        elif name == "interrupted":
            print(f"interrupted: {summarise_error(error)}; the card of this run is {self.id}", file=sys.stderr)
        else:
            self._python_hook(kind, error, trace)
        if failure:
            print(f"error: {failure}", file=sys.stderr)
        sys.exit(2 if failure else code)

    def _on_exit(self) -> None:
        """atexit: the script ended, by sys.exit or by its last line, without a result."""
        if self._ended:
            return
        _ignore_signals()
        if failure := self._record_crash("exception", "the script ended before run.finish() was called", []):
            print(f"error: {failure}", file=sys.stderr, flush=True)
            os._exit(2)  # the interpreter is on its way out: nothing else changes the exit code now

    def _in_forked_child(self) -> None:
        """A child, such as a data loader worker, is not the run: it ends as if nothing had been installed."""
        sys.excepthook = self._python_hook
        atexit.unregister(self._on_exit)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _block_sigterm(False)

    def _record_crash(self, kind: str, summary: str, tail: list[str]) -> LabError | None:
        """Write the crash card, unless there is a result; return the failure if the card cannot be written."""
        if self._ended:
            return None
        self._ended = True
        try:
            record(self.dir, make_error(kind, self._facts["phase"], summary, tail), thin(self._losses))
        except LabError as failure:
            return failure
        return None


def _run_id() -> str:
    """The id a runner has given to this run, or a new one."""
    given = os.environ.get("AUTORESEARCH_RUN_ID")
    if given and not re.fullmatch(ID_PATTERN, given):
        raise SettingError(f"AUTORESEARCH_RUN_ID={given!r} is not a run id; use 12 to 64 hex characters or unset it")
    return given or new_id()


def _budget() -> float:
    """The seconds to train for; endless with a number of steps instead, or where it is no number: the clock says so."""
    with suppress(SettingError):
        return math.inf if os.environ.get("AUTORESEARCH_STEPS", "0") != "0" else time_budget()
    return math.inf


def _facts(script: Path, source: bytes, settings: Settings) -> tuple[bytes, Card]:
    """(uncommitted changes as a patch, what is known of the run before it does anything)."""
    category = os.environ.get("AUTORESEARCH_CATEGORY") or None
    if category not in (None, *CATEGORIES):
        raise SettingError(f"AUTORESEARCH_CATEGORY={category!r} is not one of {', '.join(CATEGORIES)}")
    commit, parent, subject, branch = _head(script.parent)
    prefixes = ("--src-prefix=a/", "--dst-prefix=b/")  # whatever the user's configuration says
    patch = git(script.parent, "diff", "--relative", "--no-ext-diff", "--no-color", *prefixes, "HEAD", "--", "*.py")
    edited = f"\ndiff --git a/{script.name} b/{script.name}\n".encode() in b"\n" + (patch or b"")
    idea = f"uncommitted edit of {script.name}, see diff.patch in the run folder" if edited else subject
    return patch or b"", {
        "timestamp": utc_now(),
        "pid": os.getpid(),
        "argv": sys.argv,
        "phase": PHASES[0],
        "phases": {},
        "knowledge_dir": str(knowledge_dir(script.parent)),
        "commit": commit,
        "parent_commit": parent,
        "metric": settings.metric,
        "direction": settings.direction,
        "train_sha256": hashlib.sha256(source).hexdigest(),
        "edit_key": edit_key(source),
        "hypothesis": os.environ.get("AUTORESEARCH_HYPOTHESIS") or idea,
        "session": os.environ.get("AUTORESEARCH_SESSION") or (branch and branch.removeprefix("autoresearch/")),
        "agent": os.environ.get("AUTORESEARCH_AGENT") or None,
        "tags": [tag.strip() for tag in os.environ.get("AUTORESEARCH_TAGS", "").split(",") if tag.strip()],
        "category": category,
    }


def _make_folder(folder: Path, script: str, source: bytes, patch: bytes, facts: Card) -> None:
    """Make the run folder: the script and its uncommitted changes as they ran, and start.json when both are there."""
    if card_path(Path(facts["knowledge_dir"]), facts["run_id"]).exists():
        raise SettingError(f"AUTORESEARCH_RUN_ID={facts['run_id']}: this run has a card; give every run its own id")
    if (folder / "start.json").exists():
        raise SettingError(f"AUTORESEARCH_RUN_DIR={folder}: another run was here; give every run its own folder")
    replace(folder / script, source)
    if patch:
        replace(folder / "diff.patch", patch)
    replace(folder / "start.json", facts)


def _head(folder: Path) -> tuple[str | None, str | None, str | None, str | None]:
    """(commit, first parent, subject, branch); nulls without git, without a repository or without a commit."""
    answer = git(folder, "-c", "log.showSignature=false", "log", "-1", "--decorate=short", "--format=%H%n%P%n%s%n%D")
    if not answer:
        return None, None, None, None
    commit, parents, subject, refs = answer.decode("utf-8", "replace").split("\n")[:4]
    branch = re.match(r"HEAD -> ([^ ]+?)(?:, |$)", refs)
    return commit, parents.split(" ")[0] or None, subject or None, branch and branch[1]


def _ignore_signals() -> dict[signal.Signals, Any]:
    """Let nothing interrupt the recording, such as a second Ctrl-C; returns the handlers there were."""
    return {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM's handler."""
    raise Terminated


def _block_sigterm(blocked: bool) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK if blocked else signal.SIG_UNBLOCK, {signal.SIGTERM})


def _start_watcher(run_dir: Path) -> "subprocess.Popen[bytes]":
    """Start the process that writes the card when this one cannot. It holds no file of ours open."""
    house = Path(__file__).resolve().parent.parent
    _block_sigterm(True)  # which it inherits: it may be asked to end before it can say that it does not listen
    try:
        return subprocess.Popen(
            [sys.executable, "-S", "-m", "lab.recorder", "--watch", str(run_dir), str(os.getpid())],
            cwd=house,
            env=os.environ | {"PYTHONPATH": str(house)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # neither Ctrl-C nor a kill of the trainer's process group reaches it
        )
    finally:
        _block_sigterm(False)


def watch(run_dir: Path, trainer: int) -> None:
    """Wait until the parent, process `trainer`, is gone, then write the card of its run if there is none."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    before = oom_kills()
    while os.getppid() == trainer:
        time.sleep(WATCH_INTERVAL_SECONDS)
    try:
        tail = (run_dir / "run.log").read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace").splitlines()
    except OSError:
        tail = []  # nobody kept a log
    phase = read_json(run_dir / "start.json")["phase"]
    kind, why = "killed", "killed, crashed hard, or the system out of memory"
    if memory_ran_out(before):
        kind, why = "oom", "the system ran out of memory and ended a process"
    error = make_error(kind, phase, f"gone without a word in phase {phase}: {why}", tail)
    record(run_dir, error, thin(read_losses(run_dir)))


def main(arguments: list[str]) -> NoReturn:
    """`--watch RUN_DIR PID`, which only `start` calls."""
    if len(arguments) != 3 or arguments[0] != "--watch":
        sys.exit("usage: python -m lab.recorder --watch RUN_DIR PID (train.py starts it, nobody else needs to)")
    watch(Path(arguments[1]), int(arguments[2]))
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
