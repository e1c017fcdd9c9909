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
import hashlib
import json
import math
import os
import queue
import secrets
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock

from lab import recorder
from lab.datasets import DATASETS, Documents, documents, first_line, local_folder, source
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
    "small": Preset(seq_len=256, vocab_size=2048, eval_tokens=2048 * 256),
    "tiny": Preset(seq_len=64, vocab_size=512, eval_tokens=128 * 64),  # for tests: seconds, not minutes
}
BUILTIN_FINGERPRINTS = {512: "f5d73b53bff6", 2048: "e4d56379c146", 8192: "cb3252ca67d2"}  # by vocabulary

BOS = "<|bos|>"  # the only special token; opens every document and every row
# GPT-4's pre-tokenizer pattern with numbers cut at two digits, as nanochat uses it for small vocabularies.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
TOKENIZER_TRAINING_CHARS = 1_000_000_000  # the merges of a small vocabulary settle long before that
MAX_VOCAB = 65_535  # tokens are stored as uint16
CLIMBMIX_DEFAULT_SHARDS = 10
PACKING_BUFFER_DOCS = 1000  # documents best-fit packing chooses among
MANIFEST_VERSION = 2
HIDDEN_EVERY = 4  # every fourth validation document is out of sight of train.py, for evaluate.py
TIME_BUDGET_SECONDS = 300
LEAK_RATIO = 1e-3  # change of logits that must not change, over the change of those that may: above it is a leak
NOT_FINITE = "evaluation: the model's logits are not finite; its val_bpb is unknown"
VERIFIED_BYTES = 64 << 20  # files up to this size are hashed at every start, larger ones compared by size


def setting(name: str, default: float, least: float) -> float:
    """A number from the environment, at least `least`; whole where `least` is an int.

    Raises:
        SettingError: it is not such a number.
    """
    text = os.environ.get(name) or str(default)
    try:
        value = type(least)(text)
    except ValueError:
        value = math.nan
    if not least <= value < 2**63:
        kind = "whole number" if isinstance(least, int) else "number"
        raise SettingError(
            f"{name}={text}: give a {kind} from {least:g} on, or unset it for the default of {default:g}"
        )
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
    """$AUTORESEARCH_DATASET, else the larger of the downloaded data sets that is prepared, else builtin."""
    if name := os.environ.get("AUTORESEARCH_DATASET"):
        return name
    vocab_size = PRESETS[preset].vocab_size
    prepared = (name for name in DATASETS if (prepared_dir(name, vocab_size) / "manifest.json").exists())
    return next(prepared, "builtin")


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
        """Tokens in the vocabulary, BOS the last of them."""
        return PRESETS[self.preset].vocab_size

    @property
    def seq_len(self) -> int:
        """Tokens a row of x or y has."""
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
        raise DataError(
            f"the text is enough for {len(ranks)} of {vocab_size - 1} tokens: use more text or a smaller vocabulary"
        )
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
    name = dataset
    if dataset not in DATASETS:
        name = "local-" + hashlib.sha256(str(local_folder(dataset)).encode()).hexdigest()[:8]
    return cache_dir() / f"{name}-v{vocab_size}"


def prepare(dataset: str, preset: str, num_shards: int | None = None, workers: int = 8) -> Path:
    """Fetch, tokenize and store a data set unless it is there; returns its folder.

    The folder appears by one rename, complete; a second process that wants the same waits for the first. A data set
    whose source has changed (other files, another number of shards), or that another version of this file has
    prepared, is prepared again.

    Raises:
        DataError: unknown data set, no network, no space, or text that cannot be used.
    """
    folder = prepared_dir(dataset, PRESETS[preset].vocab_size)
    wanted = source(dataset, num_shards)
    if not _is_current(folder, wanted):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not _is_current(folder, wanted):
                    started = time.perf_counter()
                    num_shards = CLIMBMIX_DEFAULT_SHARDS if num_shards is None else num_shards
                    texts = documents(dataset, cache_dir() / "downloads", num_shards, workers)
                    _store(dataset, texts, folder, PRESETS[preset].vocab_size, source(dataset, num_shards))
                    print(f"prepared {dataset} in {time.perf_counter() - started:.0f} s: {folder}", flush=True)
        except OSError as error:
            why = error.strerror or error
            raise DataError(f"{folder}: cannot be written ({why}); free space or set AUTORESEARCH_CACHE") from None
    return folder


