"""Where text comes from: every data set is an iterable of training texts and one of validation texts.

    documents("builtin", downloads, num_shards=10, workers=8).train

`climbmix` and `tinystories` are downloaded, `builtin` is the source of packages that are installed anyway, and
`local:PATH` is a folder. The split between training and validation never depends on the machine or on chance.
Not covered: tokens (`prepare.py`) and how bytes travel (`lab/download.py`).
"""

import ast
import base64
import hashlib
import io
import json
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lab.download import download_files
from lab.errors import DataError, SettingError

DATASETS = ("climbmix", "tinystories", "builtin")  # and local:PATH

CLIMBMIX_URL = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
CLIMBMIX_LAST_SHARD = 6542  # pinned for validation, never trained on
TINYSTORIES_URL = "https://huggingface.co/datasets/karpathy/tinystories-gpt4-clean/resolve/main"
TINYSTORIES_FILE = "tinystories_gpt4_clean.parquet"
BUILTIN_WHEELS = ("mpmath", "networkx", "sympy")  # pure Python, and torch needs them all; pinned in pyproject.toml
NEAR_DUPLICATE_JACCARD = 0.8  # share of common 5-word shingles from which two documents count as one
LOCAL_SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".parquet")
LOCAL_PIECE_CHARS = 8192  # a longer .txt or .md is cut at blank lines into documents of about this size


class Documents(NamedTuple):
    """Texts of one data set, as iterables that can be read more than once."""

    train: Iterable[str]
    val: Iterable[str]


def documents(dataset: str, downloads: Path, num_shards: int, workers: int) -> Documents:
    """The texts of a data set by name, fetched into `downloads` where it is one that is downloaded.

    Raises:
        DataError: there is no such data set, or its text cannot be had or used.
    """
    if dataset == "climbmix":
        return climbmix(downloads, num_shards, workers)
    if dataset == "tinystories":
        return tinystories(downloads, workers)
    if dataset == "builtin":
        return builtin()
    return local(local_folder(dataset))


def source(dataset: str, num_shards: int | None) -> str | None:
    """What the text is made of, cheaply: when this changes a prepared data set is stale. None: take what is there."""
    if dataset == "climbmix":
        return None if num_shards is None else f"{num_shards} shards"
    if dataset == "tinystories":
        return None
    if dataset == "builtin":
        return ", ".join(f"{wheel} {_distribution(wheel).version}" for wheel in BUILTIN_WHEELS)
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in _local_files(local_folder(dataset))]
    return hashlib.sha256(json.dumps(stats).encode("utf-8", "surrogatepass")).hexdigest()


def local_folder(dataset: str) -> Path:
    """The folder that `local:PATH` names.

    Raises:
        DataError: the name is not of this form, nor of any other data set.
    """
    if not dataset.startswith("local:"):
        raise DataError(f"data set {dataset!r}: there is no such name; choose {', '.join(DATASETS)} or local:PATH")
    return Path(dataset.removeprefix("local:")).expanduser().resolve()


class ParquetText:
    """The `text` column of parquet files, one row group in memory at a time. `keep` filters by document."""

    def __init__(self, paths: list[Path], keep: Callable[[str], bool] = lambda text: True) -> None:
        self.paths, self.keep = paths, keep

    def __iter__(self) -> Iterator[str]:
        for path in self.paths:
            try:
                with pq.ParquetFile(path) as file:
                    for group in range(file.num_row_groups):
                        texts = file.read_row_group(group, columns=["text"]).column("text").to_pylist()
                        yield from (text for text in texts if text and self.keep(text))
            except (pa.ArrowException, OSError, KeyError) as error:
                why = f"cannot be read as parquet with a text column ({first_line(error)})"
                raise DataError(f"{path}: {why}; remove it and prepare again") from None


def climbmix(downloads: Path, num_shards: int, workers: int) -> Documents:
    """The first `num_shards` shards for training (-1: all) and the pinned last one for validation."""
    if not (num_shards == -1 or 1 <= num_shards <= CLIMBMIX_LAST_SHARD):
        raise SettingError(f"--num-shards {num_shards}: give 1 to {CLIMBMIX_LAST_SHARD}, or -1 for all")
    train = range(CLIMBMIX_LAST_SHARD if num_shards == -1 else num_shards)
    names = [f"shard_{index:05d}.parquet" for index in (*train, CLIMBMIX_LAST_SHARD)]
    folder = downloads / "climbmix"
    _download(CLIMBMIX_URL, names, folder, workers)
    return Documents(ParquetText([folder / n for n in names[:-1]]), ParquetText([folder / names[-1]]))


