"""train.py: real runs on the preset `tiny` in processes of their own, and its parts against float64 references.

A run happens in a checkout, a folder with a copy of train.py that may have been edited as an agent would edit it. Most
are edited to a smaller model, and every one has a single thread, so that several fit on a machine. A signal falls into
real work where a phase is long (import, train); in the others the trainer sleeps just behind the mark of the phase.
Not covered: CUDA and MPS, compiled code (AUTORESEARCH_COMPILE=0), and how good the defaults are (bench/).
"""

import ast
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import platform_utils
import prepare
from lab.cards import load_cards, machine
from lab.outcome import plain
from lab.schema import PHASES
from lab.store import read_json

with pytest.MonkeyPatch.context() as patch:  # its constants depend on the preset
    patch.setenv("AUTORESEARCH_PRESET", "tiny")
    patch.delenv("AUTORESEARCH_SEED", raising=False)
    import train

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
PARALLEL = 3  # runs at one time
SMALL = {
    "DEPTH": 2,
    "ASPECT_RATIO": 32,
    "HEAD_DIM": 32,
    "TOTAL_BATCH_SIZE": 512,
    "DEVICE_BATCH_SIZE": 4,  # 4 rows of 64 tokens: two forward passes a step
    "EVAL_BATCH_SIZE": 16,
}
STEPS = 60
BLOCK = (
    "val_bpb", "training_seconds", "total_seconds", "peak_vram_mb", "mfu_percent", "total_tokens_M", "num_steps",
    "num_params_M", "depth",
)  # fmt: skip
START = "run = recorder.start(__file__)"


def edited(constants, code):
    """train.py with other constants, and with `code` {line: what to insert behind it}."""
    source = (ROOT / "train.py").read_text()
    for name, value in constants.items():
        source, count = re.subn(f"^( *){name} = .*$", lambda m, s=f"{name} = {value!r}": m[1] + s, source, flags=re.M)
        assert count, f"train.py has no constant {name}"
    for line, more in code.items():
        source, count = re.subn(
            f"^( *){re.escape(line)}$", lambda m, more=more: f"{m[0]}\n{m[1]}{more}", source, flags=re.M
        )
        assert count == 1, f"train.py has {count} lines {line!r}"
    return source


class Run:
    """One run of train.py, in a checkout and with a commons of its own. `environment` None unsets a variable."""

    def __init__(self, folder, base, environment=None, constants=SMALL, code=None):
        self.runs, self.knowledge = folder / "runs", folder / "knowledge"
        ours = base | {"KNOWLEDGE_DIR": str(self.knowledge), "AUTORESEARCH_RUNS_DIR": str(self.runs)}
        ours |= environment or {}
        self.environment = {name: value for name, value in ours.items() if value is not None}
        folder.mkdir(parents=True)
        (folder / "train.py").write_text(edited(constants, code or {}))
        self.process = subprocess.Popen(
            [sys.executable, "train.py"],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, word):
        """Wait until it has printed a line that begins with `word`; returns the phase it is in."""
        while line := self.process.stdout.readline():
            if line.startswith(word):
                return read_json(self.folder / "start.json")["phase"]
        raise AssertionError(f"it ended before it said {word!r}: {self.process.stderr.read()}")

    def end(self):
        """Wait for its end, and for its watcher's: from then on no card can come. Sets code, output and errors."""
        self.output, self.errors = self.process.communicate(timeout=90)
        self.code = self.process.returncode
        deadline = time.monotonic() + 30
        while str(self.runs) in subprocess.check_output(["ps", "-Awwo", "args"], text=True, errors="replace"):
            assert time.monotonic() < deadline, f"the watcher of {self.runs} is still there"
            time.sleep(0.05)
        return self

    @property
    def folder(self):
        """Its run folder."""
        (folder,) = self.runs.iterdir()
        return folder

    @property
    def card(self):
        """The one card there is."""
        (card,) = load_cards(self.knowledge)
        return card

    @property
    def summary(self):
        """What it has measured."""
        return read_json(self.folder / "summary.json")


