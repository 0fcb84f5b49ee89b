"""Server-side apply over real gRPC and a real store: who holds which field, and what becomes of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.kinds import kinds
from tests.api.running import Refusal, Served, read
from tests.api.watching import SERVICE
from tests.api.workloads import pipeline

OUTCOMES = wire.ApplyResponse.Outcome


def apply(served: Served, resource: Any, manager: str = "ci", metadata: Any = (), **options: Any) -> tuple[Any, str]:
    """Apply an object; return what the server has of it and what happened."""
    request = wire.ApplyRequest(field_manager=manager, **options)
    request.object.Pack(resource)
    answer = send(served, request, metadata)
    stored = kinds()[resource.DESCRIPTOR.name].message()
    assert answer.object.Unpack(stored)
    return stored, OUTCOMES.Name(answer.outcome)


def send(served: Served, request: wire.ApplyRequest, metadata: Any = ()) -> wire.ApplyResponse:
    call: Any = served.channel.unary_unary(SERVICE + "Apply", None, wire.ApplyResponse.FromString)
    answer: wire.ApplyResponse = call(request.SerializeToString(), timeout=20, metadata=metadata)
    return answer


def conflicts(served: Served, resource: Any, manager: str) -> Refusal:
    refusal = served.refused(lambda: apply(served, resource, manager))
    assert (refusal.code, refusal.reason) == ("ABORTED", "APPLY_CONFLICT")
    return refusal


def wanted(project: str, labels: Mapping[str, str] | None = None, name: str = "train", **spec: Any) -> Any:
    new = pipeline(project, name)
    new.metadata.labels.update(labels or {})
    for field, value in spec.items():
        setattr(new.spec, field, value)
    return new


def own(resource: Any) -> dict[str, str]:
    """Return the labels that people gave."""
    return {key: value for key, value in resource.metadata.labels.items() if not key.startswith("michelangelo/")}


def test_what_is_not_there_is_created_then_configured_then_unchanged(served: Served, project: str) -> None:
    new = wanted(project, {"team": "risk"}, description="first")
    new.spec.manifest.file_path = "train"
    stored, outcome = apply(served, new)
    assert (outcome, own(stored), stored.spec.description) == ("CREATED", {"team": "risk"}, "first")
    new.spec.description = "second"
    changed, outcome = apply(served, new)
    assert (outcome, changed.spec.description, changed.metadata.generation) == ("CONFIGURED", "second", 2)
    before = served.log()
    again, outcome = apply(served, new)
    assert (outcome, again) == ("UNCHANGED", changed)
    assert served.log() == before, "nothing was written"
    assert served.get("Pipeline", project, "train") == changed


def test_managers_of_different_fields_do_not_disturb_each_other(served: Served, project: str) -> None:
    one = wanted(project, {"one": "1"}, description="mine")
    one.spec.manifest.task_specs.add(name="a", image_manifest_path="a1")
    two = wanted(project, {"two": "2"})
    two.spec.manifest.task_specs.add(name="b", image_manifest_path="b1")
    two.spec.owner.name = "ann"
    apply(served, one, "one")
    stored, _ = apply(served, two, "two")
    assert own(stored) == {"one": "1", "two": "2"}
    assert (stored.spec.description, stored.spec.owner.name) == ("mine", "ann")
    assert [(task.name, task.image_manifest_path) for task in stored.spec.manifest.task_specs] == [
        ("a", "a1"),
        ("b", "b1"),
    ]
    assert [(entry.manager, entry.operation, entry.fieldsType) for entry in stored.metadata.managedFields] == [
        ("one", "Apply", "FieldsV1"),
        ("two", "Apply", "FieldsV1"),
    ]


def test_a_field_of_another_is_a_conflict_that_names_both(served: Served, project: str) -> None:
    apply(served, wanted(project, {"team": "risk", "tier": "1"}, description="mine"), "one")
    refusal = conflicts(served, wanted(project, {"team": "fraud", "tier": "1"}, description="yours"), "two")
    assert refusal.fields == [
        ("metadata.labels[team]", "is held by 'one'"),
        ("spec.description", "is held by 'one'"),
    ]
    assert "metadata.labels[team] of 'one', spec.description of 'one'" in refusal.message


def test_force_takes_a_field_over_for_good(served: Served, project: str) -> None:
    apply(served, wanted(project, description="mine"), "one")
    stored, outcome = apply(served, wanted(project, description="yours"), "two", force=True)
    assert (outcome, stored.spec.description) == ("CONFIGURED", "yours")
    assert conflicts(served, wanted(project, description="mine"), "one").paths == ["spec.description"]


def test_equal_values_are_shared_and_stay_until_nobody_declares_them(served: Served, project: str) -> None:
    both = wanted(project, {"team": "risk"}, description="ours")
    apply(served, both, "one")
    apply(served, both, "two")
    left, _ = apply(served, wanted(project), "one")
    assert (own(left), left.spec.description) == ({"team": "risk"}, "ours")
    gone, _ = apply(served, wanted(project), "two")
    assert (own(gone), gone.spec.description) == ({}, "")


def test_what_is_no_longer_declared_is_taken_away_and_nothing_else(served: Served, project: str) -> None:
    new = wanted(project, {"a": "1", "b": "2"}, description="words")
    for name in "abc":
        new.spec.manifest.task_specs.add(name=name)
    new.spec.manifest.params_map["nightly"].workflow_config.update({"deep": {"x": 1, "y": 2}})
    apply(served, new)
    del new.metadata.labels["a"]
    del new.spec.manifest.task_specs[1]
    del new.spec.manifest.params_map["nightly"].workflow_config["deep"]["x"]
    stored, _ = apply(served, new)
    assert own(stored) == {"b": "2"}
    assert [task.name for task in stored.spec.manifest.task_specs] == ["a", "c"]
    assert dict(stored.spec.manifest.params_map["nightly"].workflow_config["deep"]) == {"y": 2}
    assert stored.spec.description == "words"


def test_items_come_to_stand_in_the_order_in_which_they_are_declared(served: Served, project: str) -> None:
    def tasks(names: str) -> Any:
        new = wanted(project)
        for name in names:
            new.spec.manifest.task_specs.add(name=name)
        return new

    apply(served, tasks("abc"), "one")
    apply(served, tasks("cx"), "two")
    stored, outcome = apply(served, tasks("cba"), "one")
    assert (outcome, [task.name for task in stored.spec.manifest.task_specs]) == ("CONFIGURED", list("cxba"))
    assert apply(served, tasks("cba"), "one")[1] == "UNCHANGED"


def test_what_was_written_before_anybody_declared_is_protected(served: Served, project: str) -> None:
    made = pipeline(project)
    made.spec.description = "by hand"
    served.create(made)
    assert conflicts(served, wanted(project, description="declared"), "ci").fields == [
        ("spec.description", "is held by 'before-first-apply'")
    ]
    stored, _ = apply(served, wanted(project, {"team": "risk"}), "ci")
    assert (stored.spec.description, stored.spec.manifest.file_path) == ("by hand", "train")


def test_an_update_between_takes_its_fields_and_keeps_the_managers(served: Served, project: str) -> None:
    stored, _ = apply(served, wanted(project, {"team": "risk"}, description="declared"), "ci")
    stored.spec.description = "by hand"
    del stored.metadata.managedFields[:]
    updated = served.update(stored)
    assert {entry.manager for entry in updated.metadata.managedFields} > {"ci"}
    refusal = conflicts(served, wanted(project, {"team": "risk"}, description="declared"), "ci")
    assert refusal.paths == ["spec.description"]
    again, _ = apply(served, wanted(project, {"team": "risk"}, description="declared"), "ci", force=True)
    assert again.spec.description == "declared"


def test_one_of_several_choices_cannot_be_set_beside_anothers(served: Served, project: str) -> None:
    cron = wanted(project)
    cron.spec.manifest.trigger_map["nightly"].cron_schedule.cron = "0 3 * * *"
    interval = wanted(project)
    interval.spec.manifest.trigger_map["nightly"].interval_schedule.interval.seconds = 3600
    apply(served, cron, "one")
    assert conflicts(served, interval, "two").paths == ["spec.manifest.trigger_map[nightly].cron_schedule.cron"]
    stored, _ = apply(served, interval, "two", force=True)
    assert stored.spec.manifest.trigger_map["nightly"] == interval.spec.manifest.trigger_map["nightly"]


def test_the_status_is_never_applied(served: Served, project: str) -> None:
    new = wanted(project, description="words")
    new.status.error_message = "mine"
    stored, _ = apply(served, new)
    assert stored.status.error_message == ""
    stored.status.error_message = "of the controller"
    served.run(served.resources.update_status(stored))
    kept, outcome = apply(served, new)
    assert (kept.status.error_message, outcome) == ("of the controller", "UNCHANGED")


def test_a_dry_run_answers_and_stores_nothing(served: Served, project: str) -> None:
    before = served.log()
    stored, outcome = apply(served, wanted(project, description="words"), dry_run=True)
    assert (outcome, stored.spec.description, served.log()) == ("CREATED", "words", before)
    apply(served, wanted(project, description="words"))
    before = served.log()
    stored, outcome = apply(served, wanted(project, description="others"), dry_run=True)
    assert (outcome, stored.spec.description, served.log()) == ("CONFIGURED", "others", before)


def test_a_named_version_or_uid_must_be_the_stored_one(served: Served, project: str) -> None:
    stored, _ = apply(served, wanted(project, description="words"))
    new = wanted(project, description="others")
    new.metadata.resourceVersion = str(int(stored.metadata.resourceVersion) - 1)
    assert served.refused(lambda: apply(served, new)).reason == "CONFLICT"
    new.metadata.resourceVersion = stored.metadata.resourceVersion
    new.metadata.uid = str(uuid.uuid4())
    assert served.refused(lambda: apply(served, new)).reason == "CONFLICT"
    new.metadata.uid = stored.metadata.uid
    assert apply(served, new)[1] == "CONFIGURED"


def test_a_repeated_request_has_one_effect(served: Served, project: str) -> None:
    named = (("x-request-id", str(uuid.uuid4())),)
    first, outcome = apply(served, wanted(project, description="one"), metadata=named)
    assert outcome == "CREATED"
    apply(served, wanted(project, description="two"))
    before = served.log()
    again, outcome = apply(served, wanted(project, description="one"), metadata=named)
    assert (again, outcome) == (first, "CREATED")
    assert served.log() == before
    with pytest.raises(grpc.RpcError) as error:
        apply(served, wanted(project, description="three"), metadata=named)
    assert read(error.value).reason == "REQUEST_ID_REUSED"


def test_managers_that_apply_at_the_same_time_all_get_their_fields(served: Served, project: str) -> None:
    def one(number: int) -> None:
        apply(served, wanted(project, {f"l{number}": str(number)}), f"manager-{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(24)))
    stored = served.get("Pipeline", project, "train")
    assert own(stored) == {f"l{number}": str(number) for number in range(24)}


@pytest.mark.parametrize(
    ("change", "reason", "paths"),
    [
        ({"field_manager": ""}, "INVALID_FIELDS", ["field_manager"]),
        ({"field_manager": "x" * 129}, "INVALID_FIELDS", ["field_manager"]),
        ({"field_manager": "a\nb"}, "INVALID_FIELDS", ["field_manager"]),
        ({"object": None}, "MISSING_FIELD", ["object"]),
        ({"object": wire.WatchRequest()}, "UNKNOWN_KIND", ["object"]),
        ({"object": b"\xff\xff"}, "BAD_MESSAGE", ["object"]),
        ({"name": ""}, "BAD_NAME", ["metadata.name"]),
        ({"managed": True}, "INVALID_FIELDS", ["metadata.managedFields"]),
        ({"name": "Upper"}, "BAD_NAME", ["metadata.name"]),
    ],
)
def test_what_cannot_be_declared_is_refused_with_its_field(
    served: Served, project: str, change: Mapping[str, Any], reason: str, paths: list[str]
) -> None:
    request = wire.ApplyRequest(field_manager=change.get("field_manager", "ci"))
    new = wanted(project, description="words")
    new.metadata.name = change.get("name", "train")
    if "managed" in change:
        new.metadata.managedFields.add(manager="me")
    given = change.get("object", new)
    if given is not None:
        request.object.Pack(given if not isinstance(given, bytes) else new)
    if isinstance(given, bytes):
        request.object.value = given
    refusal = served.refused(lambda: send(served, request))
    assert (refusal.code, refusal.reason, refusal.paths) == ("INVALID_ARGUMENT", reason, paths)
