"""JSON merge patch (RFC 7386) of plain values.  Knows no kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.http.objects import Document
from api.messages.json_tree import JsonTree


def merge(target: Any, given: Any) -> Any:
    """Return `target` changed by a patch: null removes, mappings merge, everything else replaces."""
    if not isinstance(given, Mapping):
        return given
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in given.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def version(given: Mapping[str, Any]) -> str:
    """Return the version that a patch was made for, empty if it names none."""
    metadata = given.get("metadata")
    named = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None
    return named if isinstance(named, str) else ""


def document(merged: Mapping[str, Any]) -> Document:
    """Return plain values as what a body would be."""
    return Document(JsonTree(), merged)
