"""Large values beside the resource store, named by their SHA-256: in a folder, or in S3 by fsspec.  Knows no kind.

A name is `<namespace>/<day>/<sha256>`, the day on which the value was first written under it.  A writer takes the name
of today, or the one that the very object it replaces has already: nobody begins to use what `api.blob_sweep` removes,
so servers need no lock.  Namespaces share no values: a fast answer tells nobody what others have stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from api.blob_files import Files, LocalFiles, RemoteFiles
from api.errors import ApiError, DataLoss, ResourceExhausted, Unavailable

T = TypeVar("T")

LARGEST_BYTES = 64 * 1024 * 1024
CACHED_BYTES = 16 * 1024 * 1024
DAY_S = 86_400
NAME = re.compile(r"(?P<namespace>[^/]+)/(?P<day>[0-9]{1,9})/(?P<digest>[0-9a-f]{64})\Z")


@dataclass(frozen=True, order=True)
class Ref:
    """Where a value is.  `day`: days since 1970; `size`: in bytes."""

    day: int
    digest: str
    size: int

    def name(self, namespace: str) -> str:
        """Return the value's name."""
        return f"{namespace}/{self.day}/{self.digest}"


class Blobs:
    """Values by name.  Every method raises Unavailable while the blob store does not answer."""

    def __init__(self, files: Files, *, clock: Callable[[], float] = time.time) -> None:
        self._files = files
        self._clock = clock
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached = 0

    def today(self) -> int:
        """Return the number of days since 1970."""
        return int(self._clock()) // DAY_S

    async def put(self, namespace: str, value: bytes) -> Ref:
        """Store a value durably and return where.  Raises ResourceExhausted: too large, or a full disk."""
        if len(value) > LARGEST_BYTES:
            raise ResourceExhausted(f"a field has {len(value)} bytes, at most {LARGEST_BYTES}", reason="TOO_LARGE")
        ref = Ref(self.today(), hashlib.sha256(value).hexdigest(), len(value))
        name = ref.name(namespace)
        if name not in self._cache:
            await self._do(lambda: self._files.write(name, value))
            self._keep(name, value)
        return ref

    async def get(self, namespace: str, ref: Ref) -> bytes:
        """Return a value.  Raises DataLoss when it is gone or is not what was written."""
        name = ref.name(namespace)
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        try:
            value = await self._do(lambda: self._files.read(name))
        except FileNotFoundError as error:
            raise DataLoss(
                f"a value of {ref.size} bytes is gone from the blob store: restore a backup, or write it again",
                reason="BLOB_MISSING",
            ) from error
        if hashlib.sha256(value).hexdigest() != ref.digest:
            raise DataLoss(
                f"a value of {ref.size} bytes in the blob store is damaged: restore a backup, or write it again",
                reason="BLOB_DAMAGED",
            )
        self._keep(name, value)
        return value

    async def names(self, prefix: str = "") -> list[str]:
        """Return every name below a prefix."""
        return await self._do(lambda: list(self._files.names(prefix)))

    async def mark(self, name: str) -> None:
        """Store an empty value under a name of its own."""
        await self._do(lambda: self._files.write(name, b""))

    async def remove(self, name: str) -> None:
        """Remove a value, if it is there."""
        gone = self._cache.pop(name, None)
        self._cached -= len(gone) if gone is not None else 0
        await self._do(lambda: self._files.remove(name))

    def _keep(self, name: str, value: bytes) -> None:
        if name in self._cache:
            return
        self._cache[name] = value
        self._cached += len(value)
        while self._cached > CACHED_BYTES:
            _, gone = self._cache.popitem(last=False)
            self._cached -= len(gone)

    @staticmethod
    async def _do(work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except (FileNotFoundError, ApiError):
            raise
        except OSError as error:
            raise Unavailable(
                f"the blob store does not answer: {type(error).__name__}; try again", reason="BLOBS_UNAVAILABLE"
            ) from error


def parsed(names: list[str]) -> Iterator[tuple[str, int, str]]:
    """Yield namespace, day and digest of the names that are values."""
    for name in names:
        match = NAME.match(name)
        if match is not None:
            yield match["namespace"], int(match["day"]), match["digest"]


def opened(url: str) -> Blobs:
    """Return the blob store at a path or at `s3://bucket/prefix?endpoint_override=…`.  Raises ValueError."""
    return Blobs(RemoteFiles(url) if "://" in url else LocalFiles(Path(url)))
