"""The join reads Feast's own file and answers as Feast does, but knows how old a value may be."""

import contextlib
import sqlite3
import struct
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from operators.features.graph import MISSING
from serving.join import NOT_FOUND, OUTSIDE_MAX_AGE, PRESENT, FeatureJoin, array
from serving.online_store import KeyCodec, OnlineStore, decode
from tests.serving.conftest import Stage, home_of
from tests.serving.store import FEATURES, NOW, SEEN, SERVICE

NOW_US = int(NOW.timestamp()) * 1_000_000
ENTITIES = ("carrier", "origin", "dest", "tailnum")
VIEW = {
    "view": "v",
    "join_keys": [{"name": "k", "input": "k", "dtype": "string"}],
    "features": [{"name": "f", "input": "f", "dtype": "double"}],
    "ttl_s": 60,
}


@pytest.fixture
def join(stage: Stage) -> Any:
    store = OnlineStore(stage.home / "features" / "online.db")
    yield FeatureJoin({"project": "flights", "views": stage.views}, store)
    store.close()


def test_the_join_equals_feasts_own_answers(stage: Stage, join: FeatureJoin) -> None:
    rows = {
        "carrier": ["AA", "UA", "AA", "ZZ", ""],
        "origin": ["JFK", "LGA", "LGA", "JFK", "EWR"],
        "dest": ["MIA", "ØRD", "XXX", "MIA", ""],
        "tailnum": ["N1", "N2", "N1", "", "N1"],
    }
    entities = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    service = stage.repository._service(SERVICE)
    theirs = stage.repository._store.get_online_features(features=service, entity_rows=entities).to_dict()
    joined = join.join(rows, len(entities), NOW_US)
    for view, found in zip(join.views, joined.found, strict=True):
        for row, one in enumerate(found):
            stored = one.hit.values if one.hit is not None else one.view.nothing
            assert list(stored) == [theirs[name][row] for name in view.features], (view.name, row)
    assert sum(value is not None for name in FEATURES["weather"] for value in theirs[name]) > 20


def test_one_row_and_many_rows_are_joined_alike(join: FeatureJoin) -> None:
    rows = {"carrier": ["AA", "UA"], "origin": ["JFK", "LGA"], "dest": ["MIA", "XXX"], "tailnum": ["N1", ""]}
    both = join.join(rows, 2, NOW_US)
    for row in range(2):
        one = join.join({name: [values[row]] for name, values in rows.items()}, 1, NOW_US)
        assert one.columns.keys() == both.columns.keys()
        for name, column in one.columns.items():
            np.testing.assert_array_equal(column, both.columns[name][row : row + 1])
            assert column.dtype == both.columns[name].dtype


@pytest.mark.parametrize(("late_us", "status"), [(0, PRESENT), (-1, PRESENT), (1, OUTSIDE_MAX_AGE)])
def test_a_value_may_be_exactly_as_old_as_its_view_allows(join: FeatureJoin, late_us: int, status: str) -> None:
    ttl = timedelta(hours=3)
    _, age = SEEN["weather"][0]
    moment_us = int((NOW - age + ttl).timestamp()) * 1_000_000 + late_us
    weather = join.views[0]
    found = weather.find(join._store, ("JFK",), moment_us) if join.join(_row(), 1, moment_us) else None
    assert found is not None
    assert found.status == status
    assert (found.values == weather.nothing) == (status == OUTSIDE_MAX_AGE)


def _row() -> dict[str, list[Any]]:
    return {"carrier": ["AA"], "origin": ["JFK"], "dest": ["MIA"], "tailnum": ["N1"]}


def test_a_view_without_a_limit_never_ages(join: FeatureJoin) -> None:
    joined = join.join(_row(), 1, NOW_US + 10**15)
    assert {found[0].view.name: found[0].status for found in joined.found}["planes"] == PRESENT


