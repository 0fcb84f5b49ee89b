"""HTTP at its edges: what is broken is refused, what is pipelined is answered in order, what is slow is cut."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Awaitable, Iterator

import pytest

from serving.connections import Connections
from serving.http import Request, Response, answer
from serving.protocol import MOST_BODY_BYTES, Connection
from tests.patience import PATIENCE_S, soon
from tests.serving.running import ID, Server, request


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        yield client


def raw(body: bytes = b"", *, method: str = "POST", path: str = f"/v2/models/{ID}/infer", head: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def answers(client: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Read `count` answers."""
    file = client.makefile("rb")
    found = []
    for _ in range(count):
        status = int(file.readline().split()[1])
        length = 0
        while (line := file.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        found.append((status, file.read(length)))
    return found


def ended(client: socket.socket) -> bool:
    """Whether the server closes the connection."""
    with contextlib.suppress(ConnectionResetError):
        while client.recv(65536):
            pass
    return True


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"GET /v2\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v2 HTTP/1.1\r\nNo colon here\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v2 HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_cut(server: Server, sent: bytes) -> None:
    with connected(server) as client:
        client.sendall(sent)
        ((status, body),) = answers(client, 1)
        assert (status, json.loads(body)["reason"]) == (400, "MALFORMED_HTTP")
        assert ended(client)
    assert server.infer(request()).status == 200


def test_an_announced_body_that_is_too_large_is_refused_before_it_comes(server: Server) -> None:
    with connected(server) as client:
        client.sendall(f"POST /v2 HTTP/1.1\r\nContent-Length: {MOST_BODY_BYTES + 1}\r\n\r\n".encode())
        ((status, body),) = answers(client, 1)
        assert (status, json.loads(body)["reason"]) == (413, "BODY_TOO_LARGE")


def test_a_body_that_grows_too_large_is_refused(server: Server) -> None:
    found = server.infer(b"x" * (MOST_BODY_BYTES + 1))
    assert (found.status, found.document["reason"]) == (413, "BODY_TOO_LARGE")
    with connected(server) as client:
        client.sendall(b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(6):
                client.sendall(b"%x\r\n%b\r\n" % (2**20, b"x" * 2**20))
        assert answers(client, 1)[0][0] == 413


def test_the_largest_body_is_read(server: Server) -> None:
    body = json.dumps(request()).encode()
    assert server.infer(body + b" " * (MOST_BODY_BYTES - len(body))).status == 200


@pytest.mark.parametrize(
    "head", ["X-Long: " + "x" * 20_000 + "\r\n", "".join(f"X-{number}: 1\r\n" for number in range(101))]
)
def test_headers_that_are_too_large_are_refused(server: Server, head: str) -> None:
    with connected(server) as client:
        client.sendall(raw(head=head))
        ((status, body),) = answers(client, 1)
        assert (status, json.loads(body)["reason"]) == (431, "HEADERS_TOO_LARGE")


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """The first and the third are scored in a thread, the others at once."""
    bodies = [{**request(rows=rows), "id": str(number)} for number, rows in enumerate([500, 1, 500, 1, 1])]
    sent = b"".join(raw(json.dumps(body).encode()) for body in bodies)
    with connected(server) as client:
        client.sendall(sent + raw(b"{"))
        found = answers(client, 6)
    assert [json.loads(body)["id"] for _, body in found[:5]] == ["0", "1", "2", "3", "4"]
    assert [status for status, _ in found] == [200] * 5 + [400]


def test_more_requests_than_may_wait_are_all_answered(server: Server) -> None:
    sent = raw(json.dumps(request(rows=500)).encode()) + raw(method="GET", path="/v2") * 300
    with connected(server) as client:
        client.sendall(sent)
        assert [status for status, _ in answers(client, 301)] == [200] * 301


def test_an_answer_before_a_broken_request_is_still_given(server: Server) -> None:
    with connected(server) as client:
        client.sendall(raw(json.dumps(request(rows=500)).encode()) + b"nonsense\r\n\r\n")
        assert [status for status, _ in answers(client, 2)] == [200, 400]
        assert ended(client)


def test_a_request_may_come_byte_by_byte_and_in_chunks(server: Server) -> None:
    body = json.dumps(request()).encode()
    with connected(server) as client:
        for at in range(0, len(message := raw(body)), 97):
            client.sendall(message[at : at + 97])
        path = f"/v2/models/{ID}/infer"
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for at in range(0, len(body), 50):
            part = body[at : at + 50]
            client.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        client.sendall(b"0\r\n\r\n")
        assert [status for status, _ in answers(client, 2)] == [200, 200]


def test_a_client_that_asks_before_it_sends_is_told_to(server: Server) -> None:
    body = json.dumps(request()).encode()
    with connected(server) as client:
        message = raw(body, head="Expect: 100-continue\r\n")
        client.sendall(message[: -len(body)])
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert answers(client, 1)[0][0] == 200


@pytest.mark.parametrize(
    "sent", [b"GET /v2 HTTP/1.0\r\n\r\n", b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"]
)
def test_a_connection_that_is_not_kept_is_closed(server: Server, sent: bytes) -> None:
    with connected(server) as client:
        client.sendall(sent)
        assert answers(client, 1)[0][0] == 200
        assert ended(client)


def test_a_client_of_http_1_0_may_keep_its_connection(server: Server) -> None:
    with connected(server) as client:
        for _ in range(2):
            client.sendall(b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"keep-alive" in client.recv(4096).lower()


def test_a_client_that_leaves_breaks_nothing(server: Server) -> None:
    for rows in (1, 500):
        with connected(server) as client:
            client.sendall(raw(json.dumps(request(rows=rows)).encode()) * 20)
    assert server.infer(request()).status == 200


async def test_a_request_that_never_ends_is_cut() -> None:
    async with listening(Connections(request_s=0.1, look_s=0.05)) as port:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v2 HTTP/1.1\r\nX-Slow: ")
        found = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert found.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < soon(2)
        writer.close()


async def test_a_client_that_says_nothing_is_cut_and_one_that_has_asked_may_wait() -> None:
    async with listening(Connections(request_s=0.1, look_s=0.02)) as port:
        silent, first = await asyncio.open_connection("127.0.0.1", port)
        asking, second = await asyncio.open_connection("127.0.0.1", port)
        second.write(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await asking.read(4096)
        assert (await asyncio.wait_for(silent.read(), PATIENCE_S)).startswith(b"HTTP/1.1 408 ")
        second.write(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(asking.read(4096), PATIENCE_S)
        first.close()
        second.close()


async def test_a_client_that_stays_idle_is_let_go() -> None:
    async with listening(Connections(look_s=0.005)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await reader.read(4096)
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        writer.close()


async def test_a_client_that_never_reads_is_let_go() -> None:
    connections = Connections(look_s=0.005)
    async with listening(connections, lambda _: Response(200, b"x" * 2**20)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n" * 40)
        async with asyncio.timeout(PATIENCE_S):
            while not connections._open:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
            while connections._open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        writer.transport.abort()


async def test_a_fault_of_a_handler_is_an_internal_error_and_no_more() -> None:
    async def later() -> Response:
        raise ZeroDivisionError("secret")

    def handle(given: Request) -> Response | Awaitable[Response]:
        if given.url == b"/later":
            return later()
        raise ZeroDivisionError("secret")

    async with listening(Connections(), handle) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for path in (b"/now", b"/later"):
            writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            found = await reader.read(4096)
            assert found.startswith(b"HTTP/1.1 500 ")
            assert b"secret" not in found
        writer.close()


def hello(_: Request) -> Response:
    return answer(200, {})


@contextlib.asynccontextmanager
async def listening(connections: Connections, handle=hello):  # type: ignore[no-untyped-def]
    server = await asyncio.get_running_loop().create_server(lambda: Connection(handle, connections), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await connections.drain(grace_s=1)
