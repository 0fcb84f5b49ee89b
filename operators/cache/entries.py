"""The port of the book of kept outputs: one entry for each key of a step.  Keeps no values, which are stored apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from operators.cache.parts import Parts
from operators.values.references import Reference

MOST_COMPARED = 20


@dataclass(frozen=True)
class Entry:
    """A kept output.  `key`: of its parts; line: of its step; parts: their summary; manifest: the whole of them.

    made, expires: UTC, None for never; run: which PipelineRun made it, "" if none did; step: its name there.
    """

    key: str
    line: str
    parts: Parts
    manifest: Reference
    output: Reference
    made: datetime
    expires: datetime | None = None
    run: str = ""
    step: str = ""


class Entries(Protocol):
    """The entries of one project."""

    def find(self, line: str, key: str) -> Entry | None:
        """Return the entry of a step's key."""
        ...

    def of_line(self, line: str) -> Sequence[Entry]:
        """Return the newest entries of a step, the newest first, at most `MOST_COMPARED`."""
        ...

    def add(self, entry: Entry) -> None:
        """Keep an entry, in place of one with the same line and key."""
        ...
