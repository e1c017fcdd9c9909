"""Files of rows are read as they stand, whatever the format; what cannot be read is said, row by row."""

import json

import pytest

from lab.errors import SettingError
from lab.tables import clean, read_table, shown, to_number, to_timestamp


@pytest.fixture
def read(tmp_path):
    """The table in a file of this content, and all its rows."""

    def read(content):
        path = tmp_path / "table"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        table = read_table(path)
        rows = list(table.rows())
        assert list(table.rows()) == rows, "a second reading reads the same"
        return table, rows

    return read


@pytest.mark.parametrize(
    ("content", "format", "columns", "cells"),
    [
        ("a\tb\n1\t\n\n \t \n2\t3\t4\n", "tsv", ["a", "b"], [["1", ""], ["2", "3", "4"]]),
        ("\ufeffa\tb\r\n1\t2\r\n", "tsv", ["a", "b"], [["1", "2"]]),
        (b"a\tb\n\xef\t2\n", "tsv", ["a", "b"], [["\udcef", "2"]]),
        ('a,b\n"1,\n2","""q"""\n,\n', "csv", ["a", "b"], [["1,\n2", '"q"']]),
        ("a;b,c\n1;2\n", "csv", ["a;b", "c"], [["1;2"]]),
        ("a;b\n1;2\n", "csv", ["a", "b"], [["1", "2"]]),
        ("| a | b |\n|---|:-:|\n| 1 | x \\| y |\n", "markdown", ["a", "b"], [["1", "x | y"]]),
        ('{"a": 1}\n{"b": "x", "a": null}\n', "json", ["a", "b"], [["1", ""], ["", "x"]]),
        ('[\n{"a": true}, {"results": {"b": 1}, "config": {"c": [2]}}]', "json", ["a", "b", "config.c"],
         [["true", "", ""], ["", "1", "[2]"]]),
        ('{\n"a":\n1}', "json", ["a"], [["1"]]),
    ],
)  # fmt: skip
def test_formats(read, content, format, columns, cells):
    table, rows = read(content)
    assert (table.format, table.columns) == (format, columns)
    assert [row.cells for row in rows] == cells
    assert [row.problem for row in rows] == [None] * len(cells)


def test_lines_and_their_ends(read):
    table, rows = read("\na\tb\r\n1\t2\n\n3\t\r4\r\n5\t6")
    assert table.newline == "\r\n"
    assert [(row.line, row.newline, row.cells[1]) for row in rows] == [(3, "\n", "2"), (5, "\r\n", "\r4"), (6, "", "6")]
    assert [row.line for row in read('a,b\n"x\ny",1\nz,2\n')[1]] == [2, 4]


def test_a_row_that_cannot_be_read_hides_no_other(read):
    _, rows = read("a\tb\nx\0\t1\n" + "x" * 100_001 + "\t\n1\t2\n")
    assert [row.problem for row in rows] == [
        "a NUL byte; this is not text", "100001 characters; a row has at most 100000", None,
    ]  # fmt: skip
    _, rows = read('a,b,c,d\na,0.9,keep,"x\nb,0.8,keep,y\nc,0.7,keep,z, and more\n')
    assert [(row.line, row.problem) for row in rows] == [(2, "no CSV: unexpected end of data"), (3, None), (4, None)]
    _, rows = read('{"a": 1}\n[1]\n{\n"text"\n{}\n')
    assert [(row.line, row.problem) for row in rows] == [
        (1, None), (2, "not a JSON object"),
        (3, "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (4, "not a JSON object"), (5, None),
    ]  # fmt: skip


def test_cards_of_ours_are_taken_as_they_are(read):
    card = {"schema": 2, "id": "0123456789ab", "results": {}}
    table, rows = read(json.dumps(card) + "\n")
    assert (table.columns, rows[0].cells, rows[0].card) == ([], [], card)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "{} is empty; give a file with a header and rows"),
        ("\n \n", "{} is empty; give a file with a header and rows"),
        (b"\x7fELF\0\0\0", "{} is no table: line 1 is not a header; give a TSV, CSV or JSON lines file"),
        ("x" * 10_000_000, "{} is no table: line 1 is not a header; give a TSV, CSV or JSON lines file"),
        ("a\r|b\n", "{} has no header: line 1 is 'a\\r|b'; name the columns there, with tabs between"),
        ("hello\n", "{} has no header: line 1 is 'hello'; name the columns there, with tabs between"),
        ('{"a": \n', "{} is not JSON (Expecting value: line 2 column 1 (char 7)); give one object a line"),
    ],
)
def test_a_file_that_is_no_table(read, tmp_path, content, reason):
    with pytest.raises(SettingError) as raised:
        read(content)
    assert str(raised.value) == reason.format(tmp_path / "table")


def test_no_file_a_folder_and_a_file_that_is_too_large(tmp_path):
    large = tmp_path / "large"
    with open(large, "wb") as file:
        file.truncate(300 << 20)
    for path, reason in (
        (tmp_path / "no.tsv", "cannot read {}: No such file or directory; give a ledger such as results.tsv"),
        (tmp_path, "{} is a folder without .json files; give a ledger such as results.tsv"),
        (large, "{} has 300 MiB, at most 256 can be imported; split it"),
    ):
        with pytest.raises(SettingError) as raised:
            read_table(path)
        assert str(raised.value) == reason.format(path)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.97", 0.97), (" -3 ", -3), (".5", 0.5), ("1e-3", 0.001), ("97%", 97), ("0.97 ± 0.01", 0.97), ("1+/-2", 1),
        ("1,234.5", 1234.5), ("1,23", None), ("nan", None), ("inf", None), ("1e999", None), ("", None), ("0x1", None),
        ("1_0", None), ("٣", None),
    ],
)  # fmt: skip
def test_numbers(text, number):
    assert to_number(text) == number
    assert type(to_number(text)) is type(number)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        *[(text, "2026-01-05T12:33:11.000Z") for text in (
            "1767616391", "1767616391.0", "1767616391000", "2026-01-05T13:33:11+01:00", "2026-01-05 12:33:11 UTC",
            "2026-01-05T12:33:11",
        )],
        ("2026-01-05T12:33:11.1234567Z", "2026-01-05T12:33:11.123Z"),
        ("2026-01-05", "2026-01-05T00:00:00.000Z"),
        ("300", None), ("", None), ("yesterday", None), ("1e300", None), ("9999-12-31T23:59:59-10:00", None),
    ],
)  # fmt: skip
def test_times(text, time):
    assert to_timestamp(text) == time


def test_text_for_people():
    assert clean("a\x1b[31m\udcff\tb\n") == "a\ufffd[31m\ufffd\tb\n"
    assert shown("x" * 100) == repr("x" * 57 + "...")
