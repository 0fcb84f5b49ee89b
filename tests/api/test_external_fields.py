"""Fields with external storage: light in lists, in the change log and in the store, whole in a get, safe on the way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api import errors, external, reads
from api.blob_files import LocalFiles
from api.blob_sweep import GRACE_DAYS, Sweeper
from api.blobs import DAY_S, Blobs, Ref
from api.differences import changed_fields
from api.external import External, refs_of
from api.kinds import kinds
from api.store import sql
from tests.api.calling import PROJECT, Calling, by

START_S = 20_000 * DAY_S


class Clock:
    """The day of the blob store."""

    def __init__(self) -> None:
        self.now = float(START_S)

    def __call__(self) -> float:
        return self.now

    def pass_days(self, days: int) -> None:
        self.now += days * DAY_S


class Stored(Calling):
    """A store with a blob store in a folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.folder = Clock(), folder / "blobs"
        self.blobs = Blobs(LocalFiles(self.folder), clock=self.clock)
        super().__init__(folder / "store.db", external=External(self.blobs), admitters={})
        self.sweeper = Sweeper(self.resources, self.blobs)

    def files(self) -> list[Path]:
        return [path for path in sorted(self.folder.rglob("*")) if path.is_file() and "UNUSED" not in path.parts]

    async def compact(self) -> None:
        """Forget all changes but the newest."""
        await self.store._write(lambda db, _: sql.compact(db, 1, float("inf")))


@pytest.fixture
async def stored(tmp_path: Path) -> AsyncIterator[Stored]:
    made = Stored(tmp_path)
    await made.create(kinds()["Project"].new(PROJECT, PROJECT))
    yield made
    await made.close()


def model(name: str, columns: int, prefix: str = "column") -> Any:
    new = kinds()["Model"].new(PROJECT, name)
    for number in range(columns):
        new.spec.input_schema.schema_items.add(name=f"{prefix}-{number}", data_type=20)
    return new


def pipeline(name: str, size: int, letter: str = "x") -> Any:
    new = kinds()["Pipeline"].new(PROJECT, name)
    new.spec.manifest.file_path = "train"
    new.spec.manifest.content.type_url = "type.example/opaque"
    new.spec.manifest.content.value = letter.encode() * size
    return new


def test_the_fields_are_those_of_the_contract() -> None:
    found = {kind.name: kind.external for kind in kinds().values() if kind.external}
    assert found == {
        "Draft": ("spec.content.manifest.content",),
        "Model": tuple(
            f"spec.{name}_{what}"
            for name, what in (
                ("input", "schema"),
                ("predict", "fields"),
                ("published", "fields"),
                ("derived", "fields"),
                ("output", "schema"),
            )
        ),
        "Pipeline": ("spec.manifest.content", "status.registered_workflow"),
        "PipelineRun": ("spec.pipeline_spec.manifest.content", "status.conditions", "status.source_pipeline"),
    }


async def test_a_large_field_is_light_in_lists_and_changes_and_whole_in_a_get(stored: Stored) -> None:
    made = await stored.create(model("large", 200))
    assert len(made.spec.input_schema.schema_items) == 200
    assert external.ANNOTATION not in made.metadata.annotations
    assert await stored.get("Model", "large") == made
    (light,) = await stored.listed("Model")
    assert not light.spec.HasField("input_schema")
    assert set(refs_of(light)) == {"spec.input_schema"}
    change = (await stored.changes())[-1]
    assert change.resource == light
    assert light.ByteSize() < made.ByteSize() / 4
    assert len(stored.files()) == 1
    assert stored.files()[0].stat().st_mode & 0o077 == 0


async def test_a_small_field_stays_in_its_object(stored: Stored) -> None:
    made = await stored.create(model("small", 5))
    assert await stored.listed("Model") == [made]
    assert not stored.files()


async def test_an_object_from_a_list_is_written_without_losing_what_it_lacks(stored: Stored) -> None:
    made = await stored.create(model("m", 200))
    (light,) = await stored.listed("Model")
    light.metadata.labels["team"] = "growth"
    call = by("alice")
    again = await stored.update(light, call)
    assert again.spec == made.spec
    assert not call.warnings
    assert again.metadata.labels["team"] == "growth"
    assert len(stored.files()) == 1


async def test_a_field_is_replaced_and_removed(stored: Stored) -> None:
    made = await stored.create(pipeline("train", 5_000))
    made.spec.manifest.content.value = b"y" * 6_000
    second = await stored.update(made)
    assert second.metadata.generation == 2
    assert (await stored.get("Pipeline", "train")).spec.manifest.content.value == b"y" * 6_000
    second.spec.manifest.ClearField("content")
    third = await stored.update(second)
    assert not (await stored.get("Pipeline", "train")).spec.manifest.HasField("content")
    assert third.metadata.generation == 3
    assert await stored.listed("Pipeline") == [third]


