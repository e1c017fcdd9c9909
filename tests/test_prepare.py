"""prepare.py: text, tokenizer, cache, loader, metric and clock, each against an oracle that is slow and plain.

Processes are real: a parent imports prepare.py once and forks a child for every command line, so that kill -9, a full
disk and two at once cost milliseconds. Downloads have tests/test_download.py; only their wiring is tested here.
"""

import ast
import contextlib
import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prepare
from lab.datasets import documents
from lab.errors import DataError, SettingError

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
BOS = 511  # of the tiny preset
SEQ = 64
SPLITS = ("train", "val", "hidden")
FILES = ("tokenizer.json", "token_bytes.npy", *(f"{split}.{end}" for split in SPLITS for end in ("bin", "npy")))
STDLIB = ("textwrap", "shlex", "string", "heapq", "bisect", "fnmatch", "glob", "queue", "sched", "csv", "cmd", "copy")
STDLIB += ("configparser", "calendar", "numbers", "pprint", "reprlib", "stat", "tempfile", "contextlib")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a CPU, an empty cache and no settings but the smallest preset."""
    for name in [name for name in os.environ if name.startswith("AUTORESEARCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "cpu")
    monkeypatch.setenv("AUTORESEARCH_PRESET", "tiny")


def call_main(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `prepare.py ARGS`, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prepare.py", *args])
        code = 0
        try:
            prepare.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line on stderr with which `prepare.py ARGS` exits with code 2."""
    code, out, err = call_main(capsys, *args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1
    return err.removeprefix("error: ").removesuffix("\n")


def bucket(text: str, buckets: int) -> int:
    """Where the stable split sends a text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % buckets


# --- real processes ----------------------------------------------------------------------------------------------

PARENT = """
import json, os, resource, sys, traceback
import filelock, pyarrow.parquet, rustbpe, tiktoken
import prepare
for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        print(os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1]), flush=True)
    elif pid := os.fork():
        print(pid, flush=True)
    else:
        for fd, name in ((0, os.devnull), (1, job["out"]), (2, job["err"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), fd)
        os.environ.update(job["env"])
        if job["fsize"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["fsize"], job["fsize"]))
        sys.argv = ["prepare.py", *job["args"]]
        code = 0
        try:
            prepare.main()
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""


class Child:
    """A running `prepare.py ARGS`."""

    def __init__(self, ask: Callable[[dict[str, Any]], int], args: list[str], cache: Path, fsize: int) -> None:
        handle, self.out = tempfile.mkstemp()
        os.close(handle)
        handle, self.err = tempfile.mkstemp()
        os.close(handle)
        env = {"AUTORESEARCH_CACHE": str(cache)}
        self.ask = ask
        self.pid = ask({"args": args, "env": env, "fsize": fsize, "out": self.out, "err": self.err})

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        code = self.ask({"wait": self.pid})
        out, err = Path(self.out), Path(self.err)
        result = code, out.read_text(), err.read_text()
        out.unlink()
        err.unlink()
        return result


Start = Callable[..., Child]


@pytest.fixture(scope="session")
def start() -> Iterator[Start]:
    """start(*args, cache=PATH, fsize=0): a process of its own that runs `prepare.py ARGS`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")}
    env |= {"AUTORESEARCH_DEVICE": "cpu", "AUTORESEARCH_PRESET": "tiny", "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, env=env, **pipes) as parent:

        def ask(job: dict[str, Any]) -> int:
            parent.stdin.write(json.dumps(job) + "\n")
            parent.stdin.flush()
            return int(parent.stdout.readline())

        yield lambda *args, cache, fsize=0: Child(ask, list(args), cache, fsize)
        parent.stdin.close()


# --- one small prepared data set -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`local:PATH` of about 300 kB of the standard library's source, in every format that is read."""
    folder = tmp_path_factory.mktemp("corpus")
    library = Path(os.__file__).parent
    sources = [(library / f"{name}.py").read_text("utf-8") for name in STDLIB]
    (folder / "deep" / "er").mkdir(parents=True)
    for index, source in enumerate(sources[:-4]):
        (folder / "deep" / f"module{index}.py").write_text(source)
    (folder / "one.txt").write_text(sources[-4])
    (folder / "two.md").write_text(sources[-3])
    pieces = [piece for piece in sources[-2].split("\n\n\n") if piece.strip()]
    lines = [json.dumps({"text": piece} if index % 2 else piece) for index, piece in enumerate(pieces)]
    (folder / "deep" / "er" / "three.jsonl").write_text("\n".join(lines))
    pq.write_table(pa.table({"text": sources[-1].split("\n\n\n")}), folder / "four.parquet")
    (folder / "ignored.bin").write_bytes(b"\xff\xfe")
    return f"local:{folder}"


