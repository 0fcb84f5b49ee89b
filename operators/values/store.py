"""Stores values by the digest of their content and returns them.  Holds no order, no names, no runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from api.errors import DataLoss
from operators.errors import InputGone
from operators.values import trees
from operators.values.formats import Format, ValueRefused, format_named, format_of
from operators.values.references import Reference

JSON = "json"
SMALL = 64 * 1024
"""Bytes of a value that a run in one process holds in memory."""


class Bytes(Protocol):
    """Where values lie: bytes by name, as `api.blob_files` has them."""

    def write(self, name: str, value: bytes) -> None:
        """Store bytes whole or not at all."""
        ...

    def read(self, name: str) -> bytes:
        """Return bytes.  Raises FileNotFoundError."""
        ...


class Values:
    """Values below a root: `sha256/ab/cdef….<suffix>`.  A value that is there is not written again."""

    def __init__(self, files: Bytes) -> None:
        self._files = files
        self._known: set[str] = set()

    def put(self, value: Any) -> Reference:
        """Store a value and return its reference.  Raises ValueRefused for a type that has no format."""
        kind = _own_format(value)
        if kind is not None:
            return self._put(kind, value)
        return self.put_tree(self.encode(value))

    def encode(self, value: Any) -> Any:
        """Return plain values as a tree; what is not plain in it is stored, and a reference stands for it."""
        try:
            return trees.encoded(value, self._leaf)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueRefused(f"a {type(value).__name__} cannot be passed between steps: it {error}") from error

    def put_tree(self, tree: Any) -> Reference:
        """Store a tree, unless it is a reference already."""
        if is_reference(tree):
            return Reference.from_json(tree[trees.REFERENCE])
        content = trees.written(tree)
        found = Reference(trees.digest_of(JSON.encode(), content), JSON)
        self._write(found, ".json", content)
        return found

    def get(self, reference: Reference) -> Any:
        """Return the value.  Raises InputGone if it is gone, DataLoss if it is another."""
        if reference.format == JSON:
            return self.decode(self.tree(reference))
        kind = format_named(reference.format)
        content = self._read(reference, kind.suffix)
        if _safe_digest(kind, content) != reference.digest:
            raise _lost(reference)
        return kind.read(content)

    def tree(self, reference: Reference) -> Any:
        """Return the tree of a plain value; what is not plain in it stays a reference."""
        content = self._read(reference, ".json")
        if trees.digest_of(JSON.encode(), content) != reference.digest:
            raise _lost(reference)
        return trees.read(content)

    def decode(self, tree: Any) -> Any:
        """Return the value of a tree: references in it are loaded."""
        return trees.decoded(tree, lambda found: self.get(Reference.from_json(found)))

    def _leaf(self, value: Any, path: str) -> Any:
        scalar = _scalar(value)
        if scalar is not None:
            return trees.encoded(scalar, self._leaf)
        return {trees.REFERENCE: self._put(format_of(value, path), value).to_json()}

    def _put(self, kind: Format, value: Any) -> Reference:
        content = kind.write(value)
        found = Reference(_digest(kind, content), kind.name)
        self._write(found, kind.suffix, content)
        return found

    def _write(self, reference: Reference, suffix: str, content: bytes) -> None:
        name = _file(reference, suffix)
        if name not in self._known:
            self._files.write(name, content)
            self._known.add(name)

    def _read(self, reference: Reference, suffix: str) -> bytes:
        try:
            return self._files.read(_file(reference, suffix))
        except FileNotFoundError as error:
            raise InputGone(
                f"the value {reference.digest} is no longer stored: run the step again that made it"
            ) from error


def values_at(url: str) -> Values:
    """Return the values below a folder or a URL that fsspec reaches: what is put stays after a power loss."""
    from api.blob_files import LocalFiles, RemoteFiles

    if "://" in url and not url.startswith("file://"):
        return Values(RemoteFiles(url))
    return Values(LocalFiles(Path(url.removeprefix("file://"))))


def scratch_values(folder: Path) -> Values:
    """Return values in a folder that need not outlive this process: nothing waits for the disk."""
    return Values(_ScratchFiles(folder, small=-1))


@contextlib.contextmanager
def passing_values() -> Iterator[Values]:
    """Yield values that go with the block: small ones in memory, others in a folder that nobody waits for."""
    files = _ScratchFiles()
    try:
        yield Values(files)
    finally:
        files.remove()


def is_reference(tree: Any) -> bool:
    """Whether a tree is a reference and nothing else."""
    return isinstance(tree, Mapping) and len(tree) == 1 and trees.REFERENCE in tree


def referring(reference: Reference) -> dict[str, Any]:
    """Return the tree that is a reference."""
    return {trees.REFERENCE: reference.to_json()}


def _own_format(value: Any) -> Format | None:
    """Return the format of a value that is stored by itself, None for one that is, or holds, plain values."""
    plain = value is None or (type(value).__module__ in ("builtins", "datetime") and type(value) is not bytes)
    return None if plain or _scalar(value) is not None else format_of(value)


def _scalar(value: Any) -> Any:
    """Return a number of numpy as Python's own; None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        return None
    plain = value.item()
    return plain if type(plain) in (bool, int, float, str) else None


def _digest(kind: Format, content: bytes) -> str:
    return trees.digest_of(kind.name.encode(), content if kind.digest is None else kind.digest(content).encode())


def _safe_digest(kind: Format, content: bytes) -> str:
    try:
        return _digest(kind, content)
    except Exception as error:
        raise DataLoss(f"a {kind.name} value cannot be read: {type(error).__name__}; run its step again") from error


def _lost(reference: Reference) -> DataLoss:
    return DataLoss(f"the value {reference.digest} is not what was stored: run the step again that made it")


def _file(reference: Reference, suffix: str) -> str:
    digest = reference.digest.removeprefix("sha256:")
    return f"sha256/{digest[:2]}/{digest[2:]}{suffix}"


class _ScratchFiles:
    """small: up to how many bytes a value is held in memory; folder: of the others, made when there is one."""

    def __init__(self, folder: Path | None = None, small: int = SMALL) -> None:
        self._most = small
        self._small: dict[str, bytes] = {}
        self._folder = folder

    def write(self, name: str, value: bytes) -> None:
        if len(value) <= self._most:
            self._small[name] = value
            return
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)

    def read(self, name: str) -> bytes:
        return self._small[name] if name in self._small else self._path(name).read_bytes()

    def remove(self) -> None:
        self._small.clear()
        if self._folder is not None:
            import shutil

            shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        if self._folder is None:
            import tempfile

            self._folder = Path(tempfile.mkdtemp(prefix="ma-values-"))
        return self._folder / name.replace("/", "-")
