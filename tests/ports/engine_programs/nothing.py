"""Breaks its promise: gives no mapping."""

from collections.abc import Mapping
from typing import Any


def run(_: Mapping[str, Any]) -> None:
    return None
