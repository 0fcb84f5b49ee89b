"""Updates and deletes that may not be: stale or senseless versions, immutable fields, owners that do not exist."""

from __future__ import annotations

import time
from typing import Any

import pytest

from api.admission import LARGEST_BYTES, MOST_OWNERS
from api.kinds import kinds
from api.store.base import Write
from tests.api.running import ANSWER_S, Served, request_of

IMMUTABLE = [kind.name for kind in kinds().values() if kind.immutable]


@pytest.fixture
def family(served: Served, project: str) -> Any:
    new = kinds()["ModelFamily"].new(project, "family")
    new.spec.description = "first"
    return served.create(new)


def owned(owner: Any, called: str, **differs: str) -> Any:
    """Return a new family that `owner` owns."""
    new = kinds()["ModelFamily"].new(owner.metadata.namespace, called)
    fields = {"kind": owner.DESCRIPTOR.name, "name": owner.metadata.name, "uid": owner.metadata.uid} | differs
    new.metadata.ownerReferences.add(**fields)
    return new


def test_a_stale_version_is_refused_with_both(served: Served, family: Any) -> None:
    newer = type(family).FromString(family.SerializeToString())
    newer.spec.description = "second"
    newer = served.update(newer)
    family.spec.description = "third"
    refusal = served.refused(lambda: served.update(family))
    assert (refusal.code, refusal.reason) == ("ABORTED", "CONFLICT")
    assert newer.metadata.resourceVersion in refusal.message
    assert f"not {family.metadata.resourceVersion}" in refusal.message
    assert served.get("ModelFamily", family.metadata.namespace, "family") == newer


def test_the_version_of_another_object_is_refused(served: Served, project: str, family: Any) -> None:
    other = served.create(kinds()["ModelFamily"].new(project, "other"))
    family.metadata.resourceVersion, family.spec.description = other.metadata.resourceVersion, "x"
    refusal = served.refused(lambda: served.update(family))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "BAD_RESOURCE_VERSION")
    assert refusal.paths == ["metadata.resourceVersion"]


def test_a_version_that_nothing_ever_had_is_refused(served: Served, family: Any) -> None:
    family.metadata.resourceVersion, family.spec.description = str(10**15), "x"
    assert served.refused(lambda: served.update(family)).reason == "BAD_RESOURCE_VERSION"


def test_the_version_of_an_earlier_change_of_another_object_is_refused(
    served: Served, project: str, family: Any
) -> None:
    other = served.create(kinds()["ModelFamily"].new(project, "other"))
    family.spec.description = "newer than the other's version"
    newer = served.update(family)
    newer.metadata.resourceVersion, newer.spec.description = other.metadata.resourceVersion, "x"
    assert served.refused(lambda: served.update(newer)).reason == "BAD_RESOURCE_VERSION"


@pytest.mark.parametrize("version", ["abc", "-1", "1.0", "0x1", "１", " 1", "9" * 5_000, "1; DROP TABLE object"])
def test_a_version_that_is_none_is_refused(served: Served, project: str, family: Any, version: str) -> None:
    family.metadata.resourceVersion, family.spec.description = version, "x"
    refusal = served.refused(lambda: served.update(family))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "BAD_RESOURCE_VERSION")
    assert refusal.paths == ["metadata.resourceVersion"]
    refusal = served.refused(
        lambda: served.delete("ModelFamily", project, "family", preconditions={"resourceVersion": version})
    )
    assert (refusal.reason, refusal.paths) == ("BAD_RESOURCE_VERSION", ["delete_options.preconditions.resourceVersion"])


def test_an_update_without_a_version_is_refused_unless_it_is_forced(served: Served, family: Any) -> None:
    stale = type(family).FromString(family.SerializeToString())
    family.spec.description = "second"
    served.update(family)
    for version in ("", stale.metadata.resourceVersion):
        stale.metadata.resourceVersion, stale.spec.description = version, f"forced over {version}"
        refusal = served.refused(lambda: served.update(stale))
        assert refusal.reason == ("CONFLICT" if version else "ETAG_REQUIRED")
        request = request_of("ModelFamily", "Update", model_family=stale).SerializeToString()
        served.raw("ModelFamily", "Update", request, metadata=(("x-force", "true"),))
        assert served.get("ModelFamily", family.metadata.namespace, "family").spec == stale.spec


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("metadata.uid", lambda item: setattr(item.metadata, "uid", "00000000-0000-4000-8000-000000000000")),
        ("metadata.creationTimestamp", lambda item: setattr(item.metadata.creationTimestamp, "seconds", 1)),
    ],
)
def test_what_the_server_sets_cannot_be_changed(served: Served, family: Any, field: str, change: Any) -> None:
    before = type(family).FromString(family.SerializeToString())
    change(family)
    refusal = served.refused(lambda: served.update(family))
    assert (refusal.code, refusal.reason, refusal.paths) == ("INVALID_ARGUMENT", "IMMUTABLE_FIELD", [field])
    assert served.get("ModelFamily", family.metadata.namespace, "family") == before


