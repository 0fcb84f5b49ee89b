"""The port of what carries a message to a receiver, and the text that all of them carry.  Knows no server."""

from __future__ import annotations

from typing import Any, Protocol

from prometheus_client import Counter

TRIES = Counter("ma_notifications_total", "Tries to send a message, by way and outcome.", ["way", "outcome"])


class Undelivered(Exception):
    """A message was not accepted, as far as is known.

    reason: a word in CamelCase; message: a sentence without secrets; for_good: no further try can help;
    all_of_them: others to the same server would fare no better now; retry_s: when the server wants to be asked again.
    """

    def __init__(
        self, reason: str, message: str, *, for_good: bool = False, all_of_them: bool = False, retry_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.for_good = for_good
        self.all_of_them = all_of_them
        self.retry_s = retry_s


class Way(Protocol):
    """Mail, Slack: sends one message."""

    name: str

    def server(self, address: str) -> str:
        """Return what stands for the server that an address is reached by; never a secret."""
        ...

    async def send(self, notice: Any, address: str, message_id: str) -> None:
        """Send; returns once the server accepted.  Raises Undelivered.  May be cancelled at any time."""
        ...
