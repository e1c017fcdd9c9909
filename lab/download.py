"""Download parquet files over HTTP so that an interrupted transfer is never taken for data.

    download_files("https://host/path", ["shard_00000.parquet", ...], Path("cache/base_data"))

A body grows in NAME.part; beside it NAME.part.tag holds the ETag (or Last-Modified) it belongs to, so the next attempt,
in this run or in another, asks only for the missing bytes of that very version. NAME itself appears by rename, after
the length and the parquet footer were checked. Delete *.part* at any time: it costs only the bytes already fetched.

Does not cover: a checksum of the content (servers announce none that all share), a power cut that loses bytes which a
later run then resumes behind, and a server that trickles a byte now and then (only silence counts as a stall).
"""

import os
import queue
import random
import re
import sys
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import requests
from filelock import FileLock, Timeout
from requests.exceptions import ChunkedEncodingError, ContentDecodingError, SSLError
from tqdm import tqdm

from lab.errors import DataError

ATTEMPTS = 6  # per file and in a row; an attempt that got further than any before it starts the count anew
BACKOFF_SECONDS = 0.5  # before the second attempt; doubles each time, times a random 0.5 to 1.5
BACKOFF_MAX_SECONDS = 30.0
RETRY_AFTER_MAX_SECONDS = 120.0  # the most a server can make us wait
TIMEOUT_SECONDS = 20.0  # to connect, and between two bytes
CHUNK_BYTES = 1 << 14  # at most this much of what arrived is lost with a connection
PROGRESS_LINE_SECONDS = 5.0  # where stderr is no terminal
STOP_GRACE_SECONDS = 1.0  # for threads that are writing when the download is over


def download_files(base_url: str, names: list[str], folder: Path, workers: int = 8) -> None:
    """Bring every parquet file of `names` from `base_url`/NAME into `folder`, `workers` at a time.

    Files that are there already are not asked for. A second process waits for the first and then fetches what is
    still missing. The first file that cannot be had stops all others and raises DataError, one line; Ctrl-C stops at
    once. Both leave what has arrived for the next run to resume.
    """
    names = list(dict.fromkeys(names))
    if all(_looks_complete(folder / name) for name in names):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _sole_downloader(folder):
            base_url, stop = base_url.rstrip("/"), threading.Event()
            missing = [name for name in names if not _looks_complete(folder / name)]
            _run_all([_Transfer(f"{base_url}/{name}", folder / name, stop) for name in missing], workers, stop)
    except _Fault as fault:
        there = sum(_looks_complete(folder / name) for name in names)
        raise DataError(
            f"cannot download {fault.why}; {there} of {len(names)} files are in {folder}; "
            "run again: finished files are kept, partial ones resume"
        ) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(f"cannot download into {folder}: {why}; make it a writable folder") from None


def _looks_complete(path: Path) -> bool:
    """Does `path` begin and end as a parquet file does? Cheap: only a rename after full checks puts our files there."""
    try:
        with open(path, "rb") as file:
            head = file.read(4)
            file.seek(-4, os.SEEK_END)
            return head == file.read(4) == b"PAR1" and file.tell() >= 12
    except OSError:  # absent, or shorter than its own ending
        return False


def _is_parquet(path: Path) -> bool:
    """Does `path` look complete, and can its footer be read?"""
    try:
        pq.read_metadata(path)
        return _looks_complete(path)
    except (pa.ArrowException, OSError):  # pyarrow's name for a footer that is no thrift is OSError
        return False


def _sole_downloader(folder: Path) -> AbstractContextManager[object]:
    """The folder's lock, taken; leaving the context frees it, and so does the kernel when its holder is killed."""
    lock = FileLock(folder / ".download.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is downloading into {folder}: waiting for it", file=sys.stderr, flush=True)
        return lock.acquire()


class _Fault(Exception):
    """An attempt failed: why, and the least wait in seconds before another one (None: another would fail too)."""

    def __init__(self, why: str, wait_seconds: float | None = 0.0) -> None:
        super().__init__(why)
        self.why = why
        self.wait_seconds = wait_seconds


class _Stopped(Exception):
    """The download as a whole is over; this transfer leaves its part for the next run."""


