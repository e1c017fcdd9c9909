"""Downloads against a real HTTP server on loopback that drops, stalls, truncates and lies.

Every file on the server has a script: one fault per request, in order, and honest service when the script is over.
The server keeps what it was asked and how many body bytes it sent, so a test can prove that a resume did not fetch
everything again. Does not cover TLS and name resolution.
"""

import fcntl
import gzip
import hashlib
import http.server
import io
import os
import pty
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab import download
from lab.download import download_files
from lab.errors import DataError

HANG_SECONDS = 60  # only a guard: no test passes or fails by it unless something hangs


def parquet(seed: int, rows: int = 20) -> bytes:
    """A parquet file of about `rows` x 10 kB that does not compress."""
    noise = random.Random(seed)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": [noise.randbytes(10_000) for _ in range(rows)]}), buffer)
    return buffer.getvalue()


ONE, OTHER, SMALL = parquet(1), parquet(2), parquet(3, rows=1)


@dataclass
class Request:
    """What the client asked for in one GET, and how much it was sent."""

    range: str | None
    if_range: str | None
    encoding: str | None
    sent: int = 0  # bytes of the body


@dataclass
class Served:
    """One file on the server, its faults to come and its requests so far."""

    content: bytes
    script: "list[Fault]" = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    tagged: bool = True  # are there an ETag and ranges?