def test_all_immutable_fields_are_told_at_once(served: Served, project: str) -> None:
    new = kinds()["Model"].new(project, "model")
    model = served.create(new)
    model.metadata.uid, model.metadata.creationTimestamp.seconds, model.spec.algorithm = "other", 1, "changed"
    refusal = served.refused(lambda: served.update(model))
    assert refusal.paths == ["metadata.uid", "metadata.creationTimestamp", "spec"]


@pytest.mark.parametrize("kind", IMMUTABLE)
def test_the_spec_of_an_immutable_kind_never_changes(served: Served, project: str, kind: str) -> None:
    new = kinds()[kind].new(project, "once")
    for oneof in new.spec.DESCRIPTOR.oneofs:
        getattr(new.spec, oneof.fields[0].name).SetInParent()
    if kind == "Event":
        new.spec.name = "orders.loaded"
    stored = served.create(new)
    text = next(field for field in stored.spec.DESCRIPTOR.fields if field.type == field.TYPE_STRING)
    setattr(stored.spec, text.name, "changed")
    refusal = served.refused(lambda: served.update(stored))
    assert (refusal.reason, refusal.paths) == ("IMMUTABLE_FIELD", ["spec"])
    again = served.get(kind, project, "once")
    again.metadata.labels["team"] = "a"
    assert served.update(again).metadata.labels["team"] == "a"
    assert served.get(kind, project, "once").metadata.generation == 1


def test_what_is_not_there_cannot_be_updated_or_deleted(served: Served, project: str) -> None:
    for call in (
        lambda: served.update(kinds()["ModelFamily"].new(project, "none")),
        lambda: served.delete("ModelFamily", project, "none"),
        lambda: served.get("ModelFamily", project, "none"),
    ):
        refusal = served.refused(call)
        assert (refusal.code, refusal.reason) == ("NOT_FOUND", "NOT_FOUND")


def test_status_and_server_fields_of_a_client_are_never_stored(served: Served, project: str) -> None:
    new = kinds()["Pipeline"].new(project, "train")
    new.spec.manifest.file_path = "train"
    new.status.state, new.status.error_message = 3, "all is well"
    new.metadata.uid, new.metadata.resourceVersion, new.metadata.generation = "mine", "77", 9
    new.metadata.creationTimestamp.seconds = new.metadata.deletionTimestamp.seconds = 1
    new.metadata.labels["michelangelo/UpdateTimestamp"] = "never"
    stored = served.create(new)
    assert not stored.status.ListFields()
    assert stored.metadata.uid != "mine"
    assert (stored.metadata.generation, stored.metadata.HasField("deletionTimestamp")) == (1, False)
    assert stored.metadata.creationTimestamp.seconds > 1
    assert stored.metadata.labels["michelangelo/UpdateTimestamp"].isdigit()
    stored.status.state, stored.metadata.generation = 3, 9
    stored.metadata.deletionTimestamp.seconds = 1
    stored.metadata.labels["michelangelo/UpdateTimestamp"] = "never"
    before = served.log()
    again = served.update(stored)
    assert served.log() == before, "an update that changes nothing writes nothing"
    assert not again.status.ListFields()
    assert not again.metadata.HasField("deletionTimestamp")


@pytest.mark.parametrize(
    "differs",
    [
        {"uid": "00000000-0000-4000-8000-000000000000"},
        {"uid": ""},
        {"name": "nobody"},
        {"kind": "Pipeline"},
        {"kind": "Pod"},
        {"kind": ""},
    ],
)
def test_an_owner_that_does_not_exist_is_refused(served: Served, family: Any, differs: dict[str, str]) -> None:
    refusal = served.refused(lambda: served.create(owned(family, "child", **differs)))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "BAD_OWNER")
    assert refusal.paths[0].startswith("metadata.ownerReferences[0]")


def test_an_owner_in_another_project_is_refused(served: Served, family: Any) -> None:
    child = owned(family, "child")
    child.metadata.namespace = served.project()
    assert served.refused(lambda: served.create(child)).reason == "BAD_OWNER"


def test_every_bad_owner_is_told_at_once(served: Served, family: Any) -> None:
    child = owned(family, "child", name="nobody")
    child.metadata.ownerReferences.add(kind="Pod", name="x", uid="y")
    refusal = served.refused(lambda: served.create(child))
    assert refusal.paths == ["metadata.ownerReferences[0]", "metadata.ownerReferences[1].kind"]


def test_nothing_owns_itself(served: Served, family: Any) -> None:
    family.metadata.ownerReferences.add(kind="ModelFamily", name="family", uid=family.metadata.uid)
    refusal = served.refused(lambda: served.update(family))
    assert (refusal.reason, refusal.paths) == ("BAD_OWNER", ["metadata.ownerReferences[0]"])


def test_owners_in_a_circle_are_refused(served: Served, family: Any) -> None:
    middle = served.create(owned(family, "middle"))
    last = served.create(owned(middle, "last"))
    family.metadata.ownerReferences.add(kind="ModelFamily", name="last", uid=last.metadata.uid)
    refusal = served.refused(lambda: served.update(family))
    assert refusal.reason == "BAD_OWNER"
    assert "circle" in refusal.message


