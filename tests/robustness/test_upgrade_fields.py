"""What a later release wrote into an object stays there through every write of this one (guarantee G21)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet

from api import apply
from api.blob_files import LocalFiles
from api.blobs import Blobs
from api.external import External
from api.kinds import kinds
from api.resources import Resources
from api.store.base import Query, Write
from api.store.open import open_store
from tests.robustness.results import told
from tests.robustness.stores import PROJECT, Place

# A field that no message has, and its value on the wire.
NUMBER = 9_000
LATER = bytes((0xC2, 0xB2, 0x04, 5)) + b"later"
# Kept in the blob store when it is large: a list does not show it.
CONTENT = 5
PARTS: tuple[Callable[[Any], Any], ...] = (
    lambda item: item,
    lambda item: item.metadata,
    lambda item: item.metadata.ownerReferences[0],
    lambda item: item.spec,
    lambda item: item.spec.manifest,
    lambda item: item.spec.manifest.content,
    lambda item: item.status,
    lambda item: item.status.latest_revision,
)


def of_a_later_release() -> Any:
    """Return an object with a field in every part that this release does not know."""
    item = kinds()["Pipeline"].new(PROJECT, "p")
    item.metadata.uid = "0b7c4d2e-0000-4000-8000-000000000001"
    item.metadata.ownerReferences.add(kind="Project", name=PROJECT, uid="another")
    item.spec.manifest.file_path = "train"
    item.spec.manifest.content.type_url = "type.example/opaque"
    item.spec.manifest.content.value = b"x" * 100
    item.status.latest_revision.name = "p-1"
    for part in PARTS:
        part(item).MergeFromString(LATER)
    return item


def unknown(message: Any) -> Any:
    """Return the fields of a message that this release does not know."""
    return UnknownFieldSet(message)


def lost(item: Any) -> list[int]:
    """Return which parts have no longer what the later release wrote."""
    return [
        number
        for number, part in enumerate(PARTS)
        if [field.data for field in unknown(part(item)) if field.field_number == NUMBER] != [b"later"]
    ]


@pytest.mark.both
async def test_a_field_of_a_later_release_stays_through_every_write(any_place: Place, tmp_path: Path) -> None:
    store = await open_store(any_place.url)
    resources = Resources(store, {}, external=External(Blobs(LocalFiles(tmp_path / "blobs"))))
    await store.create(Write(of_a_later_release()))
    get = functools.partial(resources.get, "Pipeline", PROJECT, "p")
    faults: dict[str, list[int]] = {"get": lost(await get())}

    read = await get()
    read.metadata.labels["team"] = "risk"
    faults["update"] = lost(await resources.update(read))

    read = await get()
    read.spec.manifest.content.value = b"y" * 4_000
    await resources.update(read)
    faults["update of a large field"] = lost(await get())

    wanted = kinds()["Pipeline"].new(PROJECT, "p")
    wanted.spec.description = "declared"
    stored, outcome = await apply.apply(resources, wanted, apply.Terms("ci", force=True))
    assert outcome == "CONFIGURED"
    faults["apply"] = lost(stored)

    read = await get()
    read.status.latest_revision.name = "p-2"
    faults["status"] = lost(await resources.update_status(read))

    faults["finalizer"] = lost(await resources.set_finalizer(await get(), "a.example/b", present=True))
    (listed,) = (await resources.list("Pipeline", Query())).items
    faults["list"] = [part for part in lost(listed) if part != CONTENT]
    await store.close()

    store = await open_store(any_place.url)
    faults["open again"] = lost(await Resources(store, {}, external=resources._external).get("Pipeline", PROJECT, "p"))
    await store.close()
    failed = {name: parts for name, parts in faults.items() if parts}
    told(
        "G21",
        "what a later release wrote stays through every write of this one",
        store=any_place.name,
        trials=len(faults) * len(PARTS),
        failed=sum(map(len, failed.values())),
    )
    assert failed == {}