def in_parallel(do, items):
    """{item: do(item)}, some at a time."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        return dict(zip(items, pool.map(do, items), strict=True))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The environment that all runs share: a small corpus, prepared once, on the CPU, for two steps."""
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 8))) for _ in range(300)]
    often = [1 / (rank + 1) for rank in range(300)]
    docs = [" ".join(rng.choices(words, often, k=rng.randint(20, 160))) for _ in range(600)]
    (folder / "corpus").mkdir()
    (folder / "corpus" / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")}
    environment = ours | {
        "PYTHONPATH": str(ROOT),
        "GIT_CEILING_DIRECTORIES": str(tmp_path_factory.getbasetemp()),  # git finds no repository above
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "AUTORESEARCH_CACHE": str(folder / "cache"),
        "AUTORESEARCH_DATASET": f"local:{folder / 'corpus'}",
        "AUTORESEARCH_PRESET": "tiny",
        "AUTORESEARCH_DEVICE": "cpu",
        "AUTORESEARCH_COMPILE": "0",
        "AUTORESEARCH_STEPS": "2",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", environment["AUTORESEARCH_CACHE"])
        prepare.prepare(environment["AUTORESEARCH_DATASET"], "tiny")
    return environment


@pytest.fixture(scope="module")
def data(base):
    """The corpus, prepared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", base["AUTORESEARCH_CACHE"])
        return prepare.load_data(base["AUTORESEARCH_DATASET"], "tiny")


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    """Runs that nothing disturbs, by name."""
    folder = tmp_path_factory.mktemp("finished")
    steps, second = {"AUTORESEARCH_STEPS": str(STEPS)}, {"AUTORESEARCH_STEPS": None, "AUTORESEARCH_TIME_BUDGET": "1"}
    more = {"import prepare": "LAYERS = [1, 2]; TABLE = {'a': 1}; NOTHING = None; FLAG = True"}
    plans = {
        "first": (steps | {"AUTORESEARCH_SUMMARY_PATH": str(folder / "copy" / "summary.json")}, SMALL, {}),
        "repeat": (steps, SMALL, {}),
        "other seed": (second | {"AUTORESEARCH_SEED": "7"}, SMALL, more),
    }
    return in_parallel(lambda name: Run(folder / name, base, *plans[name]).end(), plans)


@pytest.fixture
def small(monkeypatch):
    """`train` in this process, with the smaller model."""
    for name, value in SMALL.items():
        monkeypatch.setattr(train, name, value)
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")


# --- a run that nothing disturbs ---------------------------------------------------------------------------------


def assert_it_ended_well(run):
    """It says nothing on standard error and leaves one card, which is kept."""
    assert (run.code, run.errors) == (0, "")
    assert (run.card["id"], run.card["status"], run.card["error"]) == (run.folder.name, "keep", None)
    assert read_json(run.folder / "start.json")["phase"] == "record"


@pytest.mark.parametrize("name", ["first", "repeat", "other seed"])
def test_a_run_ends_well_with_one_card(finished, name):
    assert_it_ended_well(finished[name])


@pytest.mark.slow
def test_a_run_as_shipped(base, tmp_path):
    run = Run(tmp_path / "shipped", base, {}, {}).end()
    assert_it_ended_well(run)
    assert run.card["config"] == {name: plain(getattr(train, name)) for name in constants_of(train.__file__)}
    assert (run.summary["num_steps"], run.summary["depth"]) == (2, train.DEPTH)
    assert run.summary["total_tokens_M"] == 2 * train.TOTAL_BATCH_SIZE / 1e6


def test_the_block_that_other_tools_grep(finished):
    run = finished["first"]
    before, _, block = run.output.partition("\n---\n")
    assert "val_bpb" not in before
    lines = [re.fullmatch(r"(\w+): +(\d+(?:\.(\d+))?)", line) for line in block.splitlines()[: len(BLOCK)]]
    assert tuple(line and line[1] for line in lines) == BLOCK
    for line in lines:
        value = run.summary[line[1]]
        assert line[2] == (f"{value:.{len(line[3])}f}" if line[3] else str(value))
    assert block.splitlines()[0] == f"val_bpb:          {run.summary['val_bpb']:.6f}"
    assert f"card:             {run.card['id']} keep: {run.card['decision']['reason']}" in block.splitlines()


def test_the_summary(finished):
    run = finished["first"]
    summary = run.summary
    assert read_json(run.runs.parent.parent / "copy" / "summary.json") == summary
    assert summary["run_id"] == run.card["id"]
    assert {name: value for name, value in run.card["results"].items() if value is not None} == {
        name: value for name, value in summary.items() if name != "run_id"
    }
    tokens = STEPS * SMALL["TOTAL_BATCH_SIZE"]
    assert (summary["num_steps"], summary["depth"]) == (STEPS, SMALL["DEPTH"])
    assert summary["total_tokens_M"] == tokens / 1e6
    assert summary["num_params_M"] == summary["num_params"] / 1e6
    assert 0 < summary["training_seconds"] < summary["total_seconds"]
    assert summary["tokens_per_second"] == pytest.approx(tokens / summary["training_seconds"])
    assert 0 < summary["mfu_percent"] < 100 and 50 < summary["peak_vram_mb"] < 10_000
    assert 0.5 < summary["utilisation"] <= 1 and 0 < summary["eval_tokens"] <= prepare.PRESETS["tiny"].eval_tokens


def test_the_card_says_what_ran_and_where(finished, data):
    run = finished["first"]
    info = platform_utils.get_device_info(CPU)
    assert run.card["platform"] == info | {"machine": machine()}
    assert run.card["track"] == f"local.{data.fingerprint[:6]}-v512-t64-{STEPS}steps/{info['device_class']}"
    assert (run.card["preset"], run.card["seed"], finished["other seed"].card["seed"]) == ("tiny", 42, 7)
    assert finished["other seed"].card["track"] == f"local.{data.fingerprint[:6]}-v512-t64-1s/{info['device_class']}"


def constants_of(path):
    """Every upper-case name without a leading _ that a script binds on its top level, `if`s included."""
    statements = [*ast.parse(Path(path).read_text()).body]
    for statement in statements:
        if isinstance(statement, ast.If):
            statements += statement.body + statement.orelse
    targets = [target for each in statements if isinstance(each, ast.Assign) for target in each.targets]
    return {target.id for target in targets if target.id.isupper() and target.id[0] != "_"}


def test_every_constant_lands_in_the_card(finished):
    names = constants_of(train.__file__)
    assert {"SEED", "DEPTH", "WINDOW_PATTERN", "ADAM_BETAS", "WARMUP_RATIO"} <= names
    assert finished["first"].card["config"] == {name: plain(getattr(train, name)) for name in names} | SMALL


def test_a_constant_may_be_of_any_kind(finished):
    config = finished["other seed"].card["config"]
    added = {name: config.get(name, "not there") for name in ("LAYERS", "TABLE", "NOTHING", "FLAG")}
    assert added == {"LAYERS": [1, 2], "TABLE": {"a": 1}, "NOTHING": None, "FLAG": True}
    assert config.keys() == finished["first"].card["config"].keys() | added.keys()


def test_the_loss_falls(finished):
    curve = finished["first"].card["results"]["loss_curve"]
    steps, seconds, losses = zip(*curve, strict=True)
    assert list(steps) == list(range(1, STEPS + 1))
    assert list(seconds) == sorted(seconds) and seconds[-1] <= finished["first"].summary["training_seconds"] + 0.001
    assert losses[0] == pytest.approx(math.log(512), abs=0.02)  # the warm-up left nothing behind
    assert sum(losses[-5:]) / 5 < 0.8 * math.log(512)


def test_training_beats_the_untrained_model(finished, small, base, data, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_CACHE", base["AUTORESEARCH_CACHE"])  # the evaluator reads the text anew
    model, _ = train.build(data, CPU)
    untrained = prepare.evaluate_bpb(model, data, 16, CPU).bpb
    assert finished["first"].summary["val_bpb"] < 0.85 * untrained


def test_one_seed_gives_the_same_bits_and_another_seed_does_not(finished):
    first, repeat, other = (finished[name].summary for name in ("first", "repeat", "other seed"))
    losses = [[loss for _, _, loss in summary["loss_curve"]] for summary in (first, repeat, other)]
    assert (losses[0], first["val_bpb"]) == (losses[1], repeat["val_bpb"])
    assert first["val_bpb_stderr"] == repeat["val_bpb_stderr"] and first["utilisation"] == repeat["utilisation"]
    assert losses[0][0] != losses[2][0], "the first batch and the first weights are others"


def test_the_time_budget(finished):
    summary = finished["other seed"].summary
    assert summary["training_seconds"] >= 1 and summary["num_steps"] > 1
    assert [step for step, _, _ in summary["loss_curve"]][-1] == summary["num_steps"]


def test_commons_shows_the_card(finished):
    run = finished["first"]
    command = [sys.executable, str(ROOT / "commons.py"), "show", "last"]
    done = subprocess.run(command, env=run.environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"card {run.card['id']}: keep, ")
    shown = {line[2:16].strip(): line[16:] for line in lines[1:]}
    assert shown["val_bpb"] == f"{run.summary['val_bpb']:.6f}"
    assert shown["track"] == f"| {run.card['track']}"
    assert f"{STEPS} steps" in shown["training"] and "depth 2" in shown["model"] and "tokens/s" in shown["speed"]


# --- a run that goes wrong ---------------------------------------------------------------------------------------


LOSS = "real = model.loss; model.loss = lambda x, y: real(x, y) * float({!r})"


@pytest.fixture(scope="module")
def failed(base, tmp_path_factory):
    """Runs that fail by themselves, by name."""
    folder = tmp_path_factory.mktemp("failed")
    name_card = 'import os; sys.addaudithook(lambda event, _: event == "os.link" and os.kill(os.getpid(), 9))'
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    plans = {
        "nan": (SMALL, {'run.phase("train")': LOSS.format("nan")}),
        "exploding": (SMALL | {"UNEMBEDDING_LR": 1e4, "EMBEDDING_LR": 1e4}, {}),
        "exception": (SMALL, {'run.phase("evaluate")': 'raise ValueError("wrong\\nshape")'}),
        "kill": (SMALL, {'run.phase("record")': name_card}),  # at the moment when the card gets its name
        "full disk": (SMALL, {'run.phase("record")': limit}),
    }
    return in_parallel(lambda name: Run(folder / name, base, {"AUTORESEARCH_STEPS": "20"}, *plans[name]).end(), plans)


def check_diverged(run):
    """The run said that its loss is none and left a card that says so; returns the step and the loss, as said."""
    said = re.fullmatch(r"error: step (\d+): training loss is (nan|inf|\d\d\.\d+), guessing has 6.238\n", run.errors)
    assert run.code == 2 and said and "\n---\n" not in run.output
    error, curve = run.card["error"], run.card["results"]["loss_curve"]
    assert (run.card["status"], error["kind"], error["phase"]) == ("crash", "diverged", "train")
    assert run.errors == f"error: {error['summary']}\n"
    assert [step for step, _, _ in curve] == [*range(1, int(said[1]))]
    return said[1], said[2]


def test_a_loss_that_is_no_number_ends_the_run(failed):
    assert check_diverged(failed["nan"]) == ("1", "nan")


def test_a_loss_that_explodes_ends_the_run(failed):
    _, loss = check_diverged(failed["exploding"])
    assert 2 * math.log(512) < float(loss) < math.inf


@pytest.mark.slow
def test_an_infinite_loss_ends_the_run(base, tmp_path):
    run = Run(tmp_path / "run", base, code={'run.phase("train")': LOSS.format("inf")}).end()
    assert check_diverged(run) == ("1", "inf")


def test_an_exception_ends_the_run_with_its_traceback(failed):
    run = failed["exception"]
    assert run.code == 1 and run.errors.startswith("Traceback (most recent call last):\n")
    error = run.card["error"]
    assert (error["kind"], error["phase"], error["summary"]) == ("exception", "evaluate", "ValueError: wrong")
    assert error["tail"] == run.errors.splitlines()[-20:]
    assert len(run.card["results"]["loss_curve"]) == 20 and run.card["config"]["DEPTH"] == 2


def test_a_kill_once_the_results_are_on_disk_costs_nothing(failed):
    run = failed["kill"]
    assert (run.code, run.card["status"], run.card["error"]) == (-9, "keep", None)
    assert run.card["results"]["val_bpb"] == run.summary["val_bpb"] > 0


def test_a_disk_that_is_full_when_the_results_are_written(failed):
    run = failed["full disk"]
    full = "File too large; free space there or make the folder writable"
    said = re.sub(r"val_bpb \d\.\d{6} is", "val_bpb N is", run.errors)
    assert (run.code, said) == (
        2,
        f"error: cannot write {run.folder}/summary.json: {full}; val_bpb N is recorded nowhere else\n"
        f"error: cannot write {run.knowledge}/cards/{run.folder.name}.json: {full}\n",
    )
    assert (run.card["error"]["kind"], run.card["error"]["phase"]) == ("killed", "record")  # by the watcher
    left = {*os.listdir(run.folder)} - {"decision.md"}  # it comes after the card
    assert left == {"start.json", "train.py", "losses.jsonl", "evaluation.json", "checkpoint.safetensors"}


ENDS = {  # signal: (exit code, kind, what is said)
    "SIGINT": (130, "interrupted", "stopped by Ctrl-C"),
    "SIGTERM": (143, "interrupted", "stopped by SIGTERM"),
    "SIGKILL": (-9, "killed", "gone without a word in phase {}: killed, crashed hard, or the system out of memory"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGTERM", "SIGKILL")]
)
def test_a_signal_in_every_phase(base, tmp_path, name):
    stop = 'print("ready", flush=True); time.sleep(60)'

    def one(phase):
        steps, line, code = "2", f'run.phase("{phase}")', stop
        if phase == "import":
            line, code = START, 'print("ready", flush=True)'
        if phase == "train":
            steps, code = "1000000", "pass"
        run = Run(tmp_path / phase, base, {"AUTORESEARCH_STEPS": steps}, code={line: code})
        reached = run.wait_for("step" if phase == "train" else "ready")
        os.killpg(run.process.pid, signal.Signals[name])
        return reached, run.end()

    code, kind, summary = ENDS[name]
    for phase, (reached, run) in in_parallel(one, PHASES).items():
        said = f"interrupted: {summary}; the card of this run is {run.card['id']}\n" if kind == "interrupted" else ""
        assert (reached, run.code, run.errors) == (phase, code, said), phase
        error = run.card["error"]
        assert (run.card["status"], error["kind"], error["phase"]) == ("crash", kind, phase)
        assert error["summary"] == summary.format(phase)
        assert (run.card["config"] is None, run.card["track"] is None) == (
            phase == "import",
            phase in ("import", "prepare"),
        )
        assert bool(run.card["results"]["loss_curve"]) == (phase in ("train", "evaluate", "record"))


BAD_INPUT = {  # name: (environment, constants, kind, phase, message); NAMES in capitals are filled in
    "no network": (
        {"AUTORESEARCH_DATASET": "climbmix", "AUTORESEARCH_BASE_URL": "CLOSED", "AUTORESEARCH_CACHE": "TMP"}, {},
        "data", "prepare",
        "cannot download CLOSED/shard_NNNNN.parquet: Connection refused (6 attempts in a row); 0 of 11 files are in "
        "TMP/downloads/climbmix; run again: finished files are kept, partial ones resume; without a network train on "
        "the embedded text: AUTORESEARCH_DATASET=builtin",
    ),
    "batch": (
        {}, {"TOTAL_BATCH_SIZE": 1000}, "setting", "prepare",
        "TOTAL_BATCH_SIZE = 1000 must be a multiple of DEVICE_BATCH_SIZE * sequence length = 256; change one "
        "of the two",
    ),
    "seed": (
        {"AUTORESEARCH_SEED": "x"}, {}, "setting", "import",
        "AUTORESEARCH_SEED=x: give a whole number from 0 on, or unset it for the default of 42",
    ),
    "device": (
        {"AUTORESEARCH_DEVICE": "cuda:99"}, {}, "device", "import",
        "AUTORESEARCH_DEVICE=cuda:99: this machine has DEVICES; name one of these or unset it",
    ),
}  # fmt: skip
MORE_BAD_INPUT = {
    "window": (
        {}, {"WINDOW_PATTERN": "SXL"}, "setting", "prepare",
        "WINDOW_PATTERN='SXL': use the letters S (half) and L (full), such as SSSL",
    ),
    "budget": (
        {"AUTORESEARCH_TIME_BUDGET": "abc"}, {}, "setting", "prepare",
        "AUTORESEARCH_TIME_BUDGET=abc: give a number from 0.1 on, or unset it for the default of 300",
    ),
    "steps": (
        {"AUTORESEARCH_STEPS": "0.5"}, {}, "setting", "prepare",
        "AUTORESEARCH_STEPS=0.5: give a whole number from 0 on, or unset it for the default of 0",
    ),
    "preset": (
        {"AUTORESEARCH_PRESET": "huge"}, {}, "setting", "import",
        "AUTORESEARCH_PRESET=huge: there is no such preset; choose one of gpu, small, tiny",
    ),
    "compile": (
        {"AUTORESEARCH_COMPILE": "yes"}, {}, "setting", "compile",
        "AUTORESEARCH_COMPILE=yes: set it to 0 (never compile) or 1 (always), or unset it",
    ),
    "data set": (
        {"AUTORESEARCH_DATASET": "nowhere"}, {}, "data", "prepare",
        "data set 'nowhere': there is no such name; choose climbmix, tinystories, builtin or local:PATH",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("cases", [BAD_INPUT, MORE_BAD_INPUT], ids=["", "more"])
def test_bad_input_is_one_clear_line_and_a_crash_card(base, tmp_path, cases):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    there = {"CLOSED": closed, "TMP": str(tmp_path / "cache"), "DEVICES": ", ".join(platform_utils.available_devices())}

    def filled(text):
        return re.sub("|".join(there), lambda match: there[match[0]], text)

    def one(name):
        environment, constants, *_ = cases[name]
        environment = {name: filled(value) for name, value in environment.items()}
        return Run(tmp_path / name, base, environment, SMALL | constants).end()

    for name, run in in_parallel(one, cases).items():
        *_, kind, phase, message = cases[name]
        said = [line for line in run.errors.splitlines() if not line.startswith("downloaded 0 of 11 files")]
        assert (run.code, [re.sub(r"shard_\d{5}", "shard_NNNNN", line) for line in said]) == (
            2,
            [f"error: {filled(message)}"],
        )
        error = run.card["error"]
        assert (run.card["status"], error["kind"], error["phase"]) == ("crash", kind, phase)
        assert said == [f"error: {error['summary']}"]


# --- the optimizer -----------------------------------------------------------------------------------------------


def express(matrix):
    """The odd polynomials of polar express applied to the singular values of a float64 matrix."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    s = s / (s.norm() * 1.02 + 1e-6)
    for a, b, c in train._POLAR_EXPRESS:
        s = a * s + b * s**3 + c * s**5
    return u @ s.diag() @ vt


def muon(gradients, weight, lr):
    """Muon without weight decay by its definition, for one matrix in float64."""
    weight, momentum, beta = weight.double(), torch.zeros_like(weight.double()), train.MUON_MOMENTUM
    scale = max(1, weight.size(0) / weight.size(1)) ** 0.5
    for gradient in gradients:
        momentum = beta * momentum + (1 - beta) * gradient.double()
        weight = weight - lr * scale * express((1 - beta) * gradient.double() + beta * momentum)
    return weight


SHAPES = [(32, 96), (96, 32), (48, 48), (3, 48, 48), (2, 96, 32), (2, 24, 48)]


def muon_steps(weights, gradients, lr, decay):
    """What the optimizer makes of the weights, given the gradients of each step."""
    params = [torch.nn.Parameter(weight.clone()) for weight in weights]
    optimizer = train.Muon(params, lr, decay, torch.bfloat16, lambda function, **_: function)
    for step in gradients:
        for param, gradient in zip(params, step, strict=True):
            param.grad = gradient.clone()
        optimizer.step()
    return [param.detach() for param in params]


def test_muon_against_float64():
    torch.manual_seed(0)
    weights = [torch.randn(shape) for shape in SHAPES]
    gradients = [[torch.randn(shape) * 10.0**-step for shape in SHAPES] for step in range(3)]
    for index, new in enumerate(muon_steps(weights, gradients, lr=0.05, decay=0.0)):
        matrices = [each[index].reshape(-1, *new.shape[-2:]) for each in (weights, *gradients)]
        for number, got in enumerate(new.reshape(-1, *new.shape[-2:])):
            weight, *steps = (stack[number] for stack in matrices)
            wanted = muon(steps, weight, lr=0.05)
            assert (got - wanted).norm() < 0.06 * (weight - wanted).norm(), new.shape  # it iterates in bfloat16


def test_weight_decay_is_cautious():
    torch.manual_seed(0)
    weights, gradients = [torch.randn(shape) for shape in SHAPES], [torch.randn(shape) for shape in SHAPES]
    steps = muon_steps([torch.zeros(shape) for shape in SHAPES], [gradients], lr=1.0, decay=0.0)
    decayed = muon_steps(weights, [gradients], lr=0.05, decay=0.2)
    for weight, step, got in zip(weights, steps, decayed, strict=True):
        shrink = 0.2 * max(1, weight.size(-2) / weight.size(-1)) ** 0.5 * weight
        wanted = weight + 0.05 * (step - torch.where(step * weight <= 0, shrink, 0.0))  # both towards zero
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_muon_step_is_nearly_orthogonal():
    torch.manual_seed(0)
    zeros, gradients = [torch.zeros(shape) for shape in SHAPES], [torch.randn(shape) * 1e-4 for shape in SHAPES]
    for step in muon_steps(zeros, [gradients], lr=1.0, decay=0.2):
        rows, cols = step.shape[-2:]
        s = torch.linalg.svdvals(step.double()) / max(1, rows / cols) ** 0.5
        well = s if rows != cols else s[..., : 3 * rows // 4]  # a square matrix has singular values close to zero
        assert well.min() > 0.8 and s.max() < 1.2, (rows, cols)


def test_muon_of_a_zero_gradient_stays_where_it_is():
    (weight,) = muon_steps([torch.zeros(8, 4)], [[torch.zeros(8, 4)]], lr=1.0, decay=0.0)
    assert torch.equal(weight, torch.zeros(8, 4))


def test_schedule(monkeypatch):
    for name, value in {"WARMUP_RATIO": 0.25, "WARMDOWN_RATIO": 0.5, "FINAL_LR_FRAC": 0.1, "WEIGHT_DECAY": 0.2}.items():
        monkeypatch.setattr(train, name, value)
    adam = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], weight_decay=0.3)
    muon = train.Muon([torch.nn.Parameter(torch.zeros(2, 2))], 0.5, 0.2, torch.bfloat16, lambda function, **_: function)
    for optimizer, rate in ((adam, 2.0), (muon, 0.5)):
        optimizer.param_groups[0]["initial_lr"] = rate
    seen = {}
    for progress in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0):
        train.schedule([adam, muon], progress)
        rates = [optimizer.param_groups[0]["lr"] for optimizer in (adam, muon)]
        assert rates[0] == pytest.approx(4 * rates[1])
        assert muon.param_groups[0]["weight_decay"] == pytest.approx(0.2 * (1 - progress))
        seen[progress] = rates[0] / 2
    assert seen == pytest.approx({0.0: 0.0, 0.125: 0.5, 0.25: 1.0, 0.5: 1.0, 0.75: 0.55, 1.0: 0.1})
    assert adam.param_groups[0]["weight_decay"] == 0.3
    monkeypatch.setattr(train, "WARMUP_RATIO", 0.0)
    monkeypatch.setattr(train, "WARMDOWN_RATIO", 0.0)
    for progress in (0.0, 1.0):
        train.schedule([adam, muon], progress)
        assert adam.param_groups[0]["lr"] == 2.0


