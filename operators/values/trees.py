"""Plain Python values as JSON and back, with the same types: the form in which values are stored and named.

What JSON cannot say is an object with one key that begins with "$": {"$ref": reference}, {"$tuple": [...]},
{"$float": "nan"}, {"$datetime": text}, {"$date": text}, {"$timedelta": seconds}, {"$dict": an object whose own keys
begin with "$"}.  Keys are sorted: the order in which a dict was filled is no part of its content.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

DEEPEST = 200
REFERENCE = "$ref"

Leaf = Callable[[Any, str], Any]
"""Returns the JSON of a value that is not plain; is told its place, such as "[3].name"."""


def encoded(value: Any, leaf: Leaf, path: str = "", depth: int = 0) -> Any:
    """Return `value` as JSON.  Raises TypeError or what `leaf` raises, ValueError for what is too deep."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if depth > DEEPEST:
        raise ValueError(f"is nested deeper than {DEEPEST}, or holds itself")
    if kind in (list, tuple):
        items = [encoded(item, leaf, f"{path}[{number}]", depth + 1) for number, item in enumerate(value)]
        return items if kind is list else {"$tuple": items}
    if kind is dict:
        return _object(value, leaf, path, depth)
    if kind in (datetime, date):
        return {f"${kind.__name__}": value.isoformat()}
    if kind is timedelta:
        return {"$timedelta": value.total_seconds()}
    return leaf(value, path)


def _object(value: Mapping[Any, Any], leaf: Leaf, path: str, depth: int) -> Any:
    for key in value:
        if type(key) is not str:
            told = f"has the key {key!r} ({type(key).__name__}): keys of a dict must be texts, or use a list of pairs"
            raise TypeError(told)
    found = {key: encoded(value[key], leaf, f"{path}.{key}", depth + 1) for key in sorted(value)}
    return {"$dict": found} if any(key.startswith("$") for key in found) else found


def decoded(tree: Any, load: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Return the value of a tree; `load` returns the value of a reference."""
    if isinstance(tree, list):
        return [decoded(item, load) for item in tree]
    if not isinstance(tree, dict):
        return tree
    tag = next(iter(tree)) if len(tree) == 1 else ""
    if tag.startswith("$"):
        return _tagged(tag, tree[tag], load)
    return {key: decoded(item, load) for key, item in tree.items()}


def _tagged(tag: str, content: Any, load: Callable[[Mapping[str, Any]], Any]) -> Any:
    if tag == REFERENCE:
        return load(content)
    if tag == "$tuple":
        return tuple(decoded(item, load) for item in content)
    if tag == "$dict":
        return {key: decoded(item, load) for key, item in content.items()}
    if tag in _PLAIN:
        return _PLAIN[tag](content)
    raise ValueError(f"{tag!r} was written by another release")


_PLAIN: dict[str, Callable[[Any], Any]] = {
    "$float": float,
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$timedelta": lambda seconds: timedelta(seconds=seconds),
}


def written(tree: Any) -> bytes:
    """Return the one text of a tree, in UTF-8."""
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    # A lone surrogate is no character: it is kept, and comes back, as what it was.
    return text.encode("utf-8", "surrogatepass")


def read(content: bytes) -> Any:
    """Return the tree that was written."""
    return json.loads(content.decode("utf-8", "surrogatepass"))


def digest_of(*parts: bytes) -> str:
    """Return the digest of parts, each with its length, so that no two lists of parts are one text."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return f"sha256:{found.hexdigest()}"
