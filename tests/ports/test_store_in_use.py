"""What is deleted was not used at that moment: whoever begins to use it comes before the delete or after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from api.calls import Call, Principal
from api.errors import ApiError, Conflict, FailedPrecondition, NotFound
from api.kinds import kinds
from api.resources import Resources
from api.store import sql
from api.store.base import OVERTAKEN, Key, Preconditions, Store, Unchanged, Write
from api.store.etcd_draft import FAR_BACK
from tests.ports.stores import KIND, PROJECT, Place, create, key, resource

OTHER = "Project"
ROUNDS = 15


def since(revision: int, *of: str) -> Preconditions:
    return Preconditions(unchanged=Unchanged(frozenset(of), revision))


async def test_a_delete_is_refused_when_others_wrote_since(store: Store) -> None:
    await create(store, resource("a"), resource("b"), resource("c"))
    writes: Sequence[Callable[[], Awaitable[Any]]] = (
        lambda: create(store, resource("x", kind=OTHER)),
        lambda: _again(store, key("x", OTHER)),
        lambda: store.delete(key("x", OTHER), Preconditions()),
    )
    for number, write in enumerate(writes):
        read_at = await store.revision()
        await create(store, resource(f"between-{number}"))
        await write()
        with pytest.raises(Conflict) as refused:
            await store.delete(key("a"), since(read_at, "Model", OTHER))
        assert refused.value.reason == OVERTAKEN
        await store.get(key("a"))
    read_at = await store.revision()
    await create(store, resource("y", kind=OTHER))
    await store.delete(key("a"), since(read_at, KIND, "Model"))
    await store.delete(key("b"), since(await store.revision(), KIND, OTHER))
    with pytest.raises(NotFound):
        await store.get(key("b"))


async def _again(store: Store, at: Key) -> None:
    found = await store.get(at)
    found.metadata.labels["a"] = "b"
    await store.update(Write(found, found.metadata.resourceVersion))


async def test_a_delete_does_not_count_on_changes_that_are_forgotten(store: Any, place: Place) -> None:
    await create(store, resource("a"))
    read_at = await store.revision()
    if place.url.startswith("etcd"):
        # Further back it does not look.
        await asyncio.gather(*(create(store, resource(f"n-{number}")) for number in range(FAR_BACK + 1)))
    else:
        await create(store, resource("b"), resource("c"))
        await store._write(lambda db, _: sql.compact(db, 1, time.time() + 1))
    with pytest.raises(Conflict):
        await store.delete(key("a"), since(read_at, "Model"))


async def test_of_a_delete_and_a_write_at_once_only_one_is_first(place: Place) -> None:
    """In one transaction or in two, of one server or of two."""
    stores = [await place.open(), await place.open()]
    for number in range(ROUNDS):
        await create(stores[0], resource(f"used-{number}"))
        read_at = await stores[0].revision()
        use = Write(resource(f"user-{number}", kind="Model"), must_exist=(key(f"used-{number}"),))
        used, gone = await asyncio.gather(
            stores[number % 2].create(use),
            stores[0].delete(key(f"used-{number}"), since(read_at, "Model")),
            return_exceptions=True,
        )
        assert isinstance(used, ApiError) != isinstance(gone, ApiError), (used, gone)


async def test_nothing_new_refers_to_what_is_being_deleted(store: Store) -> None:
    held = resource("held")
    held.metadata.finalizers.append("a.example/one")
    await create(store, held)
    await store.delete(key("held"), Preconditions())
    with pytest.raises(FailedPrecondition) as refused:
        await store.create(Write(resource("late"), must_exist=(key("held"),)))
    assert refused.value.reason == "REFERENCE_GONE"
    assert "being deleted" in refused.value.message


class Between:
    """A store in which something happens just before the next delete."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def delete(self, *given: Any, **named: Any) -> Any:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            await happens()
        return await self._store.delete(*given, **named)


