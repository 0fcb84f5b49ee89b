"""What benchmarks apply: the example under other names, a pipeline of two tasks, their peers.  Applies none itself."""

from __future__ import annotations

from typing import Any

from api.cli import documents
from api.kinds import kinds
from api.workflows import STEPS_TYPE, typed
from benchmarks.systems.flights import EXAMPLE

STEPS = ("first", "second")
NOTHING = {"deployment": "", "model": "none"}
"""Arguments with which `deploy_model` succeeds at once: no deployment is named."""

DAG_OF_THE_EXAMPLE = '''"""A DAG written by hand in Airflow, with the tasks of the example's pipeline."""

from airflow.sdk import DAG

from operators.templates.registry import template_dag

dag: DAG = template_dag("train_and_deploy", dag_id="{dag_id}", tags=["plain"])
'''

DAG_OF_TWO_TASKS = '''"""A DAG written by hand in Airflow: the two tasks of the pipeline that it is compared with."""

from airflow.sdk import DAG

from operators.deploy_model import DeployModelOperator

with DAG("{dag_id}", schedule=None) as dag:
    first = DeployModelOperator(task_id="first", deployment="", model="none")
    second = DeployModelOperator(task_id="second", deployment="", model="none")
    first >> second
'''


def project(name: str) -> Any:
    """Return a Project like the example's."""
    found = _declared("project.yaml")
    found.metadata.name = found.metadata.namespace = name
    return found


def pipeline(project_name: str, name: str) -> Any:
    """Return a Pipeline like the example's: a template of six tasks."""
    found = _declared("pipeline.yaml")
    found.metadata.namespace, found.metadata.name = project_name, name
    return found


def two_tasks(project_name: str, name: str) -> Any:
    """Return a Pipeline of two tasks, one after the other, that do nothing and succeed."""
    found = pipeline(project_name, name)
    found.spec.manifest.ClearField("trigger_map")
    found.spec.manifest.file_path = ""
    steps = [
        {"name": step, "operator": "deploy_model", "needs": list(STEPS[:place]), "with": NOTHING}
        for place, step in enumerate(STEPS)
    ]
    found.spec.manifest.content.Pack(typed(STEPS_TYPE, {"steps": steps}))
    return found


def run(project_name: str, pipeline_name: str, name: str) -> Any:
    """Return a PipelineRun."""
    found = kinds()["PipelineRun"].new(project_name, name)
    found.spec.pipeline.namespace, found.spec.pipeline.name = project_name, pipeline_name
    return found


def _declared(name: str) -> Any:
    (document,) = documents.load([str(EXAMPLE / name)])
    if document.resource is None:
        raise ValueError("; ".join(document.faults))
    return document.resource
