"""Leaves typeguard's checks out of a library while it is imported.  Changes nothing for modules imported elsewhere.

Feast's classes carry `@typechecked`, which parses and compiles each of them again at import: 1.7 s of 3.8 s, in every
process of every stage.  mypy checks how this code calls Feast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


def unchecked(target: Any = None, **_: Any) -> Any:
    """Stand in for `typeguard.typechecked`, with or without arguments."""
    return unchecked if target is None else target


@contextlib.contextmanager
def quick_import() -> Iterator[None]:
    """Import without instrumenting."""
    try:
        import typeguard
    except ImportError:
        yield
        return
    original = typeguard.typechecked
    typeguard.typechecked = unchecked
    try:
        yield
    finally:
        typeguard.typechecked = original
