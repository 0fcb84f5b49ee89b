"""From a resource to what `ma get` and `ma describe` show.  Columns come from the kind's descriptor."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format

from api.cli import enums, output
from api.cli.exits import USAGE, Failure
from api.cli.known import TYPES  # noqa: F401 - what an Any holds must be known
from api.kinds import Kind, kind_of

FORMATS = ("table", "json", "yaml", "name")
SPEC_COLUMNS = ("pipeline", "desired_revision", "inference_server", "type", "tier", "algorithm", "kind")
STATUS_COLUMNS = ("state", "stage", "current_revision", "latest_revision")
LONGEST_VALUE = 200


def plain(resource: Any) -> dict[str, Any]:
    """Return a resource as the YAML that `ma apply` reads: apiVersion, kind, metadata, spec, status."""
    # Through text: an Any comes out as an OrderedDict, which YAML has no name for.
    found = json.loads(json_format.MessageToJson(resource, indent=None))
    found.pop("typeMeta", None)
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
    columns = list(_columns(kind))
    header = [*(["NAMESPACE"] if all_namespaces else []), "NAME", *(name.upper() for _, name in columns), "AGE"]
    rows = [
        [
            *([item.metadata.namespace] if all_namespaces else []),
            item.metadata.name,
            *(value_text(getattr(item, part), name) for part, name in columns),
            age(item),
        ]
        for item in items
    ]
    output.table([name.replace("_", " ") for name in header], rows)


def _columns(kind: Kind) -> Iterator[tuple[str, str]]:
    """Yield the part and field of every column that says something of this kind at a glance."""
    fields = kind.message.DESCRIPTOR.fields_by_name
    for part, wanted in (("spec", SPEC_COLUMNS), ("status", STATUS_COLUMNS)):
        for name in wanted:
            if name in fields[part].message_type.fields_by_name:
                yield part, name


def value_text(part: Any, name: str) -> str:
    """Return a field as a cell: an enum without its prefix, an identifier by its name, nothing as `-`."""
    field = part.DESCRIPTOR.fields_by_name[name]
    value = getattr(part, name)
    if field.is_repeated:
        return str(len(value)) if value else "-"
    if field.enum_type is not None:
        return enums.text(field.enum_type, value)
    if field.message_type is not None:
        return str(getattr(value, "name", "")) or "-"
    return str(value) or "-"


def age(item: Any) -> str:
    """Return how long ago an object was created."""
    created = item.metadata.creationTimestamp
    return output.duration(time.time() - created.seconds) if created.seconds else "-"


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
