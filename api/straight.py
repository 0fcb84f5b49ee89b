"""A get in one step, for the many in which nothing has to be waited for.  Decides nothing of its own.

Whoever asks goes the ordinary way, with its records and refusals, when there is no answer here.
"""

from __future__ import annotations

from api.calls import Access, Call
from api.eager import at_once
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

    def get(self, call: Call, kind: Kind, namespace: str, name: str) -> bytes | None:
        """Return the bytes of an object as it is now, None where the ordinary way has to be asked."""
        if kind.sensitive or self._resources.hooks.all or not self._may(call, kind, namespace, name):
            return None
        raw = self._resources.store.peek(Key(kind.name, namespace, name))
        return None if raw is None or ELSEWHERE in raw else raw

    def _may(self, call: Call, kind: Kind, namespace: str, name: str) -> bool:
        return bool(at_once(self._allowed(call, kind, namespace, name)))

    async def _allowed(self, call: Call, kind: Kind, namespace: str, name: str) -> bool:
        await self._access.require(call, "Get", kind.name, namespace, name)
        return True
