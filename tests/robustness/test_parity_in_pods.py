"""The third place of a pipeline: each task of Airflow's is a pod of a real cluster, and so is a step that asks for it.

The same states and the same digests as in this process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.airflow_settings import KUBERNETES, AirflowSettings
from api.cli.platform import sessions
from api.client import Client
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kubernetes_settings import KubernetesSettings
from tests.e2e.conftest import START_S, STOP_S, Ma, free_configuration
from tests.e2e.test_parity import EXAMPLES, PROJECT, applied, here, on_airflow, run_there
from tests.robustness import kubernetes_node

pytestmark = [
    pytest.mark.robustness,
    pytest.mark.skipif(bool(kubernetes_node.missing()), reason=kubernetes_node.missing() or "all there"),
]

FLOW = """
from operators import pipeline, task


@task
def numbers(count: int) -> list[int]:
    return list(range(count))


@task.kubernetes_job(cpu=0.1, memory="512Mi", timeout="10m")
def squares(found: list[int]) -> dict[str, int]:
    from shapes import square

    return {str(each): square(each) for each in found}


@task
def total(found: dict[str, int]) -> int:
    return sum(found.values())


@pipeline
def mixed(count: int = 5):
    return total(squares(numbers(count)))
"""
MANIFEST = {
    "apiVersion": "michelangelo.api/v2",
    "kind": "Pipeline",
    "metadata": {"name": "mixed", "namespace": PROJECT},
    "spec": {
        "type": "TRAIN",
        "manifest": {
            "type": "PIPELINE_MANIFEST_TYPE_UNIFLOW",
            "filePath": "mixed_flow",
            "uniflowFunction": "mixed",
        },
    },
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kubernetes_node.Node]:
    with kubernetes_node.running(tmp_path_factory.mktemp("node")) as made:
        yield made


@pytest.fixture(scope="module")
def far(node: kubernetes_node.Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ma]:
    """A platform whose Airflow runs tasks as pods: they share its home, and reach its servers by the node's network."""
    folder = tmp_path_factory.mktemp("platform")
    base = free_configuration(folder / "home")
    job = node.template(folder / "job.yaml", folder)
    # A task submits the Jobs of its step: it needs what the platform reaches the cluster by.
    template: Any = yaml.safe_load(node.template(folder / "task.yaml", folder, node.folder).read_text())
    template["spec"]["hostNetwork"] = True
    template["spec"]["containers"][0]["name"] = "base"
    (folder / "task.yaml").write_text(yaml.safe_dump(template))
    made = Ma(
        replace(
            base,
            kubernetes=KubernetesSettings(config=str(node.kubeconfig), image=node.image, pod=job),
            airflow=AirflowSettings(KUBERNETES, folder / "task.yaml"),
        )
    )
    ended = made("up", "--detach", timeout_s=2 * START_S)
    assert ended.code == 0, f"{ended.out}{ended.err}"
    try:
        yield made
    finally:
        made("down", timeout_s=STOP_S)
        sessions.stop_all(made.config.home, (), grace_s=2)


@pytest.fixture(scope="module")
def api(far: Ma) -> Iterator[Client]:
    applied = far("apply", "-f", str(EXAMPLES))
    assert applied.code == 0, applied.err
    with Client.of(far.config) as client:
        yield client


def pods_of(node: kubernetes_node.Node) -> str:
    """Return the names of what ran in the cluster."""
    return node.kubectl("get", "events", "-o", "jsonpath={.items[*].involvedObject.name}")


@pytest.mark.parametrize(("name", "given"), [("converge", {"target": 10}), ("review", {}), ("sweep", {"count": 4})])
def test_a_pipeline_does_in_pods_what_it_does_here(
    far: Ma, api: Client, node: kubernetes_node.Node, name: str, given: dict[str, Any]
) -> None:
    folder = EXAMPLES / name
    applied(far, api, folder, name)
    run = run_there(far, api, name, f"{name}-1", *(f"{key}={value}" for key, value in given.items()))
    assert run.status.state == wire.PIPELINE_RUN_STATE_SUCCEEDED, run.status.error_message
    assert on_airflow(run) == here(folder, name, given)
    assert name in pods_of(node), "its tasks were pods"


def test_a_step_that_asks_for_it_is_a_job_of_the_cluster(
    far: Ma, api: Client, node: kubernetes_node.Node, tmp_path: Path
) -> None:
    (tmp_path / "mixed_flow.py").write_text(FLOW)
    (tmp_path / "shapes.py").write_text("def square(number: int) -> int:\n    return number * number\n")
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(MANIFEST))
    applied(far, api, tmp_path, "mixed")
    run = run_there(far, api, "mixed", "mixed-1")
    assert run.status.state == wire.PIPELINE_RUN_STATE_SUCCEEDED, run.status.error_message
    assert on_airflow(run) == here(tmp_path, "mixed", {})
    assert "ma-squares-" in pods_of(node)
