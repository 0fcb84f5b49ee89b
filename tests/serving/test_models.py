"""A model of every dtype, its own clock input, and answers that are none."""

import asyncio
import contextlib
import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from feast.protos.feast.types.Value_pb2 import Value

from operators.features.graph import Graph, Input
from operators.features.scorer import Scorer
from operators.jobs.served_form import to_onnx
from serving import predict
from serving.deployments import Deployment, Serving
from serving.http import Response
from serving.log import PredictionLog, Record
from serving.metrics import Metrics
from serving.models import BadModelOutput, open_model
from serving.online_store import KeyCodec, OnlineStore
from tests.serving import artifacts
from tests.serving.running import AT, ID, tensor

AT_US = 1_388_491_200_000_000
INPUTS = (
    Input("text", "string", "request"),
    Input("number", "double", "request"),
    Input("whole", "long", "request"),
    Input("flag", "bool", "request"),
    Input("event_timestamp", "timestamp", "request"),
    Input("colour", "string", "feature"),
    Input("visits", "long", "feature"),
    Input("member", "bool", "feature"),
    Input("seen", "timestamp", "feature"),
)
VIEW = {
    "view": "people",
    "join_keys": [
        {"name": "person", "input": "whole", "dtype": "long"},
        {"name": "group", "input": "text", "dtype": "string"},
    ],
    "features": [{"name": item.name, "input": item.name, "dtype": item.dtype} for item in INPUTS[5:]],
    "ttl_s": 3600,
}
STORED = {
    "colour": Value(string_val="red"),
    "visits": Value(int64_val=41),
    "member": Value(bool_val=True),
    "seen": Value(unix_timestamp_val=AT_US // 1_000_000 - 86_400),
}


def columns(rows: int) -> dict[str, Any]:
    random = np.random.default_rng(3)
    made: dict[str, Any] = {}
    for item in INPUTS:
        if item.dtype == "string":
            made[item.name] = random.choice(["red", "blue", "a"], rows).astype(object)
        elif item.dtype == "timestamp":
            made[item.name] = AT_US + random.integers(0, 10**12, rows)
        else:
            made[item.name] = random.integers(0, 2 if item.dtype == "bool" else 50, rows).astype(float)
    return made


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = columns(300)
    graph = Graph.fit(INPUTS, found)
    matrix = graph.transform(found)
    score = matrix @ np.linspace(-1, 1, matrix.shape[1])
    label = (score > np.median(score)).astype(int)
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}
    booster = lightgbm.train(settings, lightgbm.Dataset(matrix, label), num_boost_round=20)
    documents = {
        "features.json": {"project": "p", "views": [VIEW]},
        "signature.json": {
            "inputs": [{"name": item.name, "dtype": item.dtype, "required": False} for item in INPUTS[:4]],
            "outputs": [{"name": "probability", "dtype": "double"}],
        },
        "golden.json": {
            "columns": {name: values[:20].tolist() for name, values in found.items()},
            "expected": np.asarray(booster.predict(matrix[:20])).tolist(),
            "tolerance": 1e-5,
        },
    }
    files = {name: json.dumps(document).encode() for name, document in documents.items()}
    files |= {"graph.json": graph.to_json().encode(), "model.onnx": to_onnx(booster)}
    return artifacts.write(tmp_path_factory.mktemp("every") / "dtype", files)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    path = tmp_path / "online.db"
    with contextlib.closing(sqlite3.connect(path)) as writer, writer:
        writer.execute("CREATE TABLE p_people (entity_key BLOB, feature_name TEXT, value BLOB, event_ts timestamp)")
        key = KeyCodec(["person", "group"], ["long", "string"]).key([7, "a"])
        for name, value in STORED.items():
            row = (key, name, value.SerializeToString(), AT_US // 1_000_000 - 60)
            writer.execute("INSERT INTO p_people VALUES (?, ?, ?, ?)", row)
    found = OnlineStore(path)
    yield found
    found.close()


class Logged(PredictionLog):
    """Keeps records."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, record: Record) -> None:
        self.records.append(record)


def served(uri: str, store: OnlineStore) -> tuple[Deployment, predict.Predictor, Logged]:
    deployment, log = Deployment(ID, lambda uri: open_model(uri, store)), Logged()
    deployment.current = Serving("one", uri, open_model(uri, store))
    return deployment, predict.Predictor(log, Metrics()), log


def asked(rows: int = 1) -> bytes:
    sent = {"text": "a", "number": 2.5, "whole": 7, "flag": True}
    inputs = [tensor(name, [value] * rows) for name, value in sent.items()]
    return json.dumps({"inputs": inputs, "parameters": {"event_timestamp": AT, "explain_features": True}}).encode()


def test_every_dtype_comes_from_the_request_and_from_the_store(uri: str, store: OnlineStore) -> None:
    deployment, predictor, log = served(uri, store)
    found = predictor.infer(deployment, asked(), "")
    assert isinstance(found, Response)
    document = json.loads(found.body)
    shown = {item["feature"]: item["value"] for item in document["parameters"]["features"]}
    assert shown == {"colour": "red", "visits": 41, "member": True, "seen": "2013-12-30T12:00:00Z"}
    assert document["parameters"]["features"][0]["entity"] == {"person": 7, "group": "a"}
    given = {
        "text": np.array(["a"], object),
        "number": np.array([2.5]),
        "whole": np.array([7.0]),
        "flag": np.array([1.0]),
        "event_timestamp": np.array([AT_US]),
        "colour": np.array(["red"], object),
        "visits": np.array([41.0]),
        "member": np.array([1.0]),
        "seen": np.array([AT_US - 86_400_000_000]),
    }
    assert deployment.current is not None
    scorer: Scorer = deployment.current.model._scorer
    assert document["outputs"][0]["data"] == scorer.predict(given).tolist()
    assert log.records[0].values == {"text": ["a"], "number": [2.5], "whole": [7], "flag": [True]}


def test_the_moment_of_the_request_is_read_by_the_model(uri: str, store: OnlineStore) -> None:
    model = open_model(uri, store)
    assert model.reads_event_timestamp
    assert "event_timestamp" not in {item.name for item in model.signature.inputs}


def test_a_request_without_inputs_is_one_row_of_missing_values(uri: str, store: OnlineStore) -> None:
    deployment, predictor, _ = served(uri, store)
    found = predictor.infer(deployment, b'{"inputs": []}', "")
    assert isinstance(found, Response)
    assert json.loads(found.body)["outputs"][0]["shape"] == [1]


class Broken:
    """Stands in for a scorer that fails."""

    def __init__(self, scores: Any) -> None:
        self._scores = np.array(scores, np.float32)

    def predict(self, _: Any) -> Any:
        return self._scores


@pytest.mark.parametrize("scores", [[math.nan], [math.inf], [-0.1], [1.5], [0.5, 0.5], [], [[0.5]]])
@pytest.mark.parametrize("rows", [1, 100])
async def test_an_output_that_is_no_probability_is_never_answered(
    uri: str, store: OnlineStore, scores: Any, rows: int
) -> None:
    deployment, predictor, log = served(uri, store)
    assert deployment.current is not None
    deployment.current.model._scorer = Broken(scores)  # type: ignore[assignment]
    with pytest.raises(BadModelOutput):
        deployment.current.model.score({}, 1)
    found = predictor.infer(deployment, asked(rows), "")
    answered = found if isinstance(found, Response) else await found
    assert (answered.status, json.loads(answered.body)["reason"]) == (503, "BAD_MODEL_OUTPUT")
    assert log.records == []


async def test_more_large_requests_than_there_is_room_for_are_told_to_come_again(uri: str, store: OnlineStore) -> None:
    deployment, predictor, _ = served(uri, store)
    coming = [predictor.infer(deployment, asked(100), "") for _ in range(predict.MOST_LARGE + 1)]
    found = await asyncio.gather(*(item for item in coming if not isinstance(item, Response)))
    assert [item.status for item in found] == [200] * predict.MOST_LARGE + [429]
    assert b"Retry-After: 1\r\n" in found[-1].head
    assert json.loads(found[-1].body)["reason"] == "OVERLOADED"


def test_a_locked_store_slows_one_request_and_fails_none(uri: str, store: OnlineStore, tmp_path: Path) -> None:
    deployment, predictor, _ = served(uri, store)
    with contextlib.closing(sqlite3.connect(tmp_path / "online.db", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        statuses = []
        for _ in range(20):
            found = predictor.infer(deployment, asked(), "")
            assert isinstance(found, Response)
            statuses.append(json.loads(found.body)["parameters"]["features"][0]["status"])
        writer.execute("COMMIT")
    assert set(statuses) == {"NOT_FOUND"}
    assert 0 < store.errors < 10
    store._rest_until_s = 0.0
    found = predictor.infer(deployment, asked(), "")
    assert isinstance(found, Response)
    assert json.loads(found.body)["parameters"]["features"][0]["status"] == "PRESENT"