def test_many_ways_to_the_same_owner_are_looked_at_once(served: Served, family: Any) -> None:
    above = [family]
    for level in range(18):
        layer = []
        for side in "ab":
            new = kinds()["ModelFamily"].new(family.metadata.namespace, f"l{level}{side}")
            for owner in above:
                new.metadata.ownerReferences.add(kind="ModelFamily", name=owner.metadata.name, uid=owner.metadata.uid)
            layer.append(served.run(served.store.create(_write(new, level, side))))
        above = layer
    other, began = served.create(kinds()["ModelFamily"].new(family.metadata.namespace, "other")), time.monotonic()
    for changed in (other, family):
        changed.metadata.ownerReferences.add(kind="ModelFamily", name=above[0].metadata.name, uid=above[0].metadata.uid)
    served.update(other)
    assert time.monotonic() - began < ANSWER_S
    assert served.refused(lambda: served.update(family)).reason == "BAD_OWNER"


def test_a_crowd_of_owners_is_refused(served: Served, family: Any) -> None:
    for number in range(MOST_OWNERS + 1):
        family.metadata.ownerReferences.add(kind="ModelFamily", name=f"o{number}", uid="x")
    refusal = served.refused(lambda: served.update(family))
    assert (refusal.reason, refusal.paths) == ("BAD_OWNER", ["metadata.ownerReferences"])


def _write(new: Any, level: int, side: str) -> Any:
    new.metadata.uid = f"{level}{side}-{new.metadata.namespace}"
    return Write(new)


@pytest.mark.parametrize("options", [{"preconditions": {"uid": "other"}}, {"preconditions": {"resourceVersion": "1"}}])
def test_a_delete_with_wrong_preconditions_is_refused(served: Served, project: str, family: Any, options: Any) -> None:
    refusal = served.refused(lambda: served.delete("ModelFamily", project, "family", **options))
    assert (refusal.code, refusal.reason) == ("ABORTED", "CONFLICT")
    assert served.get("ModelFamily", project, "family") == family


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"propagationPolicy": "Never"}, "delete_options.propagationPolicy"),
        ({"dryRun": ["Some"]}, "delete_options.dryRun"),
    ],
)
def test_an_unknown_delete_option_is_refused(
    served: Served, project: str, family: Any, options: dict[str, Any], path: str
) -> None:
    refusal = served.refused(lambda: served.delete("ModelFamily", project, "family", **options))
    assert (refusal.code, refusal.paths) == ("INVALID_ARGUMENT", [path])


def test_an_unknown_dry_run_is_refused(served: Served, family: Any) -> None:
    for call, path in (
        (lambda: served.create(kinds()["ModelFamily"].new("x", "x"), dryRun=["Some"]), "create_options.dryRun"),
        (lambda: served.update(family, dryRun=["All", "Some"]), "update_options.dryRun"),
    ):
        assert served.refused(call).paths == [path]


def test_a_collection_needs_a_project(served: Served) -> None:
    refusal = served.refused(lambda: served.call("ModelFamily", "DeleteCollection"))
    assert (refusal.code, refusal.paths) == ("INVALID_ARGUMENT", ["namespace"])


@pytest.mark.parametrize("part", ["spec", "metadata"])
def test_an_object_that_is_too_large_is_refused_with_the_part_that_is(served: Served, family: Any, part: str) -> None:
    def grown(item: Any) -> Any:
        if part == "spec":
            item.spec.description = "x" * LARGEST_BYTES
        else:
            item.metadata.annotations["note"] = "x" * LARGEST_BYTES
        return item

    new = grown(kinds()["ModelFamily"].new(family.metadata.namespace, "large"))
    for call in (lambda: served.create(new), lambda: served.update(grown(family))):
        refusal = served.refused(call)
        assert (refusal.code, refusal.reason, refusal.paths) == ("RESOURCE_EXHAUSTED", "TOO_LARGE", [part])


def test_a_large_status_keeps_nobody_from_changing_the_object(served: Served, project: str) -> None:
    pipeline = kinds()["Pipeline"].new(project, "train")
    pipeline.spec.manifest.file_path, pipeline.spec.description = "train", "x" * (LARGEST_BYTES - 10_000)
    stored = served.create(pipeline)
    run = kinds()["PipelineRun"].new(project, "run")
    run.spec.pipeline.name, run.spec.description = "train", "y" * (LARGEST_BYTES - 10_000)
    made = served.create(run)
    made.status.source_pipeline.pipeline.CopyFrom(stored)
    made = served.run(served.resources.update_status(made))
    made.spec.kill = True
    assert served.update(made).spec.kill
    assert len(served.list("PipelineRun", project).items) == 1


def test_a_revision_has_room_for_the_largest_object(served: Served, project: str) -> None:
    pipeline = kinds()["Pipeline"].new(project, "train")
    pipeline.spec.manifest.file_path, pipeline.spec.description = "train", "x" * (LARGEST_BYTES - 1_000)
    revision = kinds()["Revision"].new(project, "train-1")
    revision.spec.content.Pack(served.create(pipeline))
    revision.spec.source, revision.spec.revision_id = "train", "1"
    assert served.create(revision).metadata.uid