@pytest.fixture(scope="session")
def shared_cache(corpus: str, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which `corpus` is prepared. Read it; copy it to damage it."""
    cache = tmp_path_factory.mktemp("cache")
    code, out, err = start("--dataset", corpus, cache=cache).wait()
    assert (code, err) == (0, "")
    assert re.fullmatch(
        rf"prepared {re.escape(corpus)} in \d+ s: "
        rf"{re.escape(str(cache))}/local-\w{{8}}-v512\n"
        rf"ready: {re.escape(corpus)}, vocabulary 512, \d+,\d+ training tokens, fingerprint [0-9a-f]{{12}}\n",
        out,
    )
    return cache


def load_from(cache: Path, dataset: str) -> prepare.Data:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", str(cache))
        return prepare.load_data(dataset, "tiny")


@pytest.fixture(scope="session")
def good(shared_cache: Path, corpus: str) -> prepare.Data:
    """`corpus` as it is loaded when nothing is wrong."""
    return load_from(shared_cache, corpus)


def assert_same(data: prepare.Data, other: prepare.Data) -> None:
    assert data.fingerprint == other.fingerprint
    assert np.array_equal(data.token_bytes, other.token_bytes)
    for mine, theirs in ((data.train, other.train), (data.val, other.val)):
        assert np.array_equal(mine.tokens, theirs.tokens)
        assert np.array_equal(mine.offsets, theirs.offsets)


@pytest.fixture
def copy(shared_cache: Path, corpus: str, tmp_path: Path) -> Path:
    """The folder of `corpus` in this test's own cache, to be damaged."""
    shutil.copytree(shared_cache, tmp_path / "cache")
    return prepare.prepared_dir(corpus, 512)


# --- tokenizer -----------------------------------------------------------------------------------------------------

HOSTILE = [
    "<|bos|>",
    "a<|bos|><|bos|>b",
    "<|endoftext|>",
    "\0\x01\x7f\x85\u2028\ufeff\ufffe",
    "  \t\r\n\n \r",
    "e\u0301\u200d\u202e\U0001f469\u200d\U0001f680",
    "'LL 'll 1234567 \u0661\u0662\u0663",
    " " * 3000 + "x" + "\n" * 300,
]


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.text() | st.sampled_from(HOSTILE), max_size=8))
def test_stored_tokens_decode_to_the_text(good: prepare.Data, texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        tokens_path, offsets_path = Path(name, "a.bin"), Path(name, "a.npy")
        prepare.write_tokens(texts, good.encoding, tokens_path, offsets_path)
        tokens, offsets = np.fromfile(tokens_path, np.uint16), np.load(offsets_path)
    assert offsets[0] == 0 and offsets[-1] == len(tokens) and len(offsets) == len(texts) + 1
    for text, begin, end in zip(texts, offsets[:-1], offsets[1:], strict=True):
        bos, ids = tokens[begin], tokens[begin + 1 : end].tolist()
        assert bos == BOS and BOS not in ids
        assert good.encoding.decode(ids) == text
        assert good.token_bytes[ids].sum() == len(text.encode())


def test_hostile_texts_are_plain_text(good: prepare.Data) -> None:
    for text in HOSTILE:
        assert good.encoding.decode(good.encoding.encode(text, disallowed_special=())) == text
    assert good.token_bytes[BOS] == 0 and (good.token_bytes[:BOS] > 0).all()


def test_prepared_folder_is_json_arrays_and_tokens(shared_cache: Path, corpus: str, good: prepare.Data) -> None:
    (folder,) = [path for path in shared_cache.iterdir() if path.is_dir()]
    files = {"manifest.json", *FILES}
    assert {path.name for path in folder.iterdir()} == files
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    assert tokenizer["special"] == {"<|bos|>": BOS} and tokenizer["pattern"] == prepare.SPLIT_PATTERN
    assert len(tokenizer["tokens"]) == 511 and len(set(tokenizer["tokens"])) == 511
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["dataset"], manifest["vocab_size"], manifest["version"]) == (corpus, 512, 2)
    assert set(manifest["files"]) == files - {"manifest.json"}
    for name, facts in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_no_pickle_is_written_or_read() -> None:
    words = {"pickle", "cPickle", "_pickle", "dill", "joblib", "shelve", "marshal", "allow_pickle"}
    for node in ast.walk(ast.parse((ROOT / "prepare.py").read_text())):
        names = {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()
        names |= {node.module.split(".")[0]} if isinstance(node, ast.ImportFrom) and node.module else set()
        names |= {node.arg} if isinstance(node, ast.keyword) and node.arg else set()
        assert not names & words
        assert not (isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"))


def test_every_fourth_validation_document_is_hidden(
    shared_cache: Path, corpus: str, good: prepare.Data, monkeypatch: Any
) -> None:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(shared_cache))
    hidden = prepare.load_hidden(good)
    texts = [*documents(corpus, shared_cache, 1, 1).val]
    kept = [text for index, text in enumerate(texts) if index % 4 != 3]
    assert len(texts) >= 4
    for split, expected in ((good.val, kept), (hidden, texts[3::4])):
        pairs = zip(split.offsets[:-1], split.offsets[1:], strict=True)
        assert [good.encoding.decode(split.tokens[begin + 1 : end].tolist()) for begin, end in pairs] == expected


def test_few_validation_documents_leave_nothing_hidden(tmp_path: Path) -> None:
    texts = [f"words of line {index} " + "".join(map(chr, range(33, 400))) for index in range(40)]
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "all.jsonl").write_text("\n".join(map(json.dumps, texts)))
    data = prepare.load_data(f"local:{tmp_path / 'text'}", "tiny")
    assert len(data.val.offsets) - 1 in (1, 2, 3)
    hidden = prepare.load_hidden(data)
    assert (len(hidden.tokens), hidden.offsets.tolist()) == (0, [0])


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickle_in_an_npy_file_is_not_executed(copy: Path, corpus: str, tmp_path: Path) -> None:
    np.save(copy / "train.npy", np.array([Bomb(tmp_path / "exploded")], object), allow_pickle=True)
    manifest = json.loads((copy / "manifest.json").read_text())
    data = (copy / "train.npy").read_bytes()
    manifest["files"]["train.npy"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises((DataError, ValueError)):
        prepare.load_data(corpus, "tiny")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("size", [-1, 0, 256, 65_536, 100_000])
def test_vocabulary_that_does_not_fit(size: int) -> None:
    with pytest.raises(SettingError) as error:
        prepare.train_tokenizer(["some text"], size)
    assert str(error.value) == f"vocabulary of {size}: tokens are stored as uint16, give 257 to 65,535"


def test_smallest_vocabulary_is_the_bytes() -> None:
    tokenizer = prepare.train_tokenizer(["some text"], 257)
    assert tokenizer["tokens"] == [f"{byte:02x}" for byte in range(256)] and tokenizer["special"] == {"<|bos|>": 256}
    text = "żółw <|bos|>"
    assert prepare.make_encoding(tokenizer).encode(text, disallowed_special=()) == list(text.encode())


def test_too_little_text_for_the_vocabulary() -> None:
    with pytest.raises(DataError) as error:
        prepare.train_tokenizer(["aaaa bb"], 512)
    assert str(error.value) == "the text is enough for 260 of 511 tokens: use more text or a smaller vocabulary"


# --- prepare: interrupted, at once, damaged, full ------------------------------------------------------------------


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} if cache.exists() else set()


