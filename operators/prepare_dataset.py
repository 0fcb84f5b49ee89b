"""PrepareDataset stage: joins features to examples as they were known then, and splits the examples by time.

Only says what to run.  The work is `operators.jobs.prepare_dataset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from operators.engines.base import JobSpec
from operators.job import JobOperator, job_id, run_of


class PrepareDatasetOperator(JobOperator):
    """Joins features to examples as they were known at each example's time, and splits the examples by time.

    module: Python file in the project's root_dir with `feature_sources` and `examples`.
    feature_service: name of a Feast FeatureService.
    label_column: name of the label column, 0 or 1.
    train_until: last day of the training part, ISO date.
    validate_until: last day of the validation part, ISO date.
    sample_fraction: part of the examples to use, in (0, 1].
    Returns dataset_uri and the rows of each part.
    """

    template_fields: Sequence[str] = (
        "module",
        "feature_service",
        "label_column",
        "train_until",
        "validate_until",
        "sample_fraction",
        "engine",
    )

    def __init__(
        self,
        *,
        module: str,
        feature_service: str,
        label_column: str,
        train_until: str,
        validate_until: str,
        sample_fraction: float,
        engine: str = "local",
        **kwargs: Any,
    ) -> None:
        super().__init__(engine=engine, **kwargs)
        self.module = module
        self.feature_service = feature_service
        self.label_column = label_column
        self.train_until = train_until
        self.validate_until = validate_until
        self.sample_fraction = sample_fraction

    def job(self, context: Any) -> JobSpec:
        """Return the job of this stage."""
        return JobSpec(
            job_id(context),
            "prepare_dataset",
            {
                "run": run_of(context),
                "module": self.module,
                "feature_service": self.feature_service,
                "label": self.label_column,
                "train_until": self.train_until,
                "validate_until": self.validate_until,
                "sample_fraction": self.sample_fraction,
            },
        )
