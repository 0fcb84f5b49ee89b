"""What the store on etcd keeps when etcd dies, when answers are lost and when a member is cut off from others."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from api.errors import Conflict, Unavailable
from api.store.base import ChangeType, Key, Preconditions, Query, Write
from api.store.etcd import EtcdStore
from tests.etcd_servers import EtcdServer
from tests.free_ports import free_ports
from tests.ports.etcd_stores import KIND, PROJECT, eventually, family, insist, logged, opened
from tests.robustness.faults.freeze import frozen
from tests.robustness.faults.proxy import GOOD, Fault, Proxy
from tests.robustness.lanes import lanes

# --- writers at once


async def test_eight_writers_of_one_object_lose_no_update(etcd_url: str) -> None:
    async with opened(*[etcd_url] * 4) as stores:
        await stores[0].create(Write(family("counter", text="0")))

        async def count(store: EtcdStore) -> None:
            done = 0
            while done < 15:
                item = await store.get(Key(KIND, PROJECT, "counter"))
                expect, item.spec.description = item.metadata.resourceVersion, str(int(item.spec.description) + 1)
                with contextlib.suppress(Conflict):
                    await insist(lambda item=item, expect=expect: store.update(Write(item, expect)))  # type: ignore[misc]
                    done += 1

        await asyncio.gather(*(count(store) for store in (*stores, *stores)))
        item = await stores[0].get(Key(KIND, PROJECT, "counter"))
        assert item.spec.description == "120"
        assert item.metadata.resourceVersion == "121" == str(await stores[1].revision())


async def test_a_read_that_begins_after_a_write_was_answered_sees_it(etcd_url: str) -> None:
    async with opened(etcd_url, etcd_url) as (writer, reader):
        item = await writer.create(Write(family("one", text="0")))
        for number in range(200):
            item.spec.description = str(number)
            item = await writer.update(Write(item, item.metadata.resourceVersion))
            seen = await reader.get(Key(KIND, PROJECT, "one"))
            assert seen.spec.description == str(number)
            listed = (await reader.list(KIND, Query())).items
            assert [one.spec.description for one in listed] == [str(number)]


# --- lost answers


async def test_a_write_whose_answer_is_lost_is_done_once_and_answered(etcd: EtcdServer) -> None:
    pick = random.Random(5)

    def cut() -> Fault:
        return Fault(cut_after=pick.randrange(400, 3000), reset=pick.random() < 0.5)

    with Proxy(etcd.port) as proxy:
        root = etcd.url().rsplit("/", 1)[1]
        async with opened(f"etcd://{proxy.address}/{root}", patience_s=20.0) as (store,):
            proxy.choose = cut
            proxy.cut_all()
            made = [await store.create(Write(family(f"m-{number}"))) for number in range(60)]
            for item in made[:20]:
                item.spec.description = "changed"
                await store.update(Write(item, item.metadata.resourceVersion))
            for item in made[20:40]:
                await store.delete(Key(KIND, PROJECT, item.metadata.name), Preconditions())
            proxy.choose = lambda: GOOD
            changes = await logged(store)
            cuts = proxy.cuts
        assert [change.revision for change in changes] == list(range(1, 101))
        assert [change.type for change in changes] == (
            [ChangeType.ADDED] * 60 + [ChangeType.MODIFIED] * 20 + [ChangeType.DELETED] * 20
        )
        assert cuts > 10, "too few answers were lost to show anything"


async def test_two_writers_over_a_bad_line_lose_no_update(etcd: EtcdServer) -> None:
    pick = random.Random(6)
    with Proxy(etcd.port) as proxy:
        root = etcd.url().rsplit("/", 1)[1]
        url = f"etcd://{proxy.address}/{root}"
        async with opened(url, url, patience_s=30.0) as stores:
            await stores[0].create(Write(family("counter", text="0")))
            # Some answers are lost, and with connections that die early some requests too.
            proxy.choose = lambda: Fault(cut_after=pick.choice((150, 400, 900, 2000)), reset=True)
            proxy.cut_all()

            async def count(store: EtcdStore) -> int:
                done = 0
                for _ in range(60):
                    item = await store.get(Key(KIND, PROJECT, "counter"))
                    expect, item.spec.description = item.metadata.resourceVersion, str(int(item.spec.description) + 1)
                    with contextlib.suppress(Conflict):
                        await store.update(Write(item, expect))
                        done += 1
                return done

            counted = sum(await asyncio.gather(*(count(store) for store in stores)))
            proxy.choose = lambda: GOOD
            item = await stores[0].get(Key(KIND, PROJECT, "counter"))
            assert int(item.spec.description) == counted
            assert await stores[0].revision() == counted + 1
        assert proxy.cuts > 10


@pytest.mark.parametrize("breaks", lanes(p=40, c=1500))
async def test_a_watch_goes_on_whenever_its_connection_breaks_under_it(etcd: EtcdServer, breaks: int) -> None:
    """Also while it says what it wants to see: gRPC then calls the broken stream an error of its own."""
    pick, root = random.Random(7), etcd.url().rsplit("/", 1)[1]
    with Proxy(etcd.port) as proxy:
        async with (
            opened(f"etcd://{etcd.address}/{root}") as (writer,),
            opened(f"etcd://{proxy.address}/{root}") as (watched,),
        ):
            heard: list[int] = []

            async def listen() -> None:
                async for change in watched.watch([KIND], 0):
                    heard.append(change.revision)

            listening = asyncio.create_task(listen())
            proxy.choose = lambda: Fault(cut_after=pick.randrange(600), reset=True)
            for number in range(breaks):
                await writer.create(Write(family(f"m-{number}")))
                await asyncio.sleep(pick.uniform(0, 0.02))
                proxy.cut_all()
            proxy.choose = lambda: GOOD
            await eventually(lambda: len(heard) >= breaks or listening.done())
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            assert heard == list(range(1, breaks + 1))


async def test_a_cluster_that_answers_nothing_is_unavailable_and_comes_back(etcd: EtcdServer) -> None:
    with Proxy(etcd.port) as proxy:
        root = etcd.url().rsplit("/", 1)[1]
        async with opened(f"etcd://{proxy.address}/{root}", patience_s=1.0) as (store,):
            proxy.choose = lambda: Fault(blackhole=True)
            proxy.cut_all()
            began = time.monotonic()
            for call in (store.revision(), store.create(Write(family("one"))), store.acquire("leader", "a", 5.0)):
                with pytest.raises(Unavailable) as refused:
                    await call
                assert refused.value.reason == "STORE_UNREACHABLE"
            assert time.monotonic() - began < 6
            proxy.choose = lambda: GOOD
            proxy.cut_all()
            await store.create(Write(family("two")))
            names = [item.metadata.name for item in (await store.list(KIND, Query())).items]
            assert names in (["two"], ["one", "two"])


# --- three members


@contextlib.contextmanager
def cluster() -> Iterator[Sequence[EtcdServer]]:
    """Start three members."""
    folder = Path(tempfile.mkdtemp(prefix="etcd-", dir="/tmp"))
    ports = free_ports(6)
    members = [EtcdServer(folder, ports[number], ports[3 + number], f"m{number}") for number in range(3)]
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for member in members:
            member.cluster = ",".join(f"{one.name}={one.peer_url}" for one in members)
            stack.callback(member.kill)
            member.start(wait=False)
        for member in members:
            member.wait()
        yield members


def url_of(*members: EtcdServer) -> str:
    return "etcd://" + ",".join(member.address for member in members)


async def test_a_member_that_is_killed_is_passed_over_by_writers_readers_and_watchers() -> None:
    with cluster() as (first, second, third):
        async with opened(url_of(first, second, third), url_of(second, third, first)) as (store, other):
            heard: list[int] = []

            async def listen() -> None:
                async for change in store.watch([KIND], 0):
                    heard.append(change.revision)

            listening = asyncio.create_task(listen())
            for number in range(150):
                await (store, other)[number % 2].create(Write(family(f"m-{number}")))
                if number == 50:
                    await asyncio.to_thread(first.kill)
                if number == 100:
                    await asyncio.to_thread(first.start)
            await eventually(lambda: len(heard) >= 150)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            assert heard == list(range(1, 151))


async def test_a_member_without_the_others_answers_nothing_from_what_it_remembers() -> None:
    with cluster() as (first, second, third):
        async with opened(url_of(first)) as (patient,):
            await patient.create(Write(family("one")))
        async with opened(url_of(first), patience_s=1.0) as (store,):
            assert second.process is not None
            assert third.process is not None
            with frozen(second.process.pid), frozen(third.process.pid):
                asked: Sequence[Callable[[], Awaitable[Any]]] = (
                    lambda: store.get(Key(KIND, PROJECT, "one")),
                    lambda: store.list(KIND, Query()),
                    store.revision,
                )
                for ask in asked:
                    with pytest.raises(Unavailable):
                        await ask()
        async with opened(url_of(first)) as (patient,):
            assert (await patient.get(Key(KIND, PROJECT, "one"))).metadata.name == "one"
