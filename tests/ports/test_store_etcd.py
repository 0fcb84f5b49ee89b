"""What is particular to the store on etcd: its start, its layout, its transactions.

What it shares with every other store is in the contract of the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import grpc
import pytest

from api.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from api.gen.etcd import rpc_pb2 as rpc
from api.kinds import kinds
from api.store.base import Key, Preconditions, Query, Write
from api.store.etcd import EtcdStore, open_etcd
from api.store.etcd_client import EtcdClient, below, one
from api.store.etcd_turn import TURN_S
from tests.etcd_servers import EtcdServer, etcd_server
from tests.free_ports import free_ports
from tests.ports.etcd_stores import KIND, PROJECT, family, heard, root_of


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
    key = f"{root_of(etcd_url)}/version".encode()
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


async def test_objects_stand_where_others_look_for_them(store: EtcdStore, etcd_url: str, client: EtcdClient) -> None:
    made = await store.create(Write(family("late")))
    root = root_of(etcd_url)
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
    root = root_of(etcd_url)
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
        url = small.url()
        store = await open_etcd(url)
        kept = 0
        with pytest.raises(ResourceExhausted) as refused:  # noqa: PT012 - which of them is refused is etcd's to say
            while kept < 200:
                await store.create(Write(family(f"m-{kept}", text="x" * 50_000)))
                kept += 1
        assert refused.value.reason == "DISK_FULL"
        assert "quota" in refused.value.message
        await store.close()
        again = await open_etcd(url)
        assert len((await again.list(KIND, Query())).items) == kept == await again.revision()
        await again.close()


async def test_a_turn_whose_holder_died_holds_nobody_up_for_long(
    store: EtcdStore, etcd_url: str, client: EtcdClient
) -> None:
    turn = f"{root_of(etcd_url)}/turn".encode()
    put = rpc.RequestOp(request_put=rpc.PutRequest(key=turn, value=b"somebody"))
    await client.txn(rpc.TxnRequest(success=[put]))
    began = time.monotonic()
    await store.create(Write(family("one")))
    assert TURN_S < time.monotonic() - began < TURN_S + 1.0
    assert not (await client.range(one(turn))).kvs
    await store.create(Write(family("two")))
