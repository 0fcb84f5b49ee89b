"""The Model resource of a registered version: what the API tells about it.  Registers nothing in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.client import Client
from api.errors import AlreadyExists
from operators.data import dataset
from operators.errors import UserError

MLFLOW_ANNOTATION = "michelangelo.airflow/mlflow-uri"


def create_model(
    api: Client,
    args: Mapping[str, Any],
    described: dataset.Description,
    version: int,
    artifact_uri: str,
    mlflow_uri: str,
) -> str:
    """Create Model `{model_name}-{version}` and its ModelFamily, or find them; return the name of the Model."""
    from api.kinds import kinds

    project, family_name = args["run"]["project"], args["model_name"]
    _ensure(api, _family(kinds()["ModelFamily"].new(project, family_name), family_name))
    model = kinds()["Model"].new(project, f"{family_name}-{version}")
    model.metadata.annotations[MLFLOW_ANNOTATION] = mlflow_uri
    _fill(model.spec, args, described, version)
    model.spec.deployable_artifact_uri.append(artifact_uri)
    model.spec.model_artifact_uri.append(args["model_uri"])
    _ensure(api, model)
    return str(model.metadata.name)


def artifact_of(api: Client, project: str, name: str) -> str:
    """Return the URI of the served form of Model `name`.  Raises UserError if there is none."""
    model = api.find("Model", project, name)
    if model is None:
        raise UserError(f"there is no Model {name!r} in project {project!r}")
    if not model.spec.deployable_artifact_uri:
        raise UserError(f"Model {name!r} has no artifact that can be served")
    return str(model.spec.deployable_artifact_uri[0])


def _ensure(api: Client, resource: Any) -> None:
    try:
        api.create(resource)
    except AlreadyExists:
        return


def _family(family: Any, name: str) -> Any:
    family.spec.name = name
    return family


def _fill(spec: Any, args: Mapping[str, Any], described: dataset.Description, version: int) -> None:
    from api.gen.michelangelo.api.v2 import model_pb2 as wire

    run = args["run"]
    spec.description = f"{run['pipeline']}: {described.label}, trained by {run['pipeline_run'] or run['run_id']}"[:768]
    spec.kind = wire.MODEL_KIND_BINARY_CLASSIFICATION
    spec.algorithm = "lightgbm"
    spec.training_framework = "lightgbm"
    spec.source = "pipeline"
    spec.revision_id = version
    spec.positive_label = "1"
    spec.package_type = wire.DEPLOYABLE_MODEL_PACKAGE_TYPE_RAW
    spec.sealed = True
    for field, name in (
        (spec.source_pipeline_run, run["pipeline_run"]),
        (spec.performance_evaluation_report, args["report"]),
        (spec.model_family, args["model_name"]),
    ):
        if name:
            field.namespace, field.name = run["project"], name
    _schema(spec.input_schema, {item["name"]: item["dtype"] for item in described.request})
    features = {item["input"]: item["dtype"] for view in described.views for item in view["features"]}
    _schema(spec.derived_fields, features)
    _schema(spec.output_schema, {"probability": "double"})


def _schema(schema: Any, columns: Mapping[str, str]) -> None:
    from api.gen.michelangelo.api.v2 import schema_pb2 as wire

    types = {
        "string": wire.DATA_TYPE_STRING,
        "double": wire.DATA_TYPE_DOUBLE,
        "long": wire.DATA_TYPE_LONG,
        "bool": wire.DATA_TYPE_BOOLEAN,
        "timestamp": wire.DATA_TYPE_STRING,
    }
    for name, dtype in columns.items():
        schema.schema_items.add(name=name, data_type=types[dtype])
