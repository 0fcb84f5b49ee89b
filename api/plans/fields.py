"""Objects as flat fields, and how two of them differ.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from api.apply_fields import BEFORE, OWN_NOTES, Owner, owners_of
from api.apply_fields import text as field_text
from api.apply_trees import Path
from api.client import MANAGER
from api.kinds import Kind
from api.messages.plain import plain

Fields = Mapping[str, Any]

LONGEST_VALUE = 400
HIDDEN = "(hidden)"
MOST_TAKEN = 20
ONLY_MANAGERS = "nothing changes but who manages which of its fields"


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


def fields_of(resource: Any) -> dict[str, Any]:
    """Return what is wanted of a resource: its spec, labels, annotations, owners and finalizers."""
    found = dict(flat(plain(resource.spec), "spec"))
    found.pop("spec", None)
    metadata = resource.metadata
    for part in ("labels", "annotations"):
        for key, value in getattr(metadata, part).items():
            if not key.startswith(OWN_NOTES):
                found[f"metadata.{part}[{key}]"] = value
    found |= {
        f"metadata.ownerReferences[{owner.uid}]": f"{owner.kind} {owner.name}" for owner in metadata.ownerReferences
    }
    return found | {f"metadata.finalizers[{name}]": True for name in metadata.finalizers}


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


def takeover(before: Any, after: Any, manager: str) -> str:
    """Return what of others a manager takes over, and whether nothing but that changes; empty if there is no more."""
    was, now = owners_of(before), owners_of(after)
    left = {(owner.manager, owner.operation): owner.paths for owner in now}
    free = BEFORE if manager == MANAGER else manager
    lost = sorted(
        f"{field_text(after.DESCRIPTOR, path)} of {owner.manager!r}"
        for owner in was
        if owner.manager not in (manager, free)
        for path in owner.paths - left.get((owner.manager, owner.operation), frozenset())
    )
    if lost:
        more = f" and {len(lost) - MOST_TAKEN} more" if len(lost) > MOST_TAKEN else ""
        return f"takes over {', '.join(lost[:MOST_TAKEN])}{more}"
    same = before.spec == after.spec and fields_of(before) == fields_of(after)
    return ONLY_MANAGERS if same and {*map(_held, was)} != {*map(_held, now)} else ""


def _held(owner: Owner) -> tuple[str, str, frozenset[Path]]:
    return owner.manager, owner.operation, owner.paths
