"""Who holds which of a few fields, and what an apply makes of them: a table, without trees, messages or merging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Key = tuple[str, str]
Fields = Mapping[str, str]
HAND = "by hand"


def few(resource: Any | None) -> dict[str, str]:
    """Return the fields that are looked at, those that are set."""
    if resource is None:
        return {}
    spec = resource.spec
    found = {"spec.description": getattr(spec, "description", "")}
    if hasattr(spec, "owner"):
        found["spec.owner.name"] = getattr(spec.owner, "name", "")
        found["spec.owner.proxy_user"] = getattr(spec.owner, "proxy_user", "")
    if hasattr(spec, "desired_revision"):
        found["spec.desired_revision.name"] = spec.desired_revision.name
    found |= {f"metadata.labels[{key}]": resource.metadata.labels.get(key, "") for key in ("team", "tier")}
    return {field: value for field, value in found.items() if value}


class Table:
    """Of each object who declared a field, or wrote it by hand."""

    def __init__(self) -> None:
        self._held: dict[tuple[Key, str], set[str]] = {}

    def _holders(self, key: Key, field: str) -> set[str]:
        return self._held.setdefault((key, field), set())

    def conflicts(self, key: Key, live: Fields, wanted: Fields, manager: str) -> set[str]:
        """Return what of others would change."""
        return {
            field
            for field, value in wanted.items()
            if field in live and live[field] != value and self._holders(key, field) - {manager}
        }

    def applied(self, key: Key, live: Fields, wanted: Fields, manager: str) -> dict[str, str]:
        """Return the fields after an apply, and note who holds them."""
        after = dict(live)
        for field in {*live, *wanted}:
            holders = self._holders(key, field)
            if field in wanted:
                if live.get(field) != wanted[field]:
                    holders.clear()
                holders.add(manager)
                after[field] = wanted[field]
            elif manager in holders:
                holders.discard(manager)
                if not holders:
                    del after[field]
        return after

    def written(self, key: Key, before: Fields, after: Fields) -> None:
        """Note a write that declares nothing: what it changes is its writer's."""
        for field in {*before, *after}:
            if before.get(field) != after.get(field):
                self._held[key, field] = {HAND}
