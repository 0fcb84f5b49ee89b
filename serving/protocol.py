"""HTTP/1.1 on asyncio: keep-alive, pipelined requests answered in order, limits.  Knows no route and no model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable
from typing import cast

import httptools

from serving.connections import Connections
from serving.http import PHRASES, Handler, Request, Response, failure

MOST_BODY_BYTES = 4 * 1024**2
MOST_HEADER_BYTES = 16 * 1024
MOST_HEADERS = 100
MOST_WAITING = 16
DISCARD_S = 2.0
VERSIONS = ("1.0", "1.1")
CLOSE = b"Connection: close\r\n"
KEEP = b"Connection: keep-alive\r\n"

log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """One client.  A request that breaks a limit is answered, and the connection closed."""

    def __init__(self, handle: Handler, connections: Connections) -> None:
        self._handle = handle
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request | Response] = deque()
        self._busy: asyncio.Future[Response] | None = None
        self._refusal: Response | None = None
        self._deaf = False
        self._paused = False
        self._transport: asyncio.Transport
        self._begin()
        self._begun = False
        self.unfinished_since_s = time.monotonic()
        self.requests = 0

    @property
    def idle(self) -> bool:
        """Whether no request has begun and none is being answered."""
        return not (self._waiting or self._busy or self._begun)

    @property
    def unfinished(self) -> bool:
        """Whether a request is on its way; a new connection owes its first one."""
        return self._begun or not self.requests

    def close(self) -> None:
        """Close after what was written has been sent."""
        self._deaf = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever the client has not read."""
        self._deaf = True
        self._transport.abort()

    def time_out(self) -> None:
        """Refuse a request that did not arrive in time."""
        self._refuse(failure(408, "REQUEST_TIMEOUT", "the request did not arrive in time"))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client; what it asked for is of no use to anybody."""
        self._deaf = True
        self._waiting.clear()
        if self._busy is not None:
            self._busy.cancel()
        self._connections.discard(self)

    def pause_writing(self) -> None:
        """Read no more from a client that does not read."""
        self._pause()

    def resume_writing(self) -> None:
        """Go on reading."""
        self._resume()

    def data_received(self, data: bytes) -> None:
        """Parse; complete requests are answered on the way."""
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True
            if self._busy is None:
                self.close()
        except httptools.HttpParserError as error:
            self._refuse(self._refusal or failure(400, "MALFORMED_HTTP", f"not HTTP/1.1: {error}"))

    # httptools callbacks

    def on_message_begin(self) -> None:
        """Start a request."""
        self._begin()
        self._begun = True
        if self.requests:
            self.unfinished_since_s = time.monotonic()

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if len(self._headers) >= MOST_HEADERS:
            self._stop(failure(431, "HEADERS_TOO_LARGE", f"a request has at most {MOST_HEADERS} headers"))
        self._count(len(name) + len(value))
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Refuse a body that is announced as too large before it is sent."""
        self._version = self._parser.get_http_version()
        if self._version not in VERSIONS:
            self._stop(failure(400, "MALFORMED_HTTP", "not HTTP/1.1"))
        length = self._headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > MOST_BODY_BYTES:
            self._stop(_too_large())
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._busy is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > MOST_BODY_BYTES:
            self._stop(_too_large())
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer the request, or let it wait for those before it."""
        self._begun = False
        self.requests += 1
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(
            self._parser.get_method().decode(),
            self._url,
            self._headers,
            body,
            keep_alive=self._parser.should_keep_alive(),
            version=self._version,
        )
        if self._busy is None and not self._waiting:
            self._answer(request)
            return
        self._waiting.append(request)
        if len(self._waiting) >= MOST_WAITING:
            self._pause()

    # answering

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._version = ""
        self._body: list[bytes] = []
        self._body_bytes = 0

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MOST_HEADER_BYTES:
            self._stop(failure(431, "HEADERS_TOO_LARGE", f"target and headers have at most {MOST_HEADER_BYTES} bytes"))

    def _stop(self, refusal: Response) -> None:
        self._refusal = refusal
        raise ValueError(refusal.status)

    def _answer(self, request: Request) -> None:
        if self._transport.is_closing():
            return
        try:
            answer = self._handle(request)
        except Exception:
            log.exception("a request failed")
            answer = failure(500, "INTERNAL", "internal error")
        if isinstance(answer, Response):
            self._write(answer, request)
        else:
            self._later(answer, request)

    def _later(self, answer: Awaitable[Response], request: Request) -> None:
        self._busy = asyncio.ensure_future(answer)

        def done(future: asyncio.Future[Response]) -> None:
            self._busy = None
            if future.cancelled():
                return
            error = future.exception()
            if error is not None:
                log.error("a request failed", exc_info=error)
            self._write(failure(500, "INTERNAL", "internal error") if error else future.result(), request)
            self._drain()

        self._busy.add_done_callback(done)

    def _drain(self) -> None:
        while self._waiting and self._busy is None:
            item = self._waiting.popleft()
            if isinstance(item, Response):
                self._refuse(item)
            else:
                self._answer(item)
        if len(self._waiting) < MOST_WAITING:
            self._resume()

    def _write(self, response: Response, request: Request | None) -> None:
        """Send an answer; the last one of a connection says so.  request: None for a refusal, which closes itself."""
        keep = request is not None and request.keep_alive and (bool(self._waiting) or not self._connections.draining)
        body = b"" if request is not None and request.method == "HEAD" else response.body
        connection = CLOSE if not keep else b"" if request is None or request.version == "1.1" else KEEP
        head = PHRASES[response.status] + response.head + connection
        self._transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        if not keep and request is not None:
            self._waiting.clear()
            self.close()

    def _refuse(self, refusal: Response) -> None:
        """Answer and close; what the client still sends is read and dropped, so that it can read the answer."""
        self._deaf = True
        if self._busy is not None:
            self._waiting.append(refusal)
            return
        if self._transport.is_closing():
            return
        self._write(refusal, None)
        self._transport.write_eof()
        asyncio.get_running_loop().call_later(DISCARD_S, self._transport.abort)

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()


def _too_large() -> Response:
    return failure(413, "BODY_TOO_LARGE", f"a request has at most {MOST_BODY_BYTES} bytes")
