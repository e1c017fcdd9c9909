"""The second look at a run: its weights once more, by another process, on text that no run has seen.

    uv run evaluate.py runs/<run id>         prints JSON as its last line: hidden_bpb, val_bpb, suspect, ...

Two processes. This one has the tokens, computes the losses with prepare.py and imports nothing that an agent has
written. The other, started by it, imports train.py as the run folder has it, builds the model with its
`build(data, device)`, loads checkpoint.safetensors, and is sent tokens and answers with logits. `suspect` says where
the run's evaluation.json is not what its weights give on rows that it could not foresee.

This file is frozen for agents. Not covered: a sandbox. The other process runs as the same user, who may read the hidden
text; and what the gap between the two texts means is for lab/recheck.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

import platform_utils
import prepare
from lab.errors import DataError, LabError, StoreError
from lab.recorder import CHECKPOINT
from lab.store import read_json

MAX_BATCH = 16  # rows in a forward pass
BATCH_LOGITS = 2**27  # logits that exist at one time
MAX_LOGITS = 2**33  # logits of the hidden text in all: they go through a pipe, a gigabyte or two a second
ROWS_AGAIN = 64  # validation rows that are measured once more
REPRODUCES_WITHIN = 1e-3  # share of their loss: other kernels and batches round differently


class GoneError(LabError):
    """The process with the model cannot be started, or has ended or answered wrongly."""


class Far(torch.nn.Module):
    """The model of a run, in a process of its own: tokens (B, T) to logits, as the other side gives them."""

    def __init__(self, run_dir: Path, preset: str, dataset: str, device: torch.device) -> None:
        super().__init__()
        self.script, self.device = run_dir / "train.py", device
        told = {"AUTORESEARCH_PRESET": preset, "AUTORESEARCH_DATASET": dataset, "AUTORESEARCH_COMPILE": "0"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(run_dir)],
            env=os.environ | told,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._answer()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Float32 logits of int64 tokens."""
        with suppress(BrokenPipeError):  # there is an answer that says why, or none
            send(self.process.stdin, tokens.cpu().numpy())
        return torch.from_numpy(self._answer()).to(self.device)

    def _answer(self) -> np.ndarray:
        try:
            return receive(self.process.stdout, np.float32)
        except EOFError:
            code = self.process.wait()
            raise GoneError(f"{self.script}: its model ended with exit code {code}; its words are above") from None

    def end(self) -> None:
        """End the process; what it started is whoever runs this file's to end."""
        self.process.kill()
        self.process.wait()


def send(pipe: BinaryIO, array: np.ndarray | None, error: str | None = None) -> None:
    """A line of JSON that says what follows, and the numbers as they are in memory: nothing is ever unpickled."""
    shape = [0] if array is None else array.shape
    pipe.write(json.dumps({"shape": list(shape), "error": error}).encode() + b"\n")
    if array is not None:
        pipe.write(np.ascontiguousarray(array).data)
    pipe.flush()


def receive(pipe: BinaryIO, dtype: type) -> np.ndarray:
    """What `send` has sent. EOFError where the other side is gone, GoneError where it says why it cannot answer."""
    head = pipe.readline()
    if not head:
        raise EOFError
    try:
        said = json.loads(head)
        shape, error = tuple(map(int, said["shape"])), said["error"]
    except (ValueError, KeyError, TypeError):
        raise GoneError("the process with the model does not answer as it should") from None
    if error:
        raise GoneError(str(error))
    size = math.prod(shape) * np.dtype(dtype).itemsize
    content = pipe.read(size)
    if len(content) < size:
        raise EOFError
    return np.frombuffer(bytearray(content), dtype).reshape(shape)


# ---------------------------------------------------------------------------------------------------------------
# The side that has the text


def look(run_dir: Path) -> dict:
    """What the weights of a run give on the hidden text, and whether they give what the run has said; unknown is None.

    Raises:
        LabError: the run cannot be evaluated again.
    """
    evaluation = read_json(run_dir / "evaluation.json")
    preset = read_json(run_dir / "start.json").get("preset") or prepare.default_preset()
    if not (run_dir / CHECKPOINT).exists():
        raise StoreError(f"{run_dir / CHECKPOINT} is not there: only what is kept has weights")
    if preset not in prepare.PRESETS:
        raise DataError(f"{run_dir}: there is no preset {preset!r}")
    dataset = prepare.default_dataset(preset)
    data = prepare.load_data(dataset, preset)
    if prepare.frame(data) != evaluation.get("track"):
        raise DataError(
            f"{run_dir} was evaluated on {evaluation.get('track')}..., and here is {prepare.frame(data)}...; "
            "set AUTORESEARCH_DATASET to what it ran on"
        )
    device = platform_utils.get_device()
    found: dict = dict.fromkeys(("hidden_bpb", "hidden_stderr", "val_bpb", "val_stderr", "tokens", "suspect"))
    model = Far(run_dir, preset, dataset, device)
    try:
        found |= validate(model, data, evaluation, device)
        found |= hide(model, data, device)
    except DataError as error:  # of prepare.row_losses: the model does what it may not
        found["suspect"] = found["suspect"] or f"does not reproduce: {error}"
    finally:
        model.end()
    return found


