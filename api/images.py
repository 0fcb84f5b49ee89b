"""Images of containers in a spec: each named with its digest, and from a registry that is allowed.  Pure.

What a tag names changes, so that a run of yesterday could not be repeated, and what was looked at is not what runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.message import Message

from api.errors import FailedPrecondition, FieldViolation
from api.kubernetes_settings import NOT_PINNED, PINNED
from api.validation import is_map, shown

DEFAULT_REGISTRY = "docker.io"


def image_faults(old: Any | None, new: Any, allowed: Sequence[str] = ()) -> list[FieldViolation]:
    """Return the images of `new` that are not pinned, but those that `old` has at the same place.

    allowed: registries, or parts of one; none is all.  Raises FailedPrecondition for pinned images of others.
    """
    known = {} if old is None else dict(images(old.spec, "spec"))
    found = [(path, image) for path, image in images(new.spec, "spec") if known.get(path) != image]
    loose = [
        FieldViolation(path, NOT_PINNED, shown(image), "IMAGE_NOT_PINNED")
        for path, image in found
        if not PINNED.match(image)
    ]
    if not loose and allowed:
        _refuse_foreign(found, allowed)
    return loose


def _refuse_foreign(found: Sequence[tuple[str, str]], allowed: Sequence[str]) -> None:
    foreign = [
        FieldViolation(path, f"is from {shown(registry_of(image))}, which is not allowed here", shown(image))
        for path, image in found
        if not any(f"{registry_of(image)}/{_rest(image)}".startswith(f"{one}/") for one in allowed)
    ]
    if foreign:
        told = f"use an image of {', '.join(allowed)}, or ask for the registry to be added (MA_KUBERNETES_REGISTRIES)"
        listed = "; ".join(f"{one.field} {one.description}" for one in foreign)
        raise FailedPrecondition(f"{listed}: {told}", reason="REGISTRY_NOT_ALLOWED", violations=foreign)


def registry_of(image: str) -> str:
    """Return the registry of an image, that of Docker if it names none."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else DEFAULT_REGISTRY


def _rest(image: str) -> str:
    return image.removeprefix(f"{registry_of(image)}/")


def images(message: Message, path: str) -> Iterator[tuple[str, str]]:
    """Yield path and value of every image that is set: fields of that name, in pods and containers."""
    for described, value in message.ListFields():
        here = f"{path}.{described.name}"
        if described.message_type is None:
            if described.name == "image" and isinstance(value, str):
                yield here, value
        elif is_map(described):
            for key in value:
                if isinstance(value[key], Message):
                    yield from images(value[key], f"{here}[{shown(str(key))}]")
        elif described.is_repeated:
            for position, item in enumerate(value):
                yield from images(item, f"{here}[{position}]")
        else:
            yield from images(value, here)
