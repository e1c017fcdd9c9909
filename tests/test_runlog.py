"""What a log says: its summary or its crash, however long and odd it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import StoreError
from lab.runlog import TAIL_BYTES, read_log
from lab.schema import complete, validate_card


@pytest.fixture
def log(tmp_path):
    """Write a log; read what it says."""

    def read(text, crashed=False, metric="val_bpb"):
        (tmp_path / "run.log").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_log(tmp_path / "run.log", metric, crashed)

    return read


SUMMARY = """step 952 | loss 2.1
---
val_bpb:          0.997900
training_seconds: 300.1
peak_vram_mb:     45,060.2
num_steps:        953
num_params_M:     50.3
surprise:         7
depth:            8
"""


def test_the_summary_at_the_end(log):
    assert log(SUMMARY) == {
        "val_bpb": 0.9979, "training_seconds": 300.1, "peak_vram_mb": 45060.2, "num_steps": 953, "num_params_M": 50.3,
        "depth": 8,
    }  # fmt: skip
    assert isinstance(log(SUMMARY)["num_steps"], int)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}), ("nothing here", {}), ("val_bpb: low", {}), ("val_bpb:1.0", {}), (" val_bpb: 1.0", {}),
        ("val_bpb: 1.0 or so", {}), ("val_bpb: nan", {}), ("val_bpb: 2\nval_bpb: 1.5", {"val_bpb": 1.5}),
        ("val_bpb: -1.5e-3\r\n", {"val_bpb": -0.0015}), ("score: 3", {}), ("num_steps: 1e3", {"num_steps": 1000}),
        (b"\xff\xfe\nval_bpb: 1.5\n\x00", {"val_bpb": 1.5}),
    ],
)  # fmt: skip
def test_lines(log, text, found):
    assert log(text) == found


def test_a_metric_of_ones_own(log):
    assert log("score: 3.5\nval_bpb: 1.5", metric="score") == {"score": 3.5, "val_bpb": 1.5}


def test_of_a_huge_log_only_the_end_counts(log):
    assert log("val_bpb: 9.0\n" + "x" * 2 * TAIL_BYTES + "\ndepth: 8\n") == {"depth": 8}


@pytest.mark.parametrize(
    ("text", "kind", "summary"),
    [
        ("Traceback\n  File\nValueError: no\n\n", "exception", "ValueError: no"),
        (
            "x\ntorch.cuda.OutOfMemoryError: CUDA out of memory.",
            "oom",
            "torch.cuda.OutOfMemoryError: CUDA out of memory.",
        ),
        ("", "exception", "the log is empty"),
        ("\n \n", "exception", "the log is empty"),
    ],
)
def test_a_crash(log, text, kind, summary):
    error = log(text, crashed=True)["error"]
    assert (error["kind"], error["summary"], error["phase"]) == (kind, summary, None)


@given(raw=st.binary(max_size=300), crashed=st.booleans())
def test_any_log_makes_a_card_or_nothing(tmp_path_factory, raw, crashed):
    path = tmp_path_factory.getbasetemp() / "any.log"
    path.write_bytes(raw)
    found = read_log(path, "val_bpb", crashed)
    about = {"id": "a" * 16, "timestamp": "2026-01-31T12:00:00.000Z", "status": "inconclusive"}
    if crashed:
        validate_card(complete(about | {"status": "crash", "error": found["error"]}))
    else:
        assert all(isinstance(value, (int, float)) for value in found.values())


def test_a_log_that_cannot_be_read(tmp_path):
    for path, reason in ((tmp_path / "no.log", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(StoreError) as caught:
            read_log(path, "val_bpb", False)
        assert str(caught.value) == f"cannot read {path}: {reason}"