async def test_a_change_of_a_large_field_is_told_by_its_name(stored: Stored) -> None:
    first = await stored.create(pipeline("train", 5_000))
    second = type(first).FromString(first.SerializeToString())
    second.spec.manifest.content.value = b"y" * 6_000
    await stored.update(second)
    first.spec.description = "stale"
    with pytest.raises(errors.Conflict) as refused:
        await stored.update(first)
    assert [violation.field for violation in refused.value.violations] == ["spec.manifest.content"]
    change = (await stored.changes())[-1]
    assert changed_fields(change.previous, change.resource) == ["spec.manifest.content"]  # type: ignore[arg-type]


async def test_a_reference_that_a_client_makes_up_is_not_followed(stored: Stored) -> None:
    await stored.create(pipeline("secret", 5_000))
    (light,) = await stored.listed("Pipeline")
    forged = pipeline("mine", 0)
    forged.spec.manifest.ClearField("content")
    forged.metadata.annotations[external.ANNOTATION] = light.metadata.annotations[external.ANNOTATION]
    made = await stored.create(forged)
    assert not made.spec.manifest.HasField("content")
    made.metadata.annotations[external.ANNOTATION] = light.metadata.annotations[external.ANNOTATION]
    made.spec.description = "changed"
    assert not (await stored.update(made)).spec.manifest.HasField("content")
    assert not refs_of((await stored.listed("Pipeline"))[0])


async def test_a_status_moves_out_and_is_written_only_when_it_changed(stored: Stored) -> None:
    await stored.create(pipeline("train", 5_000))
    run = kinds()["PipelineRun"].new(PROJECT, "run")
    run.spec.pipeline.name = "train"
    run = await stored.create(run)
    run.status.source_pipeline.pipeline.CopyFrom(await stored.get("Pipeline", "train"))
    run.status.state = 2
    run = await stored.resources.update_status(run)
    assert run.status.source_pipeline.pipeline.spec.manifest.content.value == b"x" * 5_000
    (light,) = await stored.listed("PipelineRun")
    assert light.status.state == 2
    assert not light.status.HasField("source_pipeline")
    before = await stored.store.revision()
    assert await stored.resources.update_status(run) == run
    light.status.state = 2
    await stored.resources.update_status(light)
    assert await stored.store.revision() == before
    light.status.state = 3
    again = await stored.resources.update_status(light)
    assert again.status.source_pipeline == run.status.source_pipeline
    run = await stored.resources.set_finalizer(again, "michelangelo.airflow/x", present=True)
    assert run.status.source_pipeline == again.status.source_pipeline


async def test_a_repeated_create_answers_with_the_whole_object(stored: Stored) -> None:
    call = by("alice")
    assert await stored.create(model("m", 200), call) == await stored.create(model("m", 200), call)


