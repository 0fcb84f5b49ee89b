"""A small dataset and a trained model, made by the stages' own code; nothing of it touches the network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from operators.data import dataset
from operators.features.graph import Input
from operators.jobs import train

ROWS = 3000
INPUTS = (
    Input("carrier", "string", "request"),
    Input("leaves", "timestamp", "request"),
    Input("distance", "long", "request"),
    Input("delay", "double", "feature"),
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MA_HOME of the programs under test."""
    monkeypatch.setenv("MA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run() -> dict[str, str]:
    """What a program is told about its run."""
    return {
        "project": "shop",
        "pipeline": "",
        "pipeline_run": "",
        "uid": "11111111-2222-3333-4444-555555555555",
        "dag_id": "shop.train",
        "run_id": "ma__1__1",
        "root_dir": "",
    }


def rows(count: int, *, seed: int) -> pd.DataFrame:
    """Return examples whose label depends on `delay` and `carrier`."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "carrier": random.choice(["AA", "UA", "B6"], count),
            "leaves": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(random.integers(0, 1440, count), "min"),
            "distance": random.integers(80, 3000, count),
            "delay": np.where(random.random(count) < 0.1, np.nan, random.normal(size=count).round(2)),
        }
    )
    frame["event_timestamp"] = frame["leaves"]
    chance = 1 / (1 + np.exp(-(2 * frame["delay"].fillna(0) + (frame["carrier"] == "B6"))))
    return frame.assign(late=(random.random(count) < chance).astype("int8"))


@pytest.fixture
def dataset_uri(tmp_path: Path) -> str:
    """A dataset of three parts."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    parts = {name: rows(ROWS, seed=seed) for seed, name in enumerate(dataset.PARTS)}
    described = dataset.Description(
        label="late",
        inputs=INPUTS,
        request=[{"name": item.name, "dtype": item.dtype, "required": True} for item in INPUTS[:3]],
        feature_project="shop",
        feature_service="s",
        views=[],
        split={name: {"first": "a", "last": "b", "rows": ROWS} for name in parts},
        notes=[],
    )
    dataset.write(folder, parts, described)
    return folder.as_uri()


@pytest.fixture
def model_uri(home: Path, run: Mapping[str, str], dataset_uri: str) -> str:
    """A trained model."""
    args: dict[str, Any] = {"run": run, "dataset_uri": dataset_uri, "label": "late", "seed": 7}
    outputs = train.run({**args, "algorithm": "lightgbm", "hyperparameters": {"num_iterations": 30}})
    return outputs["model_uri"]
