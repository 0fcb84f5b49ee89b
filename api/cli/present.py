"""From a resource to what `ma get` and `ma describe` show.  Columns come from the kind's descriptor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api import columns
from api.cli import output
from api.cli.exits import USAGE, Failure
from api.kinds import Kind, kind_of
from api.messages import plain as messages

FORMATS = ("table", "json", "yaml", "name")
LONGEST_VALUE = 200
PLACE = re.compile(r"number (\d+) of (\d+) ")


def plain(resource: Any) -> dict[str, Any]:
    """Return a resource as the YAML that `ma apply` reads: apiVersion, kind, metadata, spec, status."""
    found = messages.plain(resource)
    found.pop("typeMeta", None)
    # Who manages which field is for programs.
    found.get("metadata", {}).pop("managedFields", None)
    kind = kind_of(resource)
    return {"apiVersion": kind.group_version, "kind": kind.name, **found}


def show(kind: Kind, items: Sequence[Any], form: str, *, single: bool, all_namespaces: bool) -> None:
    """Print objects in one of `FORMATS`."""
    if form == "name":
        for item in items:
            print(f"{kind.singular}/{item.metadata.name}")
    elif form in ("json", "yaml"):
        value = plain(items[0]) if single else {"apiVersion": kind.group_version, "items": [plain(i) for i in items]}
        print(output.as_json(value) if form == "json" else output.as_yaml(value))
    elif form == "table":
        _table(kind, items, all_namespaces=all_namespaces)
    else:
        raise Failure(f"unknown output {form!r}: use {', '.join(FORMATS)}", code=USAGE)


def _table(kind: Kind, items: Sequence[Any], *, all_namespaces: bool) -> None:
    if not items:
        print(f"no {kind.plural} found")
        return
    shown = [column for column in columns.columns(kind.name) if not column.wide]
    waits = [_waits_for(item) for item in items] if kind.name == "PipelineRun" else []
    more = ["WAITS FOR"] if any(waits) else []
    header = [
        *(["NAMESPACE"] if all_namespaces else []),
        "NAME",
        *(column.name.upper() for column in shown),
        "AGE",
        *more,
    ]
    rows = [
        [
            *([item.metadata.namespace] if all_namespaces else []),
            item.metadata.name,
            *(columns.cell(item, column.path) for column in shown),
            age(item),
            *(waits[place : place + 1] if more else ()),
        ]
        for place, item in enumerate(items)
    ]
    output.table(header, rows)


def _waits_for(run: Any) -> str:
    """Return why a run has not begun, with its place in the queue if it has one: `Pool 2/5`."""
    from api.cli.runs import pending_of

    told = pending_of(run)
    place = PLACE.match(told.message) if told is not None else None
    return "" if told is None else f"{told.reason} {place[1]}/{place[2]}" if place else told.reason


def age(item: Any) -> str:
    """Return how long ago an object was created."""
    seconds = columns.age_s(item)
    return "-" if seconds is None else output.duration(seconds)


def describe(resource: Any) -> Iterator[str]:
    """Yield the lines of `ma describe`: every field that is set, nested by indentation."""
    found = plain(resource)
    yield f"{found['kind']} {found['metadata']['name']} in {found['metadata'].get('namespace', '')}"
    for part in ("metadata", "spec", "status"):
        if found.get(part):
            yield f"{part}:"
            yield from _lines(found[part], "  ")


def _lines(value: Any, indent: str) -> Iterator[str]:
    pairs = value.items() if isinstance(value, Mapping) else (("-", item) for item in value)
    for key, item in pairs:
        lead = f"{indent}{key}" if key == "-" else f"{indent}{key}:"
        if isinstance(item, Mapping | list):
            if item:
                yield lead
                yield from _lines(item, indent + "  ")
        else:
            text = " ".join(str(item).split()) if isinstance(item, str) else str(item)
            yield f"{lead} {text[:LONGEST_VALUE]}"
