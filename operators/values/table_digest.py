"""The digest of an Arrow table's content: the same however it is cut into chunks, and whatever lies under its nulls."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def table_digest(table: pa.Table, described: bytes) -> str:
    """Return the digest of column names, types and values.  described: what else is content, such as an index.

    Raises ValueError for a type that cannot be told.
    """
    found = hashlib.sha256()
    _add(found, described)
    _add(found, f"{table.num_rows}".encode())
    for field, column in zip(table.schema, table.columns, strict=True):
        _add(found, f"{field.name}\0{field.type}".encode("utf-8", "surrogatepass"))
        # One chunk at a time keeps memory at a copy of one column.
        _array(found, column.combine_chunks() if column.num_chunks != 1 else column.chunk(0))
    return f"sha256:{found.hexdigest()}"


def _array(found: Any, array: Any) -> None:
    """Add an array: which values there are, then they."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _array(found, array.storage)
    if pa.types.is_dictionary(kind):
        return _array(found, array.dictionary_decode())
    _add(found, f"{len(array)} {array.null_count}".encode())
    if array.null_count:
        _add(found, _buffer(pc.is_valid(array).cast(pa.uint8()), 1))
        if not pa.types.is_struct(kind):
            array = array.drop_null()
    if pa.types.is_null(kind):
        return None
    if pa.types.is_struct(kind):
        for position in range(kind.num_fields):
            _array(found, pc.struct_field(array, position))
        return None
    if pa.types.is_map(kind):
        array = array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
        kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        _array(found, pc.list_value_length(array))
        return _array(found, array.flatten())
    return _flat(found, array)


def _flat(found: Any, array: Any) -> None:
    """Add an array without nulls of a type without children."""
    kind = array.type
    if pa.types.is_boolean(kind):
        return _add(found, _buffer(array.cast(pa.uint8()), 1))
    if kind in (pa.string(), pa.large_string(), pa.string_view()):
        array, kind = array.cast(pa.large_binary()), pa.large_binary()
    if kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        array = array.cast(pa.large_binary())
        _add(found, _buffer(pc.binary_length(array), 8))
        return _add(found, _text(array))
    try:
        width = kind.bit_width // 8
    except ValueError as error:
        raise ValueError(f"has the Arrow type {kind}, which cannot be passed between steps: cast it") from error
    return _add(found, _buffer(array, width))


def _text(array: Any) -> Any:
    offsets = memoryview(array.buffers()[1]).cast("q")
    first, last = offsets[array.offset], offsets[array.offset + len(array)]
    return memoryview(array.buffers()[2] or b"")[first:last]


def _buffer(array: Any, width: int) -> Any:
    """Return the values of an array of fixed width, without what lies before and behind them."""
    if not len(array):
        return b""
    return memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width]


def _add(found: Any, part: Any) -> None:
    found.update(len(part).to_bytes(8, "little"))
    found.update(part)
