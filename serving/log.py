"""The prediction log: every answer as Parquet, written by a thread of its own.  Never waits, never on the latency path.

A file appears under its name when it is complete: `{deployment}/date=YYYY-MM-DD/{instant}-{number}.parquet`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from serving.join import Found
from serving.online_store import Value

WRITE_ROWS = 1_000
WRITE_S = 1.0
MOST_ROWS = 100_000
DAY_US = 86_400_000_000
OWN = ("request_id", "deployment", "revision", "received_at", "latency_us", "event_timestamp")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Schema:
    """Columns of one model.  inputs, features: name and dtype.  A name that is taken gets a prefix."""

    inputs: Sequence[tuple[str, str]]
    features: Sequence[tuple[str, str]]
    output: str
    names: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        taken = set(OWN)
        names = []
        for prefix, name in (
            *(("input", name) for name, _ in self.inputs),
            *(("feature", name) for name, _ in self.features),
            ("output", self.output),
        ):
            while name in taken:
                name = f"{prefix}_{name}"
            taken.add(name)
            names.append(name)
        object.__setattr__(self, "names", names)


class Record(NamedTuple):
    """One answered request of `len(scores)` rows.  Instants in microseconds."""

    schema: Schema
    deployment: str
    revision: str
    request_id: str
    received_us: int
    latency_us: int
    event_us: int
    values: dict[str, Sequence[Value]]
    found: Sequence[Sequence[Found]]
    scores: Sequence[float]


class PredictionLog:
    """A bounded queue and the thread that empties it.  `dropped` counts what did not fit or could not be written."""

    def __init__(self, folder: Path, *, most_rows: int = MOST_ROWS) -> None:
        self.dropped = 0
        self._folder = folder
        self._most_rows = most_rows
        self._queue: deque[Record] = deque()
        self._rows = 0
        self._written_rows = 0
        self._files = 0
        self._something = threading.Event()
        self._enough = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, record: Record) -> None:
        """Take a record, or count it as dropped.  Called by the event loop alone."""
        rows = len(record.scores)
        waiting = self._rows - self._written_rows
        if waiting + rows > self._most_rows:
            self.dropped += rows
            return
        self._queue.append(record)
        self._rows += rows
        if not self._something.is_set():
            self._something.set()
        if waiting + rows >= WRITE_ROWS:
            self._enough.set()

    def close(self) -> None:
        """Write what is left and end."""
        self._closed = True
        self._something.set()
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        import pyarrow.parquet  # noqa: F401 - imported here, so that the first write is not late

        while not self._closed:
            self._something.wait()
            self._enough.wait(WRITE_S)
            self._something.clear()  # before the queue is emptied: what comes later sets it again
            self._enough.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        groups: dict[tuple[Schema, str, int], list[Record]] = {}
        while self._queue:
            record = self._queue.popleft()
            groups.setdefault((record.schema, record.deployment, record.received_us // DAY_US), []).append(record)
        for (schema, deployment, day), records in groups.items():
            rows = sum(len(record.scores) for record in records)
            try:
                self._write(schema, deployment, day, records)
            except Exception:
                self.dropped += rows
                log.exception("%s predictions of %s were not logged", rows, deployment)
            self._written_rows += rows

    def _write(self, schema: Schema, deployment: str, day: int, records: Sequence[Record]) -> None:
        import pyarrow.parquet as pq

        from serving.parquet import table

        date = datetime.fromtimestamp(day * DAY_US / 1e6, UTC).date().isoformat()
        folder = self._folder / deployment / f"date={date}"
        folder.mkdir(parents=True, exist_ok=True)
        self._files += 1
        name = f"{time.time_ns() // 1000}-{self._files}.parquet"
        temporary = folder / f".{name}.tmp"
        try:
            pq.write_table(table(columns(schema, records)), temporary, compression="zstd", use_dictionary=False)
            os.replace(temporary, folder / name)
        finally:
            temporary.unlink(missing_ok=True)


def columns(schema: Schema, records: Sequence[Record]) -> list[tuple[str, str, Sequence[Any]]]:
    """Return (name, dtype, values) of every column; a request of several rows repeats its own."""

    def own(values: Sequence[Any]) -> list[Any]:
        return [value for value, record in zip(values, records, strict=True) for _ in record.scores]

    parts: list[tuple[str, str, Sequence[Any]]] = [
        ("request_id", "string", own([record.request_id for record in records])),
        ("deployment", "string", own([record.deployment for record in records])),
        ("revision", "string", own([record.revision for record in records])),
        ("received_at", "timestamp", own([record.received_us for record in records])),
        ("latency_us", "long", own([record.latency_us for record in records])),
        ("event_timestamp", "timestamp", own([record.event_us for record in records])),
    ]
    names = iter(schema.names)
    for name, dtype in schema.inputs:
        parts.append((next(names), dtype, [value for record in records for value in record.values[name]]))
    joined = [[value for one in row for value in one.values] for record in records for row in _by_row(record)]
    for place, (_, dtype) in enumerate(schema.features):
        parts.append((next(names), dtype, [row[place] for row in joined]))
    parts.append((next(names), "double", [score for record in records for score in record.scores]))
    return parts


def _by_row(record: Record) -> Sequence[Sequence[Found]]:
    return list(zip(*record.found, strict=True)) if record.found else [()] * len(record.scores)
