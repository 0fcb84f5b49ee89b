"""Pipelines written in Python, as manifests: what cannot run is refused before anything is written, with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import kinds
from api.uniflow import GRAPH_TYPE
from api.workflows import parse, typed
from tests.api.running import Served
from tests.api.workloads import built, refused

UNIFLOW = pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_UNIFLOW
DIGEST = "a" * 64
MANIFEST = "spec.manifest"
GRAPH = f"{MANIFEST}.content.graph"


def step(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "task": "flow:work", **more}


def graph(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": 1, "name": "train", "params": {"properties": {}}, "steps": list(steps), **more}


def authored(project: str, found: Any, name: str = "train") -> Any:
    new = kinds()["Pipeline"].new(project, name)
    manifest = new.spec.manifest
    manifest.type, manifest.file_path, manifest.uniflow_function = UNIFLOW, "flows.train", "train"
    manifest.uniflow_tar = f"file:///srv/artifacts/code/{project}/{DIGEST}.tar"
    manifest.content.Pack(typed(GRAPH_TYPE, {"graph": json.dumps(found) if isinstance(found, dict) else found}))
    return new


def test_a_graph_reaches_the_manifest_as_it_was_written() -> None:
    given = graph(step("a", inputs={"rate": {"const": 1.0}, "rows": {"const": 2**60}}))
    workflow, faults = parse(authored("shop", given).spec)
    assert faults == []
    assert json.dumps(workflow.authored.graph) == json.dumps(given)
    assert (workflow.authored.code, workflow.authored.namespace) == (DIGEST, "shop")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("file_path", "", "names the Python module"),
        ("file_path", "../flow.py", "names the Python module"),
        ("uniflow_function", "a.b", "names the function"),
        ("uniflow_tar", "", "ma pipeline apply"),
        ("uniflow_tar", "file:///etc/passwd", "SHA256.tar"),
        ("uniflow_tar", f"file:///srv/code/shop/../{DIGEST}.tar", "SHA256.tar"),
    ],
)
def test_a_manifest_that_names_no_code_is_refused(
    served: Served, project: str, field: str, value: str, told: str
) -> None:
    new = authored(project, graph(step("a")))
    setattr(new.spec.manifest, field, value)
    refusal = refused(served, new)
    assert refusal.paths == [f"{MANIFEST}.{field}"]
    assert told in refusal.message


def test_code_of_another_project_is_refused(served: Served, project: str) -> None:
    new = authored(project, graph(step("a")))
    new.spec.manifest.uniflow_tar = f"file:///srv/artifacts/code/other/{DIGEST}.tar"
    assert refused(served, new).paths == [f"{MANIFEST}.uniflow_tar"]


@pytest.mark.parametrize("found", ["", "{", "[]", "[" * 100_000, "null"])
def test_a_content_that_is_no_graph_is_refused(served: Served, project: str, found: str) -> None:
    assert refused(served, authored(project, found)).paths == [f"{MANIFEST}.content"]


@pytest.mark.parametrize(
    ("found", "path", "reason"),
    [
        (graph(), "steps", "NO_STEPS"),
        (graph(*(step(f"s{number}") for number in range(10_001))), "steps", "TOO_MANY"),
        (graph(step("a", inputs={"x": {"step": "a"}})), "steps[0].inputs.x", "CYCLE"),
        (graph(step("a", needs=["b"]), step("b", needs=["a"])), "steps", "CYCLE"),
        (graph(step("a"), step("a")), "steps[1].name", "DUPLICATE_STEP"),
        (graph(step("a", inputs={"x": {"step": "b"}})), "steps[0].inputs.x", "UNKNOWN_STEP"),
        (graph(step("a", resources={"cpu": -1})), "steps[0].resources.cpu", "BAD_RESOURCES"),
        (graph(step("a", resources={"memory": "4gb"})), "steps[0].resources.memory", "BAD_RESOURCES"),
        (graph(step("a", timeout_s=0)), "steps[0].timeout_s", "BAD_TIMEOUT"),
        (graph(step("a", retries=1000)), "steps[0].retries", "BAD_RETRIES"),
        (graph(step("a", engine="kubernetes_job")), "steps[0].engine", "ENGINE_NOT_CONFIGURED"),
        (graph(step("a", engine="spark", resources={"gpu": 1})), "steps[0].resources.gpu", "BAD_RESOURCES"),
        (graph(step("a", engine="spark", resources={"memory": "1Gi"})), "steps[0].resources.memory", "BAD_RESOURCES"),
        (graph(step("a", environment=["x"])), "steps[0].environment", "BAD_ENVIRONMENT"),
        (
            graph(step("a", environment={"requirements": ["a==1", "b>=2"]})),
            "steps[0].environment.requirements[1]",
            "UNPINNED_REQUIREMENT",
        ),
    ],
)
def test_a_graph_that_cannot_run_is_refused(
    served: Served, project: str, found: dict[str, Any], path: str, reason: str
) -> None:
    refusal = refused(served, authored(project, found))
    assert (refusal.reason, refusal.paths) == (reason, [f"{GRAPH}.{path}"])


def test_a_step_on_spark_is_refused_where_there_is_none(
    served: Served, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    refusal = refused(served, authored(project, graph(step("a", engine="spark"))))
    assert (refusal.reason, refusal.paths) == ("ENGINE_NOT_CONFIGURED", [f"{GRAPH}.steps[0].engine"])
    assert "pip install 'michelangelo-airflow[spark]'" in refusal.message


def dev_run(project: str, found: dict[str, Any], **given: Any) -> Any:
    new = kinds()["PipelineRun"].new(project, "dev")
    new.spec.pipeline_spec.CopyFrom(authored(project, found).spec)
    new.spec.input.update({"kw_args": given})
    return new


PARAMS = {"properties": {"rows": {"type": "integer", "minimum": 1}, "note": {"type": "string", "default": ""}}}


def test_a_dev_run_brings_its_pipeline_and_its_difference_along(served: Served, project: str) -> None:
    new = dev_run(project, graph(step("a"), params=PARAMS), rows=1)
    new.spec.local_diff = "file:///srv/artifacts/code/x.diff"
    made = served.create(new)
    assert parse(made.spec.pipeline_spec)[0].authored.graph["steps"] == [step("a")]


def test_a_dev_run_that_cannot_run_is_refused_with_every_fault(served: Served, project: str) -> None:
    built(served, project)
    new = dev_run(project, graph(step("a"), params=PARAMS), note=1, rate=2)
    new.spec.pipeline.name = "train"
    found = sorted(refused(served, new).paths)
    assert found == ["spec.input.kw_args.note", "spec.input.kw_args.rate", "spec.input.kw_args.rows", "spec.pipeline"]
    bad = dev_run(project, graph(step("a", retries=-1)))
    assert refused(served, bad).paths == ["spec.pipeline_spec.manifest.content.graph.steps[0].retries"]
