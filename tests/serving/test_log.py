"""The prediction log: what was asked, joined and answered, in Parquet, without making anybody wait."""

import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.log import PredictionLog, Record, Schema
from serving.online_store import Value
from serving.parquet import INSTANT, table
from tests.patience import PATIENCE_S
from tests.serving.conftest import Stage
from tests.serving.running import ID, Server, request
from tests.serving.store import FEATURES

SCHEMA = Schema([("carrier", "string")], [], "probability")
AT_US = 1_388_491_200_000_000


def record(request_id: str, scores: Sequence[float] = (0.5,), schema: Schema = SCHEMA, **changes: Any) -> Record:
    values: dict[str, Sequence[Value]] = {name: [None] * len(scores) for name, _ in schema.inputs}
    made = Record(schema, ID, "one", request_id, AT_US, 120, AT_US, values, (), scores)
    return made._replace(**changes)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("**/*.parquet"))
    return [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]


def settled(folder: Path, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + PATIENCE_S
    while len(found := rows_of(folder)) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_an_answer_is_logged_with_inputs_features_and_output(own_server: Server, stage: Stage) -> None:
    own_server.deploy(stage.first, "one", 1)
    score = own_server.infer({**request(tailnum=None, carrier="UA"), "id": "mine"}).document["outputs"][0]["data"][0]
    own_server.infer(request(rows=3))
    folder = own_server.config.predictions_path / ID
    rows = settled(folder, 4)
    assert len(rows) == 4
    row = rows[0]
    features = [name for names in FEATURES.values() for name in names]
    assert list(row) == [
        *("request_id", "deployment", "revision", "received_at", "latency_us", "event_timestamp"),
        *("carrier", "origin", "dest", "tailnum", "scheduled_departure", "distance"),
        *[name for view in stage.views for name in [item["name"] for item in view["features"]]],
        "probability",
    ]
    assert sorted(features) == sorted(list(row)[12:-1])
    assert (row["request_id"], row["deployment"], row["revision"]) == ("mine", ID, "one")
    assert row["event_timestamp"] == datetime(2013, 12, 31, 12, tzinfo=UTC)
    assert row["scheduled_departure"] == datetime(2013, 12, 31, 13, tzinfo=UTC)
    assert abs((datetime.now(UTC) - row["received_at"]).total_seconds()) < 60
    assert 0 < row["latency_us"] < 1_000_000
    assert (row["carrier"], row["tailnum"], row["distance"]) == ("UA", None, 12.0)
    assert (row["temp"], row["carrier_delay_7d"], row["seats"]) == (1.5, None, None)
    assert row["probability"] == score
    today = datetime.now(UTC).date().isoformat()
    assert {path.parent.name for path in folder.glob("**/*.parquet")} == {f"date={today}"}


def test_what_is_refused_is_not_logged(own_server: Server, stage: Stage) -> None:
    own_server.deploy(stage.first, "one", 1)
    own_server.infer(b"{")
    own_server.infer(request(rows=0, carrier=7))
    own_server.stop()
    assert rows_of(own_server.config.predictions_path) == []


def test_the_end_of_the_server_writes_what_is_left(own_server: Server, stage: Stage) -> None:
    own_server.deploy(stage.first, "one", 1)
    for _ in range(50):
        own_server.infer(request())
    assert own_server.stop() == 0
    assert len(rows_of(own_server.config.predictions_path)) == 50


def test_a_killed_server_loses_no_more_than_the_last_second(own_server: Server, stage: Stage) -> None:
    own_server.deploy(stage.first, "one", 1)
    answered = []
    started = time.monotonic()
    while time.monotonic() - started < 2.5:
        answered.append((time.monotonic(), own_server.infer(request()).document["id"]))
        time.sleep(0.005)
    killed = time.monotonic()
    own_server.stop(signal.SIGKILL)
    logged = {row["request_id"] for row in rows_of(own_server.config.predictions_path)}
    lost = [at for at, request_id in answered if request_id not in logged]
    assert logged
    assert all(killed - at < 1.5 for at in lost)
    assert logged <= {request_id for _, request_id in answered}


def test_what_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, most_rows=10)
    for number in range(12):
        log.add(record(str(number)))
    log.add(record("large", [0.5] * 11))
    assert log.dropped == 13
    log.start()
    log.close()
    assert [row["request_id"] for row in rows_of(tmp_path)] == [str(number) for number in range(10)]


def test_a_log_that_cannot_be_written_counts_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    log = PredictionLog(tmp_path / "log")
    log.start()
    log.add(record("a", [0.1, 0.2]))
    log.close()
    assert log.dropped == 2


def test_what_comes_while_a_file_is_written_is_written_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = PredictionLog(tmp_path)
    written = log._write

    def slow(*args: Any) -> None:
        if log._files == 0:
            log.add(record("second"))
        written(*args)

    monkeypatch.setattr(log, "_write", slow)
    log.start()
    log.add(record("first"))
    assert [row["request_id"] for row in settled(tmp_path, 2)] == ["first", "second"]
    log.close()


def test_a_thousand_rows_are_written_at_once(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.start()
    began = time.monotonic()
    log.add(record("a", [0.5] * 1000))
    while not list(tmp_path.glob("**/*.parquet")):
        assert time.monotonic() - began < 0.9, "before the second is over"
        time.sleep(0.01)
    log.close()


def test_models_and_days_have_files_of_their_own(tmp_path: Path) -> None:
    other = Schema([("origin", "string")], [], "probability")
    log = PredictionLog(tmp_path)
    log.add(record("a"))
    log.add(record("b", schema=other))
    log.add(record("c", received_us=AT_US + 86_400_000_000))
    log.start()
    log.close()
    assert len(list(tmp_path.glob(f"{ID}/date=2013-12-31/*.parquet"))) == 2
    assert len(list(tmp_path.glob(f"{ID}/date=2014-01-01/*.parquet"))) == 1
    assert not list(tmp_path.glob("**/.*"))


def test_a_column_whose_name_is_taken_gets_a_prefix() -> None:
    found = Schema([("revision", "string"), ("a", "long")], [("a", "double")], "a")
    assert list(found.names) == ["input_revision", "a", "feature_a", "output_a"]


@pytest.mark.parametrize("nothing", [True, False])
def test_every_type_survives(nothing: bool) -> None:
    missing: list[Any] = [None] if nothing else []
    columns: list[tuple[str, str, list[Any]]] = [
        ("text", "string", ["é", "", *missing]),
        ("number", "double", [1.5, -0.0, *missing]),
        ("whole", "long", [2**63 - 1, -(2**63), *missing]),
        ("flag", "bool", [True, False, *missing]),
        ("instant", "timestamp", [AT_US, -1, *missing]),
    ]
    found = table(columns)
    found.validate(full=True)
    assert found.schema.types == [pa.string(), pa.float64(), pa.int64(), pa.bool_(), INSTANT]
    assert found.column("text").to_pylist() == ["é", "", *missing]
    assert found.column("number").to_pylist() == [1.5, 0.0, *missing]
    assert found.column("whole").to_pylist() == [2**63 - 1, -(2**63), *missing]
    assert found.column("flag").to_pylist() == [True, False, *missing]
    assert found.column("instant").cast(pa.int64()).to_pylist() == [AT_US, -1, *missing]
