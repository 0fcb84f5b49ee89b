"""A plain DAG file of Airflow's as a Pipeline: its tag, and what of the DAG stands in the spec.  Pure; reads no file.

A DAG with the tag `michelangelo:PROJECT/PIPELINE` is that Pipeline.  Its file is Airflow's alone: the platform is told
of the DAG by Airflow's API and never imports it.  `manifest.content` holds a TypedStruct `michelangelo.airflow/Dag`
{"dag_id", "version", "bundle", "bundle_version"}; a DAG that changes gets another version, and its Pipeline another
revision.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema
from google.protobuf.message import DecodeError

from api.errors import FieldViolation
from api.gen.michelangelo.api import typed_struct_pb2
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.validation import shown

DAG_TYPE = "michelangelo.airflow/Dag"
# Whose DAG a run is of: written by the platform alone, when the run is made.
DAG_ANNOTATION = "michelangelo.airflow/dag"
PREFIX = "michelangelo:"
TAG = re.compile(r"michelangelo:([a-z0-9]([a-z0-9-]*[a-z0-9])?)/([a-z0-9]([a-z0-9-]*[a-z0-9])?)\Z")
REASON = "PLAIN_DAG"
LONGEST_DESCRIPTION = 500
LONGEST_OWNER = 200
# Fields of a Pipeline's spec that say what Airflow says.
FROM_AIRFLOW = ("description", "owner", "commit")
REFERENCES = ('"$ref"', '"$dynamicRef"', '"$recursiveRef"', '"$schema"')


def tag_of(project: str, pipeline: str) -> str:
    """Return the tag of a pipeline's DAG."""
    return f"{PREFIX}{project}/{pipeline}"


def place_of(tag: str) -> tuple[str, str] | None:
    """Return project and pipeline of a tag, None for one that names none."""
    found = TAG.match(tag)
    return (found[1], found[3]) if found else None


def dag_in(manifest: Any) -> str:
    """Return the DAG that a manifest names, empty if it is not of a plain DAG file."""
    content = typed_struct_pb2.TypedStruct()
    try:
        named = manifest.content.Unpack(content) and content.type_url == DAG_TYPE
    except DecodeError:
        return ""
    return str(content.value.fields["dag_id"].string_value) if named else ""


def tags_among(tags: Sequence[str]) -> list[str]:
    """Return those of a DAG's tags that are for the platform."""
    return [tag for tag in tags if tag.startswith(PREFIX)]


def fault_of(tag: str, dags: Sequence[Any]) -> str:
    """Return why the DAGs with a tag are no Pipeline, with a reason in front; empty if they are one."""
    if place_of(tag) is None:
        known = "michelangelo:PROJECT/PIPELINE, names in small letters, digits and '-'"
        return f"BAD_DAG_TAG: {shown(tag)!r} of {_named(dags)} names no pipeline: write {known}"
    if len(dags) > 1:
        return f"TWO_DAGS: the tag {tag} stands in {_named(dags)}: leave it in one of them"
    if dags and len(own := tags_among(dags[0].tags)) > 1:
        return f"TWO_TAGS: {_named(dags)} has the tags {' and '.join(sorted(own))}: leave it one"
    return ""


def name_taken(dag: Any, project: str, pipeline: str) -> str:
    """Return why a DAG is no Pipeline whose name somebody took."""
    told = "which was applied already: name another in the tag, or delete that one"
    return f"NAME_TAKEN: DAG {dag.dag_id} ({dag.file}) is tagged as Pipeline {project}/{pipeline}, {told}"


def _named(dags: Sequence[Any]) -> str:
    told = [f"DAG {dag.dag_id} ({dag.file})" for dag in sorted(dags, key=lambda dag: str(dag.dag_id))[:5]]
    return " and ".join(told) or "a DAG"


def fill(spec: pipeline_pb2.PipelineSpec, dag: Any, version: Any) -> None:
    """Write into a Pipeline's spec, in place, what Airflow says of its DAG."""
    spec.manifest.Clear()
    spec.manifest.type = pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML
    spec.manifest.file_path = dag.file
    content = typed_struct_pb2.TypedStruct(type_url=DAG_TYPE)
    told = {"dag_id": dag.dag_id, "version": version.number, "bundle": version.bundle}
    content.value.update({**told, **({"bundle_version": version.bundle_version} if version.bundle_version else {})})
    spec.manifest.content.Pack(content, deterministic=True)
    spec.description = dag.description[:LONGEST_DESCRIPTION]
    spec.ClearField("owner")
    if dag.owners:
        spec.owner.name = ", ".join(dag.owners)[:LONGEST_OWNER]
    spec.ClearField("commit")


def changes(old: Any, new: Any) -> Iterator[FieldViolation]:
    """Yield what is changed of a spec that says what Airflow says."""
    told = "says what Airflow says of a plain DAG: change its file, or take its tag away"
    for part, names in (("", FROM_AIRFLOW), ("manifest.", tuple(old.manifest.DESCRIPTOR.fields_by_name))):
        before, after = (spec.manifest if part else spec for spec in (old, new))
        for name in names:
            if getattr(before, name) != getattr(after, name):
                yield FieldViolation(f"spec.{part}{name}", told, reason=REASON)


def refused(path: str, told: str) -> FieldViolation:
    """Return the refusal of what cannot be done with a plain DAG."""
    return FieldViolation(path, f"cannot be had of a plain DAG: {told}", reason=REASON)


def schemas_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of each of a DAG's params, with its default.

    One that is no schema, or refers elsewhere, becomes one that takes everything: Airflow checks what is sent to it.
    """
    return {name: _schema(param.get("schema"), param.get("value")) for name, param in params.items()}


def _schema(schema: Any, default: Any) -> dict[str, Any]:
    found = dict(schema) if isinstance(schema, Mapping) and _usable(schema) else {}
    if default is not None and jsonschema.Draft202012Validator(found).is_valid(default):
        found["default"] = default
    return found


def _usable(schema: Mapping[str, Any]) -> bool:
    text = json.dumps(schema)
    if any(word in text for word in REFERENCES):
        return False
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        return False
    return True


def bounded(value: Any, most: int = 4096) -> Any:
    """Return what a task of a plain DAG returned as it may stand in a status: all of it if it is small, else its size.

    What is no JSON, such as NaN, becomes its text.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        text = repr(value)
        return {"value": text} if len(text) <= most else _size(text)
    return value if len(text) <= most else _size(text)


def _size(text: str) -> dict[str, Any]:
    return {"shortened": text[:200], "characters": len(text)}
