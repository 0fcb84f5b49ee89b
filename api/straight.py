"""A get in one step, for the many in which nothing has to be waited for.  Decides nothing of its own.

Whoever asks goes the ordinary way, with its records and refusals, when there is no answer here.
"""

from __future__ import annotations

from api.calls import Access, Principal
from api.external import ANNOTATION
from api.kinds import Kind
from api.resources import Resources
from api.store.base import Key

ELSEWHERE = ANNOTATION.encode()


class Straight:
    """Reads what a caller may see."""

    def __init__(self, resources: Resources, access: Access) -> None:
        self._resources = resources
        self._access = access

    def get(self, principal: Principal, kind: Kind, key: Key) -> bytes | None:
        """Return the bytes of an object as it is now, None where the ordinary way has to be asked."""
        if kind.sensitive or self._resources.hooks.all:
            return None
        if not self._access.allows(principal, "Get", key.kind, key.namespace):
            return None
        raw = self._resources.store.peek(key)
        return None if raw is None or (kind.external and ELSEWHERE in raw) else raw
