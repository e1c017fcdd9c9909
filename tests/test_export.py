"""Cards leave the commons for other programs: exact bytes, and nothing a spreadsheet would run."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cards import add_card, load_cards
from lab.errors import SettingError
from lab.export import export_cards, export_file
from lab.ledger import import_file
from lab.schema import EXPORT_FORMATS, complete

ROOT = Path(__file__).parent.parent


def card(number, **values):
    about = {"id": f"{number:012x}", "timestamp": f"2026-01-{number:02d}T00:00:00.000Z", "status": "keep"}
    return complete(about | {"results": {"val_bpb": 0.99}} | values)


def exported(cards, format):
    out = io.BytesIO()
    assert export_cards(cards, format, out) == len(cards)
    return out.getvalue()


CARDS = [
    card(3, commit="c1", status="crash", results={}, hypothesis="a\tb\r\nc"),
    card(2, commit="b1", status="revert", results={"val_bpb": 0.9912346, "peak_vram_mb": 45056}, hypothesis='"q" | 🙂'),
    card(1, commit="a1", hypothesis="baseline"),
    card(4, status="inconclusive", results={"val_bpb": None}),
]


def test_tsv_of_cards_that_were_not_imported():
    assert exported(CARDS, "tsv").decode() == (
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
        "a1\t0.990000\t\tkeep\tbaseline\n"
        'b1\t0.991235\t44.0\tdiscard\t"q" | 🙂\n'
        "c1\t0.000000\t0.0\tcrash\ta b c\n"
        "\t\t\tinconclusive\t\n"
    )
    small = card(1, metric="loss", results={"loss": 0.000012345678})
    assert exported([small], "tsv").decode().splitlines()[1] == "\t1.23457e-05\t\tkeep\t"
    assert exported([], "tsv") == b"commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"


def imported(folder, text, name="results.tsv", **options):
    (folder / name).write_bytes(text.encode())
    import_file(folder / name.partition(".")[0], folder / name, **options)
    return load_cards(folder / name.partition(".")[0])


LEDGER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\nz\t0.99\t1.0\tKEEP\told\n"


def test_tsv_of_a_mixed_commons_has_one_header(tmp_path):
    ours = card(1, hypothesis="new", commit="b")
    assert exported([ours, *imported(tmp_path, LEDGER)], "tsv").decode() == LEDGER + "b\t0.990000\t\tkeep\tnew\n"
    other = imported(tmp_path, "sha\tval_bpb\tnotes\nq\t0.9\tx\n", "other.tsv")
    assert exported([ours, *other], "tsv").decode() == (
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription\nq\t0.900000\t\tinconclusive\tx\nb\t0.990000\t\tkeep\tnew\n"
    )


def test_tsv_of_a_ledger_follows_its_lines_and_not_the_clock(tmp_path):
    table = "commit\tval_bpb\tdate\nb\t0.9\t2026-02-02\na\t0.8\t2026-01-01"
    assert exported(imported(tmp_path, table), "tsv").decode() == table
    grown = table + "\r\nc\t0.7\t2026-01-02\n"
    assert exported(imported(tmp_path, grown), "tsv").decode() == table + "\nc\t0.7\t2026-01-02\n"


def test_tsv_of_a_csv_is_the_classic_one(tmp_path):
    cards = imported(tmp_path, 'commit,val_bpb,status,notes\na,0.9,keep,"x\ty\nz"\n', "r.csv")
    assert exported(cards, "tsv").decode().splitlines()[1] == "a\t0.900000\t\tkeep\tx y z"


@pytest.mark.parametrize(
    "change",
    [{"cells": ["a\nforged"]}, {"cells": 1}, {"columns": [1]}, {"newline": "x"}, {"line": "1"}, {"file": None}],
)
def test_a_source_that_only_looks_like_a_ledger_is_not_copied(change):
    source = {"file": "f", "format": "tsv", "line": 2, "columns": ["a"], "cells": ["b"], "newline": "\n"}
    forged = card(1, source=source | {"header_newline": "\n"} | change)
    assert exported([forged], "tsv").decode().splitlines()[1:] == ["\t0.990000\t\tkeep\t"]


def test_one_tsv_has_one_metric():
    with pytest.raises(SettingError) as raised:
        exported([card(1), card(2, metric="f1", results={"f1": 1})], "tsv")
    assert str(raised.value) == (
        "--format tsv has one column for the metric, and the cards have f1, val_bpb; use jsonl"
    )


def test_an_unknown_format():
    with pytest.raises(SettingError) as raised:
        export_cards([], "xls", io.BytesIO())
    assert str(raised.value) == "--format xls: it is one of tsv, jsonl, csv, parquet"


def test_jsonl_is_the_cards_oldest_first():
    strange = card(5, hypothesis="\u2028 \udcff \ud800")
    lines = exported([strange, *CARDS], "jsonl").split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == [*sorted(CARDS, key=lambda card: card["timestamp"]), strange]


def test_csv_quotes_and_disarms_formulas():
    evil = card(
        9, hypothesis='=HYPERLINK("x")', lesson="a,\nb", session="-1", agent="@me", tags=["x"], seed=-3,
        results={"val_bpb": -0.5, "=cmd": 1, "curve": [], "flag": True},
    )  # fmt: skip
    (header, row) = csv.reader(io.StringIO(exported([evil], "csv").decode(), newline=""))
    values = dict(zip(header, row, strict=True))
    assert {name: values[name] for name in ("hypothesis", "lesson", "session", "agent", "tags", "seed", "value")} == {
        "hypothesis": "'=HYPERLINK(\"x\")", "lesson": "a,\nb", "session": "'-1", "agent": "'@me", "tags": '["x"]',
        "seed": "-3", "value": "-0.5",
    }  # fmt: skip
    assert header[-2:] == ["results.val_bpb", "results.=cmd"]


def test_parquet_has_the_columns_of_csv():
    parquet = pytest.importorskip("pyarrow.parquet")
    cards = [*CARDS, card(5, hypothesis="\udcff", seed=10**20, tags=["a"], results={"val_bpb": 1, "x": 2**70})]
    table = parquet.read_table(io.BytesIO(exported(cards, "parquet")))
    assert table.column_names == exported(cards, "csv").decode().splitlines()[0].split(",")
    assert table["value"].to_pylist() == [0.99, 0.9912346, None, None, 1.0]
    assert table["hypothesis"].to_pylist()[-1] == "?"
    assert parquet.read_table(io.BytesIO(exported([], "parquet"))).num_rows == 0


def test_without_pyarrow_parquet_says_so_and_the_others_work():
    script = (
        "import sys, io; sys.modules['pyarrow'] = None\n"
        "from lab.export import export_cards\n"
        "from lab.schema import EXPORT_FORMATS\n"
        "for format in EXPORT_FORMATS:\n"
        "    try: export_cards([], format, io.BytesIO())\n"
        "    except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    said = "--format parquet needs pyarrow, which is not installed; `uv sync` or use csv\n"
    assert (done.stdout, done.stderr, EXPORT_FORMATS[-1]) == (said, "", "parquet")


@pytest.fixture
def commons(tmp_path):
    """The folder of a commons with three cards, each a second later than the one before."""
    about = (("a", "h100-5m", "s1"), ("b", "h100-10m", "s1"), ("c", "cpu", None))
    for second, (name, track, session) in enumerate(about):
        time = f"2026-01-01T00:00:0{second}.000Z"
        add_card(tmp_path / "k", card(second, timestamp=time, hypothesis=name, track=track, session=session))
    return tmp_path / "k"


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({}, "abc"),
        ({"session": "s1"}, "ab"),
        ({"session": "s2"}, ""),
        ({"track": "cpu"}, "c"),
        ({"track": "10m"}, "b"),
        ({"track": "h100-5m", "session": "s1"}, "a"),
    ],
)
def test_a_file_has_the_chosen_cards_oldest_first(commons, tmp_path, chosen, names):
    out = tmp_path / "out" / "cards.jsonl"
    out.parent.mkdir()
    assert export_file(commons, "jsonl", out, **chosen) == len(names)
    assert [json.loads(line)["hypothesis"] for line in out.read_text().splitlines()] == list(names)
    assert [path.name for path in out.parent.iterdir()] == ["cards.jsonl"]


def test_a_name_that_is_a_track_and_a_part_of_another_is_the_track(commons, tmp_path):
    add_card(commons, card(9, track="h100"))
    assert export_file(commons, "tsv", tmp_path / "out", track="h100") == 1


@pytest.mark.parametrize(
    ("track", "reason"),
    [
        ("h100", "--track 'h100' is several of the tracks: cpu, h100-10m, h100-5m"),
        ("tpu", "--track 'tpu' is none of the tracks: cpu, h100-10m, h100-5m"),
    ],
)
def test_a_track_that_is_not_one(commons, tmp_path, track, reason):
    (tmp_path / "out").write_text("old")
    with pytest.raises(SettingError) as raised:
        export_file(commons, "tsv", tmp_path / "out", track=track)
    assert (str(raised.value), (tmp_path / "out").read_text()) == (reason, "old")
    with pytest.raises(SettingError) as raised:
        export_file(tmp_path / "empty", "tsv", None, track=track)
    assert str(raised.value) == f"--track {track!r} is none of the tracks: none yet"


def test_without_a_file_it_goes_to_standard_output(commons, capfdbinary):
    assert export_file(commons, "tsv", None, track="cpu") == 1
    assert capfdbinary.readouterr().out == (b"commit\tval_bpb\tmemory_gb\tstatus\tdescription\n\t0.990000\t\tkeep\tc\n")


def test_what_is_no_file_is_not_replaced(commons, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(SettingError) as raised:
            export_file(commons, "tsv", out)
        assert str(raised.value) == f"--out {out} is no file; leave --out away to print"


def test_an_imported_ledger_comes_out_as_it_was(tmp_path):
    imported(tmp_path, LEDGER)
    assert export_file(tmp_path / "results", "tsv", tmp_path / "out.tsv") == 1
    assert (tmp_path / "out.tsv").read_text() == LEDGER
