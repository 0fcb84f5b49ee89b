"""The model registry: MLflow, embedded.  The only way to MLflow; writes runs, versions and aliases, reads champions.

A model is logged as files with a loader, never as a pickle, and with explicit requirements: MLflow would otherwise
start a process to find them out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from operators.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

LOADER = "operators.features.scorer"
OWNER_TAG = "michelangelo.owner"
CHAMPION = "champion"
ARTIFACT = "artifact"
"""Name of the folder that is registered: MLflow keeps it as `data/artifact` in the logged model."""
TYPES = {
    "string": DataType.string,
    "double": DataType.double,
    "long": DataType.double,
    "bool": DataType.double,
    "timestamp": DataType.datetime,
}
"""Whole numbers and booleans are doubles: they may be missing, which MLflow's own integers may not."""


@dataclass(frozen=True)
class Registration:
    """What is registered.

    owner: id of the work that registers; the same owner registers once, however often it tries.
    artifact: local folder called `artifact`.  inputs: the graph's inputs ({name, dtype}).  example: some rows of them.
    """

    name: str
    owner: str
    artifact: Path
    inputs: list[Mapping[str, Any]]
    example: pd.DataFrame
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """A registered version.  `artifact_uri`: the served artifact inside of the logged model."""

    name: str
    version: int
    uri: str
    artifact_uri: str


class ModelRegistry:
    """The registry in a folder: a SQLite file and the logged models beside it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._folder = folder
        self._uri = f"sqlite:///{folder / 'mlflow.db'}"
        mlflow.set_tracking_uri(self._uri)
        mlflow.set_registry_uri(self._uri)
        self._client = mlflow.MlflowClient(self._uri, self._uri)

    def register(self, registration: Registration, *, experiment: str) -> Version:
        """Log the model, register a version and give it the alias `champion`; find what an earlier try did."""
        found = self._registered(registration)
        if found is None:
            found = self._log(registration, experiment)
        self._client.set_registered_model_alias(registration.name, CHAMPION, str(found.version))
        return found

    def champion(self, name: str) -> Version:
        """Return the version with the alias.  Raises UserError if there is none."""
        try:
            return self._version(self._client.get_model_version_by_alias(name, CHAMPION))
        except MlflowException:
            raise UserError(
                f"registered model {name!r} has no version with the alias {CHAMPION!r}: train one"
            ) from None

    def _registered(self, registration: Registration) -> Version | None:
        # An owner holds no quotes: it is a uid, or made of a DAG id and a run id, which Airflow checks.
        query = f"name = '{registration.name}' AND tags.`{OWNER_TAG}` = '{registration.owner}'"
        for found in self._client.search_model_versions(query):
            return self._version(found)
        return None

    def _log(self, registration: Registration, experiment: str) -> Version:
        tags = {**registration.tags, OWNER_TAG: registration.owner}
        with mlflow.start_run(
            experiment_id=self._experiment(experiment), run_name=registration.owner, tags=tags
        ) as run:
            mlflow.log_params(dict(registration.params))
            mlflow.log_metrics(dict(registration.metrics))
            logged = mlflow.pyfunc.log_model(
                name="model",
                loader_module=LOADER,
                data_path=str(registration.artifact),
                signature=_signature(registration.inputs),
                input_example=registration.example,
                pip_requirements=["michelangelo-airflow"],
            )
        try:
            self._client.create_registered_model(registration.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = self._client.create_model_version(
            registration.name, logged.model_uri, run_id=run.info.run_id, tags=tags, model_id=logged.model_id
        )
        return self._version(version)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = (self._folder / "artifacts" / name).as_uri()
        try:
            return str(self._client.create_experiment(name, artifact_location=location))
        except MlflowException:
            made = self._client.get_experiment_by_name(name)
            if made is None:
                raise
            return str(made.experiment_id)

    def _version(self, found: Any) -> Version:
        name, version = str(found.name), int(found.version)
        logged = self._client.get_model_version_download_uri(name, str(version)).rstrip("/")
        return Version(name, version, f"models:/{name}/{version}", f"{logged}/data/{ARTIFACT}")


def _signature(inputs: list[Mapping[str, Any]]) -> ModelSignature:
    columns: list[Any] = [ColSpec(TYPES[item["dtype"]], item["name"]) for item in inputs]
    return ModelSignature(inputs=Schema(columns), outputs=Schema([ColSpec(DataType.double, "probability")]))
