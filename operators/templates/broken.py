"""The DAG that stands for a manifest that cannot be built: it says why, and its runs fail.  Has no schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException

from operators.templates import params

TAG = "broken"
LONGEST_REASON = 1000


def broken_dag(manifest: Mapping[str, Any], error: Exception, *, dag_id: str) -> DAG:
    """Return a DAG with the tags of the manifest, by which the API server finds it, and the reason as description."""
    reason = (str(error) or type(error).__name__)[:LONGEST_REASON]
    dag = DAG(
        dag_id,
        schedule=None,
        params=params.hidden(),
        description=reason,
        doc_md="The platform could not build this DAG. The reason is its description.",
        tags=[TAG, f"project:{manifest['project']}", *manifest["tags"]],
        auto_register=False,
    )

    @task
    def cannot_be_built() -> None:
        """Fail with the reason: a run of this DAG must not look like one that did its work."""
        raise AirflowFailException(reason)

    with dag:
        cannot_be_built()
    return dag
