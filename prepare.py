"""Data, tokenizer, loader, metric and clock: what every experiment shares and no experiment may change.

    uv run prepare.py                        prepare the default data set of this machine
    uv run prepare.py --dataset climbmix     ... or one by name: climbmix, tinystories, builtin, local:PATH
    uv run prepare.py --status               what is prepared, and where

`train.py` calls `load_data()`, which prepares what is missing by itself. Everything lives in one cache folder
($AUTORESEARCH_CACHE, default ~/.cache/autoresearch-commons): downloads/, and one folder per data set and vocabulary
with the tokenizer (JSON), the tokens (uint16 memory maps) and a manifest that is written last.

This file is frozen for agents: two runs compare only if it is the same for both. Not covered: several machines
reading one cache over a network file system, and data larger than the disk (tokens are kept, not streamed).
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import os
import queue
import re
import shutil
import sys
import threading
import time
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from lab.download import download_files
from lab.errors import DataError, LabError, SettingError
from platform_utils import detect_platform, sync_device

# ---------------------------------------------------------------------------------------------------------------
# What is fixed


class Preset(NamedTuple):
    """The frame of an experiment. Tokens are counted in the preset's own vocabulary."""

    seq_len: int  # tokens a row
    vocab_size: int  # with the one special token
    eval_tokens: int  # at most; fewer where the validation text is shorter


PRESETS = {
    "gpu": Preset(seq_len=2048, vocab_size=8192, eval_tokens=40 * 524288),
    "small": Preset(seq_len=256, vocab_size=1024, eval_tokens=2048 * 256),
    "tiny": Preset(seq_len=64, vocab_size=512, eval_tokens=128 * 64),  # for tests: seconds, not minutes
}
DATASETS = ("climbmix", "tinystories", "builtin")  # and local:PATH

CLIMBMIX_URL = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
CLIMBMIX_LAST_SHARD = 6542  # pinned for validation, never trained on
TINYSTORIES_URL = "https://huggingface.co/datasets/karpathy/tinystories-gpt4-clean/resolve/main"
TINYSTORIES_FILE = "tinystories_gpt4_clean.parquet"
BUILTIN_WHEELS = ("mpmath", "networkx", "sympy")  # pure Python, and torch needs them all; pinned in pyproject.toml
BUILTIN_FINGERPRINTS = {512: "", 1024: "", 8192: ""}

BOS = "<|bos|>"  # the only special token; opens every document and every row
# GPT-4's pre-tokenizer pattern with numbers cut at two digits, as nanochat uses it for small vocabularies.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
TOKENIZER_TRAINING_CHARS = 1_000_000_000  # the merges of a small vocabulary settle long before that
MAX_VOCAB = 65_535  # tokens are stored as uint16
PACKING_BUFFER_DOCS = 1000  # documents best-fit packing chooses among
MANIFEST_VERSION = 1
TIME_BUDGET_SECONDS = 300
LEAK_RATIO = 1e-3  # change of logits that must not change, over the change of those that may: above it is a leak
VERIFIED_BYTES = 64 << 20  # files up to this size are hashed at every start, larger ones compared by size
NEAR_DUPLICATE_JACCARD = 0.8  # share of common 5-word shingles from which two documents count as one


