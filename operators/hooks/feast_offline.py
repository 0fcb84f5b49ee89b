"""Feast's offline store on Parquet files, with a point-in-time join on sorted arrays.  Reads files; never writes one.

Feast's own file store joins by merging and then filtering, which grows with the history; this one looks each event up.
Named in the feature store's configuration as `operators.hooks.feast_offline.SortedOfflineStore`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureView, FileSource, OnDemandFeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from operators.features import asof

EVENT_TIMESTAMP = "event_timestamp"


class SortedOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc,unused-ignore]
    """sources: folder to which the paths of file sources are relative."""

    type: Literal["operators.hooks.feast_offline.SortedOfflineStore"] = (
        "operators.hooks.feast_offline.SortedOfflineStore"
    )
    sources: str


class TableJob(RetrievalJob):  # type: ignore[misc,unused-ignore]
    """A retrieval whose table is computed when it is asked for."""

    def __init__(self, compute: Callable[[], pa.Table], *, full_feature_names: bool = False) -> None:
        self._compute = compute
        self._full = full_feature_names

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are named `view__feature`."""
        return self._full

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """None: transformations belong to the model's graph."""
        return []

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._compute()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._compute().to_pandas()
        return frame

    def persist(self, storage: Any, allow_overwrite: bool | None = False, timeout: int | None = None) -> None:
        """Not offered: datasets are written by the stage that prepares them."""
        raise NotImplementedError("a dataset is written by prepare_dataset")

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """None."""
        return None


class SortedOfflineStore(OfflineStore):  # type: ignore[misc,unused-ignore]
    """Serves FileSources in Parquet."""

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Return the last row of each entity from `start_date` to `end_date`, both included."""

        def compute() -> pa.Table:
            stamps = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
            table = _read(config, data_source, [*join_key_columns, *feature_name_columns, *stamps])
            table = _between(table, timestamp_field, start_date, end_date)
            codes, _ = encode([table[name] for name in join_key_columns], None)
            created = micros(table[created_timestamp_column]) if created_timestamp_column else None
            return table.take(pa.array(asof.latest(codes, micros(table[timestamp_field]), created)))

        return TableJob(compute)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return every row of the range."""

        def compute() -> pa.Table:
            table = _read(config, data_source, [*join_key_columns, *feature_name_columns, timestamp_field])
            return _between(table, timestamp_field, start_date, end_date)

        return TableJob(compute)

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Join features to `entity_df` as they were known at its `event_timestamp`.

        Every row of `entity_df` is kept, in its order; what was not known, or was older than the view's TTL, is null.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise ValueError("entity_df must be a DataFrame with a column event_timestamp")

        def compute() -> pa.Table:
            events = pa.Table.from_pandas(entity_df, preserve_index=False)
            joined = events
            for view in feature_views:
                wanted = _wanted(view, feature_refs)
                for name, column in _join(config, view, wanted, events).items():
                    title = f"{_title(view)}__{name}" if full_feature_names else name
                    joined = joined.append_column(title, column)
            return joined

        return TableJob(compute, full_feature_names=full_feature_names)


def _title(view: FeatureView) -> str:
    name: str = view.projection.name_to_use()  # type: ignore[no-untyped-call]
    return name


def _wanted(view: FeatureView, refs: Sequence[str]) -> list[str]:
    name = _title(view)
    return [ref.split(":")[1] for ref in refs if ref.split(":")[0] == name]


def _join(config: RepoConfig, view: FeatureView, wanted: list[str], events: pa.Table) -> dict[str, pa.ChunkedArray]:
    source: Any = view.batch_source
    keys = [column.name for column in view.entity_columns]
    stamps = [name for name in (source.timestamp_field, source.created_timestamp_column) if name]
    table = _read(config, source, [*keys, *wanted, *stamps])
    asked = [view.projection.join_key_map.get(key, key) for key in keys]
    codes, event_codes = encode([table[key] for key in keys], [events[name] for name in asked])
    rows = asof.rows(
        codes=codes,
        instants=micros(table[source.timestamp_field]),
        event_codes=event_codes,
        event_instants=micros(events[EVENT_TIMESTAMP]),
        ttl_us=int(view.ttl.total_seconds() * 1_000_000) if view.ttl else 0,
        created=micros(table[source.created_timestamp_column]) if source.created_timestamp_column else None,
    )
    places = pa.array(rows, mask=rows == asof.NONE)
    return {name: table[name].take(places) for name in wanted}


def _read(config: RepoConfig, source: DataSource, columns: Sequence[str]) -> pa.Table:
    if not isinstance(source, FileSource):
        raise ValueError(f"{source.name}: only file sources are read, not {type(source).__name__}")
    path = Path(config.offline_store.sources) / source.path
    return pq.read_table(path, columns=list(dict.fromkeys(columns)))


def _between(table: pa.Table, field: str, start: datetime | None, end: datetime | None) -> pa.Table:
    instants = micros(table[field])
    keep = np.ones(len(instants), bool)
    if start is not None:
        keep &= instants >= int(start.timestamp() * 1_000_000)
    if end is not None:
        keep &= instants <= int(end.timestamp() * 1_000_000)
    return table.filter(pa.array(keep))


def micros(column: pa.ChunkedArray) -> asof.Int64:
    """Return instants as int64 microseconds since 1970 UTC."""
    kind = pa.timestamp("us", "UTC")
    cast: asof.Int64 = pc.cast(column, kind, safe=False).cast(pa.int64()).to_numpy()
    return cast


def encode(
    source: Sequence[pa.ChunkedArray], events: Sequence[pa.ChunkedArray] | None
) -> tuple[asof.Int64, asof.Int64]:
    """Return numbers of the entities of both sides: equal where all their keys are equal, -1 for a missing key."""
    count = len(source[0])
    total = np.zeros(count + (len(events[0]) if events else 0), np.int64)
    absent = np.zeros(len(total), bool)
    for place, column in enumerate(source):
        chunks = column.chunks + (events[place].cast(column.type).chunks if events else [])
        codes = pa.chunked_array(chunks, column.type).combine_chunks().dictionary_encode()
        codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
        indices: npt.NDArray[np.int64] = codes.indices.cast(pa.int64()).fill_null(0).to_numpy()
        absent |= codes.is_null().to_numpy(zero_copy_only=False)
        total = np.unique(total * (len(codes.dictionary) + 1) + indices, return_inverse=True)[1].astype(np.int64)
    total[absent] = asof.NONE
    return total[:count], total[count:]
