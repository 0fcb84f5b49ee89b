"""The flights learn nothing from the future: changing what came after an event changes none of its features."""

import importlib
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
MOMENT = pd.Timestamp("2013-07-10T18:00:00Z")
UNTOLD = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "landed"}


@pytest.fixture(scope="module")
def flights() -> Iterator[ModuleType]:
    """The example's module, found as a job finds it."""
    sys.path.insert(0, str(ROOT / "examples" / "flights"))
    yield importlib.import_module("flights")
    sys.path.remove(str(ROOT / "examples" / "flights"))
    del sys.modules["flights"]


@pytest.fixture(scope="module")
def joined(flights: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], pd.DataFrame]:
    """Writes the sources and joins the features of the flights around `MOMENT`."""
    from operators.hooks.feast import FeatureRepository

    def join() -> pd.DataFrame:
        home = tmp_path_factory.mktemp("features")
        repository = FeatureRepository("flights", definitions=ROOT / "feature_repo" / "flights.py", home=home)
        repository.sources.mkdir(parents=True)
        flights.feature_sources(repository.sources)
        repository.apply()
        frame = flights.examples().frame
        near = (MOMENT - frame["event_timestamp"]).between(pd.Timedelta(0), pd.Timedelta(days=1))
        return repository.join("departure", frame[near].reset_index(drop=True))

    return join


def features_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The features, by what identifies a flight whatever its delay was."""
    keys = ["event_timestamp", "carrier", "origin", "dest", "tailnum"]
    known = frame.drop(columns=["late", "scheduled_departure", "distance"])
    return known.drop_duplicates(keys).set_index(keys).sort_index()


def changed_after(flights: ModuleType, moment: pd.Timestamp) -> Callable[[str], pd.DataFrame]:
    """Return a reader of the same files in which everything that was not known at `moment` is another."""
    read, all_flights = flights._read, flights.flights()
    later = (all_flights["landed"] > moment).to_numpy()

    def reader(name: str) -> pd.DataFrame:
        table: pd.DataFrame = read(name)
        if name == "flights.csv.zip":
            table.loc[later, "arr_delay"] = 500.0
            table.loc[later, "dep_delay"] += 90.0
        if name == "weather.csv":
            after = pd.to_datetime(table["time_hour"], utc=True) > moment
            table.loc[after, flights.WEATHER] = -1.0
        return table

    return reader


@pytest.mark.parametrize("taxi_h", [0.5, -6.0])
def test_the_future_changes_no_feature(
    flights: ModuleType, joined: Callable[[], pd.DataFrame], monkeypatch: pytest.MonkeyPatch, taxi_h: float
) -> None:
    """With the taxi time as it is; and with one that lets flights land hours too early, which has to be noticed."""
    reader = changed_after(flights, MOMENT)
    monkeypatch.setattr(flights, "TAXI", pd.Timedelta(hours=taxi_h))
    before = features_of(joined())
    monkeypatch.setattr(flights, "_read", reader)
    after = features_of(joined())
    assert len(before) > 500
    same = before.index.intersection(after.index)
    assert len(same) > 0.95 * len(before)
    left, right = before.loc[same], after.loc[same]
    equal = bool(((left == right) | (left.isna() & right.isna())).all(axis=None))
    assert equal is (taxi_h > 0)


def test_no_column_tells_how_the_flight_went(flights: ModuleType) -> None:
    examples = flights.examples()
    assert not UNTOLD & set(examples.frame.columns)
    assert len(examples.frame) == 327_346
    known_before = examples.frame["scheduled_departure"] - examples.frame["event_timestamp"]
    assert (known_before == pd.Timedelta(hours=1)).all()


def test_a_rolling_mean_is_that_of_the_flights_that_had_landed(flights: ModuleType) -> None:
    landed = flights.flights().dropna(subset=["arr_delay", "landed"])
    found = flights.rolling(landed, ["carrier"], pd.Timedelta(days=7), "carrier", "7d")
    for _, row in found[found["carrier"] == "HA"].iloc[::37].iterrows():
        age = row["event_timestamp"] - landed["landed"]
        window = landed[(landed["carrier"] == "HA") & (age >= pd.Timedelta(0)) & (age < pd.Timedelta(days=7))]
        np.testing.assert_allclose(row["carrier_delay_7d"], window["arr_delay"].mean())
        np.testing.assert_allclose(row["carrier_late_7d"], (window["arr_delay"] >= 15).mean())


def test_what_is_online_is_what_was_known_at_that_moment(
    flights: ModuleType, tmp_path: Path, joined: Callable[[], pd.DataFrame]
) -> None:
    from operators.hooks.feast import FeatureRepository

    repository = FeatureRepository("flights", definitions=ROOT / "feature_repo" / "flights.py", home=tmp_path)
    repository.sources.mkdir(parents=True)
    flights.feature_sources(repository.sources)
    repository.apply()
    assert repository.materialize("departure", until=datetime(2013, 7, 10, 18, tzinfo=UTC)) == 6
    offline = joined()
    row = offline[offline["event_timestamp"] == MOMENT].iloc[0]
    online: dict[str, Any] = repository._store.get_online_features(
        features=repository._service("departure"),
        entity_rows=[{name: row[name] for name in ("carrier", "origin", "dest", "tailnum")}],
    ).to_dict()
    for name in ("temp", "carrier_delay_7d", "dest_late_7d", "origin_delay_3h", "carrier_origin_late_6h"):
        assert online[name][0] == pytest.approx(row[name])
