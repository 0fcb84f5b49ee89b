"""Objects to list, and lists computed by hand.  Knows the wire contract only; uses nothing of the server.

A comparison with an absent value is false; NOT_EQUAL and NOT_IN are the exact opposites of EQUAL and IN.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf import wrappers_pb2 as wrapped

from api.gen.michelangelo.api import list_pb2 as wire
from api.gen.michelangelo.api.v2 import model_pb2, pipeline_run_pb2

Plain = str | int | None
OPERATORS = ("EQUAL", "NOT_EQUAL", "GREATER_THAN", "GREATER_THAN_OR_EQUAL_TO", "LESS_THAN", "LESS_THAN_OR_EQUAL_TO")
SETS = ("IN", "NOT_IN")
NULLS = ("IS_NULL", "IS_NOT_NULL")


@dataclass(frozen=True)
class Column:
    """A field to filter by.  `of`: its value in an object; `packs`: the ways in which a value may be sent."""

    names: Sequence[str]
    of: Callable[[Any], Plain]
    packs: Sequence[Callable[[Any], Any]]
    text: bool = False


def text(value: str) -> Any:
    return wrapped.StringValue(value=value)


def value_text(value: str) -> Any:
    return struct_pb2.Value(string_value=value)


TEXT = (text, value_text)
NUMBER: Sequence[Callable[[Any], Any]] = (
    lambda value: wrapped.Int64Value(value=value),
    lambda value: wrapped.Int32Value(value=value),
    lambda value: wrapped.DoubleValue(value=value),
    lambda value: struct_pb2.Value(number_value=value),
    lambda value: wrapped.StringValue(value=str(value)),
)
BOOL: Sequence[Callable[[Any], Any]] = (
    lambda value: wrapped.BoolValue(value=bool(value)),
    lambda value: struct_pb2.Value(bool_value=bool(value)),
)
TIME: Sequence[Callable[[Any], Any]] = (
    lambda value: timestamp_pb2.Timestamp(seconds=value // 1_000_000, nanos=value % 1_000_000 * 1_000),
    lambda value: wrapped.Int64Value(value=value),
)


def enum(descriptor: Any) -> Sequence[Callable[[Any], Any]]:
    return (NUMBER[0], lambda value: text(descriptor.values_by_number[value].name))


def micros(stamp: Any) -> int:
    return int(stamp.seconds) * 1_000_000 + int(stamp.nanos) // 1_000


def identifier(path: str, part: str) -> Callable[[Any], Plain]:
    def of(item: Any) -> Plain:
        if not item.spec.HasField(path):
            return None
        found = getattr(item.spec, path)
        return str(found.name) if part == "name" else str(found.namespace or item.metadata.namespace)

    return of


BASE = (
    Column(("metadata.name",), lambda item: item.metadata.name, TEXT, text=True),
    Column(("metadata.namespace",), lambda item: item.metadata.namespace, TEXT, text=True),
    Column(("metadata.creation_timestamp",), lambda item: micros(item.metadata.creationTimestamp), TIME),
    Column(
        ("metadata.update_timestamp",), lambda item: int(item.metadata.labels["michelangelo/UpdateTimestamp"]), TIME
    ),
)
COLUMNS: Mapping[str, Sequence[Column]] = {
    "Project": (*BASE, Column(("tier", "spec.tier"), lambda item: item.spec.tier, NUMBER)),
    "Model": (
        *BASE,
        Column(("algorithm", "spec.algorithm"), lambda item: item.spec.algorithm, TEXT, text=True),
        Column(("description",), lambda item: item.spec.description, TEXT, text=True),
        Column(("owner", "spec.owner.name"), lambda i: i.spec.owner.name if i.spec.HasField("owner") else None, TEXT),
        Column(("revision_id",), lambda item: item.spec.revision_id, NUMBER),
        Column(("model_kind", "spec.kind"), lambda item: item.spec.kind, enum(model_pb2.ModelKind.DESCRIPTOR)),
        Column(("model_family", "spec.model_family.name"), identifier("model_family", "name"), TEXT, text=True),
        Column(("model_family.namespace",), identifier("model_family", "namespace"), TEXT),
    ),
    "PipelineRun": (
        *BASE,
        Column(("pipeline", "spec.pipeline"), identifier("pipeline", "name"), TEXT, text=True),
        Column(("actor",), lambda i: i.spec.actor.name if i.spec.HasField("actor") else None, TEXT, text=True),
        Column(
            ("state", "status.state"),
            lambda item: item.status.state,
            enum(pipeline_run_pb2.PipelineRunState.DESCRIPTOR),
        ),
        Column(
            ("end_time", "status.end_time"),
            lambda item: micros(item.status.end_time) if item.status.HasField("end_time") else None,
            TIME,
        ),
    ),
    "TriggerRun": (
        *BASE,
        Column(("auto_flip", "spec.auto_flip"), lambda item: int(item.spec.auto_flip), BOOL),
        Column(("pipeline",), identifier("pipeline", "name"), TEXT, text=True),
    ),
}


def matches(operator: str, found: Plain, values: Sequence[Any]) -> bool:
    """Tell whether a field's value meets a comparison."""
    if operator in NULLS:
        return (found is None) == (operator == "IS_NULL")
    if operator in ("EQUAL", "IN", "NOT_EQUAL", "NOT_IN"):
        return (found is not None and found in values) != operator.startswith("NOT")
    if found is None:
        return False
    if operator == "LIKE":
        pattern = "".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in values[0])
        return re.fullmatch(pattern, str(found), re.DOTALL) is not None
    comparisons: Mapping[str, bool] = {
        "GREATER_THAN": found > values[0],
        "GREATER_THAN_OR_EQUAL_TO": found >= values[0],
        "LESS_THAN": found < values[0],
        "LESS_THAN_OR_EQUAL_TO": found <= values[0],
    }
    return comparisons[operator]


