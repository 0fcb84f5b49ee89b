"""Fields with the option `external_storage`: large values go to the blob store, the object keeps where they are.

What the store, lists and watches hold is light: the field is empty and an annotation has its reference; a get fills it
in.  Values are written before the transaction of their object; `api.blob_sweep` removes what nothing refers to.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from api.blobs import Blobs, Ref
from api.errors import DataLoss
from api.kinds import Kind, kind_of
from api.masking import alone, copy_field

ANNOTATION = "michelangelo.airflow/external"
# Smaller values stay in the object: a file each would cost more than they do in a list.
INLINE_BYTES = 1024


class External:
    """Moves fields between objects and the blob store.  Without one, `blobs` None, every value stays in its object."""

    def __init__(self, blobs: Blobs | None = None) -> None:
        self._blobs = blobs

    async def fill(self, resource: Any) -> Any:
        """Return the whole object of a light one, filled in place.  Raises DataLoss, Unavailable."""
        found = refs_of(resource)
        resource.metadata.annotations.pop(ANNOTATION, None)
        for path, ref in found.items():
            if self._blobs is None:
                raise DataLoss(f"{path} is in a blob store, and this server has none: set MA_BLOBS", reason="NO_BLOBS")
            value = await self._blobs.get(resource.metadata.namespace, ref)
            try:
                _parent(resource, path).MergeFromString(value)
            except DecodeError as error:
                raise DataLoss(f"{path} in the blob store cannot be read", reason="BLOB_DAMAGED") from error
        return resource

    async def move(self, whole: Any, stored: Any | None = None, part: str = "", lacking: Collection[str] = ()) -> Any:
        """Return the light form of a whole object, its large values stored.

        stored: the light object it replaces, whose values are used again where they are the same; part: only this part
        of `whole` is whole (`status`), the rest is as light as in `stored`; lacking: paths that keep what is stored.
        """
        kind = kind_of(whole)
        if self._blobs is None or not kind.external:
            return whole
        light = copy.deepcopy(whole)
        light.metadata.annotations.pop(ANNOTATION, None)
        had = refs_of(stored) if stored is not None else {}
        kept = {path: ref for path, ref in had.items() if not path.startswith(part)}
        for path in kind.external:
            if path.startswith(part):
                value = _value(light, path)
                if value is None and path in lacking and path in had:
                    kept[path] = had[path]
                elif value is not None and len(value) >= INLINE_BYTES:
                    kept[path] = await self._ref(whole.metadata.namespace, value, had.get(path))
                    _parent(light, path).ClearField(path.rpartition(".")[2])
        if kept:
            light.metadata.annotations[ANNOTATION] = _text(kept)
        return light

    async def _ref(self, namespace: str, value: bytes, had: Ref | None) -> Ref:
        assert self._blobs is not None
        if had is not None and had.size == len(value) and had.digest == hashlib.sha256(value).hexdigest():
            return had
        return await self._blobs.put(namespace, value)


def refs_of(resource: Any) -> dict[str, Ref]:
    """Return where the external fields of a stored object are, by path."""
    text = resource.metadata.annotations.get(ANNOTATION, "")
    return {path: Ref(*where) for path, where in json.loads(text).items()} if text else {}


def restore(kind: Kind, old: Any | None, new: Any) -> None:
    """Give an object that came from a list, in place, the stored values of the fields that it lacks.

    old: the whole stored object, None when there is none.  Which values those are, its annotation never says.
    """
    text = new.metadata.annotations.pop(ANNOTATION, "")
    if old is None or not text:
        return
    for path in kind.external:
        if f'"{path}"' in text:
            copy_field(old, new, path)


def _parent(resource: Any, path: str) -> Any:
    for part in path.split(".")[:-1]:
        resource = getattr(resource, part)
    return resource


def _value(resource: Any, path: str) -> bytes | None:
    """Return the bytes of a message that has this field only, None where it is not set."""
    *parents, last = path.split(".")
    for part in parents:
        if not resource.HasField(part):
            return None
        resource = getattr(resource, part)
    if last not in {field.name for field, _ in resource.ListFields()}:
        return None
    value: bytes = alone(resource, last).SerializeToString(deterministic=True)
    return value


def _text(refs: Mapping[str, Ref]) -> str:
    return json.dumps({path: [ref.day, ref.digest, ref.size] for path, ref in refs.items()}, sort_keys=True)
