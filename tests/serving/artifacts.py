"""Small real artifacts: a LightGBM model in ONNX, its graph, its golden rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from operators.features import artifact
from operators.features.graph import Graph, Input
from operators.jobs.served_form import to_onnx

PROJECT = "flights"
REQUEST: Sequence[tuple[str, str, bool]] = (
    ("carrier", "string", True),
    ("origin", "string", True),
    ("dest", "string", True),
    ("tailnum", "string", False),
    ("scheduled_departure", "timestamp", True),
    ("distance", "double", True),
)
KEYS = ("tailnum",)
CREATED = "2013-12-31T00:00:00Z"
ROWS = 400


def inputs(views: Sequence[Mapping[str, Any]]) -> list[Input]:
    """Return the graph's inputs: what the caller sends, without keys, then the features."""
    sent = [Input(name, dtype, "request", "America/New_York") for name, dtype, _ in REQUEST if name not in KEYS]
    return sent + [Input(item["input"], item["dtype"], "feature") for view in views for item in view["features"]]


def sample(wanted: Sequence[Input], rows: int, seed: int) -> dict[str, Any]:
    """Return random columns, a tenth of them missing."""
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for item in wanted:
        if item.dtype == "string":
            columns[item.name] = random.choice(["AA", "UA", "JFK", "LGA", "EWR", ""], rows).astype(object)
        elif item.dtype == "timestamp":
            columns[item.name] = random.integers(1_356_998_400, 1_388_534_400, rows) * 1_000_000
        else:
            columns[item.name] = np.where(random.random(rows) < 0.1, np.nan, random.normal(10, 30, rows))
    return columns


def files(views: Sequence[Mapping[str, Any]], *, seed: int = 1, trees: int = 30) -> dict[str, bytes]:
    """Return the files of an artifact; another seed is another model."""
    wanted = inputs(views)
    columns = sample(wanted, ROWS, seed)
    graph = Graph.fit(wanted, columns)
    matrix = graph.transform(columns)
    weights = np.random.default_rng(seed).normal(0, 1, matrix.shape[1])
    score = np.nan_to_num(matrix / np.nanstd(matrix, axis=0)) @ weights
    label = (score > np.median(score)).astype(int)
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": seed, "min_data_in_leaf": 5}
    booster = lightgbm.train(settings, lightgbm.Dataset(matrix, label), num_boost_round=trees)
    golden = {name: values[:24] for name, values in columns.items()}
    expected = np.asarray(booster.predict(graph.transform(golden)))
    documents = {
        "features.json": {"project": PROJECT, "views": list(views)},
        "signature.json": {
            "inputs": [{"name": name, "dtype": dtype, "required": required} for name, dtype, required in REQUEST],
            "outputs": [{"name": "probability", "dtype": "double"}],
        },
        "golden.json": {
            "columns": {name: _plain(values) for name, values in golden.items()},
            "expected": expected.tolist(),
            "tolerance": 1e-5,
        },
    }
    return {
        "graph.json": graph.to_json().encode(),
        "model.onnx": to_onnx(booster),
        **{name: json.dumps(document).encode() for name, document in documents.items()},
    }


def _plain(values: Any) -> list[Any]:
    return [None if isinstance(value, float) and value != value else value for value in values.tolist()]


def write(folder: Path, content: Mapping[str, bytes]) -> str:
    """Write an artifact and return its address."""
    artifact.write(folder, content, name="late", created=CREATED)
    return folder.as_uri()
