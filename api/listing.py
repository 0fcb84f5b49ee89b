"""From the wire's list options to a store query: selectors, criteria, order, pages.  Never builds SQL."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from api.errors import FieldViolation, InvalidArgument
from api.gen.michelangelo.api import list_pb2 as wire
from api.kinds import Kind
from api.store.base import Criterion, Group, LabelRequirement, Operator, Query, Scalar
from api.store.values import BASE_FIELDS, column, scalar

LARGEST_PAGE = 1000
DEEPEST = 20
REQUIREMENT = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<gone>[\w./-]+)|(?P<key>[\w./-]+)"
    r"(?:\s*(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|\Z)"
)


def bad_filter(field: str, description: str) -> InvalidArgument:
    """Return the refusal of a list option."""
    return InvalidArgument(
        f"{field} {description}", reason="BAD_FILTER", violations=[FieldViolation(field, description)]
    )


def parse_selector(text: str, field: str = "list_options.labelSelector") -> tuple[LabelRequirement, ...]:
    """Parse a Kubernetes label selector (`a=b, c in (d,e), !f`).  Raises InvalidArgument with the position."""
    found, position = [], 0
    while position < len(text):
        match = REQUIREMENT.match(text, position)
        if match is None:
            raise bad_filter(field, f"cannot be read at position {position}: {text[position : position + 32]!r}")
        found.append(_requirement(match))
        position = match.end()
    return tuple(found)


def _requirement(match: re.Match[str]) -> LabelRequirement:
    if match["absent"]:
        return LabelRequirement(match["gone"], "absent")
    if match["set"]:
        return LabelRequirement(match["key"], match["set"], tuple(v.strip() for v in match["values"].split(",")))
    if match["op"]:
        return LabelRequirement(match["key"], "notin" if match["op"] == "!=" else "in", (match["value"],))
    return LabelRequirement(match["key"], "exists")


def query_of(kind: Kind, namespace: str, options: Any, extension: wire.ListOptionsExt) -> Query:
    """Return the query that `list_options` and `list_options_ext` ask for.  Raises InvalidArgument."""
    pagination = extension.pagination
    limit = pagination.limit or options.limit
    for field, value in (
        ("list_options_ext.pagination.limit", pagination.limit),
        ("list_options_ext.pagination.offset", pagination.offset),
        ("list_options.limit", options.limit),
    ):
        if value < 0:
            raise bad_filter(field, f"must not be negative, is {value}")
    where = _operation(kind, extension.operation, "list_options_ext.operation", 0)
    terms = [term for term in (where, _fields(kind, options.fieldSelector)) if term is not None]
    return Query(
        namespace=namespace,
        labels=parse_selector(options.labelSelector),
        where=Group(tuple(terms)) if terms else None,
        order=tuple(_order(kind, order, position) for position, order in enumerate(extension.order_by)),
        offset=pagination.offset,
        limit=min(limit or LARGEST_PAGE, LARGEST_PAGE),
        start=getattr(options, "continue"),
    )


def _fields(kind: Kind, selector: str) -> Group | None:
    terms = []
    for requirement in parse_selector(selector, "list_options.fieldSelector") if selector else ():
        operator = {"in": Operator.IN, "notin": Operator.NOT_IN}.get(requirement.operator)
        if operator is None:
            raise bad_filter("list_options.fieldSelector", "compares fields with =, == or !=")
        name = _column(kind, requirement.key, "list_options.fieldSelector")
        terms.append(Criterion(name, operator, requirement.values))
    return Group(tuple(terms)) if terms else None


def _column(kind: Kind, field: str, path: str) -> str:
    found = column(kind, field)
    if found is None:
        known = ", ".join([*BASE_FIELDS, *(index.key for index in kind.indexes)])
        raise bad_filter(path, f"{field[:64]!r} is not indexed for {kind.name}: use {known}")
    return found


def _order(kind: Kind, order: wire.OrderBy, position: int) -> tuple[str, bool]:
    name = _column(kind, order.field, f"list_options_ext.order_by[{position}].field")
    return name, order.dir == wire.SORT_ORDER_DESC


def _operation(kind: Kind, operation: wire.CriterionOperation, path: str, depth: int) -> Group | None:
    if depth > DEEPEST:
        raise bad_filter(path, f"is nested deeper than {DEEPEST}")
    terms: list[Criterion | Group] = [
        _criterion(kind, criterion, f"{path}.criterion[{position}]")
        for position, criterion in enumerate(operation.criterion)
    ]
    for position, nested in enumerate(operation.sub_operations):
        group = _operation(kind, nested, f"{path}.sub_operations[{position}]", depth + 1)
        if group is not None:
            terms.append(group)
    if not terms:
        return None
    return Group(tuple(terms), any=operation.logical_operator == wire.LOGICAL_OPERATOR_OR)


def _criterion(kind: Kind, criterion: wire.Criterion, path: str) -> Criterion:
    name = _column(kind, criterion.field_name, f"{path}.field_name")
    if criterion.operator == wire.CRITERION_OPERATOR_INVALID:
        raise bad_filter(f"{path}.operator", "is not set")
    operator = Operator(criterion.operator)
    if operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        return Criterion(name, operator)
    values = _values(criterion.match_value, f"{path}.match_value")
    if operator not in (Operator.IN, Operator.NOT_IN) and len(values) != 1:
        raise bad_filter(f"{path}.match_value", "must be one value")
    return Criterion(name, operator, tuple(_enum_number(kind, criterion.field_name, value) for value in values))


def _enum_number(kind: Kind, field: str, value: Scalar) -> Scalar:
    """Return an enum value's number for its name: enums are indexed by number."""
    index = kind.index(field) if field not in BASE_FIELDS else None
    if index is None or index.field.enum_type is None or not isinstance(value, str):
        return value
    named = index.field.enum_type.values_by_name.get(value)
    if named is None:
        raise bad_filter(field, f"has no value {value[:64]!r}")
    return int(named.number)


def _values(packed: AnyMessage, path: str) -> list[Scalar]:
    message = unpack(packed, path)
    if message is None:
        raise bad_filter(path, "is not set")
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
    elif name.startswith("google.protobuf.") and name.endswith("Value"):
        value = scalar(message.value)
    else:
        value = scalar(message)
    if value is None:
        raise bad_filter(path, f"holds a {name}: use a wrapped string, number, bool, Timestamp or a ListValue of them")
    return [value]


def unpack(packed: AnyMessage, path: str) -> Any | None:
    """Return the message inside an Any, None if it is empty.  Raises InvalidArgument for an unknown type."""
    if not packed.type_url:
        return None
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
        return message_factory.GetMessageClass(descriptor).FromString(packed.value)
    except (KeyError, DecodeError) as error:
        raise bad_filter(path, f"holds {packed.type_url[:64]!r}, which cannot be read") from error
