"""Features of the flights example: what a value means, how long it may be used.  How it is made: `examples/flights`."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Float64
from feast.value_type import ValueType

origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING, description="Airport of departure.")
destination = Entity(
    name="destination", join_keys=["dest"], value_type=ValueType.STRING, description="Airport of arrival."
)
carrier = Entity(
    name="carrier", join_keys=["carrier"], value_type=ValueType.STRING, description="Airline, two letters."
)
plane = Entity(name="plane", join_keys=["tailnum"], value_type=ValueType.STRING, description="Tail number.")


def _view(name: str, entities: list[Entity], ttl: timedelta, features: dict[str, str]) -> FeatureView:
    return FeatureView(
        name=name,
        entities=entities,
        ttl=ttl,
        schema=[Field(name=feature, dtype=Float64, description=text) for feature, text in features.items()],
        source=FileSource(name=f"{name}_source", path=f"{name}.parquet", timestamp_field="event_timestamp"),
    )


weather = _view(
    "weather",
    [origin],
    timedelta(hours=3),
    {
        "temp": "Temperature, F.",
        "dewp": "Dew point, F.",
        "humid": "Relative humidity, per cent.",
        "wind_dir": "Wind direction, degrees.",
        "wind_speed": "Wind speed, miles an hour.",
        "wind_gust": "Gusts, miles an hour.",
        "precip": "Precipitation of the hour, inches.",
        "pressure": "Pressure at sea level, millibar.",
        "visib": "Visibility, miles.",
    },
)
carrier_delays = _view(
    "carrier_delays",
    [carrier],
    timedelta(days=7),
    {
        "carrier_delay_7d": "Mean arrival delay of the carrier's flights that landed in the past 7 days, minutes.",
        "carrier_late_7d": "Part of them that was 15 minutes late or more.",
    },
)
destination_delays = _view(
    "destination_delays",
    [destination],
    timedelta(days=7),
    {
        "dest_delay_7d": "Mean arrival delay of flights that landed there in the past 7 days, minutes.",
        "dest_late_7d": "Part of them that was 15 minutes late or more.",
    },
)
origin_delays = _view(
    "origin_delays",
    [origin],
    timedelta(hours=3),
    {
        "origin_delay_3h": "Mean arrival delay of flights from there that landed in the past 3 hours, minutes.",
        "origin_late_3h": "Part of them that was 15 minutes late or more.",
    },
)
carrier_origin_delays = _view(
    "carrier_origin_delays",
    [carrier, origin],
    timedelta(hours=6),
    {
        "carrier_origin_delay_6h": "The same of one carrier's flights from one airport, past 6 hours, minutes.",
        "carrier_origin_late_6h": "Part of them that was 15 minutes late or more.",
    },
)
planes = _view("planes", [plane], timedelta(0), {"plane_age": "Years since the plane was built.", "seats": "Seats."})

departure = FeatureService(
    name="departure",
    features=[weather, carrier_delays, destination_delays, origin_delays, carrier_origin_delays, planes],
    description="What is known of a flight one hour before its departure.",
)
