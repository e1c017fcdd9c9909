"""lab/datasets.py: what is text, what is left out, and who is validated on, for every kind of data set."""

import ast
import base64
import hashlib
import http.server
import json
import random
import re
import threading
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prepare import ROOT, SEQ, bucket, call_main, machine, refused

import prepare
from lab import datasets

__all__ = ["machine"]  # a fixture every test here uses

# --- documents: builtin --------------------------------------------------------------------------------------------


def write_wheel(site: Path, files: dict[str, str], name: str = "fakewheel") -> None:
    """Install a distribution of these files, with its RECORD."""
    record = []
    for path, source in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(source.encode())
        digest = base64.urlsafe_b64encode(hashlib.sha256(source.encode()).digest()).decode().rstrip("=")
        record.append(f"{path},sha256={digest},{len(source.encode())}")
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("\n".join([*record, f"{info.name}/METADATA,,", f"{info.name}/RECORD,,", ""]))


def prose(seed: str) -> str:
    """A function of 60 lines and of words that no other seed has."""
    noise = random.Random(seed)
    words = ["".join(noise.choices("abcdefghij", k=7)) for _ in range(60)]
    return f"def {words[0]}():\n" + "".join(f"    {word} = {index}\n" for index, word in enumerate(words))


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site folder with the one distribution `builtin` is made of here."""
    files = {f"fakewheel/p{folder}/{file}.py": prose(f"{folder}{file}") for folder in range(60) for file in "ab"}
    files["fakewheel/__init__.py"] = '"""Żółw."""\n'
    for path in ("tests/a", "testing/a", "benchmarks/a", "p1/conftest", "p1/test_a", "p1/tests/deep/a"):
        files[f"fakewheel/{path}.py"] = f"LEFT_OUT = '{path}'\n"
    held_out = next(folder for folder in range(60) if bucket(f"fakewheel/p{folder}", 10) == 0)
    trained_on = next(folder for folder in range(60) if bucket(f"fakewheel/p{folder}", 10) != 0)
    files[f"fakewheel/p{trained_on}/nearly.py"] = prose(f"{held_out}a").replace("= 30\n", "= 31\n")
    files |= {"fakewheel/data.txt": "LEFT_OUT", "otherpackage/a.py": "LEFT_OUT = 1\n"}
    write_wheel(tmp_path / "site", files)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(datasets, "BUILTIN_WHEELS", ("fakewheel",))
    return tmp_path / "site"


def test_builtin_splits_by_folder_and_leaves_tests_and_what_is_validated_on_out(wheel: Path) -> None:
    documents = datasets.builtin()
    train, val = list(documents.train), list(documents.val)
    held_out = {folder for folder in range(60) if bucket(f"fakewheel/p{folder}", 10) == 0}
    assert 0 < len(held_out) < 60
    both = [(folder, file) for folder in range(60) for file in "ab"]
    init = ['"""Żółw."""\n']
    init_is_held_out = bucket("fakewheel", 10) == 0
    expected_val = [prose(f"{folder}{file}") for folder, file in both if folder in held_out]
    expected_train = [prose(f"{folder}{file}") for folder, file in both if folder not in held_out]
    assert sorted(val) == sorted(expected_val + init * init_is_held_out)
    assert sorted(train) == sorted(expected_train + init * (not init_is_held_out))
    assert "LEFT_OUT" not in "".join(train + val)
    again = datasets.builtin()
    assert (list(again.train), list(again.val)) == (train, val)


def damage_wheel(site: Path, how: str) -> None:
    path = site / "fakewheel" / "p7" / "a.py"
    if how == "changed":
        path.write_bytes(path.read_bytes().replace(b"= 7\n", b"= 8\n"))
    elif how == "longer":
        path.write_bytes(path.read_bytes() + b"\n")
    elif how == "deleted":
        path.unlink()
    else:
        record = site / "fakewheel-1.0.dist-info" / "RECORD"
        record.write_text(re.sub(r"(?m)^(fakewheel/p7/a\.py),.*$", r"\1,,", record.read_text()))


@pytest.mark.parametrize("how", ["changed", "longer", "deleted", "without a hash"])
def test_builtin_refuses_other_bytes_than_the_wheels(wheel: Path, how: str, capsys: Any, tmp_path: Path) -> None:
    damage_wheel(wheel, how)
    expected = "builtin: fakewheel/p7/a.py differs from what fakewheel was released with; run `uv sync --reinstall`"
    assert refused(capsys, "--dataset", "builtin") == expected
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["builtin-v512.lock"]


def test_builtin_without_its_wheels(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(datasets, "BUILTIN_WHEELS", ("no-such-wheel",))
    expected = "builtin: the no-such-wheel package is not installed; run `uv sync`"
    assert refused(capsys, "--dataset", "builtin") == expected


def test_builtin_of_another_fingerprint_is_said_aloud(wheel: Path, monkeypatch: Any, capsys: Any) -> None:
    code, out, _ = call_main(capsys, "--dataset", "builtin")
    fingerprint = out.split()[-1]
    assert code == 0
    monkeypatch.setattr(prepare, "BUILTIN_FINGERPRINTS", {512: "0123456789ab"})
    code, out, err = call_main(capsys, "--dataset", "builtin")
    assert (code, out.split()[-1]) == (0, fingerprint)
    assert err == (
        f"note: builtin is {fingerprint} here, 0123456789ab with the pinned packages: "
        "results form a track of their own\n"
    )
    monkeypatch.setattr(prepare, "BUILTIN_FINGERPRINTS", {512: fingerprint})
    assert call_main(capsys, "--dataset", "builtin")[2] == ""


@pytest.mark.slow
def test_builtin_is_the_same_text_everywhere() -> None:
    """The one preparation of the real thing: its fingerprint is pinned with the versions."""
    pins = dict(re.findall(r'"(\w+)==([\d.]+)"', (ROOT / "pyproject.toml").read_text()))
    packages = (*datasets.BUILTIN_WHEELS, "rustbpe", "tiktoken")
    if any(metadata.version(package) != pins[package] for package in packages):
        pytest.skip("other versions are installed than those pinned")
    data = prepare.load_data("builtin", "tiny")
    assert data.fingerprint == prepare.BUILTIN_FINGERPRINTS[512]
    assert len(data.train.tokens) > 10 * len(data.val.tokens) > 10 * 128 * SEQ


def test_split_definitions_cuts_above_decorators_and_comments() -> None:
    header = '"""Doc."""\nimport os\n\n# not about f\n'
    f = "# about f\n# two lines\n@one\n@two(\n    1\n)\ndef f():\n    # inside\n    def inner(): pass\n"
    g = "async def g():\n    pass\n"
    c = "class C:\n    @property\n    def m(self): pass\n\nX = 1\n"
    d = "@one\nasync def d(): pass\n"
    assert datasets.split_definitions("\n".join([header, f, g + c, d])) == [header, f, g, c, d]


def test_split_definitions_of_nothing_and_of_one() -> None:
    assert datasets.split_definitions("") == []
    assert datasets.split_definitions("\n\n") == []
    assert datasets.split_definitions("x = 1") == ["x = 1\n"]
    assert datasets.split_definitions("# first\ndef f(): pass") == ["# first\ndef f(): pass\n"]


SNIPPETS = [
    "import os\n",
    "\n",
    "# a comment\n",
    "x = '''\n\nlines in a string\n'''\n",
    "def f(a=(1,\n2)):\n    return a\n",
    "@decorator\n@another\ndef g(): pass\n",
    "# about\n# h\n@decorator\nasync def h():\n    def inner(): pass\n",
    "class A:\n\n    # inside\n    def m(self): pass\n",
    "if True:\n    def conditional(): pass\n",
    "y = 1\n\f\n\f\n",
    "z = 'line\u2028separator\x85\x1c\x1d\x1e\v'\n",
    "t = 'tail'  # said beside\r\n",
]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(SNIPPETS), max_size=12).map("".join))
def test_split_definitions_keeps_every_line_and_cuts_at_every_definition(source: str) -> None:
    def filled(text: str) -> list[str]:
        return [line.strip() for line in re.split(r"\r?\n", text) if line.strip()]

    pieces = datasets.split_definitions(source)
    assert filled("".join(pieces)) == filled(source)
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for index, piece in enumerate(pieces):
        is_definition = [isinstance(node, definitions) for node in ast.parse(piece).body]
        assert not any(is_definition[1:]), "a definition that begins no document"
        assert index == 0 or is_definition[0]


def test_duplicates_are_dropped_and_order_is_kept() -> None:
    text = prose("a")
    near = text.replace("= 30\n", "= 31\n")  # 5 shingles of 180
    far = text.replace("= 1", "= q").replace("= 2", "= q").replace("= 3", "= q").replace("= 4", "= q")
    other = prose("b")
    assert datasets.drop_duplicates([text, other, near, text, far, other]) == [text, other, far]
    assert datasets.drop_duplicates([near, text]) == [near]
    assert datasets.drop_duplicates([other, near], seen=[text]) == [other]
    assert datasets.drop_duplicates([], seen=[text]) == []


def test_short_documents_are_duplicates_only_when_equal() -> None:
    docs = ["", "a", "b", "a b", "a b c d", "a b c d e", "a b c d f"]
    assert datasets.drop_duplicates([*docs, *docs]) == docs


def jaccard(a: str, b: str) -> float:
    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+|[^\w\s]", text)
        words += [""] * (5 - len(words))
        return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}

    mine, theirs = shingles(a), shingles(b)
    return len(mine & theirs) / len(mine | theirs)


@settings(deadline=None, max_examples=60)
@given(
    docs=st.lists(st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join), max_size=8),
    seen=st.lists(st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join), max_size=4),
)
def test_only_near_duplicates_are_dropped(docs: list[str], seen: list[str]) -> None:
    kept = datasets.drop_duplicates(docs, seen=seen)
    assert len(set(kept)) == len(kept) and not set(kept) & set(seen)
    position = 0
    for text in docs:
        if position < len(kept) and text == kept[position]:
            position += 1
        else:  # dropped: something before it is nearly the same
            assert any(jaccard(text, earlier) >= 0.8 for earlier in [*seen, *kept[:position]])
    assert position == len(kept)


# --- documents: local ----------------------------------------------------------------------------------------------


def local(folder: Path) -> tuple[list[str], list[str]]:
    train, val = datasets.local(folder)
    return list(train), list(val)


def test_local_reads_every_format_and_splits_by_document(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    (folder / "sub").mkdir(parents=True)
    expected = [f"paragraph {index}\n" for index in range(60)]
    for index in range(20):
        (folder / "sub" / f"{index}.txt").write_text(expected[index])
    (folder / "a.md").write_text("# Żółw\n\nwords\n")
    (folder / "b.py").write_text("import os\ndef f(): pass\n")
    (folder / "c.py").write_text("this is no Python\n\ndef f(): pass\n")
    lines = [json.dumps(text if index % 2 else {"text": text, "n": 1}) for index, text in enumerate(expected[20:40])]
    (folder / "d.jsonl").write_text("\n".join(["", *lines, "   ", '{"text": ""}', '" "', ""]))
    table = pa.table({"id": [*range(22)], "text": [*expected[40:], "", None]})
    pq.write_table(table, folder / "e.parquet", row_group_size=7)
    (folder / "f.html").write_text("left out")
    expected += ["# Żółw\n\nwords\n", "import os\n", "def f(): pass\n", "this is no Python\n\ndef f(): pass\n"]
    train, val = local(folder)
    assert sorted(train) == sorted(text for text in expected if bucket(text, 20) != 0)
    assert sorted(val) == sorted(text for text in expected if bucket(text, 20) == 0)
    assert val and local(folder) == (train, val)


def test_local_cuts_long_text_at_blank_lines(tmp_path: Path) -> None:
    noise = random.Random(0)
    text = "".join(f"line {index}\n" + "\n" * noise.choice([0, 0, 0, 1, 3]) for index in range(40_000))
    (tmp_path / "long.txt").write_text(text)
    train, val = local(tmp_path)
    filled = [line for line in text.split("\n") if line]
    paragraphs = set(re.split("\n\n+", text.rstrip("\n")))
    for piece in train + val:
        assert set(re.split("\n\n+", piece.rstrip("\n"))) <= paragraphs
        assert len(piece) < 10_000
    assert sorted(line for piece in train + val for line in piece.split("\n") if line) == sorted(filled)


def jsonl(*lines: str) -> str:
    return "\n".join([*(json.dumps(f"good document {index}") for index in range(100)), *lines])


@pytest.mark.parametrize(
    "line",
    ['{"text": "cut', '{"title": "a"}', "7", "null", '["a"]', '{"text": 7}', '{"text": null}', r'"half \ud800 pair"'],
)
def test_bad_jsonl_line(tmp_path: Path, capsys: Any, line: str) -> None:
    path = tmp_path / "text" / "bad.jsonl"
    path.parent.mkdir()
    path.write_text(jsonl(line))
    expected = f'{path}:101: not a JSON string or an object with "text"; mend the line'
    assert refused(capsys, "--dataset", f"local:{path.parent}") == expected


def test_jsonl_lines_end_where_json_says(tmp_path: Path) -> None:
    """U+2028 and U+0085 are line ends for str.splitlines, and ordinary characters inside a JSON string."""
    strange = "one\u2028two\u2029three\x85four"
    (tmp_path / "a.jsonl").write_text(jsonl(json.dumps({"text": strange}, ensure_ascii=False)) + "\r\n", "utf-8")
    train, val = local(tmp_path)
    assert strange in train + val and len(train + val) == 101


def test_text_that_is_not_utf8(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "text" / "latin1.txt"
    path.parent.mkdir()
    path.write_bytes(b"caf\xe9 au lait")
    assert refused(capsys, "--dataset", f"local:{path.parent}") == (
        f"{path}: cannot be read as UTF-8 text ('utf-8' codec can't decode byte 0xe9 in position 3: "
        "invalid continuation byte); mend or remove the file"
    )


def test_python_that_python_cannot_parse_is_text(tmp_path: Path) -> None:
    for index in range(100):
        (tmp_path / f"{index}.py").write_text(f"x = {index}\n")
    (tmp_path / "nul.py").write_text("x = '\0'\n")
    train, val = local(tmp_path)
    assert "x = '\0'\n" in train + val


@pytest.mark.parametrize("kind", ["garbage", "empty", "no text column"])
def test_parquet_that_cannot_be_read(tmp_path: Path, capsys: Any, kind: str) -> None:
    path = tmp_path / "text" / "bad.parquet"
    path.parent.mkdir()
    if kind == "no text column":
        pq.write_table(pa.table({"body": ["a"]}), path)
    else:
        path.write_bytes(b"garbage, and not a little" * (kind == "garbage"))
    line = refused(capsys, "--dataset", f"local:{path.parent}")
    assert re.fullmatch(
        rf"{re.escape(str(path))}: cannot be read as parquet with a text column \(.+\); remove it and prepare again",
        line,
    )


def test_local_folder_that_is_missing_empty_or_too_small(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "text"
    name = f"local:{folder}"
    missing = f"{name}: there is no such folder; name one with .txt, .md, .py, .jsonl, .parquet files"
    assert refused(capsys, "--dataset", name) == missing
    folder.mkdir()
    few = "documents are too few to split into training and validation text"
    assert refused(capsys, "--dataset", name) == f"{name}: 0 {few}"
    (folder / "one.txt").write_text("one document")
    assert refused(capsys, "--dataset", name) == f"{name}: 1 {few}"
    (folder / "many.jsonl").write_text(jsonl())
    line = refused(capsys, "--dataset", name)
    assert re.fullmatch(r"the text is enough for \d+ of 511 tokens: use more text or a smaller vocabulary", line)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_one_relative_name_in_two_places_is_two_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    for name in ("a", "b"):
        (tmp_path / name / "text").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        places.append(prepare.prepared_dir("local:text", 512))
    assert places[0] != places[1]


# --- documents: downloads ------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served over HTTP as the place downloads come from."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AUTORESEARCH_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        yield folder
        server.shutdown()


def test_climbmix_validates_on_the_pinned_last_shard(server: Path) -> None:
    for index in (0, 1, 2, 6542):
        pq.write_table(pa.table({"text": [f"document {index}", ""]}), server / f"shard_{index:05d}.parquet")
    for _ in range(2):  # downloaded, then found
        documents = datasets.climbmix(prepare.cache_dir() / "downloads", num_shards=2, workers=2)
        assert list(documents.train) == list(documents.train) == ["document 0", "document 1"]
        assert list(documents.val) == ["document 6542"]


@pytest.mark.parametrize("shards", [0, -2, 6543])
def test_number_of_shards(capsys: Any, shards: int) -> None:
    expected = f"--num-shards {shards}: give 1 to 6542, or -1 for all"
    assert refused(capsys, "--dataset", "climbmix", "--num-shards", str(shards)) == expected


def test_corrupt_shard(server: Path, capsys: Any, tmp_path: Path) -> None:
    noise = random.Random(0)
    for index in (0, 6542):
        table = pa.table({"text": [noise.randbytes(99).hex() for _ in range(99)]})
        pq.write_table(table, server / f"shard_{index:05d}.parquet")
    path = server / "shard_00000.parquet"
    path.write_bytes(path.read_bytes()[:4] + bytes(2000) + path.read_bytes()[2004:])
    code, out, err = call_main(capsys, "--dataset", "climbmix", "--num-shards", "1")
    assert (code, out) == (2, "")
    line = err.splitlines()[-1]  # what was downloaded is said before
    shard = tmp_path / "cache" / "downloads" / "climbmix" / "shard_00000.parquet"
    why = r"cannot be read as parquet with a text column \(.+\); remove it and prepare again"
    assert re.fullmatch(rf"error: {re.escape(str(shard))}: {why}", line)
    assert not (tmp_path / "cache" / "climbmix-v512").exists()


def test_tinystories_sends_one_story_in_fifty_to_validation(server: Path) -> None:
    stories = [f"Once upon a time there was a number {index}." for index in range(500)]
    pq.write_table(pa.table({"text": stories}), server / "tinystories_gpt4_clean.parquet", row_group_size=100)
    documents = datasets.tinystories(prepare.cache_dir() / "downloads", workers=1)
    assert list(documents.val) == [story for story in stories if bucket(story, 50) == 0] != []
    assert list(documents.train) == [story for story in stories if bucket(story, 50) != 0]