def _is_current(folder: Path, wanted: str | None) -> bool:
    """Is something prepared, from this source and by this version? Damage is left to `_verified_manifest`."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except ValueError:
        return True
    if not isinstance(manifest, dict):
        return True
    same_version = manifest.get("version", MANIFEST_VERSION) == MANIFEST_VERSION
    return same_version and (wanted is None or manifest.get("source") == wanted)


def _store(dataset: str, texts: Documents, folder: Path, vocab_size: int, made_of: str | None) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        tokenizer = train_tokenizer(texts.train, vocab_size)
        (partial / "tokenizer.json").write_text(json.dumps(tokenizer))
        encoding = make_encoding(tokenizer)
        token_bytes = [len(bytes.fromhex(token)) for token in tokenizer["tokens"]] + [0]
        np.save(partial / "token_bytes.npy", np.array(token_bytes, np.int32))
        for split, split_texts in _splits(texts).items():
            write_tokens(split_texts, encoding, partial / f"{split}.bin", partial / f"{split}.npy")
        files = {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(partial.iterdir())}
        facts = {"version": MANIFEST_VERSION, "dataset": dataset, "source": made_of, "vocab_size": vocab_size}
        facts |= {"fingerprint": _fingerprint(files), "files": files}
        (partial / "manifest.json").write_text(json.dumps(facts, indent=2))
        shutil.rmtree(folder, ignore_errors=True)  # stale, or without a manifest and so not data
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _splits(texts: Documents) -> dict[str, Iterable[str]]:
    """The texts by the name they are stored under: `val` measures an experiment, `hidden` is for evaluate.py alone."""
    hidden = (text for index, text in enumerate(texts.val) if index % HIDDEN_EVERY == HIDDEN_EVERY - 1)
    val = (text for index, text in enumerate(texts.val) if index % HIDDEN_EVERY != HIDDEN_EVERY - 1)
    return {"train": texts.train, "val": val, "hidden": hidden}


def _fingerprint(files: dict) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]


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
    prepare(dataset, preset)
    data = _read(dataset, preset)
    expected = BUILTIN_FINGERPRINTS.get(data.vocab_size) if dataset == "builtin" else None
    if expected and expected != data.fingerprint:
        note = f"note: builtin is {data.fingerprint} here, {expected} with the pinned packages"
        print(f"{note}: results form a track of their own", file=sys.stderr)
    return data


def _read(dataset: str, preset: str) -> Data:
    """What has been prepared, checked."""
    folder = prepared_dir(dataset, PRESETS[preset].vocab_size)
    manifest = _verified_manifest(folder)
    encoding = make_encoding(json.loads((folder / "tokenizer.json").read_text()))
    token_bytes = np.load(folder / "token_bytes.npy")
    splits = [_load_split(folder, name) for name in ("train", "val")]
    return Data(dataset, preset, manifest["fingerprint"], encoding, token_bytes, *splits)


def load_hidden(data: Data) -> Split:
    """The hidden part of the validation text, which only evaluate.py asks for; empty where documents are few."""
    return _load_split(prepared_dir(data.dataset, data.vocab_size), "hidden")


def _load_split(folder: Path, name: str) -> Split:
    path = folder / f"{name}.bin"  # an empty file cannot be mapped
    tokens = np.memmap(path, np.uint16, "r") if path.stat().st_size else np.empty(0, np.uint16)
    return Split(tokens, np.load(folder / f"{name}.npy"))


def _verified_manifest(folder: Path) -> dict:
    remedy = f"delete {folder} and run `uv run prepare.py` again"
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for name, facts in manifest["files"].items():
            size = (folder / name).stat().st_size
            if size != facts["bytes"] or (size <= VERIFIED_BYTES and _sha256(folder / name) != facts["sha256"]):
                raise DataError(f"{folder / name}: not the file that was prepared; {remedy}")
        if manifest["fingerprint"] != _fingerprint(manifest["files"]) or not {"vocab_size", "version"} <= {*manifest}:
            raise ValueError("the manifest contradicts itself")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: the prepared data is damaged ({first_line(error)}); {remedy}") from None
    return manifest


# ---------------------------------------------------------------------------------------------------------------
# Loader


def cut(split: Split, row_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """(starts, lengths) of the pieces of all documents: a document longer than a row is cut, so that its tail is read.

    What follows a cut gets a BOS of its own in the row: its length counts it, its start is the first stored token.
    """
    sizes = np.diff(split.offsets)
    counts = 1 + np.maximum(0, -(-(sizes - row_tokens) // (row_tokens - 1)))
    document = np.repeat(np.arange(len(sizes)), counts)
    nth = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = split.offsets[document] + nth * (row_tokens - 1) + (nth > 0)
    lengths = np.minimum(split.offsets[document + 1] - starts + (nth > 0), row_tokens)
    return starts, lengths


def pieces(split: Split, row_tokens: int, seed: int | None) -> Iterator[tuple[int, int, int]]:
    """(start, length, epoch) of every piece: shuffled epochs without end, or one in stored order (`seed` None).

    Pieces are shuffled, not documents: the rows of a long document must not fill whole batches.
    """
    starts, lengths = cut(split, row_tokens)
    epoch = 0
    while True:
        epoch += 1
        order = (
            np.arange(len(starts)) if seed is None else np.random.default_rng([seed, epoch]).permutation(len(starts))
        )
        for chunk in np.array_split(order, len(order) // 65536 + 1):  # lists are fast to walk, and large
            for start, length in zip(starts[chunk].tolist(), lengths[chunk].tolist(), strict=True):
                yield start, length, epoch
        if seed is None or not len(starts):
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
            self.ready.put(item)  # for whoever asks again
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


def evaluate_bpb(model: torch.nn.Module, data: Data, batch_size: int, device: torch.device) -> Evaluation:
    """Bits per byte of `model` on the fixed validation rows; lower is better. A run is evaluated once.

    `model(x)` takes int64 (batch_size, seq_len) and returns logits (batch_size, seq_len, vocab_size). The targets are
    never shown to it. The text is read anew from where it was prepared: of `data` only the names count. The run's
    folder gets what was measured (evaluation.json) and the weights it was measured with (checkpoint.safetensors).

    Raises:
        DataError: the logits have another shape, are not finite, or depend on what they may not (`row_losses`).
        SettingError: the run has been evaluated before.
    """
    data = _read(data.dataset, data.preset)
    rows, share = validation_rows(data)
    row_nats, row_bytes = row_losses(model, rows, data.token_bytes, batch_size, device)
    evaluation = bits_per_byte(row_nats, row_bytes, share, data.seq_len)
    if run := recorder.current():
        facts = {"val_bpb": evaluation.bpb, "val_bpb_stderr": evaluation.stderr, "eval_tokens": evaluation.tokens}
        facts |= {"eval_bytes": evaluation.bytes, "fingerprint": data.fingerprint, "track": frame(data)}
        run.evaluated(facts | {"row_nats": [round(nats, 3) for nats in row_nats.tolist()]})
        _save_weights(model, run.dir / recorder.CHECKPOINT)
    return evaluation


def bits_per_byte(row_nats: torch.Tensor, row_bytes: torch.Tensor, share: float, seq_len: int) -> Evaluation:
    """The metric from the loss in nats and the bytes of every row, float64 (rows,), `share` of all rows there are.

    Its standard error is that of a ratio estimator over rows (Cochran, Sampling Techniques, 6.4), with the finite
    population correction.
    """
    total_bytes = row_bytes.sum().item()
    bpb = row_nats.sum().item() / (math.log(2) * total_bytes)
    if not math.isfinite(bpb):
        raise DataError(NOT_FINITE)
    residual = row_nats / math.log(2) - bpb * row_bytes
    stderr = math.sqrt(residual.square().sum().item() * max(0.0, 1 - share)) / total_bytes
    return Evaluation(bpb, stderr, len(row_nats) * seq_len, int(total_bytes))


@torch.no_grad()
def row_losses(
    model: torch.nn.Module, rows: np.ndarray, token_bytes: np.ndarray, batch_size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Loss in nats, bytes) of every row, float64 (rows,). The loss is computed here, in float32, from the logits.

    It is to be divided by the bytes the targets stand for, so that vocabularies compare; BOS stands for none and counts
    neither way. Three batches, the first, the middle one and one that nobody can foresee, are probed: the logits of a
    position may depend on the tokens up to it in its row, and on nothing else.

    Raises:
        DataError: they do depend on something else, have another shape, or are not finite.
    """
    counts = torch.from_numpy(token_bytes).to(device)
    starts = range(0, len(rows), batch_size)
    probed = {starts[0], starts[len(starts) // 2], secrets.choice(starts)}
    nats, nbytes = [], []
    was_training = model.training
    model.eval()
    try:
        for at in starts:
            batch = torch.from_numpy(rows[at : at + batch_size].astype(np.int64)).to(device)
            real = len(batch)
            if real < batch_size:  # repeat rows rather than show a compiled model a new shape
                batch = batch[torch.arange(batch_size, device=device) % real]
            x, y = batch[:, :-1].contiguous(), batch[:, 1:]
            logits = _logits(model, x, len(token_bytes))
            losses = F.cross_entropy(logits.flatten(0, 1).float(), y.flatten(), reduction="none").view_as(y)
            counted = counts[y]
            nats.append((losses * (counted > 0)).sum(1, dtype=torch.float32)[:real].cpu().double())
            nbytes.append(counted.sum(1)[:real].cpu().double())
            if at in probed:
                _probe(model, x, logits.clone())
    finally:
        model.train(was_training)
    return torch.cat(nats), torch.cat(nbytes)


def _logits(model: torch.nn.Module, x: torch.Tensor, vocab_size: int) -> torch.Tensor:
    logits = model(x)
    # A subclass of Tensor could answer the loss function itself.
    shape = tuple(logits.shape) if type(logits) is torch.Tensor else type(logits).__name__
    if shape != (*x.shape, vocab_size):
        raise DataError(f"evaluation: model(x) must return logits {(*x.shape, vocab_size)}, not {shape}")
    return logits


def _probe(model: torch.nn.Module, x: torch.Tensor, logits: torch.Tensor) -> None:
    """Refuse a model whose logits depend on a later token, on another row, or on more than its input."""
    if not torch.isfinite(logits).all():
        raise DataError(NOT_FINITE)
    vocab_size, (rows, length) = logits.shape[-1], x.shape
    rng = np.random.default_rng()  # seeded by the system: what is changed, and where, cannot be foreseen
    noise = (x + torch.from_numpy(rng.integers(1, vocab_size - 1, x.shape)).to(x)) % (vocab_size - 1)  # no token stays
    spread = 1 + ((np.arange(rows) + rng.random()) / rows * (length - 1)).astype(int)  # another place in each row

    def change(inputs: torch.Tensor) -> torch.Tensor:
        """How much the prediction at each position differs, squared (rows, length)."""
        # Of probabilities: these are bounded, so that no large or unused logit hides the change of another.
        return (_logits(model, inputs, vocab_size).float().softmax(-1) - usual).square().sum(-1)

    usual = logits.float().softmax(-1)
    changed = change(torch.cat([x[:1], noise[1:]]))
    if rows > 1 and _leaks(changed[0], changed[1:]):
        raise DataError("evaluation: the logits of a row change with the other rows of its batch")
    for cuts in (np.full(rows, length // 3), np.full(rows, length - 1), spread):
        behind = torch.arange(length, device=x.device) >= torch.from_numpy(cuts).to(x)[:, None]
        changed = change(torch.where(behind, noise, x))
        if _leaks(changed[~behind], changed[behind]):
            raise DataError(
                "evaluation: logits at a position change with the tokens behind it: the model sees the future"
            )
    if _leaks(change(x), changed):
        raise DataError("evaluation: the same tokens give other logits the second time")


def _leaks(forbidden: torch.Tensor, allowed: torch.Tensor) -> bool:
    """Whether what must not change does so, measured by what may."""
    return forbidden.sum().sqrt().item() > LEAK_RATIO * allowed.sum().sqrt().item()


def _save_weights(model: torch.nn.Module, path: Path) -> None:
    """Keep the weights for evaluate.py. A run does not fail for want of them."""
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    partial = path.with_name(f".{path.name}")
    try:
        save_model(model, str(partial))
        partial.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        print(
            f"warning: the weights are not kept, the run cannot be evaluated again: {first_line(error)}",
            file=sys.stderr,
        )
        partial.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------
# The clock


class Clock:
    """The time budget of a run: $AUTORESEARCH_TIME_BUDGET seconds (default 300) from `start()`, every second counted.

    $AUTORESEARCH_STEPS=N trains N steps instead, for exact repeats; either makes a track of its own.

    Raises:
        SettingError: one of the two is not such a number.
    """

    def __init__(self) -> None:
        self.seconds = setting("AUTORESEARCH_TIME_BUDGET", TIME_BUDGET_SECONDS, least=0.1)
        self.max_steps = setting("AUTORESEARCH_STEPS", 0, least=0)  # 0: no limit
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
    """Steps taken inside compile and warm up off the clock; weights, optimizers and random state are put back after."""
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


def frame(data: Data) -> str:
    """What of its track a run has from its data, e.g. `builtin.3fa9c1-v1024-t256-`."""
    name = data.dataset if data.dataset in DATASETS else "local"
    return f"{name}.{data.fingerprint[:6]}-v{data.vocab_size}-t{data.seq_len}-"


def track(data: Data, clock: Clock, device_class: str) -> str:
    """What two runs must share to be compared, e.g. `builtin.3fa9c1-v1024-t256-300s/EPYC-2c`."""
    return f"{frame(data)}{clock.label}/{device_class}"


# ---------------------------------------------------------------------------------------------------------------
# Command line


def status() -> None:
    """Print what is prepared and downloaded, one line each."""
    root = cache_dir()
    print(f"cache: {root}")
    for manifest_path in sorted(root.glob("*-v*[0-9]/manifest.json")):
        folder = manifest_path.parent
        if not _is_current(folder, None):
            print(f"{folder.name}: prepared by another version of prepare.py, and again when it is needed")
            continue
        manifest = _verified_manifest(folder)
        train, val = (manifest["files"][f"{split}.bin"]["bytes"] // 2 for split in ("train", "val"))
        name, vocab_size = manifest["dataset"], manifest["vocab_size"]
        sizes = f"{train:,} training and {val:,} validation tokens"
        print(f"{name}: vocabulary {vocab_size}, {sizes}, fingerprint {manifest['fingerprint']}")
    for folder in sorted(root.glob("downloads/*")):
        files = list(folder.glob("*.parquet"))
        print(f"{folder.name}: {len(files)} files downloaded, {sum(f.stat().st_size for f in files) / 1e9:.2f} GB")
    if not any(root.glob("*-v*[0-9]/manifest.json")):
        preset = default_preset()
        print(f"nothing is prepared yet; train.py would prepare {default_dataset(preset)} for the preset {preset}")


def main() -> None:
    """Prepare a data set, or say what is there."""
    parser = argparse.ArgumentParser(description="Prepare data and tokenizer for train.py.")
    parser.add_argument(
        "--dataset", help="climbmix (default on CUDA), builtin (default elsewhere), tinystories, local:PATH"
    )
    parser.add_argument("--preset", choices=PRESETS, help="default: gpu on CUDA, small elsewhere")
    parser.add_argument("--num-shards", type=int, help="climbmix training shards to download, -1 for all (default 10)")
    parser.add_argument("--download-workers", type=int, default=8, help="parallel downloads (default 8)")
    parser.add_argument("--status", action="store_true", help="say what is prepared and downloaded")
    args = parser.parse_args()
    try:
        if args.status:
            return status()
        preset = args.preset or default_preset()
        named = args.dataset or os.environ.get("AUTORESEARCH_DATASET")
        dataset = named or ("climbmix" if detect_platform() == "cuda" else default_dataset(preset))
        prepare(dataset, preset, args.num_shards, args.download_workers)
        data = load_data(dataset, preset)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    facts = f"vocabulary {data.vocab_size}, {len(data.train.tokens):,} training tokens"
    print(f"ready: {dataset}, {facts}, fingerprint {data.fingerprint}")


if __name__ == "__main__":
    main()
