"""The history survives torn lines, full disks, edits and pruning, beside others that read and write it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import StoreError
from lab.journal import Journal

ROOT = Path(__file__).parent.parent
MEND = "mend it, or move it away: what is open in the queue stays"
VALUES = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
EVENTS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=5)


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "history.jsonl")


def size(*events):
    return sum(len(json.dumps(event)) + 1 for event in events)


def python(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_is_appended_is_read_from_any_line_on(journal):
    assert journal.since(None) == journal.since(0) == ([], 0)
    lines = [{"n": 0}, {"n": 1, "text": "é\n"}, {"n": 22}]
    positions = [0]
    for line in lines:
        positions.append(journal.append(positions[-1], [line]))
    assert positions == [size(*lines[:number]) for number in range(4)]
    for number, position in enumerate(positions):
        assert journal.since(position) == (lines[number:], positions[-1])
    assert journal.since(None) == (lines, positions[-1])


@settings(max_examples=50, deadline=None)
@given(st.lists(EVENTS, max_size=4))
def test_any_events_come_back(tmp_path_factory, batches):
    journal, end = Journal(tmp_path_factory.mktemp("journal") / "h"), 0
    for batch in batches:
        end = journal.append(end, batch, wait=False)
    assert journal.since(None) == ([event for batch in batches for event in batch], end)


def test_a_torn_last_line_is_passed_over_and_cut_off_at_every_byte(journal):
    first, torn, after = {"n": 1}, {"text": "a line that was never finished"}, {"n": 2}
    end = journal.append(0, [first])
    whole = journal.path.read_bytes()
    last = json.dumps(torn).encode() + b"\n"
    for length in range(len(last)):
        journal.path.write_bytes(whole + last[:length])
        assert journal.since(0) == ([first], end)
        assert journal.append(end, [after]) == end + size(after)
        assert journal.path.read_bytes() == whole + json.dumps(after).encode() + b"\n"


@pytest.mark.parametrize("header", [b"", b"[]", b"{}", b'{"n": 1}', b"\xff\xfe", b'{"schema": 1}', b"[" * 5000])
def test_a_file_that_is_no_history(journal, header):
    journal.path.write_bytes(header + b"\n")
    for use in (lambda: journal.since(None), lambda: journal.append(0, [{}])):
        with pytest.raises(StoreError) as error:
            use()
        assert str(error.value) == f"{journal.path}: it does not begin as a history does; {MEND}"
    assert journal.path.read_bytes() == header + b"\n"


@pytest.mark.parametrize("header", [b'{"schema": 2, "dropped": 0}\n', b'{"schema": 2, "dropped": 0}'])
def test_a_newer_schema(journal, header):
    journal.path.write_bytes(header)
    with pytest.raises(StoreError) as error:
        journal.since(0)
    assert str(error.value) == f"{journal.path} has schema 2, this version reads 1; use a newer version"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[1]", "no object"),
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"\x00" * 3, "Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_damaged_line_is_named(journal, line, reason):
    end = journal.append(0, [{"n": 1}])
    journal.path.write_bytes(journal.path.read_bytes() + line + b"\n{}\n")
    with pytest.raises(StoreError) as error:
        journal.since(0)
    assert str(error.value) == f"{journal.path}: the line at position {end} is no event ({reason}); {MEND}"
    assert journal.since(end + len(line) + 1) == ([{}], end + len(line) + 4)


@pytest.mark.parametrize("change", [lambda text: text[:-9], lambda text: text.replace(b'"n": 1', b'"n": 100')])
def test_a_history_that_was_cut_or_edited(journal, change):
    end = journal.append(0, [{"n": 1}, {"n": 2}])
    journal.path.write_bytes(change(journal.path.read_bytes()))
    with pytest.raises(StoreError) as error:
        journal.since(end)
    assert str(error.value) == f"{journal.path}: no line starts at position {end}: it was edited or cut; {MEND}"


def test_positions_survive_what_is_dropped(journal):
    lines = [{"n": number} for number in range(4)]
    end = journal.append(0, lines)
    journal.keep([lines[1], lines[3]], end)
    assert journal.since(None) == ([lines[1], lines[3]], end)
    assert journal.since(size(*lines[:3])) == ([lines[3]], end)
    new_end = journal.append(end, [{"n": 44}])
    assert journal.since(end) == ([{"n": 44}], new_end)
    with pytest.raises(StoreError) as error:
        journal.since(0)
    first = end - size(lines[1], lines[3])
    assert str(error.value) == f"{journal.path}: what stood before position {first} was dropped, 0 too"
    journal.keep([], new_end)
    assert journal.since(None) == journal.since(new_end) == ([], new_end)


def test_a_history_that_was_moved_away_goes_on_where_it_was(journal):
    end = journal.append(0, [{"n": 1}])
    journal.path.unlink()
    assert journal.since(end) == ([], end)
    assert journal.append(end, [{"n": 2}]) == end + size({"n": 2})
    assert journal.since(None) == ([{"n": 2}], end + size({"n": 2}))


def test_a_path_that_cannot_be_used(tmp_path):
    (tmp_path / "folder").mkdir()
    journal = Journal(tmp_path / "folder")
    with pytest.raises(StoreError) as error:
        journal.since(None)
    assert str(error.value) == f"cannot read {journal.path}: Is a directory; make it readable"
    with pytest.raises(StoreError) as error:
        journal.append(0, [{}])
    assert str(error.value) == f"cannot write {journal.path}: Is a directory; free space there"


FULL = """
import resource, sys
from pathlib import Path
from lab.errors import StoreError
from lab.journal import Journal
journal = Journal(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    journal.append(int(sys.argv[3]), [{"n": 1}, {"text": "x" * 100}])
except StoreError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="RLIMIT_FSIZE")
@pytest.mark.parametrize("room", [0, 1, 12, 60])
def test_on_a_full_disk_all_lines_are_written_or_none(journal, room):
    end = journal.append(0, [{"n": 0}])
    before = journal.path.read_bytes()
    full = python(FULL, journal.path, len(before) + room, end)
    reason = "the disk is full" if room else "File too large"
    assert full.communicate() == (f"cannot write {journal.path}: {reason}; free space there\n", "")
    assert journal.path.read_bytes() == before
    assert journal.append(end, [{"n": 2}]) == end + size({"n": 2})


