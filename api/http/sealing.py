"""TLS of one connection, in memory: for a port that speaks TLS and plain HTTP, by the first byte of its caller."""

from __future__ import annotations

import contextlib
import ssl

# A TLS record that shakes hands begins with it; no HTTP request does.
HANDSHAKE = 0x16
CHUNK = 65_536


class Sealed:
    """Unseals what comes and seals what goes."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._coming, self._going, server_side=True)
        self._open = False

    def unseal(self, data: bytes) -> bytes:
        """Take bytes of the network and return those of HTTP, if there are any yet.  Raises ssl.SSLError."""
        self._coming.write(data)
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            if not self._open:
                self._object.do_handshake()
                self._open = True
            while part := self._object.read(CHUNK):
                parts.append(part)
        return b"".join(parts)

    def seal(self, data: bytes) -> bytes:
        """Take bytes of HTTP and return those for the network."""
        self._object.write(data)
        return self._going.read()

    def waiting(self) -> bytes:
        """Return what must be sent for the connection's own sake."""
        return self._going.read()

    def end(self) -> bytes:
        """Return what tells the other side that no more comes."""
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._object.unwrap()
        return self._going.read()
