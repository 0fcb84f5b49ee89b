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
        module=dag.param("module"),
        feature_service=dag.param("feature_service"),
        features_until=dag.param("features_until"),
        engine=dag.param("engine"),
    )


def training(dag: DAG, after: MaterializeFeaturesOperator) -> RegisterModelOperator:
    """Dataset, model, report, registration."""
    param = dag.param
    dataset = PrepareDatasetOperator(
        task_id="prepare_dataset",
        module=param("module"),
        feature_service=_output(after, "feature_service"),
        label_column=param("label"),
        train_until=param("train_until"),
        validate_until=param("validate_until"),
        sample_fraction=param("sample_fraction"),
        engine=param("engine"),
    )
    model = TrainOperator(
        task_id="train",
        dataset_uri=_output(dataset, "dataset_uri"),
        label_column=param("label"),
        algorithm=param("algorithm"),
        hyperparameters=param("hyperparameters"),
        seed=param("seed"),
        engine=param("engine"),
    )
    report = EvaluateOperator(
        task_id="evaluate",
        dataset_uri=_output(dataset, "dataset_uri"),
        model_uri=_output(model, "model_uri"),
        label_column=param("label"),
        baseline_columns=param("baseline_columns"),
        minimum_auc=param("minimum_auc"),
        engine=param("engine"),
    )
    registered = RegisterModelOperator(
        task_id="register_model",
        dataset_uri=_output(dataset, "dataset_uri"),
        model_uri=_output(model, "model_uri"),
        report=_output(report, "report"),
        model_name=param("model_name"),
        engine=param("engine"),
    )
    after >> dataset >> model >> report >> registered
    return registered


def rollout(dag: DAG, registered: RegisterModelOperator) -> DeployModelOperator:
    """Deploy what was registered."""
    deployed = DeployModelOperator(
        task_id="deploy_model", deployment=dag.param("deployment"), model=_output(registered, "model")
    )
    registered >> deployed
    return deployed


def scoring(dag: DAG, after: MaterializeFeaturesOperator) -> BatchPredictOperator:
    """Score examples with a registered model."""
    scored = BatchPredictOperator(
        task_id="batch_predict",
        module=dag.param("module"),
        feature_service=dag.param("feature_service"),
        model=dag.param("model"),
        model_name=dag.param("model_name"),
        engine=dag.param("engine"),
    )
    after >> scored
    return scored


def _output(operator: Any, name: str) -> Any:
    return operator.output[name]
