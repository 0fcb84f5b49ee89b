"""Where the bytes of blobs lie: a folder of this machine, or any store that fsspec reaches.  Blocking calls.

A file appears whole or not at all, and stays after a power loss once `write` has returned.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from api.errors import ResourceExhausted

CONNECT_S = 2.0
REQUEST_S = 10.0
TRIES = 3
TEMPORARY = ".tmp-"
S3_OPTIONS = frozenset({"endpoint_override", "scheme", "region", "access_key", "secret_key", "session_token"})


class Files(Protocol):
    """Bytes by name, `a/b/c`.  Methods raise OSError while the store does not answer."""

    def write(self, name: str, value: bytes) -> None:
        """Store a value durably.  Raises ResourceExhausted when the disk is full."""
        ...

    def read(self, name: str) -> bytes:
        """Return a value.  Raises FileNotFoundError."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a value of that name."""
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """Yield every name below a prefix, in no order."""
        ...

    def remove(self, name: str) -> None:
        """Remove a value, if it is there."""
        ...


class LocalFiles:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, value: bytes) -> None:
        """Write beside the name, wait for the disk, then rename."""
        path = self._root / name
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() == value:
                return
        try:
            self._folder(path.parent)
            beside = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
            try:
                with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(value)
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
            _sync(path.parent)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceExhausted(
                    "the volume of the blob store is full: nothing was written; free space", reason="DISK_FULL"
                ) from error
            raise

    def _folder(self, path: Path) -> None:
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for made in reversed(missing):
            made.mkdir(mode=0o700, exist_ok=True)
            _sync(made.parent)

    def read(self, name: str) -> bytes:
        """Read the whole file."""
        return (self._root / name).read_bytes()

    def has(self, name: str) -> bool:
        """Look for the file."""
        return (self._root / name).is_file()

    def names(self, prefix: str) -> Iterator[str]:
        """Walk the folder."""
        for folder, _, files in os.walk(self._root / prefix):
            for file in files:
                if not file.startswith(TEMPORARY):
                    yield str(Path(folder, file).relative_to(self._root))

    def remove(self, name: str) -> None:
        """Remove the file, and its folder if it was the last one."""
        path = self._root / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


class RemoteFiles:
    """Files in a store that fsspec reaches; S3 by pyarrow's client, which needs no further package."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = _file_system(url)

    def write(self, name: str, value: bytes) -> None:
        """Put one object: a store like S3 shows it whole or not at all."""
        self._fs.pipe_file(f"{self._root}/{name}", value)

    def read(self, name: str) -> bytes:
        """Get one object."""
        value: bytes = self._fs.cat_file(f"{self._root}/{name}")
        return value

    def has(self, name: str) -> bool:
        """Ask for the object's size."""
        return bool(self._fs.isfile(f"{self._root}/{name}"))

    def names(self, prefix: str) -> Iterator[str]:
        """List the objects below a prefix."""
        top = f"{self._root}/{prefix}".rstrip("/")
        for path in self._fs.find(top):
            yield str(path).removeprefix(f"{self._root}/")

    def remove(self, name: str) -> None:
        """Delete one object."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")


def _file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL and the path in it.  Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme != "s3":
        import fsspec

        try:
            return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]
        except (ImportError, ValueError) as error:
            told = f"the blob store cannot be opened: {type(error).__name__} for {parts.scheme}://; see MA_BLOBS"
            raise ValueError(told) from error
    given = dict(parse_qsl(parts.query))
    if not parts.netloc or not given.keys() <= S3_OPTIONS:
        raise ValueError(f"the blob store is s3://bucket/prefix with the options {', '.join(sorted(S3_OPTIONS))}")
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    bucket = S3FileSystem(
        **given,
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=TRIES),
    )
    return ArrowFSWrapper(bucket), f"{parts.netloc}{parts.path}".rstrip("/")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
