"""The DAG that shows what a project's subscriptions wait for: assets, and which pipeline each begins.  It never runs.

Runs are begun by the API server alone, once for each event; a DAG that an asset schedules would begin them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowFailException


class ShownOperator(TriggerDagRunOperator):
    """An edge of Airflow's graph, from a subscription to its pipeline's DAG."""

    def execute(self, context: Any) -> None:
        """Refuse.  Raises AirflowFailException."""
        raise AirflowFailException("this DAG only shows subscriptions: publish an event to begin their runs")


def event_graph_dag(manifest: Mapping[str, Any], *, dag_id: str, tags: list[str]) -> DAG:
    """Return the DAG of a project's subscriptions, a task each, whose inlets are the events that it waits for."""
    with DAG(
        dag_id,
        schedule=None,
        is_paused_upon_creation=True,
        auto_register=False,
        tags=tags,
        doc_md=f"What subscriptions of project **{manifest['project']}** wait for, and what they begin.  Never runs.",
    ) as dag:
        for each in manifest["subscriptions"]:
            ShownOperator(
                task_id=each["name"],
                trigger_dag_id=each["dag"],
                inlets=[Asset(uri=event["uri"], name=event["name"]) for event in each["events"]],
                retries=0,
            )
    return dag
