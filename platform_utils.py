"""What differs between CUDA, MPS and CPU: which device, its facts, attention, compiling, numbers and memory.

    from platform_utils import get_attention_forward, get_device
    device = get_device()                                    # AUTORESEARCH_DEVICE=cuda:1|mps|cpu forces one
    attend = get_attention_forward(device, head_dim=128, seq_len=2048, windows=[1024])
    y = attend(q, k, v, 1024)                                # attend.name says which kernel it is

One process drives one device: no multi-GPU training. Linux and macOS; native Windows is not covered (use WSL).
"""

import contextlib
import functools
import http.client
import importlib.util
import os
import platform
import random
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lab.errors import DeviceError, SettingError

QUERY_BLOCK = 128  # queries that share one slice of the keys: on CPU 64 was no faster and compiles twice as long
HUB_TIMEOUT_SECONDS = 3.0  # how long a hub that does not answer may delay the start of a run
MEMORY_SAMPLE_SECONDS = 0.1
GEMM_SECONDS = 0.3  # how long to look for the peak of a device that the table does not know

# Dense bf16 peaks with float32 accumulation in TFLOP/s, from the vendor's data sheets, by the driver's name without
# "NVIDIA" (a regular expression). It must match in full, so that a laptop part, a MIG slice or a "Ti" never takes the
# number of the card it is named after: what does not match is measured.
PEAK_TFLOPS = {
    "GB200": 2500.0,
    "B200": 2250.0,
    "H200|GH200 .*GB|H100 80GB HBM3|H100 SXM5.*|H800": 989.4,
    "H100 NVL|H200 NVL": 835.5,
    "H100 PCIe": 756.5,
    "H20": 148.0,
    r"A100-(SXM4|PCIE|PCIe)-\d+GB|A100 80GB PCIe": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10": 125.0,
    "L40S": 362.05,
    "L40": 181.05,
    "L4": 121.0,
    "GeForce RTX 5090": 209.5,
    "GeForce RTX 4090": 165.2,
    "GeForce RTX 4080": 97.5,
    "GeForce RTX 3090": 71.0,
}

# --- which device ------------------------------------------------------------------------------------------------


def available_devices() -> list[str]:
    """Every device this process can use, fastest first: "cuda:0", ..., "mps", "cpu"."""
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return devices + (["mps"] if torch.backends.mps.is_available() else []) + ["cpu"]


def get_device() -> torch.device:
    """The device to train on: `$AUTORESEARCH_DEVICE` if set, else the first of CUDA, MPS, CPU.

    Raises DeviceError if `$AUTORESEARCH_DEVICE` names a device that is not there.
    """
    available = available_devices()
    wanted = os.environ.get("AUTORESEARCH_DEVICE") or available[0]
    name = "cuda:0" if wanted == "cuda" else wanted
    if name not in available:
        raise DeviceError(
            f"AUTORESEARCH_DEVICE={wanted}: this machine has {', '.join(available)}; name one of these or unset it"
        )
    if name.startswith("cuda"):
        torch.cuda.set_device(name)  # kernels outside torch launch on the current device, not on their tensors'
    return torch.device(name)


def detect_platform() -> str:
    """The kind of `get_device()`: "cuda", "mps" or "cpu"."""
    return get_device().type


# --- facts about it ----------------------------------------------------------------------------------------------


def usable_cores() -> int:
    """CPU cores this process may use: its affinity mask, cut down to the container's quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
    except FileNotFoundError:
        return cores
    return cores if quota == "max" else min(cores, max(1, int(quota) // int(period)))


def device_class(name: str, memory_gb: float, cores: int | None = None) -> str:
    """The hardware class a track is named after: the maker's `name` without what does not tell devices apart.

    `cores` is given for a CPU, whose speed it decides. "NVIDIA H100 80GB HBM3" is "H100-SXM-80GB", "Apple M2 Max" with
    64 GiB is "M2-Max-64GB", "AMD EPYC 7R13 48-Core Processor" on 2 usable cores is "EPYC-7R13-2c".
    """
    if "Apple" in name and cores is None:
        name += f" {memory_gb:.0f}GB"
    noise = r"\((R|TM)\)|\b(NVIDIA|GeForce|Tesla|Apple|AMD|Intel|Generation|CPU|GPU|Processor)\b|\S+-Core\b|@.*"
    words = re.sub(noise, " ", re.sub("HBM3$", "SXM", name)).split()
    memory = [word for word in words if re.fullmatch(r"\d+GB", word)]
    words = [word for word in words if word not in memory] + memory + ([f"{cores}c"] if cores is not None else [])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words)).strip("-")


def get_device_info(device: torch.device) -> dict[str, Any]:
    """What a card says about the machine, and `device_class` for its track; memory in GiB."""
    cores = usable_cores()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, properties.total_memory
    else:
        name = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()  # Apple's chip is CPU and GPU
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory_gb = round(memory / 2**30, 1)
    return {
        "device": device.type,
        "device_name": name,
        "device_class": device_class(name, memory_gb, cores if device.type == "cpu" else None),
        "memory_gb": memory_gb,
        "cpu_count": cores,
        "framework": "pytorch",
        "torch": torch.__version__,
        "os": f"{platform.system()} {platform.machine()}",
    }


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it faster than float32, else float32; never float16 (it needs scaling)."""
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "mps":
        fast = torch.backends.mps.is_macos_or_newer(14, 0)
    else:
        capabilities = torch.cpu.get_capabilities()
        fast = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if fast else torch.float32


