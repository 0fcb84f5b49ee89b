"""Stores to test the port with: every adapter, several instances on the same data.  A new adapter is one line here."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from api.audit import Entry
from api.kinds import kinds
from api.store.base import Change, Key, Store, Write
from api.store.open import open_store

KIND, PROJECT = "ModelFamily", "shop"
WAIT_S = 10.0

# How each adapter's place is named, from the test that asks for it.
ADAPTERS: Mapping[str, Callable[[pytest.FixtureRequest], str]] = {
    "sqlite": lambda request: f"sqlite:///{request.getfixturevalue('tmp_path') / 'store.db'}",
    "postgres": lambda request: str(request.getfixturevalue("postgres_url")),
    "etcd": lambda request: str(request.getfixturevalue("etcd_url")),
}


class Place:
    """Where the stores of one test keep their data."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: list[Store] = []

    async def open(self, *, window: int = 100_000, window_s: float = 600.0) -> Store:
        """Return one more store on the same data."""
        self._opened.append(await open_store(self.url, window=window, window_s=window_s))
        return self._opened[-1]

    async def close(self) -> None:
        """Close all that were opened."""
        for store in self._opened:
            await store.close()


def resource(name: str, *owners: Any, kind: str = KIND, namespace: str = PROJECT, text: str = "", **labels: str) -> Any:
    """Return an object as it would be written: with a uid, owned by `owners`."""
    made = kinds()[kind].new(namespace, name)
    made.metadata.uid = str(uuid.uuid4())
    made.metadata.creationTimestamp.GetCurrentTime()
    if text:
        made.spec.description = text
    made.metadata.labels.update(labels)
    for owner in owners:
        made.metadata.ownerReferences.add(kind=owner.DESCRIPTOR.name, name=owner.metadata.name, uid=owner.metadata.uid)
    return made


def key(name: str, kind: str = KIND, namespace: str = PROJECT) -> Key:
    """Return where an object of the tests stands."""
    return Key(kind, namespace, name)


def entry(name: str, verb: str = "Create") -> Entry:
    """Return the audit record of a call."""
    return Entry(time_us=1, subject="ada", verb=verb, kind=KIND, namespace=PROJECT, name=name, request_id="r")


async def create(store: Store, *made: Any) -> Any:
    """Store objects; return the last as it was stored."""
    for one in made:
        last = await store.create(Write(one))
    return last


async def names(store: Store, kind: str, query: Any) -> Sequence[str]:
    """Return the names in one page."""
    return [item.metadata.name for item in (await store.list(kind, query)).items]


async def heard(store: Store, since: int, count: int, kinds_: Sequence[str] = (KIND,)) -> list[Change]:
    """Return the first changes of a watch."""
    found: list[Change] = []
    watching: Any = store.watch(kinds_, since)
    async with asyncio.timeout(WAIT_S), contextlib.aclosing(watching):
        if count:
            async for change in watching:
                found.append(change)
                if len(found) == count:
                    break
    return found


@contextlib.asynccontextmanager
async def listening(store: Store, since: int, kinds_: Sequence[str] = (KIND,)) -> AsyncIterator[list[Change]]:
    """Yield a list that grows with every change."""
    found: list[Change] = []

    async def listen() -> None:
        async for change in store.watch(kinds_, since):
            found.append(change)

    task = asyncio.create_task(listen())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(happened: Callable[[], object], wait_s: float = WAIT_S) -> None:
    """Wait for something that nobody tells."""
    async with asyncio.timeout(wait_s):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def path_of(url: str) -> Path:
    """Return the file of a SQLite store."""
    return Path(url.removeprefix("sqlite:///"))
