"""A leader acts within its lease and not a moment longer; what it writes afterwards is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from api.controllers.leadership import Leadership
from api.controllers.runtime import Manager, Term
from api.errors import Conflict, Unavailable
from api.kinds import kinds
from api.resources import Resources
from api.store.sqlite import SqliteStore
from tests.api.controllers.test_runtime import Recorder, until

A_TTL_S = 1.2


class Writer(Recorder):
    """A controller that writes on and on."""

    def __init__(self, leadership: Leadership) -> None:
        super().__init__()
        self._resources = leadership.resources
        self.wrote: list[float] = []

    async def reconcile(self, key: Any) -> float | None:
        await super().reconcile(key)
        project = await self._resources.get("Project", key.namespace, key.name)
        project.status.error_message = str(time.monotonic_ns())
        await self._resources.update_status(project)
        self.wrote.append(time.monotonic())
        return 0.01


@pytest.fixture
async def resources(tmp_path: Path) -> AsyncIterator[Resources]:
    store = SqliteStore(tmp_path / "store.db")
    made = Resources(store)
    await made.create(kinds()["Project"].new("a", "a"))
    yield made
    await store.close()


async def led(
    resources: Resources, during: Callable[[Manager, list[Writer]], Any], ttl_s: float = A_TTL_S
) -> list[Writer]:
    """Run a manager of a writer, and something else meanwhile; returns the writers of its terms."""
    writers: list[Writer] = []

    def begin(leadership: Leadership) -> Term:
        writers.append(Writer(leadership))
        return Term(writers[-1:])

    manager = Manager(resources, begin, ttl_s=ttl_s)
    running = asyncio.create_task(manager.run())
    await until(lambda: writers and writers[0].wrote)
    await during(manager, writers)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return writers


async def test_a_leader_that_cannot_renew_stops_before_its_lease_runs_out(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(manager: Manager, writers: list[Writer]) -> None:
        async def unavailable(*_: Any) -> None:
            raise Unavailable("the store does not answer")

        monkeypatch.setattr(resources._store, "acquire", unavailable)
        began = time.monotonic()
        await until(lambda: not manager.leading)
        assert time.monotonic() - began < A_TTL_S
        written = len(writers[0].wrote)
        await asyncio.sleep(0.1)
        assert len(writers[0].wrote) == written

    await led(resources, fails)


async def test_a_leader_whose_store_hangs_stops_before_its_lease_runs_out(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(manager: Manager, writers: list[Writer]) -> None:
        async def never(*_: Any) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(resources._store, "acquire", never)
        began = time.monotonic()
        await until(lambda: not manager.leading)
        assert time.monotonic() - began < A_TTL_S

    await led(resources, hangs)


async def test_a_leader_goes_on_when_the_store_is_back_in_time(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails_once(manager: Manager, writers: list[Writer]) -> None:
        acquire, failures, renewed = resources._store.acquire, [1], list[Any]()

        async def unsteady(*given: Any) -> Any:
            if failures:
                failures.pop()
                raise Unavailable("for a moment")
            renewed.append(await acquire(*given))
            return renewed[-1]

        monkeypatch.setattr(resources._store, "acquire", unsteady)
        await until(lambda: len(renewed) > 2)
        assert manager.leading
        assert {lease.epoch for lease in renewed} == {1}

    # Renewed often, but for long: a disk may hold the renewal itself for seconds.
    monkeypatch.setattr("api.controllers.leadership.RENEWALS", 100)
    assert len(await led(resources, fails_once, ttl_s=40.0)) == 1


async def test_what_a_frozen_leader_writes_after_another_took_over_is_refused(resources: Resources) -> None:
    lease = await resources.acquire("controllers", "first", 0.05)
    assert lease is not None
    first = Leadership(resources, lease, time.monotonic())
    project = await first.resources.get("Project", "a", "a")
    project = await first.resources.set_finalizer(project, "a.example/one", present=True)
    await asyncio.sleep(0.06)
    second = await resources.acquire("controllers", "second", 5.0)
    assert second is not None
    assert second.epoch == lease.epoch + 1
    project.status.error_message = "of yesterday"
    changed = await first.resources.get("Project", "a", "a")
    changed.spec.description = "of yesterday"
    for write in (
        lambda: first.resources.update_status(project),
        lambda: first.resources.set_finalizer(project, "a.example/one", present=False),
        lambda: first.resources.update(changed),
        lambda: first.resources.create(kinds()["ModelFamily"].new("a", "new")),
        lambda: first.resources.delete("Project", "a", "a"),
    ):
        with pytest.raises(Conflict) as refused:
            await write()
        assert refused.value.reason == "DEPOSED"
    assert (await resources.get("Project", "a", "a")).status.error_message == ""


async def test_a_deposed_leader_stops_at_its_first_refused_write(resources: Resources) -> None:
    async def deposed(manager: Manager, writers: list[Writer]) -> None:
        # Somebody took the lease, whatever this process's clock says.
        await resources._store._write(  # type: ignore[attr-defined]
            lambda db, _: db.execute("UPDATE lease SET epoch = epoch + 1, holder = 'other'")
        )
        began = time.monotonic()
        await until(lambda: not manager.leading)
        assert time.monotonic() - began < A_TTL_S / 3

    await led(resources, deposed, ttl_s=6.0)


async def test_a_part_is_out_of_reach_once_the_term_is_over(resources: Resources) -> None:
    lease = await resources.acquire("controllers", "first", 1.0)
    assert lease is not None
    now = [100.0]
    term = Leadership(resources, lease, now[0], lambda: now[0])
    part = term.guard(["reached"])
    assert part.copy() == ["reached"]
    now[0] += 0.9
    with pytest.raises(Conflict, match="another process"):
        part.copy()


async def test_a_loop_that_stood_still_past_its_lease_writes_nothing_more(resources: Resources) -> None:
    async def stands_still(manager: Manager, writers: list[Writer]) -> None:
        time.sleep(A_TTL_S)  # noqa: ASYNC251
        taken = time.monotonic()
        assert await resources._store.acquire("controllers", "other", 5.0) is not None
        await asyncio.sleep(0.2)
        # What was on its way when the loop stood still was committed before.
        assert all(at < taken + 0.05 for at in writers[0].wrote)
        assert not manager.leading

    await led(resources, stands_still)


async def test_a_controller_that_hangs_keeps_no_other_kind_waiting(resources: Resources) -> None:
    class Hanging(Recorder):
        kind = "Model"

        async def reconcile(self, key: Any) -> float | None:
            self.at_once += 1
            await asyncio.Event().wait()
            return None

    hanging, recorder = Hanging(), Recorder()
    for number in range(20):
        await resources.create(kinds()["Model"].new("a", f"m-{number}"))
    manager = Manager(resources, lambda _: Term([hanging, recorder]))
    running = asyncio.create_task(manager.run())
    await until(lambda: hanging.at_once > 0 and recorder.seen)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
