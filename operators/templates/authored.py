"""The graph of a pipeline written in Python as a DAG.  Reads data alone: the user's code is imported by tasks.

A loop is a task that lists its items, over which Airflow maps the steps of the loop; a loop within a loop lists the
items of all its rounds at once.  A condition is evaluated by the step that has it, so that a step is skipped here for
the same reason as in the author's own process.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator, Param, TaskGroup, TriggerRule, get_parsing_context

from operators.authoring.graph import Graph, Loop, Step, read
from operators.python_task import AUTHORED, Authored, ItemsOperator, PythonTaskOperator
from operators.templates import params

RETRY_DELAY = timedelta(seconds=1)


def authored_dag(
    graph: Mapping[str, Any], code: str, *, dag_id: str, described: Mapping[str, Any], owner: str = "", **settings: Any
) -> DAG:
    """Return the DAG of a graph; inside a task only what that task needs of it.

    code: SHA-256 of its packed files.  Raises InvalidArgument for a bad graph.
    """
    found = read(graph)
    dag = DAG(
        dag_id,
        schedule=None,
        params={**form(found.params), **params.hidden(described)},
        default_args={"retry_delay": RETRY_DELAY, **({"owner": owner} if owner else {})},
        user_defined_macros={AUTHORED: Authored(found, code)},
        auto_register=False,
        **settings,
    )
    with dag:
        _Builder(found).build(get_parsing_context().task_id)
    return dag


def form(schema: Mapping[str, Any]) -> dict[str, Param]:
    """Return what Airflow's form asks for: a field for each property of the schema of a pipeline's parameters."""
    shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    return {name: _param(given, shared) for name, given in schema.get("properties", {}).items()}


def _param(given: Mapping[str, Any], shared: Mapping[str, Any]) -> Param:
    rest = {name: value for name, value in given.items() if name not in ("default", "description")}
    # Without a default Airflow's form asks for the value; its API refuses a run that gives none.
    default = {"default": given["default"]} if "default" in given else {}
    return Param(**default, description=given.get("description"), **rest, **shared)


class _Builder:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._tasks: dict[str, Any] = {}
        self._groups: dict[str, TaskGroup] = {}
        self._loops = {loop.name: loop for loop in graph.loops}

    def build(self, task: str | None = None) -> None:
        """Make a task of every loop and step, in an order in which each comes after what it needs.

        task: make only this one and, where it is one of a loop, what Airflow maps with it.
        """
        wanted = None if task is None else self._mapped_with(task)
        for name in self._graph.order():
            if wanted is not None and name not in wanted:
                continue
            loop = self._loops.get(name)
            made = self._items(loop) if loop is not None else self._step(self._graph.step(name))
            self._tasks[name] = made
            needs = (need for need in sorted(self._graph.needs(name)) if need in self._tasks)
            made.set_upstream([self._tasks[need] for need in needs])

    def _mapped_with(self, task: str) -> set[str]:
        """Return a step with its loop, a loop with its steps."""
        return {task} | {
            other
            for step in self._graph.steps
            if step.foreach and task in (step.name, step.foreach)
            for other in (step.name, step.foreach)
        }

    def _items(self, loop: Loop) -> BaseOperator:
        return ItemsOperator(
            task_id=loop.name,
            trigger_rule=TriggerRule.NONE_FAILED,
            task_group=self._around(loop.name),
            doc_md=f"Lists the items of `{loop.name.removesuffix('.items')}`; no step of the pipeline itself.",
        )

    def _step(self, step: Step) -> Any:
        settings: dict[str, Any] = {
            "task_id": step.name,
            "engine": step.engine,
            "retries": step.retries,
            "trigger_rule": TriggerRule.NONE_FAILED,
            "task_group": self._group(step.group),
            "doc_md": _doc(step),
        }
        if not step.foreach:
            return PythonTaskOperator(**settings)
        settings["map_index_template"] = "{{ task.position }}"
        return PythonTaskOperator.partial(**settings).expand(entry=self._tasks[step.foreach].output)

    def _around(self, name: str) -> TaskGroup | None:
        """Return the innermost task group that something of this dotted name stands in."""
        group = name.rpartition(".")[0]
        return (self._group(group) or self._around(group)) if group else None

    def _group(self, name: str) -> TaskGroup | None:
        """Return the task group of a sub-pipeline, with those around it; None for the pipeline itself."""
        if not name or name not in {step.group[: len(name)] for step in self._graph.steps}:
            return None
        if name not in self._groups:
            parent, _, own = name.rpartition(".")
            self._groups[name] = TaskGroup(
                # A group's id has no dots, and no task has one with two underscores in their place.
                name.replace(".", "__"),
                group_display_name=own,
                prefix_group_id=False,
                parent_group=self._group(parent),
            )
        return self._groups[name]


def _doc(step: Step) -> str:
    source = step.source
    where = f", {source['file']} line {source['line']}" if source.get("file") and source.get("line") else ""
    asked = "".join(f", {name} {value}" for name, value in step.resources.items())
    return f"Task `{step.task}`{where}; engine {step.engine}{asked}."