class Shop:
    """A project with models to serve.  `resources` are those of a user."""

    def __init__(self, store: Store) -> None:
        self.between: Any = Between(store)
        self.platform = Resources(self.between)
        self.user = self.platform.of(Call(Principal("ada")))

    async def model(self, name: str) -> None:
        await self.user.create(kinds()["Model"].new(PROJECT, name))
        await self.user.create(revision(name))

    async def prepare(self) -> None:
        await self.user.create(kinds()["Project"].new(PROJECT, PROJECT))
        await self.user.create(kinds()["InferenceServer"].new(PROJECT, "server"))

    async def stands(self, kind: str, name: str) -> bool:
        return await self.platform.find(key(name, kind)) is not None


def revision(name: str) -> Any:
    new = kinds()["Revision"].new(PROJECT, name)
    new.spec.base_type.kind = "Model"
    new.spec.base_resource.namespace, new.spec.base_resource.name = PROJECT, name
    new.spec.source, new.spec.revision_id = "train", "1"
    return new


def deployment(name: str, of: str) -> Any:
    new = kinds()["Deployment"].new(PROJECT, name)
    new.spec.desired_revision.name = of
    new.spec.inference_server.name = "server"
    new.spec.strategy.rolling.SetInParent()
    return new


@pytest.fixture
async def shop(store: Store) -> Shop:
    made = Shop(store)
    await made.prepare()
    return made


async def test_what_a_deployment_began_to_use_meanwhile_is_kept(shop: Shop) -> None:
    for kind, way in (("Model", "plain"), ("Revision", "foreground"), ("Model", "orphan")):
        name, held = f"m-{way}", "a.example/one"
        await shop.model(name)
        await shop.platform.set_finalizer(await shop.platform.get(kind, PROJECT, name), held, present=True)
        shop.between.meanwhile = partial(shop.user.create, deployment(f"fare-{way}", name))
        with pytest.raises(FailedPrecondition) as refused:
            await shop.user.delete(kind, PROJECT, name, foreground=way == "foreground", orphan=way == "orphan")
        assert refused.value.reason == "IN_USE"
        assert f"'fare-{way}'" in refused.value.message
        for each in ("Model", "Revision"):
            left = await shop.platform.get(each, PROJECT, name)
            assert not left.metadata.HasField("deletionTimestamp")
            assert list(left.metadata.finalizers) == ([held] if each == kind else [])


async def test_a_model_whose_revision_was_made_and_used_meanwhile_is_kept(shop: Shop) -> None:
    await shop.user.create(kinds()["Model"].new(PROJECT, "m-1"))

    async def meanwhile() -> None:
        await shop.user.create(revision("m-1"))
        await shop.user.create(deployment("fare", "m-1"))

    shop.between.meanwhile = meanwhile
    with pytest.raises(FailedPrecondition) as refused:
        await shop.user.delete("Model", PROJECT, "m-1")
    assert refused.value.reason == "IN_USE"


async def test_what_others_use_keeps_nobody_from_a_delete(shop: Shop) -> None:
    await shop.model("m-1")
    await shop.model("m-2")
    shop.between.meanwhile = lambda: shop.user.create(deployment("fare", "m-2"))
    await shop.user.delete("Revision", PROJECT, "m-1")
    assert not await shop.stands("Revision", "m-1")


async def test_retention_keeps_what_a_deployment_began_to_use(shop: Shop) -> None:
    await shop.model("m-1")
    shop.between.meanwhile = lambda: shop.user.create(deployment("fare", "m-1"))
    with pytest.raises(FailedPrecondition):
        await shop.platform.delete("Model", PROJECT, "m-1", spare_used=True)
    await shop.platform.delete("Model", PROJECT, "m-1")
    assert not await shop.stands("Model", "m-1")


async def test_no_deployment_is_left_without_its_model(shop: Shop) -> None:
    for number in range(ROUNDS):
        name = f"m-{number}"
        await shop.model(name)
        await asyncio.gather(
            shop.user.create(deployment(f"d-{number}", name)),
            shop.user.delete("Revision", PROJECT, name),
            return_exceptions=True,
        )
        assert await shop.stands("Deployment", f"d-{number}") == await shop.stands("Revision", name), number
