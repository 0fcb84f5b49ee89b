"""A call that is repeated under its own name has one effect and one answer, whatever is lost on the way (G2)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api import errors
from api.client import Client
from api.kinds import kinds
from tests.api.calling import PROJECT, Calling, by, changed, family
from tests.api.running import Served, read, request_of
from tests.robustness.faults.proxy import GOOD, Fault, Proxy

CALLS = 30


@pytest.fixture
async def calling(tmp_path: Path) -> AsyncIterator[Calling]:
    made = Calling(tmp_path / "store.db")
    await made.create(kinds()["Project"].new(PROJECT, PROJECT))
    yield made
    await made.close()


async def test_a_repeated_create_answers_as_before(calling: Calling) -> None:
    call = by("alice")
    first = await calling.create(family("a"), call)
    await calling.update(changed(first, "by another call"))
    before = await calling.store.revision()
    assert await calling.create(family("a"), by("alice", call.request_id)) == first
    assert await calling.store.revision() == before
    with pytest.raises(errors.AlreadyExists, match="already exists") as refused:
        await calling.create(family("a"))
    assert refused.value.reason == "ALREADY_EXISTS"


async def test_a_repeated_update_answers_as_before_though_its_version_is_old(calling: Calling) -> None:
    call, first = by("alice"), await calling.create(family("a"))
    second = await calling.update(changed(first, "second"), call)
    await calling.update(changed(second, "third"))
    assert await calling.update(changed(first, "second"), call) == second
    assert (await calling.get("ModelFamily", "a")).spec.description == "third"


async def test_an_update_that_changed_nothing_is_remembered_too(calling: Calling) -> None:
    call, first = by("alice"), await calling.create(family("a"))
    assert await calling.update(first, call) == first
    await calling.update(changed(first, "second"))
    assert await calling.update(first, call) == first


async def test_a_repeated_delete_is_ok_and_a_new_one_is_not_found(calling: Calling) -> None:
    await calling.create(family("a"))
    call = by("alice")
    for _ in range(2):
        await calling.call("Delete", "ModelFamily", call, namespace=PROJECT, name="a")
    await calling.create(family("a", "of the same name"))
    await calling.call("Delete", "ModelFamily", call, namespace=PROJECT, name="a")
    assert (await calling.get("ModelFamily", "a")).spec.description == "of the same name"
    with pytest.raises(errors.NotFound):
        await calling.call("Delete", "ModelFamily", namespace=PROJECT, name="b")


async def test_a_second_delete_of_what_is_being_deleted_is_ok(calling: Calling) -> None:
    held = family("a")
    held.metadata.finalizers.append("a.example/held")
    await calling.create(held)
    for _ in range(2):
        await calling.call("Delete", "ModelFamily", namespace=PROJECT, name="a")
    assert (await calling.get("ModelFamily", "a")).metadata.HasField("deletionTimestamp")


@pytest.mark.parametrize("verb", ["Create", "Update", "Delete", "DeleteCollection"])
async def test_another_request_under_the_same_name_is_refused(calling: Calling, verb: str) -> None:
    call, first = by("alice"), await calling.create(family("a"))
    asked: dict[str, Any] = {
        "Create": {"model_family": family("b")},
        "Update": {"model_family": changed(first, "second")},
        "Delete": {"name": "a", "namespace": PROJECT},
        "DeleteCollection": {"namespace": PROJECT},
    }[verb]
    await calling.call(verb, "ModelFamily", call, **asked)
    other = {"namespace": PROJECT, "list_options": {"labelSelector": "x=y"}} if verb == "DeleteCollection" else asked
    if verb in ("Create", "Update"):
        other = {"model_family": changed(asked["model_family"], "other")}
    elif verb == "Delete":
        other = {"name": "b", "namespace": PROJECT}
    with pytest.raises(errors.AlreadyExists) as refused:
        await calling.call(verb, "ModelFamily", call, **other)
    assert refused.value.reason == "REQUEST_ID_REUSED"


async def test_names_of_different_callers_and_methods_are_their_own(calling: Calling) -> None:
    name = str(uuid.uuid4())
    await calling.create(family("a"), by("alice", name))
    await calling.create(family("b"), by("bob", name))
    await calling.call("Delete", "ModelFamily", by("alice", name), namespace=PROJECT, name="a")
    assert [item.metadata.name for item in await calling.listed("ModelFamily")] == ["b"]


async def test_a_dry_run_is_not_remembered(calling: Calling) -> None:
    call = by("alice")
    await calling.write("Create", family("a"), call, dry=True)
    assert (await calling.create(family("a", "other"), call)).spec.description == "other"
    await calling.write("Create", family("b"), call, dry=True)


async def test_a_repeated_collection_delete_spares_what_came_later(calling: Calling) -> None:
    call = by("alice")
    for name in "abc":
        await calling.create(family(name))
    await calling.call("DeleteCollection", "ModelFamily", call, namespace=PROJECT)
    await calling.create(family("later"))
    before = await calling.store.revision()
    await calling.call("DeleteCollection", "ModelFamily", call, namespace=PROJECT)
    assert [item.metadata.name for item in await calling.listed("ModelFamily")] == ["later"]
    assert await calling.store.revision() == before


async def test_the_same_call_sent_many_times_at_once_has_one_effect(calling: Calling) -> None:
    first = await calling.create(family("a"))
    for verb, item in (("Create", family("b")), ("Update", changed(first, "second"))):
        call, before = by("alice"), await calling.store.revision()
        answers = await asyncio.gather(*(calling.write(verb, item, call) for _ in range(20)))
        assert all(answer == answers[0] for answer in answers)
        assert await calling.store.revision() == before + 1
    call = by("alice")
    await asyncio.gather(*(calling.call("Delete", "ModelFamily", call, namespace=PROJECT, name="a") for _ in range(20)))
    records = Counter(entry.request_id for entry in await calling.records())
    assert set(records.values()) == {1}


async def test_a_call_whose_caller_has_gone_is_finished(calling: Calling) -> None:
    call = by("alice")
    for pause_s in (0.0, 0.0002, 0.001):
        task = asyncio.ensure_future(calling.create(family(f"f-{pause_s}"), call))
        await asyncio.sleep(pause_s)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await calling.operations.settled()
        call = by("alice")
    names = {item.metadata.name for item in await calling.listed("ModelFamily")}
    created = {entry.name for entry in await calling.records() if entry.verb == "Create" and entry.kind != "Project"}
    assert names == created


@pytest.mark.parametrize(
    "given", ["mine", "x" * 10_240, "00000000-0000-4000-8000-00000000000", "{00000000-0000-4000-8000-000000000000}"]
)
def test_a_write_is_named_by_a_uuid_or_not_at_all(served: Served, project: str, given: str) -> None:
    new = kinds()["ModelFamily"].new(project, "a")
    body = request_of("ModelFamily", "Create", model_family=new).SerializeToString()
    refusal = served.refused(lambda: served.raw("ModelFamily", "Create", body, metadata=(("x-request-id", given),)))
    assert (refusal.code, refusal.reason, refusal.paths) == ("INVALID_ARGUMENT", "BAD_REQUEST_ID", ["x-request-id"])
    assert len(refusal.request_id) <= 128
    served.raw("ModelFamily", "List", b"", metadata=(("x-request-id", given[:128]),))


def test_the_client_creates_once_though_answers_are_lost(served: Served, project: str) -> None:
    pick, seed = random.Random(20261121), [0]

    def choose() -> Fault:
        seed[0] += 1
        return Fault(cut_after=pick.choice((0, 1, 40, 90, 130, 300))) if pick.random() < 0.5 else GOOD

    with Proxy(int(served.address.rpartition(":")[2]), choose) as proxy:
        made = []
        for number in range(CALLS):
            with Client(f"127.0.0.1:{proxy.port}", timeout_s=30) as client:
                new = kinds()["ModelFamily"].new(project, f"f-{number}")
                made.append(client.create(new))
                made[-1].spec.description = "second"
                made[-1] = client.update(made[-1])
        cuts = proxy.cuts
    stored = {item.metadata.name: item for item in served.list("ModelFamily", project).items}
    assert stored == {item.metadata.name: item for item in made}
    assert {item.metadata.generation for item in stored.values()} == {2}
    assert cuts > CALLS / 4, "the network was never bad"


def test_a_short_deadline_leaves_an_effect_that_can_be_repeated(served: Served, project: str) -> None:
    late = 0
    for number in range(30):
        name = (("x-request-id", str(uuid.uuid4())),)
        new = kinds()["ModelFamily"].new(project, f"f-{number}")
        body = request_of("ModelFamily", "Create", model_family=new).SerializeToString()
        try:
            served.raw("ModelFamily", "Create", body, timeout_s=0.000_3 * (number % 6), metadata=name)
        except grpc.RpcError as error:
            late += read(error).code == "DEADLINE_EXCEEDED"
        served.raw("ModelFamily", "Create", body, metadata=name)
    assert late
    assert len(served.list("ModelFamily", project).items) == 30
