"""Hooks around calls: they change, refuse, run late, are retried, survive a restart, and are found by entry points."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from api import errors, hooks_after
from api.hooks import Event, Hook, Hooks, Refused, installed
from api.hooks_after import AfterHooks
from api.kinds import kinds
from api.resources import Resources
from api.store.base import Key
from tests.api.calling import PROJECT, Calling, by, changed, family
from tests.pages import blocks


@pytest.fixture
async def open_with(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Return what opens the same store with some hooks."""
    opened: list[Calling] = []

    async def make(*hooks: Hook) -> Calling:
        calling = Calling(tmp_path / "store.db", hooks=Hooks(hooks))
        opened.append(calling)
        if not await calling.store.revision():
            await Resources(calling.store).create(kinds()["Project"].new(PROJECT, PROJECT))
        return calling

    yield make
    for one in opened:
        await one.close()


def before(name: str, run: Callable[[Event], Any], *verbs: str, **rest: Any) -> Hook:
    points = frozenset(f"before_{verb}" for verb in verbs or ("create", "update", "delete", "get", "list"))
    return Hook(name, run, points, **rest)


async def test_before_hooks_see_the_call_and_change_what_is_written(open_with: Any) -> None:
    seen: list[Event] = []

    async def label(event: Event) -> None:
        seen.append(Event(**vars(event)))
        event.new.metadata.labels["team"] = event.call.principal.subject

    calling = await open_with(before("label", label, "create", "update", kinds=frozenset({"ModelFamily"})))
    first = await calling.create(family("a"), by("alice"))
    assert first.metadata.labels["team"] == "alice"
    second = await calling.update(changed(first, "second"), by("bob"))
    assert second.metadata.labels["team"] == "bob"
    assert [(event.point, event.name, event.call.principal.subject) for event in seen] == [
        ("before_create", "a", "alice"),
        ("before_update", "a", "bob"),
    ]
    assert seen[1].old.spec.description == "first"
    assert not (await calling.create(kinds()["Model"].new(PROJECT, "m"))).metadata.labels.get("team")


async def test_what_a_hook_makes_of_an_object_is_checked(open_with: Any) -> None:
    async def spoil(event: Event) -> None:
        event.new.spec.name = "not a name!"
        event.new.metadata.uid = "forged"

    calling = await open_with(before("spoil", spoil, "create"))
    with pytest.raises(errors.InvalidArgument) as refused:
        await calling.create(family("a"))
    assert refused.value.violations[0].field == "spec.name"


async def test_hooks_run_by_order_then_by_name(open_with: Any) -> None:
    ran: list[str] = []

    def note(name: str) -> Callable[[Event], None]:
        return lambda _: ran.append(name)

    hooks = [("c", 100), ("b", 100), ("late", 200), ("first", -1)]
    calling = await open_with(*(before(name, note(name), "create", order=order) for name, order in hooks))
    await calling.create(family("a"))
    assert ran == ["first", "b", "c", "late"]


@pytest.mark.parametrize("verb", ["create", "update", "delete", "get", "list", "collection"])
async def test_a_before_hook_refuses_with_its_text(open_with: Any, verb: str) -> None:
    calling = await open_with()
    first = await calling.create(family("a"))

    async def refuse(_: Event) -> None:
        raise Refused("not on Fridays")

    strict = await open_with(before("calendar", refuse))
    before_it = await strict.store.revision()
    calls: dict[str, Callable[[], Any]] = {
        "create": lambda: strict.create(family("b")),
        "update": lambda: strict.update(changed(first, "second")),
        "delete": lambda: strict.call("Delete", "ModelFamily", namespace=PROJECT, name="a"),
        "get": lambda: strict.get("ModelFamily", "a"),
        "list": lambda: strict.listed("ModelFamily"),
        "collection": lambda: strict.call("DeleteCollection", "ModelFamily", namespace=PROJECT),
    }
    with pytest.raises(errors.FailedPrecondition) as refused:
        await calls[verb]()
    assert refused.value.reason == "HOOK_REFUSED"
    assert "calendar: not on Fridays" in refused.value.message
    assert await strict.store.revision() == before_it


async def test_a_hook_with_a_fault_refuses_and_tells_nothing_of_its_inside(open_with: Any) -> None:
    def fail(_: Event) -> None:
        raise KeyError("/etc/secret")

    calling = await open_with(before("broken", fail, "create"))
    with pytest.raises(errors.FailedPrecondition, match="hook broken failed") as refused:
        await calling.create(family("a"))
    assert "secret" not in refused.value.message


async def hang(_: Event) -> None:
    await asyncio.sleep(60)


def block(_: Event) -> None:
    time.sleep(0.5)


@pytest.mark.parametrize("run", [hang, block])
async def test_a_hook_that_hangs_refuses_by_its_name_and_holds_nobody_up(open_with: Any, run: Any) -> None:
    calling = await open_with(before("slow", run, "create", kinds=frozenset({"ModelFamily"}), timeout_s=0.2))
    began = time.monotonic()
    waiting = [asyncio.ensure_future(calling.create(family(f"f-{number}"))) for number in range(8)]
    await calling.create(kinds()["Model"].new(PROJECT, "m"))
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert time.monotonic() - began < 8 * 0.2
    assert {(type(error), getattr(error, "reason", "")) for error in ended} == {
        (errors.DeadlineExceeded, "HOOK_TIMEOUT")
    }
    assert all("slow" in str(error) for error in ended)