class _Transfer:
    """One file on its way from `url` to `path`. `have` and `size` are bytes, read by the progress display."""

    def __init__(self, url: str, path: Path, stop: threading.Event) -> None:
        self.url, self.path, self.stop = url, path, stop
        self.part = path.with_name(path.name + ".part")
        self.tag = path.with_name(path.name + ".part.tag")
        self.have = 0
        self.size: int | None = None

    def run(self, session: requests.Session) -> None:
        """Attempt until the file is there. Raises _Fault, naming it, when that is hopeless, _Stopped if told."""
        shown = re.sub("//[^/]*@", "//", self.url)  # a message may end up in a shared card: no password
        failures, furthest = 0, 0
        while True:
            try:
                return self._attempt(session)
            except _Fault as fault:
                failures = 1 if self.have > furthest else failures + 1
                furthest = max(furthest, self.have)
                if fault.wait_seconds is None or failures >= ATTEMPTS:
                    tried = f" ({failures} attempts in a row)" if failures > 1 else ""
                    raise _Fault(f"{shown}: {fault.why}{tried}") from None
                backoff = min(BACKOFF_SECONDS * 2 ** (failures - 1), BACKOFF_MAX_SECONDS) * random.uniform(0.5, 1.5)
                wait_seconds = max(backoff, fault.wait_seconds)
            except OSError as error:
                raise _Fault(f"{shown}: {error.strerror or error} (writing {self.part.name})") from None
            if self.stop.wait(wait_seconds):
                raise _Stopped

    def _attempt(self, session: requests.Session) -> None:
        offset, validator = self._resume_point()
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
        with _get(session, self.url, headers) as response:
            start = self._start_of_body(response, offset, validator)
            if start is not None:
                self._save(response, start)
        self._finish()

    def _resume_point(self) -> tuple[int, str]:
        """Bytes in the part and the validator they belong to; (0, "") when either is missing or damaged."""
        try:
            validator = self.tag.read_text(encoding="latin-1")
            offset = self.part.stat().st_size
        except FileNotFoundError:
            return 0, ""
        return (offset, validator) if re.fullmatch("[!-~][ -~]*", validator) else (0, "")

    def _start_of_body(self, response: requests.Response, offset: int, validator: str) -> int | None:
        """The byte at which the body of this answer belongs, None when no byte is missing. Sets `size` if announced."""
        status, content_range = response.status_code, response.headers.get("Content-Range", "")
        if status == 200:
            self._discard()
            # Known before the first byte is kept: bytes of unknown origin are never continued.
            self.tag.write_text(_validator(response), encoding="latin-1")
            self.size = None if "Content-Encoding" in response.headers else response.raw.length_remaining
            return 0
        if status == 416 and offset and content_range == f"bytes */{offset}":
            self.have = self.size = offset
            return None
        if status in (206, 416):
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", content_range, re.ASCII)
            if status == 206 and span and int(span[1]) == offset and validator and _validator(response) == validator:
                self.size = int(span[2])
                return offset
            self._discard()
            span_shown = repr(content_range[:60])
            raise _Fault(f"HTTP {status} with Content-Range {span_shown} does not continue our {offset:,} bytes")
        if status in (408, 429) or status >= 500:
            wait = response.headers.get("Retry-After", "")
            seconds = float(wait) if re.fullmatch(r"\d+", wait, re.ASCII) else 0.0  # a date is left to the back-off
            raise _Fault(f"HTTP {status}", min(seconds, RETRY_AFTER_MAX_SECONDS))
        raise _Fault(f"HTTP {status}", None)

    def _save(self, response: requests.Response, start: int) -> None:
        """Write the body to the part from byte `start` on. Raises _Fault unless every announced byte arrived."""
        self.have = start
        with open(self.part, "r+b" if start else "wb") as file:
            file.seek(start)
            try:
                for chunk in response.iter_content(CHUNK_BYTES):
                    if self.stop.is_set():
                        raise _Stopped
                    file.write(chunk)
                    self.have += len(chunk)
            except (ChunkedEncodingError, ContentDecodingError, SSLError):
                raise _Fault(f"truncated after {self._so_far()}") from None
            except requests.ConnectionError:  # how requests names a read timeout inside a body
                raise _Fault(f"silent for {TIMEOUT_SECONDS:g} s after {self._so_far()}") from None
            file.flush()
            os.fsync(file.fileno())
        if self.size is not None and self.have != self.size:
            so_far = self._so_far()
            if self.have > self.size:
                self._discard()
            raise _Fault(f"ended after {so_far}")

    def _so_far(self) -> str:
        return f"{self.have:,} of {self.size:,} bytes" if self.size is not None else f"{self.have:,} bytes"

    def _finish(self) -> None:
        """Move the part to its name if it is parquet; else throw it away and raise _Fault."""
        if not _is_parquet(self.part):
            with open(self.part, "rb") as file:
                head = file.read(8)
            why = f"{self.have:,} bytes that are not a parquet file (they begin with {head!r})"
            self._discard()
            raise _Fault(why)
        if self.stop.is_set():
            raise _Stopped
        os.replace(self.part, self.path)
        self.tag.unlink(missing_ok=True)

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)
        self.have = 0


