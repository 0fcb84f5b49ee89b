"""Which DAG a pipeline or a run has, and the manifest that Airflow builds a pipeline's DAG from.  Pure; no Airflow.

A run of the pipeline as it is has the pipeline's DAG.  A run that names a revision has a DAG of that revision's own:
what it runs is not changed by a later apply.  Airflow shows such a DAG while it has runs that go on.  A pipeline that
is a plain DAG file has that DAG, under whatever name, and no other.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.plain_dags import DAG_ANNOTATION, dag_in
from api.workflows import Workflow, spec_hash

MOST_ACTIVE_RUNS = 16
LONG_ENOUGH = 12
# No name of a resource holds '_': no trigger's DAG is taken for a revision's.
OF_REVISION = ".rev_"
LONGEST_SUFFIX = 24
SUFFIX = re.compile(r"[a-z0-9-]+\Z")


def dag_id(project: str, pipeline: str) -> str:
    """Return the DAG of a pipeline."""
    return f"{project}.{pipeline}"


def revision_tag(pipeline: Any) -> str:
    """Return the DAG tag by which a parsed DAG shows which spec it was built from."""
    return f"spec:{spec_hash(pipeline.spec)[:LONG_ENOUGH]}"


def revision_dag(project: str, pipeline: str, revision: str) -> str:
    """Return the DAG of a revision's own."""
    suffix = revision.removeprefix(f"pipeline-{pipeline}-")
    if suffix == revision or len(suffix) > LONGEST_SUFFIX or SUFFIX.match(suffix) is None:
        suffix = "_" + hashlib.sha256(revision.encode()).hexdigest()[:LONG_ENOUGH]
    return f"{dag_id(project, pipeline)}{OF_REVISION}{suffix}"


def plain_dag(pipeline: Any) -> str:
    """Return the DAG of a pipeline that is a plain DAG file, empty for every other."""
    return dag_in(pipeline.spec.manifest)


def dag_of_pipeline(pipeline: Any) -> str:
    """Return the DAG of a pipeline, whoever made it."""
    return plain_dag(pipeline) or dag_id(pipeline.metadata.namespace, pipeline.metadata.name)


def dag_of(run: Any) -> str:
    """Return the DAG of a PipelineRun: of its inline pipeline, of the revision that it names, or of its pipeline."""
    project = run.spec.pipeline.namespace or run.metadata.namespace
    if plain := run.metadata.annotations.get(DAG_ANNOTATION):
        return str(plain)
    if run.spec.HasField("pipeline_spec"):
        return f"{run.metadata.namespace}.dev-{spec_hash(run.spec.pipeline_spec)[:LONG_ENOUGH]}"
    if run.spec.revision.name:
        return revision_dag(project, run.spec.pipeline.name, run.spec.revision.name)
    return dag_id(project, run.spec.pipeline.name)


def has_own_dag(run: Any) -> bool:
    """Whether the DAG of a PipelineRun lives for such runs alone, not for the pipeline."""
    return bool(run.spec.HasField("pipeline_spec") or run.spec.revision.name)


def pipeline_of(dag: str) -> tuple[str, str]:
    """Return the project and the pipeline of a DAG, whether it is the pipeline's or one of its revisions'."""
    project, _, rest = dag.partition(".")
    return project, rest.partition(OF_REVISION)[0]


def pipeline_manifest(pipeline: Any, workflow: Workflow, *, root_dir: str, revision: str) -> dict[str, Any]:
    """Return what the DAG of a pipeline is built from.  `revision`: the name of this state of it."""
    spec, metadata = pipeline.spec, pipeline.metadata
    return {
        "kind": "Pipeline",
        "project": metadata.namespace,
        "name": metadata.name,
        "uid": metadata.uid,
        "revision": revision,
        "template": workflow.template,
        "params": dict(workflow.params),
        "steps": list(workflow.steps),
        **({"graph": workflow.authored.graph, "code": workflow.authored.code} if workflow.authored.graph else {}),
        "description": spec.description,
        "owner": spec.owner.name,
        "type": pipeline_pb2.PipelineType.Name(spec.type).removeprefix("PIPELINE_TYPE_"),
        "tags": [revision_tag(pipeline)],
        "root_dir": root_dir,
        "max_active_runs": MOST_ACTIVE_RUNS,
    }


def hidden_manifest(manifest: dict[str, Any], dag: str) -> dict[str, Any]:
    """Return the manifest of the same pipeline in a DAG of its own, which goes when its last run ended."""
    hidden = {"pipeline": manifest["name"], "name": dag.partition(".")[2], "hidden": True}
    return {**manifest, **hidden, "tags": [*manifest["tags"], "revision"]}