def test_kill_at_any_moment_never_leaves_a_folder_that_loads_wrongly(
    start: Start, corpus: str, good: prepare.Data, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    folder = prepare.prepared_dir(corpus, 512)
    unfinished = folder.with_name(folder.name + ".partial")
    began = time.perf_counter()
    assert start("--dataset", corpus, cache=cache).wait()[0] == 0
    whole = time.perf_counter() - began
    noise = random.Random(0)
    moments: list[float | str] = [noise.uniform(0, whole) for _ in range(8)]
    moments += ["tokenizer.json", "train.bin", "train.npy", "hidden.npy", "manifest.json"]
    for moment in moments:
        shutil.rmtree(folder, ignore_errors=True)
        child = start("--dataset", corpus, cache=cache)
        if isinstance(moment, float):
            time.sleep(moment)
        else:
            while not ((unfinished / moment).exists() or folder.exists()):
                pass
        child.kill()
        assert names(cache) <= {folder.name, unfinished.name, folder.name + ".lock"}
        if folder.exists():
            assert_same(load_from(cache, corpus), good)
    shutil.rmtree(folder, ignore_errors=True)
    assert start("--dataset", corpus, cache=cache).wait()[0] == 0
    assert names(cache) == {folder.name, folder.name + ".lock"}
    assert_same(load_from(cache, corpus), good)


def test_processes_at_once_prepare_once(start: Start, corpus: str, good: prepare.Data, tmp_path: Path) -> None:
    children = [start("--dataset", corpus, cache=tmp_path) for _ in range(3)]
    results = [child.wait() for child in children]
    assert [(code, err) for code, _, err in results] == [(0, "")] * 3
    assert sorted(out.count("prepared ") for _, out, _ in results) == [0, 0, 1]
    assert len({out.splitlines()[-1] for _, out, _ in results}) == 1
    assert_same(load_from(tmp_path, corpus), good)


def test_who_waits_goes_on_when_the_other_is_killed(
    start: Start, corpus: str, good: prepare.Data, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = start("--dataset", corpus, cache=cache)
    while not any(name.endswith((".partial", "-v512")) for name in names(cache)):
        pass
    second = start("--dataset", corpus, cache=cache)
    first.kill()
    code, _, err = second.wait()
    assert (code, err) == (0, "")
    assert_same(load_from(cache, corpus), good)


@pytest.mark.parametrize("fsize", [1000, 20_000], ids=["at the tokenizer", "at the tokens"])
def test_full_disk(start: Start, corpus: str, good: prepare.Data, tmp_path: Path, fsize: int) -> None:
    cache = tmp_path / "cache"
    folder = prepare.prepared_dir(corpus, 512)
    code, out, err = start("--dataset", corpus, cache=cache, fsize=fsize).wait()
    assert (code, out) == (2, "")
    assert err == f"error: {folder}: cannot be written (File too large); free space or set AUTORESEARCH_CACHE\n"
    assert names(cache) == {folder.name + ".lock"}
    assert start("--dataset", corpus, cache=cache).wait()[0] == 0
    assert_same(load_from(cache, corpus), good)


def test_cache_that_is_no_folder(corpus: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "cache").write_text("a file")
    folder = prepare.prepared_dir(corpus, 512)
    expected = f"{folder}: cannot be written (File exists); free space or set AUTORESEARCH_CACHE"
    assert refused(capsys, "--dataset", corpus) == expected


def flip(path: Path, at: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "first bit": lambda path: flip(path, 0),
    "last bit": lambda path: flip(path, path.stat().st_size - 1, 128),
    "replaced": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_of_the_cache(copy: Path, corpus: str, capsys: Any, name: str, damage: str) -> None:
    DAMAGES[damage](copy / name)
    expected = f"{copy / name}: not the file that was prepared; delete {copy} and run `uv run prepare.py` again"
    assert refused(capsys, "--dataset", corpus) == expected


@pytest.mark.parametrize("name", FILES)
def test_deleted_file_of_the_cache(copy: Path, corpus: str, capsys: Any, name: str) -> None:
    (copy / name).unlink()
    assert refused(capsys, "--dataset", corpus) == (
        f"{copy}: the prepared data is damaged ([Errno 2] No such file or directory: '{copy / name}'); "
        f"delete {copy} and run `uv run prepare.py` again"
    )


def test_folder_without_a_manifest_is_prepared_again(
    copy: Path, corpus: str, good: prepare.Data, start: Start, tmp_path: Path
) -> None:
    (copy / "manifest.json").unlink()
    (copy / "train.bin").write_text("damaged too")
    assert start("--dataset", corpus, cache=tmp_path / "cache").wait()[0] == 0
    assert_same(prepare.load_data(corpus, "tiny"), good)


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "not an object": lambda facts: [facts],
    "null": lambda facts: None,
    "no version": lambda facts: {k: v for k, v in facts.items() if k != "version"},
    "no files": lambda facts: {k: v for k, v in facts.items() if k != "files"},
    "no fingerprint": lambda facts: {k: v for k, v in facts.items() if k != "fingerprint"},
    "no vocabulary": lambda facts: {k: v for k, v in facts.items() if k != "vocab_size"},
    "files not an object": lambda facts: facts | {"files": [*facts["files"]]},
    "file not an object": lambda facts: facts | {"files": facts["files"] | {"val.bin": 7}},
    "other fingerprint": lambda facts: facts | {"fingerprint": "0123456789ab"},
    "file forgotten": lambda facts: facts | {"files": {k: v for k, v in facts["files"].items() if k != "val.bin"}},
}


@pytest.mark.parametrize("command", ["prepare", "status"])
@pytest.mark.parametrize("kind", [*MANIFESTS, "no JSON", "not UTF-8", "empty"])
def test_damaged_manifest(copy: Path, corpus: str, capsys: Any, kind: str, command: str) -> None:
    path = copy / "manifest.json"
    if kind in MANIFESTS:
        path.write_text(json.dumps(MANIFESTS[kind](json.loads(path.read_text()))))
    else:
        path.write_bytes({"no JSON": path.read_bytes()[:-5], "not UTF-8": b"\xff", "empty": b""}[kind])
    code, out, err = call_main(capsys, *(["--dataset", corpus] if command == "prepare" else ["--status"]))
    assert (code, out) == (2, "" if command == "prepare" else f"cache: {copy.parent}\n")
    remedy = f"delete {copy} and run `uv run prepare.py` again"
    where = re.escape(str(copy))
    assert re.fullmatch(rf"error: {where}: the prepared data is damaged \(.+\); {re.escape(remedy)}\n", err)


@pytest.mark.parametrize("version", [1, 3, "2"])
def test_what_another_version_prepared_is_prepared_again(
    copy: Path, corpus: str, good: prepare.Data, capsys: Any, version: object
) -> None:
    path = copy / "manifest.json"
    (copy / "hidden.bin").unlink()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))
    code, out, err = call_main(capsys, "--status")
    said = f"{copy.name}: prepared by another version of prepare.py, and again when it is needed"
    assert (code, out, err) == (0, f"cache: {copy.parent}\n{said}\n", "")
    assert_same(prepare.load_data(corpus, "tiny"), good)
    assert json.loads(path.read_text())["version"] == 2


