"""Data sets of Spark and Ray as Arrow tables, and back where a task's annotation asks for one.  Imports neither.

They have no format of their own: what Spark made is the same value, by the same digest, as the same table of Arrow.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pyarrow as pa

from operators.values import tables
from operators.values.formats import Format

SPARK = ("pyspark.sql.classic.dataframe", "pyspark.sql.connect.dataframe")
RAY = "ray.data.dataset"


def formats() -> list[Format]:
    """Return the formats of the libraries that are loaded: all of them are that of Arrow."""
    spark = [vars(sys.modules[name]).get("DataFrame") for name in SPARK if name in sys.modules]
    module = sys.modules.get(RAY)
    ray = [getattr(module, name, None) for name in ("Dataset", "MaterializedDataset")] if module else []
    written = [*((kind, _of_spark) for kind in spark if kind), *((kind, _of_ray) for kind in ray if kind)]
    return [Format("arrow", kind, write, tables.read_table, tables.SUFFIX, tables.digest) for kind, write in written]


def _of_spark(frame: Any) -> bytes:
    return tables.parquet(frame.toArrow().replace_schema_metadata(None))


def _of_ray(data: Any) -> bytes:
    ray = sys.modules["ray"]
    blocks = ray.get(data.to_arrow_refs())
    found = pa.concat_tables(blocks) if blocks else pa.table({})
    return tables.parquet(found.replace_schema_metadata(None))


def is_dataset(hint: Any) -> bool:
    """Whether an annotation is a data frame of Spark or a data set of Ray."""
    if not inspect.isclass(hint):
        return False
    library = hint.__module__.partition(".")[0]
    return (library == "pyspark" and hint.__name__ == "DataFrame") or (library == "ray" and hint.__name__ == "Dataset")


def as_dataset(hint: Any, value: Any) -> Any:
    """Return a table as the data set that an annotation asks for; what is no table stays as it is."""
    if isinstance(value, hint) or not _is_table(value):
        return value
    if hint.__module__.partition(".")[0] == "ray":
        data = sys.modules["ray"].data
        return data.from_arrow(value if isinstance(value, pa.Table) else tables.arrow(value))
    from operators.hooks import spark

    return spark.current().createDataFrame(value if isinstance(value, pa.Table) else tables.arrow(value))


def _is_table(value: Any) -> bool:
    return isinstance(value, pa.Table) or type(value).__module__.partition(".")[0] in ("pandas", "polars")
