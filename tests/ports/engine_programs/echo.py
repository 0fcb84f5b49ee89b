"""Notes that it ran, prints, and gives its arguments back; with `error` it fails."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operators.errors import UserError


def run(args: Mapping[str, Any]) -> dict[str, str]:
    with Path(args["ran"]).open("a") as file:
        file.write("ran\n")
    print(args.get("print", "hello") * args.get("times", 1), flush=True)
    if args.get("error") == "user":
        raise UserError("column 'x' is not there")
    if args.get("error") == "system":
        raise OSError("the disk is full")
    return {} if args.get("error") == "none" else {"args": json.dumps(args), **set_aside()}


def set_aside() -> dict[str, str]:
    """What the engine has set aside for this job."""
    if "ray" in sys.modules:
        import ray

        given: Any = ray.get_runtime_context()
        return {"resources": json.dumps(given.get_assigned_resources())}
    if "pyspark" in sys.modules:
        from pyspark.sql import SparkSession

        session: Any = SparkSession.builder.getOrCreate()
        heap = session.sparkContext._jvm.Runtime.getRuntime().maxMemory()
        found = {"spark.master": session.conf.get("spark.master"), "heap_mib": heap // 2**20}
        return {"resources": json.dumps(found)}
    return {}
