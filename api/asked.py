"""What a request of one of the six operations asks for, and the answer it gets.  Reads messages; knows no store."""

from __future__ import annotations

import hashlib
import math
from functools import cache
from typing import Any

from google.protobuf.message import Message

from api.admission import refuse
from api.calls import Call
from api.errors import FieldViolation, InvalidArgument
from api.kinds import Kind, kinds
from api.masking import masked
from api.store.base import Key, Request
from api.validation import shown

DRY_RUN_ALL = "All"
OPTIONS = ("create_options", "update_options", "delete_options")


def check_call(call: Call, *, mutating: bool) -> None:
    """Refuse what a call says of itself.  Raises InvalidArgument."""
    if call.timeout_s is not None and not (math.isfinite(call.timeout_s) and call.timeout_s >= 0):
        told = f"{shown(call.timeout_s)} s is no time that a caller can wait: give a positive one, or none"
        refuse([FieldViolation("timeout", told)], "BAD_DEADLINE")
    if mutating and call.misnamed:
        told = "of a call that writes is a UUID: give each call a new one, and its repeats the same"
        refuse([FieldViolation("x-request-id", told)], "BAD_REQUEST_ID")


def key_asked(kind: Kind, request: Any) -> Key:
    """Return what a request is about; parts that it does not name are empty."""
    here = request
    if kind.singular in request.DESCRIPTOR.fields_by_name:
        here = getattr(request, kind.singular).metadata
        if kind.name == "Project":
            return Key(kind.name, here.namespace or here.name, here.name)
    return Key(kind.name, here.namespace, getattr(here, "name", ""))


def named_request(call: Call, path: str, request: Any) -> Request | None:
    """Return the name under which a call's answer is kept.  A dry run has none: it has no effect."""
    known = request.DESCRIPTOR.fields_by_name
    if not call.repeatable or any(field in known and getattr(request, field).dryRun for field in OPTIONS):
        return None
    digest = hashlib.sha256(call.asked or request.SerializeToString(deterministic=True)).digest()
    return Request(f"{call.principal.subject} {path}", call.request_id, digest)


def resource_asked(kind: Kind, request: Any) -> Any:
    """Return the object in a request.  Raises InvalidArgument when there is none."""
    field = kind.singular
    if not request.HasField(field):
        raise InvalidArgument(
            f"{field} is required", violations=[FieldViolation(field, "is required")], reason="MISSING_FIELD"
        )
    return getattr(request, field)


def is_dry(options: Any, field: str) -> bool:
    """Whether options ask for a dry run.  Raises InvalidArgument."""
    unknown = [value for value in options.dryRun if value != DRY_RUN_ALL]
    if unknown:
        told = f"knows the value {DRY_RUN_ALL!r} only, not {shown(unknown[0])!r}"
        refuse([FieldViolation(f"{field}.dryRun", told)], "INVALID_ARGUMENT")
    return bool(options.dryRun)


def is_orphaning(options: Any) -> bool:
    """Whether a delete leaves what the object owns.  Raises InvalidArgument."""
    policy = options.propagationPolicy
    if policy not in ("", "Background", "Foreground", "Orphan"):
        told = f"is Background, Foreground or Orphan, not {shown(policy)!r}"
        refuse([FieldViolation("delete_options.propagationPolicy", told)], "INVALID_ARGUMENT")
    return bool(policy == "Orphan" or options.orphanDependents)


def is_foreground(options: Any) -> bool:
    """Whether a delete stays visible until what the object owns is gone."""
    return bool(options.propagationPolicy == "Foreground")


def answer_of(kind: Kind, verb: str, resource: Any = None) -> Message:
    """Return the answer of an operation, with the object that it carries, if it carries one."""
    response = _answers(kind.name, verb)()
    if resource is not None and verb not in ("Delete", "DeleteCollection"):
        getattr(response, kind.singular).CopyFrom(resource)
    return response  # type: ignore[no-any-return]


@cache
def _answers(kind: str, verb: str) -> Any:
    """Return the class of an operation's answers."""
    described: Any = kinds()[kind].method(verb).output_type
    return described._concrete_class


def mask_answer(kind: Kind, verb: str, answer: Any) -> None:
    """Clear the sensitive fields of every object in an answer, in place."""
    if verb == "List":
        for item in getattr(answer, answer.DESCRIPTOR.fields[0].name).items:
            masked(kind, item)
    elif verb not in ("Delete", "DeleteCollection"):
        masked(kind, getattr(answer, kind.singular))


def skip_field(item: Any, path: str) -> None:
    """Leave a field out of an object, in place."""
    *parents, last = path.split(".")
    for part in parents:
        if part not in item.DESCRIPTOR.fields_by_name or not item.HasField(part):
            return
        item = getattr(item, part)
    if last in item.DESCRIPTOR.fields_by_name:
        item.ClearField(last)
