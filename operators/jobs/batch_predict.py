"""Program of BatchPredict: scores a project's examples with a registered model, features joined point in time.

The same graph and the same served form as online.  Writes Parquet: the examples' columns and `probability`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from api.client import Client
from api.config import load
from operators.data.examples import EVENT_TIMESTAMP, examples_of
from operators.data.layout import folder_of, written
from operators.errors import UserError
from operators.features import artifact
from operators.features.scorer import Scorer, columns_of
from operators.jobs.model_resource import artifact_of
from operators.jobs.prepare_dataset import join

BATCH_ROWS = 65_536
THREADS = 2


def run(args: Mapping[str, Any]) -> dict[str, str]:
    """Args: run, module, feature_service, model (empty: the champion of model_name), model_name."""
    try:
        scorer = Scorer(artifact.load(artifact_uri(args)), threads=THREADS)
    except artifact.ArtifactError as error:
        raise UserError(f"the model cannot be used ({error.reason}): {error.message}") from error
    examples = examples_of(args["module"])
    frame = examples.frame.sort_values(EVENT_TIMESTAMP, kind="stable", ignore_index=True)
    joined, _, _ = join(args, frame)
    missing = sorted({item.name for item in scorer.graph.inputs} - set(joined))
    if missing:
        raise UserError(f"the model reads {', '.join(missing)}, which the examples and features do not have")
    folder = folder_of(args["run"], "predictions")
    with written(folder) as temporary:
        rows = _score(scorer, joined, str(temporary / "part-0.parquet"))
    print(f"{rows:,} rows scored")
    return {"predictions_uri": folder.as_uri(), "rows": str(rows)}


def artifact_uri(args: Mapping[str, Any]) -> str:
    """Return the URI of the artifact of the model that is asked for."""
    project = args["run"]["project"]
    if args.get("model"):
        with Client.of(load()) as api:
            return artifact_of(api, project, args["model"])
    from operators.hooks.mlflow import ModelRegistry

    return ModelRegistry(load().mlflow_path).champion(f"{project}.{args['model_name']}").artifact_uri


def _score(scorer: Scorer, frame: Any, path: str) -> int:
    writer: pq.ParquetWriter | None = None
    try:
        for start in range(0, len(frame), BATCH_ROWS):
            batch = frame.iloc[start : start + BATCH_ROWS]
            scores = scorer.predict(columns_of(scorer.graph, batch))
            table = pa.Table.from_pandas(batch.assign(probability=scores), preserve_index=False)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    return len(frame)
