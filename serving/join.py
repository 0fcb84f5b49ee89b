"""Features joined to a request from the online store, judged by their age.  Caches entities until the store changes.

What is not there, or older than its view allows, is a missing value: a prediction never fails for want of a feature.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from operators.features.graph import MISSING
from serving import instants
from serving.online_store import KeyCodec, OnlineStore, Value

MOST_CACHED = 20_000
SECOND_US = 1_000_000
FRESH_S = 0.002
"""Asking the store whether it changed takes longer than the rest of the join: not for every request."""
READABLE: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "double": (float, int),
    "long": (int,),
    "bool": (bool,),
    "timestamp": (int,),
}
PRESENT, OUTSIDE_MAX_AGE, NOT_FOUND = "PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"

Array = npt.NDArray[Any]
Rows = Mapping[str, Sequence[Value]]


class Hit(NamedTuple):
    """What the store holds of an entity.  `columns`: its values as arrays of one row."""

    at_us: int
    values: tuple[Value, ...]
    columns: dict[str, Array]


class Found(NamedTuple):
    """One view's features of one row.  `hit` is there also when it is too old."""

    view: View
    key: tuple[Value, ...]
    hit: Hit | None
    status: str

    @property
    def values(self) -> tuple[Value, ...]:
        """The values that the model reads."""
        if self.hit is not None and self.status == PRESENT:
            return self.hit.values
        return self.view.nothing


class View:
    """One feature view of a model."""

    def __init__(self, project: str, document: Mapping[str, Any]) -> None:
        self.name = str(document["view"])
        self.keys = tuple(str(item["name"]) for item in document["join_keys"])
        self.key_inputs = tuple(str(item["input"]) for item in document["join_keys"])
        self.features = tuple(str(item["name"]) for item in document["features"])
        self.inputs = tuple(str(item["input"]) for item in document["features"])
        self.dtypes = tuple(str(item["dtype"]) for item in document["features"])
        self.ttl_us = int(document["ttl_s"]) * SECOND_US
        self.nothing: tuple[Value, ...] = (None,) * len(self.features)
        self.missing = self._columns(self.nothing)
        self._table = f"{project}_{self.name}"
        self._codec = KeyCodec(self.keys, [str(item["dtype"]) for item in document["join_keys"]])
        self._cache: dict[tuple[Value, ...], Hit | None] = {}

    def forget(self) -> None:
        """Empty the cache."""
        self._cache.clear()

    def find(self, store: OnlineStore, key: tuple[Value, ...], at_us: int) -> Found:
        """Return the features of an entity at an instant."""
        try:
            hit = self._cache[key]
        except KeyError:
            hit = self._read(store, key)
        if hit is None:
            return Found(self, key, None, NOT_FOUND)
        if self.ttl_us and at_us - hit.at_us > self.ttl_us:
            return Found(self, key, hit, OUTSIDE_MAX_AGE)
        return Found(self, key, hit, PRESENT)

    def _read(self, store: OnlineStore, key: tuple[Value, ...]) -> Hit | None:
        if None in key or "" in key:
            return None
        try:
            row = store.read(self._table, self._codec.key(key), self.features)
        except sqlite3.Error:
            return None
        if len(self._cache) >= MOST_CACHED:
            self._cache.clear()
        hit = None
        if row is not None:
            stored = zip(self.features, self.dtypes, strict=True)
            values = tuple(_readable(row[1].get(name), dtype) for name, dtype in stored)
            hit = Hit(row[0], values, self._columns(values))
        self._cache[key] = hit
        return hit

    def _columns(self, values: Sequence[Value]) -> dict[str, Array]:
        return {
            name: array([value], dtype) for name, value, dtype in zip(self.inputs, values, self.dtypes, strict=True)
        }


class Joined(NamedTuple):
    """`columns`: arrays of the graph's feature inputs; `found`: for each view, what was found for each row."""

    columns: dict[str, Array]
    found: Sequence[Sequence[Found]]


class FeatureJoin:
    """The join of one model.  document: `features.json`.  Raises KeyError, TypeError or ValueError if malformed."""

    def __init__(self, document: Mapping[str, Any], store: OnlineStore) -> None:
        project = str(document.get("project", ""))
        self.views = tuple(View(project, item) for item in document["views"])
        self._store = store
        self._version: tuple[int, int] = (-1, -1)
        self._fresh_until_s = 0.0

    @property
    def features(self) -> list[tuple[str, str]]:
        """Graph input and dtype of every joined feature."""
        return [pair for view in self.views for pair in zip(view.inputs, view.dtypes, strict=True)]

    def join(self, rows: Rows, count: int, at_us: int) -> Joined:
        """Return the features of `count` rows at an instant (microseconds)."""
        if not self.views:
            return Joined({}, ())
        self._refresh()
        columns: dict[str, Array] = {}
        every: list[Sequence[Found]] = []
        for view in self.views:
            if count == 1:
                one = view.find(self._store, tuple([rows[name][0] for name in view.key_inputs]), at_us)
                columns.update(one.hit.columns if one.hit is not None and one.status is PRESENT else view.missing)
                every.append((one,))
            else:
                many = self._many(view, rows, count, at_us)
                columns.update(_transposed(view, many))
                every.append(many)
        return Joined(columns, every)

    def _refresh(self) -> None:
        now_s = time.monotonic()
        if now_s < self._fresh_until_s:
            return
        self._fresh_until_s = now_s + FRESH_S
        version = self._store.version()
        if version != self._version:
            self._version = version
            for view in self.views:
                view.forget()

    def _many(self, view: View, rows: Rows, count: int, at_us: int) -> Sequence[Found]:
        keys = zip(*(rows[name] for name in view.key_inputs), strict=True) if view.key_inputs else ((),) * count
        known: dict[tuple[Value, ...], Found] = {}
        found = []
        for key in keys:
            one = known.get(key)
            if one is None:
                one = known[key] = view.find(self._store, key, at_us)
            found.append(one)
        return found


def _transposed(view: View, found: Sequence[Found]) -> dict[str, Array]:
    values = list(zip(*(item.values for item in found), strict=True)) or [()] * len(view.inputs)
    return {name: array(column, dtype) for name, column, dtype in zip(view.inputs, values, view.dtypes, strict=True)}


def _readable(value: Value, dtype: str) -> Value:
    """Return None for a missing number, which Feast writes as NaN too, and for what changed its type since training."""
    if type(value) not in READABLE[dtype] or value != value:
        return None
    if dtype == "timestamp" and isinstance(value, int) and not instants.FIRST_US <= value <= instants.LAST_US:
        return None
    return value


def array(values: Sequence[Value], dtype: str) -> Array:
    """Return the array that a graph reads: what is missing is NaN, "" or `MISSING`."""
    if dtype == "string":
        made = np.empty(len(values), object)
        made[:] = ["" if value is None else value for value in values]
        return made
    if dtype == "timestamp":
        return np.array([MISSING if value is None else value for value in values], np.int64)
    if None in values:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return np.array(values, np.float64)
