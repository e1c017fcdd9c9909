"""platform_utils: every attention path against a float64 reference, device facts, fallbacks and their exact lines.

What needs a GPU is at the end and skipped where there is none. FlashAttention 3 itself is not tested: a scripted
kernel with its documented interface stands in for what the hub delivers.
"""

import contextlib
import http.server
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode

import platform_utils as P
from lab.errors import DeviceError, SettingError

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
PATHS = {
    "bmm": P.get_attention_forward(CPU, head_dim=8, seq_len=256),
    "sdpa": P.get_attention_forward(torch.device("mps"), head_dim=8, seq_len=256),  # all it calls runs on a CPU too
}
SHAPES = [  # T, H, KV, D, window
    (1, 1, 1, 4, 0),
    (5, 2, 2, 8, 0),
    (130, 2, 1, 4, 0),
    (130, 2, 1, 4, 1),
    (300, 4, 2, 4, 37),
    (257, 3, 3, 4, 128),
    (256, 6, 2, 4, 200),
    (300, 2, 1, 8, 298),
    (300, 2, 1, 8, 299),
    (140, 4, 4, 4, 5000),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The tensors here are small, and threads that wait for each other on a busy machine take 10 times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def reference(q, k, v, window):
    """Attention by its definition in float64: one T x T matrix per head, nothing clever."""
    q, k, v = (x.double() for x in (q, k, v))
    group = q.shape[2] // k.shape[2]
    i = torch.arange(q.shape[1], device=q.device)
    hidden = (i[None, :] > i[:, None]) | (i[None, :] < i[:, None] - window)
    heads = []
    for head in range(q.shape[2]):
        scores = q[:, :, head] @ k[:, :, head // group].transpose(1, 2) / q.shape[3] ** 0.5
        weights = torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)
        heads.append(weights @ v[:, :, head // group])
    return torch.stack(heads, dim=2)


def inputs(T, H, KV, D, batch=2, dtype=torch.float64, device=CPU):
    """Random q, k, v and the gradient that flows into the result."""
    torch.manual_seed(T * 31 + H)
    shapes = [(batch, T, H, D), (batch, T, KV, D), (batch, T, KV, D), (batch, T, H, D)]
    q, k, v, upstream = (torch.randn(shape, dtype=torch.float64, device=device).to(dtype) for shape in shapes)
    return [x.requires_grad_() for x in (q, k, v)], upstream


def assert_equals_reference(attend, shape, dtype=torch.float64, device=CPU, tolerance=1e-10):
    """Result and the gradients of q, k and v, each within `tolerance` of the reference's largest number."""
    *dims, window = shape
    args, upstream = inputs(*dims, dtype=dtype, device=device)
    result = attend(*args, window)
    assert result.shape == args[0].shape
    assert result.dtype == dtype
    expected = reference(*args, window)
    found = torch.autograd.grad(result, args, upstream)
    wanted = torch.autograd.grad(expected, args, upstream.double())
    for name, a, b in zip(("result", "dq", "dk", "dv"), (result, *found), (expected, *wanted), strict=True):
        error = (a.double() - b).abs().max().item()
        # with window 0 the softmax is 1 whatever the scores: dq and dk are 0, and the bound is absolute
        assert error <= tolerance * max(1.0, b.abs().max().item()), f"{name} is off by {error}"


# --- attention ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_equals_float64_reference(path, shape):
    assert_equals_reference(PATHS[path], shape)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=25, deadline=None)
@given(
    T=st.integers(1, 280),
    KV=st.integers(1, 3),
    group=st.integers(1, 3),
    D=st.integers(1, 9),
    window=st.integers(0, 300),
)
def test_attention_equals_reference_for_any_shape(path, T, KV, group, D, window):
    assert_equals_reference(PATHS[path], (T, KV * group, KV, D, window))


@pytest.mark.parametrize("path", PATHS)
def test_attention_in_bfloat16_is_off_by_rounding_only(path):
    assert_equals_reference(PATHS[path], (256, 4, 2, 64, 100), dtype=torch.bfloat16, tolerance=0.03)


@pytest.mark.parametrize("path", PATHS)
def test_attention_compiles_to_one_graph(path):
    compiled = torch.compile(PATHS[path].__call__, fullgraph=True, dynamic=False, backend="eager")
    assert_equals_reference(compiled, (200, 4, 2, 8, 60))


@pytest.mark.parametrize("path", PATHS)
def test_a_sliding_window_makes_no_square_matrix(path):
    T, window = 1024, 64

    class LargestTensor(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for x in result if isinstance(result, (tuple, list)) else (result,):
                LargestTensor.numel = max(LargestTensor.numel, x.numel() if isinstance(x, torch.Tensor) else 0)
            return result

    args, upstream = inputs(T, 1, 1, 2, batch=1)
    with LargestTensor():
        PATHS[path](*args, window).backward(upstream)
    assert LargestTensor.numel == P.QUERY_BLOCK * (P.QUERY_BLOCK + window)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("shape", [(150, 4, 2, 16, 40), (128, 2, 2, 16, 1), (60, 2, 1, 16, 100)])
def test_flex_equals_reference(shape):
    *dims, window = shape
    args = [x.detach() for x in inputs(*dims, dtype=torch.float32)[0]]  # a CPU has no flex backward
    attend = P.make_flex(CPU, dims[0], [window], flex_attention)
    assert attend.name == "flex"
    torch.testing.assert_close(attend(*args, window).double(), reference(*args, window), atol=1e-5, rtol=0)


def test_flex_takes_a_length_and_a_window_that_were_not_announced():
    args = [x.detach() for x in inputs(90, 2, 2, 16, dtype=torch.float32)[0]]
    attend = P.make_flex(CPU, 64, [32], flex_attention)
    torch.testing.assert_close(attend(*args, 7).double(), reference(*args, 7), atol=1e-5, rtol=0)


@pytest.mark.parametrize("device, name", [("cpu", "bmm"), ("mps", "sdpa")])
def test_attention_is_chosen_by_device(device, name, capfd):
    assert P.get_attention_forward(torch.device(device), head_dim=64, seq_len=256).name == name
    assert capfd.readouterr().err == ""


# --- FlashAttention 3 from the hub -------------------------------------------------------------------------------

FLASH = """
import torch
from tests.test_platform_utils import reference
def flash_attn_func(q, k, v, causal=False, window_size=(-1, -1)):
    left, right = window_size
    assert causal and right == 0
    return reference(q, k, v, q.shape[1] if left == -1 else left).to(q.dtype)
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that installs a scripted `kernels` whose get_kernel(repo, **options) has the given body."""
    names = ("kernels", "huggingface_hub", "huggingface_hub.errors")
    saved = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    (tmp_path / "huggingface_hub").mkdir()
    (tmp_path / "huggingface_hub" / "__init__.py").touch()
    (tmp_path / "huggingface_hub" / "errors.py").write_text("class HTTPError(Exception): pass\n")
    (tmp_path / "flash.py").write_text(FLASH)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "")

    def install(body):
        (tmp_path / "kernels.py").write_text(f"def get_kernel(repo, **options):\n    {body}\n")

    yield install
    for name in (*names, "flash"):
        sys.modules.pop(name, None)
    sys.modules.update(saved)


@contextlib.contextmanager
def serving(status):
    """A real HTTP server on loopback that answers everything with `status`; gives its address."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def silent():
    """A port that accepts connections and never answers; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def closed_port():
    """The address of a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("status, reachable", [(200, True), (404, True), (503, True)])
def test_a_hub_that_answers_is_reachable(status, reachable, monkeypatch):
    with serving(status) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert P.hub_reachable() is reachable


def test_a_hub_that_is_not_there_or_silent_is_not_reachable(monkeypatch):
    monkeypatch.setattr(P, "HUB_TIMEOUT_SECONDS", 0.2)
    with silent() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert not P.hub_reachable()
    for address in (closed_port(), "no-scheme"):
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert not P.hub_reachable()


def test_flash_is_not_sought_where_it_is_not_built():
    assert P.load_flash3((12, 0)) == "it is not built for compute capability 12.0"
    assert P.load_flash3((7, 5)) == "it is not built for compute capability 7.5"


@pytest.mark.skipif(P.importlib.util.find_spec("kernels") is not None, reason="the package `kernels` is installed")
def test_flash_without_the_kernels_package():
    assert P.load_flash3((9, 0)) == "the package `kernels` is not installed (uv sync --extra cuda)"


@pytest.mark.parametrize("window", [0, 13, 39, 40])
def test_flash_gets_the_window_as_it_counts_it(hub, monkeypatch, window):
    hub("import flash; return flash")
    with serving(200) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        attend = P.load_flash3((9, 0))
    assert attend.name == "fa3"
    assert os.environ["HF_HUB_OFFLINE"] == ""
    assert_equals_reference(attend, (40, 4, 2, 8, window))


def test_a_hub_without_a_build_falls_back_with_the_reason(hub, monkeypatch):
    hub("raise FileNotFoundError(f'no build\\n  in {repo} for {sorted(options)}')")
    with serving(200) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        expected = "kernels-community/flash-attn3: no build in kernels-community/flash-attn3 for ['version']"
        assert P.load_flash3((9, 0)) == expected


@pytest.mark.parametrize(
    "error", ["from huggingface_hub.errors import HTTPError; raise HTTPError('cut')", "raise OSError('cut')"]
)
def test_a_cut_download_falls_back(hub, monkeypatch, error):
    hub(error)
    with serving(200) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert P.load_flash3((8, 9)) == "kernels-community/flash-attn3: cut"


def test_without_the_hub_only_the_cache_is_asked(hub, monkeypatch):
    hub("import os; raise ValueError(f'not cached, offline={os.environ[\"HF_HUB_OFFLINE\"]}')")
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    assert P.load_flash3((8, 0)) == ("the hub cannot be reached; kernels-community/flash-attn3: not cached, offline=1")


def test_a_mistake_in_the_kernel_package_is_not_swallowed(hub, monkeypatch):
    hub("raise TypeError('unexpected keyword')")
    with serving(200) as address, pytest.raises(TypeError, match="unexpected keyword"):
        monkeypatch.setenv("HF_ENDPOINT", address)
        P.load_flash3((9, 0))


# --- which device, and what it is --------------------------------------------------------------------------------


def test_the_fastest_device_is_the_default(monkeypatch):
    monkeypatch.delenv("AUTORESEARCH_DEVICE", raising=False)
    assert P.get_device() == torch.device(P.available_devices()[0])
    assert P.detect_platform() == P.get_device().type


def test_a_device_can_be_forced(monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "cpu")
    assert P.get_device() == CPU
    assert P.detect_platform() == "cpu"


@pytest.mark.parametrize("wanted", ["tpu", "cuda:99", "CPU", "cuda:"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, wanted):
    monkeypatch.setenv("AUTORESEARCH_DEVICE", wanted)
    monkeypatch.setattr(P, "available_devices", lambda: ["cuda:0", "cpu"])
    for function in (P.get_device, P.detect_platform):
        with pytest.raises(DeviceError) as caught:
            function()
        expected = f"AUTORESEARCH_DEVICE={wanted}: this machine has cuda:0, cpu; name one of these or unset it"
        assert str(caught.value) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "cuda")
    with pytest.raises(DeviceError, match=r"^AUTORESEARCH_DEVICE=cuda: this machine has (mps, )?cpu; name one"):
        P.get_device()


@pytest.mark.parametrize(
    "name, memory, cores, expected",
    [
        ("NVIDIA H100 80GB HBM3", 79.6, None, "H100-SXM-80GB"),
        ("NVIDIA H100 PCIe", 79.6, None, "H100-PCIe"),
        ("NVIDIA H200", 139.8, None, "H200"),
        ("NVIDIA A100-SXM4-40GB", 39.4, None, "A100-SXM4-40GB"),
        ("NVIDIA A100 80GB PCIe", 79.2, None, "A100-PCIe-80GB"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9.5, None, "H100-HBM3-MIG-1g.10gb-80GB"),
        ("NVIDIA GeForce RTX 4090", 23.5, None, "RTX-4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 15.6, None, "RTX-4090-Laptop"),
        ("NVIDIA RTX 6000 Ada Generation", 47.4, None, "RTX-6000-Ada"),
        ("Tesla T4", 14.6, None, "T4"),
        ("Apple M2 Max", 64.0, None, "M2-Max-64GB"),
        ("Apple M2 Max", 64.0, 12, "M2-Max-12c"),
        ("AMD EPYC", 23.5, 2, "EPYC-2c"),
        ("AMD EPYC 7R13 48-Core Processor", 23.5, 2, "EPYC-7R13-2c"),
        ("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", 30.0, 8, "Xeon-Platinum-8375C-8c"),
        ("aarch64", 15.0, 4, "aarch64-4c"),
    ],
)
def test_device_class(name, memory, cores, expected):
    assert P.device_class(name, memory, cores) == expected


@given(st.text(), st.integers(1, 256))
def test_a_device_class_is_safe_in_a_path(name, cores):
    word = P.device_class(name, 8.0, cores)
    assert word and set(word) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def test_device_info_of_this_cpu():
    info = P.get_device_info(CPU)
    assert json.loads(json.dumps(info)) == info
    assert set(info) == {
        "device", "device_name", "device_class", "memory_gb", "cpu_count", "framework", "torch", "os",
    }  # fmt: skip
    assert (info["device"], info["framework"], info["torch"]) == ("cpu", "pytorch", torch.__version__)
    assert info["device_class"].endswith(f"-{info['cpu_count']}c")
    assert 1 <= info["cpu_count"] <= os.cpu_count()
    assert info["memory_gb"] > 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_cores_are_those_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert P.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs /proc/cpuinfo")
def test_a_cpu_computes_in_bfloat16_where_it_has_the_instructions():
    words = set(Path("/proc/cpuinfo").read_text().split())
    fast = words & {"avx512_bf16", "amx_bf16", "bf16"}
    assert P.compute_dtype(CPU) == (torch.bfloat16 if fast else torch.float32)


def test_no_autocast_on_a_cpu():
    with P.get_autocast_ctx(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_one_seed_gives_one_sequence():
    def draw(seed):
        P.seed_device(seed)
        return random.random(), np.random.rand(), torch.rand(3).tolist()

    assert draw(7) == draw(7)
    assert all(a != b for a, b in zip(draw(7), draw(8), strict=True))
    P.seed_device(2**40)


@pytest.mark.parametrize(
    "name, tflops",
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA H20", 148.0),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA GB200", 2500.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100-PCIE-40GB", 312.0),
        ("NVIDIA A100 80GB PCIe", 312.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA A10G", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("Tesla V100-SXM2-16GB", None),
        ("", None),
    ],
)
def test_datasheet_peak_by_full_name(name, tflops):
    assert P.datasheet_tflops(name) == tflops


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_peak_is_measured(monkeypatch, dtype):
    monkeypatch.setattr(P, "GEMM_SECONDS", 0.02)
    peak, source = P.get_peak_flops(CPU, dtype)
    assert source == "measured"
    assert 1e8 < peak < 1e15


def test_syncing_a_cpu_is_nothing():
    assert P.sync_device(CPU) is None


# --- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cpu_peak_memory_is_the_high_water_mark_of_this_process_alone():
    code = (
        "import torch, platform_utils as P; d = torch.device('cpu'); P.start_memory_tracking(d)\n"
        "before = P.get_peak_memory_mb(d); x = torch.ones(200 * 2**18); del x\n"
        "print(before, P.get_peak_memory_mb(d), P.get_tracked_peak_memory_mb(d))"
    )
    larger_parent = torch.ones(1000 * 2**18)
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after, tracked = map(float, result.stdout.split())
    assert before + 150 < after <= tracked < larger_parent.nbytes / 2**20


def test_the_sampler_keeps_the_largest_reading(monkeypatch):
    monkeypatch.setattr(P, "MEMORY_SAMPLE_SECONDS", 0.001)
    readings, drained = iter([5, 7, 90, 20]), threading.Event()

    def read():
        value = next(readings, None)
        if value is None:
            drained.set()
        return value or 1

    sampler = P.PeakSampler(read)
    assert sampler.peak == 5
    sampler.start()
    assert drained.wait(30)
    sampler.stopped.set()
    sampler.join(30)
    assert (sampler.peak, sampler.daemon, sampler.is_alive()) == (90, True, False)


def test_mps_memory_is_sampled_from_each_start_on(monkeypatch):
    device, in_use = torch.device("mps"), [50 * 2**20]
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: in_use[0])
    monkeypatch.setattr(P, "MEMORY_SAMPLE_SECONDS", 0.001)
    monkeypatch.setattr(P, "_sampler", None)
    P.start_memory_tracking(device)
    first = P._sampler
    in_use[0] = 80 * 2**20
    while first.peak < in_use[0]:
        assert first.is_alive()
    in_use[0] = 10 * 2**20
    assert (P.get_tracked_peak_memory_mb(device), P.get_peak_memory_mb(device)) == (80, 10)
    P.start_memory_tracking(device)
    first.join(30)
    assert not first.is_alive()
    assert P.get_tracked_peak_memory_mb(device) == 10
    P._sampler.stopped.set()


# --- torch.compile -----------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_probe(monkeypatch):
    """Forget what was probed and said, before and after; $CXX and $AUTORESEARCH_COMPILE unset."""
    monkeypatch.setenv("CXX", "")
    monkeypatch.delenv("AUTORESEARCH_COMPILE", raising=False)
    for cached in (P.compiler_missing, P.say):
        cached.cache_clear()
    yield
    for cached in (P.compiler_missing, P.say):
        cached.cache_clear()


def program(folder, name, script):
    """An executable shell script; gives its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
@pytest.mark.parametrize("value, expected", [("0", False), ("1", True)])
def test_compiling_can_be_forced(monkeypatch, device, value, expected):
    monkeypatch.setenv("AUTORESEARCH_COMPILE", value)
    assert P.should_compile(torch.device(device)) is expected


@pytest.mark.parametrize("value", ["yes", "2", " 1"])
def test_another_value_is_refused(monkeypatch, value):
    monkeypatch.setenv("AUTORESEARCH_COMPILE", value)
    with pytest.raises(SettingError) as caught:
        P.should_compile(CPU)
    expected = f"AUTORESEARCH_COMPILE={value}: set it to 0 (never compile) or 1 (always), or unset it"
    assert str(caught.value) == expected


def test_no_compiling_on_mps_and_no_word_about_it(fresh_probe, capfd):
    assert P.should_compile(torch.device("mps")) is False
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_no_compiling_without_a_compiler(tmp_path):
    code = (
        "import torch, platform_utils as P\n"
        "print(P.should_compile(torch.device('cpu')), P.should_compile(torch.device('cpu')))"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("CXX", "AUTORESEARCH_COMPILE")}
    environment["PATH"] = str(tmp_path)
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout == "False False\n"
    assert result.stderr == "compile: off, training is slower: no C++ compiler (g++ or clang++) on PATH\n"


def test_no_compiling_with_half_a_compiler(fresh_probe, monkeypatch, tmp_path, capfd):
    complaint = "g++: fatal error: cannot execute 'cc1plus': No such file or directory"
    compiler = program(tmp_path, "g++", f'echo "{complaint}" >&2; echo "compilation terminated." >&2; exit 1')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert P.should_compile(CPU) is False
    assert capfd.readouterr().err == (
        f"compile: off, training is slower: {compiler} cannot compile a program with Python.h and omp.h: {complaint}\n"
    )
    assert os.environ["CXX"] == ""


def test_cxx_names_the_compiler(fresh_probe, monkeypatch, capfd):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert P.should_compile(CPU) is False
    assert capfd.readouterr().err == ("compile: off, training is slower: no C++ compiler (no-such-compiler) on PATH\n")


def test_a_second_choice_compiler_is_exported_for_torch(fresh_probe, monkeypatch, tmp_path):
    compiler = program(tmp_path, "clang++", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert P.should_compile(CPU) is True
    assert os.environ["CXX"] == str(compiler)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_a_working_compiler_is_used(fresh_probe, capfd):
    assert P.should_compile(CPU) is True
    assert capfd.readouterr().err == ""


def test_cuda_needs_a_c_compiler_for_triton(fresh_probe, monkeypatch, tmp_path):
    pytest.importorskip("triton")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert P.compiler_missing("cuda") == "no C compiler (gcc or clang) on PATH"


def test_compile_fn_without_compiling_returns_the_function_itself(monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")
    assert P.get_compile_fn(CPU)(reference) is reference
    assert P.get_compile_fn(CPU)(reference, fullgraph=True) is reference


def test_compile_fn_compiles_for_static_shapes(monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "1")
    graphs = []

    def backend(graph, example_inputs):
        graphs.append([tuple(x.shape) for x in example_inputs])
        return graph.forward

    double = P.get_compile_fn(CPU)(lambda x: x + x, backend=backend)
    for size in (3, 5):
        assert double(torch.ones(size)).tolist() == [2.0] * size
    assert graphs == [[(3,)], [(5,)]]


# --- the window pattern ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern, depth, expected",
    [
        ("SSSL", 8, [512, 512, 512, 1024, 512, 512, 512, 1024]),
        ("sl", 3, [512, 1024, 1024]),
        ("S", 2, [512, 1024]),
        ("L", 1, [1024]),
        ("SSSSSL", 2, [512, 1024]),
    ],
)
def test_window_sizes(pattern, depth, expected):
    assert P.window_sizes(pattern, depth, 1024) == expected


@pytest.mark.parametrize("pattern", ["", "SSX", "S L", "ß"])
def test_a_wrong_pattern_is_refused(pattern):
    with pytest.raises(SettingError) as caught:
        P.window_sizes(pattern, 4, 1024)
    expected = f"WINDOW_PATTERN={pattern!r}: use the letters S (half) and L (full), such as SSSL"
    assert str(caught.value) == expected


def test_a_model_without_layers_is_refused():
    with pytest.raises(SettingError, match=r"^DEPTH=0: a model needs at least 1 layer$"):
        P.validate_window_pattern("L", 0)


@given(st.text("SLsl", min_size=1, max_size=9), st.integers(1, 40), st.integers(1, 4096))
def test_every_layer_has_a_window_and_the_last_sees_all(pattern, depth, seq_len):
    sizes = P.window_sizes(pattern, depth, seq_len)
    assert len(sizes) == depth
    assert sizes[-1] == seq_len
    for layer, size in enumerate(sizes[:-1]):
        assert size == (seq_len if pattern[layer % len(pattern)] in "Ll" else seq_len // 2)


# --- on a GPU ----------------------------------------------------------------------------------------------------

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@needs_cuda
@pytest.mark.parametrize("window", [0, 1, 37, 128, 256, 511, 512])
@pytest.mark.parametrize("compiled", ["0", "1"])
def test_cuda_attention_equals_reference(monkeypatch, window, compiled):
    device = torch.device("cuda", 0)
    monkeypatch.setenv("AUTORESEARCH_COMPILE", compiled)
    attend = P.get_attention_forward(device, head_dim=64, seq_len=512, windows=[window])
    assert_equals_reference(attend, (512, 4, 2, 64, window), torch.bfloat16, device, tolerance=0.03)


@needs_cuda
def test_cuda_facts_memory_and_peak():
    device = torch.device("cuda", 0)
    info = P.get_device_info(device)
    assert info["memory_gb"] == round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    P.start_memory_tracking(device)
    before = P.get_tracked_peak_memory_mb(device)
    block = torch.ones(64 * 2**18, device=device)
    P.sync_device(device)
    assert P.get_tracked_peak_memory_mb(device) >= before + 63
    assert P.get_peak_flops(device, torch.float32)[1] == "measured"
    del block