@pytest.mark.parametrize("key", [None, ""])
def test_a_missing_key_finds_nothing_and_asks_nobody(join: FeatureJoin, key: str | None) -> None:
    joined = join.join({**_row(), "origin": [key]}, 1, NOW_US)
    by_view = {found[0].view.name: found[0].status for found in joined.found}
    assert by_view["weather"] == by_view["carrier_origin_delays"] == NOT_FOUND
    assert np.isnan(joined.columns["temp"][0])


def test_a_commit_of_another_process_is_seen(stage: Stage, tmp_path: Path) -> None:
    path = home_of(stage, tmp_path) / "features" / "online.db"
    store = OnlineStore(path)
    join = FeatureJoin({"project": "flights", "views": stage.views}, store)
    before = join.join(_row(), 1, NOW_US).columns["temp"][0]
    with contextlib.closing(sqlite3.connect(path)) as writer, writer:
        value = Value(double_val=99.5).SerializeToString()
        writer.execute("UPDATE flights_weather SET value = ? WHERE feature_name = 'temp'", (value,))
    join._fresh_until_s = 0.0
    assert before == 1.5
    assert join.join(_row(), 1, NOW_US).columns["temp"][0] == 99.5
    store.close()


def test_a_store_that_is_not_there_gives_missing_values_until_it_is(stage: Stage, tmp_path: Path) -> None:
    store = OnlineStore(tmp_path / "later" / "features" / "online.db")
    join = FeatureJoin({"project": "flights", "views": stage.views}, store)
    joined = join.join(_row(), 1, NOW_US)
    assert {found[0].status for found in joined.found} == {NOT_FOUND}
    assert all(np.isnan(column).all() for column in joined.columns.values())
    home_of(stage, tmp_path / "later")
    join._fresh_until_s = store._look_at_s = 0.0
    assert join.join(_row(), 1, NOW_US).columns["temp"][0] == 1.5
    store.close()


def test_a_store_that_was_replaced_is_opened_again(stage: Stage, tmp_path: Path) -> None:
    path = home_of(stage, tmp_path) / "features" / "online.db"
    store = OnlineStore(path)
    join = FeatureJoin({"project": "flights", "views": stage.views}, store)
    assert join.join(_row(), 1, NOW_US).columns["temp"][0] == 1.5
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as empty:
        empty.execute("CREATE TABLE other (x)")
    join._fresh_until_s = store._look_at_s = 0.0
    assert join.join(_row(), 1, NOW_US).found[0][0].status == NOT_FOUND
    assert store.errors == 0, "a view that was never materialized is no error"
    store.close()


