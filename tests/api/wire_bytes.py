"""Protobuf bytes written by hand, for messages that no library would make."""

from __future__ import annotations

REQUEST_RESOURCE, RESOURCE_METADATA, RESOURCE_SPEC = 1, 2, 3
METADATA_NAME, METADATA_NAMESPACE, METADATA_LABELS = 1, 3, 11


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Return a base-128 number."""
    out = b""
    while True:
        value, low = value >> 7, value & 0x7F
        out += bytes([low | (0x80 if value else 0)])
        if not value:
            return out


def create(namespace: str, *, name: bytes = b"m", metadata: bytes = b"", spec: bytes = b"") -> bytes:
    """Return a create request of any kind."""
    described = field(METADATA_NAME, name) + field(METADATA_NAMESPACE, namespace.encode()) + metadata
    return field(REQUEST_RESOURCE, field(RESOURCE_METADATA, described) + field(RESOURCE_SPEC, spec))


def nested_struct(levels: int) -> bytes:
    """Return a Struct in a Struct, `levels` deep: three messages a level."""
    inner = b""
    for _ in range(levels):
        inner = field(1, field(1, b"k") + field(2, field(5, inner)))
    return inner


def any_in_any(levels: int) -> bytes:
    """Return an Any that holds an Any, `levels` deep."""
    inner = b""
    for _ in range(levels):
        inner = field(1, b"type.googleapis.com/google.protobuf.Any") + field(2, inner)
    return inner
