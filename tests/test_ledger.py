"""Ledgers of other projects become cards: exactly once, the same everywhere, with every refusal said aloud."""

import json
import string
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.cards import add_card, load_cards
from lab.errors import SettingError, StoreError
from lab.export import export_cards
from lab.ledger import import_file

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "data" / "results-h100-mar8.tsv"
HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
ROWS = "a1b2c3d\t0.990000\t44.0\tkeep\tbaseline\nb1b2c3d\t0.980000\t44.5\tkeep\twider MLP\n"


@pytest.fixture
def bring(tmp_path):
    """Import a file of this content; returns (what the import says, the cards in the order of the file)."""

    def bring(content, name="results.tsv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        done = import_file(tmp_path / "knowledge", path, **options)
        by_id = {card["id"]: card for card in load_cards(tmp_path / "knowledge")}
        return done, [by_id[card_id] for card_id in done.ids]

    return bring


def exported(cards):
    out = BytesIO()
    export_cards(cards, "tsv", out)
    return out.getvalue()


def test_a_classic_ledger(bring):
    crash = "c1b2c3d\t0.000000\t0.0\tcrash\tbatch 1M (OOM)\n"
    done, cards = bring(HEADER + ROWS + crash + "d1b2c3d\t0.985\t44\tdiscard\tmatrix LR 0.04 -> 0.05 (worse)\n")
    assert (done.added, done.known, done.bad, done.metric, done.direction) == (4, 0, [], "val_bpb", "min")
    assert done.said == [
        "read results.tsv as tsv",
        "metric: val_bpb, from the header",
        "direction: min, from the project's setting",
        "columns: commit = commit, status = status, description = description",
    ]
    assert [card["status"] for card in cards] == ["keep", "keep", "crash", "revert"]
    assert [card["results"]["val_bpb"] for card in cards] == [0.99, 0.98, None, 0.985]
    assert [card["results"]["delta"] for card in cards] == [None, -0.01, None, 0.005]
    assert [card["results"]["peak_vram_mb"] for card in cards] == [44 * 1024, 44.5 * 1024, None, 44 * 1024]
    assert cards[2]["error"] == {"kind": "oom", "phase": None, "summary": "batch 1M (OOM)", "tail": []}
    assert (cards[3]["config_diff"], cards[3]["lesson"]) == ({"matrix LR": [0.04, 0.05]}, "worse")
    assert cards[3]["hypothesis"] == "matrix LR 0.04 -> 0.05 (worse)"
    assert (cards[0]["track"], cards[0]["session"], cards[0]["commit"]) == ("imported:results", "results", "a1b2c3d")
    assert [card["timestamp"] for card in cards[:2]] == ["1970-01-01T00:00:00.002Z", "1970-01-01T00:00:00.003Z"]
    assert cards[0]["source"] == {
        "file": "results.tsv", "format": "tsv", "line": 2, "columns": HEADER.split(),
        "cells": ["a1b2c3d", "0.990000", "44.0", "keep", "baseline"], "newline": "\n", "header_newline": "\n",
    }  # fmt: skip


def test_a_second_import_adds_nothing_and_a_grown_file_its_new_rows(bring):
    assert bring(HEADER + ROWS)[0].added == 2
    again = bring(HEADER + ROWS)[0]
    assert (again.added, again.known) == (0, 2)
    assert bring(HEADER + ROWS, "night2.tsv")[0].added == 2  # the same baseline opens every night
    grown = bring(HEADER + ROWS + ROWS)[0]
    assert (grown.added, grown.known, len(set(grown.ids))) == (2, 2, 4)
    assert bring(HEADER + ROWS, session="mine")[0].added == 2


def test_a_second_import_touches_no_file(bring, tmp_path):
    folder = tmp_path / "knowledge"

    def files():
        return [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(folder.rglob("*"))]

    bring(HEADER + ROWS)
    before = files()
    assert len(before) == 3
    assert bring(HEADER + ROWS)[0].known == 2
    assert files() == before


def test_a_file_without_a_good_row_makes_no_folder(tmp_path):
    path = tmp_path / "r.tsv"
    path.write_text(HEADER + "words")
    assert len(import_file(tmp_path / "knowledge", path).bad) == 1
    assert not (tmp_path / "knowledge").exists()


def test_two_clones_write_the_same_bytes(tmp_path):
    path = tmp_path / "r.tsv"
    path.write_text(HEADER + ROWS)
    for clone in ("one", "two"):
        import_file(tmp_path / clone, path)
    one, two = (sorted((tmp_path / clone / "cards").iterdir()) for clone in ("one", "two"))
    assert [file.name for file in one] == [file.name for file in two]
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a\t---\t1\tkeep\tx", "val_bpb '---' is no number, and status 'keep' is no crash"),
        ("a\t\t1\t\tx", "val_bpb '' is no number, and status '' is no crash"),
        ("a\t1e999\t1\tkeep\tx", "val_bpb '1e999' is no number, and status 'keep' is no crash"),
        ("a\tnan\t1\tdiscard\tx", "val_bpb 'nan' is no number, and status 'discard' is no crash"),
        ("a\t0.000000\t1\tkeep\tx", "val_bpb '0.000000' is unlike all others, and status 'keep' is no crash"),
        ("a\t0.9\t1\tke\0ep\tx", "a NUL byte; this is not text"),
        ("a\t0.9\tkeep\tx", "4 cells where the header has 5: 'a 0.9 keep x'"),
        ("only words here", "1 cells where the header has 5: 'only words here'"),
        (HEADER.strip(), "the header again"),
        ("x" * 10_000_000, "10000000 characters; a row has at most 100000"),
    ],
)
def test_a_bad_row_is_reported_and_the_others_go_in(bring, row, reason):
    done, cards = bring(HEADER + row + "\n\n" + ROWS)
    assert (done.bad, done.added) == ([(2, reason)], 2)
    assert [card["source"]["line"] for card in cards] == [4, 5]


