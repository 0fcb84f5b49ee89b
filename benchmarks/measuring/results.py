"""The result of a benchmark: figures, the machine, its load.  Kept as one JSON file a benchmark; judges nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring.figures import Figure
from benchmarks.measuring.machine import QUIET_LOAD, Machine

SUFFIX = ".json"
Load = tuple[float, float, float]


@dataclass(frozen=True)
class Measured:
    """What a benchmark returns.  notes: facts without which its figures would be misread."""

    figures: Sequence[Figure]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Result:
    """A benchmark that was run.  measured_at: ISO 8601, UTC; loads are those of 1, 5 and 15 minutes."""

    name: str
    title: str
    peer: str
    command: str
    measured_at: str
    revision: str
    machine: Machine
    load_before: Load
    load_after: Load
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def quiet(self) -> bool:
        """Whether the machine was idle before the benchmark began."""
        return self.load_before[0] <= QUIET_LOAD

    def write(self, folder: Path) -> Path:
        """Write the result and return its file; a reader sees the old one or the new one."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}{SUFFIX}"
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        figures = [figure.as_json() for figure in self.figures]
        temporary.write_text(json.dumps({**asdict(self), "figures": figures}, indent=2) + "\n")
        os.replace(temporary, path)
        return path


def read(path: Path) -> Result:
    """Return the result in a file.  Raises ValueError if it is none."""
    try:
        found = json.loads(path.read_text())
        return _result(found)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no result of a benchmark: {error}") from error


def _result(found: Mapping[str, Any]) -> Result:
    known: dict[str, Any] = {
        **found,
        "machine": Machine(**found["machine"]),
        "figures": tuple(Figure.from_json(figure) for figure in found["figures"]),
    }
    lists = {name: tuple(found[name]) for name in ("load_before", "load_after", "notes")}
    return Result(**{**known, **lists})
