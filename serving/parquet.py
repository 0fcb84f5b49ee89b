"""Rows of the prediction log as an Arrow table.  Built from buffers: `pyarrow.array` would import pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

INSTANT = pa.timestamp("us", tz="UTC")
TYPES = {
    "string": pa.string(),
    "double": pa.float64(),
    "long": pa.int64(),
    "bool": pa.bool_(),
    "timestamp": INSTANT,
}
WIDTHS = {"double": np.float64, "long": np.int64, "timestamp": np.int64}


def table(columns: Sequence[tuple[str, str, Sequence[Any]]]) -> pa.Table:
    """Return a table of (name, dtype, values); None is null."""
    schema = pa.schema([(name, TYPES[dtype]) for name, dtype, _ in columns])
    return pa.Table.from_arrays([_array(values, dtype) for _, dtype, values in columns], schema=schema)


def _array(values: Sequence[Any], dtype: str) -> pa.Array:
    valid = np.array([value is not None for value in values], bool)
    nulls = len(values) - int(valid.sum())
    mask = _bits(valid) if nulls else None
    return pa.Array.from_buffers(TYPES[dtype], len(values), [mask, *_content(values, dtype)], nulls)


def _content(values: Sequence[Any], dtype: str) -> list[pa.Buffer]:
    if dtype == "string":
        encoded = [b"" if value is None else value.encode() for value in values]
        offsets = np.zeros(len(values) + 1, np.int32)
        np.cumsum([len(item) for item in encoded], out=offsets[1:])
        return [pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    if dtype == "bool":
        return [_bits(np.array([bool(value) for value in values], bool))]
    return [pa.py_buffer(np.array([0 if value is None else value for value in values], WIDTHS[dtype]))]


def _bits(flags: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))
