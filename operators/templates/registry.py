"""The templates by name: their parameters and how each builds its tasks.  A new template is a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param

from operators.templates import params, stages

DEFAULT_ARGS = {"retries": 2, "retry_delay": timedelta(seconds=5)}


def default_args(owner: str) -> dict[str, Any]:
    """Return what every task of a DAG has; `owner` is whom Airflow shows."""
    return {**DEFAULT_ARGS, **({"owner": owner} if owner else {})}


@dataclass(frozen=True)
class Template:
    """`build(dag)` adds the tasks; `params()` says what they read."""

    doc: str
    params: Callable[[], Mapping[str, Param]]
    build: Callable[[DAG], None]


def _train(dag: DAG) -> None:
    stages.training(dag, stages.features(dag))


def _train_and_deploy(dag: DAG) -> None:
    stages.rollout(dag, stages.training(dag, stages.features(dag)))


def _batch_predict(dag: DAG) -> None:
    stages.scoring(dag, stages.features(dag))


def _training_params() -> dict[str, Param]:
    return {**params.data(), **params.model(), **params.engine()}


def _scoring_params() -> dict[str, Param]:
    wanted = ("module", "feature_service", "features_until")
    text = "Name of a Model; empty: the champion of the model name."
    return {
        **{name: param for name, param in params.data().items() if name in wanted},
        "model": Param("", type="string", title="Model", description=text, section="Model"),
        "model_name": params.model()["model_name"],
        **params.engine(),
    }


TEMPLATES: Mapping[str, Template] = {
    "train": Template("Features, dataset, model, report, registration.", _training_params, _train),
    "train_and_deploy": Template(
        "Features, dataset, model, report, registration, rollout.",
        lambda: {**_training_params(), **params.deployment()},
        _train_and_deploy,
    ),
    "batch_predict": Template(
        "Scores the examples of a project with a registered model.", _scoring_params, _batch_predict
    ),
}


def template_dag(name: str, *, dag_id: str = "", values: Mapping[str, Any] | None = None, **settings: Any) -> DAG:
    """Return the DAG of a template: the bare one, or a pipeline's with its own `dag_id` and default values."""
    template = TEMPLATES[name]
    dag = DAG(
        dag_id or name,
        schedule=None,
        params=params.over({**template.params(), **params.hidden()}, values or {}),
        doc_md=settings.pop("doc_md", template.doc),
        default_args=default_args(settings.pop("owner", "")),
        tags=settings.pop("tags", ["template"]),
        # A DAG whose building fails half-way must not be found: only what a file names is.
        auto_register=False,
        **settings,
    )
    with dag:
        template.build(dag)
    return dag
