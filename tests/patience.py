"""How long tests wait for what is promised within a time: they run beside others, on machines that may be slower."""

from __future__ import annotations

SLOWER = 5.0


def soon(promised_s: float) -> float:
    """Return the limit for what takes at most `promised_s` seconds on an idle machine."""
    return SLOWER * promised_s
