"""Program of Train: fits the transformation graph and a LightGBM model, stopping on the validation part.

Beside the model it fits one on what the caller sends alone, so that the evaluation can say what the features are worth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from operators.data import dataset
from operators.data.layout import folder_of, written
from operators.errors import UserError
from operators.features.graph import Graph
from operators.features.scorer import columns_of

if TYPE_CHECKING:
    import lightgbm
    import pandas as pd

DEFAULTS: Mapping[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "num_iterations": 300,
    "early_stopping_round": 30,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}
FIXED = ("objective", "num_class", "task", "data", "valid", "input_model", "output_model", "metric")
FULL, REQUEST_ONLY = "full", "request_only"


def run(args: Mapping[str, Any]) -> dict[str, str]:
    """Args: run, dataset_uri, label, algorithm, hyperparameters, seed."""
    if args["algorithm"] != "lightgbm":
        raise UserError(f"algorithm {args['algorithm']!r} is not known: use lightgbm")
    described = dataset.describe(args["dataset_uri"])
    parts = {name: dataset.part(args["dataset_uri"], name) for name in ("train", "validate")}
    settings = parameters(args.get("hyperparameters") or {}, int(args["seed"]))
    request = [item for item in described.inputs if item.source == "request"]
    folder = folder_of(args["run"], "model")
    with written(folder) as temporary:
        rounds = _fit(temporary / FULL, Graph.fit, described.inputs, parts, args["label"], settings)
        if len(request) < len(described.inputs) and request:
            _fit(temporary / REQUEST_ONLY, Graph.fit, request, parts, args["label"], settings)
        (temporary / "training.json").write_text(json.dumps({"hyperparameters": settings, "rounds": rounds}, indent=1))
    return {"model_uri": folder.as_uri(), "rounds": str(rounds)}


def parameters(given: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return LightGBM's parameters: `given` over the defaults.  Raises UserError for one that the stage owns."""
    owned = sorted(set(given) & set(FIXED))
    if owned:
        raise UserError(f"hyperparameters: {', '.join(owned)} cannot be set, this stage fits a binary classifier")
    return {**DEFAULTS, **given, "seed": seed}


def _fit(
    folder: Path,
    fit_graph: Any,
    inputs: Any,
    parts: Mapping[str, pd.DataFrame],
    label: str,
    settings: Mapping[str, Any],
) -> int:
    import lightgbm

    columns = {name: _columns(inputs, frame) for name, frame in parts.items()}
    graph: Graph = fit_graph(inputs, columns["train"])
    names = list(graph.names)
    train = lightgbm.Dataset(graph.transform(columns["train"]), parts["train"][label], feature_name=names)
    validate = train.create_valid(graph.transform(columns["validate"]), parts["validate"][label])
    try:
        booster = lightgbm.train(dict(settings), train, valid_sets=[validate])
    except lightgbm.basic.LightGBMError as error:
        raise UserError(f"hyperparameters: LightGBM refuses them: {error}") from error
    rounds = booster.best_iteration or booster.num_trees()
    folder.mkdir()
    (folder / "graph.json").write_text(graph.to_json())
    booster.save_model(str(folder / "model.txt"), num_iteration=rounds)
    print(f"{folder.name}: {rounds} trees on {len(names)} columns, {dict(booster.best_score)}")
    return int(rounds)


def _columns(inputs: Any, frame: pd.DataFrame) -> dict[str, Any]:
    return columns_of(Graph(inputs, ()), frame)


class TrainedModel:
    """A fitted model in its own form, as `run` left it: graph and LightGBM booster."""

    def __init__(self, folder: Path) -> None:
        import lightgbm

        self.graph = Graph.from_json((folder / "graph.json").read_text())
        self.booster: lightgbm.Booster = lightgbm.Booster(model_file=str(folder / "model.txt"))

    def predict(self, frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the probability of each row."""
        matrix = self.graph.transform(columns_of(self.graph, frame))
        return np.asarray(self.booster.predict(matrix), np.float64)
