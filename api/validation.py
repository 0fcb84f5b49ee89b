"""Checks what the options of the wire contract declare: ranges, lengths, patterns, formats, required oneofs.

Reads descriptors and one message; never the store.  Every fault is reported, not the first.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from api.errors import FieldViolation
from api.gen.michelangelo.api import options_pb2 as options

HOSTNAME = re.compile(
    r"(?=.{1,253}\Z)([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*\Z"
)
EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,253}\Z")
SHOWN = 64
LONGEST_HINTED = 256


def _parses(parser: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parser(text)
        except ValueError:
            return False
        return True

    return check


def _is_ip_or_host(text: str) -> bool:
    return _parses(ipaddress.ip_address)(text) or HOSTNAME.match(text) is not None


FORMATS: dict[str, tuple[Callable[[str], bool], str]] = {
    "uuid": (_parses(uuid.UUID), "must be a UUID"),
    "email": (lambda text: EMAIL.match(text) is not None, "must be an e-mail address"),
    "uri": (lambda text: bool(urlsplit(text).scheme), "must be a URI with a scheme"),
    "ipv4": (_parses(ipaddress.IPv4Address), "must be an IPv4 address"),
    "ipv6": (_parses(ipaddress.IPv6Address), "must be an IPv6 address"),
    "ip": (_parses(ipaddress.ip_address), "must be an IP address"),
    "hostname": (lambda text: HOSTNAME.match(text) is not None, "must be a host name"),
    "host_address": (_is_ip_or_host, "must be a host name or an IP address"),
}


def violations(message: Message, path: str) -> list[FieldViolation]:
    """Return every fault of `message`, whose own path is `path`."""
    return list(_message(message, path))


def shown(value: object) -> str:
    """Return a value short enough for a message."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question that offers the nearest known name, empty if none is near."""
    close = difflib.get_close_matches(name[:LONGEST_HINTED], list(known), 1)
    return f": did you mean {close[0]!r}?" if close else ""


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _message(message: Message, path: str) -> Iterator[FieldViolation]:
    descriptor: Any = message.DESCRIPTOR
    for oneof in _required_oneofs(descriptor):
        if message.WhichOneof(oneof.name) is None:
            choices = ", ".join(field.name for field in oneof.fields)
            yield FieldViolation(f"{path}.{oneof.name}", f"set one of: {choices}")
    for field, rules, is_nested in _declared(descriptor):
        here = f"{path}.{field.name}"
        for rule in rules:
            yield from _field(message, field, rule, here)
        if is_nested:
            yield from _nested(message, field, here)


@cache
def _required_oneofs(descriptor: Descriptor) -> Sequence[OneofDescriptor]:
    """Return the oneofs of which one field must be set.  Options are read once: each look at one takes microseconds."""
    return [oneof for oneof in descriptor.oneofs if _option(oneof, options.required)]


@cache
def _declared(descriptor: Descriptor) -> Sequence[tuple[FieldDescriptor, Sequence[Any], bool]]:
    """Return the fields that have rules or hold messages which may have some: field, rules, whether it holds any."""
    found = []
    for field in descriptor.fields:
        of, rules = field.message_type, list(_option(field, options.validation))
        is_nested = of is not None and not of.full_name.startswith("google.protobuf.")
        if rules or is_nested:
            found.append((field, rules, is_nested))
    return found


def _option(described: Any, option: Any) -> Any:
    return described.GetOptions().Extensions[option]


def _nested(message: Message, field: FieldDescriptor, path: str) -> Iterator[FieldViolation]:
    value = getattr(message, field.name)
    if is_map(field):
        entry: Any = field.message_type
        if entry.fields_by_name["value"].message_type is not None:
            for key, item in value.items():
                yield from _message(item, f"{path}[{shown(key)}]")
    elif field.is_repeated:
        for position, item in enumerate(value):
            yield from _message(item, f"{path}[{position}]")
    elif message.HasField(field.name):
        yield from _message(value, path)


def _is_set(message: Message, field: FieldDescriptor) -> bool:
    if field.is_repeated or not field.has_presence:
        return bool(getattr(message, field.name))
    return message.HasField(field.name)


def _field(message: Message, field: FieldDescriptor, rule: Any, path: str) -> Iterator[FieldViolation]:
    if not _is_set(message, field):
        if rule.required:
            yield FieldViolation(path, rule.msg or "is required")
        return
    value = getattr(message, field.name)
    if not field.is_repeated:
        yield from _faults(value, rule, path)
        return
    yield from _counts(value, rule, path)
    if is_map(field):
        for key, item in value.items():
            yield from _faults(key, rule.keys, f"{path}[{shown(key)}]")
            yield from _faults(item, rule.values, f"{path}[{shown(key)}]")
    else:
        for position, item in enumerate(value):
            yield from _faults(item, rule.items, f"{path}[{position}]")


def _counts(value: Any, rule: Any, path: str) -> Iterator[FieldViolation]:
    if rule.min_items and len(value) < int(rule.min_items):
        yield FieldViolation(path, rule.msg or f"needs at least {rule.min_items} items, has {len(value)}")
    if rule.max_items and len(value) > int(rule.max_items):
        yield FieldViolation(path, rule.msg or f"may have at most {rule.max_items} items, has {len(value)}")
    if rule.unique_items and len({repr(item) for item in value}) < len(value):
        yield FieldViolation(path, rule.msg or "must not hold the same item twice")


def _faults(value: Any, rule: Any, path: str) -> Iterator[FieldViolation]:
    if isinstance(value, str):
        found = _text(value, rule)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = _number(value, rule)
    else:
        return
    for description in found:
        yield FieldViolation(path, rule.msg or description, shown(value))


def _number(value: float, rule: Any) -> Iterator[str]:
    if rule.min and (value < float(rule.min) or (rule.excl_min and value == float(rule.min))):
        yield f"must be {'more than' if rule.excl_min else 'at least'} {rule.min}"
    if rule.max and (value > float(rule.max) or (rule.excl_max and value == float(rule.max))):
        yield f"must be {'less than' if rule.excl_max else 'at most'} {rule.max}"
    if getattr(rule, "in") and str(value) not in getattr(rule, "in"):
        yield f"must be one of {', '.join(getattr(rule, 'in'))}"
    if str(value) in rule.not_in:
        yield f"must not be {value}"


def _text(value: str, rule: Any) -> Iterator[str]:
    if rule.min_length and len(value) < int(rule.min_length):
        yield f"must have at least {rule.min_length} characters"
    if rule.max_length and len(value) > int(rule.max_length):
        yield f"must have at most {rule.max_length} characters, has {len(value)}"
    if rule.pattern and re.fullmatch(rule.pattern, value) is None:
        yield f"must match {rule.pattern}"
    if rule.not_pattern and re.fullmatch(rule.not_pattern, value) is not None:
        yield f"must not match {rule.not_pattern}"
    if getattr(rule, "in") and value not in getattr(rule, "in"):
        yield f"must be one of {', '.join(getattr(rule, 'in'))}"
    if value in rule.not_in:
        yield f"must not be {value}"
    for name, (check, description) in FORMATS.items():
        if getattr(rule, name) and not check(value):
            yield description
