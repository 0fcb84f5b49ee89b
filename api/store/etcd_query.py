"""Which objects a query finds and in which order, decided object by object.  The meaning of `sql.py`, without SQL.

A comparison with an absent value is false; NOT_EQUAL and NOT_IN are the opposites of EQUAL and IN.  Numbers come before
texts, absent values before both, and last when descending.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from api.kinds import Resource
from api.store.base import Criterion, Group, Operator, Query, Scalar, labels_match
from api.store.values import indexed

Values = Mapping[str, Scalar]
Rank = tuple[int, Scalar]

ORDERED: Mapping[Operator, Callable[[Rank, Rank], bool]] = {
    Operator.GREATER_THAN: lambda found, asked: found > asked,
    Operator.GREATER_THAN_OR_EQUAL_TO: lambda found, asked: found >= asked,
    Operator.LESS_THAN: lambda found, asked: found < asked,
    Operator.LESS_THAN_OR_EQUAL_TO: lambda found, asked: found <= asked,
}


def picked(items: Sequence[Resource], query: Query) -> list[Resource]:
    """Return the objects that a query finds, in its order.  Position and limit are not looked at."""
    known: list[tuple[Values, Resource]] = []
    for item in items:
        if query.namespaces is not None and item.metadata.namespace not in query.namespaces:
            continue
        if query.labels and not labels_match(query.labels, item.metadata.labels):
            continue
        values = _values(item) if query.where is not None or query.order else {}
        if query.where is None or matches(query.where, values):
            known.append((values, item))
    known.sort(key=lambda entry: (entry[1].metadata.namespace, entry[1].metadata.name))
    for field, descending in reversed(query.order):
        known.sort(key=lambda entry, field=field: rank(entry[0].get(field)), reverse=descending)  # type: ignore[misc]
    return [item for _, item in known]


def _values(item: Resource) -> Values:
    return {**indexed(item), "metadata.namespace": item.metadata.namespace, "metadata.name": item.metadata.name}


def matches(node: Criterion | Group, values: Values) -> bool:
    """Tell whether the values of an object meet a condition.  A group without terms is met."""
    if isinstance(node, Group):
        met = (matches(term, values) for term in node.terms)
        return not node.terms or (any(met) if node.any else all(met))
    return _meets(node, values.get(node.field))


def _meets(criterion: Criterion, value: Scalar | None) -> bool:
    operator, asked = criterion.operator, criterion.values
    if operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        return (value is None) == (operator is Operator.IS_NULL)
    if operator in (Operator.NOT_EQUAL, Operator.NOT_IN):
        return value is None or value not in asked
    if value is None:
        return False
    if operator in (Operator.EQUAL, Operator.IN):
        return value in asked
    if operator is Operator.LIKE:
        return like(str(asked[0]), str(value))
    return ORDERED[operator](rank(value), rank(asked[0]))


def rank(value: Scalar | None) -> Rank:
    """Return what values are ordered by: absent ones, numbers, texts by code point."""
    if value is None:
        return 0, 0
    return (2, value) if isinstance(value, str) else (1, value)


def like(pattern: str, text: str) -> bool:
    """Tell whether a whole text is like a pattern: `%` is any text, `_` any character, case counts.

    Each part between `%` is sought once, from where the one before it ended: time grows with pattern times text.
    """
    first, *middle = _parts(pattern)
    start = first.match(text)
    if start is None:
        return False
    if not middle:
        return start.end() == len(text)
    position = start.end()
    for part in middle[:-1]:
        next_one = part.search(text, position)
        if next_one is None:
            return False
        position = next_one.end()
    last = len(pattern) - pattern.rindex("%") - 1
    return len(text) - last >= position and middle[-1].match(text, len(text) - last) is not None


@lru_cache(maxsize=256)
def _parts(pattern: str) -> Sequence[re.Pattern[str]]:
    return [
        re.compile("".join("." if char == "_" else re.escape(char) for char in part), re.DOTALL)
        for part in pattern.split("%")
    ]
