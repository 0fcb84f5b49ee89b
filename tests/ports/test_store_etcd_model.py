"""Random operations on the store on etcd, through two servers in turn, and the same ones on SQLite: same answers.

What one server remembers of the other's writes would show here.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from api.errors import ApiError
from api.store.base import Key, Lease, Preconditions, Query, Request, Store, Trail, Write
from api.store.etcd import open_etcd
from api.store.sqlite import SqliteStore
from tests.etcd_servers import EtcdServer
from tests.ports.stores import KIND, PROJECT, entry, resource

NAMES = [f"m-{number}" for number in range(8)]
Operation = Callable[[Store], Coroutine[Any, Any, Any]]


class Pair:
    """The same store twice.  `versions`: resourceVersions by object, those of SQLite and those of etcd."""

    def __init__(self, pick: random.Random) -> None:
        self._pick = pick
        self._asked: Request | None = None
        self.leases: dict[int, list[Lease]] = {0: [], 1: []}
        self.uids: dict[str, str] = {}
        self.old: dict[str, list[tuple[str, str]]] = {name: [] for name in NAMES}
        self.current: dict[str, tuple[str, str]] = {}

    def operation(self) -> tuple[str, list[Operation]]:
        """Return what is done next: its name, and how on SQLite and on etcd."""
        name = self._pick.choice(NAMES)
        made = self._made(name)
        trails = self._trails(name)
        verb = self._pick.choice(("create", "create", "update", "update", "delete", "record", "acquire", "release"))
        versions = self._versions(name)
        needed = tuple(Key(KIND, PROJECT, one) for one in self._pick.sample(NAMES, self._pick.choice((0, 0, 1))))
        orphan, finalized = self._pick.random() < 0.2, self._pick.random() < 0.3
        holder = self._pick.choice("ab")

        def on(side: int) -> Operation:
            async def run(store: Store) -> Any:
                trail, new = trails[side], copy.deepcopy(made)
                if verb == "create":
                    return await store.create(Write(new, must_exist=needed), trail)
                if verb == "update":
                    new.metadata.uid = self.uids.get(name, new.metadata.uid)
                    return await store.update(Write(new, versions[side], needed), trail)
                if verb == "delete":
                    wanted = Preconditions(resource_version=versions[side])
                    return await store.delete(
                        Key(KIND, PROJECT, name), wanted, orphan=orphan, finalized=finalized, trail=trail
                    )
                if verb == "record":
                    return await store.record(entry(name), trail.request, new)
                if verb == "acquire":
                    lease = await store.acquire("leader", holder, 60.0)
                    self.leases[side] += [lease] if lease is not None else []
                    return lease
                return await store.release(self.leases[side][-1]) if self.leases[side] else None

            return run

        return f"{verb} {name}", [on(0), on(1)]

    def _made(self, name: str) -> Any:
        made = resource(name, text=str(self._pick.random()), team=self._pick.choice("ab"))
        for owner in self._pick.sample(NAMES, self._pick.choice((0, 0, 1, 2))):
            made.metadata.ownerReferences.add(kind=KIND, name=owner, uid=self.uids.get(owner, str(uuid.uuid4())))
        if self._pick.random() < 0.15:
            made.metadata.finalizers.append("a.example/held")
        return made

    def _trails(self, name: str) -> list[Trail]:
        audit = entry(name) if self._pick.random() < 0.5 else None
        request = None
        if self._pick.random() < 0.5:
            request = Request("ada", str(self._pick.randrange(100)), bytes([self._pick.randrange(2)]) * 32)
            # Most repeats come at once.
            if self._asked and self._pick.random() < 0.4:
                request = self._asked
            self._asked = request
        fenced = self._pick.random() < 0.3 and bool(self.leases[0])
        last = self._pick.choice((1, 1, 2))
        return [
            Trail(audit, request, self.leases[side][-min(last, len(self.leases[side]))] if fenced else None)
            for side in (0, 1)
        ]

    def _versions(self, name: str) -> tuple[str, str]:
        if self._pick.random() < 0.2 and self.old[name]:
            return self._pick.choice(self.old[name])
        return self.current.get(name, ("", ""))


def plain(ended: Any) -> Any:
    """Return an answer without what differs between stores: their revisions."""
    if isinstance(ended, ApiError):
        return type(ended).__name__, ended.reason
    if isinstance(ended, Lease):
        return ended.holder, ended.epoch
    if ended is None:
        return None
    ended = copy.deepcopy(ended)
    ended.metadata.resourceVersion = ""
    if ended.metadata.HasField("deletionTimestamp"):
        ended.metadata.deletionTimestamp.seconds = 1
    return ended


async def tried(operation: Operation, store: Store) -> Any:
    try:
        return await operation(store)
    except ApiError as error:
        return error


async def objects(store: Store) -> dict[str, Any]:
    return {item.metadata.name: item for item in (await store.list(KIND, Query())).items}


async def compared(url: str, path: Path, seed: int, count: int) -> int:
    """Do the same on both and return how many operations had an effect."""
    sqlite, etcd = SqliteStore(path), [await open_etcd(url), await open_etcd(url)]
    pick = random.Random(seed)
    pair, done = Pair(pick), 0
    try:
        for turn in range(count):
            told, (left, right) = pair.operation()
            # Mostly the same server, so that it goes on from its own writes.
            if pick.random() < 0.1:
                etcd.reverse()
            server = etcd[0]
            ended = [await tried(left, sqlite), await tried(right, server)]
            assert plain(ended[0]) == plain(ended[1]), f"seed {seed}, {turn}: {told}"
            done += not isinstance(ended[0], ApiError) and ended[0] is not None
            stand = [await objects(sqlite), await objects(pick.choice(etcd))]
            assert {name: plain(item) for name, item in stand[0].items()} == {
                name: plain(item) for name, item in stand[1].items()
            }, f"seed {seed}, {turn}: {told}"
            for name, item in stand[0].items():
                pair.uids[name] = item.metadata.uid
                version = item.metadata.resourceVersion, stand[1][name].metadata.resourceVersion
                if pair.current.get(name) != version:
                    pair.old[name].append(version)
                pair.current[name] = version
        audited = [[record.body for record in await store.audit(0, 10_000)] for store in (sqlite, etcd[0])]
        assert len(audited[0]) == len(audited[1])
    finally:
        await sqlite.close()
        for server in etcd:
            await server.close()
    return done


@pytest.mark.parametrize("seed", range(3))
async def test_random_operations_end_as_on_sqlite(etcd_url: str, tmp_path: Path, seed: int) -> None:
    assert await compared(etcd_url, tmp_path / "store.db", seed, 250) > 50


@pytest.mark.robustness
async def test_many_random_operations_end_as_on_sqlite(etcd: EtcdServer, tmp_path: Path) -> None:
    for seed in range(100, 140):
        assert await compared(etcd.url(), tmp_path / f"{seed}.db", seed, 400) > 80