# --- the model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 5, 36, 37, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_loss_and_its_gradients_against_float64(monkeypatch, rows, dtype, tolerance):
    torch.manual_seed(0)
    monkeypatch.setattr(train, "LOSS_LOGITS", rows * 50 + 49)  # chunks of `rows` tokens
    x = (3 * torch.randn(37, 16)).to(dtype).requires_grad_()
    weight = torch.randn(50, 16).to(dtype).float().requires_grad_()
    targets = torch.randint(0, 50, (37,))
    targets[:2] = torch.tensor([0, 49])
    loss = train.SoftcapCrossEntropy.apply(x, weight, targets)
    (3 * loss).backward()
    x64, weight64 = (t.detach().double().requires_grad_() for t in (x, weight))
    logits = x64 @ weight64.T
    assert logits.abs().max() > 2 * train.LOGIT_SOFTCAP  # the cap matters
    wanted = F.cross_entropy(train.LOGIT_SOFTCAP * torch.tanh(logits / train.LOGIT_SOFTCAP), targets)
    (3 * wanted).backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=tolerance)
    for got, right in ((x.grad, x64.grad), (weight.grad, weight64.grad)):
        assert (got.double() - right).norm() < tolerance * right.norm()


@pytest.fixture
def model(small):
    """A model of 2 layers in float32, for 16 tokens and 50 words, with noise on every weight: many begin as zero."""
    torch.manual_seed(0)
    attend = platform_utils.get_attention_forward(CPU, train.HEAD_DIM, 16, [8, 16])
    model = train.GPT(50, 16, [8, 16], 64, attend, torch.float32)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
    return model


