"""What is particular to the store on etcd: its start, its layout, transactions of limited size, two clocks, history.

What it shares with every other store is in the contract of the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from api.audit import Entry, first_break
from api.errors import Conflict, DataLoss, Expired, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from api.gen.etcd import rpc_pb2 as rpc
from api.kinds import kinds
from api.store.base import Change, Key, Preconditions, Query, Request, Trail, Write
from api.store.etcd import EtcdStore, open_etcd
from api.store.etcd_client import CompactedError, EtcdClient, below, one
from api.store.etcd_turn import TURN_S
from api.store.etcd_writer import COMPACT_EVERY, REQUESTS_KEPT_S
from tests.etcd_servers import EtcdServer, etcd_server, free_ports

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


# --- opening


@pytest.mark.parametrize(
    "url",
    ["etcd://", "etcd://host", "etcd://:2379", "etcd://a:1,b", "etcd://a:1?x=1", "etcd://me:secret@a:1", "http://a:1"],
)
async def test_an_address_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await open_etcd(url)
    assert refused.value.reason == "BAD_STORE_URL"
    assert "etcd://host:port" in refused.value.message
    assert "secret" not in refused.value.message


async def test_a_cluster_that_does_not_answer_is_named() -> None:
    (port,) = free_ports(1)
    with pytest.raises(Unavailable) as refused:
        await open_etcd(f"etcd://127.0.0.1:{port}", patience_s=0.3)
    assert refused.value.reason == "STORE_UNREACHABLE"
    assert f"127.0.0.1:{port}" in refused.value.message


@contextlib.asynccontextmanager
async def etcd_of(release: str) -> AsyncIterator[str]:
    """A server that only says which release it is: none that old can be had."""

    async def status(request: bytes, context: object) -> bytes:
        return rpc.StatusResponse(version=release).SerializeToString()

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(status)  # type: ignore[arg-type,var-annotated,unused-ignore]
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("etcdserverpb.Maintenance", {"Status": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize("release", ["3.3.27", "2.3.8", "3.2.0-rc.1"])
async def test_an_etcd_that_is_too_old_is_refused(release: str) -> None:
    async with etcd_of(release) as address:
        with pytest.raises(FailedPrecondition) as refused:
            await open_etcd(f"etcd://{address}")
    assert refused.value.reason == "ETCD_TOO_OLD"
    assert f"etcd at {address} is release {release}" in refused.value.message
    assert "3.4" in refused.value.message


async def test_a_store_of_a_newer_release_is_refused(etcd_url: str, client: EtcdClient) -> None:
    await (await open_etcd(etcd_url)).close()
    key = f"/{etcd_url.rsplit('/', 1)[1]}/michelangelo/version".encode()
    put = rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=b"2"))
    await client.txn(rpc.TxnRequest(success=[put]))
    with pytest.raises(FailedPrecondition) as refused:
        await open_etcd(etcd_url)
    assert refused.value.reason == "STORE_TOO_NEW"


async def test_a_member_that_is_down_is_passed_over(etcd: EtcdServer) -> None:
    (port,) = free_ports(1)
    root = etcd.url().rsplit("/", 1)[1]
    store = await open_etcd(f"etcd://127.0.0.1:{port},{etcd.address}/{root}")
    await store.create(Write(family("one")))
    assert (await heard(store, 0, 1))[0].key.name == "one"
    await store.close()


async def test_a_closed_store_says_so(etcd_url: str) -> None:
    store = await open_etcd(etcd_url)
    waiting = asyncio.create_task(heard(store, 0, 1))
    await asyncio.sleep(0.1)
    await store.close()
    for call in (store.revision(), store.create(Write(family("late"))), waiting):
        with pytest.raises(FailedPrecondition) as refused:
            await call
        assert refused.value.reason == "STORE_CLOSED"


# --- layout and transactions


async def test_objects_stand_where_others_look_for_them(store: EtcdStore, etcd_url: str, client: EtcdClient) -> None:
    made = await store.create(Write(family("late")))
    root = f"/{etcd_url.rsplit('/', 1)[1]}/michelangelo"
    (found,) = (await client.range(one(f"{root}/o/ModelFamily/shop/late".encode()))).kvs
    assert kinds()[KIND].message.FromString(found.value) == made
    (logged,) = (await client.range(below(f"{root}/c/".encode()))).kvs
    assert logged.key == f"{root}/c/{1:020d}".encode()
    assert logged.mod_revision == found.mod_revision, "the object and its change are one transaction"


@pytest.mark.parametrize("namespace", ["a/b", "ü", "%2F", "a b", ".."])
async def test_names_with_odd_characters_keep_apart(store: EtcdStore, namespace: str) -> None:
    await store.create(Write(family("x", namespace=namespace)))
    await store.create(Write(family("y", namespace=namespace + "c")))
    assert [item.metadata.name for item in (await store.list(KIND, Query(namespace=namespace))).items] == ["x"]
    assert (await store.get(Key(KIND, namespace, "x"))).metadata.namespace == namespace
    await store.delete(Key(KIND, namespace, "x"), Preconditions())
    assert [item.metadata.name for item in (await store.list(KIND, Query())).items] == ["y"]


async def test_writes_that_wait_together_are_one_transaction_and_each_has_its_own_answer(
    store: EtcdStore, etcd_url: str, client: EtcdClient
) -> None:
    ended = await asyncio.gather(
        *(store.create(Write(family(f"m-{number % 15}"))) for number in range(20)), return_exceptions=True
    )
    made = [end for end in ended if not isinstance(end, BaseException)]
    assert [type(end).__name__ for end in ended[15:]] == ["AlreadyExists"] * 5
    assert sorted(int(item.metadata.resourceVersion) for item in made) == list(range(1, 16))
    root = f"/{etcd_url.rsplit('/', 1)[1]}/michelangelo"
    revisions = {item.mod_revision for item in (await client.range(below(f"{root}/c/".encode()))).kvs}
    assert len(revisions) < 15


async def test_of_writes_that_wait_together_each_sees_those_before_it(store: EtcdStore) -> None:
    for number in range(20):
        owner = await store.create(Write(family(f"owner-{number}")))
        key = Key(KIND, PROJECT, f"owner-{number}")
        child = Write(family(f"child-{number}", owner), must_exist=(key,))
        await asyncio.gather(store.create(child), store.delete(key, Preconditions()))
    assert not (await store.list(KIND, Query())).items


async def test_a_write_that_etcd_refuses_takes_no_other_with_it(etcd_url: str) -> None:
    with etcd_server(largest_request_bytes=1_000_000) as small:
        store = await open_etcd(small.url())
        large = family("large", text="x" * 900_000)
        ended = await asyncio.gather(
            *(store.create(Write(item)) for item in (family("a"), large, family("b"))), return_exceptions=True
        )
        refused = ended[1]
        assert isinstance(refused, ResourceExhausted)
        assert refused.reason == "TOO_LARGE"
        assert "--max-request-bytes" in refused.message
        assert [item.metadata.name for item in (await store.list(KIND, Query())).items] == ["a", "b"]
        assert await store.revision() == 2
        await store.close()


async def test_a_full_etcd_says_so_and_still_answers() -> None:
    with etcd_server("--quota-backend-bytes=1000000") as small:
        store = await open_etcd(small.url())
        kept = 0
        with pytest.raises(ResourceExhausted) as refused:  # noqa: PT012 - which of them is refused is etcd's to say
            while kept < 200:
                await store.create(Write(family(f"m-{kept}", text="x" * 50_000)))
                kept += 1
        assert refused.value.reason == "DISK_FULL"
        assert "quota" in refused.value.message
        assert len((await store.list(KIND, Query())).items) == kept == await store.revision()
        await store.close()


async def test_a_turn_whose_holder_died_holds_nobody_up_for_long(
    store: EtcdStore, etcd_url: str, client: EtcdClient
) -> None:
    turn = f"/{etcd_url.rsplit('/', 1)[1]}/michelangelo/turn".encode()
    put = rpc.RequestOp(request_put=rpc.PutRequest(key=turn, value=b"somebody"))
    await client.txn(rpc.TxnRequest(success=[put]))
    began = time.monotonic()
    await store.create(Write(family("one")))
    assert TURN_S < time.monotonic() - began < TURN_S + 1.0
    assert not (await client.range(one(turn))).kvs
    await store.create(Write(family("two")))


# --- cascades


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
    root = f"/{etcd_url.rsplit('/', 1)[1]}/michelangelo"
    logged = [item.mod_revision for item in (await client.range(below(f"{root}/c/".encode()))).kvs]
    assert len(set(logged[before:])) == 1


async def test_a_cascade_larger_than_a_transaction_goes_in_several_and_whole(
    store: EtcdStore, etcd_url: str, client: EtcdClient
) -> None:
    owner = await store.create(Write(family("owner")))
    await _graph(store, owner, 300)
    before = await store.revision()
    await store.delete(Key(KIND, PROJECT, "owner"), Preconditions(), trail=Trail(audit=entry("owner")))
    changes = await heard(store, before, 321)
    gone = [change.key.name for change in changes]
    assert len(set(gone)) == 321
    assert gone[-1] == "owner"
    for number in range(20):
        assert gone.index(f"child-{number}-low") < gone.index(f"child-{number}")
    assert not (await store.list(KIND, Query())).items
    assert len(await store.audit(0, 10)) == 1
    root = f"/{etcd_url.rsplit('/', 1)[1]}/michelangelo"
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
    assert await arriving > 0
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


# --- history


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
    lost.request_delete_range.key = f"/{etcd_url.rsplit('/', 1)[1]}/michelangelo/c/{2:020d}".encode()
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


# --- requests, audit


async def test_the_answer_to_a_request_is_kept_for_two_days(
    store: EtcdStore, etcd_url: str, client: EtcdClient
) -> None:
    request = Request("ada Create", "1", b"d" * 32)
    await store.create(Write(family("one")), Trail(request=request))
    (kept,) = (await client.range(below(f"/{etcd_url.rsplit('/', 1)[1]}/michelangelo/r/".encode()))).kvs
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


# --- leases


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