async def test_hooks_after_reads_see_the_answer_and_hold_nobody_up(open_with: Any) -> None:
    seen, tries = [], [0]

    async def note(event: Event) -> None:
        tries[0] += 1
        if tries[0] == 1:
            raise RuntimeError("once")
        seen.append((event.point, event.name, event.new.spec.description))

    calling = await open_with(Hook("reader", note, frozenset({"after_get"})))
    await calling.create(family("a"))
    assert (await calling.get("ModelFamily", "a")).spec.description == "first"
    await calling.resources.hooks.settled()
    assert seen == [("after_get", "a", "first")]


class Follower:
    """After-hooks that run in the background."""

    def __init__(self, calling: Calling) -> None:
        self._task = asyncio.ensure_future(
            AfterHooks(calling.resources, calling.resources.hooks, first_pause_s=0.01).run()
        )

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


async def until(holds: Callable[[], Any]) -> None:
    for _ in range(500):
        found = holds()
        if await found if asyncio.iscoroutine(found) else found:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


async def state(calling: Calling, name: str) -> Any:
    return await calling.resources.find(Key("Hook", "ma-system", name))


async def test_an_after_hook_is_told_of_every_effect_in_order(open_with: Any) -> None:
    seen: list[tuple[str, str, str]] = []

    async def note(event: Event) -> None:
        item = event.new or event.old
        seen.append((event.point, event.name, item.spec.description))

    points = frozenset({"after_create", "after_update", "after_delete"})
    calling = await open_with(Hook("note", note, points, frozenset({"ModelFamily"})))
    follower = Follower(calling)
    await until(lambda: state(calling, "note"))
    first = await calling.create(family("a"))
    second = await calling.update(changed(first, "second"))
    await calling.resources.set_finalizer(second, "michelangelo.airflow/x", present=True)
    await calling.resources.set_finalizer(second, "michelangelo.airflow/x", present=False)
    await calling.call("Delete", "ModelFamily", namespace=PROJECT, name="a")
    expected = [("after_create", "a", "first"), ("after_update", "a", "second"), ("after_delete", "a", "second")]
    await until(lambda: len(seen) >= 3)
    assert seen == expected
    await follower.stop()
    found = await state(calling, "note")
    assert list(found.spec.points) == sorted(points)
    assert found.status.position == await calling.store.revision() - 1


async def test_a_failing_after_hook_undoes_nothing_and_is_retried(
    open_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks_after, "SAVE_S", 0.02)
    tries = [0]

    def fail(_: Event) -> None:
        tries[0] += 1
        if tries[0] < 4:
            raise ConnectionError("the other side is down")

    calling = await open_with(Hook("flaky", fail, frozenset({"after_create"}), frozenset({"ModelFamily"})))
    follower = Follower(calling)
    await until(lambda: state(calling, "flaky"))
    await calling.create(family("a"))
    made = await calling.get("ModelFamily", "a")

    async def well() -> bool:
        status = (await state(calling, "flaky")).status
        return status.position >= int(made.metadata.resourceVersion) and not status.failures

    await until(well)
    await follower.stop()
    assert tries[0] == 4
    assert await calling.get("ModelFamily", "a") == made


async def test_a_failure_is_seen_and_survives_a_restart(open_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_after, "SAVE_S", 0.02)
    seen: list[str] = []

    def fail(_: Event) -> None:
        raise ConnectionError("the other side is down")

    points, of = frozenset({"after_create"}), frozenset({"ModelFamily"})
    calling = await open_with(Hook("mail", fail, points, of))
    follower = Follower(calling)
    await until(lambda: state(calling, "mail"))
    await calling.create(family("a"))

    async def told() -> bool:
        found = await state(calling, "mail")
        return found.status.failures > 1 and "the other side is down" in found.status.message

    await until(told)
    await follower.stop()
    await calling.create(family("b"))

    again = await open_with(Hook("mail", lambda event: seen.append(event.name), points, of))
    follower = Follower(again)
    await until(lambda: len(seen) >= 2)
    assert seen == ["a", "b"]
    await until(lambda: _healthy(again))
    await follower.stop()


async def _healthy(calling: Calling) -> bool:
    return not (await state(calling, "mail")).status.message


def test_faults_of_hooks_are_told_at_the_start() -> None:
    with pytest.raises(ValueError, match="unknown points before_lunch"):
        Hooks([Hook("a", hang, frozenset({"before_lunch"}))])
    with pytest.raises(ValueError, match="two hooks are named a"):
        Hooks([before("a", hang), before("a", hang)])
    with pytest.raises(ValueError, match="a name has lower-case letters"):
        Hooks([before("A b", hang)])


def test_the_example_of_the_documentation_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _, text in blocks("docs/hooks.md"):
        first, _, rest = text.partition("\n")
        if first.startswith("# "):
            (tmp_path / first.removeprefix("# ")).write_text(rest)
    info = tmp_path / "acme_hooks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-hooks\nVersion: 1.0\n")
    declared = (tmp_path / "pyproject.toml").read_text()
    group, line = re.search(r'\[project.entry-points."([^"]+)"\]\n(.+)\n', declared).groups()  # type: ignore[union-attr]
    (info / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {hook.name: hook for hook in installed().all}
    assert {"acme-owner", "acme-announce"} <= found.keys()
    for name in [name for name in sys.modules if name.startswith("acme")]:
        monkeypatch.delitem(sys.modules, name)
    new = family("a")
    with pytest.raises(Refused, match="label team"):
        asyncio.run(found["acme-owner"].run(Event("before_create", by("alice"), "Model", PROJECT, "a", None, new)))  # type: ignore[arg-type]
    new.metadata.labels["team"] = "growth"
    asyncio.run(found["acme-owner"].run(Event("before_create", by("alice"), "Model", PROJECT, "a", None, new)))  # type: ignore[arg-type]
    assert new.metadata.annotations["acme.example/asked-by"] == "alice"
