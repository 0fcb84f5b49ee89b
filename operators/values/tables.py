"""Tables as Parquet: Arrow, pandas and polars, each back as what it was.  Imports the library that a value is of."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from operators.values.formats import Format, ValueRefused
from operators.values.table_digest import table_digest

SUFFIX = ".parquet"
PANDAS = b"pandas"
SERIES = b"series"
# What of pandas' own note is content; the rest names versions.
CONTENT = ("index_columns", "column_indexes", "columns")


def formats() -> list[Format]:
    """Return the formats of the libraries that are loaded; reading loads its own."""
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    frame, series = (pandas.DataFrame, pandas.Series) if pandas else (type(None), type(None))
    return [
        Format("arrow", pa.Table, parquet, read_table, SUFFIX, digest),
        Format("pandas", frame, _write_pandas, _read_pandas, SUFFIX, digest),
        Format("pandas.series", series, _write_series, _read_series, SUFFIX, digest),
        Format("polars", polars.DataFrame if polars else type(None), _write_polars, _read_polars, SUFFIX, digest),
    ]


def digest(content: bytes) -> str:
    """Return the digest of a table's content.  Raises ValueRefused for a type that cannot be told."""
    table = read_table(content)
    try:
        return table_digest(table, _described(table.schema.metadata or {}))
    except ValueError as error:
        raise ValueRefused(f"a table {error}") from error


def _described(metadata: dict[bytes, bytes]) -> bytes:
    """Return what a table's notes say of its content: pandas' index and types of columns."""
    if PANDAS not in metadata:
        return b""
    note = json.loads(metadata[PANDAS])
    said = {name: note[name] for name in CONTENT}
    return json.dumps([said, metadata.get(SERIES, b"").decode()], sort_keys=True).encode()


def parquet(table: pa.Table) -> bytes:
    """Return a table as Parquet."""
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", compression_level=1)
    return file.getvalue()


def read_table(content: bytes) -> pa.Table:
    """Return the table of Parquet."""
    return pq.read_table(pa.BufferReader(content))


def arrow(frame: Any) -> pa.Table:
    """Return a table of pandas or polars as Arrow's, without pandas' notes.  Raises ValueRefused."""
    if hasattr(frame, "to_arrow"):
        return frame.to_arrow()
    return _of_pandas(frame).replace_schema_metadata(None)


def _of_pandas(frame: Any) -> pa.Table:
    try:
        return pa.Table.from_pandas(frame)
    except (pa.ArrowException, ValueError, TypeError) as error:
        told = " ".join(str(error).split())[:300]
        raise ValueRefused(
            f"a pandas table cannot be passed between steps: {told}; give each column one type, for example with astype"
        ) from error


def _write_pandas(frame: Any) -> bytes:
    return parquet(_of_pandas(frame))


def _read_pandas(content: bytes) -> Any:
    return read_table(content).to_pandas()


def _of_series(series: Any) -> pa.Table:
    named = series.to_frame(name="value")
    table = _of_pandas(named)
    name = json.dumps(series.name if isinstance(series.name, str | int | None) else str(series.name))
    return table.replace_schema_metadata({**(table.schema.metadata or {}), SERIES: name.encode()})


def _write_series(series: Any) -> bytes:
    return parquet(_of_series(series))


def _read_series(content: bytes) -> Any:
    table = read_table(content)
    return table.to_pandas()["value"].rename(json.loads(table.schema.metadata[SERIES]))


def _write_polars(frame: Any) -> bytes:
    return parquet(frame.to_arrow())


def _read_polars(content: bytes) -> Any:
    import polars

    return polars.from_arrow(read_table(content))
