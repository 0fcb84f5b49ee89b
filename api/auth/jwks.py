"""The public keys of an identity provider, by key id: from a file or a URL, kept through outages.

Keys come from here and nowhere else: what a token itself says of keys (`jku`, `jwk`, `x5u`) is never looked at.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from api.errors import Unavailable

ALGORITHMS = ("RS256", "ES256", "EdDSA")
# How often keys are read again when nothing asks for it: a key that the provider withdrew is not accepted for longer.
FRESH_S = 300.0
# An unknown key id may make the provider be asked, but not more often than this.
AGAIN_S = 60.0
OUTAGE_S = 24 * 3600.0
TIMEOUT_S = 5.0
LARGEST_BYTES = 1024 * 1024
MOST_KEYS = 100
SMALLEST_RSA_BITS = 2048

Fetch = Callable[[], Awaitable[bytes]]

log = logging.getLogger(__name__)


def from_url(url: str) -> Fetch:
    """Return what reads a URL; it follows no redirect and heeds no proxy of the environment."""

    async def fetch() -> bytes:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise OSError(f"it answered with status {answer.status_code}")
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > LARGEST_BYTES:
                    raise OSError(f"it answered with more than {LARGEST_BYTES} bytes")
            return body

    return fetch


def from_file(path: Path) -> Fetch:
    """Return what reads a file."""

    async def fetch() -> bytes:
        return await asyncio.to_thread(path.read_bytes)

    return fetch


def parse(body: bytes) -> dict[str, PyJWK]:
    """Return the keys of a JWK set that can verify signatures, by key id; others are left out.

    Raises ValueError if it is no JWK set.
    """
    given = json.loads(body)
    if not isinstance(given, dict) or not isinstance(given.get("keys"), list):
        raise ValueError("it is no JWK set")
    found: dict[str, PyJWK] = {}
    for item in given["keys"][:MOST_KEYS]:
        key = _key(item)
        if key is not None:
            found[key.key_id or ""] = key
    return found


def _key(item: Any) -> PyJWK | None:
    if not isinstance(item, dict) or item.get("use", "sig") != "sig" or not isinstance(item.get("kid", ""), str):
        return None
    if item.get("alg", ALGORITHMS[0]) not in ALGORITHMS:
        return None
    if "verify" not in item.get("key_ops", ["verify"]) or "d" in item:
        return None
    try:
        # Without a word of its own the algorithm follows from the kind of key, never from a token.
        key = PyJWK.from_dict(item)
    except (PyJWTError, ValueError, TypeError):
        return None
    if key.algorithm_name not in ALGORITHMS or getattr(key.key, "key_size", SMALLEST_RSA_BITS) < _smallest(key):
        return None
    return key


def _smallest(key: PyJWK) -> int:
    return SMALLEST_RSA_BITS if key.key_type == "RSA" else 0


class Keys:
    """Keys by id.  One read of the provider at a time; clock: monotonic seconds."""

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str, PyJWK] = {}
        self._read = self._tried = float("-inf")
        self._lock = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> PyJWK | None:
        """Return a key, None if the provider has none of that id.

        Raises Unavailable while the provider cannot be read and the keys known are too old.
        """
        if kid not in self._keys:
            await self._refresh()
        elif self._clock() - self._read > FRESH_S and (self._reading is None or self._reading.done()):
            # Known keys go on working meanwhile: a provider that hangs must not make every call wait.
            self._reading = asyncio.create_task(self._refresh())
        if self._clock() - self._read > OUTAGE_S:
            raise Unavailable("the identity provider's keys cannot be read: try again", reason="IDENTITY_PROVIDER_DOWN")
        return self._keys.get(kid)

    async def _refresh(self) -> None:
        asked = self._clock()
        async with self._lock:
            # Another call may have read them while this one waited.
            if self._tried >= asked or asked - self._tried < AGAIN_S:
                return
            self._tried = self._clock()
            try:
                self._keys = parse(await self._fetch())
                self._read = self._clock()
            except (OSError, httpx.HTTPError, ValueError, RecursionError) as error:
                log.warning("the identity provider's keys cannot be read: %s", type(error).__name__, exc_info=True)