class Server(http.server.ThreadingHTTPServer):
    """The files by name; `release` ends every silence."""

    daemon_threads = True
    block_on_close = False  # stalled handlers end with `release`

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, Served] = {}
        self.release = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the game."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection; a fault is a function of it."""

    protocol_version = "HTTP/1.1"
    server: Server
    file: Served
    request_seen: Request

    def do_GET(self) -> None:
        """Answer with the file's next fault, or honestly."""
        self.file = self.server.files[self.path.rsplit("/", 1)[-1]]
        self.request_seen = Request(*map(self.headers.get, ("Range", "If-Range", "Accept-Encoding")))
        self.file.requests.append(self.request_seen)
        fault = self.file.script.pop(0) if self.file.script else good
        fault(self)

    def head(self, status: int, **headers: object) -> None:
        """Send the status and the headers; an underscore stands for a dash."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def body(self, data: bytes) -> None:
        """Send body bytes and count them."""
        for at in range(0, len(data), 8192):
            self.wfile.write(data[at : at + 8192])
            self.request_seen.sent += len(data[at : at + 8192])

    def hang_up(self) -> None:
        """Close the connection after this answer."""
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""


Fault = Callable[[Handler], None]


def etag(content: bytes) -> str:
    """A strong ETag: equal for equal content."""
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def answer(h: Handler) -> tuple[int, dict[str, object], bytes]:
    """What an honest server answers: status, headers, body."""
    content = h.file.content
    headers: dict[str, object] = {"ETag": etag(content)} if h.file.tagged else {}
    asked = re.fullmatch(r"bytes=(\d+)-", h.request_seen.range or "")
    if asked is None or not h.file.tagged or h.request_seen.if_range != etag(content):
        return 200, headers | {"Content_Length": len(content)}, content
    start = int(asked[1])
    if start >= len(content):
        return 416, headers | {"Content_Length": 0, "Content_Range": f"bytes */{len(content)}"}, b""
    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return 206, headers | {"Content_Length": len(content) - start, "Content_Range": span}, content[start:]


def good(h: Handler) -> None:
    """Serve honestly."""
    status, headers, body = answer(h)
    h.head(status, **headers)
    h.body(body)


def drop(share: float) -> Fault:
    """Hang up politely after a share of the announced body: what a proxy or a restarted server does."""

    def fault(h: Handler) -> None:
        status, headers, body = answer(h)
        h.head(status, **headers)
        h.body(body[: int(len(body) * share)])
        h.hang_up()

    return fault


def reset(h: Handler) -> None:
    """Tear the connection down (RST) after half of the body."""
    drop(0.5)(h)
    h.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    h.connection.close()


def stall(h: Handler) -> None:
    """Fall silent after half of the body, with the connection open; send the rest when released."""
    status, headers, body = answer(h)
    h.head(status, **headers)
    h.body(body[: len(body) // 2])
    h.server.release.wait(HANG_SECONDS)
    h.body(body[len(body) // 2 :])


def silent(h: Handler) -> None:
    """Accept the request and never answer."""
    h.server.release.wait(HANG_SECONDS)
    h.hang_up()


def announce(difference: int) -> Fault:
    """Lie about the length by `difference` bytes and send the whole content."""

    def fault(h: Handler) -> None:
        status, headers, body = answer(h)
        h.head(status, **headers | {"Content_Length": len(body) + difference})
        h.body(body)
        h.hang_up()

    return fault


def no_length(h: Handler) -> None:
    """Send everything and announce nothing."""
    status, headers, body = answer(h)
    del headers["Content_Length"]
    h.head(status, **headers, Connection="close")
    h.body(body)


def no_length_cut(h: Handler) -> None:
    """Without a length and cut short: only the parquet footer tells."""
    h.head(200, Connection="close")
    h.body(h.file.content[:-20])


def chunked(last: bytes = b"0\r\n\r\n") -> Fault:
    """Send everything in chunks, with `last` in place of the end."""

    def fault(h: Handler) -> None:
        status, headers, body = answer(h)
        del headers["Content_Length"]
        h.head(status, **headers, Transfer_Encoding="chunked")
        for at in range(0, len(body), 50_000):
            piece = body[at : at + 50_000]
            h.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            h.request_seen.sent += len(piece)
        h.wfile.write(last)
        h.hang_up()

    return fault


def gzipped(h: Handler, share: float = 1.0) -> None:
    """Compress although identity was asked for."""
    body = gzip.compress(h.file.content)
    h.head(200, Content_Encoding="gzip", Content_Length=len(body), ETag=etag(h.file.content))
    h.body(body[: int(len(body) * share)])
    h.hang_up()


def status(code: int, **headers: object) -> Fault:
    """Answer with a bare status."""
    return lambda h: h.head(code, Content_Length=0, **headers)


def page(h: Handler) -> None:
    """A captive portal or an error page, with status 200."""
    body = b"<!DOCTYPE html><title>Sign in</title>" + b" " * 500
    h.head(200, Content_Length=len(body), Content_Type="text/html")
    h.body(body)


def bad_footer(h: Handler) -> None:
    """Right length, PAR1 at both ends, and a footer that is nonsense."""
    content = h.file.content
    h.head(200, Content_Length=len(content), ETag=etag(content))
    h.body(content[:-200] + bytes(196) + b"PAR1")


def whole_file(h: Handler) -> None:
    """Ignore Range."""
    h.head(200, Content_Length=len(h.file.content), ETag=etag(h.file.content))
    h.body(h.file.content)


def wrong_range(h: Handler) -> None:
    """Answer 206 with the right validator and the first bytes in place of the missing ones."""
    content, half = h.file.content, len(h.file.content) // 2
    span = f"bytes 0-{half - 1}/{len(content)}"
    h.head(206, Content_Length=half, Content_Range=span, ETag=etag(content))
    h.body(content[:half])


def other_range(h: Handler) -> None:
    """Ignore If-Range and continue with the bytes of a new version."""
    content, start = OTHER, int((h.request_seen.range or "bytes=0-")[6:-1])
    h.file.content = OTHER
    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
    h.head(206, Content_Length=len(content) - start, Content_Range=span, ETag=etag(content))
    h.body(content[start:])


def piece(h: Handler) -> None:
    """Answer a range with no more than its first 20,000 bytes, as a server may."""
    status, headers, body = answer(h)
    assert status == 206
    start = len(h.file.content) - len(body)
    span = f"bytes {start}-{start + 19_999}/{len(h.file.content)}"
    h.head(206, **headers | {"Content_Length": 20_000, "Content_Range": span})
    h.body(body[:20_000])


def changed(h: Handler) -> None:
    """The file was replaced on the server between two attempts."""
    h.file.content = OTHER
    good(h)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """The server of this module's tests."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server with empty shelves, and retries that do not wait."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    running.files, running.release = {}, threading.Event()
    yield running
    running.release.set()


def shelve(server: Server, *faults: Fault, content: bytes = ONE, name: str = "a.parquet", **more: bool) -> Served:
    """Put a file on the server."""
    server.files[name] = Served(content, list(faults), **more)
    return server.files[name]


