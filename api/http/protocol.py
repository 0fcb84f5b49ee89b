"""uvicorn's HTTP/1.1 with bounds of its own, refusals in JSON, and the client's certificate.  Knows no route."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import ApiError, InvalidArgument
from api.http.exchange import as_json
from api.http.guard import LARGEST_HEADERS, MOST_HEADERS
from api.http.refusals import HeadersTooLarge, SlowRequest, TooLarge
from api.http.sealing import HANDSHAKE, Sealed
from api.http.status import code_of, failure
from api.limits import DEFAULT, LimitsConfig

# The parser of URLs counts to 65,535.
LARGEST_URL = 60 * 1024
PHRASES = {
    400: b"Bad Request",
    408: b"Request Timeout",
    413: b"Content Too Large",
    431: b"Request Header Fields Too Large",
}
CERTIFICATE = "ma.certificate"
# In the scope of a request that can be known by its bytes: takes what answers it when they come again.
KNOWN = "ma.known"
MOST_KNOWN = 512
LARGEST_KNOWN = 4 * 1024
END = b"\r\n\r\n"
STATUS_LINE = b"HTTP/1.1 200 OK\r\n"
Again = Callable[[], bytes | None]
SILENCE, HEAD, BODY = "silence", "head", "body"


class Together:
    """A transport that sends what is written in one turn of the loop at once: a head and its body are one packet."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self.sealed: Sealed | None = None
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.get_extra_info = transport.get_extra_info
        self.set_protocol = transport.set_protocol

    def write(self, data: bytes) -> None:
        """Send bytes with all others of this turn."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def _flush(self) -> None:
        if self._waiting and not self._transport.is_closing():
            waiting, self._waiting = self._waiting, []
            data = waiting[0] if len(waiting) == 1 else b"".join(waiting)
            self._transport.write(data if self.sealed is None else self.sealed.seal(data))

    def unseal(self, data: bytes) -> bytes:
        """Return what a sealed connection brought.  Raises ssl.SSLError."""
        assert self.sealed is not None
        try:
            return self.sealed.unseal(data)
        finally:
            if own := self.sealed.waiting():
                self._transport.write(own)

    def close(self) -> None:
        """Send what waits, and close."""
        if not self._transport.is_closing():
            self._flush()
            if self.sealed is not None and (last := self.sealed.end()):
                self._transport.write(last)
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._waiting.clear()
        self._transport.abort()


class Protocol(HttpToolsProtocol):
    """One connection.  `context`: for callers that speak TLS where plain HTTP is spoken too; None for no such.

    idle: all connections of the port on which nothing is carried out, the longest first; it gives way to new ones.
    known: what answers requests of the port that came before, by their bytes.
    """

    _header_bytes = 0
    _begun = False
    _refused = False
    _late: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def __init__(
        self,
        *given: Any,
        context: ssl.SSLContext | None = None,
        limits: LimitsConfig = DEFAULT,
        idle: OrderedDict[Protocol, None] | None = None,
        known: dict[bytes, Again] | None = None,
        **named: Any,
    ) -> None:
        super().__init__(*given, **named)
        self._context = context
        self._limits = limits
        self._idle = OrderedDict() if idle is None else idle
        self._known = {} if known is None else known
        # The bytes of a request that came as a whole; when one of those that are known came last.
        self._whole = b""
        self._used_s = 0.0
        self._longest_s = {SILENCE: limits.idle_s, HEAD: limits.header_s, BODY: limits.body_s}
        # What is waited for, and what the timer runs for.
        self._part = self._timed = ""

    def connection_made(self, transport: Any) -> None:
        """Begin a connection; if there are too many, one that does nothing makes way, or this one does."""
        super().connection_made(transport)
        together: Any = Together(transport, self.loop)
        self.transport = self._together = together
        self.flow = FlowControl(together)
        if len(self.connections) > self._limits.connections:
            if not self._idle:
                together.abort()
                return
            oldest, _ = self._idle.popitem(last=False)
            oldest.transport.abort()
        self._idle[self] = None
        self._wait_for(SILENCE)

    def on_message_begin(self) -> None:
        """Begin a request: its time runs."""
        super().on_message_begin()
        self._header_bytes = 0
        self._part = HEAD
        ssl_object = self.transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            scope: Any = self.scope
            scope[CERTIFICATE] = certificate(ssl_object.getpeercert() or {})

    def on_headers_complete(self) -> None:
        """Begin to carry out a request; its body may still be on its way."""
        self._part = BODY
        self._idle.pop(self, None)
        if self._whole:
            scope: Any = self.scope
            scope[KNOWN] = partial(self._know, self._whole)
            self._whole = b""
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request: its time no longer runs."""
        self._part = ""
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """End an answer: the connection may be used again."""
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._idle[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._idle.pop(self, None)
        self._wait_for("")
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait until the other side reads; not for ever."""
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(self._limits.idle_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the other side has read."""
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        super().resume_writing()

    def _wait_for(self, part: str) -> None:
        """Give a part of a request its time; none for the answer, and for the next request."""
        self._part = self._timed = part
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if part:
            self._late = self.loop.call_later(self._longest_s[part], self._too_slow)

    def _too_slow(self) -> None:
        cycle, in_body = self.cycle, self._part == BODY
        answered = cycle is not None and cycle.response_started and (in_body or not cycle.response_complete)
        if answered or not self._begun:
            self.transport.abort()
        else:
            told = f"the {self._part} of the request was not whole after {self._longest_s[self._part]:g} s"
            self._refuse(SlowRequest(told))

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        super().on_url(url)
        if len(self.url) > LARGEST_URL:
            self._refuse(TooLarge(f"the URL is longer than {LARGEST_URL} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if len(self.headers) > MOST_HEADERS or self._header_bytes > LARGEST_HEADERS:
            told = f"there are more than {MOST_HEADERS} headers or {LARGEST_HEADERS} bytes of them"
            self._refuse(HeadersTooLarge(told))

    def data_received(self, data: bytes) -> None:
        """Take bytes; after a refusal no more are looked at."""
        if self._refused:
            return
        if not self._begun:
            self._begun = True
            if self._context is not None and data[0] == HANDSHAKE:
                self._together.sealed = Sealed(self._context)
                self.scheme = "https"
        if self._together.sealed is not None:
            try:
                data = self._together.unseal(data)
            except ssl.SSLError:
                self.transport.abort()
                return
        if data and not self._answers_again(data):
            between = self._part not in (HEAD, BODY)
            self._whole = data if between and data.startswith(b"GET ") and _is_whole(data) else b""
            super().data_received(data)
            if self._part != self._timed:
                self._wait_for(self._part)

    def _know(self, whole: bytes, again: Again) -> None:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[whole] = again

    def _answers_again(self, data: bytes) -> bool:
        """Answer a request that is known, if nothing else is under way on the connection."""
        again = self._known.get(data)
        if again is None or self.timeout_keep_alive_task is None or self.flow.write_paused:
            return False
        told = again()
        if told is None:
            return False
        head = [b"%s: %s\r\n" % header for header in self.server_state.default_headers]
        self.transport.write(b"".join((STATUS_LINE, *head, told)))
        self.server_state.total_requests += 1
        self._used_s = self.loop.time()
        if self in self._idle:
            self._idle.move_to_end(self)
        return True

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was not used for long."""
        left_s = self._used_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def eof_received(self) -> None:
        """End a request whose body is shorter than its header says."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_started and cycle.more_body:
            self._refuse(InvalidArgument("the body ends before its Content-Length", reason="BAD_MESSAGE"))

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no HTTP."""
        if not self._refused:
            self._refuse(InvalidArgument("the bytes are no HTTP/1.1 request", reason="BAD_MESSAGE"))

    def _refuse(self, error: ApiError) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        request_id = str(uuid.uuid4())
        body = as_json(failure(error, request_id))
        code = code_of(error)
        head = (
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"x-content-type-options: nosniff\r\nx-request-id: %s\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head % (code, PHRASES.get(code, b"Refused"), len(body), request_id.encode()) + body)
        self.transport.close()


def _is_whole(data: bytes) -> bool:
    """Whether bytes are the head of one request and nothing else, as every parser reads it."""
    lines = data.count(b"\n")
    return len(data) <= LARGEST_KNOWN and data.find(END) == len(data) - len(END) and lines == data.count(b"\r\n")


def certificate(found: Mapping[str, Any]) -> dict[str, Sequence[bytes]]:
    """Return what a verified certificate says of its owner, in gRPC's words."""
    common = [value.encode() for parts in found.get("subject", ()) for key, value in parts if key == "commonName"]
    alternative = [value.encode() for _, value in found.get("subjectAltName", ())]
    return {"x509_common_name": common, "x509_subject_alternative_name": alternative}