def test_flipped_bit_in_the_manifest_is_refused_or_does_not_matter(copy: Path, corpus: str, good: prepare.Data) -> None:
    path = copy / "manifest.json"
    whole = path.read_bytes()
    noise = random.Random(0)
    for at in noise.sample(range(len(whole)), 150):
        flip(path, at, 1 << noise.randrange(8))
        with contextlib.suppress(DataError):
            assert_same(prepare.load_data(corpus, "tiny"), good)
        path.write_bytes(whole)


def test_unknown_data_set(capsys: Any, tmp_path: Path) -> None:
    expected = "data set 'pile': there is no such name; choose climbmix, tinystories, builtin or local:PATH"
    assert refused(capsys, "--dataset", "pile") == expected
    assert not (tmp_path / "cache").exists()


def test_unknown_preset(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_PRESET", "huge")
    expected = "AUTORESEARCH_PRESET=huge: there is no such preset; choose one of gpu, small, tiny"
    assert refused(capsys, "--dataset", "builtin") == expected


def test_status(start: Start, corpus: str, good: prepare.Data, copy: Path, capsys: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    downloads = cache / "downloads" / "climbmix"
    downloads.mkdir(parents=True)
    (downloads / "shard_00000.parquet").write_bytes(bytes(20_000_000))
    (downloads / "shard_00001.parquet.part").write_bytes(b"")
    code, out, err = call_main(capsys, "--status")
    assert (code, err) == (0, "")
    assert out == (
        f"cache: {cache}\n"
        f"{corpus}: vocabulary 512, {len(good.train.tokens):,} training and {len(good.val.tokens):,} "
        f"validation tokens, fingerprint {good.fingerprint}\n"
        "climbmix: 1 files downloaded, 0.02 GB\n"
    )
    nowhere = tmp_path / "nowhere"
    code, out, err = start("--status", cache=nowhere).wait()
    nothing = "nothing is prepared yet; train.py would prepare builtin for the preset tiny\n"
    assert (code, out, err) == (0, f"cache: {nowhere}\n{nothing}", "")
    assert not nowhere.exists()


def test_defaults_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare.default_dataset("tiny") == "builtin"
    for name in ("tinystories", "climbmix"):  # what was prepared is preferred, climbmix most
        (tmp_path / "cache" / f"{name}-v512").mkdir(parents=True)
        (tmp_path / "cache" / f"{name}-v512" / "manifest.json").write_text("{}")
        assert prepare.default_dataset("tiny") == name
        assert prepare.default_dataset("small") == "builtin"
    monkeypatch.setenv("AUTORESEARCH_DATASET", "local:/text")
    assert prepare.default_dataset("tiny") == "local:/text"
    assert prepare.default_preset() == "tiny"
    monkeypatch.delenv("AUTORESEARCH_PRESET")
    assert prepare.default_preset() == "small"
    monkeypatch.delenv("AUTORESEARCH_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepare.cache_dir() == tmp_path / ".cache" / "autoresearch-commons"


# --- loader --------------------------------------------------------------------------------------------------------

Piece = tuple[int, int, int]
Row = list[tuple[int, int]]


def plain_pack(pieces: list[Piece], row_tokens: int, buffer: int) -> tuple[list[Row], list[int], list[Piece], Row]:
    """Best fit by looking at every buffered piece.

    Returns the rows, how many tokens each cropped, the cropped pieces as (start, length, kept), and the last row that
    was not filled.
    """
    queue, waiting = list(pieces), []
    rows, lost, tails = [], [], []
    while True:
        row: Row = []
        room, cropped = row_tokens, 0
        while room:
            while queue and len(waiting) < buffer:
                waiting.append(queue.pop(0)[:2])
            if not waiting:
                return rows, lost, tails, row
            lengths = [length for _, length in waiting]
            wanted = max([length for length in lengths if length <= room] or [min(lengths)])
            start, length = waiting.pop(lengths.index(wanted))  # the first of equals
            taken = min(length, room)
            row.append((start, taken))
            room -= taken
            if taken < length:
                tails.append((start, length, taken))
                cropped += length - taken
        rows.append(row)
        lost.append(cropped)


def make_split(documents: list[list[int]], bos: int = BOS) -> prepare.Split:
    tokens = np.array([token for document in documents for token in [bos, *document]], np.uint16)
    return prepare.Split(tokens, np.cumsum([0] + [len(document) + 1 for document in documents]).astype(np.int64))


def make_data(train: list[list[int]], val: list[list[int]]) -> prepare.Data:
    noise = np.random.default_rng(0)
    token_bytes = np.append(noise.integers(1, 9, BOS), 0).astype(np.int32)
    return prepare.Data("local:made", "tiny", "0123456789ab", None, token_bytes, make_split(train), make_split(val))


def random_documents(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    noise = np.random.default_rng(seed)
    return [noise.integers(0, BOS, noise.integers(1, longest)).tolist() for _ in range(count)]


def plain_row(row: Row, tokens: np.ndarray, bos: int = BOS) -> list[int]:
    """The row's tokens, piece by piece."""
    out: list[int] = []
    for start, length in row:
        stored = tokens[start : start + length].tolist()
        out += stored if stored[0] == bos else [bos, *stored[: length - 1]]
    return out


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_packing_is_best_fit(data: st.DataObject) -> None:
    row_tokens = data.draw(st.integers(1, 20))
    buffer = data.draw(st.integers(1, 8))
    lengths = data.draw(st.lists(st.integers(1, row_tokens), max_size=60))
    pieces = [(1000 * index, length, 1 + index // 7) for index, length in enumerate(lengths)]
    rows, lost, _, _ = plain_pack(pieces, row_tokens, buffer)
    packed = list(prepare.pack(iter(pieces), row_tokens, buffer))
    assert [row for row, _, _ in packed] == rows
    assert [cropped for _, _, cropped in packed] == lost
    assert all(sum(length for _, length in row) == row_tokens for row in rows)
    epochs = [epoch for _, epoch, _ in packed]
    assert epochs == sorted(epochs) and set(epochs) <= {epoch for _, _, epoch in pieces}


@settings(deadline=None, max_examples=100)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=25),
    row_tokens=st.integers(2, 17),
    buffer=st.integers(1, 9),
    seed=st.none() | st.integers(0, 9),
)
def test_every_token_of_an_epoch_is_in_a_row_or_cropped_or_left(
    lengths: list[int], row_tokens: int, buffer: int, seed: int | None
) -> None:
    """Every stored token has a number of its own here, so rows show where each one went."""
    bos = 65_000
    numbers = iter(range(65_000))
    split = make_split([[next(numbers) for _ in range(length - 1)] for length in lengths], bos)
    pieces = []
    for piece in prepare.pieces(split, row_tokens, seed):
        if piece[2] > 1:
            break
        pieces.append(piece)
    assert all(1 <= length <= row_tokens for _, length, _ in pieces)
    packed = list(prepare.pack(iter(pieces), row_tokens, buffer))
    seen: list[int] = []
    for row, epoch, _ in packed:
        out = np.full(row_tokens, 65_535, np.uint16)
        prepare.fill(out, row, split.tokens, bos)
        assert out.tolist() == plain_row(row, split.tokens, bos)
        assert out[0] == bos and 65_535 not in out and epoch == 1
        at = 0
        for _, length in row:  # a continuation has a BOS too
            assert out[at] == bos
            at += length
        seen += [token for token in out.tolist() if token != bos]
    _, _, tails, unfinished = plain_pack(pieces, row_tokens, buffer)

    def stored(start: int, length: int) -> list[int]:
        return plain_row([(start, length)], split.tokens, bos)

    cropped = [token for start, length, taken in tails for token in stored(start, length)[taken:]]
    assert len(cropped) == sum(lost for _, _, lost in packed)
    left = [token for start, length in unfinished for token in stored(start, length) if token != bos]
    assert sorted(seen + cropped + left) == list(range(sum(lengths) - len(lengths)))


def first_epochs(split: prepare.Split, seed: int, count: int) -> list[list[int]]:
    epochs: list[list[int]] = [[] for _ in range(count)]
    for start, _, epoch in prepare.pieces(split, SEQ + 1, seed):
        if epoch > count:
            return epochs
        epochs[epoch - 1].append(start)
    raise AssertionError("training data ended")


def test_epochs_are_shuffled_differently_and_each_is_whole() -> None:
    split = make_split(random_documents(200, 150))
    in_order = [start for start, _, _ in prepare.pieces(split, SEQ + 1, None)]
    one, two, three = first_epochs(split, 7, 3)
    assert sorted(one) == sorted(two) == sorted(three) == in_order
    assert len({tuple(order) for order in (one, two, three, first_epochs(split, 8, 1)[0], in_order)}) == 5
    assert first_epochs(split, 7, 3) == [one, two, three]


def test_loader_gives_the_rows_of_the_oracle() -> None:
    noise = np.random.default_rng(0)
    documents = [noise.integers(0, BOS, size).tolist() for size in noise.integers(30, SEQ, 3000)]  # gaps that none fits
    data = make_data(documents, random_documents(1, 9))
    batch_size, count = 5, 30
    stream = prepare.pieces(data.train, SEQ + 1, 3)
    rows, lost, _, _ = plain_pack([next(stream) for _ in range(2500)], SEQ + 1, prepare.PACKING_BUFFER_DOCS)
    loader = prepare.Loader(data, batch_size, CPU, seed=3)
    assert iter(loader) is loader
    for index in range(count):
        x, y, epoch = next(loader)
        assert x.shape == y.shape == (batch_size, SEQ) and x.dtype == y.dtype == torch.int64 and epoch == 1
        wanted = [plain_row(row, data.train.tokens) for row in rows[index * batch_size : (index + 1) * batch_size]]
        assert torch.cat([x, y[:, -1:]], 1).tolist() == wanted
        assert torch.equal(x[:, 1:], y[:, :-1]) and (x[:, 0] == BOS).all()
    used, cropped = count * batch_size * (SEQ + 1), sum(lost[: count * batch_size])
    assert cropped > 0 and loader.utilisation == used / (used + cropped)


def test_loader_repeats_for_a_seed_and_begins_at_a_position() -> None:
    data = make_data(random_documents(500, 150), random_documents(1, 9))

    def batches(seed: int, position: int = 0, count: int = 8) -> list[tuple[list[list[int]], int]]:
        loader = prepare.Loader(data, 4, CPU, seed, position)
        return [(x.tolist(), epoch) for x, _, epoch in (next(loader) for _ in range(count))]

    whole = batches(1)
    assert batches(1) == whole != batches(2)
    for position in (1, 5, 7):
        assert batches(1, position, 8 - position) == whole[position:]


def test_loader_counts_epochs() -> None:
    data = make_data(random_documents(1500, 150), random_documents(1, 9))
    loader = prepare.Loader(data, 64, CPU, 0)
    epochs = [next(loader)[2] for _ in range(90)]
    assert epochs == sorted(epochs) and set(epochs) == set(range(1, epochs[-1] + 1)) and epochs[-1] >= 3
    stored = len(data.train.tokens)
    read = loader.used + loader.cropped
    assert (epochs[-1] - 1) * stored < read + 1100 * (SEQ + 1)  # what is buffered was read, too
    assert epochs[-1] * stored * 1.1 > read


def test_nothing_is_cropped_where_everything_fits() -> None:
    data = make_data([[1] * SEQ for _ in range(50)], random_documents(1, 9))
    loader = prepare.Loader(data, 4, CPU, 0)
    assert loader.utilisation == 0 / 1
    for _ in range(20):
        next(loader)
    assert loader.utilisation == 1


def test_error_in_the_loaders_thread_reaches_the_consumer() -> None:
    data = make_data(random_documents(50, 150), random_documents(1, 9))
    truncated = data._replace(train=prepare.Split(data.train.tokens[:1000], data.train.offsets))
    loader = prepare.Loader(truncated, 16, CPU, 0)
    with pytest.raises((IndexError, ValueError)):
        for _ in range(100):
            next(loader)


# --- metric --------------------------------------------------------------------------------------------------------


class Causal(torch.nn.Module):
    """Logits from the mean of the embeddings so far."""

    def __init__(self, bos: int = BOS) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.nn.Parameter(torch.randn(bos + 1, 8, generator=generator))
        self.head = torch.nn.Parameter(torch.randn(8, bos + 1, generator=generator))
        self.batch_sizes: list[int] = []
        self.modes: list[bool] = []

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T) tokens to (B, T, vocabulary)."""
        count = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        return (self.embedding[x].cumsum(1) / count) @ self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What a test changes."""
        self.batch_sizes.append(len(x))
        self.modes.append(self.training)
        return self.logits(x)


class Changed(Causal):
    """Causal, and then something is done to it: change(model, x) gives the logits."""

    def __init__(self, change: Callable[[Causal, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The changed logits."""
        return self.change(self, x)


def evaluate(model: torch.nn.Module, data: prepare.Data, batch_size: int) -> prepare.Evaluation:
    """What `evaluate_bpb` says of the data as it is handed over: prepared or not."""
    rows, share = prepare.validation_rows(data)
    return prepare.bits_per_byte(
        *prepare.row_losses(model, rows, data.token_bytes, batch_size, CPU), share, data.seq_len
    )


def oracle(model: Causal, data: prepare.Data) -> tuple[np.ndarray, np.ndarray, float]:
    """Bits and bytes of every row the metric reads, in float64, and the share of rows read."""
    pieces = list(prepare.pieces(data.val, SEQ + 1, None))
    packed, *_ = plain_pack(pieces, SEQ + 1, prepare.PACKING_BUFFER_DOCS)
    rows = np.array([plain_row(row, data.val.tokens) for row in packed[:128]])
    x, y = rows[:, :-1], rows[:, 1:]
    embedding, head = (tensor.detach().double().numpy() for tensor in (model.embedding, model.head))
    logits = embedding[x].cumsum(1) / np.arange(1, SEQ + 1)[:, None] @ head
    top = logits.max(-1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    bits = -np.take_along_axis(logs, y[..., None], -1)[..., 0] / math.log(2)
    return (bits * (y != BOS)).sum(1), data.token_bytes[y].sum(1).astype(float), len(rows) / len(packed)


@pytest.fixture(scope="module")
def small_val() -> prepare.Data:
    """All of its validation text is read: 40 to 50 rows."""
    return make_data(random_documents(1, 9), random_documents(40, 150))


@pytest.fixture(scope="module")
def large_val() -> prepare.Data:
    """A part of its validation text is read: 128 of some 350 rows."""
    return make_data(random_documents(1, 9), random_documents(300, 150))


@pytest.mark.parametrize("batch_size", [1, 7, 16, 100])
def test_evaluation_against_float64(small_val: prepare.Data, batch_size: int) -> None:
    model = Causal()
    bits, size, share = oracle(model, small_val)
    assert share == 1 and len(bits) % 7 and len(bits) % 16 and 30 < len(bits) < 100
    result = evaluate(model, small_val, batch_size)
    assert result.bpb == pytest.approx(bits.sum() / size.sum(), rel=1e-6)
    assert (result.tokens, result.bytes, result.stderr) == (len(bits) * SEQ, size.sum(), 0)
    assert set(model.batch_sizes) == {batch_size}  # a compiled model never sees another shape


def test_evaluation_of_a_part_has_a_standard_error(large_val: prepare.Data) -> None:
    model = Causal()
    bits, size, share = oracle(model, large_val)
    assert len(bits) == 128 and 0.1 < share < 0.9
    result = evaluate(model, large_val, 50)
    bpb = bits.sum() / size.sum()
    assert result.bpb == pytest.approx(bpb, rel=1e-6) and result.tokens == 128 * SEQ
    formula = math.sqrt(((bits - bpb * size) ** 2).sum() * (1 - share)) / size.sum()
    assert result.stderr == pytest.approx(formula, rel=1e-3)
    noise = np.random.default_rng(0)
    samples = noise.integers(0, 128, (4000, 128))  # bootstrap: what another sample of rows would have said
    spread = (bits[samples].sum(1) / size[samples].sum(1)).std() * math.sqrt(1 - share)
    assert result.stderr == pytest.approx(spread, rel=0.1)


def test_bos_counts_neither_way(small_val: prepare.Data) -> None:
    def uniform(model: Causal, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*x.shape, BOS + 1)

    def certain_of_no_bos(model: Causal, x: torch.Tensor) -> torch.Tensor:
        logits = model.logits(x)
        logits[..., BOS] -= 1e4
        return logits

    _, size, _ = oracle(Causal(), small_val)
    tokens = prepare.validation_rows(small_val)[0][:, 1:]
    assert (tokens == BOS).sum() > 10
    expected = 9 * (tokens != BOS).sum() / size.sum()
    assert evaluate(Changed(uniform), small_val, 16).bpb == pytest.approx(expected, rel=1e-6)
    result = evaluate(Changed(certain_of_no_bos), small_val, 16)
    assert result.bpb < evaluate(Causal(), small_val, 16).bpb


def test_evaluation_reads_the_prepared_data(good: prepare.Data, shared_cache: Path, monkeypatch: Any) -> None:
    """A model that says nothing needs nine bits a token, whatever the text. What it is handed may have been altered."""
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(shared_cache))
    rows, _ = prepare.validation_rows(good)
    text = b"".join(good.encoding.decode_bytes([int(t) for t in row[1:] if t != BOS]) for row in rows)
    easier = good._replace(val=prepare.Split(good.val.tokens[:99], np.array([0, 99])), fingerprint="0123456789ab")
    result = prepare.evaluate_bpb(Changed(lambda model, x: torch.zeros(*x.shape, BOS + 1)), easier, 16, CPU)
    assert result.bytes == len(text)
    assert result.bpb == pytest.approx(9 * (rows[:, 1:] != BOS).sum() / len(text), rel=1e-6)


def test_validation_text_shorter_than_a_row() -> None:
    data = make_data(random_documents(1, 9), [[1, 2, 3]])
    with pytest.raises(DataError) as error:
        evaluate(Causal(), data, 4)
    assert str(error.value) == "local:made: the validation text is shorter than one row of 64 tokens"


def one_hot_next(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Logits that know the next token, and at the last position say the last one again."""
    return torch.nn.functional.one_hot(torch.cat([x[:, 1:], x[:, -1:]], 1), BOS + 1) * scale


def last_sees_next(model: Causal, x: torch.Tensor) -> torch.Tensor:
    logits = model.logits(x)
    logits[:, -2] += model.embedding[x[:, -1]] @ model.head
    return logits


def leak_behind_infinity(model: Causal, x: torch.Tensor) -> torch.Tensor:
    logits = one_hot_next(x, 9.0)
    logits[..., 0] = -math.inf  # a token that the validation text does not have
    return logits


def leak_behind_a_large_logit(model: Causal, x: torch.Tensor) -> torch.Tensor:
    """A logit that never matters changes so much that no other change seems to matter."""
    logits = one_hot_next(x, 9.0)
    logits[..., 0] = -1e6 * (1 + x % 7)
    return logits


def not_a_number(model: Causal, x: torch.Tensor) -> torch.Tensor:
    return torch.where(x[..., None] == 7, math.nan, model.logits(x))


FUTURE = "evaluation: logits at a position change with the tokens behind it: the model sees the future"
OTHER_ROWS = "evaluation: the logits of a row change with the other rows of its batch"
NOT_FINITE = "evaluation: the model's logits are not finite; its val_bpb is unknown"
SHAPE = "evaluation: model(x) must return logits (16, 64, 512), not {}"
CHEATS: dict[str, tuple[Callable[[Causal, torch.Tensor], torch.Tensor], str]] = {
    "next token": (lambda model, x: model.logits(x.roll(-1, 1)), FUTURE),
    "mean over time": (lambda model, x: model.logits(x) - model.logits(x).mean(1, keepdim=True), FUTURE),
    "mask off by one": (lambda model, x: model.logits(torch.cat([x, x[:, :1]], 1))[:, 1:], FUTURE),
    "faint": (lambda model, x: model.logits(x) + 0.02 * model.logits(x.flip(1)), FUTURE),
    "last but one": (last_sees_next, FUTURE),
    "shouted": (lambda model, x: one_hot_next(x, 1e30), FUTURE),
    "behind infinity": (leak_behind_infinity, NOT_FINITE),
    "behind a large logit": (leak_behind_a_large_logit, FUTURE),
    "mean over the batch": (lambda model, x: model.logits(x) + model.logits(x).mean(0), OTHER_ROWS),
    "row before": (lambda model, x: model.logits(x) + model.logits(x.roll(1, 0)), OTHER_ROWS),
    "a token too few": (lambda model, x: model.logits(x)[..., 1:], SHAPE.format("(16, 64, 511)")),
    "a position too few": (lambda model, x: model.logits(x)[:, 1:], SHAPE.format("(16, 63, 512)")),
    "flat": (lambda model, x: model.logits(x).flatten(0, 1), SHAPE.format("(1024, 512)")),
    "a loss": (lambda model, x: model.logits(x).sum(), SHAPE.format("()")),
    "not a number": (lambda model, x: model.logits(x) * math.nan, NOT_FINITE),
    "not a number after token 7": (not_a_number, NOT_FINITE),
    "infinite": (lambda model, x: model.logits(x) / 0, NOT_FINITE),
}


@pytest.mark.parametrize("name", CHEATS)
@pytest.mark.parametrize("training", [True, False])
def test_model_that_is_refused(name: str, training: bool) -> None:
    documents = [[token or 1 for token in document] for document in random_documents(40, 150)]
    change, message = CHEATS[name]
    model = Changed(change).train(training)
    with pytest.raises(DataError) as error:
        evaluate(model, make_data(documents[:1], documents), 16)
    assert str(error.value) == message
    assert model.training is training


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_eval_meanwhile_and_put_back(small_val: prepare.Data, training: bool) -> None:
    model = Causal().train(training)
    evaluate(model, small_val, 16)
    assert not any(model.modes) and model.training is training
    assert all(weight.grad is None for weight in model.parameters())


# --- clock ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["abc", "0", "-1", "inf", "-inf", "nan", "5 minutes"])
def test_time_budget_that_is_no_time(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", value)
    with pytest.raises(SettingError) as error:
        prepare.Clock()
    expected = f"AUTORESEARCH_TIME_BUDGET={value}: give a number from 0.1 on, or unset it for the default of 300"
    assert str(error.value) == expected


@pytest.mark.parametrize("value", ["abc", "-1", "inf", "nan", "0.5", "2.5", "1e3"])
def test_number_of_steps_that_is_no_number(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_STEPS", value)
    with pytest.raises(SettingError) as error:
        prepare.Clock()
    expected = f"AUTORESEARCH_STEPS={value}: give a whole number from 0 on, or unset it for the default of 0"
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("budget", "steps", "label"),
    [("", "", "300s"), ("60", "", "60s"), ("0.5", "", "0.5s"), ("1e3", "0", "1000s"), ("60", "20", "20steps")],
)
def test_label_of_the_clock(budget: str, steps: str, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", budget)
    monkeypatch.setenv("AUTORESEARCH_STEPS", steps)
    clock = prepare.Clock()
    assert clock.label == label
    data = make_data([[1]], [[1]])
    assert prepare.track(data, clock, "EPYC-2c") == f"local.012345-v512-t64-{label}/EPYC-2c"
    named = prepare.track(data._replace(dataset="builtin"), clock, "EPYC-2c")
    assert named == f"builtin.012345-v512-t64-{label}/EPYC-2c"


def test_progress_by_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_STEPS", "4")
    clock = prepare.Clock()
    clock.start(CPU)
    progress = []
    for clock.steps in range(6):
        progress.append(clock.progress)
    assert progress == [0, 0.25, 0.5, 0.75, 1, 1]


def test_progress_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", "1e6")
    clock = prepare.Clock()
    clock.start(CPU)
    first, elapsed, second = clock.progress, clock.elapsed, clock.progress
    assert 0 <= first <= elapsed / 1e6 <= second < 1
    clock.started -= 2e6
    assert clock.progress == 1


def train_steps(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], count: int) -> None:
    for _ in range(count):
        loss = model(torch.randn(4, 3)).square().mean()
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] *= 0.9
            optimizer.step()


def frozen(*things: Any) -> str:
    """State as text, to compare before with after."""
    torch.set_printoptions(precision=10, threshold=10**6)
    return repr([thing.state_dict() for thing in things])


@pytest.mark.parametrize("steps_before", [0, 3])
def test_warm_up_leaves_nothing_behind(steps_before: int) -> None:
    def make() -> tuple[torch.nn.Module, list[torch.optim.Optimizer]]:
        torch.manual_seed(0)
        nn = torch.nn
        model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2))
        adam = torch.optim.AdamW(model[0].parameters(), lr=0.1)
        sgd = torch.optim.SGD(model[3].parameters(), lr=0.1, momentum=0.9)
        train_steps(model, [adam, sgd], steps_before)
        return model, [adam, sgd]

    cold, cold_optimizers = make()
    train_steps(cold, cold_optimizers, 5)
    after = torch.get_rng_state()

    warm, warm_optimizers = make()
    before = frozen(warm, *warm_optimizers)
    state = torch.get_rng_state()
    with prepare.warm_up(warm, warm_optimizers):
        train_steps(warm, warm_optimizers, 4)
        assert frozen(warm, *warm_optimizers) != before
        assert not torch.equal(torch.get_rng_state(), state)
    assert frozen(warm, *warm_optimizers) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in warm.parameters())
    train_steps(warm, warm_optimizers, 5)
    assert frozen(warm, *warm_optimizers) == frozen(cold, *cold_optimizers)  # to the last bit as if it had not been
    assert torch.equal(torch.get_rng_state(), after)