def leftovers(folder: Path) -> list[str]:
    """What is in the folder, apart from the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".download.lock")


def failure(server: Server, folder: Path, names: list[str]) -> str:
    """The message of the download that fails, without the part that every message ends with."""
    with pytest.raises(DataError) as caught:
        download_files(server.url, names, folder, workers=1)
    message = str(caught.value)
    end = f" files are in {folder}; run again: finished files are kept, partial ones resume"
    assert message.startswith(f"cannot download {server.url}/") and message.endswith(end) and "\n" not in message
    return message.removeprefix(f"cannot download {server.url}/").removesuffix(end)


def test_files_arrive_whole_and_are_not_asked_for_again(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = {f"{i}.parquet": parquet(10 + i, rows=2) for i in range(12)}
    for name, content in contents.items():
        shelve(server, content=content, name=name)
    folder = tmp_path / "deep" / "data"

    download_files(server.url + "/", [*contents, "0.parquet"], folder, workers=4)

    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == contents
    assert leftovers(folder) == sorted(contents)
    megabytes = sum(map(len, contents.values())) / 1e6
    assert capsys.readouterr().err.splitlines()[-1] == f"downloaded 12 of 12 files, {megabytes:.1f} MB"
    download_files(server.url, list(contents), folder)
    assert [len(file.requests) for file in server.files.values()] == [1] * 12


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        pytest.param(reset, 2, id="connection reset"),
        pytest.param(drop(0.0), 2, id="dropped before the body"),
        pytest.param(drop(0.3), 2, id="dropped inside the body"),
        pytest.param(announce(+1000), 2, id="announces too much"),
        pytest.param(announce(-1000), 2, id="announces too little"),
        pytest.param(no_length, 1, id="no length"),
        pytest.param(no_length_cut, 2, id="no length and cut short"),
        pytest.param(chunked(), 1, id="chunked"),
        pytest.param(chunked(last=b""), 2, id="chunked without an end"),
        pytest.param(chunked(last=b"not a length\r\n"), 2, id="chunked with a broken end"),
        pytest.param(gzipped, 1, id="compressed"),
        pytest.param(page, 2, id="an HTML page"),
        pytest.param(bad_footer, 2, id="corrupt footer"),
        pytest.param(wrong_range, 2, id="a range nobody asked for"),
        pytest.param(status(500), 2, id="500"),
        pytest.param(status(503, Retry_After="soon"), 2, id="503 with a strange Retry-After"),
        pytest.param(status(408), 2, id="408"),
        pytest.param(status(416), 2, id="416 to a request without a range"),
        pytest.param(status(302, Location="/elsewhere/a.parquet"), 2, id="redirect"),
    ],
)
def test_one_fault_is_survived(server: Server, tmp_path: Path, fault: Fault, requests: int) -> None:
    file = shelve(server, fault)
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE
    assert leftovers(tmp_path) == ["a.parquet"]
    assert len(file.requests) == requests


def test_resume_fetches_only_what_is_missing(server: Server, tmp_path: Path) -> None:
    file = shelve(server, drop(0.5), drop(0.5), reset)
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE
    asked = [int((request.range or "bytes=0-")[6:-1]) for request in file.requests]
    assert [request.if_range for request in file.requests] == [None, etag(ONE), etag(ONE), etag(ONE)]
    for (start, following), request in zip(pairwise(asked[:3]), file.requests[:2], strict=True):
        assert 0 <= start + request.sent - following < download.CHUNK_BYTES
    assert asked[2] <= asked[3]  # a torn connection may lose all that was on its way
    assert asked[-1] + file.requests[-1].sent == len(ONE)


def test_a_range_may_come_in_pieces(server: Server, tmp_path: Path) -> None:
    file = shelve(server, drop(0.5), *[piece] * 3)
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE
    asked = [int((request.range or "bytes=0-")[6:-1]) for request in file.requests]
    assert [following - start for start, following in pairwise(asked[1:])] == [20_000] * 3


def test_compressed_bytes_are_not_asked_for_and_not_continued(server: Server, tmp_path: Path) -> None:
    file = shelve(server, lambda h: gzipped(h, share=0.5))
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE
    assert [(request.encoding, request.range) for request in file.requests] == [("identity", None)] * 2


def test_a_server_without_validators_starts_from_zero(server: Server, tmp_path: Path) -> None:
    file = shelve(server, drop(0.5), tagged=False)
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE
    assert [request.range for request in file.requests] == [None, None]


@pytest.mark.parametrize(
    "answer_to_range",
    [
        pytest.param(whole_file, id="ignores Range"),
        pytest.param(wrong_range, id="another range"),
        pytest.param(status(206), id="206 without Content-Range"),
        pytest.param(status(416), id="416"),
        pytest.param(status(416, Content_Range="bytes */7"), id="416 for a shorter file"),
    ],
)
def test_a_refused_range_starts_from_zero(server: Server, tmp_path: Path, answer_to_range: Fault) -> None:
    file = shelve(server, drop(0.5), answer_to_range)
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE
    assert file.requests[1].range not in (None, "bytes=0-")
    assert all(request.range is None for request in file.requests[2:])


@pytest.mark.parametrize("change", [changed, other_range])
def test_two_versions_are_never_glued(server: Server, tmp_path: Path, change: Fault) -> None:
    shelve(server, drop(0.5), change)
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == OTHER


@pytest.mark.parametrize(("fault", "resumed"), [(stall, True), (silent, False)])
def test_a_stalled_server_is_asked_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, resumed: bool
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.3)
    file = shelve(server, fault)
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE
    assert (file.requests[1].range is not None) == resumed


def test_retry_after_is_honoured(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that counts a request made too early as one more offence: only patience gets the file."""
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    allowed_from = time.monotonic() + HANG_SECONDS

    def busy(h: Handler) -> None:
        nonlocal allowed_from
        allowed_from = time.monotonic() + 1
        status(429, Retry_After=1)(h)

    def bouncer(h: Handler) -> None:
        (good if time.monotonic() >= allowed_from else status(403))(h)

    shelve(server, busy, bouncer)
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE


