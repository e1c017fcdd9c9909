"""docs/metric.md: cheats and honest mistakes, each tried, and what becomes of it.

Models that look where they may not are toys in this process. The rest are edits of the real train.py, as an agent would
make them, run as `worker.py` runs them and looked at again by the real evaluate.py (slow). What the recorder refuses
has tests/test_recorder.py, and what a gap means tests/test_recheck.py.
"""

import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import SMALL, edited

import prepare
from lab.cards import load_cards
from lab.errors import DataError
from lab.recheck import look_again

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
VOCAB, LENGTH, BATCH = 64, 48, 8
ROWS = np.random.default_rng(0).integers(1, VOCAB - 1, (5 * BATCH, LENGTH + 1)).astype(np.uint16)
BYTES = np.array([1] * (VOCAB - 1) + [0], np.int32)

FUTURE = "evaluation: logits at a position change with the tokens behind it: the model sees the future"
OTHER_ROWS = "evaluation: the logits of a row change with the other rows of its batch"
REPEATS = "evaluation: the same tokens give other logits the second time"


class Toy(torch.nn.Module):
    """Logits from the mean of the embeddings so far, and then `cheat(model, x, logits)`. It counts its calls."""

    def __init__(self, cheat=lambda model, x, logits: logits):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(VOCAB, VOCAB, generator=generator))
        self.cheat, self.calls = cheat, 0

    def honest(self, x):
        """What the model may know."""
        return self.table[x].cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]

    def forward(self, x):
        """Logits (B, T, VOCAB)."""
        self.calls += 1
        return self.cheat(self, x, self.honest(x))


def certain(tokens):
    """Logits of who knows the tokens."""
    return torch.nn.functional.one_hot(tokens, VOCAB) * 9.0


def peek(x, where):
    """Logits that know the next token at some places (a slice of positions), and nothing elsewhere."""
    knows = torch.zeros(x.shape[1])
    knows[where] = 1
    return certain(x.roll(-1, 1)) * knows[:, None]


