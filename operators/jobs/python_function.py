"""Calls a function that was sent as its source, with stored arguments.  Knows neither Airflow nor the DAG file.

args: source, function (its name), args, kwargs (trees of `operators.values`).  Returns the reference of the result.
"""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from api.config import load
from operators.values.store import values_at

NAME = "function_of_dag"
FILE = f"<{NAME}>"


def run(args: Mapping[str, Any]) -> Mapping[str, str]:
    """Call the function."""
    values = values_at(load().values_url)
    function = _function(args["source"], args["function"])
    found = function(*values.decode(list(args["args"])), **values.decode(dict(args["kwargs"])))
    return values.put(found).to_json()


def _function(source: str, name: str) -> Any:
    """Return the function; a traceback shows the lines of the source."""
    module = ModuleType(NAME)
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    exec(compile(source, FILE, "exec"), module.__dict__)  # noqa: S102  # this is what the job is for
    return getattr(module, name)
