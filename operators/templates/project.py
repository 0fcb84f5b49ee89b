"""The DAGs of a project, from its manifests.  Called by the project's generated file; parses one DAG inside a task.

Every task's process comes here first: what builds a kind of DAG is imported when there is one (0.4 s of 0.5 otherwise).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import DAG, BaseOperator, get_parsing_context
from airflow.sdk.definitions.param import ParamsDict

from api.config import load
from operators.templates import params

HIDDEN = params.HIDDEN
OF_RUNS, OF_TRIGGER = ".hidden.json", ".trigger.json"
"""How the names of manifests end that are not those of pipelines."""

log = logging.getLogger(__name__)


def dags_of_project(project: str) -> dict[str, DAG]:
    """Return the DAGs of a project by the global name that Airflow's parser finds them under.

    One manifest that cannot be built leaves the others: a DAG that says why stands for it if it can be named at all.
    """
    wanted = get_parsing_context().dag_id
    found: dict[str, DAG] = {}
    for path in _paths(load().manifests_path / project, wanted):
        try:
            manifest = json.loads(path.read_text())
            name = dag_id_of(manifest)
            if wanted is None or wanted == name:
                found[f"dag_{len(found)}"] = _built_or_broken(manifest, name, path)
        except Exception:
            log.exception("manifest %s cannot be read", path.name)
    return found


def _paths(folder: Path, wanted: str | None) -> Sequence[Path]:
    """Return the manifests to read: all of a project, or where the one of a DAG may be."""
    if wanted is not None:
        name = wanted.partition(".")[2]
        named = [folder / f"{name}{ending}" for ending in (".json", OF_RUNS, OF_TRIGGER)]
        if found := [path for path in named if path.exists()]:
            return found
    return sorted(folder.glob("*.json"))


def _built_or_broken(manifest: Mapping[str, Any], name: str, path: Path) -> DAG:
    try:
        return build(manifest)
    except Exception as error:
        from operators.templates.broken import broken_dag

        log.exception("manifest %s cannot be built", path.name)
        return broken_dag(manifest, error, dag_id=name)


def dag_id_of(manifest: Mapping[str, Any]) -> str:
    """Return the DAG id of a manifest.  Raises ValueError for a kind that is no DAG."""
    if manifest["kind"] == "TriggerRun":
        return f"{manifest['project']}.{manifest['pipeline']}.{manifest['name']}"
    if manifest["kind"] not in ("Pipeline", "Events"):
        raise ValueError(f"a {manifest['kind']!r} is no DAG")
    return f"{manifest['project']}.{manifest['name']}"


def build(manifest: Mapping[str, Any]) -> DAG:
    """Return the DAG of one manifest.  Raises what its parts raise: ValueError for what they do not know."""
    dag = _built(manifest)
    for task in dag.tasks:
        # Each has a copy of all of the DAG's, which come to it anyway.  Airflow checks every schema of every copy
        # several times to write a DAG down: nine tenths of what a parse costs.  What a run is given is set in the
        # copy that a task has, so that of the hidden one stays: the DAG's says whose it is.
        if isinstance(task, BaseOperator):
            own: Any = task.params
            task.params = ParamsDict({name: own.get_param(name) for name in own if name == HIDDEN})
    return dag


def _built(manifest: Mapping[str, Any]) -> DAG:
    name = dag_id_of(manifest)
    tags = [f"project:{manifest['project']}", *manifest["tags"]]
    if manifest["kind"] == "TriggerRun":
        from operators.templates.trigger import trigger_dag

        return trigger_dag(manifest, dag_id=name, tags=["trigger", *tags])
    if manifest["kind"] == "Events":
        from operators.templates.event_graph import event_graph_dag

        return event_graph_dag(manifest, dag_id=name, tags=tags)
    described = {
        "project": manifest["project"],
        # A DAG of a revision's own is not named as its pipeline.
        "pipeline": manifest.get("pipeline", manifest["name"]),
        "root_dir": manifest["root_dir"],
        "revision": manifest["revision"],
    }
    settings: dict[str, Any] = {
        "tags": ["pipeline", manifest["type"].lower(), f"template:{manifest['template']}", *tags],
        "doc_md": _doc(manifest),
        "description": _description(manifest) or None,
        "owner": manifest["owner"],
        "max_active_runs": manifest["max_active_runs"],
        "start_date": pendulum.datetime(2020, 1, 1),
        "catchup": False,
    }
    if manifest["steps"]:
        from operators.templates.steps import steps_dag

        return steps_dag(manifest["steps"], dag_id=name, described=described, **settings)
    if manifest.get("graph"):
        from operators.templates.authored import authored_dag

        return authored_dag(manifest["graph"], manifest["code"], dag_id=name, described=described, **settings)
    from operators.templates.registry import TEMPLATES, template_dag

    if manifest["template"] not in TEMPLATES:
        raise ValueError(f"there is no template {manifest['template']!r}: use {', '.join(TEMPLATES)}")
    values = {**manifest["params"], HIDDEN: described}
    return template_dag(manifest["template"], dag_id=name, values=values, **settings)


def _description(manifest: Mapping[str, Any]) -> str:
    """Return what a pipeline says of itself; one in Python without a description, the head of its docstring."""
    doc = (manifest.get("graph") or {}).get("doc", "")
    return str(manifest["description"] or " ".join(doc.partition("\n\n")[0].split()))


def _doc(manifest: Mapping[str, Any]) -> str:
    owner = f"  \nOwner: {manifest['owner']}" if manifest["owner"] else ""
    name = manifest.get("pipeline", manifest["name"])
    return (
        f"{_description(manifest)}\n\nPipeline **{name}** of project **{manifest['project']}**, "
        f"revision `{manifest['revision']}`, template `{manifest['template']}`.{owner}"
    )