def get_autocast_ctx(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 autocast on CUDA; nothing on CPU and MPS, where the model casts by hand (autocast costs more there)."""
    if device.type == "cuda" and compute_dtype(device) == torch.bfloat16:
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def seed_device(seed: int) -> None:
    """Seed every generator a run may draw from: python, numpy, and torch on all its devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def sync_device(device: torch.device) -> None:
    """Wait until the device has finished what it was given; a clock read before that measures nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def get_peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """The device's peak in FLOP/s, for MFU, and where it is from: "datasheet", or "measured" by matrix products."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        tflops = datasheet_tflops(torch.cuda.get_device_name(device))
        if tflops is not None:
            return tflops * 1e12, "datasheet"
    size = {"cpu": 2048, "mps": 4096, "cuda": 8192}[device.type]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times: list[float] = []
    deadline = time.perf_counter() + GEMM_SECONDS
    while len(times) < 3 or time.perf_counter() < deadline:
        sync_device(device)
        start = time.perf_counter()
        a @ b
        sync_device(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times), "measured"


def datasheet_tflops(name: str) -> float | None:
    """The dense bf16 peak of the CUDA device with exactly this name, or None for one that the table does not know."""
    for pattern, tflops in PEAK_TFLOPS.items():
        if re.fullmatch(pattern, name.removeprefix("NVIDIA ")):
            return tflops
    return None


# --- memory ------------------------------------------------------------------------------------------------------


class PeakSampler(threading.Thread):
    """Calls `read` (bytes in use) every 100 ms in the background and keeps the largest answer in `peak`."""

    def __init__(self, read: Callable[[], int]) -> None:
        super().__init__(daemon=True, name="memory-sampler")
        self.read, self.peak = read, read()
        self.stopped = threading.Event()

    def run(self) -> None:
        """Sample until `stopped` is set."""
        while not self.stopped.wait(MEMORY_SAMPLE_SECONDS):
            self.peak = max(self.peak, self.read())


_sampler: PeakSampler | None = None


def start_memory_tracking(device: torch.device) -> None:
    """Begin a new peak: CUDA resets its own, MPS keeps none and is sampled; a CPU process has one for its life."""
    global _sampler
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "mps":
        if _sampler is not None:
            _sampler.stopped.set()
        _sampler = PeakSampler(torch.mps.driver_allocated_memory)
        _sampler.start()


def get_tracked_peak_memory_mb(device: torch.device) -> float:
    """The largest memory use since `start_memory_tracking`, in MiB; the same as `get_peak_memory_mb` but on MPS."""
    tracked = _sampler.peak / 2**20 if device.type == "mps" and _sampler is not None else 0.0
    return max(tracked, get_peak_memory_mb(device))


def get_peak_memory_mb(device: torch.device) -> float:
    """The device's own high-water mark in MiB: CUDA's allocator, the CPU process's resident set; MPS: in use now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 2**20
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # ru_maxrss would start at the parent's
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 2**10


# --- torch.compile -----------------------------------------------------------------------------------------------


@functools.cache
def say(line: str) -> None:
    """One line to the user on stderr, once: a choice that costs speed is never made in silence."""
    print(line, file=sys.stderr, flush=True)


@functools.cache
def compiler_missing(device_type: str) -> str | None:
    """Why torch.compile cannot work here, or None if it can. On a CPU the C++ compiler is tried, which takes 0.3 s.

    The compiler that worked is exported as `$CXX`: torch.compile would look for no other than g++ itself.
    """
    if device_type == "mps":
        return "torch.compile is not used on MPS"
    if device_type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed"
        compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
        return None if any(map(shutil.which, compilers)) else f"no C compiler ({' or '.join(compilers)}) on PATH"
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    compiler = next((path for path in map(shutil.which, candidates) if path), None)
    if compiler is None:
        return f"no C++ compiler ({' or '.join(candidates)}) on PATH"
    openmp = ["-Xclang", "-fopenmp"] if sys.platform == "darwin" else ["-fopenmp"]
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "probe.cpp")
        with open(source, "w", encoding="ascii") as file:
            file.write("#include <Python.h>\n#include <omp.h>\nint probe() { return omp_get_max_threads(); }\n")
        include = f"-I{sysconfig.get_path('include')}"
        command = [compiler, "-shared", "-fPIC", *openmp, include, source, "-o", os.path.join(folder, "probe.so")]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if result.returncode != 0:
        complaint = next((line for line in result.stderr.splitlines() if "error" in line), "no message")
        return f"{compiler} cannot compile a program with Python.h and omp.h: {complaint}"
    os.environ["CXX"] = compiler
    return None


def should_compile(device: torch.device) -> bool:
    """Whether torch.compile works and pays on this device; `$AUTORESEARCH_COMPILE` = 0 or 1 overrides.

    Says on stderr why not where one would expect it (CUDA, CPU). Raises SettingError for another value.
    """
    forced = os.environ.get("AUTORESEARCH_COMPILE", "")
    if forced not in ("", "0", "1"):
        raise SettingError(f"AUTORESEARCH_COMPILE={forced}: set it to 0 (never compile) or 1 (always), or unset it")
    if forced:
        return forced == "1"
    missing = compiler_missing(device.type)
    if missing and device.type != "mps":
        say(f"compile: off, training is slower: {missing}")
    return missing is None


def get_compile_fn(device: torch.device) -> Callable[..., Any]:
    """`torch.compile` for static shapes where `should_compile`, else a function that returns its argument."""
    if should_compile(device):
        return functools.partial(torch.compile, dynamic=False)
    return lambda function, **_: function


# --- attention ---------------------------------------------------------------------------------------------------
# All paths: q [B, T, H, D], k and v [B, T, KV, D] with KV a divisor of H (query head h reads key head h // (H / KV)),
# result [B, T, H, D], scale 1/sqrt(D). Query i sees the keys j with i - window <= j <= i.


@dataclass(frozen=True)
class Attention:
    """Causal attention over a sliding window; call it with (q, k, v, window). `name` tells which kernel computes it."""

    name: str
    forward: Callable[[Tensor, Tensor, Tensor, int], Tensor]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """Attend [B, T, H, D] queries to themselves and up to `window` >= 0 tokens before them; >= T - 1 is all."""
        return self.forward(q, k, v, window)


def query_blocks(seq_len: int, window: int, device: torch.device) -> Iterator[tuple[int, int, int, Tensor]]:
    """(low, start, stop, seen): queries start..stop see nothing outside keys low..stop, and of those where `seen`.

    `seen` is [stop - start, stop - low] booleans: no T x T matrix is ever made.
    """
    for start in range(0, seq_len, QUERY_BLOCK):
        low, stop = max(0, start - window), min(start + QUERY_BLOCK, seq_len)
        distance = torch.arange(start, stop, device=device)[:, None] - torch.arange(low, stop, device=device)
        yield low, start, stop, (distance >= 0) & (distance <= window)


def attend_bmm(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Plain matrix products per block: on a CPU in bf16 about twice as fast, forward and backward, as torch's SDPA."""
    B, T, H, D = q.shape
    KV = k.shape[2]
    group = H // KV
    q = q.view(B, T, KV, group, D).permute(0, 2, 3, 1, 4)  # the heads of a group share their keys: stack them as rows
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    outs = []
    for low, start, stop, seen in query_blocks(T, window, q.device):
        seen = seen.repeat(group, 1)
        bias = torch.zeros_like(seen, dtype=q.dtype).masked_fill(~seen, float("-inf"))
        rows = q[:, :, :, start:stop].reshape(B * KV, -1, D)
        keys, values = (x[:, :, low:stop].reshape(B * KV, -1, D) for x in (k, v))
        scores = torch.baddbmm(bias.expand(B * KV, -1, -1), rows, keys.transpose(1, 2), alpha=D**-0.5)
        # A bf16 softmax on a CPU sums in float32 inside; only its input and output are rounded.
        outs.append(torch.bmm(torch.softmax(scores, -1), values).view(B, KV, group, stop - start, D))
    return torch.cat(outs, 3).permute(0, 3, 1, 2, 4).reshape(B, T, H, D)


def attend_sdpa(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Torch's scaled_dot_product_attention: its causal kernel for a full window, else block by block."""
    T, group = q.shape[1], q.shape[2] // k.shape[2]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if group > 1:  # enable_gqa would save the copy, but not every backend has it
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    if window >= T - 1:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    outs = []
    for low, start, stop, seen in query_blocks(T, window, q.device):
        keys, values = k[:, :, low:stop], v[:, :, low:stop]
        outs.append(F.scaled_dot_product_attention(q[:, :, start:stop], keys, values, attn_mask=seen))
    return torch.cat(outs, 2).transpose(1, 2)


def make_flex(device: torch.device, seq_len: int, windows: Iterable[int], kernel: Callable[..., Any]) -> Attention:
    """FlexAttention (`kernel`, compiled) for sliding windows, SDPA's causal kernel for full ones."""

    def block_mask(T: int, window: int) -> BlockMask:  # blocks of 128 x 128 that see nothing are skipped
        return create_block_mask(lambda _b, _h, i, j: (i >= j) & (i - j <= window), None, None, T, T, device=device)

    masks = {(seq_len, window): block_mask(seq_len, window) for window in windows if window < seq_len - 1}

    def forward(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        T = q.shape[1]
        if window >= T - 1:
            return attend_sdpa(q, k, v, window)
        mask = masks[T, window] if (T, window) in masks else block_mask(T, window)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return kernel(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1]).transpose(1, 2)

    return Attention("flex", forward)


def hub_reachable() -> bool:
    """Whether the kernel hub (`$HF_ENDPOINT`) answers at all; the hub's own client would retry for minutes."""
    try:
        request = urllib.request.Request(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), method="HEAD")
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def load_flash3(capability: tuple[int, int]) -> Attention | str:
    """FlashAttention 3 (Shah et al. 2024, arXiv 2407.08608) as built by the kernel hub, or why there is none.

    Without the hub a kernel that was downloaded before is used.
    """
    if capability[0] not in (8, 9):
        return f"it is not built for compute capability {capability[0]}.{capability[1]}"
    if importlib.util.find_spec("kernels") is None:
        return "the package `kernels` is not installed (uv sync --extra cuda)"
    reachable = hub_reachable()
    if not reachable:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when `kernels` is imported
    from huggingface_hub.errors import HTTPError  # what its transport raises
    from kernels import get_kernel

    repo = "kernels-community/flash-attn3"
    try:
        module = get_kernel(repo, version=1)
        flash = getattr(module, "flash_attn_interface", module).flash_attn_func
    except (ImportError, OSError, ValueError, RuntimeError, AttributeError, HTTPError) as error:
        why = f"{repo}: {' '.join(str(error).split())[:120]}"
        return why if reachable else f"the hub cannot be reached; {why}"

    def forward(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        left = window if window < q.shape[1] - 1 else -1
        return flash(q, k, v, causal=True, window_size=(left, 0))

    return Attention("fa3", forward)


def get_attention_forward(device: torch.device, head_dim: int, seq_len: int, windows: Iterable[int] = ()) -> Attention:
    """The fastest attention that works here: "fa3", "flex" or "sdpa" on CUDA, "sdpa" on MPS, "bmm" on a CPU.

    A fallback is said on stderr with its reason. The masks of the `windows` that the model will use are made now, once.
    """
    if device.type == "cpu":
        return Attention("bmm", attend_bmm)
    if device.type == "mps":
        return Attention("sdpa", attend_sdpa)
    fits = head_dim <= 256 and head_dim % 8 == 0
    flash = load_flash3(torch.cuda.get_device_capability(device)) if fits else f"it cannot take head_dim {head_dim}"
    if isinstance(flash, Attention):
        return flash
    if should_compile(device):
        say(f"attention: flex instead of FlashAttention 3: {flash}")
        return make_flex(device, seq_len, windows, torch.compile(flex_attention, dynamic=False))
    say(f"attention: sdpa in blocks instead of FlashAttention 3: {flash}; flex needs torch.compile")
    return Attention("sdpa", attend_sdpa)


# --- the window pattern ------------------------------------------------------------------------------------------


def validate_window_pattern(pattern: str, depth: int) -> str:
    """The pattern in upper case; SettingError if it is empty or has letters besides S and L, or depth is under 1."""
    if depth < 1:
        raise SettingError(f"DEPTH={depth}: a model needs at least 1 layer")
    if not pattern or set(pattern) - set("SsLl"):
        raise SettingError(f"WINDOW_PATTERN={pattern!r}: use the letters S (half) and L (full), such as SSSL")
    return pattern.upper()


def window_sizes(pattern: str, depth: int, seq_len: int) -> list[int]:
    """Tokens that each layer sees before its own: S is half of seq_len, L all; tiled, and the last layer sees all.

    Raises SettingError for a bad pattern, as `validate_window_pattern`.
    """
    pattern = validate_window_pattern(pattern, depth)
    sizes = {"S": seq_len // 2, "L": seq_len}
    return [sizes[pattern[layer % len(pattern)]] for layer in range(depth - 1)] + [seq_len]