def _positive_number(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise SettingError(f"{name}={text}: not a positive number; unset it for the default of {default:g}")
    return value


def cache_dir() -> Path:
    """The folder of everything downloaded or derived: $AUTORESEARCH_CACHE or ~/.cache/autoresearch-commons."""
    return Path(os.environ.get("AUTORESEARCH_CACHE") or Path.home() / ".cache" / "autoresearch-commons")


def default_preset() -> str:
    """$AUTORESEARCH_PRESET, else `gpu` on CUDA and `small` elsewhere.

    Raises:
        SettingError: there is no preset of that name.
    """
    name = os.environ.get("AUTORESEARCH_PRESET") or ("gpu" if detect_platform() == "cuda" else "small")
    if name not in PRESETS:
        raise SettingError(f"AUTORESEARCH_PRESET={name}: there is no such preset; choose one of {', '.join(PRESETS)}")
    return name


def default_dataset(preset: str) -> str:
    """$AUTORESEARCH_DATASET, else climbmix on CUDA; elsewhere what was downloaded and prepared, else builtin."""
    if name := os.environ.get("AUTORESEARCH_DATASET"):
        return name
    if detect_platform() == "cuda":
        return "climbmix"
    vocab = PRESETS[preset].vocab_size
    downloaded = [d for d in ("climbmix", "tinystories") if (prepared_dir(d, vocab) / "manifest.json").exists()]
    return downloaded[0] if downloaded else "builtin"


# ---------------------------------------------------------------------------------------------------------------
# Documents: every data set is a list of training texts and a list of validation texts


class Documents(NamedTuple):
    """Texts of one data set, as iterables that can be read more than once."""

    train: Iterable[str]
    val: Iterable[str]


class ParquetText:
    """The `text` column of parquet files, one row group in memory at a time. `keep` filters by document."""

    def __init__(self, paths: list[Path], keep: Callable[[str], bool] = lambda text: True) -> None:
        self.paths, self.keep = paths, keep

    def __iter__(self) -> Iterator[str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self.paths:
            try:
                with pq.ParquetFile(path) as file:
                    for group in range(file.num_row_groups):
                        texts = file.read_row_group(group, columns=["text"]).column("text").to_pylist()
                        yield from (text for text in texts if text and self.keep(text))
            except (pa.ArrowException, OSError, KeyError) as error:
                raise DataError(f"{path}: cannot be read ({_first_line(error)}); delete it and prepare again") from None


def climbmix(num_shards: int, workers: int) -> Documents:
    """The first `num_shards` shards for training (-1: all) and the pinned last one for validation."""
    if not (num_shards == -1 or 1 <= num_shards <= CLIMBMIX_LAST_SHARD):
        raise SettingError(f"--num-shards {num_shards}: give 1 to {CLIMBMIX_LAST_SHARD}, or -1 for all")
    train = range(CLIMBMIX_LAST_SHARD if num_shards == -1 else num_shards)
    names = [f"shard_{index:05d}.parquet" for index in (*train, CLIMBMIX_LAST_SHARD)]
    folder = cache_dir() / "downloads" / "climbmix"
    download_files(os.environ.get("AUTORESEARCH_BASE_URL") or CLIMBMIX_URL, names, folder, workers)
    return Documents(ParquetText([folder / n for n in names[:-1]]), ParquetText([folder / names[-1]]))


def tinystories(workers: int) -> Documents:
    """One file of short stories; a stable hash of the story sends one in fifty to validation."""
    folder = cache_dir() / "downloads" / "tinystories"
    url = os.environ.get("AUTORESEARCH_BASE_URL") or TINYSTORIES_URL
    download_files(url, [TINYSTORIES_FILE], folder, workers)
    paths = [folder / TINYSTORIES_FILE]
    return Documents(
        ParquetText(paths, lambda text: _bucket(text, 50) != 0), ParquetText(paths, lambda text: _bucket(text, 50) == 0)
    )


def builtin() -> Documents:
    """Python source of wheels that are installed anyway: real text without a download.

    Files are cut at top-level definitions, tests are left out, exact and near duplicates are dropped. A stable hash
    of the package folder decides the split, so no file is validated on while its sibling is trained on.

    Raises:
        DataError: a wheel is missing, or a file differs from the wheel's RECORD.
    """
    train, val = [], []
    for wheel in BUILTIN_WHEELS:
        try:
            files = metadata.distribution(wheel).files or []
        except metadata.PackageNotFoundError:
            raise DataError(f"builtin: the {wheel} package is not installed; run `uv sync`") from None
        for file in sorted(files, key=str):
            path = PurePosixPath(file)
            if path.suffix == ".py" and path.parts[0] == wheel and not _is_test(path):
                data = file.locate().read_bytes()
                if file.hash is None or file.hash.value != _record_hash(data):
                    raise DataError(f"builtin: {path} differs from what {wheel} was released with; run `uv sync --reinstall`")
                (val if _bucket(str(path.parent), 10) == 0 else train).extend(split_definitions(data.decode()))
    val = drop_duplicates(val)
    return Documents(drop_duplicates(train, seen=val), val)


def split_definitions(source: str) -> list[str]:
    """Cut Python source before each top-level class or function, its decorators and the comment above it."""
    lines = source.splitlines(keepends=True)
    cuts = [0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in strings
        body = ast.parse(source).body
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            while line > cuts[-1] and lines[line - 1].startswith("#"):
                line -= 1
            cuts.append(line)
    cuts.append(len(lines))
    pieces = ("".join(lines[a:b]).strip() for a, b in zip(cuts, cuts[1:], strict=False))
    return [piece + "\n" for piece in pieces if piece]


def drop_duplicates(docs: list[str], seen: list[str] | None = None) -> list[str]:
    """The documents that are neither equal nor nearly equal to an earlier one or to one of `seen`, in order.

    Candidates come from MinHash (Broder 1997) with 8 bands of 4 hashes over 5-word shingles; the exact Jaccard
    similarity of the shingle sets decides.
    """
    rng = np.random.default_rng(0)
    multipliers = rng.integers(1, 2**63, 32, dtype=np.uint64) | np.uint64(1)
    bands: dict[tuple[int, bytes], list[int]] = {}
    shingles: list[np.ndarray] = []
    words: dict[str, int] = {}
    kept = []
    for index, text in enumerate([*(seen or []), *docs]):
        ids = np.array([words.setdefault(w, zlib.crc32(w.encode())) for w in re.findall(r"\w+|[^\w\s]", text)], np.uint64)
        ids = np.pad(ids, (0, max(0, 5 - len(ids))))
        mine = np.zeros(len(ids) - 4, np.uint64)
        for offset in range(5):
            mine = (mine * np.uint64(0x100000001B3)) ^ ids[offset : len(ids) - 4 + offset]
        mine = np.unique(mine)
        signature = (mine[:, None] * multipliers >> np.uint64(32)).min(axis=0).astype(np.uint32)
        keys = [(band, signature[4 * band : 4 * band + 4].tobytes()) for band in range(8)]
        candidates = sorted({other for key in keys for other in bands.get(key, ())})
        if not any(_jaccard(mine, shingles[other]) >= NEAR_DUPLICATE_JACCARD for other in candidates):
            for key in keys:
                bands.setdefault(key, []).append(len(shingles))
            shingles.append(mine)
            if index >= len(seen or []):
                kept.append(text)
    return kept


def local(folder: Path) -> Documents:
    """Every .txt, .md, .py, .jsonl and .parquet file below a folder; one document in twenty is for validation.

    A .jsonl line is a JSON object with a `text` key or a string; .py is cut at top-level definitions, and a long
    .txt or .md at blank lines. The split hashes the document, so equal documents fall on the same side.
    """
    if not folder.is_dir():
        raise DataError(f"local:{folder}: there is no such folder; name one with .txt, .md, .py, .jsonl or .parquet files")
    docs = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        docs += [text for text in _read_local(path) if text.strip()]
    val = [text for text in docs if _bucket(text, 20) == 0]
    if not val or len(val) == len(docs):
        raise DataError(f"local:{folder}: {len(docs)} documents are too few to split into training and validation text")
    return Documents([text for text in docs if _bucket(text, 20) != 0], val)


def _read_local(path: Path) -> Iterable[str]:
    if path.suffix == ".parquet":
        return ParquetText([path])
    if path.suffix not in (".txt", ".md", ".py", ".jsonl"):
        return []
    try:
        text = path.read_text("utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({_first_line(error)}); mend or remove the file") from None
    if path.suffix == ".jsonl":
        return _jsonl_texts(path, text)
    if path.suffix == ".py":
        try:
            return split_definitions(text)
        except SyntaxError:
            return [text]
    pieces, size = [[]], 0
    for paragraph in re.split(r"(?<=\n)\n+", text):
        if size > 8192:
            pieces.append([])
            size = 0
        pieces[-1].append(paragraph)
        size += len(paragraph)
    return ["\n".join(piece) for piece in pieces]


def _jsonl_texts(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                value = json.loads(line)
                yield value if isinstance(value, str) else value["text"]
            except (ValueError, KeyError, TypeError):
                raise DataError(f'{path}:{number}: not a JSON string or an object with "text"; mend the line') from None


def _is_test(path: PurePosixPath) -> bool:
    return any(part in ("tests", "testing", "benchmarks", "conftest.py") or part.startswith("test") for part in path.parts)


def _bucket(text: str, buckets: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") % buckets


def _record_hash(data: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# ---------------------------------------------------------------------------------------------------------------
# Tokenizer and tokens


class Split(NamedTuple):
    """One side of a data set: all its tokens in a row, and where each document begins (and the last one ends)."""

    tokens: np.ndarray  # uint16, memory-mapped
    offsets: np.ndarray  # int64, number of documents + 1


class Data(NamedTuple):
    """A prepared data set."""

    dataset: str
    preset: str
    fingerprint: str  # 12 hex characters over tokenizer and tokens
    encoding: object  # tiktoken.Encoding
    token_bytes: np.ndarray  # int32, bytes of text each token stands for; 0 for BOS
    train: Split
    val: Split

    @property
    def vocab_size(self) -> int:
        return PRESETS[self.preset].vocab_size

    @property
    def seq_len(self) -> int:
        return PRESETS[self.preset].seq_len


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> dict:
    """Byte-pair merges (rustbpe) as JSON-ready facts: pattern, and the merged byte strings by rank.

    Raises:
        SettingError: the vocabulary does not fit uint16, or is smaller than the 256 bytes and BOS.
        DataError: the text has too few different words for that many merges.
    """
    import rustbpe

    if not 257 <= vocab_size <= MAX_VOCAB:
        raise SettingError(f"vocabulary of {vocab_size}: tokens are stored as uint16, give 257 to {MAX_VOCAB:,}")

    def limited() -> Iterator[str]:
        left = TOKENIZER_TRAINING_CHARS
        for text in texts:
            yield text[:left]
            left -= len(text)
            if left <= 0:
                return

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(limited(), vocab_size - 1, pattern=SPLIT_PATTERN)
    ranks = sorted((rank, bytes(token)) for token, rank in tokenizer.get_mergeable_ranks())
    if len(ranks) != vocab_size - 1:
        raise DataError(f"the text gives only {len(ranks)} of {vocab_size - 1} merges: use more text or a smaller vocabulary")
    return {"pattern": SPLIT_PATTERN, "tokens": [token.hex() for _, token in ranks], "special": {BOS: vocab_size - 1}}


def make_encoding(tokenizer: dict) -> object:
    """The tiktoken.Encoding of a tokenizer as `train_tokenizer` returned it."""
    import tiktoken

    ranks = {bytes.fromhex(token): rank for rank, token in enumerate(tokenizer["tokens"])}
    return tiktoken.Encoding(
        "autoresearch", pat_str=tokenizer["pattern"], mergeable_ranks=ranks, special_tokens=tokenizer["special"]
    )


def write_tokens(texts: Iterable[str], encoding: object, path: Path, offsets_path: Path) -> None:
    """Encode every text behind a BOS into one uint16 file, with the document offsets beside it (.npy)."""
    bos = encoding._special_tokens[BOS]
    offsets, end = [0], 0
    threads = os.cpu_count() or 1
    with path.open("wb") as file, ThreadPoolExecutor(threads) as pool:
        for batch in _batches(texts, 64 * threads):
            for tokens in pool.map(lambda text: encoding.encode_to_numpy(text, disallowed_special=()), batch):
                row = np.empty(len(tokens) + 1, np.uint16)
                row[0], row[1:] = bos, tokens
                file.write(row.tobytes())
                end += len(row)
                offsets.append(end)
        file.flush()
        os.fsync(file.fileno())
    np.save(offsets_path, np.array(offsets, np.int64))


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    yield batch


def prepared_dir(dataset: str, vocab_size: int) -> Path:
    """Where a prepared data set lies. A local folder is told apart by a hash of its path."""
    name = dataset if dataset in DATASETS else "local-" + hashlib.sha256(dataset.encode()).hexdigest()[:8]
    return cache_dir() / f"{name}-v{vocab_size}"


def prepare(dataset: str, preset: str, num_shards: int = 10, workers: int = 8) -> Path:
    """Fetch, tokenize and store a data set unless it is there; returns its folder.

    The folder appears by one rename, complete; a second process that wants the same waits for the first.

    Raises:
        DataError: unknown data set, no network, no space, or text that cannot be used.
    """
    from filelock import FileLock

    if dataset not in DATASETS and not dataset.startswith("local:"):
        raise DataError(f"data set {dataset!r}: there is no such name; choose {', '.join(DATASETS)} or local:PATH")
    vocab_size = PRESETS[preset].vocab_size
    folder = prepared_dir(dataset, vocab_size)
    if (folder / "manifest.json").exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / "manifest.json").exists():
                _prepare_locked(dataset, folder, vocab_size, num_shards, workers)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); free space or set AUTORESEARCH_CACHE") from None
    return folder


def _prepare_locked(dataset: str, folder: Path, vocab_size: int, num_shards: int, workers: int) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)  # a folder without a manifest is not data
    started = time.perf_counter()
    documents = _documents(dataset, num_shards, workers)
    partial.mkdir()
    try:
        tokenizer = train_tokenizer(documents.train, vocab_size)
        (partial / "tokenizer.json").write_text(json.dumps(tokenizer))
        encoding = make_encoding(tokenizer)
        np.save(partial / "token_bytes.npy", np.array([len(bytes.fromhex(t)) for t in tokenizer["tokens"]] + [0], np.int32))
        for split, texts in zip(("train", "val"), documents, strict=True):
            write_tokens(texts, encoding, partial / f"{split}.bin", partial / f"{split}.npy")
        files = {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(partial.iterdir())}
        fingerprint = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]
        facts = {"version": MANIFEST_VERSION, "dataset": dataset, "vocab_size": vocab_size, "fingerprint": fingerprint, "files": files}
        (partial / "manifest.json").write_text(json.dumps(facts, indent=2))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    tokens = files["train.bin"]["bytes"] // 2
    print(f"prepared {dataset}: {tokens:,} training tokens, vocabulary {vocab_size}, {time.perf_counter() - started:.0f} s -> {folder}")


def _documents(dataset: str, num_shards: int, workers: int) -> Documents:
    if dataset == "climbmix":
        return climbmix(num_shards, workers)
    if dataset == "tinystories":
        return tinystories(workers)
    if dataset == "builtin":
        return builtin()
    return local(Path(dataset.removeprefix("local:")).expanduser())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_data(dataset: str | None = None, preset: str | None = None) -> Data:
    """The prepared data set (of this machine by default), prepared now if it is not there, and checked.

    Raises:
        DataError: it cannot be prepared, or a file of it is not what the manifest says.
    """
    preset = preset or default_preset()
    dataset = dataset or default_dataset(preset)
    folder = prepare(dataset, preset)
    manifest = _verified_manifest(folder)
    expected = BUILTIN_FINGERPRINTS.get(manifest["vocab_size"]) if dataset == "builtin" else None
    if expected and expected != manifest["fingerprint"]:
        print(f"note: builtin is {manifest['fingerprint']} here, {expected} elsewhere (other package versions): results form a track of their own", file=sys.stderr)
    splits = [
        Split(np.memmap(folder / f"{split}.bin", np.uint16, "r"), np.load(folder / f"{split}.npy"))
        for split in ("train", "val")
    ]
    encoding = make_encoding(json.loads((folder / "tokenizer.json").read_text()))
    return Data(dataset, preset, manifest["fingerprint"], encoding, np.load(folder / "token_bytes.npy"), *splits)


def _verified_manifest(folder: Path) -> dict:
    remedy = f"delete {folder} and run `uv run prepare.py` again"
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["version"] != MANIFEST_VERSION:
            raise DataError(f"{folder}: prepared by another version; {remedy}")
        for name, facts in manifest["files"].items():
            size = (folder / name).stat().st_size
            if size != facts["bytes"] or (size <= VERIFIED_BYTES and _sha256(folder / name) != facts["sha256"]):
                raise DataError(f"{folder / name}: not the file that was prepared; {remedy}")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: the prepared data is damaged ({_first_line(error)}); {remedy}") from None
    return manifest


# ---------------------------------------------------------------------------------------------------------------
# Loader


def pieces(split: Split, row_tokens: int, seed: int | None) -> Iterator[tuple[int, int, int]]:
    """(start, length, epoch) of every document piece: shuffled epochs without end, or one in stored order (seed None).

    A document longer than a row is cut, so that its tail is read too. What follows a cut gets a BOS of its own in the
    row: `length` counts it, `start` is the first stored token.
    """
    epoch = 0
    while True:
        epoch += 1
        count = len(split.offsets) - 1
        order = np.arange(count) if seed is None else np.random.default_rng([seed, epoch]).permutation(count)
        for start, end in zip(split.offsets[order].tolist(), split.offsets[order + 1].tolist(), strict=True):
            length = min(end - start, row_tokens)
            yield start, length, epoch
            start += length
            while start < end:
                length = min(end - start + 1, row_tokens)
                yield start, length, epoch
                start += length - 1
        if seed is None:
            return


def pack(
    pieces: Iterator[tuple[int, int, int]], row_tokens: int, buffer: int = PACKING_BUFFER_DOCS
) -> Iterator[tuple[list[tuple[int, int]], int, int]]:
    """Rows of exactly `row_tokens`: (list of (start, length), epoch, tokens cropped away). No row is padded.

    Best fit: the longest buffered piece that fits the gap, first in first out among equals; where none fits, the
    shortest one is cropped to the gap. (Best-fit packing: Ding et al. 2024, arXiv 2404.10830; cropping instead of
    padding: nanochat.) Which lengths are buffered is kept as the bits of one integer, so a choice is one bit search
    however many pieces there are. Ends with the pieces; a last partial row is dropped.
    """
    shelves: list[deque[int]] = [deque() for _ in range(row_tokens + 1)]
    present = buffered = 0
    epoch = 1
    while True:
        row, gap, cropped = [], row_tokens, 0
        while gap:
            while buffered < buffer and (piece := next(pieces, None)):
                start, length, epoch = piece
                shelves[length].append(start)
                present |= 1 << length
                buffered += 1
            if not present:
                return
            fitting = present & ((2 << gap) - 1)
            length = fitting.bit_length() - 1 if fitting else (present & -present).bit_length() - 1
            start = shelves[length].popleft()
            buffered -= 1
            if not shelves[length]:
                present ^= 1 << length
            row.append((start, min(length, gap)))
            cropped += max(0, length - gap)
            gap -= row[-1][1]
        yield row, epoch, cropped


def fill(out: np.ndarray, row: list[tuple[int, int]], tokens: np.ndarray, bos: int) -> None:
    """Copy the pieces of one packed row into `out` (row_tokens,), a BOS before each that lacks one."""
    at = 0
    for start, length in row:
        if tokens[start] == bos:
            out[at : at + length] = tokens[start : start + length]
        else:
            out[at] = bos
            out[at + 1 : at + length] = tokens[start : start + length - 1]
        at += length


class Loader:
    """Training batches without end: an iterator over (x, y, epoch), x and y int64 (batch_size, seq_len) on `device`.

    y is x one token later; every row starts with BOS. The sequence of batches depends on data, seed and batch size
    alone, and `position` starts at that batch. A thread packs the next batches while the model trains; on CUDA they
    are copied from pinned memory. `utilisation` is the share of tokens that were not cropped away so far.
    """

    def __init__(self, data: Data, batch_size: int, device: torch.device, seed: int, position: int = 0) -> None:
        self.data, self.batch_size, self.device = data, batch_size, device
        self.used = self.cropped = 0
        self.rows = pack(pieces(data.train, data.seq_len + 1, seed), data.seq_len + 1)
        for _ in range(position * batch_size):
            next(self.rows)
        self.ready: queue.Queue = queue.Queue(maxsize=2)
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            while True:
                self.ready.put(self._pack_batch())
        except BaseException as error:  # it belongs to whoever asks for the next batch
            self.ready.put(error)

    def _pack_batch(self) -> tuple[torch.Tensor, int, int]:
        batch = np.empty((self.batch_size, self.data.seq_len + 1), np.int64)
        cropped = 0
        for out in batch:
            row, epoch, lost = next(self.rows)
            fill(out, row, self.data.train.tokens, self.data.vocab_size - 1)
            cropped += lost
        tensor = torch.from_numpy(batch)
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor), epoch, cropped

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        item = self.ready.get()
        if isinstance(item, BaseException):
            raise item
        batch, epoch, cropped = item
        self.used += batch.numel()
        self.cropped += cropped
        batch = batch.to(self.device, non_blocking=True)
        return batch[:, :-1], batch[:, 1:], epoch

    @property
    def utilisation(self) -> float:
        """Share of tokens handed out, of those handed out or cropped away."""
        return self.used / max(1, self.used + self.cropped)


# ---------------------------------------------------------------------------------------------------------------
# The metric


class Evaluation(NamedTuple):
    """Bits per byte of the validation text, with what it rests on."""

    bpb: float
    stderr: float  # sampling error against the whole validation text; 0 when all of it was read
    tokens: int
    bytes: int


def validation_rows(data: Data) -> tuple[np.ndarray, float]:
    """The fixed rows the metric reads, (rows, seq_len + 1) uint16, and their share of all there are."""
    packed = list(pack(pieces(data.val, data.seq_len + 1, None), data.seq_len + 1))
    chosen = packed[: PRESETS[data.preset].eval_tokens // data.seq_len]
    if not chosen:
        raise DataError(f"{data.dataset}: the validation text is shorter than one row of {data.seq_len} tokens")
    rows = np.empty((len(chosen), data.seq_len + 1), np.uint16)
    for out, (row, _, _) in zip(rows, chosen, strict=True):
        fill(out, row, data.val.tokens, data.vocab_size - 1)
    return rows, len(chosen) / len(packed)


@torch.no_grad()
def evaluate_bpb(model: torch.nn.Module, data: Data, batch_size: int, device: torch.device) -> Evaluation:
    """Bits per byte of `model` on the fixed validation rows; lower is better.

    `model(x)` takes int64 (batch_size, seq_len) and returns logits (batch_size, seq_len, vocab_size). The targets are
    never shown to it: the loss is computed here, in float32, summed in float64, and divided by the bytes the targets
    stand for, so that vocabularies compare. BOS stands for no bytes and counts neither way.

    Raises:
        DataError: the logits have another shape, are not finite, or change when a later token or another row does.
    """
    rows, share = validation_rows(data)
    token_bytes = torch.from_numpy(data.token_bytes).to(device)
    nats, nbytes = [], []
    was_training = model.training
    model.eval()
    try:
        for at in range(0, len(rows), batch_size):
            batch = torch.from_numpy(rows[at : at + batch_size].astype(np.int64)).to(device)
            real = len(batch)
            if real < batch_size:  # repeat rows rather than show a compiled model a new shape
                batch = batch[torch.arange(batch_size, device=device) % real]
            x, y = batch[:, :-1].contiguous(), batch[:, 1:]
            if at == 0:
                _probe_causality(model, x, data.vocab_size)
            logits = _logits(model, x, data.vocab_size)
            losses = F.cross_entropy(logits.flatten(0, 1).float(), y.flatten(), reduction="none").view_as(y)
            counted = token_bytes[y]
            nats.append((losses * (counted > 0)).sum(1, dtype=torch.float32)[:real].cpu().double())
            nbytes.append(counted.sum(1)[:real].cpu().double())
    finally:
        model.train(was_training)
    row_nats, row_bytes = torch.cat(nats), torch.cat(nbytes)
    total_bytes = row_bytes.sum().item()
    bpb = row_nats.sum().item() / (math.log(2) * total_bytes)
    if not math.isfinite(bpb):
        raise DataError("evaluation: the model's logits are not finite; its val_bpb is unknown")
    # Ratio estimator over rows (Cochran, Sampling Techniques, 6.4), with the finite population correction.
    residual = row_nats / math.log(2) - bpb * row_bytes
    stderr = math.sqrt(residual.square().sum().item() * max(0.0, 1 - share)) / total_bytes
    return Evaluation(bpb, stderr, rows.shape[0] * data.seq_len, int(total_bytes))


def _logits(model: torch.nn.Module, x: torch.Tensor, vocab_size: int) -> torch.Tensor:
    logits = model(x)
    if logits.shape != (*x.shape, vocab_size):
        raise DataError(f"evaluation: model(x) must return logits {(*x.shape, vocab_size)}, not {tuple(logits.shape)}")
    return logits


def _probe_causality(model: torch.nn.Module, x: torch.Tensor, vocab_size: int) -> None:
    """Refuse a model whose logits at a position depend on a later token or on another row of the batch."""
    rng = np.random.default_rng(0)
    logits = _logits(model, x, vocab_size).clone()
    noise = torch.from_numpy(rng.integers(0, vocab_size - 1, x.shape)).to(x)
    for cut in (x.shape[1] // 3, x.shape[1] - 1):
        changed = x.clone()
        changed[:, cut:] = noise[:, cut:]
        difference = (_logits(model, changed, vocab_size) - logits).float()
        if difference[:, :cut].norm() > LEAK_RATIO * difference[:, cut:].norm():
            raise DataError(f"evaluation: logits before position {cut} change with the tokens from there on: the model sees the future")
    if len(x) > 1:
        changed = torch.cat([x[:1], noise[1:]])
        difference = (_logits(model, changed, vocab_size) - logits).float()
        if difference[0].norm() > LEAK_RATIO * difference[1:].norm():
            raise DataError("evaluation: the logits of a row change with the other rows of its batch")


# ---------------------------------------------------------------------------------------------------------------
# The clock


class Clock:
    """The time budget of a run: $AUTORESEARCH_TIME_BUDGET seconds (default 300) from `start()`, every second counted.

    $AUTORESEARCH_STEPS=N trains N steps instead, for exact repeats; either makes a track of its own.

    Raises:
        SettingError: one of the two is not a positive number.
    """

    def __init__(self) -> None:
        self.seconds = _positive_number("AUTORESEARCH_TIME_BUDGET", TIME_BUDGET_SECONDS)
        self.max_steps = int(_positive_number("AUTORESEARCH_STEPS", 1)) if os.environ.get("AUTORESEARCH_STEPS") else None
        self.label = f"{self.max_steps}steps" if self.max_steps else f"{self.seconds:g}s"
        self.steps = 0

    def start(self, device: torch.device) -> None:
        """Start counting once the device has nothing left to do."""
        sync_device(device)
        self.started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1: what schedules follow."""
        return min(1.0, self.steps / self.max_steps if self.max_steps else self.elapsed / self.seconds)


@contextmanager
def warm_up(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> Iterator[None]:
    """Steps taken inside compile and warm caches off the clock; weights, optimizers and random state are put back after."""
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = [deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    cpu_rng, cuda_rng = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    yield
    model.load_state_dict(weights)
    model.zero_grad(set_to_none=True)
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(state)
    torch.set_rng_state(cpu_rng)
    if cuda_rng is not None:
        torch.cuda.set_rng_state_all(cuda_rng)


def track(data: Data, clock: Clock, device_class: str) -> str:
    """What two runs must share to be compared, e.g. `builtin.3fa9c1-v1024-t256-300s/EPYC-2c`."""
    name = data.dataset if data.dataset in DATASETS else "local"
    return f"{name}.{data.fingerprint[:6]}-v{data.vocab_size}-t{data.seq_len}-{clock.label}/{device_class}"


# ---------------------------------------------------------------------------------------------------------------
# Command line


def status() -> None:
    """Print what is prepared and downloaded, one line each."""
    root = cache_dir()
    print(f"cache: {root}")
    for manifest_path in sorted(root.glob("*/manifest.json")):
        manifest = json.loads(manifest_path.read_text())
        train, val = (manifest["files"][f"{split}.bin"]["bytes"] // 2 for split in ("train", "val"))
        print(f"{manifest['dataset']}: vocabulary {manifest['vocab_size']}, {train:,} training and {val:,} validation tokens, {manifest['fingerprint']}")
    for folder in sorted(root.glob("downloads/*")):
        files = list(folder.glob("*.parquet"))
        print(f"{folder.name}: {len(files)} files downloaded, {sum(f.stat().st_size for f in files) / 1e9:.2f} GB")
    if not any(root.glob("*/manifest.json")):
        print(f"nothing is prepared; this machine's default is {default_dataset(default_preset())} with preset {default_preset()}")


def main() -> None:
    """Prepare a data set, or say what is there."""
    parser = argparse.ArgumentParser(description="Prepare data and tokenizer for train.py.")
    parser.add_argument("--dataset", help="climbmix (default on CUDA), builtin (default elsewhere), tinystories or local:PATH")
    parser.add_argument("--preset", choices=PRESETS, help="default: gpu on CUDA, small elsewhere")
    parser.add_argument("--num-shards", type=int, default=10, help="climbmix training shards to download, -1 for all (default 10)")
    parser.add_argument("--download-workers", type=int, default=8, help="parallel downloads (default 8)")
    parser.add_argument("--status", action="store_true", help="say what is prepared and downloaded")
    args = parser.parse_args()
    try:
        if args.status:
            return status()
        preset = args.preset or default_preset()
        dataset = args.dataset or default_dataset(preset)
        prepare(dataset, preset, args.num_shards, args.download_workers)
        data = load_data(dataset, preset)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"ready: {dataset}, vocabulary {data.vocab_size}, {len(data.train.tokens):,} training tokens, fingerprint {data.fingerprint}")


if __name__ == "__main__":
    main()