def _get(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    """The answer with its body still to be read. Raises _Fault where there is none."""
    try:
        return session.get(url, headers=headers, timeout=TIMEOUT_SECONDS, stream=True)
    except requests.Timeout:
        raise _Fault(f"no answer within {TIMEOUT_SECONDS:g} s") from None
    except requests.ConnectionError as error:
        raise _Fault(_root_cause(error)) from None
    except requests.TooManyRedirects:
        raise _Fault("redirected in circles", None) from None
    except (requests.RequestException, ValueError):  # an address that is none
        raise _Fault("not an address to download from", None) from None


def _root_cause(error: BaseException) -> str:
    """What the operating system said below requests and urllib3, e.g. "Connection refused"; else "connection lost"."""
    why = "connection lost"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            why = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return why


def _validator(response: requests.Response) -> str:
    """What If-Range may carry: a strong ETag, else Last-Modified; "" when a later request cannot name these bytes."""
    if "Content-Encoding" in response.headers:  # the bytes we keep are decoded, those of a range would not be
        return ""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _run_all(transfers: list[_Transfer], workers: int, stop: threading.Event) -> None:
    """Run the transfers in threads and draw their progress. The first exception stops all and is raised here."""
    waiting: queue.SimpleQueue[_Transfer] = queue.SimpleQueue()
    ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    for transfer in transfers:
        waiting.put(transfer)

    def work() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                try:
                    waiting.get_nowait().run(session)
                    ended.put(None)
                except queue.Empty:
                    return
                except Exception as error:  # `_watch` raises it again
                    ended.put(error)

    # Daemons, because nothing wakes a thread that waits for a silent server: Ctrl-C must not wait with it.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(transfers)))]
    for thread in threads:
        thread.start()
    try:
        _watch(transfers, ended)
    finally:
        stop.set()
        # A thread still alive after this reads from a socket and looks at `stop` before it writes.
        deadline = time.monotonic() + STOP_GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _watch(transfers: list[_Transfer], ended: queue.SimpleQueue[Exception | None]) -> None:
    """Draw a bar on a terminal, elsewhere a line now and then, until every transfer has ended or one has failed."""
    done, next_line = 0, time.monotonic() + PROGRESS_LINE_SECONDS
    with tqdm(unit="B", unit_scale=True, disable=None) as bar:
        while done < len(transfers):
            try:
                error = ended.get(timeout=0.2)
                if error is not None:
                    raise error
                done += 1
            except queue.Empty:
                pass
            have = sum(transfer.have for transfer in transfers)
            if not bar.disable:
                sizes = [transfer.size for transfer in transfers if transfer.size is not None]
                bar.total = sum(sizes) * len(transfers) // len(sizes) if sizes else None  # the rest is about as large
                bar.n = have
                bar.set_description(f"{done} of {len(transfers)} files")
            elif done == len(transfers) or time.monotonic() >= next_line:
                print(f"downloaded {done} of {len(transfers)} files, {have / 1e6:.1f} MB", file=sys.stderr, flush=True)
                next_line = time.monotonic() + PROGRESS_LINE_SECONDS
