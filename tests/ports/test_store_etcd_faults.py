"""What the store on etcd keeps when etcd is killed, when answers are lost and when a member is cut off from others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from api.errors import Conflict, Unavailable
from api.kinds import kinds
from api.store.base import Change, ChangeType, Key, Preconditions, Query, Write
from api.store.etcd import FAULTY_ETCD, EtcdStore, open_etcd
from tests.etcd_servers import EtcdServer, etcd_server, installed_release
from tests.free_ports import free_ports
from tests.robustness.faults.freeze import frozen
from tests.robustness.faults.proxy import GOOD, Fault, Proxy
from tests.robustness.results import told

KIND, PROJECT = "ModelFamily", "shop"
WRITERS = 4


def family(name: str, text: str = "") -> Any:
    made = kinds()[KIND].new(PROJECT, name)
    made.metadata.uid = str(uuid.uuid4())
    made.spec.description = text
    return made


@contextlib.asynccontextmanager
async def opened(*urls: str, patience_s: float = 5.0) -> AsyncIterator[Sequence[EtcdStore]]:
    stores = [await open_etcd(url, patience_s=patience_s) for url in urls]
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


async def log(store: EtcdStore, since: int = 0) -> list[Change]:
    """Return the whole record of changes."""
    found: list[Change] = []
    until = await store.revision()
    if until == since:
        return found
    changes = store.watch([KIND], since)
    async with asyncio.timeout(30):
        async for change in changes:
            found.append(change)
            if change.revision >= until:
                break
    await changes.aclose()  # type: ignore[attr-defined]
    return found


# --- writers at once


async def test_eight_writers_of_one_object_lose_no_update(etcd_url: str) -> None:
    async with opened(*[etcd_url] * 4) as stores:
        await stores[0].create(Write(family("counter", "0")))

        async def count(store: EtcdStore) -> None:
            done = 0
            while done < 15:
                item = await store.get(Key(KIND, PROJECT, "counter"))
                expect, item.spec.description = item.metadata.resourceVersion, str(int(item.spec.description) + 1)
                with contextlib.suppress(Conflict):
                    await store.update(Write(item, expect))
                    done += 1

        await asyncio.gather(*(count(store) for store in (*stores, *stores)))
        item = await stores[0].get(Key(KIND, PROJECT, "counter"))
        assert item.spec.description == "120"
        assert item.metadata.resourceVersion == "121" == str(await stores[1].revision())


async def test_a_read_that_begins_after_a_write_was_answered_sees_it(etcd_url: str) -> None:
    async with opened(etcd_url, etcd_url) as (writer, reader):
        item = await writer.create(Write(family("one", "0")))
        for number in range(200):
            item.spec.description = str(number)
            item = await writer.update(Write(item, item.metadata.resourceVersion))
            seen = await reader.get(Key(KIND, PROJECT, "one"))
            assert seen.spec.description == str(number)
            listed = (await reader.list(KIND, Query())).items
            assert [one.spec.description for one in listed] == [str(number)]


async def test_a_watch_misses_nothing_of_four_writers_while_etcd_dies(etcd: EtcdServer) -> None:
    with etcd_server() as server:
        url = server.url()
        async with opened(url, url, url, patience_s=10.0) as (one, two, watched):
            heard: list[list[int]] = [[], []]
            enough = asyncio.Event()

            async def listen(into: list[int]) -> None:
                async for change in watched.watch([KIND], 0):
                    into.append(change.revision)
                    if len(heard[0]) >= 600 <= len(heard[1]):
                        enough.set()

            async def write(store: EtcdStore, number: int) -> None:
                for turn in range(150):
                    await store.create(Write(family(f"m-{number}-{turn}")))

            listening = [asyncio.create_task(listen(into)) for into in heard]
            writing = [asyncio.create_task(write(store, n)) for n, store in enumerate((one, two, one, two))]
            for _ in range(3):
                await asyncio.sleep(0.1)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            await asyncio.gather(*writing)
            await asyncio.wait_for(enough.wait(), 10)
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)
            # Each write has one change: none was done twice when its answer was lost.
            assert heard == [list(range(1, 601))] * 2


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
            changes = await log(store)
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
            await stores[0].create(Write(family("counter", "0")))
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


# --- kill -9


@dataclass
class Book:
    """What one writer knows of its names: the last answer, and what a call without an answer may have left."""

    sure: dict[str, str | None] = field(default_factory=dict)
    open: dict[str, str | None] = field(default_factory=dict)
    acknowledged: int = 0

    def allows(self, name: str, found: str | None) -> bool:
        return found == self.sure.get(name) or (name in self.open and found == self.open[name])


async def scribble(store: EtcdStore, number: int, book: Book, pick: random.Random) -> None:
    """Create, change and delete names until etcd is gone."""
    versions: dict[str, str] = {}
    with contextlib.suppress(Unavailable):
        for item in (await store.list(KIND, Query(namespace=PROJECT))).items:
            versions[item.metadata.name] = item.metadata.resourceVersion
        for turn in itertools.count():
            name, text = f"w{number}-{pick.randrange(12)}", f"{turn} {pick.random()} " + "x" * pick.randrange(2000)
            remove = name in versions and pick.random() < 0.2
            book.open = {name: None if remove else text}
            if remove:
                await store.delete(Key(KIND, PROJECT, name), Preconditions())
                del versions[name]
            elif name in versions:
                item = await store.update(Write(family(name, text), versions[name]))
                versions[name] = item.metadata.resourceVersion
            else:
                versions[name] = (await store.create(Write(family(name, text)))).metadata.resourceVersion
            book.sure[name], book.open = book.open[name], {}
            book.acknowledged += 1


async def compare(store: EtcdStore, books: Sequence[Book]) -> None:
    """Hold what is stored against what was acknowledged, and against the record of changes."""
    found = {item.metadata.name: item for item in (await store.list(KIND, Query())).items}
    for number, book in enumerate(books):
        for name in {*book.sure, *book.open}:
            text = found[name].spec.description if name in found else None
            assert book.allows(name, text), f"{name}: {text} but {book.sure.get(name)} or {book.open}"
            book.sure[name] = text
        book.open = {}
        assert {name for name in found if name.startswith(f"w{number}-")} <= set(book.sure)
    replayed: dict[str, Any] = {}
    changes = await log(store)
    assert [change.revision for change in changes] == list(range(1, await store.revision() + 1))
    for change in changes:
        replayed[change.key.name] = change.resource
        if change.type is ChangeType.DELETED:
            del replayed[change.key.name]
    assert replayed == found


async def killed(kills: int, seed: int) -> int:
    """Kill etcd under four writers and return how many writes were acknowledged."""
    pick, books = random.Random(seed), [Book() for _ in range(WRITERS)]
    with etcd_server() as server:
        url = server.url()
        for life in range(kills):
            async with opened(url, url, patience_s=0.5) as stores:
                writing = [
                    asyncio.create_task(scribble(stores[n % 2], n, book, random.Random(f"{seed}-{life}-{n}")))
                    for n, book in enumerate(books)
                ]
                await asyncio.sleep(pick.uniform(0.05, 0.6))
                await asyncio.to_thread(server.kill)
                await asyncio.gather(*writing)
            await asyncio.to_thread(server.start)
            async with opened(url) as (store,):
                await compare(store, books)
    return sum(book.acknowledged for book in books)


@contextlib.contextmanager
def excused() -> Iterator[None]:
    """Let a release of etcd lose data when it is killed if it is known for that: 3.5.0 to 3.5.2.  No other one may."""
    try:
        yield
    except AssertionError as error:
        release = installed_release()
        if FAULTY_ETCD[0] <= release < FAULTY_ETCD[1]:
            pytest.xfail(f"etcd {'.'.join(map(str, release))} lost what it had acknowledged: {str(error)[:200]}")
        raise


async def test_every_acknowledged_write_survives_kill_9_of_etcd() -> None:
    with excused():
        assert await killed(4, seed=20261121) > 4 * WRITERS


@pytest.mark.robustness
async def test_every_acknowledged_write_survives_a_hundred_kills_of_etcd() -> None:
    acknowledged = await killed(100, seed=3)
    told(
        "G1",
        "acknowledged writes survive kill -9 of etcd",
        store="etcd",
        trials=100,
        figures=f"{acknowledged:,} acknowledged",
    )
    assert acknowledged > 100 * WRITERS


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
            await asyncio.sleep(1)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            assert heard == list(range(1, 151))


async def test_a_member_without_the_others_answers_nothing_from_what_it_remembers() -> None:
    with cluster() as (first, second, third):
        async with opened(url_of(first), patience_s=1.0) as (store,):
            await store.create(Write(family("one")))
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
            for _ in range(20):
                with contextlib.suppress(Unavailable):
                    assert (await store.get(Key(KIND, PROJECT, "one"))).metadata.name == "one"
                    break
            else:
                raise AssertionError("the members did not find together again")
