"""Rounds: ours and the peer's in turns, so that what disturbs the machine disturbs both.  Times nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Ours = TypeVar("Ours")
Peer = TypeVar("Peer")


def interleaved(rounds: int, ours: Callable[[], Ours], peer: Callable[[], Peer]) -> tuple[list[Ours], list[Peer]]:
    """Call both `rounds` times in the order A B, B A, A B ... and return what they returned."""
    found_ours: list[Ours] = []
    found_peer: list[Peer] = []
    for number in range(rounds):
        if number % 2 == 0:
            found_ours.append(ours())
            found_peer.append(peer())
        else:
            found_peer.append(peer())
            found_ours.append(ours())
    return found_ours, found_peer
