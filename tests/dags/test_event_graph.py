"""The DAG that shows a project's subscriptions: assets, tasks and pipelines as they are, and nothing that runs."""

from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from api.controllers.event_graph import graph_manifest
from operators.templates.project import build, dag_id_of
from tests.api.event_world import subscription


@pytest.fixture
def manifest() -> dict[str, Any]:
    both = subscription("flights", "both", "orders.*", {"name": "priced", "alias": "p"}, "priced", within="60s")
    across = subscription("flights", "across", "priced", pipeline="score")
    across.spec.pipeline.namespace = "shop"
    return graph_manifest("flights", [both, across])


def test_each_subscription_is_a_task_between_its_events_and_its_pipeline(manifest: dict[str, Any]) -> None:
    dag: DAG = build(manifest)
    assert dag.dag_id == dag_id_of(manifest) == "flights.events_graph"
    shown = {
        task.task_id: ([asset.uri for asset in task.inlets], getattr(task, "trigger_dag_id", "")) for task in dag.tasks
    }
    orders, priced = "ma-event://flights/orders.*", "ma-event://flights/priced"
    assert shown == {"across": ([priced], "shop.score"), "both": ([orders, priced], "flights.train")}
    assert not dag.schedule
    assert dag.is_paused_upon_creation


def test_nothing_of_it_runs(manifest: dict[str, Any]) -> None:
    for task in build(manifest).tasks:
        assert isinstance(task, BaseOperator)
        with pytest.raises(AirflowFailException, match="only shows subscriptions"):
            task.execute({})
