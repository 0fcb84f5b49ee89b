"""Bytes that are no request, or lie about their length: refused in JSON, and the connection is closed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.api.http_running import ROOT, HttpServed

MIB = 1024 * 1024
RUNS = f"{ROOT}/namespaces/shop/pipelineruns"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    made = HttpServed(tmp_path_factory.mktemp("http") / "store.db")
    yield made
    made.close()


def raw(server: HttpServed, sent: bytes, *, half_closed: bool = False) -> bytes:
    """Send bytes as they are and return all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as link:
        link.sendall(sent)
        if half_closed:
            link.shutdown(socket.SHUT_WR)
        link.settimeout(5)
        found = b""
        try:
            while part := link.recv(65536):
                found += part
        except OSError:
            pass
        return found


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /version HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
        (b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n{}" % RUNS.encode(), 400),
        (b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{}" % RUNS.encode(), 400),
        (b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 1000 + b"\r\n", 431),
        (b"GET /version HTTP/1.1\r\nHost: localhost\r\na: " + b"b" * MIB + b"\r\n\r\n", 431),
        (b"GET /version?" + b"x" * MIB + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 413),
        (b"GET /version?" + b"x" * 62_000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 413),
        (b"GET /version?" + b"x" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
    ],
)
def test_bytes_that_are_no_request_are_refused_in_json(server: HttpServed, sent: bytes, status: int) -> None:
    head, _, body = raw(server, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["code"] == status


def test_a_length_that_is_a_lie_is_refused(server: HttpServed) -> None:
    head = f"POST {RUNS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
    longer = raw(server, head + b"Content-Length: 100\r\n\r\n{}", half_closed=True)
    assert longer.startswith(b"HTTP/1.1 400 ")
    assert b"ends before its Content-Length" in longer
    shorter = raw(server, head + b'Content-Length: 3\r\n\r\n{"metadata": {"name": "x"}}')
    assert shorter.startswith(b"HTTP/1.1 400 ")
    assert b"HTTP/1.1 2" not in shorter
    both = raw(server, head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert both.startswith(b"HTTP/1.1 400 ")


def test_a_body_in_parts_is_refused_as_soon_as_it_is_too_large(server: HttpServed) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(4000):
            sent += 1
            yield b" " * 65_536

    answer = _raw_chunks(server, endless())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 2000


def _raw_chunks(server: HttpServed, parts: Iterator[bytes]) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), 10) as link:
        head = f"POST {RUNS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        link.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for part in parts:
                link.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        except OSError:
            pass
        try:
            return link.recv(4096)
        except OSError:
            return b"HTTP/1.1 413 (reset)"
