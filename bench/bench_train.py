"""How fast train.py is here, and where the time goes.

    uv run bench/bench_train.py                     the preset of this machine
    uv run bench/bench_train.py --reference         depth 4, width 256, sequence 512, vocabulary 4096, batch 8 x 512
    uv run bench/bench_train.py --json              one JSON object instead of the table

`plain` is the same model with every switch off (no compilation, autocast, one T x T mask, all logits at once, matrices
updated one kernel at a time): what a straightforward trainer does. Its steps and ours alternate, so that both see the
same machine; absolute figures move with the machine, the ratio hardly does. Run it with nothing else running.
Not covered: quality (val_bpb), which needs whole runs, see RESULTS.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
import platform_utils as platform
import prepare
import train

ROOT = Path(__file__).parent.parent
LOADER_TOKENS = 4_000_000


def masked_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Attention as first written down: one T x T mask, whatever the window."""
    at = torch.arange(q.size(1), device=q.device)
    seen = (at[:, None] >= at) & (at[:, None] - at <= window)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)


class PlainGPT(train.GPT):
    """The model of train.py without anything that makes it fast."""

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the logits of all tokens at once, under autocast."""
        with torch.autocast(tokens.device.type, torch.bfloat16):
            return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())


def build_plain(data: prepare.Data, device: torch.device) -> tuple[PlainGPT, list[torch.optim.Optimizer]]:
    """`train.build` with every switch off."""
    with (
        patch.object(train, "GPT", PlainGPT),
        patch.object(platform, "get_attention_forward", lambda *_: platform.Attention("mask", masked_attention)),
        patch.object(platform, "compute_dtype", lambda _: torch.float32),  # autocast decides, operation by operation
        patch.dict(os.environ, {"AUTORESEARCH_COMPILE": "0"}),
    ):
        model, (adamw, muon) = train.build(data, device)
    muon.dtype = torch.bfloat16
    return model, [adamw, muon]


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    platform.sync_device(device)
    started = time.perf_counter()
    function()
    platform.sync_device(device)
    return time.perf_counter() - started


def startup_seconds() -> float:
    """From starting `train.py` to its first step, by the line it prints then; the run is stopped there."""
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = {"KNOWLEDGE_DIR": f"{folder}/knowledge", "AUTORESEARCH_RUNS_DIR": f"{folder}/runs"}
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, ROOT / "train.py"], stdout=subprocess.PIPE, text=True, env=os.environ | elsewhere
        )
        took = next(
            (time.perf_counter() - started for line in process.stdout if "first step after" in line), float("nan")
        )
        process.terminate()
        process.wait()
        return took


def measure(reference: bool, steps: int) -> dict:
    """All figures of this machine as one flat record."""
    if reference:
        prepare.PRESETS["reference"] = prepare.Preset(seq_len=512, vocab_size=4096, eval_tokens=256 * 512)
        train.DEPTH, train.ASPECT_RATIO, train.HEAD_DIM, train.WINDOW_PATTERN = 4, 64, 128, "SSSL"
        train.DEVICE_BATCH_SIZE, train.TOTAL_BATCH_SIZE, train.BIGRAM_BUCKETS = 8, 4096, 0
    device = platform.get_device()
    info = platform.get_device_info(device)
    platform.seed_device(0)
    data = prepare.load_data(preset="reference" if reference else train.PRESET)
    micro_steps = train.TOTAL_BATCH_SIZE // (train.DEVICE_BATCH_SIZE * data.seq_len)
    loader = prepare.Loader(data, train.DEVICE_BATCH_SIZE, device, 0)

    arms = {"ours": train.build(data, device), "plain": build_plain(data, device)}
    times: dict[str, list[float]] = {name: [] for name in arms}
    first = {}
    for step in range(steps + 3):
        for name, (model, optimizers) in arms.items():
            took = seconds(lambda m=model, o=optimizers: train.train_step(m, o, loader, micro_steps), device)
            first.setdefault(name, took)
            if step >= 3:  # compiled and warm
                times[name].append(took)
    ours, plain = (statistics.median(times[name]) for name in ("ours", "plain"))

    model, optimizers = arms["ours"]
    batch = next(loader)
    forward_backward, optimizer, load = [], [], []
    for _ in range(steps):
        load.append(seconds(lambda: next(loader), device) * micro_steps)
        forward_backward.append(seconds(lambda: model.loss(*batch[:2]).backward(), device) * micro_steps)
        optimizer.append(seconds(lambda: [o.step() for o in optimizers], device))
        model.zero_grad(set_to_none=True)
    packing = prepare.Loader(data, train.DEVICE_BATCH_SIZE, torch.device("cpu"), 1)
    batches = LOADER_TOKENS // (train.DEVICE_BATCH_SIZE * data.seq_len) + 1
    loader_seconds = seconds(lambda: [next(packing) for _ in range(batches)], device)
    evaluation: list[prepare.Evaluation] = []
    run_evaluation = lambda: evaluation.append(prepare.evaluate_bpb(model, data, train.EVAL_BATCH_SIZE, device))  # noqa: E731
    evaluation_cold, evaluation_warm = seconds(run_evaluation, device), seconds(run_evaluation, device)

    peak, source = platform.get_peak_flops(device, model.dtype)
    flops = train.estimate_flops(model, data.seq_len) * train.TOTAL_BATCH_SIZE
    return {
        "machine": f"{info['device_name']}, {info['cpu_count']} cores, torch {info['torch']}",
        "device_class": info["device_class"],
        "config": f"depth {train.DEPTH}, width {model.embedding.size(1)}, sequence {data.seq_len}, "
        f"vocabulary {data.vocab_size}, batch {train.TOTAL_BATCH_SIZE}, attention {model.blocks[0].attend.name}",
        "tokens_per_second": train.TOTAL_BATCH_SIZE / ours,
        "tokens_per_second_plain": train.TOTAL_BATCH_SIZE / plain,
        "ratio": plain / ours,
        "mfu_percent": 100 * flops / ours / peak,
        "peak_tflops": peak / 1e12,
        "peak_source": source,
        "share_loader_percent": 100 * statistics.median(load) / ours,
        "share_forward_backward_percent": 100 * statistics.median(forward_backward) / ours,
        "share_optimizer_percent": 100 * statistics.median(optimizer) / ours,
        "first_step_seconds": first["ours"],
        "loader_tokens_per_second": batches * train.DEVICE_BATCH_SIZE * data.seq_len / loader_seconds,
        "evaluation_seconds_cold": evaluation_cold,
        "evaluation_seconds": evaluation_warm,
        "evaluation_tokens": evaluation[-1].tokens,
        "share_evaluation_percent": 100 * evaluation_warm / (prepare.TIME_BUDGET_SECONDS + evaluation_warm),
        "peak_memory_mb": platform.get_peak_memory_mb(device),
        "startup_seconds": None if reference else startup_seconds(),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast train.py is on this machine.")
    parser.add_argument("--reference", action="store_true", help="the reference configuration instead of the preset")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each arm (default 20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    record = measure(args.reference, args.steps)
    if args.json:
        return print(json.dumps(record, indent=2))
    for name, value in record.items():
        if isinstance(value, float):
            value = f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        print(f"{name.replace('_', ' '):<32} {'-' if value is None else value}")


if __name__ == "__main__":
    main()
