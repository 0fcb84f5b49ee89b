"""From a message to plain values as protobuf JSON has them, and Kubernetes' messages as Kubernetes writes them.

Reads any stored message without failing: a name or a type that is not known here is written as what it is.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from api.messages import well_known
from api.messages.known import TYPES  # noqa: F401 - what an Any holds must be known

ANY = "google.protobuf.Any"
KUBERNETES = "k8s.io."
WIDE = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
FLOAT_DIGITS = range(6, 10)

Convert = Callable[[Any], Any]
_PLANS: dict[type, dict[int, tuple[str, Convert | None]]] = {}
_FORMS: dict[type, Convert | None] = {}


def plain(message: Any) -> Any:
    """Return what JSON shows of a message: a mapping, or the form of its own that a well-known type has."""
    kind = type(message)
    try:
        form = _FORMS[kind]
    except KeyError:
        form = _FORMS[kind] = _form(message.DESCRIPTOR.full_name)
    if form is not None:
        return form(message)
    plan = _PLANS.get(kind)
    if plan is None:
        plan = _PLANS[kind] = {field.number: _plan(field) for field in message.DESCRIPTOR.fields}
    found = {}
    for field, value in message.ListFields():
        name, convert = plan[field.number]
        found[name] = value if convert is None else convert(value)
    return found


def _form(name: str) -> Convert | None:
    if name in well_known.FREE:
        return well_known.free
    if name in (well_known.TIMESTAMP, well_known.TIME):
        return well_known.time_text
    if name == well_known.FIELDS:
        return _managed
    if name == ANY:
        return _any
    if name == well_known.DURATION:
        return well_known.duration_text
    if name in well_known.WRAPPERS:
        return _wrapped
    return _mask if name in well_known.FORMS else None


def _wrapped(message: Any) -> Any:
    _, convert = _plan(message.DESCRIPTOR.fields_by_name["value"])
    return message.value if convert is None else convert(message.value)


def _mask(message: Any) -> str:
    try:
        return str(json_format.MessageToDict(message))
    except ValueError:
        return ",".join(message.paths)


def _plan(field: FieldDescriptor) -> tuple[str, Convert | None]:
    owner: Any = field.containing_type
    kubernetes = str(owner.full_name).startswith(KUBERNETES)
    of = field.message_type
    if of is not None and of.GetOptions().map_entry:
        return str(field.json_name), _mapped(_scalar(of.fields_by_name["value"], kubernetes=False))
    convert = _scalar(field, kubernetes=kubernetes)
    return str(field.json_name), _listed(convert) if field.is_repeated else convert


def _mapped(convert: Convert | None) -> Convert:
    def mapped(values: Mapping[Any, Any]) -> dict[str, Any]:
        return {_key(key): value if convert is None else convert(value) for key, value in values.items()}

    return mapped


def _key(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key)


def _listed(convert: Convert | None) -> Convert:
    if convert is None:
        return list
    return lambda values: [convert(value) for value in values]


def _scalar(field: FieldDescriptor, *, kubernetes: bool) -> Convert | None:
    """Return what makes JSON of one value, None if it is JSON already."""
    if field.message_type is not None:
        if kubernetes and field.message_type.full_name in (well_known.TIMESTAMP, well_known.TIME):
            return _whole_seconds
        return plain
    if field.enum_type is not None:
        names = {value.number: value.name for value in reversed(field.enum_type.values)}
        return lambda number: names.get(number, number)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda data: base64.b64encode(data).decode()
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _double
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return _float
    if field.cpp_type not in WIDE:
        return None
    return _exact if kubernetes else str


def _exact(number: int) -> int | str:
    """Return a number as Kubernetes writes it, as a text where JSON's readers would take it for another."""
    return number if abs(number) <= well_known.SAFE else str(number)


def _whole_seconds(moment: Any) -> str:
    text = well_known.time_text(moment)
    return text if len(text) == len("2026-01-01T00:00:00Z") else text[:19] + "Z"


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value + 0.0  # Without the sign of a negative zero, which JSON's readers tell apart or do not.
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float(value: float) -> float | str:
    """Return the shortest number that is the same in 32 bits."""
    if math.isfinite(value):
        for digits in FLOAT_DIGITS:
            short = float(f"{value:.{digits}g}")
            if struct.pack("f", short) == struct.pack("f", value):
                return short + 0.0
    return _double(value)


def _managed(fields: Any) -> Any:
    try:
        return json.loads(fields.Raw)
    except (ValueError, RecursionError):
        return {}


def _any(packed: Any) -> dict[str, Any]:
    url = str(packed.type_url)
    try:
        described = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
        inner = message_factory.GetMessageClass(described).FromString(packed.value)
    except (KeyError, DecodeError):
        if not url and not packed.value:
            return {}
        return {"@type": url, "bytes": base64.b64encode(packed.value).decode()}
    if described.full_name == ANY or described.full_name in well_known.FORMS:
        return {"@type": url, "value": plain(inner)}
    return {"@type": url, **plain(inner)}
