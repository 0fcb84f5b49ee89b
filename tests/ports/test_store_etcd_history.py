"""What the store on etcd keeps, and for how long: changes, states, answers, audit records, leases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from api.audit import first_break
from api.errors import Conflict, DataLoss, Expired
from api.gen.etcd import rpc_pb2 as rpc
from api.store.base import REQUESTS_KEPT_S, Key, Preconditions, Query, Request, Trail, Write
from api.store.etcd import EtcdStore, open_etcd
from api.store.etcd_client import CompactedError, EtcdClient, below, one
from api.store.etcd_writer import COMPACT_EVERY
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


async def test_changes_beyond_the_window_are_forgotten_and_said_to_be(etcd_url: str) -> None:
    store = await open_etcd(etcd_url, window=10, window_s=0.0)
    item = await store.create(Write(family("one")))
    for _ in range(COMPACT_EVERY - 2):
        item = await store.update(Write(item, item.metadata.resourceVersion))
    assert len(await heard(store, 0, COMPACT_EVERY - 1)) == COMPACT_EVERY - 1
    await store.update(Write(item, item.metadata.resourceVersion))
    oldest = COMPACT_EVERY - 10
    assert [change.revision for change in await heard(store, oldest, 10)] == list(range(oldest + 1, COMPACT_EVERY + 1))
    with pytest.raises(Expired):
        await heard(store, oldest - 1, 1)
    await store.close()


async def test_changes_and_states_are_kept_for_a_while_however_many_there_are() -> None:
    with etcd_server() as server:
        client = EtcdClient([server.address])
        for kept_s, forgets in ((600.0, False), (0.0, True)):
            store = await open_etcd(server.url(), window=10, window_s=kept_s)
            item = await store.create(Write(family("one")))
            began = (await client.range(one(b"x"))).header.revision
            for _ in range(COMPACT_EVERY + 100):
                item = await store.update(Write(item, item.metadata.resourceVersion))
            if forgets:
                with pytest.raises(Expired):
                    await heard(store, 0, 1)
                with pytest.raises(CompactedError):
                    await client.range(rpc.RangeRequest(key=b"x", revision=began))
            else:
                assert len(await heard(store, 0, COMPACT_EVERY + 101)) == COMPACT_EVERY + 101
                await client.range(rpc.RangeRequest(key=b"x", revision=began))
            await store.close()
        await client.close()


async def test_a_transaction_with_more_changes_than_the_window_compacts_too(etcd_url: str) -> None:
    store = await open_etcd(etcd_url, window=10, window_s=0.0)
    owner = await store.create(Write(family("owner")))
    for number in range(20):
        await store.create(Write(family(f"child-{number}", owner)))
    item = await store.create(Write(family("one")))
    while int(item.metadata.resourceVersion) < COMPACT_EVERY - 5:
        item = await store.update(Write(item, item.metadata.resourceVersion))
    listening = asyncio.create_task(heard(store, COMPACT_EVERY - 5, 21))
    await asyncio.sleep(0.05)
    await store.delete(Key(KIND, PROJECT, "owner"), Preconditions())
    newest = COMPACT_EVERY - 5 + 21
    assert [c.revision for c in await heard(store, newest - 10, 10)] == list(range(newest - 9, newest + 1))
    with pytest.raises(Expired):
        await listening
    await store.close()


async def test_a_hole_in_the_record_of_changes_is_not_passed_over(
    store: EtcdStore, etcd_url: str, client: EtcdClient
) -> None:
    for number in range(3):
        await store.create(Write(family(f"m-{number}")))
    lost = rpc.RequestOp()
    lost.request_delete_range.key = f"{root_of(etcd_url)}/c/{2:020d}".encode()
    await client.txn(rpc.TxnRequest(success=[lost]))
    with pytest.raises(DataLoss) as refused:
        await heard(store, 0, 3)
    assert refused.value.reason == "STORE_CORRUPT"
    assert [change.revision for change in await heard(store, 2, 1)] == [3]


async def test_pages_show_the_first_page_s_revision_until_etcd_forgets_it(store: EtcdStore, client: EtcdClient) -> None:
    for number in range(20):
        await store.create(Write(family(f"m-{number:02}", text="old")))
    queries = (Query(namespace=PROJECT, limit=7), Query(limit=7), Query(limit=7, order=(("metadata.name", True),)))
    first = [await store.list(KIND, query) for query in queries]
    await store.delete(Key(KIND, PROJECT, "m-05"), Preconditions())
    item = await store.get(Key(KIND, PROJECT, "m-12"))
    item.spec.description = "new"
    await store.update(Write(item, item.metadata.resourceVersion))
    await store.create(Write(family("m-055")))
    for query, page in zip(queries, first, strict=True):
        items = list(page.items)
        while page.next:
            page = await store.list(KIND, Query(query.namespace, order=query.order, limit=7, start=page.next))
            items += page.items
            assert (page.revision, page.remaining) == (20, 20 - len(items))
        names = sorted(item.metadata.name for item in items)
        assert names == [f"m-{number:02}" for number in range(20)]
        assert {item.spec.description for item in items} == {"old"}
    newest = (await client.range(one(b"x"))).header.revision
    await client.compact(newest)
    for query, page in zip(queries, first, strict=True):
        with pytest.raises(Expired):
            await store.list(KIND, Query(query.namespace, order=query.order, limit=7, start=page.next))


async def test_a_watch_outlives_a_compaction_of_etcd(store: EtcdStore, client: EtcdClient) -> None:
    await store.create(Write(family("one")))
    newest = (await client.range(one(b"x"))).header.revision
    await client.compact(newest)
    await store.create(Write(family("two")))
    assert [change.key.name for change in await heard(store, 0, 2)] == ["one", "two"]


async def test_the_answer_to_a_request_is_kept_for_two_days(
    store: EtcdStore, etcd_url: str, client: EtcdClient
) -> None:
    request = Request("ada Create", "1", b"d" * 32)
    await store.create(Write(family("one")), Trail(request=request))
    (kept,) = (await client.range(below(f"{root_of(etcd_url)}/r/".encode()))).kvs
    asked, _ = await client._call(
        "/etcdserverpb.Lease/LeaseKeepAlive", rpc.LeaseKeepAliveRequest(ID=kept.lease), rpc.LeaseKeepAliveResponse
    )
    assert asked.TTL >= REQUESTS_KEPT_S


async def test_a_request_of_eight_writers_at_once_has_one_effect(etcd_url: str) -> None:
    stores = [await open_etcd(etcd_url) for _ in range(4)]
    for number in range(20):
        request = Request("ada Create", f"{number}", b"d" * 32)
        ended = await asyncio.gather(
            *(store.create(Write(family(f"m-{number}")), Trail(request=request)) for store in stores * 2)
        )
        assert len({item.metadata.uid for item in ended}) == 1
    assert await stores[0].revision() == 20
    for store in stores:
        await store.close()


async def test_the_audit_chain_of_several_servers_is_one(etcd_url: str) -> None:
    stores = [await open_etcd(etcd_url) for _ in range(3)]

    async def work(number: int, store: EtcdStore) -> None:
        for turn in range(20):
            name = f"m-{number}-{turn}"
            await store.create(Write(family(name)), Trail(audit=entry(name)))
            await store.record(entry(f"denied-{name}"))

    await asyncio.gather(*(work(number, store) for number, store in enumerate(stores)))
    records = await stores[0].audit(0, 1000)
    assert len(records) == 3 * 20 * 2
    assert first_break(records) is None
    assert [record.number for record in await stores[0].audit(100, 5)] == [101, 102, 103, 104, 105]
    for store in stores:
        await store.close()


async def _until(holds: Callable[[], Any], within_s: float) -> float:
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < within_s
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_a_standby_leads_after_the_term_of_a_leader_that_is_gone(etcd_url: str) -> None:
    leader, standby = await open_etcd(etcd_url), await open_etcd(etcd_url)
    held = await leader.acquire("leader", "a", 0.5)
    assert held is not None
    for _ in range(10):
        assert await standby.acquire("leader", "b", 0.5) is None
        assert await leader.acquire("leader", "a", 0.5) == held, "renewing changes nothing"
        await asyncio.sleep(0.1)
    # Sooner than etcd itself ends a lease, which takes 2 s at least.
    took_s = await _until(lambda: standby.acquire("leader", "b", 0.5), 1.2)
    assert took_s > 0.3
    taken = await standby.acquire("leader", "b", 0.5)
    assert taken is not None
    assert taken.epoch == held.epoch + 1
    with pytest.raises(Conflict) as refused:
        await leader.create(Write(family("late")), Trail(fence=held))
    assert refused.value.reason == "DEPOSED"
    assert await leader.acquire("leader", "a", 0.5) is None
    await standby.create(Write(family("new")), Trail(fence=taken))
    await leader.close()
    await standby.close()


async def test_a_newcomer_does_not_wait_for_a_leader_that_died_before_it_came(etcd_url: str) -> None:
    leader = await open_etcd(etcd_url)
    held = await leader.acquire("leader", "a", 1.0)
    assert held is not None
    await leader.close()
    # etcd counts whole seconds and no term below its election timeout, and looks at what has ended twice a second.
    await asyncio.sleep(3.5)
    newcomer = await open_etcd(etcd_url)
    taken = await newcomer.acquire("leader", "b", 1.0)
    assert taken is not None
    assert taken.epoch == held.epoch + 1
    await newcomer.close()


async def test_a_lease_that_is_given_back_is_free_at_once(etcd_url: str) -> None:
    store, other = await open_etcd(etcd_url), await open_etcd(etcd_url)
    first = await store.acquire("leader", "a", 15.0)
    assert first is not None
    assert await other.acquire("leader", "b", 15.0) is None
    await store.release(first)
    second = await other.acquire("leader", "b", 15.0)
    assert second is not None
    assert second.epoch == first.epoch + 1
    await store.release(first)
    assert await store.acquire("leader", "a", 15.0) is None, "what was given back is not taken from another"
    await store.close()
    await other.close()


async def test_only_one_of_eight_candidates_leads(etcd_url: str) -> None:
    stores = [await open_etcd(etcd_url) for _ in range(8)]
    taken = await asyncio.gather(*(store.acquire("leader", f"{n}", 5.0) for n, store in enumerate(stores)))
    assert len([lease for lease in taken if lease is not None]) == 1
    for store in stores:
        await store.close()
