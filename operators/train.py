"""Train stage: fits the transformation graph and a model on the training part of a dataset.

Only says what to run.  The work is `operators.jobs.train`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from operators.engines.base import JobSpec
from operators.job import JobOperator, job_id, run_of


class TrainOperator(JobOperator):
    """Fits the transformation graph and a model on the training part of a dataset.

    dataset_uri: folder of train, validate and test Parquet files.
    label_column: name of the label column, 0 or 1.
    algorithm: `lightgbm`.
    hyperparameters: the algorithm's own names and values.
    seed: of every random choice.
    Returns model_uri.
    """

    template_fields: Sequence[str] = ("dataset_uri", "label_column", "algorithm", "hyperparameters", "seed", "engine")

    def __init__(
        self,
        *,
        dataset_uri: str,
        label_column: str,
        algorithm: str,
        hyperparameters: Any,
        seed: int,
        engine: str = "local",
        **kwargs: Any,
    ) -> None:
        super().__init__(engine=engine, **kwargs)
        self.dataset_uri = dataset_uri
        self.label_column = label_column
        self.algorithm = algorithm
        self.hyperparameters = hyperparameters
        self.seed = seed

    def job(self, context: Any) -> JobSpec:
        """Return the job of this stage."""
        return JobSpec(
            job_id(context),
            "train",
            {
                "run": run_of(context),
                "dataset_uri": self.dataset_uri,
                "label": self.label_column,
                "algorithm": self.algorithm,
                "hyperparameters": self.hyperparameters,
                "seed": self.seed,
            },
        )
