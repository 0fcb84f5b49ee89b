"""Rules of calls that are the same for every kind: versions, finalizers, what is in use, warnings, deadlines."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api import errors, operations
from api.calls import SYSTEM, Call
from api.kinds import kinds
from api.store import sql
from tests.api.calling import PROJECT, Calling, Only, by, changed, family
from tests.api.running import Served, request_of

HELD = "a.example/held"


@pytest.fixture
async def calling(tmp_path: Path) -> AsyncIterator[Calling]:
    made = Calling(tmp_path / "store.db", Only(denied={"bob": ["Finalize"]}))
    await made.create(kinds()["Project"].new(PROJECT, PROJECT))
    yield made
    await made.close()


async def test_a_stale_writer_is_told_both_versions_and_what_changed_since(calling: Calling) -> None:
    first = await calling.create(family("a"))
    second = changed(first, "second")
    second.metadata.labels["team"] = "x"
    second.metadata.annotations["note"] = "y"
    second = await calling.update(second)
    with pytest.raises(errors.Conflict) as refused:
        await calling.update(changed(first, "mine"))
    assert {violation.field for violation in refused.value.violations} == {
        "spec.description",
        "metadata.labels[team]",
        "metadata.annotations[note]",
    }
    for version in (first.metadata.resourceVersion, second.metadata.resourceVersion):
        assert version in refused.value.message
    assert "second" not in refused.value.message, "a refusal tells fields, never values"
    assert await calling.get("ModelFamily", "a") == second


async def test_a_stale_writer_is_refused_when_the_log_has_forgotten_its_version(tmp_path: Path) -> None:
    calling = Calling(tmp_path / "short.db")
    await calling.create(kinds()["Project"].new(PROJECT, PROJECT))
    first = await calling.create(family("a"))
    await calling.update(changed(first, "second"))
    await calling.store._write(lambda db, _: sql.compact(db, 1, time.time() + 1))
    with pytest.raises(errors.Conflict) as refused:
        await calling.update(changed(first, "mine"))
    assert first.metadata.resourceVersion in refused.value.message
    await calling.close()


async def held(calling: Calling, *finalizers: str, subject: str = "alice") -> Any:
    new = family("a")
    new.metadata.finalizers.extend(finalizers)
    return await calling.create(new, by(subject))


def without(item: Any, finalizer: str) -> Any:
    new = type(item).FromString(item.SerializeToString())
    new.metadata.finalizers.remove(finalizer)
    return new


async def test_who_set_a_finalizer_takes_it_away_and_nobody_else(calling: Calling) -> None:
    item = await held(calling, HELD)
    with pytest.raises(errors.PermissionDenied) as refused:
        await calling.update(without(item, HELD), by("bob"))
    assert refused.value.reason == "FINALIZER_NOT_YOURS"
    assert HELD in refused.value.message
    assert list((await calling.update(without(item, HELD))).metadata.finalizers) == []


async def test_an_administrator_takes_the_finalizer_of_another_away(calling: Calling) -> None:
    item = await held(calling, HELD, subject="bob")
    assert not (await calling.update(without(item, HELD), by("alice"))).metadata.finalizers


async def test_nobody_claims_to_have_set_the_finalizer_of_another(calling: Calling) -> None:
    item = await held(calling, HELD)
    forged = without(item, HELD)
    forged.metadata.annotations["michelangelo.airflow/finalizers"] = f'{{"{HELD}": "bob"}}'
    with pytest.raises(errors.PermissionDenied):
        await calling.update(forged, by("bob"))
    item.metadata.annotations["michelangelo.airflow/finalizers"] = f'{{"{HELD}": "bob"}}'
    again = await calling.update(changed(item, "second"), by("bob"))
    with pytest.raises(errors.PermissionDenied):
        await calling.update(without(again, HELD), by("bob"))


@pytest.mark.parametrize("finalizer", ["michelangelo/Ingester", "deployments.michelangelo.uber.com/finalizer"])
async def test_finalizers_of_the_platform_are_its_own(calling: Calling, finalizer: str) -> None:
    call = by("alice")
    new = family("a")
    new.metadata.finalizers.extend([finalizer, HELD])
    item = await calling.create(new, call)
    assert list(item.metadata.finalizers) == [HELD]
    assert any(finalizer in warning for warning in call.warnings)
    item = await calling.resources.set_finalizer(item, finalizer, present=True)
    with pytest.raises(errors.PermissionDenied):
        await calling.update(without(item, finalizer))
    assert await calling.update(changed(item, "second"))
    system = calling.resources.of(Call(SYSTEM))
    gone = await system.update(without(await calling.get("ModelFamily", "a"), finalizer))
    assert list(gone.metadata.finalizers) == [HELD]


async def served_by(calling: Calling, revision: str) -> Any:
    """Create a model, its revision and a deployment that is asked to serve it."""
    model = kinds()["Model"].new(PROJECT, revision)
    await calling.create(model)
    new = kinds()["Revision"].new(PROJECT, revision)
    new.spec.base_type.kind = "Model"
    new.spec.base_resource.namespace, new.spec.base_resource.name = PROJECT, revision
    new.spec.source, new.spec.revision_id = "train", "1"
    await calling.create(new)
    server = kinds()["InferenceServer"].new(PROJECT, "server")
    await calling.resources.create(server)
    deployment = kinds()["Deployment"].new(PROJECT, "fare")
    deployment.spec.desired_revision.name = revision
    deployment.spec.inference_server.name = "server"
    deployment.spec.strategy.rolling.SetInParent()
    return await calling.create(deployment)


@pytest.mark.parametrize("kind", ["Model", "Revision"])
async def test_what_a_deployment_uses_is_not_deleted(calling: Calling, kind: str) -> None:
    deployment = await served_by(calling, "m-1")
    before = await calling.store.revision()
    with pytest.raises(errors.FailedPrecondition) as refused:
        await calling.call("Delete", kind, namespace=PROJECT, name="m-1")
    assert refused.value.reason == "IN_USE"
    assert "'fare'" in refused.value.message
    with pytest.raises(errors.FailedPrecondition) as refused:
        await calling.call("DeleteCollection", kind, namespace=PROJECT)
    assert refused.value.reason == "IN_USE"
    assert await calling.store.revision() == before
    deployment.status.current_revision.namespace = PROJECT
    deployment.status.current_revision.name = "m-1"
    deployment = await calling.resources.update_status(deployment)
    deployment.spec.desired_revision.Clear()
    await calling.update(deployment)
    with pytest.raises(errors.FailedPrecondition):
        await calling.call("Delete", kind, namespace=PROJECT, name="m-1")
    await calling.call("Delete", "Deployment", namespace=PROJECT, name="fare")
    await calling.call("Delete", kind, namespace=PROJECT, name="m-1")


async def test_a_collection_loses_all_but_what_is_in_use(calling: Calling) -> None:
    await served_by(calling, "m-1")
    await calling.create(kinds()["Model"].new(PROJECT, "m-2"))
    with pytest.raises(errors.FailedPrecondition):
        await calling.call("DeleteCollection", "Model", namespace=PROJECT)
    assert [item.metadata.name for item in await calling.listed("Model")] == ["m-1"]


def test_a_status_in_a_call_is_ignored_with_a_warning(served: Served, project: str) -> None:
    new = kinds()["Pipeline"].new(project, "train")
    new.spec.manifest.file_path = "train"
    new.status.error_message = "all is well"
    stored = served.create(new)
    warned = _warnings(served, "Create", _renamed(new, "other"))
    assert warned == ['299 - "status was ignored: it is written by the platform alone"']
    assert not _warnings(served, "Update", stored)
    stored.status.error_message = "all is well"
    assert _warnings(served, "Update", stored) == warned
    assert not served.get("Pipeline", project, "train").status.error_message


def _renamed(item: Any, name: str) -> Any:
    new = type(item).FromString(item.SerializeToString())
    new.metadata.name = name
    return new


def _warnings(served: Served, verb: str, item: Any) -> list[str]:
    described = kinds()["Pipeline"]
    sent: Any = served.channel.unary_unary(
        f"/{described.service.full_name}/{verb}Pipeline", request_serializer=None, response_deserializer=None
    )
    _, call = sent.with_call(request_of("Pipeline", verb, pipeline=item).SerializeToString(), timeout=5)
    return [value for key, value in call.trailing_metadata() if key == "warning"]


@pytest.mark.parametrize("timeout_s", [-1.0, -1e-9, math.nan, math.inf, -math.inf])
async def test_a_deadline_that_is_none_is_refused(calling: Calling, timeout_s: float) -> None:
    for verb, asked in (("Create", {"model_family": family("a")}), ("List", {"namespace": PROJECT})):
        with pytest.raises(errors.InvalidArgument) as refused:
            await calling.call(verb, "ModelFamily", by("alice", timeout_s=timeout_s), **asked)
        assert refused.value.reason == "BAD_DEADLINE"
    assert not await calling.listed("ModelFamily")


async def test_no_call_takes_longer_than_is_allowed(calling: Calling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "LONGEST_CALL_S", 0.05)
    ten_years = by("alice", timeout_s=3.2e8)
    held_up = asyncio.Event()

    async def wait(*_: object) -> None:
        await held_up.wait()

    monkeypatch.setattr(calling.operations._access, "require", wait)
    with pytest.raises(errors.DeadlineExceeded):
        await calling.call("List", "ModelFamily", ten_years, namespace=PROJECT)
    with pytest.raises(errors.DeadlineExceeded):
        await calling.create(family("a"), ten_years)
    held_up.set()
    await calling.operations.settled()
    assert (await calling.create(family("a"), ten_years)).metadata.generation == 1
    assert len([entry for entry in await calling.records() if entry.name == "a"]) == 1


def test_masks_of_fields_are_no_part_of_the_contract() -> None:
    for kind in kinds().values():
        fields: Any = kind.method("Update").input_type.fields
        assert not [field for field in fields if "mask" in field.name]


def test_grpc_answers_a_negative_deadline(served: Served, project: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        served.raw("ModelFamily", "List", b"", timeout_s=-1)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_page_token_is_of_use_to_nobody_else(calling: Calling) -> None:
    for name in "abc":
        await calling.create(family(name))
    asked: dict[str, Any] = {"namespace": PROJECT, "list_options": {"limit": 2}}
    token = getattr((await calling.call("List", "ModelFamily", **asked)).model_family_list.metadata, "continue")
    asked["list_options"] = {"limit": 2, "continue": token}
    rest = await calling.call("List", "ModelFamily", by("alice"), **asked)
    assert [item.metadata.name for item in rest.model_family_list.items] == ["c"]
    with pytest.raises(errors.InvalidArgument) as refused:
        await calling.call("List", "ModelFamily", by("bob"), **asked)
    assert refused.value.reason == "BAD_TOKEN"


@pytest.mark.parametrize(("limit", "shown"), [(0, 3), (10**9, 3), (2, 2)])
async def test_a_page_is_as_large_as_asked_within_bounds(calling: Calling, limit: int, shown: int) -> None:
    for name in "abc":
        await calling.create(family(name))
    found = await calling.call("List", "ModelFamily", namespace=PROJECT, list_options={"limit": limit})
    assert len(found.model_family_list.items) == shown
    with pytest.raises(errors.InvalidArgument):
        await calling.call("List", "ModelFamily", namespace=PROJECT, list_options={"limit": -1 - limit})
