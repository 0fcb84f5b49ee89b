"""What a Pipeline's manifest asks for: a template with parameters, a graph of steps, or Python.  Pure; no Airflow.

`manifest.content` holds a TypedStruct: `michelangelo.airflow/Template` (parameter values; `filePath` names the
template) or `michelangelo.airflow/Steps` ({"steps": [{"name", "operator", "needs", "with"}]}); that of a pipeline
written in Python is read by `api.uniflow`, that of a plain DAG file is made by `api.plain_dags`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jsonschema
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from api.errors import FieldViolation
from api.gen.michelangelo.api import typed_struct_pb2
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.plain_dags import DAG_TYPE
from api.steps import step_faults
from api.uniflow import GRAPH_TYPE, Authored
from api.uniflow import read as read_authored
from api.validation import nearest, shown

TEMPLATE_TYPE = "michelangelo.airflow/Template"
STEPS_TYPE = "michelangelo.airflow/Steps"
WORKFLOW_TYPE = "michelangelo.airflow/RegisteredWorkflow"
STEPS_TEMPLATE = "steps"
PYTHON_TEMPLATE = "python"
DAG_TEMPLATE = "dag"
HIDDEN_PARAM = "ma"
MOST_HINTS = 20


@dataclass(frozen=True)
class Workflow:
    """What to build: `params` over a template's defaults, or `steps`, or what was `authored` in Python.

    dag: of a plain DAG file, of which nothing is built.
    """

    template: str
    params: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]] = ()
    authored: Authored = field(default_factory=Authored)
    dag: str = ""


def plain(value: Any) -> Any:
    """Return a Struct as JSON values; whole numbers become int again, as they were written."""
    return _whole(json_format.MessageToDict(value))


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value


def typed(type_url: str, value: Mapping[str, Any]) -> typed_struct_pb2.TypedStruct:
    """Return JSON of a named type, to be packed into an Any."""
    message = typed_struct_pb2.TypedStruct(type_url=type_url)
    message.value.update(value)
    return message


def spec_hash(spec: Any) -> str:
    """Return the digest of a spec: the same spec, the same revision, whoever packed its content."""
    if isinstance(spec, pipeline_pb2.PipelineSpec):
        spec = _canonical(spec)
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()


def _canonical(spec: pipeline_pb2.PipelineSpec) -> pipeline_pb2.PipelineSpec:
    """Return a spec whose content is packed in one order of its fields: each process has its own."""
    struct = typed_struct_pb2.TypedStruct()
    try:
        if not spec.manifest.content.Unpack(struct):
            return spec
    except DecodeError:
        return spec
    copied = pipeline_pb2.PipelineSpec()
    copied.CopyFrom(spec)
    copied.manifest.content.Pack(struct, deterministic=True)
    return copied


def is_built(pipeline: Any) -> bool:
    """Whether a pipeline's status speaks of its present spec, not of an earlier one."""
    return bool(pipeline.status.build_id == spec_hash(pipeline.spec))


def content(spec: pipeline_pb2.PipelineSpec) -> tuple[str, Mapping[str, Any]]:
    """Return the type and value of a manifest's content; an empty type when there is none."""
    struct = typed_struct_pb2.TypedStruct()
    if not spec.manifest.content.Unpack(struct):
        return "", {}
    return struct.type_url, plain(struct.value)


def parse(spec: pipeline_pb2.PipelineSpec, path: str = "spec.manifest") -> tuple[Workflow, list[FieldViolation]]:
    """Return the workflow of a pipeline and every fault of its manifest, which stands at `path`."""
    kind, value = content(spec)
    if spec.manifest.type == pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_UNIFLOW or kind == GRAPH_TYPE:
        authored, faults = read_authored(spec.manifest, kind, value, path)
        return Workflow(PYTHON_TEMPLATE, {}, authored=authored), faults
    if kind == STEPS_TYPE:
        steps = value.get("steps")
        return Workflow(STEPS_TEMPLATE, {}, steps or ()), list(step_faults(steps, f"{path}.content.steps"))
    if kind == DAG_TYPE:
        return Workflow(DAG_TEMPLATE, {}, dag=str(value.get("dag_id") or "")), []
    found = []
    if spec.manifest.HasField("content") and kind != TEMPLATE_TYPE:
        named = kind or spec.manifest.content.type_url
        found.append(
            FieldViolation(f"{path}.content", f"must be a TypedStruct of {TEMPLATE_TYPE} or {STEPS_TYPE}", shown(named))
        )
    if not spec.manifest.file_path:
        found.append(FieldViolation(f"{path}.file_path", "names the template to run, for example train_and_deploy"))
    return Workflow(spec.manifest.file_path, value), found


def param_faults(schemas: Mapping[str, Any], given: Mapping[str, Any], path: str) -> list[FieldViolation]:
    """Check parameter values against a template's JSON Schemas: every fault in one answer."""
    found: list[FieldViolation] = []
    for name, value in given.items():
        if name not in schemas or name == HIDDEN_PARAM:
            known = [other for other in schemas if other != HIDDEN_PARAM]
            hint = nearest(name, known) if len(found) < MOST_HINTS else ""
            found.append(FieldViolation(f"{path}.{name}", f"is no parameter of this pipeline{hint}"))
            continue
        for error in _validator(schemas[name]).iter_errors(value):
            at = ".".join(str(part) for part in (path, name, *error.absolute_path))
            found.append(FieldViolation(at, _explained(error), shown(value)))
    return found


def _validator(schema: Mapping[str, Any]) -> jsonschema.Draft202012Validator:
    """Return what checks as Airflow does, formats too: what is stored here is not refused there."""
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


def _explained(error: jsonschema.ValidationError) -> str:
    return f"{shown(error.instance)} {_RULES.get(str(error.validator), 'is refused by')} {shown(error.validator_value)}"


_RULES = {
    "type": "is not of type",
    "enum": "is none of",
    "minimum": "is less than",
    "maximum": "is more than",
    "exclusiveMinimum": "is not more than",
    "exclusiveMaximum": "is not less than",
    "minLength": "is shorter than",
    "maxLength": "is longer than",
    "pattern": "does not match",
    "format": "has not the format",
}


def schema_of(schema: Mapping[str, Any], default: Any) -> dict[str, Any]:
    """Return a parameter's schema with its default, if the template's value is one: a placeholder is not."""
    if default is None or not _validator(schema).is_valid(default):
        return dict(schema)
    return {**schema, "default": default}


def missing_params(schemas: Mapping[str, Any], values: Mapping[str, Any], path: str) -> list[FieldViolation]:
    """Return the parameters that have no value and may not be null."""
    return [
        FieldViolation(f"{path}.{name}", "is required")
        for name, schema in schemas.items()
        if name != HIDDEN_PARAM and values.get(name) is None and not _validator(schema).is_valid(None)
    ]
