"""A wall clock that jumps or runs at another rate, in this process.  The monotonic clock stays right."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from unittest import mock


@contextlib.contextmanager
def skewed(offset_s: float = 0.0, rate: float = 1.0) -> Iterator[None]:
    """Let `time.time` and `time.time_ns` be off by `offset_s` from now on and run `rate` times as fast."""
    real, began = time.time, time.time()

    def told() -> float:
        now = real()
        return began + offset_s + (now - began) * rate

    def told_ns() -> int:
        return int(told() * 1e9)

    with mock.patch.object(time, "time", told), mock.patch.object(time, "time_ns", told_ns):
        yield