def test_retry_after_is_capped(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RETRY_AFTER_MAX_SECONDS", 0.01)
    shelve(server, status(429, Retry_After="9" * 30))
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE


def test_attempts_that_get_further_are_not_counted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    file = shelve(server, *[drop(0.5)] * 3)
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE
    assert len(file.requests) == 4


def test_attempts_that_get_no_further_are_counted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 3)
    shelve(server, drop(0.5), status(503), status(500))
    assert failure(server, tmp_path, ["a.parquet"]) == "a.parquet: HTTP 500 (3 attempts in a row); 0 of 1"
    assert leftovers(tmp_path) == ["a.parquet.part", "a.parquet.part.tag"]


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_final(server: Server, tmp_path: Path, code: int) -> None:
    shelve(server, name="first.parquet", content=SMALL)
    file = shelve(server, *[status(code)] * 2)
    names = ["first.parquet", "a.parquet", "never-asked.parquet"]
    assert failure(server, tmp_path, names) == f"a.parquet: HTTP {code}; 1 of 3"
    assert len(file.requests) == 1
    assert leftovers(tmp_path) == ["first.parquet"]


def test_after_a_failure_the_rest_comes_with_the_next_run(server: Server, tmp_path: Path) -> None:
    """The first failure ends the others at once, even one that waits for a silent server; what they have is kept."""
    part = tmp_path / "b.parquet.part"

    def missing_later(h: Handler) -> None:
        wait_for(lambda: size(part) > 0)
        status(404)(h)

    refused, stalled = shelve(server, missing_later), shelve(server, stall, name="b.parquet")
    with pytest.raises(DataError, match=r"/a\.parquet: HTTP 404; 0 of 2 files are in ") as caught:
        download_files(server.url, ["a.parquet", "b.parquet"], tmp_path)
    kept = size(part)
    server.release.set()  # the silent server speaks again, to a thread that has nothing more to write
    wait_for(lambda: not any("(work)" in thread.name for thread in threading.enumerate()))
    assert leftovers(tmp_path) == ["b.parquet.part", "b.parquet.part.tag"] and size(part) == kept
    download_files(server.url, ["a.parquet", "b.parquet"], tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("a.parquet", "b.parquet")] == [ONE, ONE]
    assert [len(refused.requests), stalled.requests[1].range] == [2, f"bytes={kept}-"]
    assert caught.value.__traceback__ is not None  # alive until here: the lock is not freed by collecting it


