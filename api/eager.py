"""Runs a coroutine as far as it goes without waiting.  Starts no task."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from api.errors import ApiError

T = TypeVar("T")


def at_once(work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of what need not wait; None of what would, which is ended there, or is refused.

    For what has no effect before it first waits, and can be asked again in the ordinary way.
    """
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    except ApiError:
        return None
    work.close()
    return None
