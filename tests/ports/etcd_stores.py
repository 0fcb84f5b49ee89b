"""What tests of the store on etcd share: objects, changes, a connection beside the store."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from api.audit import Entry
from api.kinds import kinds
from api.store.base import Change
from api.store.etcd import EtcdStore

KIND, PROJECT = "ModelFamily", "shop"
WAIT_S = 10.0


def family(name: str, *owners: Any, namespace: str = PROJECT, text: str = "") -> Any:
    made = kinds()[KIND].new(namespace, name)
    made.metadata.uid = str(uuid.uuid4())
    made.spec.description = text
    for owner in owners:
        made.metadata.ownerReferences.add(kind=KIND, name=owner.metadata.name, uid=owner.metadata.uid)
    return made


def entry(name: str) -> Entry:
    return Entry(time_us=1, subject="ada", verb="Create", kind=KIND, namespace=PROJECT, name=name, request_id="r")


async def heard(store: EtcdStore, since: int, count: int) -> list[Change]:
    """Return the next changes of one kind."""
    found: list[Change] = []
    changes = store.watch([KIND], since)
    async with asyncio.timeout(WAIT_S):
        async for change in changes:
            found.append(change)
            if len(found) == count:
                break
    await changes.aclose()  # type: ignore[attr-defined]
    return found


def root_of(url: str) -> str:
    """Return the beginning of the keys of the store at an address."""
    return f"/{url.rsplit('/', 1)[1]}/michelangelo"
