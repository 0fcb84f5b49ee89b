"""The queue, the leader and what happens when the store refuses."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest

from api.controllers import queue as queues
from api.controllers import runtime
from api.controllers.queue import Queue
from api.controllers.runtime import Manager, Term
from api.errors import ResourceExhausted, Unavailable
from api.kinds import Resource, kinds
from api.resources import Resources
from api.store.base import Change, Key
from api.store.sqlite import SqliteStore
from tests.patience import PATIENCE_S

A, B = Key("Project", "a", "a"), Key("Project", "b", "b")


class Recorder:
    """A controller that notes what it is given."""

    kind = "Project"
    unsettled = None

    def __init__(self) -> None:
        self.seen: list[Key] = []
        self.at_once = 0
        self.most_at_once = 0
        self.fails = 0
        self.pause_s = 0.0

    async def reconcile(self, key: Key) -> float | None:
        self.seen.append(key)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.pause_s)
        self.at_once -= 1
        if self.fails:
            self.fails -= 1
            raise Unavailable("later")
        return None

    def settled(self, resource: Resource) -> bool:
        return False

    async def related(self, change: Change) -> Sequence[Key]:
        return ()


def managed(resources: Resources, recorder: Recorder, **options: Any) -> Manager:
    return Manager(resources, lambda _: Term([recorder]), **options)


async def until(holds: Any, timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_key_is_in_the_queue_once_and_in_work_once() -> None:
    queue = Queue()
    for _ in range(5):
        queue.add(A)
    assert await queue.take() == A
    queue.add(A)
    queue.add(A)
    queue.add(B)
    assert await queue.take() == B
    queue.done(A, failed=False)
    assert await queue.take() == A
    queue.done(A, failed=False)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.02)


async def test_a_failed_key_comes_back_later_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "FIRST_BACKOFF_S", 0.02)
    queue = Queue()
    queue.add(A)
    waits = []
    for _ in range(4):
        began = time.monotonic()
        key = await queue.take()
        waits.append(time.monotonic() - began)
        queue.done(key, failed=True)
    queue.close()
    assert waits[0] < 0.01
    assert waits[3] > 0.03
    assert waits[3] > waits[1]


async def test_the_sooner_of_two_looks_is_taken() -> None:
    queue = Queue()
    queue.add_after(A, 10.0)
    queue.add_after(A, 0.01)
    queue.add_after(A, 10.0)
    assert await asyncio.wait_for(queue.take(), PATIENCE_S) == A
    queue.close()


async def test_a_closed_queue_plans_nothing() -> None:
    queue = Queue()
    queue.add_after(A, 0.01)
    queue.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.05)


async def test_what_exists_and_what_changes_is_looked_at_one_at_a_time(tmp_path: Path) -> None:
    store, recorder = SqliteStore(tmp_path / "s.db"), Recorder()
    resources = Resources(store)
    await resources.create(kinds()["Project"].new("a", "a"))
    recorder.pause_s = 0.02
    manager = managed(resources, recorder)
    running = asyncio.create_task(manager.run())
    await until(lambda: A in recorder.seen)
    project = await resources.get("Project", "a", "a")
    for text in "xyz":
        project.spec.description = text
        project = await resources.update(project)
        await asyncio.sleep(0.005)
    await until(lambda: recorder.at_once == 0 and len(recorder.seen) >= 2)
    assert recorder.most_at_once == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


async def test_an_idle_manager_asks_the_store_nothing_but_its_lease(tmp_path: Path) -> None:
    store, recorder = SqliteStore(tmp_path / "s.db"), Recorder()
    asked: list[int] = []
    reads = store._read, store._point
    manager = managed(Resources(store), recorder)
    running = asyncio.create_task(manager.run())
    await until(lambda: manager.leading)
    await asyncio.sleep(0.1)

    def counted(read: Any) -> Any:
        async def counting(work: Any) -> Any:
            asked.append(1)
            return await read(work)

        return counting

    store._read, store._point = map(counted, reads)  # type: ignore[method-assign]
    await asyncio.sleep(0.5)
    assert asked == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


async def test_another_process_leads_when_the_leader_is_gone(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / "s.db") for _ in range(2)]
    recorders = [Recorder(), Recorder()]
    managers = [
        managed(Resources(store), recorder, ttl_s=0.6) for store, recorder in zip(stores, recorders, strict=True)
    ]
    running = [asyncio.create_task(managers[0].run())]
    await until(lambda: managers[0].leading)
    running.append(asyncio.create_task(managers[1].run()))
    await asyncio.sleep(0.3)
    assert not managers[1].leading
    running[0].cancel()
    await asyncio.gather(running[0], return_exceptions=True)
    began = time.monotonic()
    await until(lambda: managers[1].leading)
    assert time.monotonic() - began < 1.5
    running[1].cancel()
    await asyncio.gather(running[1], return_exceptions=True)
    for store in stores:
        await store.close()


async def test_controllers_survive_a_store_that_is_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, recorder = SqliteStore(tmp_path / "s.db"), Recorder()
    resources = Resources(store)
    acquire = resources.acquire

    async def full(*_: Any) -> None:
        raise ResourceExhausted("the volume is full", reason="DISK_FULL")

    monkeypatch.setattr(resources, "acquire", full)
    manager = managed(resources, recorder, ttl_s=0.3)
    running = asyncio.create_task(manager.run())
    await asyncio.sleep(0.2)
    assert not running.done()
    monkeypatch.setattr(resources, "acquire", acquire)
    await until(lambda: manager.leading)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


async def test_what_controllers_do_is_counted_by_kind_alone(tmp_path: Path) -> None:
    store, recorder = SqliteStore(tmp_path / "s.db"), Recorder()
    resources = Resources(store)
    await resources.create(kinds()["Project"].new("secret-name", "secret-name"))

    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"ma_controller_{name}", labels) or 0.0

    before = counted("failures_total", kind="Project", code="UNAVAILABLE")
    looks = counted("reconcile_seconds_count", kind="Project")
    recorder.fails = 1
    running = asyncio.create_task(managed(resources, recorder).run())
    await until(lambda: len(recorder.seen) > 1 and recorder.at_once == 0)
    assert counted("leading") == 1
    assert counted("failures_total", kind="Project", code="UNAVAILABLE") == before + 1
    assert counted("reconcile_seconds_count", kind="Project") > looks
    assert counted("queue_depth", kind="Project") == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert counted("leading") == 0
    assert "secret-name" not in generate_latest().decode()
    await store.close()


async def test_what_is_asked_for_is_told_from_what_was_only_seen(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    resources = Resources(store)
    made = await resources.create(kinds()["Project"].new("shop", "shop"))
    made.status.error_message = "seen"
    made = await resources.update_status(made)
    made = await resources.set_finalizer(made, "a.example/one", present=True)
    made.metadata.labels["team"] = "x"
    made = await resources.update(made)
    made.spec.description = "other"
    made = await resources.update(made)
    await resources.delete("Project", "shop", "shop")
    told = []
    async with asyncio.timeout(PATIENCE_S):
        async for one in store.watch(["Project"], 0):
            told.append(runtime.is_report(one))
            if len(told) == 6:
                break
    assert told == [False, True, True, False, False, False]
    await store.close()


async def test_a_kind_of_many_objects_is_read_a_page_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "PAGE", 7)
    monkeypatch.setattr(runtime, "ENOUGH_WAITING", 3)
    store, recorder = SqliteStore(tmp_path / "s.db"), Recorder()
    resources = Resources(store)
    for number in range(40):
        await resources.create(kinds()["Project"].new(f"p-{number}", f"p-{number}"))
    running = asyncio.create_task(managed(resources, recorder).run())
    await until(lambda: len(set(recorder.seen)) == 40)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()
