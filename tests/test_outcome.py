"""From how a run ended to its card."""

import errno
import itertools
import math
import os
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.cards import add_card, new_id
from lab.errors import CardError, DataError, DeviceError, DivergedError, SettingError, StoreError
from lab.index import Index
from lab.outcome import Terminated, classify, compared, make_error, plain, record, summarise_error, thin
from lab.runs import signature
from lab.schema import CARD, ERROR_KINDS, complete
from lab.store import replace, write_new

CARD_NAMES = [field.name for field in CARD]


class OutOfMemoryError(RuntimeError):
    """Named as torch names it."""


def caused(error, cause):
    """The error, raised from its cause."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SettingError("x"), ("setting", 2)),
        (DataError("x"), ("data", 2)),
        (DeviceError("x"), ("device", 2)),
        (DivergedError("x"), ("diverged", 2)),
        (StoreError("x"), ("exception", 2)),
        (caused(StoreError("cannot write x"), OSError(errno.ENOSPC, "No space left on device")), ("disk", 2)),
        (OSError(errno.ENOSPC, "No space left on device"), ("disk", 1)),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ("disk", 1)),
        (caused(ValueError("I/O operation"), OSError(errno.ENOSPC, "No space left on device")), ("disk", 1)),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), ("disk", 1)),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), ("disk", 1)),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), ("exception", 1)),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ("oom", 1)),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), ("oom", 1)),
        (RuntimeError("DataLoader worker (pid 71) is killed by signal: Killed. "), ("killed", 1)),
        (RuntimeError("DataLoader worker (pid(s) 71) exited unexpectedly"), ("killed", 1)),
        (KeyboardInterrupt(), ("interrupted", 130)),
        (Terminated(), ("interrupted", 143)),
        (MemoryError(), ("oom", 1)),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), ("oom", 1)),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), ("oom", 1)),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), ("oom", 1)),
        (ValueError("out of memory is only mentioned"), ("exception", 1)),
        (RuntimeError("shape mismatch"), ("exception", 1)),
    ],
)
def test_classify(error, expected):
    assert classify(error) == expected
    assert expected[0] in ERROR_KINDS


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("no shards in x"), "no shards in x"),
        (KeyboardInterrupt(), "stopped by Ctrl-C"),
        (Terminated(), "stopped by SIGTERM"),
        (ValueError("\n first\nsecond"), "ValueError: first"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_summarise_error(error, line):
    assert summarise_error(error) == line


def test_an_error_keeps_the_last_lines_and_cuts_long_ones():
    error = make_error("killed", "train", "one\n\n two", [f"line {n}" for n in range(30)] + ["x" * 1000])
    assert error["summary"] == "one two"
    assert error["tail"] == [f"line {n}" for n in range(11, 30)] + ["x" * 400]


def test_a_short_curve_is_kept_whole():
    assert thin([]) == []
    assert thin([(0, 0.0, 5.0), (1, 0.123456, 3.14159265)]) == [[0, 0.0, 5.0], [1, 0.123, 3.14159]]


def test_a_long_curve_is_thinned_evenly_over_time():
    slow_start = [(0, 0.0, 9.0)] + [(step, 10 + step * 0.01, 3.0) for step in range(1, 2001)]
    curve = thin(slow_start)
    assert len(curve) <= 64
    assert (curve[0], curve[-1]) == ([0, 0.0, 9.0], [2000, 30.0, 3.0])
    gaps = [after[1] - before[1] for before, after in itertools.pairwise(curve[1:])]
    assert max(gaps) <= 30 / 63 + 0.011
    assert len(thin([(step, 1.0, 2.0) for step in range(1000)])) == 2


def test_a_long_curve_whose_seconds_run_backwards_is_a_curve():
    points = [(step, 100.0 - step, 5.0) for step in range(100)]
    curve = thin(points)
    assert (curve[0], curve[-1]) == ([0, 100.0, 5.0], [99, 1.0, 5.0]) and len(curve) <= 64


def test_a_loss_that_is_not_finite_is_null():
    assert thin([(0, 0.0, 5.0), (1, 1.0, math.nan), (2, 2.0, math.inf)]) == [
        [0, 0.0, 5.0],
        [1, 1.0, None],
        [2, 2.0, None],
    ]


class Scalar:
    """What numpy and torch scalars have in common."""

    def __init__(self, value):
        self.value = value

    def item(self):
        """The Python number."""
        return self.value


def test_plain_values():
    given = {"a": Scalar(1.5), "b": math.nan, "c": (1, Scalar(math.inf)), 4: Decimal("0.1"), "d": True, "e": "x"}
    assert plain(given) == {"a": 1.5, "b": None, "c": [1, None], "4": "0.1", "d": True, "e": "x"}


def test_a_run_is_recorded_once_whoever_comes_first(tmp_path):
    run, knowledge = tmp_path / "run", tmp_path / "knowledge"
    facts = {"run_id": "a" * 12, "knowledge_dir": str(knowledge), "pid": 1, "argv": [], "phase": "train", "track": "t"}
    write_new(run / "start.json", facts)
    first = record(run, make_error("timeout", "train", "over the limit", []))
    write_new(run / "summary.json", {"run_id": "a" * 12, "val_bpb": 1.0})
    assert record(run) == first == record(run, make_error("killed", "train", "gone", []))
    assert (first["id"], first["status"], first["error"]["kind"]) == ("a" * 12, "crash", "timeout")
    assert first["artifacts"] == {"files": ["start.json"]}
    assert not {"pid", "argv", "phase", "knowledge_dir"} & set(first)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
FIELDS = st.sampled_from(["schema", "run_id", "knowledge_dir", "platform", "phases", "decision", *CARD_NAMES])


@given(
    facts=st.dictionaries(FIELDS, JSON, max_size=3),
    summary=st.none() | st.dictionaries(st.sampled_from(["val_bpb", "artifacts", "loss_curve", "x"]), JSON, max_size=3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_run_has_left_there_is_a_card_or_one_line_that_says_why_not(tmp_path, facts, summary):
    run, knowledge = tmp_path / new_id(), tmp_path / "knowledge"
    known = {"run_id": new_id(), "knowledge_dir": str(knowledge), "phase": "train", "track": "t"}
    replace(run / "start.json", known | facts)
    if summary is not None:
        replace(run / "summary.json", summary)
    with suppress(CardError):
        record(run, make_error("killed", None, "gone", []))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("start.json", b"[]", "{path} holds a list where an object belongs; `commons.py doctor` sets it right"),
        ("start.json", b"{}", "{path} does not say which run it is of"),
        ("start.json", b'{"knowledge_dir": "x", "run_id": "../../x"}', "{path} does not say which run it is of"),
        ("start.json", None, "{path} is no plain file"),
        ("summary.json", None, "{path} is no plain file"),
    ],
)
def test_what_a_run_has_left_makes_no_card(tmp_path, name, content, why):
    path = tmp_path / name
    replace(tmp_path / "start.json", {"run_id": "a" * 12, "knowledge_dir": str(tmp_path / "knowledge")})
    path.unlink(missing_ok=True)
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    with pytest.raises(CardError) as caught:
        record(tmp_path)
    assert str(caught.value) == why.format(path=path)


def crash(number, summary, kind="oom"):
    """A card of the run of this number, which crashed saying this."""
    return complete(
        {"id": f"{number:012x}", "timestamp": f"2026-01-01T00:00:{number:02d}.000Z", "status": "crash", "track": "t",
         "results": {}, "error": make_error(kind, "train", summary, [])}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("local:/tmp/3f2a/checkout/notes: no folder", "local:/tmp/x9/checkout/notes: no folder", True),
        (r"cannot read C:\runs\ab\log.txt", r"cannot read C:\runs\cd\log.txt", True),
        ("cannot read /tmp/a/x.txt", "cannot read /tmp/a/y.txt", False),
        ("and/or", "either/or", False),
    ],
)
def test_every_run_has_folders_of_its_own(one, other, alike):
    assert (signature(crash(1, one)) == signature(crash(2, other))) is alike


def test_crashes_that_differ_in_numbers_alone_are_alike(tmp_path):
    for number, summary in enumerate(("tried 2.00 GiB", "tried 3.50 GiB", "the tensor is on two devices")):
        add_card(tmp_path, crash(number, summary))
    add_card(tmp_path, crash(8, "tried 2.00 GiB", "exception"))
    with Index(tmp_path) as index:
        third, other = (compared(index, crash(9, said))["decision"]["reason"] for said in ("tried 16 GiB", "gone"))
    assert (third, other) == ("crashed alike 3 times: oom", "crashed: oom")
