"""Removes blobs that nothing refers to: no object, no entry of the change log, no answer that may be repeated.

A blob that is found without an object is marked; it is removed when that is still so after the grace period and the
change log does not name it.  The grace period is longer than answers are remembered (`store`, 48 hours).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

from api.blobs import Blobs, Ref, parsed
from api.errors import Expired, Unavailable
from api.external import refs_of
from api.kinds import kinds
from api.resources import Resources
from api.sweeps import for_ever

GRACE_DAYS = 3
FIRST_S = 600.0
LOG_S = 120.0
# Beside the namespaces: no project's name has a capital letter.
MARK = re.compile(r"UNUSED/(?P<day>[0-9]{1,9})/(?P<name>.+)\Z")


class Sweeper:
    """Looks four times a day; the leader runs it.  `grace_days`: how long a blob stays after it was last needed."""

    def __init__(self, resources: Resources, blobs: Blobs, *, grace_days: int = GRACE_DAYS) -> None:
        self._resources = resources
        self._blobs = blobs
        self._grace_days = grace_days

    async def run(self) -> None:
        """Sweep for ever."""
        await for_ever(self.sweep, "blobs", FIRST_S)

    async def sweep(self) -> int:
        """Mark what is unused, remove what was marked long enough ago; return how many were removed."""
        names = await self._blobs.names()
        marks = {match["name"]: int(match["day"]) for name in names if (match := MARK.match(name))}
        before = self._blobs.today() - self._grace_days
        old = {
            Ref(day, digest, 0).name(namespace): namespace for namespace, day, digest in parsed(names) if day < before
        }
        used = await self._used_by_objects(set(old.values()))
        due = {name for name in old.keys() - used if marks.get(name, before) < before}
        if due:
            due -= await self._used_by_changes()
        for name in old.keys() - used - marks.keys():
            await self._blobs.mark(f"UNUSED/{self._blobs.today()}/{name}")
        for name in due:
            await self._blobs.remove(name)
        for name in marks.keys() & (due | used | (marks.keys() - old.keys())):
            await self._blobs.remove(f"UNUSED/{marks[name]}/{name}")
        return len(due)

    async def _used_by_objects(self, namespaces: Iterable[str]) -> set[str]:
        """Return the names that objects of some projects refer to.  No object takes another's name over meanwhile."""
        used = set()
        for namespace in namespaces:
            for kind in kinds().values():
                if kind.external:
                    async for item in self._resources.each(kind.name, namespace):
                        used |= {ref.name(namespace) for ref in refs_of(item).values()}
        return used

    async def _used_by_changes(self) -> set[str]:
        """Return the names that the change log refers to.  Raises Expired when it is cut meanwhile."""
        newest, used = await self._resources.revision(), set()
        try:
            async with asyncio.timeout(LOG_S):
                since = await self._oldest(newest)
                if since < newest:
                    async for change in self._resources.watch(None, since):
                        used |= {ref.name(change.key.namespace) for ref in refs_of(change.resource).values()}
                        if change.revision >= newest:
                            break
        except TimeoutError:
            raise Unavailable("the change log could not be read to its end") from None
        return used

    async def _oldest(self, newest: int) -> int:
        """Return the first revision that a watch can begin from, by bisection: the port does not tell it."""
        low, high = 0, newest
        while low < high:
            middle = (low + high) // 2
            try:
                async for _ in self._resources.watch(None, middle):
                    break
            except Expired:
                low = middle + 1
            else:
                high = middle
        return low
