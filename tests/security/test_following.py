"""The bindings in memory while the store's changes cannot be read: nothing that was taken goes on being held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from api.auth.roles import RoleAccess
from api.calls import Call, Principal
from api.errors import Expired, NotFound, Unavailable
from api.kinds import kinds
from api.resources import Resources
from api.store.base import Change
from api.store.sqlite import SqliteStore
from tests.patience import PATIENCE_S
from tests.security.objects import smallest

ALICE = Call(principal=Principal("alice"))


class Faulty(Resources):
    """Resources whose watch fails as often as it is told, with what it is told."""

    faults: list[BaseException] = []  # noqa: RUF012
    watches = 0

    async def watch(self, names: Collection[str] | None = None, since: int = 0) -> AsyncIterator[Change]:
        Faulty.watches += 1
        if Faulty.faults:
            raise Faulty.faults.pop(0)
        async for change in super().watch(names, since):
            yield change


@pytest.fixture
async def resources(tmp_path: Path) -> AsyncIterator[Faulty]:
    """Resources with a project and a binding of alice."""
    store = SqliteStore(tmp_path / "store.db")
    made = Faulty(store)
    Faulty.faults, Faulty.watches = [], 0
    await made.create(smallest("Project", "shop"))
    await made.create(bound("first"))
    yield made
    await store.close()


def bound(name: str) -> Any:
    new = kinds()["RoleBinding"].new("shop", name)
    new.spec.role = 1
    new.spec.subjects.add(kind=1, name="alice")
    return new


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        # What is waited for happens in another task, which tells nobody.
        while not await look():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_seen(access: RoleAccess, seen: frozenset[str]) -> None:
    async def look() -> bool:
        return await access.visible(ALICE, "List", "Model") == seen

    await until(look)


@pytest.mark.parametrize("fault", [Unavailable("gone"), Expired("compacted"), RuntimeError("a bug"), OSError("disk")])
async def test_whatever_breaks_a_watch_it_is_taken_up_again(resources: Faulty, fault: BaseException) -> None:
    Faulty.faults = [fault]

    async def taken_up() -> bool:
        return Faulty.watches == 2

    async with RoleAccess(resources) as access:
        await until(taken_up)
        await until_seen(access, frozenset({"shop"}))
        await resources.delete("RoleBinding", "shop", "first")
        await until_seen(access, frozenset())
        await resources.create(bound("second"))
        await until_seen(access, frozenset({"shop"}))
    assert Faulty.watches == 2


async def test_while_changes_cannot_be_followed_each_decision_reads_the_store(resources: Faulty) -> None:
    Faulty.faults = [Unavailable("gone") for _ in range(1000)]
    async with RoleAccess(resources) as access:
        await asyncio.sleep(0.05)
        await access.require(ALICE, "Get", "Model", "shop")
        # No watch tells of it, and it counts at once.
        await resources.delete("RoleBinding", "shop", "first")
        with pytest.raises(NotFound):
            await access.require(ALICE, "Get", "Model", "shop")
        assert await access.visible(ALICE, "List", "Model") == frozenset()


async def test_a_store_that_does_not_answer_lets_nobody_do_anything(resources: Faulty, tmp_path: Path) -> None:
    Faulty.faults = [Unavailable("gone") for _ in range(1000)]
    async with RoleAccess(resources) as access:
        await asyncio.sleep(0.05)
        await resources._store.close()
        with pytest.raises(Exception, match="closed"):
            await access.require(ALICE, "Get", "Model", "shop")


async def test_changes_that_come_late_and_twice_change_nothing(resources: Faulty) -> None:
    """A server's own writes are taken in before they come back, and come back after others."""
    async with RoleAccess(resources) as access:
        guarded = resources.of(ALICE, None, access)
        for number in range(30):
            await resources.create(bound(f"b-{number}"))
            await guarded.delete("RoleBinding", "shop", f"b-{number}")
        await guarded.delete("RoleBinding", "shop", "first")
        for _ in range(20):
            assert await access.visible(ALICE, "List", "Model") == frozenset()
            await asyncio.sleep(0.005)
