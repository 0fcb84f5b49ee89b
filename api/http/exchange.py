"""One request and its answer, as everything behind the gateway sees them.  Decides nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from api.calls import Call
from api.http.parameters import Parameters

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Stream = Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]

JSON = b"application/json"
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True)
class Exchange:
    """One request of a known caller.  `headers`: lower-case names and values, in order; `path`: its segments."""

    call: Call
    method: str
    path: Sequence[str]
    query: Parameters
    headers: Sequence[tuple[str, str]]
    receive: Receive

    def header(self, name: str) -> str:
        """Return the first value of a header, empty if it was not sent."""
        return next((value for key, value in self.headers if key == name), "")


@dataclass
class Answer:
    """What is sent back: `body`, or what `stream` writes, part by part, until it ends."""

    status: int = 200
    body: bytes = b""
    media: bytes = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    stream: Stream | None = None

    def warn(self, text: str) -> Answer:
        """Add a warning that people see: kubectl prints it."""
        safe = "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in text)
        self.headers.append((b"warning", f'299 - "{safe}"'.encode()))
        return self


def as_json(value: Any) -> bytes:
    """Return the JSON of plain values."""
    return _encoder.encode(value)


def answer(value: Any, status: int = 200) -> Answer:
    """Return plain values as an answer."""
    return Answer(status, as_json(value))
