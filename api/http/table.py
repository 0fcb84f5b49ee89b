"""Kubernetes' Table: what kubectl prints, and what it sorts and follows by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from api import columns
from api.http.objects import encoded
from api.kinds import Kind
from api.messages.plain import plain

API_VERSION = "meta.k8s.io/v1"
INCLUDED = ("None", "Metadata", "Object")
UNKNOWN = "<unknown>"
# What kubectl shows without being asked stands at 0.
SHOWN, WIDE = 0, 1


@cache
def definitions(kind: str) -> Sequence[dict[str, Any]]:
    """Return the definitions of a kind's columns."""
    shown = [
        _definition(column.name, f"Field `{column.path}`.", WIDE if column.wide else SHOWN)
        for column in columns.columns(kind)
    ]
    return (
        _definition("Name", "Name, unique in its project.", SHOWN) | {"format": "name"},
        *shown,
        _definition("Age", "Time since it was created.", SHOWN),
    )


def _definition(name: str, description: str, priority: int) -> dict[str, Any]:
    return {"name": name, "type": "string", "format": "", "description": description, "priority": priority}


def of(kind: Kind, items: Iterable[Any], version: str, included: str = "Metadata") -> dict[str, Any]:
    """Return objects as a Table.  `included`: how much of each object stands beside its cells; default its metadata."""
    return {
        "kind": "Table",
        "apiVersion": API_VERSION,
        "metadata": {"resourceVersion": version} if version else {},
        "columnDefinitions": definitions(kind.name),
        "rows": [_row(kind, item, included) for item in items],
    }


def _row(kind: Kind, item: Any, included: str) -> dict[str, Any]:
    old = columns.age_s(item)
    cells = [
        item.metadata.name,
        *(columns.cell(item, column.path) for column in columns.columns(kind.name)),
        UNKNOWN if old is None else duration(old),
    ]
    if included == "None":
        return {"cells": cells}
    if included == "Object":
        return {"cells": cells, "object": encoded(kind, item)}
    partial = {"kind": "PartialObjectMetadata", "apiVersion": API_VERSION, "metadata": plain(item.metadata)}
    return {"cells": cells, "object": partial}


def duration(seconds: float) -> str:
    """Return an age as kubectl writes it: `42s`, `3m5s`, `2h10m`, `4d3h`, `120d`, `2y10d`."""
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole}s"
    for limit, unit, name, less, less_name in (
        (600, 60, "m", 1, "s"),
        (10_800, 60, "m", 0, ""),
        (28_800, 3600, "h", 60, "m"),
        (172_800, 3600, "h", 0, ""),
        (691_200, 86_400, "d", 3600, "h"),
        (63_072_000, 86_400, "d", 0, ""),
        (252_288_000, 31_536_000, "y", 86_400, "d"),
    ):
        if whole < limit:
            rest = whole % unit // less if less else 0
            return f"{whole // unit}{name}{f'{rest}{less_name}' if rest else ''}"
    return f"{whole // 31_536_000}y"
