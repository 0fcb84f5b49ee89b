"""From the wire's criteria to the conditions of a query, each value fitted to its field.  Never builds SQL."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from api.errors import FieldViolation, InvalidArgument
from api.gen.michelangelo.api import list_pb2 as wire
from api.kinds import Kind
from api.store.base import Criterion, Group, Operator, Scalar
from api.store.values import BASE_FIELDS, column, scalar

DEEPEST = 20
MOST_CRITERIA = 500
MOST_VALUES = 10_000
LONGEST_TEXT = 4096
# The time of LIKE grows with the pattern times the text, and a description may have megabytes.
LONGEST_PATTERN = 256
LONGEST_NUMBER = 64
INT64 = range(-(2**63), 2**63)
WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("String", "Bool", "Int32", "Int64", "UInt32", "UInt64", "Float", "Double")
)
ONE_VALUE = frozenset(Operator) - {Operator.IN, Operator.NOT_IN}
TEXTS = {"metadata.namespace", "metadata.name"}


def bad_filter(field: str, description: str) -> InvalidArgument:
    """Return the refusal of a list option."""
    return InvalidArgument(
        f"{field} {description}", reason="BAD_FILTER", violations=[FieldViolation(field, description)]
    )


def known_column(kind: Kind, field: str, path: str) -> str:
    """Return the column of a field.  Raises InvalidArgument that names the fields there are."""
    found = column(kind, field)
    if found is None:
        known = ", ".join([*BASE_FIELDS, *(index.key for index in kind.indexes)])
        raise bad_filter(path, f"{field[:64]!r} is not indexed for {kind.name}: use {known}")
    index = kind.index(field)
    if index is not None and index.path in kind.sensitive:
        raise bad_filter(path, f"{field[:64]!r} of {kind.name} is sensitive: nothing is found or sorted by it")
    return found


def condition(kind: Kind, operation: wire.CriterionOperation, path: str) -> Group | None:
    """Return what an operation asks for, None if it asks for nothing.  Raises InvalidArgument."""
    count = sum(1 for _ in _criteria(operation, path, 0))
    if count > MOST_CRITERIA:
        raise bad_filter(path, f"has {count} criteria, at most {MOST_CRITERIA} are allowed")
    return _operation(kind, operation, path)


def _criteria(operation: wire.CriterionOperation, path: str, depth: int) -> Iterator[wire.Criterion]:
    if depth > DEEPEST:
        raise bad_filter(path, f"is nested deeper than {DEEPEST}")
    yield from operation.criterion
    for position, nested in enumerate(operation.sub_operations):
        yield from _criteria(nested, f"{path}.sub_operations[{position}]", depth + 1)


def _operation(kind: Kind, operation: wire.CriterionOperation, path: str) -> Group | None:
    if operation.logical_operator not in (wire.LOGICAL_OPERATOR_AND, wire.LOGICAL_OPERATOR_OR):
        raise bad_filter(f"{path}.logical_operator", f"{operation.logical_operator} is neither AND nor OR")
    terms: list[Criterion | Group] = [
        _criterion(kind, criterion, f"{path}.criterion[{position}]")
        for position, criterion in enumerate(operation.criterion)
    ]
    for position, nested in enumerate(operation.sub_operations):
        group = _operation(kind, nested, f"{path}.sub_operations[{position}]")
        if group is not None:
            terms.append(group)
    if not terms:
        return None
    return Group(tuple(terms), any=operation.logical_operator == wire.LOGICAL_OPERATOR_OR)


def _criterion(kind: Kind, criterion: wire.Criterion, path: str) -> Criterion:
    name = known_column(kind, criterion.field_name, f"{path}.field_name")
    operator = _operator(criterion.operator, f"{path}.operator")
    if operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        return Criterion(name, operator)
    at = f"{path}.match_value"
    values = _values(criterion.match_value, at)
    if len(values) > MOST_VALUES:
        raise bad_filter(at, f"holds {len(values)} values, at most {MOST_VALUES} are allowed")
    if operator in ONE_VALUE and len(values) != 1:
        raise bad_filter(at, "must be one value")
    if operator is Operator.LIKE:
        if not isinstance(values[0], str) or not _is_text(kind, criterion.field_name):
            raise bad_filter(at, "of LIKE must be a text, and its field one that holds text")
        return Criterion(name, operator, (_text(values[0], at, LONGEST_PATTERN),))
    return Criterion(name, operator, tuple(fitted(kind, criterion.field_name, value, at) for value in values))


def _operator(number: int, path: str) -> Operator:
    if number == wire.CRITERION_OPERATOR_INVALID:
        raise bad_filter(path, "is not set")
    try:
        return Operator(number)
    except ValueError:
        raise bad_filter(path, f"{number} is no operator") from None


def _is_text(kind: Kind, field: str) -> bool:
    if field in BASE_FIELDS:
        return field in TEXTS
    index = kind.index(field)
    return index is not None and (index.is_identifier or index.field.type == FieldDescriptor.TYPE_STRING)


def fitted(kind: Kind, field: str, value: Scalar, path: str) -> Scalar:
    """Return a value as its field is stored.  Enums go by number or name, numbers may be written as text."""
    index = kind.index(field) if field not in BASE_FIELDS else None
    if _is_text(kind, field):
        if not isinstance(value, str):
            raise bad_filter(path, f"must be a text: {field} holds texts")
        return _text(value, path)
    if index is not None and index.field.enum_type is not None and isinstance(value, str):
        named = index.field.enum_type.values_by_name.get(value)
        if named is not None:
            return int(named.number)
        if _read_number(value) is None:
            raise bad_filter(path, f"{field} has no value {value[:64]!r}")
    return _number(field, value, path)


def _text(value: str, path: str, most: int = LONGEST_TEXT) -> str:
    if len(value) > most:
        raise bad_filter(path, f"is longer than {most} characters")
    return value


def _number(field: str, value: Scalar, path: str) -> Scalar:
    number = _read_number(value) if isinstance(value, str) else value
    if number is None:
        raise bad_filter(path, f"must be a number: {field} holds numbers, not {str(value)[:64]!r}")
    if isinstance(number, float) and not math.isfinite(number):
        raise bad_filter(path, "must be a finite number")
    if isinstance(number, int) and number not in INT64:
        raise bad_filter(path, f"{number} is no 64-bit integer")
    return number


def _read_number(text: str) -> int | float | None:
    for read in (int, float):
        with contextlib.suppress(ValueError):
            return read(text[:LONGEST_NUMBER])
    return None


def _values(packed: AnyMessage, path: str) -> list[Scalar]:
    if not packed.type_url:
        raise bad_filter(path, "is not set")
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
        message = message_factory.GetMessageClass(descriptor).FromString(packed.value)
    except (KeyError, DecodeError) as error:
        raise bad_filter(path, f"holds {packed.type_url[:64]!r}, which cannot be read") from error
    return _plain(message, path)


def _plain(message: Any, path: str) -> list[Scalar]:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.ListValue":
        return [value for item in message.values for value in _plain(item, path)]
    if name == "google.protobuf.Value":
        which = message.WhichOneof("kind")
        if which == "list_value":
            return _plain(message.list_value, path)
        value = scalar(getattr(message, which)) if which in ("string_value", "number_value", "bool_value") else None
    else:
        value = scalar(message.value if name in WRAPPERS else message)
    if value is None:
        raise bad_filter(path, f"holds a {name}: use a wrapped string, number, bool, Timestamp or a ListValue of them")
    return [value]