@pytest.mark.parametrize(
    ("fault", "why", "kept"),
    [
        pytest.param(status(503), "HTTP 503", [], id="503"),
        pytest.param(
            page, f"537 bytes that are not a parquet file (they begin with {b'<!DOCTYP'!r})", [], id="an HTML page"
        ),
        pytest.param(
            bad_footer, f"{len(ONE):,} bytes that are not a parquet file (they begin with {ONE[:8]!r})", [], id="footer"
        ),
        pytest.param(
            announce(-1000),
            f"{len(ONE) - 1000:,} bytes that are not a parquet file (they begin with {ONE[:8]!r})",
            [],
            id="announces too little",
        ),
        pytest.param(
            drop(0.0), f"truncated after 0 of {len(ONE):,} bytes", ["a.parquet.part", "a.parquet.part.tag"], id="drop"
        ),
        pytest.param(silent, "no answer within 0.2 s", [], id="silent"),
        pytest.param(
            status(206, Content_Range="bytes 5-9/10"),
            "HTTP 206 with Content-Range 'bytes 5-9/10' does not continue our 0 bytes",
            [],
            id="a range nobody asked for",
        ),
    ],
)
def test_a_lasting_fault_is_one_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, why: str, kept: list[str]
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(download, "ATTEMPTS", 3)
    file = shelve(server, *[fault] * 9)
    assert failure(server, tmp_path, ["a.parquet"]) == f"a.parquet: {why} (3 attempts in a row); 0 of 1"
    assert len(file.requests) == 3
    assert leftovers(tmp_path) == kept


