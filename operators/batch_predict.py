"""BatchPredict stage: scores the examples of a project with a registered model.

Only says what to run.  The work is `operators.jobs.batch_predict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from operators.engines.base import JobSpec
from operators.job import JobOperator, job_id, run_of


class BatchPredictOperator(JobOperator):
    """Scores the examples of a project with a registered model.

    module: Python file in the project's root_dir with `feature_sources` and `examples`.
    feature_service: name of a Feast FeatureService.
    model: name of a Model, empty for the champion of `model_name`.
    model_name: registered name.
    Returns predictions_uri, rows.
    """

    template_fields: Sequence[str] = ("module", "feature_service", "model", "model_name", "engine")

    def __init__(
        self,
        *,
        module: str,
        feature_service: str,
        model: str,
        model_name: str,
        engine: str = "local",
        **kwargs: Any,
    ) -> None:
        super().__init__(engine=engine, **kwargs)
        self.module = module
        self.feature_service = feature_service
        self.model = model
        self.model_name = model_name

    def job(self, context: Any) -> JobSpec:
        """Return the job of this stage."""
        return JobSpec(
            job_id(context),
            "batch_predict",
            {
                "run": run_of(context),
                "module": self.module,
                "feature_service": self.feature_service,
                "model": self.model,
                "model_name": self.model_name,
            },
        )
