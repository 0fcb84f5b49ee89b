"""Callers that are not let in: how many of one address are told so, and recorded, in a second.

Beyond that they wait and are told to come later, without a record: a flood of bad tokens costs little, and cannot fill
the audit log.  A good token from the same address is let in all the same.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import unquote

from api.gate import Overloaded

# What an address may have in a moment, in seconds of its rate.
BURST_S = 10.0
MOST_ADDRESSES = 10_000
# Whoever comes too often waits so long for its answer, unless too many wait already.
HOLD_S = 1.0
MOST_HELD = 1000
# The part of an IPv6 address that belongs to one customer of a provider.
NETWORK = 64


class Strangers:
    """Counts refusals by address.  rate: refusals a second and address."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._held = 0
        # What an address has left, and since when.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def check(self, peer: str) -> None:
        """Count a refusal.  Raises Overloaded (TOO_MANY_REFUSALS) after a while if there were too many."""
        if self._take(address(peer)):
            return
        if self._held < MOST_HELD:
            self._held += 1
            try:
                await asyncio.sleep(HOLD_S)
            finally:
                self._held -= 1
        told = "too many calls from your address were not let in"
        raise Overloaded(told, reason="TOO_MANY_REFUSALS", retry_s=HOLD_S)

    def _take(self, name: str) -> bool:
        now, most = self._clock(), self._rate * BURST_S
        left, since = self._left.pop(name, (most, now))
        left = min(most, left + (now - since) * self._rate)
        allowed = left >= 1
        self._left[name] = (left - 1 if allowed else left, now)
        if len(self._left) > MOST_ADDRESSES:
            self._left.popitem(last=False)
        return allowed


def address(peer: str) -> str:
    """Return the network of a peer, as `ipv4:10.0.0.1:4711` (gRPC) or `10.0.0.1:4711`; empty for one without."""
    host = unquote(peer.rpartition(":")[0]).removeprefix("ipv4:").removeprefix("ipv6:").strip("[]")
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if found.version == 4:
        return str(found)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, NETWORK), strict=False).network_address)
