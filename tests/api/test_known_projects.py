"""A create reads its project once; that it stands is asked in the transaction, so that none outlives it unnoticed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api import reads
from api.calls import Call
from api.errors import ApiError, FailedPrecondition, NotFound
from api.kinds import kinds
from api.resources import Resources
from api.store.base import Key
from api.store.sqlite import SqliteStore

PROJECT = Key("Project", "shop", "shop")


class Counted(SqliteStore):
    """Counts how often the project is read."""

    looks = 0

    async def get(self, key: Key) -> Any:
        self.looks += key == PROJECT
        return await super().get(key)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[Resources, Resources]]:
    """Two servers on one store; the first knows that the project stands."""
    stores = Counted(tmp_path / "store.db"), SqliteStore(tmp_path / "store.db")
    here, there = (Resources(store) for store in stores)
    await there.create(kinds()["Project"].new("shop", "shop"))
    await here.create(family("known"))
    yield here, there
    for store in stores:
        await store.close()


def family(name: str) -> Any:
    return kinds()["ModelFamily"].new("shop", name)


async def names(resources: Resources) -> list[str]:
    return [item.metadata.name for item in (await resources.list("ModelFamily")).items]


async def test_a_project_that_was_found_is_not_read_for_each_create(servers: tuple[Resources, Resources]) -> None:
    here, _ = servers
    store: Any = here.store
    before = store.looks
    for number in range(3):
        await here.create(family(f"f-{number}"))
        await here.of(Call()).create(family(f"g-{number}"))
    assert store.looks == before
    assert len(await names(here)) == 7
    await here.create(family("dry"), dry_run=True)
    assert store.looks == before + 1, "nothing is written that would ask for it"


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("finalizer", "refusal", "reason"),
    [("", NotFound, "UNKNOWN_PROJECT"), ("a.example/one", FailedPrecondition, "PROJECT_DELETED")],
)
async def test_a_project_that_another_server_deleted_is_told_as_if_it_had_been_read(
    servers: tuple[Resources, Resources], finalizer: str, refusal: type[ApiError], reason: str, dry_run: bool
) -> None:
    here, there = servers
    await there.delete("ModelFamily", "shop", "known")
    if finalizer:
        await there.set_finalizer(await there.get("Project", "shop", "shop"), finalizer, present=True)
    await there.delete("Project", "shop", "shop")
    for _ in range(2):
        with pytest.raises(refusal) as refused:
            await here.create(family("late"), dry_run=dry_run)
        assert refused.value.reason == reason
    assert await names(here) == []
    if not finalizer:
        await there.create(kinds()["Project"].new("shop", "shop"))
        await here.create(family("again"))
        assert await names(here) == ["again"]


class Blind:
    """Rights with which nothing is seen."""

    policy = ""

    async def visible(self, call: Call, verb: str, kind: str) -> frozenset[str]:
        return frozenset()


async def test_what_one_caller_saw_another_does_not_know(servers: tuple[Resources, Resources]) -> None:
    here, _ = servers
    rights: Any = Blind()
    with pytest.raises(NotFound) as refused:
        await here.of(Call(), access=rights)._projects_of(family("late"))
    assert refused.value.reason == "UNKNOWN_PROJECT"


async def test_another_store_is_asked_anew(servers: tuple[Resources, Resources], tmp_path: Path) -> None:
    here, _ = servers
    empty = SqliteStore(tmp_path / "empty.db")
    with pytest.raises(NotFound) as refused:
        await here.on(empty).create(family("late"))
    assert refused.value.reason == "UNKNOWN_PROJECT"
    await empty.close()


async def test_no_more_than_some_are_remembered(
    servers: tuple[Resources, Resources], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = servers
    monkeypatch.setattr(reads, "MOST_STANDING", 3)
    for number in range(10):
        project = kinds()["Project"].new(f"p-{number}", f"p-{number}")
        await here.create(project)
        await here.create(kinds()["ModelFamily"].new(f"p-{number}", "one"))
        assert len(here._standing) <= 3
