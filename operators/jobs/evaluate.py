"""Program of Evaluate: measures a model on the test part beside two baselines and writes an EvaluationReport.

The baselines are the historical rate by some columns, and the same algorithm without the joined features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from api.client import Client
from api.config import load
from api.errors import AlreadyExists
from operators.data import dataset
from operators.data.examples import EVENT_TIMESTAMP
from operators.data.layout import folder_of, path_of, written
from operators.errors import UserError
from operators.jobs.train import FULL, REQUEST_ONLY, TrainedModel

Scores = npt.NDArray[np.float64]
HOUR = "hour"
PRIOR_ROWS = 20
"""How many rows of the average stand in each group, so that a rare group is not certain of anything."""
METRICS = ("AUC", "AVERAGE PRECISION", "LOG LOSS", "BRIER")


def run(args: Mapping[str, Any]) -> dict[str, str]:
    """Args: run, dataset_uri, model_uri, label, baseline_columns, minimum_auc.  Below minimum_auc it fails."""
    described, label = dataset.describe(args["dataset_uri"]), args["label"]
    parts = {name: dataset.part(args["dataset_uri"], name) for name in ("train", "test")}
    models = path_of(args["model_uri"])
    scored: dict[str, Scores] = {}
    columns = list(args.get("baseline_columns") or [])
    if columns:
        scored[f"rate by {' and '.join(columns)}"] = historical_rate(parts["train"], parts["test"], columns, label)
    if (models / REQUEST_ONLY).is_dir():
        scored["without the features"] = TrainedModel(models / REQUEST_ONLY).predict(parts["test"])
    scored["model"] = TrainedModel(models / FULL).predict(parts["test"])
    measured = {name: metrics(parts["test"][label].to_numpy(), scores) for name, scores in scored.items()}
    report = _report(args, described, measured, parts["test"][label].mean())
    folder = folder_of(args["run"], "report")
    with written(folder) as temporary:
        (temporary / "report.json").write_text(json.dumps({"test": measured, "split": described.split}, indent=1))
    with Client.of(load()) as api:
        name = _create(api, report)
    for title, values in measured.items():
        print(f"{title}: " + ", ".join(f"{metric} {value:.4f}" for metric, value in values.items()))
    auc, baseline = measured["model"]["AUC"], next(iter(measured.values()))["AUC"]
    minimum = args.get("minimum_auc")
    if minimum is not None and auc < minimum:
        raise UserError(f"AUC {auc:.4f} on the test part is below minimum_auc {minimum}: the model is not registered")
    return {"report": name, "report_uri": folder.as_uri(), "auc": f"{auc:.6f}", "baseline_auc": f"{baseline:.6f}"}


def metrics(label: npt.NDArray[Any], scores: Scores) -> dict[str, float]:
    """Return `METRICS` of probabilities against labels of 0 and 1."""
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

    values = (roc_auc_score, average_precision_score, log_loss, brier_score_loss)
    return {name: float(metric(label, scores)) for name, metric in zip(METRICS, values, strict=True)}


def historical_rate(train: pd.DataFrame, test: pd.DataFrame, columns: Sequence[str], label: str) -> Scores:
    """Return the label's rate in the training part by `columns`; `hour` is that of the request's first timestamp."""
    keys_train, keys_test = _keys(train, columns), _keys(test, columns)
    mean = float(train[label].mean())
    groups = train[label].groupby(keys_train).agg(["sum", "count"])
    rates = (groups["sum"] + mean * PRIOR_ROWS) / (groups["count"] + PRIOR_ROWS)
    return keys_test.map(rates).fillna(mean).to_numpy(np.float64)


def _keys(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series[str]:
    found = pd.Series("", index=frame.index)
    for name in columns:
        if name in frame:
            values = frame[name]
        elif name == HOUR:
            values = frame[_clock(frame)].dt.hour
        else:
            raise UserError(f"baseline_columns: the examples have no column {name!r}")
        found = found + "|" + values.astype(str)
    return found


def _clock(frame: pd.DataFrame) -> str:
    stamps = [str(name) for name, kind in frame.dtypes.items() if isinstance(kind, pd.DatetimeTZDtype)]
    return next((name for name in stamps if name != EVENT_TIMESTAMP), EVENT_TIMESTAMP)


def _report(
    args: Mapping[str, Any],
    described: dataset.Description,
    measured: Mapping[str, Mapping[str, float]],
    positive: float,
) -> Any:
    from api.gen.michelangelo.api.v2 import evaluation_report_pb2 as wire
    from api.kinds import kinds

    run = args["run"]
    report = kinds()["EvaluationReport"].new(run["project"], report_name(run))
    spec = report.spec
    spec.title = f"{run['pipeline']}: held-out test of {run['pipeline_run'] or run['run_id']}"
    spec.source_type = wire.EVALUATION_REPORT_SOURCE_TYPE_PIPELINE_RUN
    for field in ("pipeline_run", "pipeline"):
        if run[field]:
            source = getattr(spec, f"source_{field}")
            source.namespace, source.name = run["project"], run[field]
    _table(spec, "Test", ["TEST", *METRICS], [[title, *row.values()] for title, row in measured.items()])
    rows = [[name, *(str(item[key])[:16].replace("T", " ") for key in ("first", "last")), f"{item['rows']:,}"]
            for name, item in described.split.items()]  # fmt: skip
    _table(spec, "Split", ["PART", "FROM (UTC)", "TO (UTC)", "ROWS"], rows)
    for title, value in (("positive rate of the test part", positive), ("columns of the model", len(described.inputs))):
        chart = spec.charts.add(title=title)
        chart.scalar.scalar_name, chart.scalar.cell_value.number = title, value
    if described.notes:
        _table(spec, "Notes", ["NOTES"], [[note] for note in described.notes])
    spec.sealed = True
    return report


def report_name(run: Mapping[str, str]) -> str:
    """Return the name of a run's report: the same for every try."""
    from operators.data.layout import safe

    known = run["pipeline_run"] or safe(run["run_id"]).lower().replace("_", "-")
    return f"{known}-evaluation"[-253:]


def _table(spec: Any, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    chart = spec.charts.add(title=title)
    chart.table.column_names.extend(header)
    for row in rows:
        line = chart.table.rows.add()
        for value in row:
            cell = line.values.add()
            if isinstance(value, str):
                cell.str_value = value
            else:
                cell.number = value


def _create(api: Client, report: Any) -> str:
    try:
        return str(api.create(report).metadata.name)
    except AlreadyExists:
        return str(report.metadata.name)
