"""What a project's module gives: labelled examples and the sources of its features.  Judges it; computes nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from operators.errors import DataError, UserError

EVENT_TIMESTAMP = "event_timestamp"


@dataclass(frozen=True)
class Examples:
    """One row an example.

    frame: `event_timestamp` (aware; from then on the prediction is wanted), the label, and what a caller knows.
    label: column of 0 and 1.
    keys: columns by which features are looked up and which the model itself does not read.
    zone: IANA time zone in which the calendar of timestamp columns is read.
    notes: what a reader of the evaluation has to know, for example which rows were left out.
    """

    frame: pd.DataFrame
    label: str
    keys: Sequence[str] = ()
    zone: str = "UTC"
    notes: Sequence[str] = field(default=())

    @property
    def request(self) -> list[str]:
        """Columns that a caller sends, in order."""
        return [str(name) for name in self.frame.columns if name not in (self.label, EVENT_TIMESTAMP)]


def examples_of(module: str) -> Examples:
    """Return the examples of a project's module.  Raises UserError that names what is wrong."""
    found = _function(module, "examples")()
    if not isinstance(found, Examples):
        raise UserError(f"{module}.examples() returned {type(found).__name__}, not operators.data.examples.Examples")
    absent = [name for name in (EVENT_TIMESTAMP, found.label, *found.keys) if name not in found.frame]
    if absent:
        raise DataError(f"{module}.examples() has no column {', '.join(absent)}")
    if getattr(found.frame[EVENT_TIMESTAMP].dtype, "tz", None) is None:
        raise DataError(f"{module}.examples(): {EVENT_TIMESTAMP} has no time zone; use UTC")
    if found.frame[EVENT_TIMESTAMP].isna().any():
        raise DataError(f"{module}.examples(): {EVENT_TIMESTAMP} is missing in some rows")
    values = set(found.frame[found.label].unique())
    if not values <= {0, 1}:
        shown = ", ".join(repr(value) for value in sorted(values, key=str)[:5])
        raise DataError(f"{module}.examples(): label {found.label!r} must be 0 or 1 in every row, found {shown}")
    return found


def write_sources(module: str, folder: Path) -> None:
    """Let a project's module write its feature sources (Parquet) to `folder`."""
    _function(module, "feature_sources")(folder)


def _function(module: str, name: str) -> Callable[..., Any]:
    if not module:
        raise UserError("parameter 'module' is empty: name the Python file in the project's root_dir")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"module {module!r} cannot be imported: {error}; is the Project's root_dir right?") from error
    function = getattr(loaded, name, None)
    if not callable(function):
        raise UserError(f"module {module!r} has no function {name}()")
    return function  # type: ignore[no-any-return]


def dtype_of(column: pd.Series[Any]) -> str:
    """Return the graph's dtype of a column.  Raises UserError for one that no graph reads."""
    kind = column.dtype.kind if hasattr(column.dtype, "kind") else "O"
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return "timestamp"
    found = {"b": "bool", "i": "long", "u": "long", "f": "double", "O": "string", "U": "string"}.get(kind)
    if found is None:
        raise UserError(
            f"column {column.name!r} has dtype {column.dtype}: use text, numbers, booleans or aware timestamps"
        )
    return found