WRITE = """
import sys
from pathlib import Path
from lab.journal import Journal
journal, end = Journal(Path(sys.argv[1])), 0
for number in range(int(sys.argv[2])):
    end = journal.append(end, [{"n": number, "text": "x" * (number * 37 % 20000)}], wait=False)
    if number % 100 == 99 and sys.argv[3] == "keep":
        journal.keep([], end)
print("done")
"""


def test_a_reader_beside_a_writer_sees_whole_lines_in_their_order(journal):
    writer, position, seen = python(WRITE, journal.path, 1500, ""), 0, []
    while True:
        over = writer.poll() is not None
        events, position = journal.since(position)
        seen += [event["n"] for event in events]
        if over:
            break
    assert (seen, writer.communicate()) == (list(range(1500)), ("done\n", ""))


def test_whoever_reads_all_of_it_does_not_mind_that_lines_are_dropped(journal):
    writer, reads = python(WRITE, journal.path, 1500, "keep"), 0
    while writer.poll() is None:
        numbers = [event["n"] for event in journal.since(None)[0]]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        reads += 1
    assert (writer.communicate(), journal.since(None)[0], reads > 10) == (("done\n", ""), [], True)


def test_a_killed_writer_leaves_whole_lines(journal):
    for _ in range(5):
        writer = python(WRITE, journal.path, 10**6, "")
        while not journal.since(None)[0]:
            assert writer.poll() is None
        writer.kill()
        writer.communicate()
        events, end = journal.since(None)
        assert [event["n"] for event in events] == list(range(len(events)))
        journal.append(end, [{"n": "after"}])
        assert journal.since(end)[0] == [{"n": "after"}]
        journal.path.unlink()
