"""A step that a table comes to and goes from, on Spark and without it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as f


def fee(distance: int) -> float:
    return distance * 0.5


def with_fee(rows: DataFrame) -> DataFrame:
    """Through a worker of Python, which imports this module."""
    return rows.where(f.col("carrier").isNotNull()).withColumn("fee", f.udf(fee, "double")("distance"))


def with_fee_here(rows: pa.Table) -> pa.Table:
    kept = rows.filter(pc.is_valid(rows["carrier"]))
    return kept.append_column("fee", pc.multiply(pc.cast(kept["distance"], pa.float64()), 0.5))


def forever(rows: DataFrame, told: str) -> int:
    """Sleep in a worker that has said who it is."""

    def slow(distance: int) -> int:
        Path(told).write_text(str(os.getpid()))
        time.sleep(600)
        return distance

    return len(rows.limit(1).withColumn("slow", f.udf(slow, "long")("distance")).collect())
