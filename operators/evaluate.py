"""Evaluate stage: measures a model on the test part of a dataset beside a baseline, and reports.

Only says what to run.  The work is `operators.jobs.evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from operators.engines.base import JobSpec
from operators.job import JobOperator, job_id, run_of


class EvaluateOperator(JobOperator):
    """Measures a model on the test part of a dataset beside a baseline, and reports.

    dataset_uri: folder of train, validate and test Parquet files.
    model_uri: artifact folder of a trained model.
    label_column: name of the label column, 0 or 1.
    baseline_columns: columns whose historical rate is the baseline.
    minimum_auc: below it the stage fails; None for no gate.
    Returns report, report_uri, auc, baseline_auc.
    """

    template_fields: Sequence[str] = (
        "dataset_uri",
        "model_uri",
        "label_column",
        "baseline_columns",
        "minimum_auc",
        "engine",
    )

    def __init__(
        self,
        *,
        dataset_uri: str,
        model_uri: str,
        label_column: str,
        baseline_columns: Any,
        minimum_auc: float | None,
        engine: str = "local",
        **kwargs: Any,
    ) -> None:
        super().__init__(engine=engine, **kwargs)
        self.dataset_uri = dataset_uri
        self.model_uri = model_uri
        self.label_column = label_column
        self.baseline_columns = baseline_columns
        self.minimum_auc = minimum_auc

    def job(self, context: Any) -> JobSpec:
        """Return the job of this stage."""
        return JobSpec(
            job_id(context),
            "evaluate",
            {
                "run": run_of(context),
                "dataset_uri": self.dataset_uri,
                "model_uri": self.model_uri,
                "label": self.label_column,
                "baseline_columns": self.baseline_columns,
                "minimum_auc": self.minimum_auc,
            },
        )
