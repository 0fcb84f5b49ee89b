"""Checks of what has to do with a plain DAG file: who writes its Pipeline, what its runs cannot do.

All but the last line of a refusal is the same everywhere: reason `PLAIN_DAG`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.errors import FieldViolation
from api.kinds import Resource
from api.pipeline_dags import plain_dag
from api.plain_dags import DAG_ANNOTATION, changes, dag_in, refused
from api.resources import Resources
from api.store.base import Key

Found = Sequence[FieldViolation]
MADE_BY_TAG = "a DAG in Airflow with the tag michelangelo:PROJECT/PIPELINE becomes a Pipeline by itself"


async def admit_plain_pipeline(resources: Resources, old: Any | None, new: Any) -> Found:
    """The platform alone says which DAG a pipeline is, and what Airflow says of it."""
    if resources.call.principal.kind == "system":
        return []
    if old is not None and plain_dag(old):
        return list(changes(old.spec, new.spec))
    return named_faults(new.spec.manifest, "spec.manifest")


def named_faults(manifest: Any, path: str) -> list[FieldViolation]:
    """Return the fault of a manifest that somebody writes and that names a plain DAG."""
    return [refused(f"{path}.content", MADE_BY_TAG)] if dag_in(manifest) else []


async def admit_plain_run(resources: Resources, old: Any | None, new: Any) -> Found:
    """Note whose DAG a new run is of, in place; refuse what needs a DAG that the platform builds."""
    noted, annotations = "", new.metadata.annotations
    found: list[FieldViolation] = []
    if old is not None:
        noted = old.metadata.annotations.get(DAG_ANNOTATION, "")
    elif not new.spec.HasField("pipeline_spec"):
        noted = await _dag(resources, new)
    annotations.pop(DAG_ANNOTATION, None)
    if noted:
        annotations[DAG_ANNOTATION] = noted
    if noted and old is None:
        if new.spec.revision.name:
            found.append(refused("spec.revision", "Airflow runs what its file says now; leave the revision out"))
        if new.spec.HasField("resume"):
            told = "its tasks take nothing over from an earlier run; retry a step of that run, or begin anew"
            found.append(refused("spec.resume", told))
    return found


async def admit_plain_trigger(resources: Resources, old: Any | None, new: Any) -> Found:
    """A trigger of a plain DAG starts what its file says at each instant."""
    if old is not None or new.spec.auto_flip or not await _dag(resources, new):
        return []
    told = "a trigger keeps no revision of it; set autoFlip, and runs are of what the file says then"
    return [refused("spec.auto_flip", told)]


async def _dag(resources: Resources, new: Resource) -> str:
    """Return the plain DAG of the pipeline that a run or a trigger names, empty if it is none."""
    named: Any = new
    reference = named.spec.pipeline
    if not reference.name:
        return ""
    pipeline = await resources.find(Key("Pipeline", reference.namespace or named.metadata.namespace, reference.name))
    return "" if pipeline is None else plain_dag(pipeline)
