"""No model is registered before its served form gave what the trained one gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from operators.data import dataset
from operators.data.layout import path_of
from operators.errors import UserError
from operators.features import artifact
from operators.features.scorer import OnnxModel, Scorer
from operators.jobs import register_model
from operators.jobs.served_form import to_onnx
from operators.jobs.train import FULL, REQUEST_ONLY, TrainedModel


def flipped(booster: lightgbm.Booster) -> bytes:
    """The served form with the sign of every leaf flipped."""
    model = onnx.load_from_string(to_onnx(booster))
    changed = 0
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("class_weights", "target_weights"):
                attribute.floats[:] = [-value for value in attribute.floats]
                changed += 1
            if attribute.name.endswith("_as_tensor") and "weights" in attribute.name:
                attribute.t.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(attribute.t)))
                changed += 1
    assert changed
    return model.SerializeToString()


def arguments(run: Mapping[str, str], dataset_uri: str, model_uri: str) -> dict[str, Any]:
    return {"run": run, "dataset_uri": dataset_uri, "model_uri": model_uri, "report": "r", "model_name": "late"}


def test_a_sign_flip_in_the_served_form_is_refused_and_nothing_is_registered(
    home: Path, run: Mapping[str, str], dataset_uri: str, model_uri: str
) -> None:
    with pytest.raises(UserError, match=r"not the trained model: held-out row \d+ gives .* nothing was registered"):
        register_model.run(arguments(run, dataset_uri, model_uri), convert=flipped)
    assert not (home / "mlflow").exists()


def test_a_difference_on_missing_values_alone_is_refused(
    home: Path, dataset_uri: str, model_uri: str, run: Mapping[str, str]
) -> None:
    trained = TrainedModel(path_of(model_uri) / FULL)

    class Other:
        """Answers as the trained model does unless everything is missing."""

        def predict(self, columns: Any) -> Any:
            answers = np.asarray(trained.booster.predict(trained.graph.transform(columns)), np.float32)
            return answers if len(answers) > 1 else answers + 0.01

    with pytest.raises(UserError, match="a row with everything missing"):
        register_model.compare(trained, Other(), dataset.part(dataset_uri, "test"))  # type: ignore[arg-type]


def test_the_served_form_of_every_tree_agrees_on_its_own_thresholds(
    home: Path, dataset_uri: str, model_uri: str
) -> None:
    trained = TrainedModel(path_of(model_uri) / FULL)
    tables = trained.booster.trees_to_dataframe()
    thresholds = tables["threshold"].dropna().astype(float).unique()
    thresholds = thresholds[np.abs(thresholds) < 1e30]
    matrix = np.repeat(thresholds.astype(np.float32)[:, None], len(trained.graph.names), axis=1)
    matrix = matrix[np.abs(matrix[:, 0]) > 1e-30]
    served = OnnxModel(to_onnx(trained.booster)).run(matrix)
    np.testing.assert_allclose(served, np.asarray(trained.booster.predict(matrix)), atol=register_model.TOLERANCE)


def test_an_artifact_carries_golden_rows_that_it_answers(
    home: Path, run: Mapping[str, str], dataset_uri: str, model_uri: str
) -> None:
    trained = TrainedModel(path_of(model_uri) / FULL)
    held_out = dataset.part(dataset_uri, "test")
    files = register_model._files(dataset.describe(dataset_uri), trained, held_out, to_onnx(trained.booster))
    artifact.write(home / "artifact", files, name="late", created="now")
    loaded = artifact.load(str(home / "artifact"))
    golden = loaded.document("golden.json")
    assert len(golden["expected"]) >= 20
    assert register_model.compare(trained, Scorer(loaded), held_out) <= register_model.TOLERANCE


def test_the_model_without_features_reads_the_request_alone(model_uri: str) -> None:
    graph = TrainedModel(path_of(model_uri) / REQUEST_ONLY).graph
    assert {item.source for item in graph.inputs} == {"request"}
