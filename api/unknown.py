"""Fields of a later release, which this one neither names nor shows: kept in what was made of a form without them.

A message keeps such bytes by itself; an object that was read from JSON never had them.  Knows no kind and no form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from api.validation import is_map

ANY = "google.protobuf.Any"


def keep(old: Message, new: Any) -> None:
    """Give `new`, in place, what `old` has beyond the known fields, in every message that both have.

    Items of a list are the same where they say the same, have the same name, or stand at the same place of a list of
    the same length.
    """
    if not _has_unknown(old):
        return
    if not len(_of(new)):
        new.MergeFromString(_unknown(old))
    if old.DESCRIPTOR.full_name == ANY:
        _keep_packed(old, new)
    for described, value in old.ListFields():
        if described.message_type is None:
            continue
        if is_map(described):
            if described.message_type.fields_by_name["value"].message_type is not None:
                target = getattr(new, described.name)
                for key in value:
                    if key in target:
                        keep(value[key], target[key])
        elif described.is_repeated:
            for before, after in _pairs(value, getattr(new, described.name)):
                keep(before, after)
        elif new.HasField(described.name):
            keep(value, getattr(new, described.name))


def _of(message: Message) -> Any:
    return UnknownFieldSet(message)


def _has_unknown(message: Message) -> bool:
    if len(_of(message)):
        return True
    if message.DESCRIPTOR.full_name == ANY:
        packed = _unpacked(message)
        return packed is not None and _has_unknown(packed)
    return any(_has_unknown(below) for below in _below(message))


def _below(message: Message) -> Iterator[Message]:
    for described, value in message.ListFields():
        if described.message_type is None:
            continue
        if is_map(described):
            if described.message_type.fields_by_name["value"].message_type is not None:
                yield from value.values()
        elif described.is_repeated:
            yield from value
        else:
            yield value


def _unknown(message: Message) -> bytes:
    """Return the unknown fields of a message itself, as they stand on the wire."""
    rest = type(message)()
    rest.CopyFrom(message)
    for described, _ in rest.ListFields():
        rest.ClearField(described.name)
    return rest.SerializeToString()


def _unpacked(packed: Any) -> Message | None:
    """Return what an Any holds, None if nobody knows its type."""
    try:
        described = descriptor_pool.Default().FindMessageTypeByName(packed.type_url.rpartition("/")[2])
        return message_factory.GetMessageClass(described).FromString(packed.value)
    except (KeyError, DecodeError):
        return None


def _keep_packed(old: Any, new: Any) -> None:
    before, after = _unpacked(old), _unpacked(new)
    if before is not None and after is not None and before.DESCRIPTOR is after.DESCRIPTOR and _has_unknown(before):
        keep(before, after)
        new.value = after.SerializeToString(deterministic=True)


def _pairs(old: Sequence[Any], new: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield items of two lists that are the same item."""
    waiting = dict(enumerate(old))
    said: dict[bytes, list[int]] = {}
    for place, item in waiting.items():
        said.setdefault(_bare(item), []).append(place)
    left = []
    for place, item in enumerate(new):
        if places := said.get(_bare(item)):
            yield waiting.pop(places.pop(0)), item
        else:
            left.append((place, item))
    named = {item.name: place for place, item in waiting.items() if getattr(item, "name", "")}
    for place, item in left:
        found = named.get(getattr(item, "name", ""), place if len(old) == len(new) else None)
        if found in waiting:
            yield waiting.pop(found), item


def _bare(item: Message) -> bytes:
    known = type(item)()
    known.CopyFrom(item)
    known.DiscardUnknownFields()  # type: ignore[no-untyped-call, unused-ignore]
    return known.SerializeToString(deterministic=True)