Test = Callable[[Any], bool]


class Asker:
    """Makes random queries about objects, each with what it must return."""

    def __init__(self, kind: str, items: Sequence[Any], seed: int) -> None:
        self._columns = COLUMNS[kind]
        self._items = items
        self._random = random.Random(seed)

    def criterion(self) -> tuple[wire.Criterion, Test]:
        """Return a criterion and its meaning."""
        pick = self._random
        column = pick.choice(self._columns)
        operators = [*OPERATORS, *SETS, *NULLS, *(["LIKE", "LIKE"] if column.text else [])]
        operator = pick.choice(operators)
        values: list[Any] = []
        made = wire.Criterion(
            field_name=pick.choice(column.names),
            operator=wire.CriterionOperator.Value(f"CRITERION_OPERATOR_{operator}"),
        )
        pack = pick.choice(column.packs)
        if operator in SETS:
            values = [self._value(column) for _ in range(pick.randint(0, 4))]
            made.match_value.Pack(_list(column, pack, values))
        elif operator not in NULLS:
            values = [self._value(column)]
            if operator == "LIKE":
                values, pack = [_pattern(values[0], pick)], text
            made.match_value.Pack(pack(values[0]))
        return made, lambda item: matches(operator, column.of(item), values)

    def _value(self, column: Column) -> Any:
        """Return a value that some object has, or one beside it."""
        present = [value for value in map(column.of, self._items) if value is not None]
        value = self._random.choice(present)
        nudge = self._random.choice((0, 0, 0, 1, -1))
        if isinstance(value, int) and (column.packs is NUMBER or column.packs is TIME):
            return value + nudge
        return value + "z" if nudge and isinstance(value, str) else value

    def operation(self, depth: int = 0) -> tuple[wire.CriterionOperation, Test]:
        """Return a nested condition and its meaning.  One without terms asks for nothing."""
        pick = self._random
        parts = [self.criterion() for _ in range(pick.randint(0 if depth else 1, 3))]
        nested = [self.operation(depth + 1) for _ in range(pick.randint(0, 2))] if depth < 3 else []
        any_of = pick.random() < 0.5
        made = wire.CriterionOperation(
            criterion=[part for part, _ in parts],
            sub_operations=[part for part, _ in nested],
            logical_operator=wire.LOGICAL_OPERATOR_OR if any_of else wire.LOGICAL_OPERATOR_AND,
        )
        tests = [test for _, test in parts] + [test for part, test in nested if _asks(part)]
        join = any if any_of and tests else all
        return made, lambda item: join(test(item) for test in tests)

    def order(self) -> tuple[list[wire.OrderBy], Callable[[Sequence[Any]], list[Any]]]:
        """Return an order and a function that sorts: absent values first, and last when descending."""
        chosen = [(self._random.choice(self._columns), self._random.random() < 0.5) for _ in range(self._count())]
        made = [
            wire.OrderBy(
                field=self._random.choice(column.names),
                dir=wire.SORT_ORDER_DESC if descending else wire.SORT_ORDER_ASC,
            )
            for column, descending in chosen
        ]

        def arranged(items: Sequence[Any]) -> list[Any]:
            found = sorted(items, key=lambda item: (item.metadata.namespace, item.metadata.name))
            for column, descending in reversed(chosen):
                found.sort(key=lambda item: _rank(column.of(item)), reverse=descending)
            return found

        return made, arranged

    def _count(self) -> int:
        return self._random.choice((0, 1, 1, 2, 3))


def _rank(value: Plain) -> tuple[bool, Any]:
    return value is not None, 0 if value is None else value


def _asks(operation: wire.CriterionOperation) -> bool:
    return bool(operation.criterion) or any(_asks(nested) for nested in operation.sub_operations)


def _list(column: Column, pack: Callable[[Any], Any], values: Sequence[Any]) -> Any:
    packed = struct_pb2.ListValue()
    for value in values:
        # A JSON number holds microseconds since 1970 exactly: they are below 2^53.
        one = pack(value) if pack in (value_text,) else None
        packed.values.append(one or struct_pb2.Value(**_json(column, value)))
    return packed


def _json(column: Column, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"string_value": value}
    return {"bool_value": bool(value)} if column.packs is BOOL else {"number_value": value}


def _pattern(value: Any, pick: random.Random) -> str:
    """Return a LIKE pattern near a value."""
    chars = list(str(value))
    for _ in range(pick.randint(0, 2)):
        if chars:
            chars[pick.randrange(len(chars))] = pick.choice("%_aZ")
    return pick.choice(("", "%")) + "".join(chars[: pick.randint(0, len(chars))]) + pick.choice(("", "%"))
