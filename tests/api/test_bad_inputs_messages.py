"""Bytes and values that are no message of this API: refused by name; the connection stays usable."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import grpc
import psutil
import pytest

from api.gen.michelangelo.api.v2 import project_pb2
from api.kinds import kinds
from api.workflows import typed
from tests.api import wire_bytes
from tests.api.running import Served, read, request_of
from tests.api.wire_bytes import field

KINDS = sorted(kinds())
FEW_BYTES = {"compression": grpc.Compression.Gzip}


def run_of(project: str) -> Any:
    run = kinds()["PipelineRun"].new(project, "run")
    run.spec.pipeline.name = "train"
    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["Create", "Get", "Update", "Delete", "DeleteCollection", "List"])
def test_bytes_that_are_no_message_are_a_bad_message(served: Served, kind: str, verb: str) -> None:
    refusal = served.refused(lambda: served.raw(kind, verb, b"\xff\xff\xff"))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "BAD_MESSAGE")
    assert kinds()[kind].method(verb).input_type.name in refusal.message
    assert refusal.request_id


def test_a_connection_stays_usable_after_300_bad_messages(served: Served, project: str) -> None:
    seed = random.Random(7)
    for _ in range(300):
        with pytest.raises(grpc.RpcError) as refused:
            served.raw("Pipeline", "Create", b"\x0a\xff" + seed.randbytes(seed.randrange(40)))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert served.get("Project", project, project).metadata.name == project


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_of_another_type_is_refused(served: Served, project: str, kind: str) -> None:
    other = request_of("Pipeline", "List", namespace=project).SerializeToString()
    refusal = served.refused(lambda: served.raw(kind, "Create", other))
    assert refusal.code == "INVALID_ARGUMENT"
    assert refusal.reason in ("BAD_MESSAGE", "BAD_TEXT", "MISSING_FIELD", "BAD_NAME", "INVALID_FIELDS")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["Create", "Update"])
def test_a_write_without_an_object_names_the_missing_field(served: Served, kind: str, verb: str) -> None:
    refusal = served.refused(lambda: served.raw(kind, verb, b""))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "MISSING_FIELD")
    assert refusal.paths == [kinds()[kind].singular]


def test_unknown_field_numbers_are_kept(served: Served, project: str) -> None:
    unknown = field(999, b"of a later release")
    served.raw("ModelFamily", "Create", wire_bytes.create(project, spec=field(1, b"family") + unknown))
    stored = served.get("ModelFamily", project, "m")
    assert unknown in stored.SerializeToString()
    stored.spec.description = "changed"
    assert unknown in served.update(stored).SerializeToString()


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        (field(wire_bytes.METADATA_NAME, b"\xff\xfe"), "metadata.name"),
        (field(wire_bytes.METADATA_LABELS, field(1, b"team") + field(2, b"\xc3\x28")), "metadata.labels[team]"),
        (field(wire_bytes.METADATA_LABELS, field(1, b"\xed\xa0\x80") + field(2, b"x")), "metadata.labels"),
        (field(14, b"\xff"), "metadata.finalizers[0]"),
    ],
    ids=["name", "label value", "label key that is a lone surrogate", "finalizer"],
)
def test_text_that_is_not_utf8_is_named(served: Served, project: str, metadata: bytes, path: str) -> None:
    refusal = served.refused(lambda: served.raw("ModelFamily", "Create", wire_bytes.create(project, metadata=metadata)))
    assert (refusal.code, refusal.reason, refusal.paths) == ("INVALID_ARGUMENT", "BAD_TEXT", [path])


def test_spec_text_that_is_not_utf8_is_refused(served: Served, project: str) -> None:
    body = wire_bytes.create(project, spec=field(2, b"\xff"))
    refusal = served.refused(lambda: served.raw("ModelFamily", "Create", body))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "BAD_TEXT")


def test_a_list_option_that_is_not_utf8_is_refused(served: Served) -> None:
    body = field(2, field(1, b"\xff"))
    refusal = served.refused(lambda: served.raw("ModelFamily", "List", body))
    assert (refusal.reason, refusal.paths) == ("BAD_TEXT", ["list_options.labelSelector"])


def test_every_nul_character_is_named_at_once(served: Served, project: str) -> None:
    family = kinds()["ModelFamily"].new(project, "nul")
    family.metadata.labels["team"] = "a\0b"
    family.metadata.annotations["note\0"] = "x"
    family.spec.description = "a\0"
    refusal = served.refused(lambda: served.create(family))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "BAD_TEXT")
    assert sorted(refusal.paths) == ["metadata.annotations", "metadata.labels[team]", "spec.description"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e400])
def test_a_parameter_that_is_not_finite_is_named(served: Served, project: str, value: float) -> None:
    run = run_of(project)
    run.spec.input.update({"kw_args": {"rate": value, "rates": [1.0, value], "fine": -0.0}})
    refusal = served.refused(lambda: served.create(run))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "NOT_FINITE")
    assert sorted(refusal.paths) == ["spec.input.kw_args.rate", "spec.input.kw_args.rates[1]"]


def test_a_template_value_that_is_not_finite_is_named(served: Served, project: str) -> None:
    pipeline = kinds()["Pipeline"].new(project, "train")
    template = typed("michelangelo.airflow/Template", {"rate": float("nan"), "text": "a\0"})
    pipeline.spec.manifest.content.Pack(template)
    refusal = served.refused(lambda: served.create(pipeline))
    assert refusal.code == "INVALID_ARGUMENT"
    assert sorted(refusal.paths) == ["spec.manifest.content.value.rate", "spec.manifest.content.value.text"]


@pytest.mark.parametrize("levels", [40, 2_000])
def test_nesting_that_is_too_deep_is_refused(served: Served, project: str, levels: int) -> None:
    body = wire_bytes.create(project, spec=field(4, wire_bytes.nested_struct(levels)))
    refusal = served.refused(lambda: served.raw("PipelineRun", "Create", body))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "TOO_DEEP")


def test_nesting_hidden_in_any_is_refused(served: Served, project: str) -> None:
    body = wire_bytes.create(project, spec=field(2, field(4, wire_bytes.any_in_any(1_000))))
    refusal = served.refused(lambda: served.raw("Pipeline", "Create", body))
    assert (refusal.reason, refusal.paths) == ("TOO_DEEP", ["spec.manifest.content"])


def test_an_any_whose_bytes_are_not_its_type_is_refused(served: Served, project: str) -> None:
    pipeline = kinds()["Pipeline"].new(project, "train")
    pipeline.spec.manifest.content.type_url = "type.googleapis.com/michelangelo.api.TypedStruct"
    pipeline.spec.manifest.content.value = b"\xff\xff"
    refusal = served.refused(lambda: served.create(pipeline))
    assert (refusal.reason, refusal.paths) == ("BAD_MESSAGE", ["spec.manifest.content"])


@pytest.mark.parametrize(
    ("body", "options"),
    [(b"\0" * (5 * 2**20), {}), (b"\0" * (50 * 2**20), FEW_BYTES)],
    ids=["5 MiB", "50 MiB of which few bytes are sent"],
)
def test_what_is_larger_than_4_mib_is_refused_and_the_connection_stays(
    served: Served, project: str, body: bytes, options: dict[str, Any]
) -> None:
    before = psutil.Process().memory_info().rss
    refusal = served.refused(lambda: served.raw("PipelineRun", "Create", body, **options))
    assert refusal.code == "RESOURCE_EXHAUSTED"
    assert psutil.Process().memory_info().rss - before < 50 * 2**20
    assert served.get("Project", project, project).metadata.name == project


def long_name(served: Served, project: str) -> object:
    return served.get("Project", project, "x" * 1_000_000)


def long_project(served: Served, project: str) -> object:
    return served.get("Pipeline", "é" * 1_000_000, "x")


def long_reference(served: Served, project: str) -> object:
    run = run_of(project)
    run.spec.pipeline.name = "x" * 1_000_000
    return served.create(run)


def long_map_key(served: Served, project: str) -> object:
    pipeline = kinds()["Pipeline"].new(project, "train")
    pipeline.spec.manifest.trigger_map["x" * 1_000_000].cron_schedule.cron = "bad"
    return served.create(pipeline)


def many_faults(served: Served, project: str) -> object:
    pipeline = kinds()["Pipeline"].new(project, "train")
    steps = [{"name": f"größe {number}", "operator": "train"} for number in range(2_000)]
    pipeline.spec.manifest.content.Pack(typed("michelangelo.airflow/Steps", {"steps": steps}))
    return served.create(pipeline)


@pytest.mark.parametrize("call", [long_name, long_project, long_reference, long_map_key, many_faults])
def test_a_refusal_fits_into_what_clients_read(
    served: Served, project: str, call: Callable[[Served, str], object]
) -> None:
    refusal = served.refused(lambda: call(served, project))
    assert refusal.code in ("NOT_FOUND", "INVALID_ARGUMENT")
    assert refusal.reason
    assert refusal.request_id
    if call is many_faults:
        assert refusal.fields[-1][0] == "*"
        assert len(refusal.fields) - 1 + int(refusal.fields[-1][1].split()[1]) == 2_000


def test_violations_that_fit_are_all_told(served: Served) -> None:
    project = kinds()["Project"].new("Wrong Name", "Other")
    project.spec.tier = 9
    project.spec.owner.owning_team = "nobody"
    project.spec.commit.SetInParent()
    refusal = served.refused(lambda: served.create(project))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert sorted(refusal.paths) == [
        "metadata.name",
        "metadata.namespace",
        "spec.commit.branch",
        "spec.commit.git_ref",
        "spec.owner.owning_team",
        "spec.tier",
    ]
    assert all(path in refusal.message for path in refusal.paths)


@pytest.mark.parametrize("timeout_s", [-1.0, -1e9])
def test_a_passed_deadline_has_no_effect(served: Served, project: str, timeout_s: float) -> None:
    family = kinds()["ModelFamily"].new(project, "late")
    body = request_of("ModelFamily", "Create", model_family=family).SerializeToString()
    refusal = served.refused(lambda: served.raw("ModelFamily", "Create", body, timeout_s=timeout_s))
    assert refusal.code == "DEADLINE_EXCEEDED"
    assert not served.list("ModelFamily", project).items


def test_a_short_deadline_leaves_a_whole_object_or_none(served: Served, project: str) -> None:
    for number in range(50):
        family = kinds()["ModelFamily"].new(project, f"hurried-{number}")
        body = request_of("ModelFamily", "Create", model_family=family).SerializeToString()
        try:
            served.raw("ModelFamily", "Create", body, timeout_s=0.000_5)
        except grpc.RpcError as error:
            assert read(error).code == "DEADLINE_EXCEEDED"  # noqa: PT017 - both outcomes are right
    # What has begun is finished, whether or not its caller waits.
    time.sleep(0.2)
    stored = served.list("ModelFamily", project).items
    assert all(item.metadata.uid and item.metadata.resourceVersion for item in stored)


def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    sent: Any = served.channel.unary_unary("/michelangelo.api.v2.ProjectService/DropEverything")
    with pytest.raises(grpc.RpcError) as refused:
        sent(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_callers_request_id_comes_back(served: Served) -> None:
    refusal = served.refused(lambda: served.raw("Project", "Get", b"", metadata=(("x-request-id", "mine"),)))
    assert refusal.request_id == "mine"


@pytest.mark.parametrize("given", ["x" * 1_000, ""])
def test_a_request_id_that_is_too_long_is_replaced(served: Served, given: str) -> None:
    refusal = served.refused(lambda: served.raw("Project", "Get", b"", metadata=(("x-request-id", given),)))
    assert 0 < len(refusal.request_id) <= 128


def test_random_changes_of_a_good_message_never_break_the_server(served: Served, project: str) -> None:
    seed = random.Random(20261121)
    new = kinds()["Project"].new(project, project)
    new.spec.CopyFrom(project_pb2.ProjectSpec(description="d", tier=3, supporting_links={"a": "b"}))
    new.metadata.labels["a"] = "b"
    good = request_of("Project", "Create", project=new, create_options={"dryRun": ["All"]}).SerializeToString()
    before, codes = served.log(), set()
    for _ in range(2_000):
        body = bytearray(good)
        for _ in range(seed.randint(1, 4)):
            body[seed.randrange(len(body))] = seed.randrange(256)
        del body[seed.randint(len(body) // 2, len(body)) :]
        try:
            served.raw("Project", "Create", bytes(body) + field(2, field(1, b"All")))
        except grpc.RpcError as error:
            codes.add(error.code())
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS}
    assert served.log() == before
