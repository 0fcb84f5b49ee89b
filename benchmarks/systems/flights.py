"""The flights example after its demo: the registered model, its online store, and requests that it answers."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.systems import platform
from benchmarks.systems.processes import ROOT

EXAMPLE = ROOT / "examples" / "flights"
MODEL = "flights.late"
DATATYPES: Mapping[str, str] = {"string": "BYTES", "timestamp": "BYTES", "long": "INT64", "double": "FP64"}


@dataclass(frozen=True)
class Registered:
    """The model that the demo registered: `uri` as MLflow knows it, `artifact_uri` as our server loads it."""

    uri: str
    artifact_uri: str
    artifact: Path
    tracking_uri: str


def make(home: Path) -> None:
    """Fill a home by `ma demo --exit`: features, model, registry.  Takes about a minute."""
    with platform.stopped_at_the_end(platform.configuration(home)) as config:
        platform.ma(config, "demo", "--exit")


def registered(home: Path) -> Registered:
    """Return the champion of a home's registry.  Raises ValueError if the demo has not run on it."""
    database = home / "mlflow" / "mlflow.db"
    if not database.is_file():
        raise ValueError(f"{home} has no registered model: run `MA_HOME={home} ma demo --exit` first")
    from operators.data.layout import path_of
    from operators.hooks.mlflow import ModelRegistry

    version = ModelRegistry(database.parent).champion(MODEL)
    return Registered(version.uri, version.artifact_uri, path_of(version.artifact_uri), f"sqlite:///{database}")


def copy_online_store(home: Path, folder: Path) -> None:
    """Give `folder` the online store of `home`, so that a measured server writes nothing into that home."""
    (folder / "features").mkdir(parents=True)
    with (
        contextlib.closing(sqlite3.connect(f"file:{home / 'features' / 'online.db'}?mode=ro", uri=True)) as source,
        contextlib.closing(sqlite3.connect(folder / "features" / "online.db")) as target,
    ):
        source.backup(target)


def flights(model: Registered) -> list[dict[str, Any]]:
    """Return request inputs: the routes of held-out flights, all at the hour of the example's request.

    At that hour the online store holds features of every view.
    """
    asked = json.loads((EXAMPLE / "request.json").read_text())
    asked.pop("parameters")
    golden = json.loads((model.artifact / "golden.json").read_text())["columns"]
    rows = len(next(iter(golden.values())))
    varied = [name for name in asked if name in golden and name != "scheduled_departure"]
    return [
        {**asked, **{name: type(asked[name])(golden[name][row]) for name in varied if golden[name][row] is not None}}
        for row in range(rows)
    ]


def infer_request(model: Registered, flight: Mapping[str, Any], *, explain: bool = False) -> bytes:
    """Return the body for our server: what a caller knows of the flight, no feature."""
    asked = json.loads((EXAMPLE / "request.json").read_text())["parameters"]
    dtypes = {item["name"]: item["dtype"] for item in _document(model, "signature.json")["inputs"]}
    inputs = [
        {"name": name, "datatype": DATATYPES[dtypes[name]], "shape": [1], "data": [value]}
        for name, value in flight.items()
    ]
    parameters = {**asked, **({"explain_features": True} if explain else {})}
    return json.dumps({"inputs": inputs, "parameters": parameters}).encode()


def scoring_request(model: Registered, flight: Mapping[str, Any], explained: Mapping[str, Any]) -> bytes:
    """Return the body for MLflow's server: the flight with the features that our server says it has joined."""
    values = dict(flight)
    found = {(item["view"], item["feature"]): item["value"] for item in explained["parameters"]["features"]}
    for view in _document(model, "features.json")["views"]:
        for feature in view["features"]:
            values[feature["input"]] = found[view["view"], feature["name"]]
    graph = [item["name"] for item in _document(model, "graph.json")["inputs"]]
    row = [_naive(values[name]) for name in graph]
    return json.dumps({"dataframe_split": {"columns": graph, "data": [row]}}).encode()


def views(model: Registered) -> int:
    """Return how many feature views a prediction joins."""
    return len(_document(model, "features.json")["views"])


def _naive(value: Any) -> Any:
    """Return a whole number as the double, an instant as the zoneless time that MLflow's signature wants."""
    if isinstance(value, str) and value.endswith("Z"):
        return value.removesuffix("Z")
    return float(value) if isinstance(value, int) else value


def _document(model: Registered, name: str) -> Any:
    return json.loads((model.artifact / name).read_text())
