"""What is particular to PostgreSQL: which servers are refused, what happens while one is away, limits, migrations."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from api.errors import FailedPrecondition, InvalidArgument, Unavailable
from api.store import schema
from api.store.base import Key, Query, Trail, Write
from api.store.open import open_store
from api.store.postgres import PostgresStore
from tests.patience import PATIENCE_S, soon
from tests.ports.stores import KIND, create, entry, heard, key, names, resource
from tests.servers import PostgresServer, postgres_server


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(postgres_url)
    yield made
    await made.close()


@pytest.fixture(scope="module")
def other() -> Iterator[PostgresServer]:
    """A server to stop and to spoil."""
    with postgres_server() as server:
        yield server


SETTINGS = {
    "synchronous_commit": "STORE_NOT_DURABLE",
    "fsync": "STORE_NOT_DURABLE",
    "full_page_writes": "STORE_NOT_DURABLE",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_server_that_loses_answered_writes_is_refused_by_the_setting(setting: str) -> None:
    with postgres_server(**{setting: "off"}) as server:
        refused_with(server.url(), SETTINGS[setting], setting)


def refused_with(url: str, reason: str, told: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        PostgresStore(url)
    assert refused.value.reason == reason
    assert told in refused.value.message
    assert "/tmp" not in refused.value.message


def test_a_read_replica_is_refused(other: PostgresServer) -> None:
    other.kill(signal.SIGQUIT)
    standby = other.folder / "data" / "standby.signal"
    standby.touch()
    standby.chmod(0o666)
    other.start()
    try:
        refused_with(other.url(), "STORE_IS_REPLICA", "pg_is_in_recovery")
    finally:
        other.kill(signal.SIGQUIT)
        standby.unlink()
        other.start()


def test_another_encoding_is_refused(postgres: PostgresServer) -> None:
    refused_with(
        postgres.url(postgres.database(encoding="SQL_ASCII")), "STORE_ENCODING", "server_encoding is SQL_ASCII"
    )


def test_a_database_that_may_not_be_written_is_refused(postgres: PostgresServer) -> None:
    name = postgres.database()
    postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    refused_with(postgres.url(name), "STORE_READ_ONLY", "default_transaction_read_only")


def test_an_older_server_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.store.postgres_probe.OLDEST", 990_000)
    refused_with(postgres_url, "STORE_SERVER_TOO_OLD", "server_version is")


async def test_a_store_of_a_newer_release_is_refused(postgres: PostgresServer) -> None:
    name = postgres.database()
    await PostgresStore(postgres.url(name)).close()
    postgres.sql(f"UPDATE schema_version SET version = {schema.VERSION + 1}", name)
    refused_with(postgres.url(name), "STORE_TOO_NEW", "newer release")


@pytest.mark.parametrize(
    "url", ["mysql://x/y", "sqlite://", "sqlite://x", "", "postgresql", "/path", "postgresql://h/db?nonsense=1"]
)
async def test_another_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises((InvalidArgument, FailedPrecondition)) as refused:
        await open_store(url.replace("x/", "user:hidden@x/"))
    assert refused.value.reason in ("BAD_STORE_URL", "STORE_URL")
    assert "hidden" not in refused.value.message


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable) as refused:
        PostgresStore("postgresql://user:hidden@127.0.0.1:1/db")
    assert refused.value.reason == "STORE_UNAVAILABLE"
    assert "hidden" not in refused.value.message


class Pooler:
    """A pooler in transaction mode: every client transaction goes to whichever of its server connections is free."""

    def __init__(self, target: tuple[str, int], connections: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._target, self._free = target, list[socket.socket]()
        self._lock = threading.Condition()
        self._left, self._opened = connections, list[socket.socket]()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop, and close all connections."""
        self._listener.close()
        for one in self._opened:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._opened.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _take(self, startup: bytes) -> tuple[socket.socket, bytes]:
        with self._lock:
            while not self._free and not self._left:
                if not self._lock.wait(10):
                    raise TimeoutError
            if self._free:
                return self._free.pop(0), b""
            self._left -= 1
        server = socket.create_connection(self._target)
        self._opened.append(server)
        server.sendall(startup)
        return server, until_ready(server)[0]

    def _give(self, server: socket.socket) -> None:
        with self._lock:
            self._free.append(server)
            self._lock.notify()

    def _serve(self, client: socket.socket) -> None:
        with client:
            startup = frame(client, kind=False)
            while startup[4:8] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):
                client.sendall(b"N")
                startup = frame(client, kind=False)
            server, greeting = self._take(startup)
            if not greeting:
                # As poolers do: the greeting of another connection of the same user.
                greeting = self._greeting
            self._greeting = greeting
            self._give(server)
            client.sendall(greeting)
            held: socket.socket | None = None
            while (asked := frame(client, kind=True)) and asked[:1] != b"X":
                held = held or self._take(startup)[0]
                held.sendall(asked)
                if asked[:1] in (b"Q", b"S"):
                    answer, idle = until_ready(held)
                    client.sendall(answer)
                    if idle:
                        self._give(held)
                        held = None

    _greeting = b""


def frame(stream: socket.socket, *, kind: bool) -> bytes:
    """Return one message of the protocol, empty at the end."""
    head = exactly(stream, 5 if kind else 4)
    if not head:
        return b""
    return head + exactly(stream, int.from_bytes(head[-4:], "big") - 4)


