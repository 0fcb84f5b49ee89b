"""Where a store is put back: what every kind of place has.  Knows no database."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Former:
    """How far the store came that is replaced: its revision, and the epochs of its leases by name."""

    revision: int = 0
    epochs: Mapping[str, int] = field(default_factory=dict)


class Place(Protocol):
    """Where a store may stand.  `folder`: where the new one is made ready."""

    folder: Path

    def taken(self) -> AbstractContextManager[Former]:
        """Keep others out and yield what stands here.  Raises FailedPrecondition while a server uses it."""
        ...

    def put(self, made: Path) -> None:
        """Put the store of a SQLite file here, in the place of what stood here, or leave that as it is."""
        ...