@pytest.mark.parametrize(
    ("row", "values"),
    [
        ("abc1234 0.9712 44.0 keep wider and deeper", (0.9712, "keep", "wider and deeper")),
        ("abc1234  0.9712  44.0\tkeep   wider", (0.9712, "keep", "wider")),
        ("abc1234\t0.9712\t44.0\tkeep", (0.9712, "keep", None)),
        ("abc1234\t---\t\tcrash\t", (None, "crash", None)),
        ("abc1234\t0.97\t44\tdiscard\ta\tb | \"c\" 🙂", (0.97, "revert", "a\tb | \"c\" 🙂")),
        ("abc1234\t0.97 ± 0.01\t44\tKept!\t'x", (0.97, "keep", "'x")),
        ("abc1234\t0.97\t44\tmaybe\tx", (0.97, "inconclusive", "x")),
    ],
)  # fmt: skip
def test_messy_rows_are_read(bring, row, values):
    content = HEADER + ROWS + row
    done, cards = bring(content)
    assert done.bad == []
    assert (cards[2]["results"]["val_bpb"], cards[2]["status"], cards[2]["hypothesis"]) == values
    assert exported(cards) == content.encode()


def test_bom_crlf_and_bytes_that_are_not_utf8(bring):
    table = HEADER.replace("\n", "\r\n").encode() + ROWS.encode() + b"c\t0.97\t4\tkeep\tna\xefve \x1b[31m\r\n"
    done, cards = bring(b"\xef\xbb\xbf" + table)
    assert done.bad == []
    assert cards[2]["hypothesis"] == "na\ufffdve \ufffd[31m"
    assert exported(cards) == table


