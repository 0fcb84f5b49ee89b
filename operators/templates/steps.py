"""An explicit graph of steps as a DAG: each step names an operator, what it needs and its arguments.

Arguments are the user's own text: nothing of them is ever rendered as a template.
"""

from __future__ import annotations

import graphlib
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow.sdk import DAG, BaseOperator, literal

from operators.provider import STAGES
from operators.templates import params
from operators.templates.registry import default_args

REFERENCE = re.compile(r"\$\{steps\.([a-z0-9.-]+)\.outputs\.(\w+)\}\Z")


def operator_class(name: str) -> type[BaseOperator]:
    """Return the operator of a stage, `train` -> TrainOperator.  Raises ValueError that lists the stages."""
    if name not in STAGES:
        raise ValueError(f"there is no operator {name!r}: use {', '.join(STAGES)}")
    module = importlib.import_module(f"operators.{name}")
    found: type[BaseOperator] = getattr(module, "".join(part.title() for part in name.split("_")) + "Operator")
    return found


def steps_dag(steps: Sequence[Mapping[str, Any]], *, dag_id: str, described: Mapping[str, Any], **settings: Any) -> DAG:
    """Return the DAG of a graph.  `${steps.NAME.outputs.KEY}` as an argument is what an earlier step returned.

    Raises ValueError for a circle, and for a step, an operator or an argument that does not exist.
    """
    named = {step["name"]: step for step in steps}
    needs = {name: _needs(step, named) for name, step in named.items()}
    order = _sorted(needs)
    dag = DAG(
        dag_id,
        schedule=None,
        params=params.hidden(described),
        default_args=default_args(settings.pop("owner", "")),
        auto_register=False,
        **settings,
    )
    with dag:
        tasks: dict[str, BaseOperator] = {}
        for name in order:
            tasks[name] = _task(named[name], tasks)
            for need in needs[name]:
                tasks[need] >> tasks[name]
    return dag


def _needs(step: Mapping[str, Any], named: Mapping[str, Any]) -> list[str]:
    """Return the steps that come before a step: those it says, and those it refers to."""
    found = list(dict.fromkeys([*(step.get("needs") or ()), *_referred(step.get("with"))]))
    for need in found:
        if need not in named:
            raise ValueError(f"{step['name']!r} needs {need!r}, which is no step")
    return found


def _referred(value: Any) -> Iterator[str]:
    if isinstance(value, str) and (match := REFERENCE.match(value)):
        yield match[1]
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _referred(item)
    elif isinstance(value, list):
        for item in value:
            yield from _referred(item)


def _sorted(needs: Mapping[str, Sequence[str]]) -> list[str]:
    try:
        return list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        raise ValueError(f"the steps form a circle: {' -> '.join(error.args[1])}") from error


def _task(step: Mapping[str, Any], tasks: Mapping[str, BaseOperator]) -> BaseOperator:
    operator = operator_class(step["operator"])
    given = step.get("with") or {}
    _check_arguments(step["name"], operator, given)
    retries = {"retries": step["retries"]} if "retries" in step else {}
    arguments = {name: _resolved(value, tasks) for name, value in given.items()}
    return operator(task_id=step["name"], **retries, **arguments)


def _check_arguments(step: str, operator: type[BaseOperator], given: Mapping[str, Any]) -> None:
    """Accept the stage's own arguments alone: what Airflow's base takes beside them is not the user's to set."""
    own = {
        name: parameter
        for name, parameter in inspect.signature(operator).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for name in given:
        if name not in own:
            raise ValueError(f"step {step!r}: {operator.__name__} has no argument {name!r}, only {', '.join(own)}")
    for name, parameter in own.items():
        if parameter.default is parameter.empty and name not in given:
            raise ValueError(f"step {step!r}: {operator.__name__} needs the argument {name!r}")


def _resolved(value: Any, tasks: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        match = REFERENCE.match(value)
        return tasks[match[1]].output[match[2]] if match else literal(value)
    if isinstance(value, Mapping):
        return {name: _resolved(item, tasks) for name, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, tasks) for item in value]
    return value
