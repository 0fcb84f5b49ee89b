"""Deletion over gRPC: owners take along what they alone own, finalizers hold an object, nobody is left behind."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.gen.michelangelo.api import list_pb2 as wire
from api.kinds import kinds
from api.resources import Resources
from api.store import records
from api.store.base import LARGEST_PAGE, Key, Preconditions, Write
from api.store.sqlite import SqliteStore
from tests.api.running import Served, read

GRAPHS = 12


def child(owner: Any, name: str, *others: Any, kind: str = "ModelFamily") -> Any:
    """Return a new object that some objects own."""
    new = kinds()[kind].new(owner.metadata.namespace, name)
    for one in (owner, *others):
        new.metadata.ownerReferences.add(kind=one.DESCRIPTOR.name, name=one.metadata.name, uid=one.metadata.uid)
    return new


def names(served: Served, project: str) -> set[str]:
    return {item.metadata.name for item in served.list("ModelFamily", project).items}


@pytest.fixture
def owner(served: Served, project: str) -> Any:
    return served.create(kinds()["ModelFamily"].new(project, "owner"))


@pytest.mark.parametrize("options", [{}, {"propagationPolicy": "Background"}, {"propagationPolicy": "Foreground"}])
def test_an_owner_takes_along_what_it_owns(served: Served, project: str, owner: Any, options: dict[str, str]) -> None:
    middle = served.create(child(owner, "middle"))
    served.create(child(middle, "low"))
    served.create(child(middle, "model", kind="Model"))
    served.create(kinds()["ModelFamily"].new(project, "other"))
    served.delete("ModelFamily", project, "owner", **options)
    assert names(served, project) == {"other"}
    assert not served.list("Model", project).items


@pytest.mark.parametrize("options", [{"propagationPolicy": "Orphan"}, {"orphanDependents": True}])
def test_an_orphaned_object_forgets_its_owner_and_lives_on(
    served: Served, project: str, owner: Any, options: dict[str, Any]
) -> None:
    served.create(child(owner, "orphan"))
    served.delete("ModelFamily", project, "owner", **options)
    orphan = served.get("ModelFamily", project, "orphan")
    assert not orphan.metadata.ownerReferences
    orphan.spec.description = "changed"
    assert served.update(orphan).metadata.generation == 2


def test_an_object_of_two_owners_goes_with_the_last(served: Served, project: str, owner: Any) -> None:
    second = served.create(kinds()["ModelFamily"].new(project, "second"))
    served.create(child(owner, "shared", second))
    served.delete("ModelFamily", project, "owner")
    shared = served.get("ModelFamily", project, "shared")
    assert [reference.uid for reference in shared.metadata.ownerReferences] == [second.metadata.uid]
    served.delete("ModelFamily", project, "second")
    assert names(served, project) == set()


def test_a_namesake_of_the_owner_takes_nothing_along(served: Served, project: str, owner: Any) -> None:
    served.create(child(owner, "child"))
    served.delete("ModelFamily", project, "owner", propagationPolicy="Orphan")
    served.create(kinds()["ModelFamily"].new(project, "owner"))
    served.delete("ModelFamily", project, "owner")
    assert names(served, project) == {"child"}


def test_a_namesake_of_a_second_owner_holds_nothing(served: Served, project: str, owner: Any) -> None:
    namesake = served.create(kinds()["ModelFamily"].new(project, "namesake"))
    gone = type(namesake).FromString(namesake.SerializeToString())
    gone.metadata.uid = "00000000-0000-4000-8000-000000000001"
    # An owner that has long been replaced by another of its name: no client can write that today.
    new = child(owner, "child", gone)
    new.metadata.uid = "00000000-0000-4000-8000-000000000002"
    served.run(served.store.create(Write(new)))
    served.delete("ModelFamily", project, "owner")
    assert names(served, project) == {"namesake"}


def test_a_finalizer_holds_an_object_until_it_is_removed(served: Served, project: str, owner: Any) -> None:
    owner.metadata.finalizers.extend(["a.example/one", "a.example/two"])
    served.update(owner)
    served.create(child(owner, "child"))
    served.delete("ModelFamily", project, "owner")
    held = served.get("ModelFamily", project, "owner")
    assert held.metadata.HasField("deletionTimestamp")
    assert names(served, project) == {"owner", "child"}
    before = served.log()
    served.delete("ModelFamily", project, "owner")
    assert served.log() == before, "a second delete changes nothing"
    held.metadata.finalizers.remove("a.example/one")
    held = served.update(held)
    assert names(served, project) == {"owner", "child"}
    del held.metadata.finalizers[:]
    served.update(held)
    assert names(served, project) == set()


def test_a_finalizer_of_what_is_owned_holds_it_alone(served: Served, project: str, owner: Any) -> None:
    new = child(owner, "held")
    new.metadata.finalizers.append("a.example/one")
    served.create(new)
    served.create(child(owner, "free"))
    served.delete("ModelFamily", project, "owner")
    held = served.get("ModelFamily", project, "held")
    assert held.metadata.HasField("deletionTimestamp")
    assert names(served, project) == {"held"}
    held.spec.description = "can still be changed"
    held = served.update(held)
    del held.metadata.finalizers[:]
    served.update(held)
    assert names(served, project) == set()


def test_a_dry_delete_deletes_nothing(served: Served, project: str, owner: Any) -> None:
    served.create(child(owner, "child"))
    before = served.log()
    served.delete("ModelFamily", project, "owner", dryRun=["All"])
    served.call("ModelFamily", "DeleteCollection", namespace=project, delete_options={"dryRun": ["All"]})
    assert served.log() == before
    with pytest.raises(grpc.RpcError) as refused:
        served.delete("ModelFamily", project, "nobody", dryRun=["All"])
    assert read(refused.value).reason == "NOT_FOUND"


def test_preconditions_that_hold_delete(served: Served, project: str, owner: Any) -> None:
    metadata = owner.metadata
    holds = {"uid": metadata.uid, "resourceVersion": metadata.resourceVersion}
    served.delete("ModelFamily", project, "owner", preconditions=holds)
    assert names(served, project) == set()


def test_a_collection_with_owners_and_owned_is_deleted_whole(served: Served, project: str, owner: Any) -> None:
    for number in range(20):
        served.create(child(owner, f"a-child-{number}"))
        served.create(child(owner, f"z-child-{number}"))
    served.call("ModelFamily", "DeleteCollection", namespace=project)
    assert names(served, project) == set()


def test_a_collection_is_what_its_selector_finds(served: Served, project: str) -> None:
    for number in range(6):
        new = kinds()["ModelFamily"].new(project, f"m-{number}")
        new.metadata.labels["team"] = "a" if number % 2 else "b"
        served.create(new)
    other = served.project()
    served.create(kinds()["ModelFamily"].new(other, "m-1"))
    selected = {"labelSelector": "team=a", "fieldSelector": "metadata.name!=m-5"}
    served.call("ModelFamily", "DeleteCollection", namespace=project, list_options=selected)
    assert names(served, project) == {"m-0", "m-2", "m-4", "m-5"}
    assert names(served, other) == {"m-1"}


def test_a_collection_may_be_larger_than_a_page(served: Served, project: str) -> None:
    served.run(_many(served.resources, project, LARGEST_PAGE + 5))
    served.call("ModelFamily", "DeleteCollection", namespace=project)
    assert not served.list("ModelFamily", project, list_options_ext=wire.ListOptionsExt()).items


async def _many(resources: Resources, project: str, count: int) -> None:
    for number in range(count):
        await resources.create(kinds()["ModelFamily"].new(project, f"m-{number}"))


@pytest.mark.parametrize("seed", range(GRAPHS))
def test_random_graphs_of_owners_leave_what_a_model_leaves(served: Served, project: str, seed: int) -> None:
    pick = random.Random(seed)
    owners: dict[str, set[str]] = {}
    made: dict[str, Any] = {}
    for number in range(25):
        above = pick.sample(sorted(made), min(len(made), pick.choice((0, 1, 1, 2, 3))))
        name = f"n{number:02}"
        new = kinds()["ModelFamily"].new(project, name)
        if above:
            new = child(made[above[0]], name, *(made[one] for one in above[1:]))
        made[name], owners[name] = served.create(new), set(above)
    for victim in pick.sample(sorted(made), 12):
        if victim not in owners:
            continue
        orphan = pick.random() < 0.3
        served.delete("ModelFamily", project, victim, propagationPolicy="Orphan" if orphan else "Background")
        _remove(owners, victim, orphan=orphan)
        assert names(served, project) == set(owners)
    for item in served.list("ModelFamily", project).items:
        assert {reference.name for reference in item.metadata.ownerReferences} == owners[item.metadata.name]


def _remove(owners: dict[str, set[str]], victim: str, *, orphan: bool) -> None:
    del owners[victim]
    for name in [name for name, above in owners.items() if victim in above]:
        owners[name].discard(victim)
        if not owners[name] and not orphan:
            _remove(owners, name, orphan=False)


class Died(BaseException):
    """The process died here."""


@pytest.mark.parametrize("survived", range(4))
async def test_a_death_within_a_cascade_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    store = SqliteStore(tmp_path / "store.db")
    resources = Resources(store)
    await resources.create(kinds()["Project"].new("shop", "shop"))
    owner = await resources.create(kinds()["ModelFamily"].new("shop", "owner"))
    for number in range(3):
        await resources.create(child(owner, f"child-{number}"))
    before = await _whole(resources)
    steps: Iterator[int] = iter(range(survived))
    removed = records._remove

    def dying(*arguments: Any) -> Any:
        if next(steps, None) is None:
            raise Died
        return removed(*arguments)

    monkeypatch.setattr(records, "_remove", dying)
    with pytest.raises(Died):
        await resources.delete("ModelFamily", "shop", "owner")
    monkeypatch.undo()
    assert await _whole(resources) == before
    await resources.delete("ModelFamily", "shop", "owner")
    assert not (await resources.list("ModelFamily")).items
    await store.close()
    with closing(sqlite3.connect(tmp_path / "store.db")) as db:
        revisions = [row[0] for row in db.execute("SELECT revision FROM change ORDER BY revision")]
        assert revisions == list(range(1, len(revisions) + 1)), (
            "every change has a revision of its own, none is left out"
        )


async def _whole(resources: Resources) -> tuple[int, list[str]]:
    items = (await resources.list("ModelFamily")).items
    return await resources.revision(), [item.metadata.name + item.metadata.resourceVersion for item in items]


async def test_nothing_is_created_under_an_owner_that_just_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "store.db")
    resources = Resources(store)
    await resources.create(kinds()["Project"].new("shop", "shop"))
    owner = await resources.create(kinds()["ModelFamily"].new("shop", "owner"))
    create = store.create

    async def late(write: Any, trail: Any) -> Any:
        await store.delete(Key("ModelFamily", "shop", "owner"), Preconditions())
        return await create(write, trail)

    monkeypatch.setattr(store, "create", late)
    with pytest.raises(Exception, match="is gone") as refused:
        await resources.create(child(owner, "child"))
    assert getattr(refused.value, "reason", "") == "REFERENCE_GONE"
    assert not (await resources.list("ModelFamily")).items
    await store.close()


async def test_a_finalizer_set_while_the_last_is_removed_holds_the_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "store.db")
    resources = Resources(store)
    await resources.create(kinds()["Project"].new("shop", "shop"))
    new = kinds()["ModelFamily"].new("shop", "held")
    new.metadata.finalizers.append("a.example/one")
    held = await resources.create(new)
    await resources.delete("ModelFamily", "shop", "held")
    delete = store.delete

    async def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        await resources.set_finalizer(held, "a.example/two", present=True)
        return await delete(*arguments, **options)

    monkeypatch.setattr(store, "delete", late)
    await resources.set_finalizer(held, "a.example/one", present=False)
    assert list((await resources.get("ModelFamily", "shop", "held")).metadata.finalizers) == ["a.example/two"]
    await store.close()
