"""CachedOutput: goes when its time is over, unless a model goes on from it.  The values themselves stay in their store.

`ttl_in_days` counts from its creation; what keeps it by the second, as the cache of steps does, says when it expires.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from api.admission import references
from api.calls import Call, Principal
from api.controllers.platform import Platform
from api.errors import NotFound
from api.kinds import Resource
from api.store.base import Change, Key, Preconditions

# Whose entry of `variable_spec.metadata` is believed: the same label stands in `operators.cache`.
LINE = "michelangelo.airflow/cached-step"
EXPIRES = "expires"
KEEPER = Principal("system:cache", kind="service")
USED_LOOK_S = 3600.0
# What models refer to is read again after so long; a model that is made meanwhile may find its referee gone.
REFERRED_S = 60.0
LONGEST_WAIT_S = 24 * 3600.0

log = logging.getLogger(__name__)


class CachedOutputController:
    """Removes what is kept no longer."""

    kind = "CachedOutput"
    unsettled = None

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._referred: set[Key] = set()
        self._read: datetime | None = None

    def settled(self, resource: Resource) -> bool:
        """Whether it is kept for good."""
        return expires(resource) is None or resource.metadata.HasField("deletionTimestamp")

    async def related(self, change: Change) -> Sequence[Key]:
        """Nothing else ends its time."""
        return ()

    async def reconcile(self, key: Key) -> float | None:
        """Remove it if its time is over; return how long it is still kept."""
        found = await self._platform.resources.find(key)
        if found is None or self.settled(found):
            return None
        until, now = expires(found), self._platform.now()
        if until is not None and now < until:
            return min((until - now).total_seconds(), LONGEST_WAIT_S)
        if await self._is_referred(key, now):
            return USED_LOOK_S
        log.info("%s is kept no longer", key)
        resources = self._platform.resources.of(Call(principal=KEEPER))
        try:
            same = Preconditions(uid=found.metadata.uid)
            await resources.delete(key.kind, key.namespace, key.name, preconditions=same)
        except NotFound:
            return None
        return None

    async def _is_referred(self, key: Key, now: datetime) -> bool:
        if self._read is None or now - self._read > timedelta(seconds=REFERRED_S):
            models = (await self._platform.resources.list("Model")).items
            self._referred = {target for model in models for _, target in references(model)}
            self._read = now
        return key in self._referred


def expires(resource: Any) -> datetime | None:
    """Return when an output is kept no longer, UTC; None for never."""
    spec = resource.spec
    if LINE in resource.metadata.labels and EXPIRES in spec.variable_spec.metadata.fields:
        text = spec.variable_spec.metadata.fields[EXPIRES].string_value
        try:
            return datetime.fromisoformat(text).astimezone(UTC) if text else None
        except (ValueError, OverflowError):
            return None
    if spec.ttl_in_days <= 0:
        return None
    made = datetime.fromtimestamp(resource.metadata.creationTimestamp.seconds, UTC)
    try:
        return made + timedelta(days=spec.ttl_in_days)
    except OverflowError:
        return None
