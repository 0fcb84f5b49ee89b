"""RegisterModel stage: registers a model once its served form gives what the trained one gives.

Only says what to run.  The work is `operators.jobs.register_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from operators.engines.base import JobSpec
from operators.job import JobOperator, job_id, run_of


class RegisterModelOperator(JobOperator):
    """Registers a model once its served form gives what the trained one gives.

    dataset_uri: folder of train, validate and test Parquet files.
    model_uri: artifact folder of a trained model.
    report: name of the EvaluationReport.
    model_name: registered name.
    Returns model (resource name), model_version, mlflow_uri.
    """

    template_fields: Sequence[str] = ("dataset_uri", "model_uri", "report", "model_name", "engine")

    def __init__(
        self,
        *,
        dataset_uri: str,
        model_uri: str,
        report: str,
        model_name: str,
        engine: str = "local",
        **kwargs: Any,
    ) -> None:
        super().__init__(engine=engine, **kwargs)
        self.dataset_uri = dataset_uri
        self.model_uri = model_uri
        self.report = report
        self.model_name = model_name

    def job(self, context: Any) -> JobSpec:
        """Return the job of this stage."""
        return JobSpec(
            job_id(context),
            "register_model",
            {
                "run": run_of(context),
                "dataset_uri": self.dataset_uri,
                "model_uri": self.model_uri,
                "report": self.report,
                "model_name": self.model_name,
            },
        )
