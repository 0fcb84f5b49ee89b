"""MaterializeFeatures stage: writes a project's feature sources, applies its feature views, fills the online store.

Only says what to run.  The work is `operators.jobs.materialize_features`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from operators.engines.base import JobSpec
from operators.job import JobOperator, job_id, run_of


class MaterializeFeaturesOperator(JobOperator):
    """Writes the feature sources of a project, applies its feature views, fills the online store.

    module: Python file in the project's root_dir with `feature_sources` and `examples`.
    feature_service: name of a Feast FeatureService.
    features_until: ISO instant as of which the online store is filled; None: now.
    Returns features_uri, feature_service, materialized_until.
    """

    template_fields: Sequence[str] = ("module", "feature_service", "features_until", "engine")

    def __init__(
        self,
        *,
        module: str,
        feature_service: str,
        features_until: str | None = None,
        engine: str = "local",
        **kwargs: Any,
    ) -> None:
        super().__init__(engine=engine, **kwargs)
        self.module = module
        self.feature_service = feature_service
        self.features_until = features_until

    def job(self, context: Any) -> JobSpec:
        """Return the job of this stage."""
        return JobSpec(
            job_id(context),
            "materialize_features",
            {
                "run": run_of(context),
                "module": self.module,
                "feature_service": self.feature_service,
                "features_until": self.features_until,
            },
        )
