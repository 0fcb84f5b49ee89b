"""Page tokens: where a list goes on, signed, and of use for an hour, for that list of that principal alone.

Knows no storage.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from api.errors import Expired, InvalidArgument

MAC_BYTES = 16
KEPT_S = 3600
# Seconds since 1970: another server may read what this one wrote.
clock: Callable[[], float] = time.time


@dataclass(frozen=True)
class Position:
    """After which object a page begins, in the list as it was at a revision."""

    revision: int
    namespace: str
    name: str


def write(key: bytes, position: Position, digest: str) -> str:
    """Return the token of a position in the list that `digest` describes."""
    told = [position.revision, position.namespace, position.name, digest, int(clock())]
    payload = json.dumps(told).encode()
    return base64.urlsafe_b64encode(hmac.digest(key, payload, "sha256")[:MAC_BYTES] + payload).decode()


def read(key: bytes, token: str, digest: str) -> Position:
    """Return the position of a token.

    Raises InvalidArgument for a token of another list, or of nobody; Expired for one that is older than an hour.
    """
    try:
        raw = base64.urlsafe_b64decode(token.encode())
        # The decoder skips what is not of its alphabet: one token has one spelling.
        if base64.urlsafe_b64encode(raw).decode() != token:
            raise ValueError
        payload = raw[MAC_BYTES:]
        if not hmac.compare_digest(raw[:MAC_BYTES], hmac.digest(key, payload, "sha256")[:MAC_BYTES]):
            raise ValueError
        revision, namespace, name, belongs, written = json.loads(payload)
    except ValueError as error:
        raise InvalidArgument("the continue token is not one of this server: list again", reason="BAD_TOKEN") from error
    if belongs != digest:
        raise InvalidArgument("the continue token belongs to another list: list again", reason="BAD_TOKEN")
    if clock() - written > KEPT_S:
        raise Expired(f"the continue token is older than {KEPT_S // 60} minutes: list again")
    return Position(revision, namespace, name)


def expired(kind: str) -> Expired:
    """Return the refusal of a token whose list has changed since."""
    return Expired(f"{kind} objects changed since the first page was read: list again")