def test_a_store_that_is_damaged_fails_no_prediction(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    path.write_bytes(b"no database at all" * 1000)
    store = OnlineStore(path)
    join = FeatureJoin({"project": "flights", "views": stage.views}, store)
    assert {found[0].status for found in join.join(_row(), 1, NOW_US).found} == {NOT_FOUND}
    assert store.errors > 0
    store.close()


@pytest.mark.parametrize("content", [b"\x29\x01", b"\x12\x05a", b"\x12\x01\xff", b"\x20\x80"])
def test_a_damaged_value_fails_no_prediction(stage: Stage, tmp_path: Path, content: bytes) -> None:
    path = home_of(stage, tmp_path) / "features" / "online.db"
    with contextlib.closing(sqlite3.connect(path)) as writer, writer:
        writer.execute("UPDATE flights_weather SET value = ? WHERE feature_name = 'temp'", (content,))
    store = OnlineStore(path)
    join = FeatureJoin({"project": "flights", "views": stage.views}, store)
    joined = join.join(_row(), 1, NOW_US)
    assert np.isnan(joined.columns["temp"][0])
    assert joined.found[0][0].values[0] is None


@pytest.mark.parametrize("event_ts", ["'yesterday'", "NULL", str(2**62)])
def test_a_damaged_event_time_fails_no_prediction(stage: Stage, tmp_path: Path, event_ts: str) -> None:
    path = home_of(stage, tmp_path) / "features" / "online.db"
    with contextlib.closing(sqlite3.connect(path)) as writer, writer:
        writer.execute(f"UPDATE flights_weather SET event_ts = {event_ts}")
    store = OnlineStore(path)
    join = FeatureJoin({"project": "flights", "views": stage.views}, store)
    statuses = {found[0].view.name: found[0].status for found in join.join(_row(), 1, NOW_US).found}
    assert statuses["weather"] == NOT_FOUND
    assert statuses["carrier_delays"] == PRESENT, "the other views are read"
    assert store.errors == 1
    store.close()


def test_reading_never_writes(stage: Stage, tmp_path: Path) -> None:
    store = OnlineStore(home_of(stage, tmp_path) / "features" / "online.db")
    store.version()
    assert store._connection is not None
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store._connection.execute("DELETE FROM flights_weather")
    store.close()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Value(double_val=0.0), 0.0),
        (Value(double_val=-1.5e300), -1.5e300),
        (Value(float_val=0.25), 0.25),
        (Value(int64_val=-(2**63)), -(2**63)),
        (Value(int64_val=2**63 - 1), 2**63 - 1),
        (Value(int32_val=-1), -1),
        (Value(int32_val=300), 300),
        (Value(bool_val=True), True),
        (Value(bool_val=False), False),
        (Value(string_val=""), ""),
        (Value(string_val="é" * 200), "é" * 200),
        (Value(unix_timestamp_val=-5), -5_000_000),
        (Value(), None),
        (Value(null_val=0), None),  # type: ignore[arg-type]
        (Value(bytes_val=b"x"), None),
    ],
)
def test_values_are_decoded_as_feast_writes_them(value: Value, expected: object) -> None:
    found = decode(value.SerializeToString())
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("keys", "values", "protos"),
    [
        ({"origin": "string"}, ["JFK"], [Value(string_val="JFK")]),
        ({"b": "string", "a": "long"}, ["é", -7], [Value(string_val="é"), Value(int64_val=-7)]),
        ({"at": "timestamp"}, [1_500_000], [Value(unix_timestamp_val=1)]),
    ],
)
def test_keys_are_feasts_keys(keys: dict[str, str], values: list[Any], protos: list[Value]) -> None:
    codec = KeyCodec(list(keys), list(keys.values()))
    theirs = EntityKey(join_keys=list(keys), entity_values=protos)
    assert codec.key(values) == serialize_entity_key(theirs, entity_key_serialization_version=3)


def test_a_key_that_feast_has_no_bytes_for_is_refused() -> None:
    with pytest.raises(ValueError, match="double"):
        KeyCodec(["x"], ["double"])


def test_a_missing_number_is_nan_however_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    codec = KeyCodec(["k"], ["string"])
    with contextlib.closing(sqlite3.connect(path)) as writer, writer:
        writer.execute("CREATE TABLE p_v (entity_key BLOB, feature_name TEXT, value BLOB, event_ts timestamp)")
        for key, value in (("nan", b"\x29" + struct.pack("<d", float("nan"))), ("nothing", b""), ("one", b"")):
            writer.execute("INSERT INTO p_v VALUES (?, 'f', ?, 100)", (codec.key([key]), value))
    store = OnlineStore(path)
    join = FeatureJoin({"project": "p", "views": [VIEW]}, store)
    for key in ("nan", "nothing"):
        found = join.join({"k": [key]}, 1, 110_000_000)
        assert (found.found[0][0].status, found.found[0][0].values) == (PRESENT, (None,))
        assert np.isnan(found.columns["f"][0])
    store.close()


def test_arrays_hold_what_graphs_read() -> None:
    assert array(["a", None], "string").tolist() == ["a", ""]
    assert array([1, None], "timestamp").tolist() == [1, MISSING]
    assert np.isnan(array([None], "double")).all()
    assert array([True, None], "bool").dtype == np.float64
    assert array([], "string").shape == (0,)
