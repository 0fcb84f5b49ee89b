"""The parameters of a run: completed from their schema and judged by it.  One rule for every place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.demands import brief
from api.errors import FieldViolation, InvalidArgument

_KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
_KINDS |= {"array": list, "object": dict}
_ANNOTATIONS = frozenset({"title", "description", "default"})


def completed(schema: Mapping[str, Any], given: Mapping[str, Any], path: str = "params") -> dict[str, Any]:
    """Return the parameters of a run: those given, and defaults for the others.  Numbers become what the schema says.

    Raises InvalidArgument with every fault: missing, unknown, of another type, out of range.
    """
    properties = schema.get("properties", {})
    found = {name: _as_said(properties[name], value) for name, value in given.items() if name in properties}
    faults = [_unknown(name, properties, f"{path}.{name}") for name in given if name not in properties]
    for name, said in properties.items():
        if name in found:
            if not _surely(said, found[name]):
                faults += _judged(said, found[name], f"{path}.{name}")
        elif "default" in said:
            found[name] = _as_said(said, said["default"])
        elif name in schema.get("required", ()):
            faults.append(FieldViolation(f"{path}.{name}", "is required", reason="MISSING_PARAM"))
        else:
            found[name] = None
    if faults:
        told = "; ".join(f"{fault.field}: {fault.description}" for fault in faults[:3])
        raise InvalidArgument(told, reason="BAD_PARAMS", violations=faults)
    return {name: found[name] for name in properties}


def _as_said(said: Mapping[str, Any], value: Any) -> Any:
    """Return a number as the schema's type: JSON does not tell 1 from 1.0."""
    kind = said.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    if type(value) is int and "number" in kinds and "integer" not in kinds:
        return float(value)
    if type(value) is float and "integer" in kinds and "number" not in kinds and value.is_integer():
        return int(value)
    if isinstance(value, list) and isinstance(said.get("items"), Mapping):
        return [_as_said(said["items"], item) for item in value]
    if isinstance(value, dict):
        rest = said.get("additionalProperties")
        known = {**dict.fromkeys(value, rest if isinstance(rest, Mapping) else {}), **said.get("properties", {})}
        return {name: _as_said(known[name], item) for name, item in value.items()}
    return value


def _surely(said: Mapping[str, Any], value: Any) -> bool:
    """Whether a value is right beyond doubt: jsonschema, which takes long to load, is asked about the others."""
    kind = said.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    wanted = tuple(each for name in kinds if name in _KINDS for each in _flat(_KINDS[name]))
    if not isinstance(value, wanted) or (isinstance(value, bool) and "boolean" not in kinds):
        return False
    rest = said.keys() - _ANNOTATIONS - {"type"}
    if rest == {"enum"}:
        return any(type(value) is type(each) and value == each for each in said["enum"])
    if rest == {"items"}:
        return all(_surely(said["items"], item) for item in value) if isinstance(value, list) else True
    return not rest


def _flat(kind: Any) -> tuple[Any, ...]:
    return kind if isinstance(kind, tuple) else (kind,)


def _judged(said: Mapping[str, Any], value: Any, path: str) -> list[FieldViolation]:
    import jsonschema

    validator = jsonschema.Draft202012Validator(said, format_checker=jsonschema.FormatChecker())
    found = []
    for error in validator.iter_errors(value):
        at = ".".join(str(part) for part in (path, *error.absolute_path))
        rule = f"{error.validator} {brief(error.validator_value)}"
        found.append(FieldViolation(at, f"{brief(error.instance)} does not keep to {rule}", brief(error.instance)))
    return found


def _unknown(name: str, known: Mapping[str, Any], path: str) -> FieldViolation:
    import difflib

    close = difflib.get_close_matches(name[:80], list(known), 1)
    hint = f": did you mean {close[0]!r}?" if close else f": it has {', '.join(known) or 'none'}"
    return FieldViolation(path, f"is no parameter of this pipeline{hint}", reason="UNKNOWN_PARAM")
