"""Deletions on etcd that are larger than a transaction of etcd may be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.errors import FailedPrecondition, Unavailable
from api.store.base import ChangeType, Key, Preconditions, Query, Trail, Write
from api.store.etcd import EtcdStore, open_etcd
from api.store.etcd_client import EtcdClient, below
from tests.etcd_servers import EtcdServer, etcd_server
from tests.ports.etcd_stores import KIND, PROJECT, entry, family, heard, root_of


@pytest.fixture
async def store(etcd_url: str) -> AsyncIterator[EtcdStore]:
    made = await open_etcd(etcd_url)
    yield made
    await made.close()


@pytest.fixture
async def client(etcd: EtcdServer) -> AsyncIterator[EtcdClient]:
    """A connection beside the store."""
    made = EtcdClient([etcd.address])
    yield made
    await made.close()


async def _graph(store: EtcdStore, owner: Any, children: int) -> None:
    made = await asyncio.gather(*(store.create(Write(family(f"child-{number}", owner))) for number in range(children)))
    await asyncio.gather(*(store.create(Write(family(f"{child.metadata.name}-low", child))) for child in made[:20]))


async def test_a_small_cascade_is_one_transaction(store: EtcdStore, etcd_url: str, client: EtcdClient) -> None:
    owner = await store.create(Write(family("owner")))
    for number in range(20):
        await store.create(Write(family(f"child-{number}", owner)))
    before = await store.revision()
    await store.delete(Key(KIND, PROJECT, "owner"), Preconditions())
    changes = await heard(store, before, 21)
    assert [change.revision for change in changes] == list(range(before + 1, before + 22))
    assert changes[-1].key.name == "owner", "what is owned goes first"
    root = root_of(etcd_url)
    logged = [item.mod_revision for item in (await client.range(below(f"{root}/c/".encode()))).kvs]
    assert len(set(logged[before:])) == 1


async def test_a_cascade_larger_than_a_transaction_goes_in_several_and_whole(
    store: EtcdStore, etcd_url: str, client: EtcdClient
) -> None:
    owner = await store.create(Write(family("owner")))
    await _graph(store, owner, 300)
    before = await store.revision()
    await store.delete(Key(KIND, PROJECT, "owner"), Preconditions(), trail=Trail(audit=entry("owner")))
    marked, *changes = await heard(store, before, 322)
    assert (marked.type, marked.key.name) == (ChangeType.MODIFIED, "owner"), "who watches is told before it is all done"
    assert marked.resource.metadata.HasField("deletionTimestamp")
    gone = [change.key.name for change in changes]
    assert len(set(gone)) == 321
    assert gone[-1] == "owner"
    for number in range(20):
        assert gone.index(f"child-{number}-low") < gone.index(f"child-{number}")
    assert not (await store.list(KIND, Query())).items
    assert len(await store.audit(0, 10)) == 1
    root = root_of(etcd_url)
    assert not (await client.range(below(f"{root}/w/".encode()))).kvs, "no place in the owners' index is left"


async def test_a_large_cascade_that_is_stopped_leaves_nothing_without_its_owner_and_goes_on() -> None:
    with etcd_server() as server:
        url = server.url()
        store = await open_etcd(url, patience_s=0.2)
        owner = await store.create(Write(family("owner")))
        await _graph(store, owner, 300)
        before = await store.revision()
        deleting = asyncio.create_task(store.delete(Key(KIND, PROJECT, "owner"), Preconditions()))
        assert await heard(store, before, 100)
        server.kill()
        with pytest.raises(Unavailable):
            await deleting
        server.start()
        left = {item.metadata.name: item for item in (await store.list(KIND, Query())).items}
        assert 0 < len(left) < 321
        for item in left.values():
            assert all(reference.name in left for reference in item.metadata.ownerReferences)
        await store.delete(Key(KIND, PROJECT, "owner"), Preconditions())
        assert not (await store.list(KIND, Query())).items
        await store.close()


async def test_a_child_that_arrives_during_a_large_cascade_is_deleted_or_refused(etcd_url: str) -> None:
    store, other = await open_etcd(etcd_url), await open_etcd(etcd_url)
    owner = await store.create(Write(family("owner")))
    await _graph(store, owner, 200)

    async def arrive() -> int:
        number = 0
        with contextlib.suppress(FailedPrecondition):
            while True:
                write = Write(family(f"late-{number}", owner), must_exist=(Key(KIND, PROJECT, "owner"),))
                await other.create(write)
                number += 1
        return number

    arriving = asyncio.create_task(arrive())
    await asyncio.sleep(0.02)
    await store.delete(Key(KIND, PROJECT, "owner"), Preconditions())
    arrived = await arriving
    assert arrived > 0, "nobody is refused before the deletion begins"
    assert not (await store.list(KIND, Query())).items
    await store.close()
    await other.close()


async def test_owners_in_a_ring_are_deleted_together(store: EtcdStore) -> None:
    first = await store.create(Write(family("first")))
    second = await store.create(Write(family("second", first)))
    first.metadata.ownerReferences.add(kind=KIND, name="second", uid=second.metadata.uid)
    await store.update(Write(first, first.metadata.resourceVersion))
    await store.delete(Key(KIND, PROJECT, "first"), Preconditions())
    assert not (await store.list(KIND, Query())).items