@pytest.mark.parametrize("fault", ["bit", "cut", "swap", "empty", "gone"])
async def test_a_damaged_value_is_told_and_never_given(stored: Stored, fault: str) -> None:
    await stored.create(model("m", 200))
    await stored.create(model("other", 200, "other"))
    path, other = stored.files()
    digest = refs_of((await stored.listed("Model"))[0])["spec.input_schema"].digest
    if path.name != digest:
        path, other = other, path
    value = bytearray(path.read_bytes())
    value[len(value) // 2] ^= 1
    damaged = {"bit": bytes(value), "cut": bytes(value[:-1]), "swap": other.read_bytes(), "empty": b""}
    if fault == "gone":
        path.unlink()
    else:
        path.write_bytes(damaged[fault])
    again = Calling(stored.path, external=External(Blobs(LocalFiles(stored.folder), clock=stored.clock)))
    with pytest.raises(errors.DataLoss) as refused:
        await again.get("Model", "m")
    assert refused.value.reason == ("BLOB_MISSING" if fault == "gone" else "BLOB_DAMAGED")
    assert str(stored.folder) not in refused.value.message
    assert len(await again.listed("Model")) == 2, "lists need no large values"
    await again.call("Delete", "Model", namespace=PROJECT, name="m")
    assert (await again.create(model("m", 200))).spec.input_schema, "written again it is whole again"
    assert await again.get("Model", "m")
    await again.close()


async def test_nothing_is_written_when_the_blob_store_is_away(stored: Stored) -> None:
    stored.folder.rmdir() if stored.folder.exists() else None
    stored.folder.write_text("no folder")
    before = await stored.store.revision()
    with pytest.raises(errors.Unavailable) as refused:
        await stored.create(model("m", 200))
    assert refused.value.reason == "BLOBS_UNAVAILABLE"
    assert await stored.store.revision() == before
    await stored.create(model("small", 5))
    stored.folder.unlink()
    await stored.create(model("m", 200))


async def test_a_value_is_there_before_its_object(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = stored.store.create
    found: list[int] = []

    async def create(*arguments: Any, **more: Any) -> Any:
        found.append(len(stored.files()))
        return await committed(*arguments, **more)

    monkeypatch.setattr(stored.store, "create", create)
    await stored.create(model("m", 200))
    assert found == [1]


async def test_a_temporary_file_of_a_crash_is_no_value(stored: Stored) -> None:
    await stored.create(model("m", 200))
    (path,) = stored.files()
    (path.parent / ".tmp-left").write_bytes(b"half")
    assert await stored.blobs.names() == [str(path.relative_to(stored.folder))]


async def test_projects_share_no_values(stored: Stored) -> None:
    await stored.create(kinds()["Project"].new("other", "other"))
    twin = model("m", 200)
    twin.metadata.namespace = "other"
    await stored.create(model("m", 200))
    await stored.create(twin)
    one, two = stored.files()
    assert one.name == two.name
    assert one != two


async def test_a_value_too_large_is_refused(stored: Stored) -> None:
    with pytest.raises(errors.ResourceExhausted):
        await stored.create(pipeline("huge", 2_000_000))
    with pytest.raises(errors.ResourceExhausted):
        await stored.blobs.put(PROJECT, b"x" * (64 * 2**20 + 1))
    assert not stored.files()


async def sweep(stored: Stored, days: int) -> int:
    """Sweep every day for some days; return how many values were removed."""
    removed = 0
    for _ in range(days):
        stored.clock.pass_days(1)
        removed += await stored.sweeper.sweep()
    return removed


async def test_a_value_that_an_object_has_stays_for_ever(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "PAGE", 2)
    for number in range(7):
        await stored.create(model(f"m-{number}", 200, f"of-{number}"))
    await stored.compact()
    assert await sweep(stored, 20) == 0
    assert len(stored.files()) == 7


async def test_a_value_goes_when_no_object_and_no_change_has_it(stored: Stored) -> None:
    made = await stored.create(pipeline("train", 5_000))
    made.spec.manifest.content.value = b"y" * 6_000
    await stored.update(made)
    assert len(stored.files()) == 2
    assert await sweep(stored, 20) == 0, "the change log still has it"
    await stored.create(model("small", 1))
    await stored.compact()
    assert await sweep(stored, 1) == 1
    assert len(stored.files()) == 1
    assert (await stored.get("Pipeline", "train")).spec.manifest.content.value == b"y" * 6_000
    assert not [name for name in await stored.blobs.names() if name.startswith("UNUSED")]


async def test_a_value_stays_for_the_grace_period_after_it_was_last_needed(stored: Stored) -> None:
    await stored.create(pipeline("train", 5_000))
    stored.clock.pass_days(100)
    assert await stored.sweeper.sweep() == 0
    await stored.call("Delete", "Pipeline", namespace=PROJECT, name="train")
    await stored.create(model("small", 1))
    await stored.compact()
    assert await stored.sweeper.sweep() == 0, "an answer that has it may be repeated"
    assert await sweep(stored, GRACE_DAYS) == 0
    assert await sweep(stored, 1) == 1
    assert not stored.files()


async def test_what_is_written_while_the_sweep_runs_stays(stored: Stored) -> None:
    made = await stored.create(pipeline("train", 5_000))
    for round_ in range(8):
        stored.clock.pass_days(GRACE_DAYS + 2)
        made.spec.manifest.content.value = bytes([65 + round_ % 2]) * 5_000
        await stored.compact()
        results = await asyncio.gather(stored.sweeper.sweep(), stored.update(made), stored.sweeper.sweep())
        made = results[1]
        fresh = Blobs(LocalFiles(stored.folder), clock=stored.clock)
        again = await External(fresh).fill((await stored.listed("Pipeline"))[0])
        assert again.spec.manifest.content == made.spec.manifest.content


async def test_a_full_disk_is_told_as_one(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.ResourceExhausted) as refused:
        await stored.blobs.put(PROJECT, b"x" * 2_000)
    assert refused.value.reason == "DISK_FULL"


def test_a_reference_has_one_name() -> None:
    assert Ref(20_000, "ab", 7).name("shop") == "shop/20000/ab"
