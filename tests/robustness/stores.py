"""Stores by URL, what stands in them, and their change log: the same for every adapter."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from api.kinds import kinds
from api.store.base import Change, Query, Store
from tests.robustness.history.watch_rules import Event
from tests.robustness.model.store_model import Held

KIND = "ModelFamily"
PROJECT = "shop"


@dataclass(frozen=True)
class Place:
    """Where a store stands.  name: for people; url: as in MA_STORE_URL."""

    name: str
    url: str


def family(name: str, token: str, *, size: int = 0, labels: dict[str, str] | None = None) -> Any:
    """Return an object that holds a token, as admission would leave it."""
    made = kinds()[KIND].new(PROJECT, name)
    made.metadata.uid = str(uuid.uuid4())
    made.spec.name = token
    made.spec.description = "x" * size
    for key, value in (labels or {}).items():
        made.metadata.labels[key] = value
    return made


def token_of(resource: Any) -> str:
    """Return the token that an object holds."""
    return str(resource.spec.name)


def event_of(change: Change) -> Event:
    """Return a change as judges know it."""
    return Event(change.type.value, change.revision, change.key.name, token_of(change.resource))


async def held(store: Store) -> dict[str, Held]:
    """Return what stands in a store."""
    page = await store.list(KIND, Query())
    return {item.metadata.name: Held(token_of(item), int(item.metadata.resourceVersion)) for item in page.items}


async def log(store: Store, since: int = 0) -> list[Event]:
    """Return the change log after `since` up to now."""
    found: list[Event] = []
    until = await store.revision()
    if until <= since:
        return found
    changes = store.watch([KIND], since)
    try:
        async for change in changes:
            found.append(event_of(change))
            if change.revision >= until:
                break
    finally:
        await changes.aclose()  # type: ignore[attr-defined]
    return found
