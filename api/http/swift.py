"""Gets that were answered before, answered again by their bytes: what these say is not read twice.

Who calls, what it may see and what is stored are asked each time.  Whatever is not plain goes the ordinary way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from api.auth.base import AUTHORIZATION
from api.auth.entrance import Entrance
from api.call_log import CALLS
from api.calls import new_id
from api.http import guard, objects
from api.http.accept import JSON, form
from api.http.exchange import as_json
from api.kinds import Kind
from api.store.base import Key
from api.straight import Straight

# Headers that mean the same for every request, or nothing to a get.
PLAIN = frozenset({AUTHORIZATION, "host", "accept", "accept-encoding", "accept-language", "connection", "user-agent"})
LARGEST_BODY = 8 * 1024
HEAD = b"".join(b"%s: %s\r\n" % header for header in (*guard.HEADERS, (b"content-type", b"application/json")))
HEAD = HEAD.replace(b"%", b"%%") + b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n"

Headers = Sequence[tuple[str, str]]
# Returns an answer from its first own header on, None for the ordinary way.
Again = Callable[[], bytes | None]


class Swift:
    """Makes what answers a request again."""

    def __init__(self, entrance: Entrance, straight: Straight) -> None:
        self._entrance = entrance
        self._straight = straight

    def again(self, headers: Headers, kind: Kind, namespace: str, name: str) -> Again | None:
        """Return what answers the same get again; None if it is not plain."""
        given = {key for key, _ in headers}
        if AUTHORIZATION not in given or not given <= PLAIN or len(given) < len(headers):
            return None
        said = dict(headers)
        if said.get("connection", "keep-alive").lower() != "keep-alive" or form(said.get("accept", "")) != JSON:
            return None
        return Repeated(self._entrance, self._straight, said[AUTHORIZATION], kind, Key(kind.name, namespace, name))


class Repeated:
    """Answers one request, as often as it comes.  Keeps the JSON of what it answered last."""

    def __init__(self, entrance: Entrance, straight: Straight, authorization: str, kind: Kind, key: Key) -> None:
        self._entrance, self._straight, self._authorization = entrance, straight, authorization
        self._kind, self._key = kind, key
        self._told = f"GET {key}"
        self._raw = self._body = b""

    def __call__(self) -> bytes | None:
        """Return the answer as it is now."""
        began_s = time.monotonic()
        principal = self._entrance.known(self._authorization)
        if principal is None:
            return None
        gate = self._entrance.gate
        passed = gate.enter(principal)
        if passed is None:
            return None
        body = None
        try:
            raw = self._straight.get(principal, self._kind, self._key)
            body = None if raw is None else self._json(raw)
        finally:
            gate.leave(passed, len(body or b""))
        if body is None:
            return None
        request_id = new_id()
        CALLS.note(self._told, 200, began_s, request_id)
        return HEAD % (request_id.encode(), len(body)) + body

    def _json(self, raw: bytes) -> bytes | None:
        """Return an object as it is answered; None for a large one."""
        if raw != self._raw:
            if len(raw) > LARGEST_BODY:
                return None
            self._body = as_json(objects.encoded(self._kind, self._kind.message.FromString(raw)))
            self._raw = raw
        return self._body
