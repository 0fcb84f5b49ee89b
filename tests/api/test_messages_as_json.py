"""Messages as JSON: whatever is stored can be shown, what is shown can be read back, and odd texts are refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from google.protobuf import any_pb2, duration_pb2, json_format, struct_pb2, wrappers_pb2

from api.errors import InvalidArgument
from api.gen.michelangelo.api import typed_struct_pb2
from api.gen.michelangelo.api.v2 import evaluation_report_pb2, pipeline_pb2, pipeline_run_pb2, ray_job_pb2
from api.http.exchange import as_json
from api.kinds import kinds
from api.messages import json_text
from api.messages.fill import Filler
from api.messages.json_tree import JsonTree
from api.messages.plain import plain
from tests.robustness import random_messages
from tests.robustness.random_messages import Maker

MESSAGES = 60


def read(message: Any, text: bytes) -> list[str]:
    """Fill a message from JSON and return the paths of what is wrong."""
    filler = Filler(JsonTree())
    filler.fill(message, json_text.read(text), "")
    return [fault.path for fault in filler.faults]


@pytest.mark.parametrize("kind", kinds())
def test_whatever_is_stored_is_shown_and_read_back(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The sign of a negative zero is not shown.
    signless = tuple(value for value in random_messages.FLOATS if math.copysign(1, value) > 0 or value)
    monkeypatch.setattr(random_messages, "FLOATS", signless)
    message = kinds()[kind].message
    maker = Maker(7)
    for _ in range(MESSAGES):
        stored = maker.fill(message(), 0.6)
        text = as_json(plain(stored))
        again = message()
        wrong = read(again, text)
        # A duration or a list of field names may hold what its text cannot say.
        if not wrong:
            assert json.loads(as_json(plain(again))) == json.loads(text)


def test_it_is_protobuf_json_with_kubernetes_metadata() -> None:
    run = pipeline_run_pb2.PipelineRun()
    run.metadata.name, run.metadata.generation, run.metadata.resourceVersion = "r", 3, "12"
    run.metadata.creationTimestamp.FromJsonString("2026-03-01T08:30:00.123456Z")
    run.metadata.deletionTimestamp.seconds = 1_772_353_800
    run.metadata.ownerReferences.add(kind="Pipeline", name="p", uid="u", controller=True)
    run.metadata.managedFields.add(manager="m", fieldsType="FieldsV1").fieldsV1.Raw = b'{"f:spec":{"f:kill":{}}}'
    run.spec.input.update({"rows": 5, "share": 0.25, "none": None, "deep": {"list": [True, "x"]}})
    run.status.state = pipeline_run_pb2.PIPELINE_RUN_STATE_RUNNING
    run.status.end_time.FromJsonString("2026-03-01T08:30:00.5Z")
    shown = plain(run)
    assert shown["metadata"] == {
        "name": "r",
        "resourceVersion": "12",
        "generation": 3,
        "creationTimestamp": "2026-03-01T08:30:00Z",
        "deletionTimestamp": "2026-03-01T08:30:00Z",
        "ownerReferences": [{"kind": "Pipeline", "name": "p", "uid": "u", "controller": True}],
        "managedFields": [{"manager": "m", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:kill": {}}}}],
    }
    theirs = json_format.MessageToDict(run)
    assert shown["spec"] == theirs["spec"]
    assert shown["status"] == theirs["status"] | {"endTime": "2026-03-01T08:30:00.5Z"}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (duration_pb2.Duration(seconds=1, nanos=500_000_000), "1.5s"),
        (duration_pb2.Duration(seconds=-2), "-2s"),
        (wrappers_pb2.Int64Value(value=5), "5"),
        (wrappers_pb2.DoubleValue(value=math.nan), "NaN"),
        (wrappers_pb2.DoubleValue(value=-0.0), 0.0),
        (wrappers_pb2.FloatValue(value=0.1), 0.1),
        (wrappers_pb2.BytesValue(value=b"\xff"), "/w=="),
        (struct_pb2.Value(number_value=2.0**60), 2.0**60),
        (struct_pb2.Value(number_value=3), 3),
        (any_pb2.Any(), {}),
        (any_pb2.Any(type_url="x/unknown.Type", value=b"\x01"), {"@type": "x/unknown.Type", "bytes": "AQ=="}),
    ],
)
def test_forms_of_their_own(message: Any, shown: object) -> None:
    assert plain(message) == shown
    again = type(message)()
    if shown not in ({},):
        assert read(again, as_json(shown)) == []
        assert as_json(plain(again)) == as_json(shown)


def test_an_any_is_written_by_its_type() -> None:
    manifest = pipeline_pb2.Pipeline().spec.manifest
    packed = typed_struct_pb2.TypedStruct(type_url="x")
    packed.value.update({"a": 1})
    manifest.content.Pack(packed)
    shown = plain(manifest)
    assert shown["content"] == {
        "@type": "type.googleapis.com/michelangelo.api.TypedStruct",
        "typeUrl": "x",
        "value": {"a": 1},
    }
    again = type(manifest)()
    assert read(again, as_json(shown)) == []
    assert again == manifest


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        (b'{"content": {"value": 1}}', ["content"]),
        (b'{"content": {"@type": "type.googleapis.com/no.Such"}}', ["content.@type"]),
        (b'{"content": {"@type": 5}}', ["content"]),
        (b'{"content": {"@type": "type.googleapis.com/michelangelo.api.TypedStruct", "x": 1}}', ["content.x"]),
    ],
)
def test_an_any_that_cannot_be_read_is_refused(spec: bytes, wrong: list[str]) -> None:
    assert read(pipeline_pb2.Pipeline().spec.manifest, spec) == wrong


def test_null_is_nothing_but_not_in_lists() -> None:
    run = pipeline_run_pb2.PipelineRunSpec()
    assert read(run, b'{"description": null, "pipeline": null, "input": {"a": null}, "notifications": null}') == []
    assert run.input.fields["a"].HasField("null_value")
    assert not run.HasField("pipeline")
    assert read(run, b'{"notifications": [null]}') == ["notifications[0]"]


def test_numbers_may_be_texts_as_protobuf_writes_them() -> None:
    report = evaluation_report_pb2.EvaluationReport()
    condition = ray_job_pb2.RayJob().status.status_conditions.add()
    assert read(condition, b'{"lastUpdatedTimestamp": "9223372036854775807", "observedGeneration": 5.0}') == []
    assert (condition.last_updated_timestamp, condition.observed_generation) == (2**63 - 1, 5)
    assert read(condition, b'{"lastUpdatedTimestamp": "9223372036854775808"}') == ["lastUpdatedTimestamp"]
    assert read(condition, b'{"lastUpdatedTimestamp": 1.5, "observedGeneration": true}') == [
        "lastUpdatedTimestamp",
        "observedGeneration",
    ]
    assert read(report, b"{}") == []


def test_a_fault_deep_inside_has_its_path() -> None:
    with pytest.raises(InvalidArgument) as refused:
        json_text.read(b'{"a": [{"b": {"c d": 1e400}}]}')
    (violation,) = refused.value.violations
    assert (violation.field, violation.reason, violation.value) == ("a[0].b.c d", "NOT_FINITE", "1e400")


def test_a_megabyte_is_read_soon() -> None:
    import time

    text = b'{"a": [' + b",".join([b'{"k": 1.5, "t": "x"}'] * 50_000) + b"]}"
    began = time.perf_counter()
    json_text.read(text)
    assert time.perf_counter() - began < 2
