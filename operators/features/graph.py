"""The transformation graph: raw columns and features in, the model's float32 matrix out.  Imports numpy alone.

A graph is fitted on the training part, stored in the model as JSON and run at prediction: the same code for one row and
for a million.  Missing numbers are NaN, missing text is "", a missing instant is `MISSING`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

FORMAT = 1
DTYPES = ("string", "double", "long", "bool", "timestamp")
MISSING = np.iinfo(np.int64).min
MINUTE_US = 60_000_000
DAY_US = 86_400_000_000
EPOCH_WEEKDAY = 3

Matrix = npt.NDArray[np.float32]
Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Input:
    """One column that a graph reads.

    dtype: one of `DTYPES`; a timestamp is int64 microseconds since 1970 UTC.
    source: `request` (the caller gives it) or `feature` (joined from the feature store).
    zone: IANA time zone in which a timestamp's calendar is read.
    """

    name: str
    dtype: str
    source: str
    zone: str = "UTC"


class Node(Protocol):
    """A block of the matrix.  `fill` writes `len(names)` columns of `out` from column `at` on."""

    kind: ClassVar[str]

    @property
    def names(self) -> Sequence[str]:
        """Names of the columns that it writes."""
        ...

    def fill(self, columns: Columns, out: Matrix, at: int) -> None:
        """Write the block."""
        ...


@dataclass(frozen=True)
class Numeric:
    """Numbers and booleans as they are."""

    kind: ClassVar[str] = "numeric"
    inputs: tuple[str, ...]

    @property
    def names(self) -> Sequence[str]:
        """The inputs' own names."""
        return self.inputs

    def fill(self, columns: Columns, out: Matrix, at: int) -> None:
        """Copy each column."""
        for place, name in enumerate(self.inputs, at):
            out[:, place] = columns[name]


class Category:
    """Text as the rank of its frequency in the training part; NaN for a value that was not seen there."""

    kind: ClassVar[str] = "category"

    def __init__(self, *, input: str, categories: Sequence[str]) -> None:  # noqa: A002 - the name in the file
        self.input = input
        self.categories = tuple(categories)
        self._codes = {value: float(code) for code, value in enumerate(self.categories)}

    @property
    def names(self) -> Sequence[str]:
        """One column."""
        return (self.input,)

    def fill(self, columns: Columns, out: Matrix, at: int) -> None:
        """Look each value up."""
        values, codes, nan = columns[self.input], self._codes, np.nan
        out[:, at] = [codes.get(value, nan) for value in values]


class Calendar:
    """An instant as minute of the day and day of the week (Monday is 0) in a time zone.

    transitions: instants (int64 microseconds, ascending) from which the offset of the same place holds; the first one
    also holds before it.  They are stored, so that a later release of the time zone database changes no model.
    """

    kind: ClassVar[str] = "calendar"

    def __init__(self, *, input: str, zone: str, transitions: Sequence[int], offsets: Sequence[int]) -> None:  # noqa: A002
        self.input = input
        self.zone = zone
        self.transitions = tuple(transitions)
        self.offsets = tuple(offsets)
        self._at = np.asarray(transitions[1:], np.int64)
        self._offsets = np.asarray(offsets, np.int64)

    @property
    def names(self) -> Sequence[str]:
        """Two columns."""
        return (f"{self.input}_minute", f"{self.input}_weekday")

    def fill(self, columns: Columns, out: Matrix, at: int) -> None:
        """Shift into the zone and divide."""
        instants = columns[self.input]
        missing = instants == MISSING
        local = np.where(missing, 0, instants) + self._offsets[self._at.searchsorted(instants, side="right")]
        days = local // DAY_US
        out[:, at] = (local - days * DAY_US) // MINUTE_US
        out[:, at + 1] = (days + EPOCH_WEEKDAY) % 7
        if missing.any():
            out[missing, at : at + 2] = np.nan


class Graph:
    """Inputs and nodes.  `transform` gives float32 [n, width]; `names` are its columns."""

    def __init__(self, inputs: Sequence[Input], nodes: Sequence[Node]) -> None:
        self.inputs = tuple(inputs)
        self.nodes = tuple(nodes)
        self.names = tuple(name for node in nodes for name in node.names)
        self._places: list[tuple[Node, int]] = []
        at = 0
        for node in self.nodes:
            self._places.append((node, at))
            at += len(node.names)

    def transform(self, columns: Columns) -> Matrix:
        """Return the matrix of `columns`: one array of length n for each input.  Raises KeyError for a missing one."""
        out = np.empty((len(columns[self.inputs[0].name]), len(self.names)), np.float32)
        for node, at in self._places:
            node.fill(columns, out, at)
        return out

    @classmethod
    def fit(cls, inputs: Sequence[Input], columns: Columns) -> Graph:
        """Return the graph of `inputs` with what it has to learn from the training part."""
        numeric = tuple(item.name for item in inputs if item.dtype in ("double", "long", "bool"))
        nodes: list[Node] = [Numeric(numeric)] if numeric else []
        for item in inputs:
            if item.dtype == "string":
                nodes.append(Category(input=item.name, categories=by_frequency(columns[item.name])))
            elif item.dtype == "timestamp":
                transitions, offsets = zone_table(item.zone)
                nodes.append(Calendar(input=item.name, zone=item.zone, transitions=transitions, offsets=offsets))
        return cls(inputs, nodes)

    def to_json(self) -> str:
        """Return the text from which `from_json` makes the same graph."""
        return json.dumps(
            {
                "format": FORMAT,
                "inputs": [asdict(item) for item in self.inputs],
                "nodes": [{"kind": node.kind, **_fields(node)} for node in self.nodes],
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """Return the graph of a text.  Raises ValueError if it is none, or of another format."""
        try:
            read = json.loads(text)
            if read["format"] != FORMAT:
                raise ValueError(f"format {read['format']!r} of a graph is not {FORMAT}")
            inputs = [Input(**item) for item in read["inputs"]]
            nodes = [_node(item) for item in read["nodes"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a transformation graph: {error}") from error
        return cls(inputs, nodes)


KINDS: Mapping[str, Any] = {node.kind: node for node in (Numeric, Category, Calendar)}


def _fields(node: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(node).items() if not name.startswith("_")}


def _node(item: Mapping[str, Any]) -> Node:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in item.items()}
    made: Node = KINDS[fields.pop("kind")](**fields)
    return made


def by_frequency(values: npt.NDArray[Any]) -> list[str]:
    """Return the distinct non-empty texts, the most frequent first, ties in alphabetical order."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    counts.pop("", None)
    return sorted(counts, key=lambda value: (-counts[value], value))


def zone_table(zone: str, *, first: int = 1990, last: int = 2060) -> tuple[list[int], list[int]]:
    """Return the instants and offsets (both microseconds) of a time zone.  Raises ValueError for an unknown zone."""
    from datetime import UTC, datetime, timedelta
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{zone!r} is no time zone of the IANA database") from error

    def offset(hour: datetime) -> int:
        return int(hour.astimezone(place).utcoffset() / timedelta(microseconds=1))  # type: ignore[operator]

    moment, end = datetime(first, 1, 1, tzinfo=UTC), datetime(last, 1, 1, tzinfo=UTC)
    transitions, offsets = [int(moment.timestamp()) * 1_000_000], [offset(moment)]
    while moment < end:
        following = moment + timedelta(days=1)
        if offset(following) != offsets[-1]:
            while offset(moment) == offsets[-1]:
                moment += timedelta(minutes=15)
            transitions.append(int(moment.timestamp()) * 1_000_000)
            offsets.append(offset(moment))
        moment = following
    return transitions, offsets
