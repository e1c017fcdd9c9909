"""One experiment: train a small GPT for the fixed time budget and report val_bpb (bits per byte, lower is better).

    uv run train.py                          prepares data when there is none, trains, leaves a card under knowledge/

This is the file to edit: model, optimizer, schedule, everything. It reads from top to bottom, constants first.
What it may not change is what makes runs comparable (prepare.py): data, tokenizer, loader, metric and clock.
Not covered: several devices in one run, checkpoints, text generation.
"""

if __name__ == "__main__":  # before torch is imported, so that a run that dies in its first second leaves a card too
    from lab import recorder

    run = recorder.start(__file__)

import time

_started = time.perf_counter()  # before the imports: they are part of what a run costs

import math
import sys
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import platform_utils as platform
import prepare
from lab.decide import packet
from lab.errors import DivergedError, SettingError

# ---------------------------------------------------------------------------------------------------------------
# Constants: every upper-case name here is recorded in the card

PRESET = prepare.default_preset()  # the frame: sequence length, vocabulary, evaluation (prepare.PRESETS)
SEED = prepare.setting("AUTORESEARCH_SEED", 42, least=0)  # of weights and data order

if PRESET == "gpu":
    DEPTH = 8  # transformer blocks
    ASPECT_RATIO = 64  # model width = depth * aspect ratio, rounded up to whole heads
    HEAD_DIM = 128  # width of an attention head
    BIGRAM_BUCKETS = 0  # rows of the hashed embedding of token pairs, 0 for none
    WINDOW_PATTERN = "SSSL"  # attention span by layer: L all of the sequence, S half of it; the last layer is L
    TOTAL_BATCH_SIZE = 2**19  # tokens an optimizer step
    DEVICE_BATCH_SIZE = 128  # rows a forward pass; lower it when memory runs out
    EVAL_BATCH_SIZE = 16  # rows a forward pass of the evaluation
    MATRIX_LR = 0.04  # Muon, block matrices
    EMBEDDING_LR = 0.6  # AdamW, token and value embeddings
    UNEMBEDDING_LR = 0.004  # AdamW, output head
    SCALAR_LR = 0.5  # AdamW, residual and x0 scalars
    WEIGHT_DECAY = 0.2  # Muon, cautious, fades to zero with the clock
    WARMDOWN_RATIO = 0.5  # last share of the budget over which the learning rate falls to zero
else:
    DEPTH = 3
    ASPECT_RATIO = 64
    HEAD_DIM = 64
    BIGRAM_BUCKETS = 16384
    WINDOW_PATTERN = "SSSL"
    TOTAL_BATCH_SIZE = 4096
    DEVICE_BATCH_SIZE = 16
    EVAL_BATCH_SIZE = 16
    MATRIX_LR = 0.04
    EMBEDDING_LR = 0.6
    UNEMBEDDING_LR = 0.004
    SCALAR_LR = 0.5
    WEIGHT_DECAY = 0.2
    WARMDOWN_RATIO = 0.5

WARMUP_RATIO = 0.0  # first share of the budget over which the learning rate rises from zero
FINAL_LR_FRAC = 0.0  # learning rate at the end, as a share of the peak
ADAM_BETAS = (0.8, 0.95)
MUON_MOMENTUM = 0.95
MUON_STEPS = 5  # polar express iterations
LOGIT_SOFTCAP = 15.0  # logits are squashed into this range
ROPE_BASE = 10000
GATE_CHANNELS = 32  # leading channels of a block's input that gate its value embedding
LOSS_LOGITS = 2**28 if PRESET == "gpu" else 2**21  # logits that exist at one time; a CPU likes them in its cache

