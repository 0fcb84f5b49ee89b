"""Program of RegisterModel: makes the served form, proves that it answers as the trained one, and only then registers.

Nothing is registered that was not compared: on every held-out row, and on rows with everything missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from api.client import Client
from api.config import load
from operators.data import dataset
from operators.data.layout import folder_of, path_of
from operators.errors import UserError
from operators.features import artifact
from operators.features.graph import MISSING
from operators.features.scorer import Scorer, columns_of
from operators.jobs.model_resource import create_model
from operators.jobs.served_form import to_onnx
from operators.jobs.train import FULL, TrainedModel

if TYPE_CHECKING:
    import lightgbm

TOLERANCE = 1e-5
GOLDEN_ROWS = 32
ARTIFACT = "artifact"
MISSING_BY_DTYPE: Mapping[str, Any] = {"string": "", "timestamp": MISSING}
Convert = Callable[["lightgbm.Booster"], bytes]


def run(args: Mapping[str, Any], *, convert: Convert = to_onnx) -> dict[str, str]:
    """Args: run, dataset_uri, model_uri, report, model_name.  Raises UserError if the forms differ."""
    described = dataset.describe(args["dataset_uri"])
    trained_uri = path_of(args["model_uri"])
    trained = TrainedModel(trained_uri / FULL)
    held_out = dataset.part(args["dataset_uri"], "test")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    folder = folder_of(args["run"], ARTIFACT)
    files = _files(described, trained, held_out, convert(trained.booster))
    artifact.write(folder, files, name=args["model_name"], created=created)
    difference = compare(trained, Scorer(artifact.load(folder.as_uri())), held_out)
    print(f"served form: {len(held_out):,} held-out rows, largest difference {difference:.2e}")
    version = _register(args, described, trained, held_out, folder)
    with Client.of(load()) as api:
        name = create_model(api, args, described, version.version, version.artifact_uri, version.uri)
    return {"model": name, "model_version": str(version.version), "mlflow_uri": version.uri}


def compare(trained: TrainedModel, served: Scorer, held_out: pd.DataFrame) -> float:
    """Return the largest difference of the two forms.  Raises UserError, naming the row, if it is over `TOLERANCE`."""
    columns = columns_of(trained.graph, held_out)
    nothing = {
        item.name: np.full(1, MISSING_BY_DTYPE.get(item.dtype, np.nan), columns[item.name].dtype)
        for item in trained.graph.inputs
    }
    largest = 0.0
    for title, given in (("held-out row", columns), ("a row with everything missing", nothing)):
        expected = np.asarray(trained.booster.predict(trained.graph.transform(given)))
        differences = np.abs(expected - served.predict(given))
        worst = int(differences.argmax())
        if not differences[worst] <= TOLERANCE:
            raise UserError(
                f"the served form is not the trained model: {title} {worst} gives {served.predict(given)[worst]:.6f}, "
                f"trained {expected[worst]:.6f} (allowed difference {TOLERANCE:g}); nothing was registered"
            )
        largest = max(largest, float(differences[worst]))
    return largest


def _files(
    described: dataset.Description, trained: TrainedModel, held_out: pd.DataFrame, model: bytes
) -> dict[str, bytes]:
    step = max(1, len(held_out) // GOLDEN_ROWS)
    rows = held_out.iloc[::step].head(GOLDEN_ROWS)
    columns = columns_of(trained.graph, rows)
    documents = {
        "features.json": {"project": described.feature_project, "views": list(described.views)},
        "signature.json": {
            "inputs": list(described.request),
            "outputs": [{"name": "probability", "dtype": "double"}],
        },
        "golden.json": {
            "columns": {name: _plain(values) for name, values in columns.items()},
            "expected": trained.predict(rows).tolist(),
            "tolerance": TOLERANCE,
        },
    }
    return {
        "graph.json": trained.graph.to_json().encode(),
        "model.onnx": model,
        **{name: json.dumps(document).encode() for name, document in documents.items()},
    }


def _plain(values: np.ndarray[Any, Any]) -> list[Any]:
    return [None if isinstance(value, float) and np.isnan(value) else value for value in values.tolist()]


def _register(
    args: Mapping[str, Any], described: dataset.Description, trained: TrainedModel, held_out: pd.DataFrame, folder: Path
) -> Any:
    from operators.hooks.mlflow import ModelRegistry, Registration

    run = args["run"]
    names = [item.name for item in trained.graph.inputs]
    training = json.loads((path_of(args["model_uri"]) / "training.json").read_text())
    registration = Registration(
        name=f"{run['project']}.{args['model_name']}",
        owner=f"{run['uid']}/{run['run_id']}",
        artifact=folder,
        inputs=[{"name": item.name, "dtype": item.dtype} for item in trained.graph.inputs],
        example=_example(held_out[names].head(5)),
        metrics=_metrics(args),
        params={**training["hyperparameters"], "rounds": training["rounds"]},
        tags=_lineage(args, described),
    )
    return ModelRegistry(load().mlflow_path).register(registration, experiment=run["project"])


def _example(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows as MLflow's signature types: timestamps without a zone, numbers as doubles."""
    found = {}
    for name, column in rows.items():
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            found[name] = column.dt.tz_convert("UTC").dt.tz_localize(None)
        else:
            found[name] = column if column.dtype == object else column.astype(float)
    return pd.DataFrame(found)


def _metrics(args: Mapping[str, Any]) -> dict[str, float]:
    report = folder_of(args["run"], "report") / "report.json"
    if not report.is_file():
        return {}
    measured = json.loads(report.read_text())["test"]["model"]
    return {f"test_{name.lower().replace(' ', '_')}": value for name, value in measured.items()}


def _lineage(args: Mapping[str, Any], described: dataset.Description) -> dict[str, str]:
    run = args["run"]
    return {
        "michelangelo.project": run["project"],
        "michelangelo.pipeline": run["pipeline"],
        "michelangelo.pipeline_run": run["pipeline_run"],
        "michelangelo.dag_run": f"{run['dag_id']}/{run['run_id']}",
        "michelangelo.dataset": args["dataset_uri"],
        "michelangelo.evaluation_report": args["report"],
        "michelangelo.feature_service": described.feature_service,
    }
