"""A small real Feast repository: the flights' views over a few rows, materialized to SQLite."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "flights"
SERVICE = "departure"
NOW = datetime(2013, 12, 31, 12, tzinfo=UTC)
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
SEEN = {
    "weather": [({"origin": "JFK"}, timedelta(hours=1)), ({"origin": "LGA"}, timedelta(hours=30))],
    "carrier_delays": [({"carrier": "AA"}, timedelta(days=2)), ({"carrier": "UA"}, timedelta(days=8))],
    "destination_delays": [({"dest": "MIA"}, timedelta(days=1)), ({"dest": "ØRD"}, timedelta(days=1))],
    "origin_delays": [({"origin": "JFK"}, timedelta(minutes=10)), ({"origin": "LGA"}, timedelta(hours=2))],
    "carrier_origin_delays": [({"carrier": "AA", "origin": "JFK"}, timedelta(hours=5))],
    "planes": [({"tailnum": "N1"}, timedelta(days=365))],
}
FEATURES = {
    "weather": WEATHER,
    "carrier_delays": ("carrier_delay_7d", "carrier_late_7d"),
    "destination_delays": ("dest_delay_7d", "dest_late_7d"),
    "origin_delays": ("origin_delay_3h", "origin_late_3h"),
    "carrier_origin_delays": ("carrier_origin_delay_6h", "carrier_origin_late_6h"),
    "planes": ("plane_age", "seats"),
}


def frame(view: str) -> pd.DataFrame:
    """Return the source rows of a view; one feature of the second row is missing."""
    rows: list[dict[str, Any]] = []
    for number, (keys, age) in enumerate(SEEN[view]):
        values: dict[str, Any] = {
            name: 1.5 + place + 10 * number if place or not number else None
            for place, name in enumerate(FEATURES[view])
        }
        rows.append({**keys, "event_timestamp": NOW - age, **values})
    made = pd.DataFrame(rows).astype(dict.fromkeys(FEATURES[view], float))
    made["event_timestamp"] = made["event_timestamp"].astype("datetime64[us, UTC]")
    return made


def build(home: Path) -> Any:
    """Return a repository whose online store holds every row."""
    from operators.hooks.feast import FeatureRepository

    repository = FeatureRepository(PROJECT, definitions=ROOT / "feature_repo" / "flights.py", home=home)
    repository.sources.mkdir(parents=True)
    for view in SEEN:
        frame(view).to_parquet(repository.sources / f"{view}.parquet", index=False)
    repository.apply()
    repository.materialize(SERVICE, until=NOW + timedelta(hours=1))
    return repository