@pytest.fixture
def tokens(model):
    """Inputs and targets, 4 rows."""
    return torch.randint(0, 50, (4, 16)), torch.randint(0, 50, (4, 16))


@torch.no_grad()
@pytest.mark.parametrize("position", [0, 1, 8, 15])
def test_the_model_is_causal(model, tokens, position):
    x, _ = tokens
    changed = x.clone()
    changed[:, position] = (x[:, position] + 1) % 50
    before, after = model(x), model(changed)
    assert before.shape == (4, 16, 50) and before.dtype == torch.float32
    torch.testing.assert_close(after[:, :position], before[:, :position], rtol=0, atol=1e-5)
    differs = (after - before).abs().amax(dim=(0, 2)) > 1e-3
    assert differs[position:].all(), "every later token sees it, through the layer with the full window"


@torch.no_grad()
def test_logits_and_loss_agree(model, tokens):
    x, y = tokens
    logits = model(x)
    assert 1 < logits.abs().max() < train.LOGIT_SOFTCAP
    assert model.loss(x, y).item() == pytest.approx(F.cross_entropy(logits.flatten(0, 1), y.flatten()).item(), rel=1e-5)


def test_gradients_add_up_over_the_parts_of_a_batch(model, tokens):
    x, y = tokens
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    ends = []
    for parts in (1, 4):
        model.load_state_dict(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batches = ((a, b, 1) for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True))
        loss = train.train_step(model, [optimizer], batches, parts)
        assert all(p.grad is None for p in model.parameters())
        ends.append((loss, {name: p.detach().clone() for name, p in model.named_parameters()}))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-5)
    assert all(not torch.equal(ends[0][1][name], start[name]) for name in start)


def test_every_weight_has_one_optimizer(small, data):
    model, optimizers = train.build(data, CPU)
    held = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    assert all(group["initial_lr"] == group["lr"] for each in optimizers for group in each.param_groups)
    assert all(p.dim() >= 2 for group in optimizers[1].param_groups for p in group["params"])


def test_flops_by_hand(monkeypatch, small, data):
    monkeypatch.setattr(train, "WINDOW_PATTERN", "SL")
    model, _ = train.build(data, CPU)
    matrices = 2 * 12 * 64 * 64  # q, k, v, out, up and down of two layers
    gate, head = 2 * 32, 512 * 64  # two heads gate the value embedding of the last layer by 32 channels
    attention = 12 * 64 * (32 + 64)  # half the sequence, then all of it
    assert train.estimate_flops(model, 64) == 6 * (matrices + gate + head) + attention


def test_train_py_stays_small():
    assert len((ROOT / "train.py").read_text().splitlines()) < 600
