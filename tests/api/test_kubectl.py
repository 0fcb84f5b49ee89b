"""The real kubectl works on Projects, Pipelines and PipelineRuns: get, watch, apply, describe, explain, delete."""

from __future__ import annotations

import re
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api import kubectl_tool
from tests.api.http_running import HttpServed
from tests.api.kubectl_tool import Kubectl
from tests.patience import PATIENCE_S

DOCUMENTS = """\
apiVersion: michelangelo.api/v2
kind: Project
metadata: {{name: {project}, namespace: {project}}}
spec: {{description: first, tier: 3}}
---
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {{name: train, namespace: {project}, labels: {{team: growth}}}}
spec:
  type: PIPELINE_TYPE_TRAIN
  manifest: {{filePath: train_and_deploy}}
---
apiVersion: michelangelo.api/v2
kind: PipelineRun
metadata: {{name: one, namespace: {project}}}
spec:
  pipeline: {{name: train, namespace: {project}}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    made = HttpServed(tmp_path_factory.mktemp("kubectl") / "store.db")
    yield made
    made.close()


@pytest.fixture(scope="module")
def kubectl(server: HttpServed, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    return Kubectl(kubectl_tool.installed(), server.url, tmp_path_factory.mktemp("home"))


@pytest.fixture
def shop(kubectl: Kubectl, tmp_path: Path) -> str:
    """A project with a pipeline and a run, applied from a file."""
    name = f"shop-{uuid.uuid4().hex[:8]}"
    (tmp_path / "all.yaml").write_text(DOCUMENTS.format(project=name))
    applied = kubectl.run("apply", "-f", str(tmp_path / "all.yaml"))
    assert applied.split("\n")[:3] == [
        f"project.michelangelo.api/{name} created",
        "pipeline.michelangelo.api/train created",
        "pipelinerun.michelangelo.api/one created",
    ]
    return name


def test_apply_again_changes_nothing_and_a_change_is_one_patch(kubectl: Kubectl, shop: str, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    assert kubectl.run("apply", "-f", str(file)).count("unchanged") == 3
    file.write_text(file.read_text().replace("description: first", "description: second"))
    assert f"project.michelangelo.api/{shop} configured" in kubectl.run("apply", "-f", str(file))
    assert "description: second" in kubectl.run("get", "project", shop, "-o", "yaml")
    assert kubectl.run("diff", "-f", str(file)) == ""


def test_what_was_removed_from_the_file_is_removed(kubectl: Kubectl, shop: str, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(file.read_text().replace(", labels: {team: growth}", ""))
    kubectl.run("apply", "-f", str(file))
    assert "team" not in kubectl.run("get", "pipeline", "train", "-n", shop, "-o", "jsonpath={.metadata.labels}")


def test_get_shows_columns_that_say_something(kubectl: Kubectl, shop: str) -> None:
    header, row = kubectl.run("get", "pipelines", "-n", shop).splitlines()
    assert header.split() == ["NAME", "TYPE", "STATE", "LATEST", "REVISION", "AGE"]
    assert row.split()[:3] == ["train", "TRAIN", "-"]
    assert re.fullmatch(r"\d+s", row.split()[-1])
    header, row = kubectl.run("get", "pipeline_runs", "-n", shop).splitlines()
    assert (header.split(), row.split()[:3]) == (["NAME", "PIPELINE", "STATE", "AGE"], ["one", "train", "-"])
    assert "EXCEPTION TYPE" in kubectl.run("get", "pipelineruns", "-n", shop, "-o", "wide")


@pytest.mark.parametrize("kind", ["projects", "project", "pipelines", "pipelineruns", "pipelinerun", "pipeline_run"])
def test_every_name_of_a_kind_is_known(kubectl: Kubectl, shop: str, kind: str) -> None:
    assert shop in kubectl.run("get", kind, "-A")


def test_get_selects_by_label_and_field(kubectl: Kubectl, shop: str) -> None:
    assert shop in kubectl.run("get", "pipelines", "-A", "-l", "team=growth,team!=none")
    assert shop not in kubectl.run("get", "pipelines", "-A", "-l", "team in (none)")
    assert "one" in kubectl.run("get", "pipelineruns", "-n", shop, "--field-selector", "spec.pipeline=train")
    assert "No resources" in kubectl.run("get", "pipelineruns", "-n", shop, "--field-selector", "spec.pipeline=x")
    assert "one" in kubectl.run("get", "michelangelo", "-n", shop)


def test_get_in_pages_shows_all(kubectl: Kubectl, shop: str, server: HttpServed) -> None:
    run = server.get("PipelineRun", shop, "one")
    for number in range(7):
        run.metadata.name = f"run-{number}"
        server.create(run)
    shown = kubectl.run("get", "pipelineruns", "-n", shop, "--chunk-size", "3", "-o", "name").split()
    assert shown == [f"pipelinerun.michelangelo.api/{name}" for name in ("one", *(f"run-{n}" for n in range(7)))]


def test_the_output_of_get_can_be_replaced(kubectl: Kubectl, shop: str) -> None:
    shown = kubectl.run("get", "pipeline", "train", "-n", shop, "-o", "yaml")
    assert re.search(r'creationTimestamp: "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"', shown)
    assert "generation: 1" in shown
    assert "replaced" in kubectl.run("replace", "-f", "-", sent=shown.replace("growth", "risk"))
    assert "risk" in kubectl.run("get", "pipeline", "train", "-n", shop, "--show-labels")
    refused = kubectl.run("replace", "-f", "-", sent=shown, code=1)
    assert "Error from server (CONFLICT)" in refused


def test_describe_explain_and_label(kubectl: Kubectl, shop: str) -> None:
    told = kubectl.run("describe", "pipelinerun", "one", "-n", shop)
    assert re.search(r"Spec:\n +Pipeline:\n +Name: +train", told)
    assert "Tier" in kubectl.run("describe", "project", shop)
    explained = kubectl.run("explain", "pipelinerun.spec.pipeline")
    assert "FIELD: pipeline <ResourceIdentifier>" in explained
    assert "The pipeline; required unless" in explained
    assert "Which pipeline to run" in kubectl.run("explain", "pipelinerun.spec")
    kubectl.run("label", "pipeline", "train", "-n", shop, "team-")
    kubectl.run("annotate", "pipeline", "train", "-n", shop, "note=it's")
    assert "No resources" in kubectl.run("get", "pipelines", "-n", shop, "-l", "team")


def test_a_dry_run_stores_nothing(kubectl: Kubectl, shop: str, tmp_path: Path, server: HttpServed) -> None:
    file, before = tmp_path / "all.yaml", server.log()
    file.write_text(file.read_text().replace("tier: 3", "tier: 1"))
    assert "configured (server dry run)" in kubectl.run("apply", "-f", str(file), "--dry-run=server")
    kubectl.run("delete", "-f", str(file), "--dry-run=server")
    assert server.log() == before


def test_delete_waits_until_it_is_gone(kubectl: Kubectl, shop: str, server: HttpServed) -> None:
    assert '"one" deleted' in kubectl.run("delete", "pipelinerun", "one", "-n", shop)
    assert "(NOT_FOUND)" in kubectl.run("get", "pipelinerun", "one", "-n", shop, code=1)
    pipeline = server.get("Pipeline", shop, "train")
    server.run(server.resources.set_finalizer(pipeline, "test/slow", present=True))
    deleting = kubectl.start("delete", "pipeline", "train", "-n", shop)
    with pytest.raises(TimeoutError):
        _ended(deleting, 1.0)
    server.run(server.resources.set_finalizer(pipeline, "test/slow", present=False))
    assert '"train" deleted' in _ended(deleting, 20.0)
    kubectl.run("delete", "project", shop)
    assert shop not in kubectl.run("get", "ns")


def test_delete_all_deletes_one_project_only(kubectl: Kubectl, shop: str) -> None:
    kubectl.run("delete", "pipelines", "--all", "-n", shop)
    assert "No resources" in kubectl.run("get", "pipelines", "-n", shop)
    assert shop in kubectl.run("get", "projects")


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("metadata: {name: x}\nspec: {typ: PIPELINE_TYPE_TRAIN}", "spec.typ unknown field: did you mean type?"),
        ("metadata: {name: X_}\nspec: {}", "for example 'x'"),
        ("metadata: {name: x}\nspec: {type: [1]}", "wants the name of a value"),
        ("metadata: {name: x, namespace: nowhere-to-be-found}\nspec: {}", "nowhere-to-be-found"),
    ],
)
def test_what_is_refused_is_told_in_a_line(kubectl: Kubectl, shop: str, document: str, told: str) -> None:
    sent = f"apiVersion: michelangelo.api/v2\nkind: Pipeline\n{document}\n"
    project = [] if "namespace" in document else ["-n", shop]
    refused = kubectl.run("apply", "-f", "-", *project, sent=sent, code=1)
    assert told in refused
    assert refused.strip().count("\n") <= 1, refused


def test_watch_shows_each_change(kubectl: Kubectl, shop: str, server: HttpServed) -> None:
    watching = kubectl.start("get", "pipelineruns", "-n", shop, "-w", "--output-watch-events")
    lines: list[str] = []
    seen = threading.Condition()

    def read() -> None:
        assert watching.stdout is not None
        for line in watching.stdout:
            with seen:
                lines.append(" ".join(line.split()[:3]))
                seen.notify()

    reader = threading.Thread(target=read)
    reader.start()

    def shown(line: str) -> None:
        with seen:
            assert seen.wait_for(lambda: line in lines, PATIENCE_S), lines

    shown("ADDED one train")
    run = server.get("PipelineRun", shop, "one")
    run.metadata.labels["a"] = "b"
    server.update(run)
    shown("MODIFIED one train")
    run.metadata.name = "two"
    server.create(run)
    shown("ADDED two train")
    server.delete("PipelineRun", shop, "one")
    shown("DELETED one train")
    watching.terminate()
    watching.wait(10)
    reader.join(10)
    assert watching.stdout is not None
    watching.stdout.close()
    assert lines[0] == "EVENT NAME PIPELINE"
    assert len(lines) == 5


def test_the_newest_kubectl_works_too(server: HttpServed, shop: str, tmp_path: Path) -> None:
    newest = Kubectl(kubectl_tool.fetched(*kubectl_tool.NEWEST), server.url, tmp_path)
    assert newest.run("apply", "-f", str(tmp_path / "all.yaml")).count("unchanged") == 3
    assert "train" in newest.run("get", "pipelines", "-n", shop)
    assert "Spec:" in newest.run("describe", "pipelinerun", "one", "-n", shop)
    newest.run("delete", "pipelinerun", "one", "-n", shop)


def _ended(process: subprocess.Popen[str], timeout_s: float) -> str:
    try:
        told, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return str(told)
