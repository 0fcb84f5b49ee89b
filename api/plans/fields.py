"""Objects as flat fields, and how two of them differ.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from api.kinds import Kind, kind_of
from api.messages.plain import plain

Fields = Mapping[str, Any]

LONGEST_VALUE = 400
HIDDEN = "(hidden)"
# What the server and the controllers note is no wish of anybody.
OWN = ("michelangelo/", "michelangelo.airflow/")


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a JSON value with their paths.  Items of a list go by their `name`, if all have one."""
    if isinstance(value, Mapping) and value:
        for key in sorted(value):
            yield from flat(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        names = [item.get("name") if isinstance(item, Mapping) else None for item in value]
        named = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
        for position, item in enumerate(value):
            yield from flat(item, f"{path}[{names[position] if named else position}]")
    else:
        yield path, value


def fields_of(resource: Any, declared: Any) -> dict[str, Any]:
    """Return what is wanted of a resource: its spec, and the labels and annotations that `declared` has too."""
    found = dict(flat(plain(resource.spec), "spec"))
    found.pop("spec", None)
    for part in ("labels", "annotations"):
        has, wanted = getattr(resource.metadata, part), getattr(declared.metadata, part)
        for key in sorted(wanted):
            if key in has and not key.startswith(OWN):
                found[f"metadata.{part}[{key}]"] = has[key]
    return found


def changes(before: Fields | None, after: Fields | None) -> list[tuple[str, str, str]]:
    """Return the fields that differ, each with its values as JSON; empty for what is not set."""
    one, two = before or {}, after or {}
    return [
        (path, text(one, path), text(two, path))
        for path in sorted({*one, *two})
        if path not in one or path not in two or one[path] != two[path]
    ]


def text(fields: Fields, path: str) -> str:
    """Return a value as JSON, empty if it is not set."""
    return json.dumps(fields[path], ensure_ascii=False, sort_keys=True) if path in fields else ""


def shortened(value: str) -> str:
    """Return a value that can be shown."""
    return value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 1] + "…"


def is_hidden(kind: Kind, path: str) -> bool:
    """Whether a field may be seen with a right of its own only."""
    return any(_camel(path).startswith(_camel(hidden)) for hidden in kind.sensitive)


def _camel(path: str) -> str:
    return path.replace("_", "").lower()


def base_of(resource: Any | None) -> str:
    """Return what stands for a resource as it is wanted: it changes with its spec, not with its status."""
    return "" if resource is None else f"{resource.metadata.uid}/{resource.metadata.generation}"


def kind_name(resource: Any) -> str:
    """Return the kind of a resource."""
    return kind_of(resource).name
