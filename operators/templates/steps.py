"""An explicit graph of steps as a DAG: each step names an operator, what it needs and its arguments."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import DAG, BaseOperator

from operators.provider import STAGES
from operators.templates import params
from operators.templates.registry import DEFAULT_ARGS

REFERENCE = re.compile(r"\$\{steps\.([a-z0-9.-]+)\.outputs\.(\w+)\}\Z")


def operator_class(name: str) -> type[BaseOperator]:
    """Return the operator of a stage, `train` -> TrainOperator.  Raises ValueError that lists the stages."""
    if name not in STAGES:
        raise ValueError(f"there is no operator {name!r}: use {', '.join(STAGES)}")
    module = importlib.import_module(f"operators.{name}")
    found: type[BaseOperator] = getattr(module, "".join(part.title() for part in name.split("_")) + "Operator")
    return found


def steps_dag(steps: Sequence[Mapping[str, Any]], *, dag_id: str, described: Mapping[str, Any], **settings: Any) -> DAG:
    """Return the DAG of a graph.  `${steps.NAME.outputs.KEY}` as an argument is what an earlier step returned."""
    dag = DAG(dag_id, schedule=None, params=params.hidden(described), default_args=DEFAULT_ARGS, **settings)
    with dag:
        tasks: dict[str, BaseOperator] = {}
        for step in _sorted(steps):
            arguments = {name: _resolved(value, tasks) for name, value in (step.get("with") or {}).items()}
            retries = {"retries": step["retries"]} if "retries" in step else {}
            tasks[step["name"]] = operator_class(step["operator"])(task_id=step["name"], **retries, **arguments)
            for need in step.get("needs") or ():
                tasks[need] >> tasks[step["name"]]
    return dag


def _resolved(value: Any, tasks: Mapping[str, BaseOperator]) -> Any:
    match = REFERENCE.match(value) if isinstance(value, str) else None
    if match is None:
        return value
    outputs: Any = tasks[match[1]].output
    return outputs[match[2]]


def _sorted(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    left, done = list(steps), set[str]()
    found: list[Mapping[str, Any]] = []
    while left:
        ready = [step for step in left if set(step.get("needs") or ()) <= done]
        if not ready:
            raise ValueError("the steps form a circle")
        found += ready
        done |= {step["name"] for step in ready}
        left = [step for step in left if step["name"] not in done]
    return found
