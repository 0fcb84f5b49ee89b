"""A dataset on disk: train, validate and test Parquet files and `dataset.json`, which says what the columns mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from operators.data.layout import path_of
from operators.errors import InputGone
from operators.features.graph import Input

PARTS = ("train", "validate", "test")
DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class Description:
    """What the columns of a dataset mean.

    inputs: what the model reads.  request: what a caller sends ({name, dtype, required}).  views: the joined features.
    split: first and last event timestamp and number of rows of each part.
    """

    label: str
    inputs: Sequence[Input]
    request: Sequence[Mapping[str, Any]]
    feature_project: str
    feature_service: str
    views: Sequence[Mapping[str, Any]]
    split: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str]


def write(folder: Path, parts: Mapping[str, pd.DataFrame], description: Description) -> None:
    """Write a dataset to an empty folder."""
    for name, frame in parts.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    (folder / DESCRIPTION).write_text(json.dumps(asdict(description), indent=1))


def describe(uri: str) -> Description:
    """Return the description of the dataset at `uri`.  Raises UserError if there is none."""
    path = path_of(uri) / DESCRIPTION
    if not path.is_file():
        raise InputGone(f"{uri!r} holds no dataset: it has no {DESCRIPTION}")
    read = json.loads(path.read_text())
    return Description(**{**read, "inputs": [Input(**item) for item in read["inputs"]]})


def part(uri: str, name: str, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one of `PARTS` as a frame."""
    table = pq.read_table(path_of(uri) / f"{name}.parquet", columns=list(columns) if columns else None)
    frame: pd.DataFrame = table.to_pandas()
    return frame
