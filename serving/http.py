"""A request and a response, as routes see them.  Knows nothing of sockets."""

from __future__ import annotations

import http
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from api.errors import ApiError

encode = msgspec.json.Encoder().encode

PHRASES = {item.value: f"HTTP/1.1 {item.value} {item.phrase}\r\n".encode() for item in http.HTTPStatus}
PRINTABLE = bytes(sign if 0x20 <= sign <= 0x7E else 0x3F for sign in range(256))
JSON = b"Content-Type: application/json\r\n"


class Request:
    """One request.  `url`: the target as it came; header names are in lower case; `version`: of HTTP, 1.0 or 1.1."""

    __slots__ = ("body", "headers", "keep_alive", "method", "url", "version")

    def __init__(
        self, method: str, url: bytes, headers: dict[bytes, bytes], body: bytes, *, keep_alive: bool, version: str
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.version = version


class Response:
    """One answer.  `head`: complete header lines without Content-Length."""

    __slots__ = ("body", "head", "status")

    def __init__(self, status: int, body: bytes = b"", head: bytes = JSON) -> None:
        self.status = status
        self.body = body
        self.head = head


Handler: TypeAlias = Callable[[Request], Response | Awaitable[Response]]


def answer(status: int, document: Any) -> Response:
    """Return a JSON answer."""
    return Response(status, encode(document))


def failure(
    status: int,
    reason: str,
    message: str,
    *,
    violations: Sequence[dict[str, str]] = (),
    head: bytes = b"",
) -> Response:
    """Return a refusal: `error` for people, `reason` for programs, `violations` by field."""
    document: dict[str, Any] = {"error": message, "reason": reason}
    if violations:
        document["violations"] = violations
    return Response(status, encode(document), JSON + head)


def refused(error: ApiError, *, head: bytes = b"") -> Response:
    """Return the answer to an error of the tree."""
    violations = [
        {"field": item.field, "description": item.description, **({"reason": item.reason} if item.reason else {})}
        for item in error.violations
    ]
    return failure(error.http, error.reason, error.message, violations=violations, head=head)


def header_value(text: str) -> bytes:
    """Return text that is safe in a header: no line breaks, ASCII."""
    return text.encode("ascii", "replace").translate(PRINTABLE)