def validate(model: Far, data: prepare.Data, evaluation: dict, device: torch.device) -> dict:
    """Whether the run's evaluation is one of the fixed rows, and its weights give the same on some of them."""
    rows, _ = prepare.validation_rows(data)
    row_bytes = data.token_bytes[rows[:, 1:]].sum(1).astype(float)
    said = np.array(evaluation.get("row_nats") or [], float)
    measured = {"eval_tokens": len(rows) * data.seq_len, "eval_bytes": int(row_bytes.sum())}
    if len(said) != len(rows) or any(evaluation.get(name) != number for name, number in measured.items()):
        numbers = ", ".join(f"{name} {evaluation.get(name)} instead of {number}" for name, number in measured.items())
        return {"suspect": f"does not reproduce: it was evaluated on other text: {numbers}"}
    total = prepare.bits_per_byte(torch.from_numpy(said), torch.from_numpy(row_bytes), 0.0, data.seq_len)
    some = np.sort(np.random.default_rng().permutation(len(rows))[:ROWS_AGAIN])  # nobody can foresee which
    again, _ = prepare.row_losses(model, rows[some], data.token_bytes, batch_size(data), device)
    before, now = said[some].sum(), again.sum().item()
    found = {"val_bpb": total.bpb, "val_stderr": total.stderr}
    if abs(now - before) > REPRODUCES_WITHIN * now:
        what = f"{len(some)} validation rows have a loss of {now:.1f} nats with its weights, and had {before:.1f}"
        return found | {"suspect": f"does not reproduce: {what}"}
    return found


def hide(model: Far, data: prepare.Data, device: torch.device) -> dict:
    """Bits per byte of the hidden text; nothing where there is less of it than a row."""
    hidden = data._replace(val=prepare.load_hidden(data))
    if len(hidden.val.tokens) <= data.seq_len:
        return {}
    rows, _ = prepare.validation_rows(hidden)
    most = max(1, MAX_LOGITS // (data.seq_len * data.vocab_size))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]
    losses = prepare.row_losses(model, rows, data.token_bytes, batch_size(data), device)
    result = prepare.bits_per_byte(*losses, 0.0, data.seq_len)
    return {"hidden_bpb": result.bpb, "hidden_stderr": result.stderr, "tokens": result.tokens}


def batch_size(data: prepare.Data) -> int:
    """Rows a forward pass."""
    return max(2, min(MAX_BATCH, BATCH_LOGITS // (data.seq_len * data.vocab_size)))


# ---------------------------------------------------------------------------------------------------------------
# The side that has the model


def serve(run_dir: Path) -> None:
    """Answer tokens from standard input with logits on standard output, until it ends."""
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what train.py prints must not come between the numbers
    device = platform_utils.get_device()
    try:
        model = load(run_dir, device)
    except LabError as error:
        send(wire, None, str(error))
        return
    send(wire, np.zeros(0, np.float32))
    with torch.no_grad():
        while True:
            try:
                tokens = receive(sys.stdin.buffer, np.int64)
            except EOFError:
                return
            logits = model(torch.from_numpy(tokens).to(device))
            send(wire, logits.detach().float().cpu().numpy())


def load(run_dir: Path, device: torch.device) -> torch.nn.Module:
    """The model of a run: built by its own train.py, with the weights it was evaluated with.

    Raises:
        DataError: train.py does not build the model that the weights are of.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    script = run_dir / "train.py"
    spec = importlib.util.spec_from_file_location("train", script)
    train = importlib.util.module_from_spec(spec)
    sys.modules["train"] = train
    spec.loader.exec_module(train)
    if not callable(getattr(train, "build", None)):
        raise DataError(f"{script} has no build(data, device) that gives the model; keep that function")
    data = prepare.load_data()
    built = train.build(data._replace(val=prepare.Split(data.val.tokens[:0], data.val.offsets[:1])), device)
    model = built[0] if isinstance(built, tuple) else built
    try:
        load_model(model, str(run_dir / CHECKPOINT), device=str(device))
    except (RuntimeError, SafetensorError) as error:
        raise DataError(
            f"{script}: the weights do not fit what build() makes: {' '.join(str(error).split())}"
        ) from None
    return model.eval()


def main() -> None:
    """Evaluate a run again, or be the process with its model."""
    parser = argparse.ArgumentParser(description="Evaluate the weights of a run on hidden text.")
    parser.add_argument("run", type=Path, help="the run's folder, with checkpoint.safetensors and evaluation.json")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        if args.serve:
            return serve(args.run)
        found = look(args.run.absolute())
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(json.dumps({name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in found.items()}))


if __name__ == "__main__":
    main()