class Sure(torch.Tensor):
    """A tensor that answers the loss function itself."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        if function is torch.nn.functional.cross_entropy:
            return torch.zeros(BATCH * LENGTH)
        return super().__torch_function__(function, types, arguments, options or {})


targets = iter(torch.from_numpy(ROWS.astype(np.int64)).split(BATCH))
CHEATS = {
    "a roll": (lambda model, x, logits: certain(x.roll(-1, 1)), FUTURE),
    "mean over time": (lambda model, x, logits: logits - logits.mean(1, keepdim=True), FUTURE),
    "mask off by one": (lambda model, x, logits: model.honest(torch.cat([x, x[:, :1]], 1))[:, 1:], FUTURE),
    "the last positions": (lambda model, x, logits: logits + peek(x, slice(-4, -1)), FUTURE),
    "the second half": (lambda model, x, logits: logits + peek(x, slice(LENGTH // 2, None)), FUTURE),
    "every fourth position": (lambda model, x, logits: logits + peek(x, slice(None, None, 4)), FUTURE),
    "from the second batch on": (
        lambda model, x, logits: logits + peek(x, slice(None)) * (model.calls > 6), FUTURE,
    ),
    "only when nobody probes": (
        lambda model, x, logits: logits if (model.calls - 1) % 6 else peek(x, slice(None)), REPEATS,
    ),
    "remembered by call": (lambda model, x, logits: certain(next(targets)[:, 1:]), REPEATS),
    "dropout left on": (lambda model, x, logits: torch.nn.functional.dropout(logits, 0.1), REPEATS),
    "mean over the batch": (lambda model, x, logits: logits + logits.mean(0), OTHER_ROWS),
    "an answer of its own": (
        lambda model, x, logits: logits.as_subclass(Sure),
        "evaluation: model(x) must return logits (8, 48, 64), not Sure",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHEATS)
def test_a_model_that_looks_where_it_may_not(name):
    cheat, message = CHEATS[name]
    with pytest.raises(DataError) as error:
        prepare.row_losses(Toy(cheat), ROWS, BYTES, BATCH, CPU)
    assert str(error.value) == message or (message == REPEATS and str(error.value) in (FUTURE, OTHER_ROWS))


@pytest.mark.parametrize("change", [lambda model, x, logits: logits, lambda model, x, logits: logits * 0])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_an_honest_model_passes_every_time(change, rows):
    for _ in range(10):  # the places are drawn by chance
        nats, nbytes = prepare.row_losses(Toy(change), ROWS[:rows], BYTES, BATCH, CPU)
        assert (len(nats), nbytes.tolist()) == (rows, [LENGTH] * rows)


# --- the real thing ------------------------------------------------------------------------------------------------

LOAD = "data = prepare.load_data(preset=PRESET)"
EVALUATE = 'run.phase("evaluate")'
TRAIN = 'run.phase("train")'
RESULT = "evaluation = prepare.evaluate_bpb(model, data, EVAL_BATCH_SIZE, device)"
EASY = "prepare.validation_rows = lambda data, real=prepare.validation_rows: (real(data)[0][:9], 1.0)"
HALVED = "import prepare as p; p.F.cross_entropy = lambda *a, real=F.cross_entropy, **k: real(*a, **k) * 0.5"
FEWER = "p = prepare.PRESETS; p[PRESET] = p[PRESET]._replace(eval_tokens=640)"
REPLACED = "prepare.evaluate_bpb = lambda *a: prepare.Evaluation(0.5, 0.0, 1000, 1000)"
SLOWED = (
    "prepare.Clock.elapsed = property(lambda self: (time.perf_counter() - self.started) / 4); "
    "recorder.CLOCK_SECONDS = 0.5"
)
LONGER = "clock.seconds *= 4; recorder.CLOCK_SECONDS = 0.5"
TIMED = {"AUTORESEARCH_STEPS": "0", "AUTORESEARCH_TIME_BUDGET": "1"}
# name: (environment, code inserted behind a line of train.py)
EDITS = {
    "honest": ({}, {}),
    "altered data": ({}, {EVALUATE: "data = data._replace(val=data.train, token_bytes=data.token_bytes * 9)"}),
    "fewer rows": ({}, {EVALUATE: EASY}),
    "fewer tokens": ({}, {EVALUATE: FEWER}),
    "half the loss": ({}, {EVALUATE: HALVED}),
    "evaluator replaced": ({}, {EVALUATE: REPLACED}),
    "another number": ({}, {RESULT: "evaluation = evaluation._replace(bpb=evaluation.bpb - 0.1)"}),
    "the better of two": ({}, {RESULT: RESULT}),
    "clock slowed": (TIMED, {TRAIN: SLOWED}),
    "longer budget": (TIMED, {TRAIN: LONGER}),
    "validation text": ({"AUTORESEARCH_STEPS": "400"}, {LOAD: "data = data._replace(train=data.val)"}),
    "no build": ({}, {}),
}  # fmt: skip


class Tried:
    """A run of an edited train.py, and the second look at it."""

    def __init__(self, folder, base, name):
        environment, code = EDITS[name]
        folder.mkdir(parents=True)
        self.folder, self.knowledge = folder, folder / "knowledge"
        self.environment = base | {"KNOWLEDGE_DIR": str(self.knowledge), "AUTORESEARCH_RUNS_DIR": str(folder / "runs")}
        self.environment |= environment
        source = edited(SMALL, code)
        if name == "no build":
            source = source.replace("def build(", "def make(").replace("= build(", "= make(")
        (folder / "train.py").write_text(source)
        look = f"{sys.executable} {ROOT / 'evaluate.py'}"
        (folder / "pyproject.toml").write_text(f'[tool.autoresearch]\nsecond_look = "{look}"\n')
        self.code, self.errors = self.run([sys.executable, "train.py"], "run.log")
        (self.card,) = load_cards(self.knowledge)
        self.warning = None
        if self.card["status"] == "keep" and not self.card["quarantined"]:
            (run_folder,) = (folder / "runs").iterdir()
            again = lambda command, log: self.run(command, run_folder / log)[0]  # noqa: E731
            self.card, self.warning = look_again(folder, self.knowledge, self.card, run_folder, again)

    def run(self, command, log):
        """(Exit code, the last line) of a command, what it prints in a file."""
        with open(self.folder / log, "wb") as out:
            code = subprocess.run(
                command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            ).returncode
        return code, (self.folder / log).read_text().splitlines()[-1]


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """All of them, by name, two at a time."""
    folder = tmp_path_factory.mktemp("tried")
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 8))) for _ in range(2000)]
    docs = [" ".join(rng.choices(words, k=rng.randint(60, 160))) for _ in range(400)]
    (folder / "corpus").mkdir()
    (folder / "corpus" / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    base = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")} | {
        "PYTHONPATH": str(ROOT), "GIT_CEILING_DIRECTORIES": str(folder.parent), "OMP_NUM_THREADS": "1",
        "AUTORESEARCH_CACHE": str(folder / "cache"), "AUTORESEARCH_DATASET": f"local:{folder / 'corpus'}",
        "AUTORESEARCH_PRESET": "tiny", "AUTORESEARCH_DEVICE": "cpu", "AUTORESEARCH_COMPILE": "0",
        "AUTORESEARCH_STEPS": "40",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", base["AUTORESEARCH_CACHE"])
        prepare.prepare(base["AUTORESEARCH_DATASET"], "tiny")
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(EDITS, pool.map(lambda name: Tried(folder / name, base, name), EDITS), strict=True))


slow = [pytest.mark.slow, pytest.mark.timeout(1200)]


class TestEdits:
    """What becomes of each edit of train.py."""

    pytestmark = slow

    def test_an_honest_run(self, tried):
        run = tried["honest"]
        assert (run.code, run.warning, run.card["quarantined"], run.card["status"]) == (0, None, None, "keep")
        results = run.card["results"]
        assert abs(results["hidden_bpb"] - results["val_bpb"]) < 4 * 2 * results["hidden_stderr"]

    def test_the_text_is_read_anew(self, tried):
        """With the same seed and steps nothing that is done to `data` changes the result."""
        honest, altered = (tried[name].card["results"]["val_bpb"] for name in ("honest", "altered data"))
        assert altered == honest and tried["altered data"].card["quarantined"] is None

    @pytest.mark.parametrize(
        ("name", "start"),
        [
            ("fewer rows", "does not reproduce: it was evaluated on other text: eval_tokens 576 instead of "),
            ("fewer tokens", "does not reproduce: it was evaluated on other text: eval_tokens 640 instead of "),
            ("half the loss", "does not reproduce: 64 validation rows have a loss of "),
            ("validation text", "suspect_overfit: "),
        ],
    )
    def test_what_the_second_look_finds(self, tried, name, start):
        assert tried[name].card["quarantined"].startswith(start)
        assert (tried[name].card["status"], tried[name].warning) == ("keep", None)

    @pytest.mark.parametrize(
        ("name", "start"),
        [
            ("evaluator replaced", "val_bpb 0.500000 was not measured by the evaluator in this run; call "),
            ("another number", "val_bpb is "),
            ("the better of two", "the run has been evaluated before; a run is evaluated once, at its end"),
        ],
    )
    def test_what_the_recorder_refuses(self, tried, name, start):
        run = tried[name]
        assert (run.code, run.card["status"], run.card["error"]["kind"]) == (2, "crash", "setting")
        assert run.card["error"]["summary"].startswith(start) and run.errors == f"error: {run.card['error']['summary']}"

    @pytest.mark.parametrize("name", ["clock slowed", "longer budget"])
    def test_what_the_recorders_clock_finds(self, tried, name):
        assert tried[name].card["quarantined"].endswith(" s by the recorder's clock, and the budget is 1 s")

    def test_a_script_that_cannot_be_evaluated_again(self, tried):
        run = tried["no build"]
        why = "train.py has no build(data, device) that gives the model; keep that function"
        assert run.warning.startswith(f"card {run.card['id'][:12]} could not be evaluated again: ")
        assert run.warning.endswith(why) and run.card["results"]["hidden_bpb"] is None