def exactly(stream: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        try:
            more = stream.recv(size - len(found))
        except OSError:
            return b""
        if not more:
            return b""
        found += more
    return found


def until_ready(server: socket.socket) -> tuple[bytes, bool]:
    """Return what a server says up to its being ready, and whether it is outside of transactions then."""
    said = b""
    while True:
        one = frame(server, kind=True)
        said += one
        if not one or one[:1] == b"Z":
            return said, one[5:6] == b"I"


@pytest.mark.parametrize("connections", [2, 20])
def test_a_pooler_in_transaction_mode_is_refused(postgres: PostgresServer, connections: int) -> None:
    pooler = Pooler(("127.0.0.1", postgres.port), connections)
    try:
        url = f"postgresql://postgres@127.0.0.1:{pooler.port}/{postgres.database()}"
        with psycopg.connect(url, autocommit=True) as through:
            assert through.execute("SELECT 1 + 1").fetchone() == (2,)
        refused_with(url, "STORE_POOLED", "pool_mode=session")
    finally:
        pooler.close()


async def test_every_connection_has_its_limits(store: PostgresStore) -> None:
    wanted = {"idle_in_transaction_session_timeout": "5s", "lock_timeout": "2s", "statement_timeout": "10s"}

    def limits(db: Any) -> dict[str, str]:
        return {name: db.execute(f"SELECT current_setting('{name}')").fetchone()[0] for name in wanted}

    assert await store._read(limits) == wanted
    assert await store._lease(limits) == wanted
    assert await store._write(lambda db, _: limits(db)) == wanted


async def test_a_writer_that_waits_for_another_too_long_is_told(store: PostgresStore, postgres_url: str) -> None:
    await create(store, resource("a"))
    with psycopg.connect(postgres_url) as blocking:
        blocking.execute("SELECT * FROM counter FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(Unavailable) as refused:
            await create(store, resource("b"))
        assert refused.value.reason == "STORE_BUSY"
        assert 1.5 < time.monotonic() - began < soon(3)
        assert (await store.get(key("a"))).metadata.name == "a", "readers do not wait"
        assert await store.acquire("leader", "me", 5.0), "nor do leaders"
    await create(store, resource("b"))


async def test_a_connection_that_was_ended_is_made_anew(store: PostgresStore, postgres: PostgresServer) -> None:
    await create(store, resource("a"))
    for number in range(3):
        ended = postgres.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'michelangelo'"
        )
        assert int(ended) > 0
        await create(store, resource(f"m-{number}"))
        assert (await store.get(key("a"))).metadata.name == "a"
        assert await store.acquire("leader", "me", 5.0)


async def test_writes_go_on_when_a_server_comes_back_and_none_that_was_answered_is_lost(other: PostgresServer) -> None:
    store = PostgresStore(other.url(other.database()))
    answered: list[str] = []
    refused: list[str] = []

    async def write(number: int) -> None:
        for step in range(400):
            name = f"w{number}-{step}"
            try:
                await store.create(Write(resource(name)), Trail(audit=entry(name)))
                answered.append(name)
            except Unavailable as error:
                refused.append(error.reason)
                await asyncio.sleep(0.05)
            if len(refused) > 3 and len(answered) - before > 20:
                return

    before = 10**9
    writing = asyncio.gather(*(write(number) for number in range(4)))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(other.kill)
    before = len(answered)
    await asyncio.sleep(0.3)
    await asyncio.to_thread(other.start)
    await asyncio.wait_for(writing, PATIENCE_S)
    assert before
    assert len(answered) > before
    assert set(refused) <= {"STORE_UNAVAILABLE", "STORE_OUTCOME_UNKNOWN"}
    found = set(await names(store, KIND, Query()))
    assert set(answered) <= found
    assert len(found - set(answered)) <= len(refused)
    told = await heard(store, 0, len(found))
    assert {change.key.name for change in told} == found
    assert len(await store.audit(0, 10_000)) == len(found)
    await store.close()


async def test_a_watcher_hears_on_after_the_server_was_away(other: PostgresServer) -> None:
    store = PostgresStore(other.url(other.database()))
    watching: Any = store.watch([KIND], 0)
    await create(store, resource("before"))
    assert (await anext(watching)).key.name == "before"
    following = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(other.kill)
    await asyncio.to_thread(other.start)
    writer = PostgresStore(store._address)
    await create(writer, resource("after"))
    assert (await asyncio.wait_for(following, PATIENCE_S)).key.name == "after"
    await watching.aclose()
    for one in (store, writer):
        await one.close()


async def test_texts_that_postgres_cannot_hold_are_kept(store: PostgresStore) -> None:
    odd = "a\x00b\x01c"
    made = await create(store, resource("odd", text=odd, team=odd))
    assert (await store.get(Key(KIND, "shop", "odd"))) == made
    assert (await heard(store, 0, 1))[0].resource == made


async def test_many_start_at_once_on_an_empty_database(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.database())
    stores = await asyncio.gather(*(asyncio.to_thread(PostgresStore, url) for _ in range(6)))
    made = await create(stores[0], resource("a"))
    assert [await store.get(key("a")) for store in stores] == [made] * 6
    for store in stores:
        await store.close()