# What `--agent hpo` and `--agent random` may turn (lab/hpo.py), and how far: (lowest, highest)
_RANGES = {
    "DEPTH": (2, 16),
    "ASPECT_RATIO": (32, 128),
    "HEAD_DIM": (32, 256),
    "BIGRAM_BUCKETS": (2**12, 2**18),
    "TOTAL_BATCH_SIZE": (2**12, 2**21),
    "MATRIX_LR": (0.005, 0.2),
    "EMBEDDING_LR": (0.05, 4.0),
    "UNEMBEDDING_LR": (0.0005, 0.05),
    "SCALAR_LR": (0.05, 2.0),
    "WEIGHT_DECAY": (0.0, 0.8),
    "WARMDOWN_RATIO": (0.1, 1.0),
    "WARMUP_RATIO": (0.0, 0.1),
    "FINAL_LR_FRAC": (0.0, 0.2),
    "MUON_MOMENTUM": (0.8, 0.99),
    "MUON_STEPS": (3, 5),
    "LOGIT_SOFTCAP": (5.0, 60.0),
    "ROPE_BASE": (1000, 1000000),
    "GATE_CHANNELS": (8, 64),
}

# ---------------------------------------------------------------------------------------------------------------
# Model


def norm(x: Tensor) -> Tensor:
    """RMSNorm without a gain (the next matrix can learn it)."""
    return F.rms_norm(x, (x.size(-1),))


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply x (..., in) by weight.T (in, out) in the compute dtype: weights stay float32 for the optimizer."""
    return F.linear(x, weight.to(x.dtype))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) of x (B, T, H, D); cos, sin (1, T, 1, D/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)


def bigram_bucket(tokens: Tensor) -> Tensor:
    """A hash below BIGRAM_BUCKETS of each token (B, T) and the one before it (Huang et al. 2025, arXiv 2501.16975)."""
    before = F.pad(tokens[:, :-1], (1, 0))
    return (36313 * tokens + 27191 * before) % BIGRAM_BUCKETS


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to the residual stream.

    The stream entering is mixed with x0, the embedding of the first layer, by learnt scalars. Every other block adds
    an embedding of its tokens to the values (Zhou et al. 2024, arXiv 2410.17897), gated per head as in nanochat.
    """

    def __init__(self, dim: int, window: int, value_vocab: int, attend: platform.Attention) -> None:
        super().__init__()
        self.window, self.attend = window, attend
        bound = 3**0.5 * dim**-0.5  # uniform with a standard deviation of dim**-0.5
        self.qkv = nn.Parameter(torch.empty(3, dim, dim).uniform_(-bound, bound))
        self.out = nn.Parameter(torch.zeros(dim, dim))
        self.up = nn.Parameter(torch.empty(4 * dim, dim).uniform_(-bound, bound))
        self.down = nn.Parameter(torch.zeros(dim, 4 * dim))
        self.residual_scale = nn.Parameter(torch.ones(()))
        self.x0_scale = nn.Parameter(torch.full((), 0.1))
        self.value_embedding = self.value_gate = None
        if value_vocab:
            self.value_embedding = nn.Parameter(torch.empty(value_vocab, dim).uniform_(-bound, bound))
            self.value_gate = nn.Parameter(torch.zeros(dim // HEAD_DIM, GATE_CHANNELS))

    def forward(self, x: Tensor, x0: Tensor, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Streams x and x0 (B, T, dim) and tokens (B, T) to the stream (B, T, dim)."""
        x = self.residual_scale.to(x.dtype) * x + self.x0_scale.to(x.dtype) * x0
        h = norm(x)
        q, k, v = linear(h, self.qkv.flatten(0, 1)).view(*tokens.shape, 3, -1, HEAD_DIM).unbind(2)
        if self.value_embedding is not None:
            gate = 2 * torch.sigmoid(linear(h[..., :GATE_CHANNELS], self.value_gate))
            v = v + gate.unsqueeze(-1) * F.embedding(tokens, self.value_embedding).to(v.dtype).view_as(v)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))  # QK norm (Henry et al. 2020, arXiv 2010.04245)
        x = x + linear(self.attend(q, k, v, self.window).flatten(2), self.out)
        return x + linear(F.relu(linear(norm(x), self.up)).square(), self.down)  # squared ReLU (So et al. 2021)


class GPT(nn.Module):
    """Decoder-only transformer. `forward` gives logits, what the metric asks for; `loss` is what training minimises."""

    def __init__(
        self,
        vocab_size: int,
        seq_len: int,
        windows: list[int],
        dim: int,
        attend: platform.Attention,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        depth = len(windows)
        self.dtype = dtype
        self.embedding = nn.Parameter(torch.randn(vocab_size, dim))
        self.bigram_embedding = nn.Parameter(torch.zeros(BIGRAM_BUCKETS, dim)) if BIGRAM_BUCKETS else None
        self.unembedding = nn.Parameter(0.001 * torch.randn(vocab_size, dim))
        has_value = [layer % 2 == (depth - 1) % 2 for layer in range(depth)]  # every other block, the last included
        self.blocks = nn.ModuleList(Block(dim, windows[i], has_value[i] * vocab_size, attend) for i in range(depth))
        angles = torch.outer(torch.arange(seq_len), ROPE_BASE ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM))
        self.register_buffer("cos", angles.cos()[None, :, None].to(dtype), persistent=False)
        self.register_buffer("sin", angles.sin()[None, :, None].to(dtype), persistent=False)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) to the residual stream after the last block (B, T, dim)."""
        x = F.embedding(tokens, self.embedding)
        if self.bigram_embedding is not None:
            x = x + F.embedding(bigram_bucket(tokens), self.bigram_embedding)
        x = x0 = norm(x).to(self.dtype)
        for block in self.blocks:
            x = block(x, x0, tokens, self.cos, self.sin)
        return x

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) to float32 logits (B, T, vocab_size)."""
        return self.head(self.hidden(tokens))

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of the targets (B, T)."""
        return self.head_loss(self.hidden(tokens).flatten(0, 1), targets.flatten())

    def head(self, x: Tensor) -> Tensor:
        """The final stream (..., dim) to float32 logits (..., vocab_size)."""
        return softcap(linear(norm(x), self.unembedding))

    def head_loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the targets (N,) given the final stream (N, dim)."""
        return SoftcapCrossEntropy.apply(norm(x), self.unembedding, targets)


def softcap(logits: Tensor) -> Tensor:
    """Logits squashed into +-LOGIT_SOFTCAP by a tanh (Gemma 2, arXiv 2408.00118), in float32."""
    return LOGIT_SOFTCAP * (2 * torch.sigmoid(logits.float() * (2 / LOGIT_SOFTCAP)) - 1)  # sigmoid is the faster tanh


class SoftcapCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of softcapped logits, chunk by chunk, with its gradients computed on the way forward.

    The logits of all tokens never exist at one time (the idea of Liger Kernel, Hsu et al. 2024, arXiv 2410.10989).
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Take x (N, dim), weight (vocab_size, dim), targets (N,) to a scalar in nats."""
        w = weight.to(x.dtype)
        columns = torch.arange(len(w), device=x.device)
        loss, dx, dw = torch.zeros((), device=x.device), [], torch.zeros_like(weight)
        rows = max(1, LOSS_LOGITS // len(w))
        for xs, ys in zip(x.split(rows), targets.split(rows), strict=True):
            logits = softcap(xs @ w.T)
            exp = logits.exp()  # the cap keeps it far below overflow: no maximum needs to be subtracted
            z = exp.sum(-1, keepdim=True)
            is_target = ys[:, None] == columns
            loss = loss + (z.log() - (logits * is_target).sum(-1, keepdim=True)).sum()
            dlogits = (exp / z - is_target.float()) * (1 - (logits / LOGIT_SOFTCAP).square()) / len(x)
            dlogits = dlogits.to(x.dtype)
            dx.append(dlogits @ w)
            dw = dw + (dlogits.T @ xs).float()
        ctx.save_for_backward(torch.cat(dx), dw)
        return loss / len(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scale what forward computed."""
        dx, dw = ctx.saved_tensors
        return dx * grad.to(dx.dtype), dw * grad, None


# ---------------------------------------------------------------------------------------------------------------
# Optimizer

# Polar express (Amsel et al. 2025, arXiv 2505.16932): coefficients of the odd polynomials, one triple an iteration
_POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
_MATRICES = ("qkv", "out", "up", "down")  # what Muon updates; AdamW has the rest
_IN_PRODUCTS = (*_MATRICES, "value_gate", "unembedding")  # what a token is multiplied with; the rest is looked up


def muon_update(
    grad: Tensor, momentum: Tensor, weight: Tensor, lr: Tensor, decay: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """One Muon step for stacked matrices (n, rows, cols) with rows >= cols: the new momentum and weight.

    Nesterov momentum, then the nearest semi-orthogonal matrix (Jordan et al. 2024), then cautious weight decay
    (arXiv 2510.12402: only where the decay agrees with the step).
    """
    momentum = momentum.lerp(grad, 1 - MUON_MOMENTUM)
    x = grad.lerp(momentum, MUON_MOMENTUM).to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in _POLAR_EXPRESS[:MUON_STEPS]:
        gram = x.mT @ x
        x = a * x + x @ (b * gram + c * (gram @ gram))
    x = x.float()
    weight = weight - lr * (x + decay * weight * (x * weight >= 0))
    return momentum, weight


class Muon(torch.optim.Optimizer):
    """Muon over all block matrices at once; parameters of three dimensions are stacks of matrices."""

    def __init__(self, params: list[nn.Parameter], lr: float, weight_decay: float, dtype: torch.dtype, compile_fn):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.dtype, self.update = dtype, compile_fn(muon_update)

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix, stacked by shape (a wide matrix goes in transposed)."""
        for group in self.param_groups:
            stacks: dict[torch.Size, list[tuple[Tensor, ...]]] = {}
            scales: dict[torch.Size, list[float]] = {}
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                stacked = (t if t.dim() == 3 else t[None] for t in (p.grad, state["momentum"], p))
                for matrix in zip(*stacked, strict=True):
                    rows, cols = matrix[0].shape
                    tall = tuple(t.mT if rows < cols else t for t in matrix)
                    stacks.setdefault(tall[0].shape, []).append(tall)
                    scales.setdefault(tall[0].shape, []).append(max(1.0, rows / cols) ** 0.5)
            for shape, matrices in stacks.items():
                grads, momenta, weights = zip(*matrices, strict=True)
                lr = (group["lr"] * torch.tensor(scales[shape])).to(grads[0].device).view(-1, 1, 1)
                decay = torch.tensor(group["weight_decay"], device=grads[0].device)
                stacks_of_each = (torch.stack(tensors) for tensors in (grads, momenta, weights))
                new = self.update(*stacks_of_each, lr, decay, self.dtype)
                torch._foreach_copy_(momenta, new[0].unbind(0))
                torch._foreach_copy_(weights, new[1].unbind(0))


# ---------------------------------------------------------------------------------------------------------------
# Training


def build(data: prepare.Data, device: torch.device) -> tuple[GPT, list[torch.optim.Optimizer]]:
    """The model and its optimizers, with every learning rate at its peak in `initial_lr`."""
    dim = -(-DEPTH * ASPECT_RATIO // HEAD_DIM) * HEAD_DIM
    windows = platform.window_sizes(WINDOW_PATTERN, DEPTH, data.seq_len)
    attend = platform.get_attention_forward(device, HEAD_DIM, data.seq_len, windows)
    with device:
        model = GPT(data.vocab_size, data.seq_len, windows, dim, attend, platform.compute_dtype(device))
    compile_fn = platform.get_compile_fn(device)
    for block in model.blocks:  # block by block: equal blocks share their kernels, which compiles faster than the whole
        block.forward = compile_fn(block.forward)
    model.head, model.head_loss = compile_fn(model.head), compile_fn(model.head_loss)

    def named(*names: str) -> list[nn.Parameter]:
        return [p for name, p in model.named_parameters() if name.split(".")[-1] in names]

    narrow = (dim / 768) ** -0.5  # rates were tuned at width 768
    groups = [
        {"params": named("embedding", "bigram_embedding", "value_embedding"), "lr": EMBEDDING_LR * narrow},
        {"params": named("unembedding", "value_gate"), "lr": UNEMBEDDING_LR * narrow},
        {"params": named("residual_scale"), "lr": SCALAR_LR * 0.01},
        {"params": named("x0_scale"), "lr": SCALAR_LR, "betas": (0.96, 0.95)},
    ]
    optimizers = [
        torch.optim.AdamW(groups, betas=ADAM_BETAS, eps=1e-10, weight_decay=0.0, fused=True),
        Muon(named(*_MATRICES), MATRIX_LR, WEIGHT_DECAY, model.dtype, compile_fn),
    ]
    for group in chain.from_iterable(optimizer.param_groups for optimizer in optimizers):
        group["initial_lr"] = group["lr"]
    return model, optimizers


def schedule(optimizers: list[torch.optim.Optimizer], progress: float) -> None:
    """Set learning rates and weight decay for a share of the budget that is spent."""
    lr = min(1.0, progress / WARMUP_RATIO if WARMUP_RATIO else 1.0)
    lr *= min(1.0, FINAL_LR_FRAC + (1 - FINAL_LR_FRAC) * (1 - progress) / WARMDOWN_RATIO if WARMDOWN_RATIO else 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * lr
            if isinstance(optimizer, Muon):
                group["weight_decay"] = WEIGHT_DECAY * (1 - progress)


def train_step(model, optimizers: list[torch.optim.Optimizer], loader, micro_steps: int) -> Tensor:
    """One optimizer step; returns its mean loss in nats a token, still on the device."""
    total = 0.0
    for _ in range(micro_steps):
        x, y, _ = next(loader)
        loss = model.loss(x, y) / micro_steps
        loss.backward()
        total = total + loss.detach()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return total


def estimate_flops(model: GPT, seq_len: int) -> float:
    """Floating-point operations a token, forward and backward (Chowdhery et al. 2022, PaLM, appendix B)."""
    in_products = [p for name, p in model.named_parameters() if name.split(".")[-1] in _IN_PRODUCTS]
    dim = model.embedding.size(1)
    return 6 * sum(p.numel() for p in in_products) + sum(
        12 * dim * min(block.window, seq_len) for block in model.blocks
    )


def watch(clock: prepare.Clock, step: int, loss: float, vocab_size: int, status: dict) -> None:
    """Record a training loss and stop the run when it is no longer one; shows a line now and then."""
    if not abs(loss) < 2 * math.log(vocab_size):  # NaN compares false too
        chance = math.log(vocab_size)
        raise DivergedError(f"step {step}: training loss is {loss:.4g}, guessing has {chance:.4g}")
    run.log_loss(step, clock.elapsed, loss)
    status["loss"] = 0.9 * status.get("loss", loss) + 0.1 * loss
    if clock.elapsed >= status.get("next", 0):
        rate = step * TOTAL_BATCH_SIZE / clock.elapsed
        line = f"step {step:5d}  {clock.progress:4.0%}  loss {status['loss']:.4f}  {rate:,.0f} tokens/s"
        tty = sys.stdout.isatty()
        print(f"\r{line}  " if tty else line, end="" if tty else "\n", flush=True)
        status["next"] = clock.elapsed + (0.2 if tty else 5)


def main() -> None:
    """Run the experiment and record it."""
    plain = (bool, int, float, str, tuple, list, dict, type(None))
    constants = {n: v for n, v in globals().items() if n.isupper() and n[0] != "_" and isinstance(v, plain)}
    run.update(preset=PRESET, seed=SEED, config=constants)
    device = platform.get_device()
    info = platform.get_device_info(device)
    run.update(platform=info)
    platform.seed_device(SEED)
    platform.start_memory_tracking(device)

    run.phase("prepare")
    clock = prepare.Clock()
    rows_tokens = DEVICE_BATCH_SIZE * prepare.PRESETS[PRESET].seq_len
    micro_steps, remainder = divmod(TOTAL_BATCH_SIZE, rows_tokens)
    if remainder or not micro_steps:
        raise SettingError(
            f"TOTAL_BATCH_SIZE = {TOTAL_BATCH_SIZE} must be a multiple of DEVICE_BATCH_SIZE * sequence length = "
            f"{rows_tokens}; change one of the two"
        )
    platform.validate_window_pattern(WINDOW_PATTERN, DEPTH)
    data = prepare.load_data(preset=PRESET)
    track = prepare.track(data, clock, info["device_class"])
    run.update(track=track)

    run.phase("compile")
    print(f"track: {track}", flush=True)
    if platform.should_compile(device):
        print("compiling: a minute the first time, off the clock", flush=True)
    model, optimizers = build(data, device)
    with prepare.warm_up(model, optimizers):
        loader = prepare.Loader(data, DEVICE_BATCH_SIZE, device, SEED)
        for _ in range(2):
            train_step(model, optimizers, loader, micro_steps).item()
    loader = prepare.Loader(data, DEVICE_BATCH_SIZE, device, SEED)
    num_params = sum(p.numel() for p in model.parameters())
    ready = time.perf_counter() - _started
    print(f"{num_params / 1e6:.1f}M parameters, first step after {ready:.1f} s, budget {clock.label}", flush=True)

    run.phase("train")
    clock.start(device)
    status: dict = {}
    loss = None
    while clock.progress < 1:
        schedule(optimizers, clock.progress)
        previous, loss = loss, train_step(model, optimizers, loader, micro_steps)
        clock.steps += 1
        if previous is not None:  # read one step late, so that the device never waits for Python
            watch(clock, clock.steps - 1, previous.item(), data.vocab_size, status)
    status["next"] = 0  # show the last one
    watch(clock, clock.steps, loss.item(), data.vocab_size, status)
    training_seconds = clock.elapsed
    tokens = clock.steps * TOTAL_BATCH_SIZE
    flops = estimate_flops(model, data.seq_len) * tokens
    print()

    peak_memory_mb = platform.get_tracked_peak_memory_mb(device)
    peak_flops, peak_source = platform.get_peak_flops(device, model.dtype)

    run.phase("evaluate")
    evaluation = prepare.evaluate_bpb(model, data, EVAL_BATCH_SIZE, device)
    results = {
        "val_bpb": evaluation.bpb,
        "val_bpb_stderr": evaluation.stderr,
        "training_seconds": training_seconds,
        "total_seconds": time.perf_counter() - _started,
        "peak_vram_mb": peak_memory_mb,
        "mfu_percent": 100 * flops / training_seconds / peak_flops,
        "total_tokens_M": tokens / 1e6,
        "num_steps": clock.steps,
        "num_params": num_params,
        "num_params_M": num_params / 1e6,
        "depth": DEPTH,
        "tokens_per_second": tokens / training_seconds,
        "estimated_flops": flops,
        "utilisation": loader.utilisation,
        "eval_tokens": evaluation.tokens,
    }
    run.phase("record")
    card = run.finish(results)
    print("---")  # the block other tools grep: names and order stay
    print(f"val_bpb:          {evaluation.bpb:.6f}")
    print(f"training_seconds: {training_seconds:.1f}")
    print(f"total_seconds:    {results['total_seconds']:.1f}")
    print(f"peak_vram_mb:     {peak_memory_mb:.1f}")
    print(f"mfu_percent:      {results['mfu_percent']:.2f}")
    print(f"total_tokens_M:   {tokens / 1e6:.1f}")
    print(f"num_steps:        {clock.steps}")
    print(f"num_params_M:     {num_params / 1e6:.1f}")
    print(f"depth:            {DEPTH}")
    dtype = str(model.dtype).removeprefix("torch.")
    print(f"peak:             {peak_flops / 1e12:.4g} TFLOP/s in {dtype} ({peak_source})")
    print(f"card:             {card['id']} {card['status']}: {card['decision']['reason']}")
    print("\n".join(packet(card)[1:]))


if __name__ == "__main__":
    main()
