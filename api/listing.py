"""From the wire's list options to a store query: selectors, order, pages.  Never builds SQL."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import Descriptor

from api.criteria import bad_filter, condition, fitted, known_column
from api.errors import FieldViolation, ResourceExhausted
from api.gen.michelangelo.api import list_pb2 as wire
from api.kinds import Kind
from api.store.base import LARGEST_PAGE, Criterion, Group, LabelRequirement, Operator, Query

LONGEST_SELECTOR = 65_536
MOST_REQUIREMENTS = 100
MOST_ORDERS = 8
MOST_SKIPPED = 100
REQUIREMENT = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<gone>[\w./-]+)|(?P<key>[\w./-]+)"
    r"(?:\s*(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|\Z)"
)


def parse_selector(text: str, field: str = "list_options.labelSelector") -> tuple[LabelRequirement, ...]:
    """Parse a Kubernetes label selector (`a=b, c in (d,e), !f`).  Raises InvalidArgument with the position."""
    if len(text) > LONGEST_SELECTOR:
        told = f"is longer than {LONGEST_SELECTOR} characters"
        raise ResourceExhausted(f"{field} {told}", reason="TOO_LARGE", violations=[FieldViolation(field, told)])
    found: list[LabelRequirement] = []
    position = 0
    while position < len(text):
        match = REQUIREMENT.match(text, position)
        if match is None:
            raise bad_filter(field, f"cannot be read at position {position}: {text[position : position + 32]!r}")
        found.append(_requirement(match))
        position = match.end()
    if text.rstrip().endswith(","):
        raise bad_filter(field, f"ends with a comma at position {text.rindex(',')}")
    if len(found) > MOST_REQUIREMENTS:
        raise bad_filter(field, f"has {len(found)} requirements, at most {MOST_REQUIREMENTS} are allowed")
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
    for field, given, most in (
        ("list_options_ext.order_by", extension.order_by, MOST_ORDERS),
        ("list_options_ext.returned_field_skip_list", extension.returned_field_skip_list, MOST_SKIPPED),
    ):
        if len(given) > most:
            raise bad_filter(field, f"has {len(given)} entries, at most {most} are allowed")
    for position, path in enumerate(extension.returned_field_skip_list):
        _check_skipped(kind, path, f"list_options_ext.returned_field_skip_list[{position}]")
    where = condition(kind, extension.operation, "list_options_ext.operation")
    terms = [term for term in (where, parse_fields(kind, options.fieldSelector)) if term is not None]
    return Query(
        namespace=namespace,
        labels=parse_selector(options.labelSelector),
        where=Group(tuple(terms)) if terms else None,
        order=tuple(_order(kind, order, position) for position, order in enumerate(extension.order_by)),
        offset=pagination.offset,
        limit=min(limit or LARGEST_PAGE, LARGEST_PAGE),
        start=getattr(options, "continue"),
        # Who pages by offsets shows how many pages there are; Kubernetes leaves the count out with selectors.
        count=extension.HasField("pagination"),
    )


def parse_fields(kind: Kind, selector: str, path: str = "list_options.fieldSelector") -> Group | None:
    """Parse a Kubernetes field selector (`spec.type=1`) on a kind, None if it is empty.  Raises InvalidArgument."""
    terms = []
    for requirement in parse_selector(selector, path):
        operator = {"in": Operator.IN, "notin": Operator.NOT_IN}.get(requirement.operator)
        if operator is None:
            raise bad_filter(path, "compares fields with =, == or !=")
        name = known_column(kind, requirement.key, path)
        values = tuple(fitted(kind, requirement.key, value, path) for value in requirement.values)
        terms.append(Criterion(name, operator, values))
    return Group(tuple(terms)) if terms else None


def _order(kind: Kind, order: wire.OrderBy, position: int) -> tuple[str, bool]:
    path = f"list_options_ext.order_by[{position}]"
    name = known_column(kind, order.field, f"{path}.field")
    if order.dir not in wire.SortOrder.values():
        raise bad_filter(f"{path}.dir", f"{order.dir} is neither ASC nor DESC")
    return name, order.dir == wire.SORT_ORDER_DESC


def _check_skipped(kind: Kind, path: str, at: str) -> None:
    """Refuse a field that the kind does not have, or that stands inside a list."""
    here: Descriptor | None = kind.message.DESCRIPTOR
    *parents, last = path.split(".")
    for part in parents:
        field = here.fields_by_name.get(part) if here is not None else None
        here = field.message_type if field is not None and not field.is_repeated else None
    if here is None or last not in here.fields_by_name:
        raise bad_filter(at, f"{path[:64]!r} is no field of {kind.name} that can be left out")
