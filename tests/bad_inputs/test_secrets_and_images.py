"""Rows 48 and 50: a secret as a parameter, an image that may change; alike on every surface, and never echoed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from api.inline_secrets import NO_SECRETS, secret_faults
from api.kinds import kinds
from api.uniflow import GRAPH_TYPE
from api.workflows import STEPS_TYPE, TEMPLATE_TYPE, typed
from tests.api import workloads
from tests.bad_inputs.objects import everywhere
from tests.bad_inputs.surfaces import Case, Surfaces

PASSWORD = "correct-horse"
DIGEST = f"sha256:{'0' * 64}"
KEYS = {
    "cloud": "AKIAIOSFODNN7EXAMPLE",
    "forge": "ghp_" + "0aB" * 12,
    "signed": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmVk",
    "address": "postgresql://ann:correct-horse@db.example/flights",
    "drawn by chance": "kX9vQ2mT7pL4wZ8rB3nY6cJ1hF5dG0sA",
    "block": "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
}
HARMLESS = {
    "digest": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
    "uid": "aa8ad9bf-297b-4731-bc71-649e89ba3614",
    "path": "s3://bucket/Flights2013/train/Part00001OfTheWhole.parquet",
    "max_tokens": "1000",
    "pad_token": "[PAD]",
    "join_key": "flight_id1234",
    "password_file": "/run/secrets/db",
    "template": "{{ 7*7 }} $(id) %(x)s",
}


def document(here: Surfaces, kind: str, spec: Mapping[str, Any], **metadata: Any) -> dict[str, Any]:
    """Return the document of a resource of its own name."""
    names = {"name": f"s-{uuid.uuid4().hex[:8]}", "namespace": here.project}
    return {"apiVersion": kinds()[kind].group_version, "kind": kind, "metadata": names | metadata, "spec": dict(spec)}


def run(**values: Any) -> dict[str, Any]:
    return {"pipeline": {"name": "train"}, "input": {"kw_args": values}}


def pipeline(kind: str, value: Any, **more: Any) -> dict[str, Any]:
    content = {"@type": "type.googleapis.com/michelangelo.api.TypedStruct", "typeUrl": kind, "value": value}
    return {"manifest": {"type": "PIPELINE_MANIFEST_TYPE_YAML", "filePath": "train", "content": content, **more}}


def secrets() -> Iterator[Case]:
    steps = {"steps": [{"name": "load", "operator": "train", "with": {"dsn": {"db_password": PASSWORD}}}]}
    for name, kind, spec, field in (
        ("a run", "PipelineRun", run(password=PASSWORD), "spec.input.kw_args.password"),
        (
            "of a wrong type too",
            "PipelineRun",
            run(password=PASSWORD) | {"retryInfo": {}},
            "spec.input.kw_args.password",
        ),
        ("a template", "Pipeline", pipeline(TEMPLATE_TYPE, {"apiKey": "x1" * 8}), "spec.manifest.content.apiKey"),
        ("a step", "Pipeline", pipeline(STEPS_TYPE, steps), "spec.manifest.content.steps[0].with.dsn.db_password"),
        (
            "a trigger's entry",
            "Pipeline",
            pipeline(
                TEMPLATE_TYPE,
                {},
                triggerMap={
                    "daily": {
                        "cronSchedule": {"cron": "0 3 * * *"},
                        "parametersMap": {"one": {"environ": {"DB_PASSWORD": PASSWORD}}},
                    }
                },
            ),
            "spec.manifest.trigger_map[daily].parameters_map[one].environ[DB_PASSWORD]",
        ),
        *((told, "PipelineRun", run(value=key), "spec.input.kw_args.value") for told, key in KEYS.items()),
    ):

        def made(here: Surfaces, kind: str = kind, spec: dict[str, Any] = spec) -> dict[str, Any]:
            return document(here, kind, spec)

        yield from everywhere(48, name, made, "INLINE_SECRET", field)


def cluster(image: str) -> dict[str, Any]:
    pod = {"spec": {"containers": [{"name": "ray", "image": image}]}}
    return {"head": {"serviceType": "ClusterIP", "pod": pod}}


def images() -> Iterator[Case]:
    field = "spec.head.pod.spec.containers[0].image"
    for name, image, reason in (
        ("no digest", "ubuntu", "IMAGE_NOT_PINNED"),
        ("a tag", "x:latest", "IMAGE_NOT_PINNED"),
        ("a short digest", "ubuntu@sha256:abc", "IMAGE_NOT_PINNED"),
        ("a newline", f"ubuntu@{DIGEST}\nRUN id", "IMAGE_NOT_PINNED"),
        ("another registry", f"ubuntu@{DIGEST}", "REGISTRY_NOT_ALLOWED"),
        ("another team", f"registry.example/teams/train@{DIGEST}", "REGISTRY_NOT_ALLOWED"),
        ("a registry of that beginning", f"registry.example.org/team/train@{DIGEST}", "REGISTRY_NOT_ALLOWED"),
    ):

        def made(here: Surfaces, image: str = image) -> dict[str, Any]:
            return document(here, "RayCluster", cluster(image))

        yield from everywhere(50, name, made, reason, field)


@pytest.fixture(autouse=True)
def registries(here: Surfaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server allows the images of one team."""
    monkeypatch.setattr(here.served.resources, "_registries", ("registry.example/team",))


@pytest.mark.parametrize("case", [*secrets(), *images()], ids=str)
def test_it_is_refused_alike_and_nothing_is_written(here: Surfaces, case: Case) -> None:
    before = here.served.log()
    answer = case.send(here)
    assert answer.reasons == {case.reason}, answer
    assert case.field in answer.fields, answer
    assert here.served.log() == before
    if case.row == 48:
        assert not [secret for secret in (PASSWORD, *KEYS.values(), "x1x1") if secret in answer.text]
        assert NO_SECRETS in answer.text, "the way out"


def test_what_is_no_secret_is_stored(here: Surfaces) -> None:
    here.served.create(workloads.pipeline(here.project))
    assert not here.apply(document(here, "PipelineRun", run(**HARMLESS))).reasons
    spared = document(here, "PipelineRun", run(seed=KEYS["drawn by chance"]), annotations={NO_SECRETS: "other, seed"})
    assert not here.apply(spared).reasons
    assert not here.apply(document(here, "RayCluster", cluster(f"registry.example/team/train:1@{DIGEST}"))).reasons


def test_what_is_stored_already_keeps_nobody_from_changing_the_rest(here: Surfaces) -> None:
    old = here.message(document(here, "Pipeline", pipeline(TEMPLATE_TYPE, {"password": PASSWORD})))
    new = type(old).FromString(old.SerializeToString())
    new.spec.description = "other"
    assert [fault.field for fault in secret_faults(None, old)] == ["spec.manifest.content.password"]
    assert secret_faults(old, new) == []


def test_a_constant_in_a_graph_is_called_as_the_argument_it_is_for() -> None:
    made = kinds()["Pipeline"].new("p", "n")
    graph = (
        '{"steps": [{"name": "load", "inputs": {"password": {"const": "correct-horse"}, "rows": {"const": "all"}}}]}'
    )
    made.spec.manifest.content.Pack(typed(GRAPH_TYPE, {"graph": graph}))
    (fault,) = secret_faults(None, made)
    assert fault.field == "spec.manifest.content.graph.steps[0].inputs.password.const"
