"""What Airflow's provider manager shows of this package.  Imports nothing of it."""

from __future__ import annotations

from typing import Any

STAGES = (
    "materialize_features",
    "prepare_dataset",
    "train",
    "evaluate",
    "register_model",
    "deploy_model",
    "batch_predict",
)
ENGINES = ("local", "ray", "spark", "kubernetes_job")


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description."""
    return {
        "package-name": "michelangelo-airflow",
        "name": "Michelangelo",
        "description": "Lifecycle stages of a machine-learning model as operators, and DAG templates made of them.",
        "integrations": [{"integration-name": "Michelangelo", "external-doc-url": "", "tags": ["service"]}],
        "operators": [
            {"integration-name": "Michelangelo", "python-modules": [f"operators.{stage}" for stage in STAGES]}
        ],
        "hooks": [{"integration-name": "Michelangelo", "python-modules": ["operators.hooks.michelangelo"]}],
        "triggers": [{"integration-name": "Michelangelo", "python-modules": ["operators.triggers"]}],
        "task-decorators": [
            {"name": engine, "class-name": f"operators.decorators.{engine}_task"} for engine in ENGINES
        ],
        "connection-types": [
            {
                "hook-class-name": "operators.hooks.michelangelo.MichelangeloHook",
                "connection-type": "michelangelo",
            }
        ],
    }