@pytest.mark.parametrize(
    ("header", "rows", "options", "metric", "direction", "why"),
    [
        ("sha\tval_sharpe\tverdict", ["a\t1.1\tkeep"], {}, "val_sharpe", "max", "the word 'sharpe'"),
        ("sha\ttest_rmse\tverdict", ["a\t1.1\tkeep"], {}, "test_rmse", "min", "the word 'rmse'"),
        (
            "sha\tval_x\tverdict", ["a\t1\tkeep", "b\t9\tno", "c\t2\tkeep"], {}, "val_x", "max",
            "the kept rows, which only rise",
        ),
        ("sha\tfoo\tval_loss", ["a\t1\t2"], {"metric": "foo", "direction": "max"}, "foo", "max", None),
        ("sha\tfoo\tval_bpb\tval_loss", ["a\t1\t2\t3"], {}, "val_bpb", "min", "the project's setting"),
    ],
)  # fmt: skip
def test_metric_and_direction(bring, header, rows, options, metric, direction, why):
    done, cards = bring("\n".join([header, *rows]), **options)
    assert (done.metric, done.direction, done.bad) == (metric, direction, [])
    assert (cards[0]["metric"], cards[0]["direction"]) == (metric, direction)
    expected = [f"direction: {direction}, from {why}"] if why else []
    assert [said for said in done.said if said.startswith("direction")] == expected


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        ("", {}, "{} is empty; give a file with a header and rows"),
        ("a\tb\n1\t2\n", {}, "{} has no column that looks like a metric among a, b; name it with --metric"),
        ("a\tb\n1\t2\n", {"metric": "c"}, "--metric c: {} has the columns a, b; name one of them"),
        ("val_a\tval_b\n1\t2\n", {}, "{} has several columns that could be the metric: val_a, val_b; "
         "choose with --metric"),
        ("val_a\tb\n1\t2\n", {}, "{}: neither the name 'val_a' nor the kept rows tell whether less is better; "
         "say which with --direction min or --direction max"),
        (HEADER, {"direction": "up"}, "--direction up: it is one of min, max"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used(bring, tmp_path, content, options, reason):
    with pytest.raises(SettingError) as raised:
        bring(content, **options)
    assert str(raised.value) == reason.format(tmp_path / "results.tsv")
    assert not (tmp_path / "knowledge").exists()


def test_zero_is_a_measurement_where_others_come_near_it(bring):
    done, cards = bring("commit\tval_sharpe\tstatus\na\t0.0\tkeep\nb\t0.01\tkeep\nc\t1.2\tkeep\nd\t1.3\tdiscard\n")
    assert (done.bad, [card["results"]["delta"] for card in cards]) == ([], [None, 0.01, 1.19, 0.1])


def test_a_csv_of_wandb(bring):
    content = (
        '"Name","State","Notes","Created","Runtime","LEARNING_RATE","config.model","val_loss","num_steps"\n'
        '"brave-1","finished","lr, ""low""","2026-01-05T12:33:11.000Z","300","0.01","gpt","2.51","1,000"\n'
        '"brave-2","crashed","","2026-01-06T12:33:11.000Z","3","","","",""\n'
        '"brave-3","failed\n'
        '"brave-4","running","","2026-01-07T12:33:11.000Z","3","","","",""\n'
        "brave-5,finished\n"
        "brave-6,finished,a note,,,,,2.5,\n"
    )
    done, cards = bring(content, "wandb.csv")
    assert done.bad == [
        (4, "no CSV: ',' expected after '\"'"),
        (5, "val_loss '' is no number, and status 'running' is no crash"),
        (6, "val_loss '' is no number, and status 'finished' is no crash"),
    ]
    assert (done.metric, done.direction) == ("val_loss", "min")
    first, second, _ = cards
    assert (first["status"], first["hypothesis"], first["timestamp"]) == (
        "inconclusive", 'lr, "low"', "2026-01-05T12:33:11.000Z",
    )  # fmt: skip
    assert first["config"] == {"LEARNING_RATE": 0.01, "model": "gpt"}
    assert {name: first["results"][name] for name in ("val_loss", "num_steps", "Runtime")} == {
        "val_loss": 2.51, "num_steps": 1000, "Runtime": 300,
    }  # fmt: skip
    assert (second["status"], second["hypothesis"], second["results"]["val_loss"]) == ("crash", "brave-2", None)


def test_a_csv_of_mlflow(bring):
    content = "Start Time,Name,Status,params.lr,metrics.accuracy\r\n2026-01-05 12:33:11,first,FINISHED,0.1,0.8\r\n"
    done, (card,) = bring(content, "runs.csv")
    assert (done.metric, done.direction, card["config"]) == ("accuracy", "max", {"lr": 0.1})
    assert (card["timestamp"], card["results"]["accuracy"]) == ("2026-01-05T12:33:11.000Z", 0.8)


def test_an_unclosed_quote_does_not_swallow_rows_and_a_description_may_have_commas(bring):
    done, cards = bring('commit,val_bpb,status,notes\na,0.9,keep,"x\nb,0.8,keep,y\nc,0.7,keep,z, and more\n', "r.csv")
    assert done.bad == [(2, "no CSV: unexpected end of data")]
    assert [card["hypothesis"] for card in cards] == ["y", "z, and more"]


@pytest.mark.parametrize("column", ["val loss (nats)", "3_loss", "metrics.val/loss"])
def test_a_metric_with_an_odd_name(bring, column):
    done, (card,) = bring(f"commit\t{column}\tstatus\na\t0.9\tkeep\n")
    assert (done.bad, card["results"][done.metric]) == ([], 0.9)


def test_json_of_another_schema(bring):
    line = {"commit_id": "abc1", "hypothesis": "x", "results": {"val_bpb": 0.9, "depth": 8}, "status": "discard"}
    done, (card,) = bring(json.dumps(line) + "\n[1]\n{\n{}\n", "ledger.jsonl")
    assert [(number, reason[:17]) for number, reason in done.bad] == [
        (2, "not a JSON object"), (3, "not JSON (Expecti"), (4, "val_bpb '' is no "),
    ]  # fmt: skip
    assert (card["commit"], card["status"], card["results"]["depth"]) == ("abc1", "revert", 8)
    more = json.dumps(line) + "\n" + json.dumps(line | {"later": 1, "results": {"val_bpb": 0.8}}) + "\n"
    assert bring(more, "ledger.jsonl")[0][:2] == (1, 1)
    assert bring(json.dumps([line]), "ledger.json")[0][:2] == (0, 1)


def test_cards_of_ours_keep_their_ids_and_bytes(bring, tmp_path):
    values = {"status": "keep", "results": {"val_bpb": 0.9}, "hypothesis": "ü\udcff", "new": 1}
    card = add_card(tmp_path / "other", values)
    out = BytesIO()
    export_cards(load_cards(tmp_path / "other"), "jsonl", out)
    done, cards = bring(out.getvalue(), "cards.jsonl")
    assert (done.added, done.metric, done.ids, cards) == (1, None, [card["id"]], [card])
    name = f"cards/{card['id']}.json"
    assert (tmp_path / "knowledge" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert bring((tmp_path / "other" / name).read_bytes(), "card.json")[0][:2] == (0, 1)
    evil = json.dumps(card | {"id": "../../evil"}) + "\n" + json.dumps(card | {"seed": float("inf")})
    assert [line for line, _ in bring(evil, "evil.jsonl")[0].bad] == [1, 2]


def test_a_folder_that_cannot_be_written(bring, tmp_path):
    (tmp_path / "knowledge").write_text("a file")
    with pytest.raises(StoreError) as raised:
        bring(HEADER + ROWS)
    folder = tmp_path / "knowledge" / "cards"
    assert str(raised.value) == f"cannot write in {folder}: Not a directory; free space there or make it writable"


IMPORT = """
import sys
from pathlib import Path
from lab.ledger import import_file
import_file(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_an_import_that_is_killed_leaves_whole_cards_and_the_next_one_ends_it(tmp_path):
    path, cards = tmp_path / "r.tsv", tmp_path / "k" / "cards"
    path.write_text(HEADER + "".join(f"a{n}\t0.9\t1.0\tkeep\tx\n" for n in range(4500)))
    process = subprocess.Popen([sys.executable, "-c", IMPORT, tmp_path / "k", path], cwd=ROOT)
    while process.poll() is None and not (cards.exists() and any(cards.glob("[!.]*.json"))):
        time.sleep(0.001)
    process.kill()
    process.wait()
    left = len(load_cards(tmp_path / "k"))
    done = import_file(tmp_path / "k", path)
    assert (done.added, done.known, done.bad) == (4500 - left, left, [])
    assert len(load_cards(tmp_path / "k")) == 4500


CELL = st.text(st.characters(exclude_characters="\n\t\0", exclude_categories=["Cs"]), max_size=12)
NEWLINE = st.sampled_from(["\n", "\r\n"])
STATUS = st.sampled_from(["keep", "discard", "crash", "odd"])
ROW = st.tuples(CELL, st.floats(0.1, 9).map(str), STATUS, CELL, NEWLINE)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=8), NEWLINE, st.booleans(), st.binary(max_size=4))
def test_any_table_comes_back_byte_for_byte(rows, newline, ends, junk):
    junk = junk.translate(None, b"\n\t\0\r")
    lines = ["\t".join(cells).encode() + junk + end.encode() for *cells, end in rows]
    table = b"".join(["\t".join(["id", "val_bpb", "status", "notes"]).encode() + newline.encode(), *lines])
    if not ends:
        table = table.removesuffix(b"\n").removesuffix(b"\r")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.tsv"
        path.write_bytes(table)
        done = import_file(Path(folder) / "k", path)
        assert (done.added, done.known, done.bad) == (len(rows), 0, [])
        assert exported(load_cards(Path(folder) / "k")) == table
        assert import_file(Path(folder) / "k", path)[:2] == (0, len(rows))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(string.printable, max_size=60).map(str.encode), st.booleans(), st.booleans())
def test_any_bytes_are_imported_or_refused_in_one_line(content, header, json_):
    head = b'{"val_bpb": 1}\n' if json_ else HEADER.encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        path.write_bytes(head * header + content)
        try:
            done = import_file(Path(folder) / "k", path)
        except SettingError as error:
            assert "\n" not in str(error)
        else:
            assert len(load_cards(Path(folder) / "k")) == done.added == len(done.ids)


@pytest.mark.skipif(not REAL.exists(), reason="the real ledger is not beside the checkout")
def test_the_real_ledger(tmp_path):
    done = import_file(tmp_path, REAL)
    cards = load_cards(tmp_path)
    assert (done.added, done.bad, import_file(tmp_path, REAL).added) == (126, [], 0)
    assert exported(cards) == REAL.read_bytes()
    assert all(card["category"] and card["tags"] for card in cards)


def test_cards_of_another_schema_keep_what_they_say(tmp_path):
    theirs = {
        "id": "a1b2c3d", "timestamp": "2026-03-09T02:11:05Z", "platform": {"gpu": "NVIDIA H100", "ram_gb": 80},
        "parent_commit": "abc1234", "hypothesis": "deeper", "config_diff": {"DEPTH": {"old": 8, "new": 10}},
        "results": {"val_bpb": 0.9823, "delta": -0.004, "num_steps": 953}, "status": "keep", "lesson": "helps",
        "tags": ["depth", "architecture"], "prior_knowledge_used": ["fff0000"],
    }  # fmt: skip
    second = theirs | {"id": "b1b2c3d", "hypothesis": "wider", "status": "discard", "prior_knowledge_used": ["a1b2c3d"]}
    folder = tmp_path / "cards"
    folder.mkdir()
    for number, card in enumerate((theirs, second)):
        (folder / f"{number}.json").write_text(json.dumps(card, indent=2))
    done = import_file(tmp_path / "k", folder)
    assert (done.added, done.known, done.bad) == (2, 0, [])
    later, first = sorted(load_cards(tmp_path / "k"), key=lambda card: card["hypothesis"], reverse=True)
    assert (first["commit"], first["category"], first["tags"]) == ("abc1234", "architecture", ["depth", "architecture"])
    assert first["config_diff"] == {"DEPTH": [8, 10]} and first["platform"] == {"device_name": "NVIDIA H100"}
    assert first["results"]["num_steps"] == 953 and first["prior_knowledge_used"] == ["fff0000"]
    assert later["prior_knowledge_used"] == [first["id"]] and later["status"] == "revert"
    assert import_file(tmp_path / "k", folder).added == 0


def test_the_note_that_wandb_writes_for_none_is_no_description(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text('"Name","State","Notes","val_loss"\n"calm-lake-13","finished","-","0.5"\n')
    import_file(tmp_path / "k", path)
    assert [card["hypothesis"] for card in load_cards(tmp_path / "k")] == ["calm-lake-13"]
