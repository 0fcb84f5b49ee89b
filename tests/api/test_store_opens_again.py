"""A store that was written opens again: its check of itself has no false alarms."""

from pathlib import Path

from api.kinds import kinds
from api.resources import Resources
from api.store.base import Key
from api.store.sqlite import SqliteStore


async def test_a_store_with_owners_labels_and_fields_opens_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    resources = Resources(store)
    project = kinds()["Project"].new("shop", "shop")
    project.spec.description, project.spec.tier = "A shop", 2
    project.spec.owner.owning_team = "9b4f7a2c-0000-4000-8000-000000000001"
    await resources.create(project)
    family = kinds()["ModelFamily"].new("shop", "late")
    family.spec.name = "late"
    family.metadata.labels["team"] = "a"
    parent = await resources.create(family)
    for number in range(3):
        child = kinds()["ModelFamily"].new("shop", f"child-{number}")
        child.spec.name = f"child-{number}"
        owner = child.metadata.ownerReferences.add()
        owner.kind, owner.name, owner.uid = "ModelFamily", "late", parent.metadata.uid
        await resources.create(child)
    await store.close()
    again = SqliteStore(tmp_path / "store.db")
    try:
        assert (await again.get(Key("ModelFamily", "shop", "child-2"))).metadata.ownerReferences[0].name == "late"
    finally:
        await again.close()