def _download(url: str, names: list[str], folder: Path, workers: int) -> None:
    try:
        download_files(os.environ.get("AUTORESEARCH_BASE_URL") or url, names, folder, workers)
    except DataError as error:
        raise DataError(
            f"{error}; without a network train on the embedded text: AUTORESEARCH_DATASET=builtin"
        ) from None


def tinystories(downloads: Path, workers: int) -> Documents:
    """One file of short stories; a stable hash of the story sends one in fifty to validation."""
    folder = downloads / "tinystories"
    _download(TINYSTORIES_URL, [TINYSTORIES_FILE], folder, workers)
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
    train: list[str] = []
    val: list[str] = []
    for wheel in BUILTIN_WHEELS:
        for path, source in _wheel_sources(wheel):
            (val if _bucket(str(path.parent), 10) == 0 else train).extend(split_definitions(source))
    val = drop_duplicates(val)
    return Documents(drop_duplicates(train, seen=val), val)


def _distribution(wheel: str) -> metadata.Distribution:
    try:
        return metadata.distribution(wheel)
    except metadata.PackageNotFoundError:
        raise DataError(f"builtin: the {wheel} package is not installed; run `uv sync`") from None


def _wheel_sources(wheel: str) -> Iterator[tuple[PurePosixPath, str]]:
    files = _distribution(wheel).files
    if not files:
        raise DataError(f"builtin: the {wheel} package has no RECORD of its files; run `uv sync --reinstall`")
    for file in sorted(files, key=str):
        path, located = PurePosixPath(file), Path(str(file.locate()))
        if path.suffix == ".py" and path.parts[0] == wheel and not _is_test(path):
            data = located.read_bytes() if located.is_file() else b""
            if file.hash is None or file.hash.value != _record_hash(data):
                raise DataError(
                    f"builtin: {path} differs from what {wheel} was released with; run `uv sync --reinstall`"
                )
            yield path, data.decode()


def split_definitions(source: str) -> list[str]:
    """Cut Python source before each top-level class or function, its decorators and the comment above it."""
    lines = io.StringIO(source, newline=None).readlines()  # as the parser counts; splitlines() cuts at form feeds too
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
    pieces = ("".join(lines[a:b]).strip() for a, b in pairwise(cuts))
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
        ids = np.array(
            [words.setdefault(w, zlib.crc32(w.encode())) for w in re.findall(r"\w+|[^\w\s]", text)], np.uint64
        )
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
    docs = [text for path in _local_files(folder) for text in _read_local(path) if text.strip()]
    held_out = {text for text in docs if _bucket(text, 20) == 0}
    if docs and not held_out:  # a small folder: at least one
        held_out = {min(docs, key=lambda text: _bucket(text, 2**64))}
    train = [text for text in docs if text not in held_out]
    if not train:
        raise DataError(f"local:{folder}: {len(docs)} documents are too few to split into training and validation text")
    return Documents(train, [text for text in docs if text in held_out])


def _local_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"local:{folder}: there is no such folder; name one with {', '.join(LOCAL_SUFFIXES)} files")
    return sorted(path for path in folder.rglob("*") if path.suffix in LOCAL_SUFFIXES and path.is_file())


def _read_local(path: Path) -> Iterable[str]:
    if path.suffix == ".parquet":
        return ParquetText([path])
    try:
        text = path.read_text("utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as UTF-8 text ({first_line(error)}); mend or remove the file"
        ) from None
    if path.suffix == ".jsonl":
        return _jsonl_texts(path, text)
    if path.suffix == ".py":
        try:
            return split_definitions(text)
        except (SyntaxError, ValueError):  # ValueError: a NUL, before Python 3.12
            return [text]
    pieces = [""]
    for paragraph in re.split(r"(?<=\n\n)(?!\n)", text):
        if len(pieces[-1]) > LOCAL_PIECE_CHARS:
            pieces.append("")
        pieces[-1] += paragraph
    return pieces


def _jsonl_texts(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() cuts at U+2028 too, which JSON allows
        if line.strip():
            try:
                value = json.loads(line)
                document: str = value if isinstance(value, str) else value["text"]
                document.encode()  # neither a number nor half a surrogate pair
            except (ValueError, KeyError, TypeError, AttributeError):
                raise DataError(f'{path}:{number}: not a JSON string or an object with "text"; mend the line') from None
            yield document


def _is_test(path: PurePosixPath) -> bool:
    return any(
        part in ("tests", "testing", "benchmarks", "conftest.py") or part.startswith("test") for part in path.parts
    )


def _bucket(text: str, buckets: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") % buckets


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def first_line(error: BaseException) -> str:
    """What an exception says, or its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
