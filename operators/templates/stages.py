"""Task groups that templates are made of.  A group is wiring alone: no parameter has a second meaning here."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from operators.batch_predict import BatchPredictOperator
from operators.deploy_model import DeployModelOperator
from operators.evaluate import EvaluateOperator
from operators.materialize_features import MaterializeFeaturesOperator
from operators.prepare_dataset import PrepareDatasetOperator
from operators.register_model import RegisterModelOperator
from operators.train import TrainOperator


def features(dag: DAG) -> MaterializeFeaturesOperator:
    """Write feature sources and fill the online store."""
    return MaterializeFeaturesOperator(
        task_id="materialize_features",
        module=_param(dag, "module"),
        feature_service=_param(dag, "feature_service"),
        features_until=_param(dag, "features_until"),
        engine=_param(dag, "engine"),
    )


def training(dag: DAG, after: MaterializeFeaturesOperator) -> RegisterModelOperator:
    """Dataset, model, report, registration."""
    dataset = PrepareDatasetOperator(
        task_id="prepare_dataset",
        module=_param(dag, "module"),
        feature_service=_output(after, "feature_service"),
        label_column=_param(dag, "label"),
        train_until=_param(dag, "train_until"),
        validate_until=_param(dag, "validate_until"),
        sample_fraction=_param(dag, "sample_fraction"),
        engine=_param(dag, "engine"),
    )
    model = TrainOperator(
        task_id="train",
        dataset_uri=_output(dataset, "dataset_uri"),
        label_column=_param(dag, "label"),
        algorithm=_param(dag, "algorithm"),
        hyperparameters=_param(dag, "hyperparameters"),
        seed=_param(dag, "seed"),
        engine=_param(dag, "engine"),
    )
    report = EvaluateOperator(
        task_id="evaluate",
        dataset_uri=_output(dataset, "dataset_uri"),
        model_uri=_output(model, "model_uri"),
        label_column=_param(dag, "label"),
        baseline_columns=_param(dag, "baseline_columns"),
        minimum_auc=_param(dag, "minimum_auc"),
        engine=_param(dag, "engine"),
    )
    registered = RegisterModelOperator(
        task_id="register_model",
        dataset_uri=_output(dataset, "dataset_uri"),
        model_uri=_output(model, "model_uri"),
        report=_output(report, "report"),
        model_name=_param(dag, "model_name"),
        engine=_param(dag, "engine"),
    )
    after >> dataset >> model >> report >> registered
    return registered


def rollout(dag: DAG, registered: RegisterModelOperator) -> DeployModelOperator:
    """Deploy what was registered."""
    deployed = DeployModelOperator(
        task_id="deploy_model", deployment=_param(dag, "deployment"), model=_output(registered, "model")
    )
    registered >> deployed
    return deployed


def scoring(dag: DAG, after: MaterializeFeaturesOperator) -> BatchPredictOperator:
    """Score examples with a registered model."""
    scored = BatchPredictOperator(
        task_id="batch_predict",
        module=_param(dag, "module"),
        feature_service=_param(dag, "feature_service"),
        model=_param(dag, "model"),
        model_name=_param(dag, "model_name"),
        engine=_param(dag, "engine"),
    )
    after >> scored
    return scored


def _param(dag: DAG, name: str) -> Any:
    """Return what stands for a parameter until a run gives its value."""
    return dag.param(name)


def _output(operator: Any, name: str) -> Any:
    return operator.output[name]
