"""The body of a request: read as it arrives, never more than fits, unpacked, and typed by its header."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

from api.calls import LARGEST_REQUEST_BYTES
from api.errors import InvalidArgument
from api.http.exchange import Exchange
from api.http.refusals import TooLarge, Unsupported
from api.validation import shown

GZIP = 16 + zlib.MAX_WBITS
JSON, YAML = "application/json", "application/yaml"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
CHARSETS = ("", "utf-8", "utf8", "us-ascii")


class Gone(Exception):
    """The caller left before its request was whole: nobody waits for an answer."""


@dataclass(frozen=True)
class Body:
    """What was sent.  `media`: its type without parameters, lower case; empty where nothing was sent."""

    media: str
    data: bytes


async def read(exchange: Exchange, media: tuple[str, ...]) -> Body:
    """Return the body.  `media`: the types that are read.  Raises Unsupported, TooLarge, InvalidArgument, Gone."""
    data = await _received(exchange)
    given = exchange.header("content-type")
    if not data and not given:
        return Body("", b"")
    named = _media(given)
    if named not in media:
        told = f"is {shown(given)!r}" if given else "is missing"
        raise Unsupported(f"the header Content-Type {told}: send {' or '.join(media)}, in UTF-8")
    return Body(named, _unpacked(data, exchange.header("content-encoding").strip().lower()))


@lru_cache(maxsize=256)
def _media(given: str) -> str:
    """Return the type, empty if its characters are not read."""
    named, *parameters = given.split(";")
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset" and value.strip().strip('"').lower() not in CHARSETS:
            return ""
    return named.strip().lower()


async def _received(exchange: Exchange) -> bytes:
    length = exchange.header("content-length")
    if length.isascii() and length.isdigit() and int(length[:18]) > LARGEST_REQUEST_BYTES:
        raise _too_large()
    parts, size = [], 0
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        size += len(part)
        if size > LARGEST_REQUEST_BYTES:
            raise _too_large()
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large() -> TooLarge:
    return TooLarge(
        f"the body has more than {LARGEST_REQUEST_BYTES} bytes: store large values elsewhere and give their URI"
    )


def _unpacked(data: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return data
    if encoding != "gzip":
        raise Unsupported(f"the header Content-Encoding is {shown(encoding)!r}: send gzip or nothing")
    unpacker = zlib.decompressobj(GZIP)
    try:
        found = unpacker.decompress(data, LARGEST_REQUEST_BYTES + 1)
    except zlib.error:
        raise InvalidArgument("the body is no gzip", reason="BAD_MESSAGE") from None
    if len(found) > LARGEST_REQUEST_BYTES:
        raise _too_large()
    if not unpacker.eof:
        raise InvalidArgument("the body is a gzip that is cut off", reason="BAD_MESSAGE")
    if unpacker.unused_data:
        raise InvalidArgument("the body goes on after its gzip", reason="TRAILING_DATA")
    return found
