"""Which features a prediction was made of, for people and programs.  Computes nothing that the model reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from serving import instants
from serving.join import Found
from serving.online_store import Value

SECOND_US = 1_000_000


def features(found: Sequence[Sequence[Found]], at_us: int) -> list[dict[str, Any]]:
    """Return an entry for each row and joined feature: value, entity, event time, age in seconds, status."""
    return [entry for view in found for row, one in enumerate(view) for entry in _entries(one, row, at_us)]


def _entries(one: Found, row: int, at_us: int) -> Iterator[dict[str, Any]]:
    entity = dict(zip(one.view.keys, one.key, strict=True))
    for name, dtype, value in zip(one.view.features, one.view.dtypes, one.values, strict=True):
        yield {
            "view": one.view.name,
            "feature": name,
            "value": _shown(value, dtype),
            "entity": entity,
            "event_timestamp": None if one.hit is None else instants.text(one.hit.at_us),
            "age_s": None if one.hit is None else (at_us - one.hit.at_us) / SECOND_US,
            "status": one.status,
            "row": row,
        }


def _shown(value: Value, dtype: str) -> Value:
    if dtype == "timestamp" and isinstance(value, int):
        return instants.text(value)
    return value