def test_a_stall_that_lasts_says_how_far_it_came(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    shelve(server, stall)
    message = failure(server, tmp_path, ["a.parquet"])
    kept = (tmp_path / "a.parquet.part").stat().st_size
    assert message == f"a.parquet: silent for 0.2 s after {kept:,} of {len(ONE):,} bytes; 0 of 1"
    assert 0 < kept <= len(ONE) // 2


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    with socket.socket() as bound:  # bound and not listening: the port is refused, and nobody else can take it
        bound.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(DataError) as caught:
            download_files(f"http://user:secr@t@{place}", ["a.parquet"], tmp_path)
    assert str(caught.value) == (
        f"cannot download http://{place}/a.parquet: Connection refused (6 attempts in a row); 0 of 1 files are in "
        f"{tmp_path}; run again: finished files are kept, partial ones resume"
    )


@pytest.mark.parametrize("address", ["nowhere", "gopher://host", "http://"])
def test_an_address_that_is_none(tmp_path: Path, address: str) -> None:
    with pytest.raises(DataError, match=r"/a\.parquet: not an address to download from; 0 of 1 files are in "):
        download_files(address, ["a.parquet"], tmp_path)


def test_redirects_in_circles(server: Server, tmp_path: Path) -> None:
    shelve(server, *[status(302, Location="/a.parquet")] * 99)
    assert failure(server, tmp_path, ["a.parquet"]) == "a.parquet: redirected in circles; 0 of 1"


def test_the_folder_is_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        download_files("http://127.0.0.1:9", ["a.parquet"], folder)
    assert str(caught.value) == f"cannot download into {folder}: File exists; make it a writable folder"


@pytest.mark.parametrize("found", [b"", b"PAR1", ONE[:-1], b"x" + ONE[1:], b"<!DOCTYPE html>"])
def test_a_file_that_is_no_parquet_is_replaced(server: Server, tmp_path: Path, found: bytes) -> None:
    shelve(server)
    (tmp_path / "a.parquet").write_bytes(found)
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE


@pytest.mark.parametrize("tag", [None, "", '"half a', "line\nends\r\n", "\x00\xff"])
def test_a_part_of_unknown_origin_is_not_continued(server: Server, tmp_path: Path, tag: str | None) -> None:
    shelve(server)
    (tmp_path / "a.parquet.part").write_bytes(OTHER[:50_000])
    if tag is not None:
        (tmp_path / "a.parquet.part.tag").write_bytes(tag.encode("latin-1"))
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE
    assert leftovers(tmp_path) == ["a.parquet"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_run_of_faults_ends_with_the_servers_bytes(
    server: Server, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    one_fault = st.one_of(
        st.floats(0, 1).map(drop),
        st.sampled_from([-500, -1, 1, 500]).map(announce),
        st.sampled_from([reset, no_length, no_length_cut, chunked(), chunked(last=b""), gzipped, page, bad_footer]),
        st.sampled_from([whole_file, wrong_range, other_range, changed, status(500), status(416), status(206)]),
    )
    folder = tmp_path_factory.mktemp("any")
    file = shelve(server, *data.draw(st.lists(one_fault, max_size=download.ATTEMPTS - 1)))
    download_files(server.url, ["a.parquet"], folder)
    assert (folder / "a.parquet").read_bytes() == file.content
    assert leftovers(folder) == ["a.parquet"]


CHILD = """
import sys, pathlib, signal
from lab import download
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests started in a shell's background ignore it
download.TIMEOUT_SECONDS = 1000.0
from lab.errors import DataError
try:
    download.download_files(sys.argv[1], sys.argv[3:], pathlib.Path(sys.argv[2]))
except DataError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a real process that downloads; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(server: Server, folder: Path, *names: str, before: str = "", **more: object) -> "subprocess.Popen[str]":
        more = {"stderr": subprocess.PIPE, "text": True, "cwd": Path(download.__file__).parent.parent} | more
        child = subprocess.Popen([sys.executable, "-c", before + CHILD, server.url, folder, *names], **more)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until the other process or thread has come this far."""
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def size(path: Path) -> int:
    """Bytes of a file, 0 while there is none."""
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_process_ended_midway_is_resumed(
    server: Server, tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"], end: signal.Signals
) -> None:
    """The server would stay silent for longer than the test may run: Ctrl-C ends the process all the same."""
    file = shelve(server, stall)
    child = start(server, tmp_path, "a.parquet")
    wait_for(lambda: size(tmp_path / "a.parquet.part") > 0)
    child.send_signal(end)
    child.communicate(timeout=HANG_SECONDS)
    assert child.returncode == -end
    assert leftovers(tmp_path) == ["a.parquet.part", "a.parquet.part.tag"]

    kept = size(tmp_path / "a.parquet.part")
    download_files(server.url, ["a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == ONE
    assert [file.requests[1].range, file.requests[1].sent] == [f"bytes={kept}-", len(ONE) - kept]


def test_two_processes_fetch_every_file_once(
    server: Server, tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    names = ["a.parquet", "b.parquet", "c.parquet"]

    def hold(h: Handler) -> None:
        server.release.wait(HANG_SECONDS)
        good(h)

    files = [shelve(server, hold, name=name) for name in names]
    first = start(server, tmp_path, *names)
    wait_for(lambda: all(file.requests for file in files))
    second = start(server, tmp_path, *names)
    assert second.stderr is not None
    waiting = f"another process is downloading into {tmp_path}: waiting for it\n"
    assert second.stderr.readline() == waiting
    server.release.set()
    assert first.communicate(timeout=HANG_SECONDS)[1].endswith("downloaded 3 of 3 files, 0.6 MB\n")
    assert second.communicate(timeout=HANG_SECONDS)[1] == ""
    assert (first.returncode, second.returncode) == (0, 0)
    assert [len(file.requests) for file in files] == [1, 1, 1]
    assert all((tmp_path / name).read_bytes() == ONE for name in names)


def test_a_full_disk_is_one_line(server: Server, tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]) -> None:
    """A limit on the file size fails the very write that a full disk fails, and needs no privileges."""
    shelve(server)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    child = start(server, tmp_path, "a.parquet", before=limit)
    assert child.communicate(timeout=HANG_SECONDS)[1] == (
        f"error: cannot download {server.url}/a.parquet: File too large (writing a.parquet.part); 0 of 1 files are in "
        f"{tmp_path}; run again: finished files are kept, partial ones resume\n"
    )
    assert not (tmp_path / "a.parquet").exists()


def test_a_terminal_shows_a_bar(server: Server, tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]) -> None:
    shelve(server)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    child = start(server, tmp_path, "a.parquet", stderr=theirs)
    os.close(theirs)
    shown = ""
    with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # Linux ends a terminal with an error
        while piece := terminal.read(1 << 12):
            shown += piece.decode()
    assert child.wait(HANG_SECONDS) == 0
    assert "1 of 1 files: 100%|" in shown and "201k/201k" in shown
