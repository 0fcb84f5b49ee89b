"""Messages of the Open Inference Protocol v2.  Knows their form, not what a model wants."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from api.errors import FieldViolation, InvalidArgument
from serving.violations import violation

MOST_SHOWN = 50
MOST_DESCRIBED = 5


class Tensor(msgspec.Struct):
    """One input."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]
    parameters: dict[str, Any] = {}


class Wanted(msgspec.Struct):
    """One output that the caller asks for."""

    name: str
    parameters: dict[str, Any] = {}


class Parameters(msgspec.Struct):
    """event_timestamp: ISO 8601 or microseconds; now without it.  explain_features: say what was joined."""

    event_timestamp: str | int | None = None
    explain_features: bool = False


class InferRequest(msgspec.Struct):
    """Body of an infer call."""

    inputs: list[Tensor]
    id: str = ""
    parameters: Parameters = msgspec.field(default_factory=Parameters)
    outputs: list[Wanted] = []


class Output(msgspec.Struct):
    """One output."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class InferResponse(msgspec.Struct):
    """Answer of an infer call."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Output]
    parameters: dict[str, Any]


_decode = msgspec.json.Decoder(InferRequest).decode


def read(body: bytes) -> InferRequest:
    """Return the request.  Raises InvalidArgument with every fault of form."""
    try:
        try:
            return _decode(body)
        except msgspec.ValidationError:
            return _explained(_loaded(body))
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidArgument(f"the body is not JSON: {error}", reason="MALFORMED_JSON") from None


def _loaded(body: bytes) -> Any:
    """Return JSON in which numbers may be of any size, as strictly as the fast decoder otherwise is."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")

    document = json.loads(body, parse_constant=refuse)
    msgspec.json.encode(document)  # refuses half of a surrogate pair
    return document


def _explained(document: Any) -> InferRequest:
    """Return the request if only a number is too large for the fast decoder; otherwise raise with every fault."""
    found = _faults(document)
    if not found:
        return msgspec.convert(document, InferRequest)
    described = "; ".join(f"{fault.field}: {fault.description}".removeprefix(": ") for fault in found[:MOST_DESCRIBED])
    raise InvalidArgument(
        f"no message of the Open Inference Protocol: {described}", reason="MALFORMED_REQUEST", violations=found
    )


def _faults(document: Any) -> list[FieldViolation]:
    """Judge each part by itself: a decoder stops at the first fault."""
    if not isinstance(document, dict):
        return [FieldViolation("", "expected an object with `inputs`", reason="MALFORMED_REQUEST")]
    found = []
    parts: list[tuple[str, Any, Any]] = [
        ("id", document.get("id", ""), str),
        ("parameters", document.get("parameters", {}), Parameters),
    ]
    for name, kind in (("inputs", Tensor), ("outputs", Wanted)):
        items = document.get(name, [] if name == "outputs" else None)
        if isinstance(items, list):
            parts += [(f"{name}[{place}]", item, kind) for place, item in enumerate(items)]
        else:
            parts.append((name, items, list))
    for at, part, kind in parts:
        try:
            msgspec.convert(part, kind)
        except msgspec.ValidationError as error:
            found.append(violation(str(error), at, reason="MALFORMED_REQUEST"))
    return found[:MOST_SHOWN]
