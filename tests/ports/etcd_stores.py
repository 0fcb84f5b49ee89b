"""What tests of the store on etcd share: objects, changes, a connection beside the store."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from api.audit import Entry
from api.errors import Unavailable
from api.kinds import kinds
from api.store.base import Change
from api.store.etcd import EtcdStore, open_etcd
from tests.patience import soon

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
    async with asyncio.timeout(soon(WAIT_S)):
        async for change in changes:
            found.append(change)
            if len(found) == count:
                break
    await changes.aclose()  # type: ignore[attr-defined]
    return found


def root_of(url: str) -> str:
    """Return the beginning of the keys of the store at an address."""
    return f"/{url.rsplit('/', 1)[1]}/michelangelo"


@contextlib.asynccontextmanager
async def opened(*urls: str, patience_s: float = 60.0) -> AsyncIterator[Sequence[EtcdStore]]:
    """Yield stores, which are closed afterwards.  Their patience is for a busy machine, on which members are slow."""
    stores = [await open_etcd(url, patience_s=patience_s) for url in urls]
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


async def logged(store: EtcdStore, since: int = 0) -> list[Change]:
    """Return the whole record of changes."""
    found: list[Change] = []
    until = await store.revision()
    if until == since:
        return found
    changes = store.watch([KIND], since)
    async with asyncio.timeout(soon(WAIT_S)):
        async for change in changes:
            found.append(change)
            if change.revision >= until:
                break
    await changes.aclose()  # type: ignore[attr-defined]
    return found


async def eventually(holds: Callable[[], bool]) -> None:
    """Return once something holds, which other tasks bring about."""
    deadline = time.monotonic() + soon(WAIT_S)
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def insist(write: Callable[[], Awaitable[Any]]) -> None:
    """Write, again as long as others are faster: then nothing was written."""
    while True:
        try:
            await write()
            return
        except Unavailable as refused:
            if refused.reason != "STORE_BUSY":
                raise
