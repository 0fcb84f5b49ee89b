"""Python's types as JSON Schema, and their values from JSON and back: of parameters, and of arguments of tasks."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Literal, Union

SIMPLE: Mapping[Any, Mapping[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    list: {"type": "array"},
    dict: {"type": "object"},
    Any: {},
}
WAYS_OUT = "use str, int, float, bool, date, datetime, Enum, Literal, Optional, list, dict or a dataclass of these"


class NoSchema(TypeError):
    """A type has no JSON Schema.  The message says which, and what to use."""


def schema_of(hint: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type.  Raises NoSchema."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _annotated(arguments)
    if origin is None and hint in SIMPLE:
        return dict(SIMPLE[hint])
    if origin is Literal:
        return _choice(list(arguments))
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        if arguments[0] is not str:
            raise NoSchema(f"{_named(hint)} has keys that are no texts: use dict[str, …]")
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return _choice([member.value for member in hint])
    if dataclasses.is_dataclass(hint):
        return object_of(fields_of(hint))
    raise NoSchema(f"{_named(hint)} has no form in JSON: {WAYS_OUT}")


def object_of(fields: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Return the schema of an object with (type, default) by name; a default of `...` is none."""
    properties: dict[str, Any] = {}
    for name, (hint, default) in fields.items():
        try:
            properties[name] = schema_of(hint)
        except NoSchema as error:
            raise NoSchema(f"{name}: {error}") from error
        if default is not ...:
            properties[name]["default"] = plain(default)
    required = [name for name, (_, default) in fields.items() if default is ...]
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def fields_of(kind: Any) -> dict[str, tuple[Any, Any]]:
    """Return (type, default) of each field of a dataclass; a default of `...` is none."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {}
    for field in dataclasses.fields(kind):
        default = field.default if field.default is not dataclasses.MISSING else ...
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found[field.name] = (hints[field.name], default)
    return found


def plain(value: Any) -> Any:
    """Return a value of such a type as JSON.  Raises NoSchema."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, date):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: plain(item) for key, item in value.items()}
    raise NoSchema(f"a {type(value).__name__} has no form in JSON: {WAYS_OUT}")


def converted(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as the function's annotations want them: enums, dataclasses and dates out of JSON."""
    hints = _hints(function)
    return {name: typed(hints[name], value) if name in hints else value for name, value in arguments.items()}


def typed(hint: Any, value: Any) -> Any:
    """Return a JSON value as the type of an annotation; what already is one, or has no such form, stays as it is."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return typed(arguments[0], value)
    if origin in (Union, types.UnionType):
        return next((typed(each, value) for each in arguments if _fits(each, value)), value)
    if origin is list and isinstance(value, list):
        return [typed(arguments[0], item) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: typed(arguments[1], item) for key, item in value.items()}
    if _is_dataset(hint):
        from operators.values.datasets import as_dataset

        return as_dataset(hint, value)
    if not _fits(hint, value):
        return value
    if hint is float and type(value) is int:
        return float(value)
    if not inspect.isclass(hint) or isinstance(value, hint):
        return value
    if issubclass(hint, enum.Enum):
        return hint(value)
    if dataclasses.is_dataclass(hint):
        fields = fields_of(hint)
        return hint(**{name: typed(fields[name][0], item) for name, item in value.items()})
    if hint in (datetime, date):
        return hint.fromisoformat(value)
    return value


def _fits(hint: Any, value: Any) -> bool:
    """Whether a JSON value can be of a type: told by its own type, and for an enum by its members."""
    if inspect.isclass(hint):
        if issubclass(hint, enum.Enum):
            return isinstance(value, hint) or value in [member.value for member in hint]
        if dataclasses.is_dataclass(hint):
            return isinstance(value, hint) or (isinstance(value, dict) and value.keys() <= set(fields_of(hint)))
        if hint in (datetime, date):
            return isinstance(value, hint) or (isinstance(value, str) and _is_moment(hint, value))
        if hint is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        return isinstance(value, hint) and (hint is not int or not isinstance(value, bool))
    kind = typing.get_origin(hint)
    return isinstance(value, kind) if inspect.isclass(kind) else True


def _is_moment(hint: Any, text: str) -> bool:
    try:
        hint.fromisoformat(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        found = typing.get_type_hints(function, include_extras=True)
    except Exception:  # an annotation may name what is imported for type checkers only
        return {}
    return {name: hint for name, hint in found.items() if _may_change(hint)}


def _may_change(hint: Any) -> bool:
    """Whether JSON's value of a type may be another than Python's."""
    arguments = [each for each in typing.get_args(hint) if each is not hint]
    if any(_may_change(each) for each in arguments if inspect.isclass(each) or typing.get_origin(each)):
        return True
    if not inspect.isclass(hint):
        return False
    simple = hint in (float, datetime, date) or issubclass(hint, enum.Enum) or dataclasses.is_dataclass(hint)
    return simple or _is_dataset(hint)


def _is_dataset(hint: Any) -> bool:
    """Whether a type is a data set of Spark or Ray, without loading what knows tables."""
    return inspect.isclass(hint) and hint.__module__.startswith(("pyspark.", "ray.data"))


def _annotated(arguments: tuple[Any, ...]) -> dict[str, Any]:
    found = schema_of(arguments[0])
    for said in arguments[1:]:
        if isinstance(said, str):
            found["description"] = said
        elif isinstance(said, Mapping):
            found.update(said)
        else:
            raise NoSchema(f"Annotated takes a description or a dict of JSON Schema, not {type(said).__name__}")
    return found


def _choice(values: list[Any]) -> dict[str, Any]:
    kinds = {type(value) for value in values}
    if not kinds <= {str, int, float, bool, type(None)}:
        raise NoSchema("a choice must be between texts, numbers, true, false and none")
    names = sorted({SIMPLE[kind]["type"] for kind in kinds})
    return {"type": names[0] if len(names) == 1 else names, "enum": values}


def _union(arguments: tuple[Any, ...]) -> dict[str, Any]:
    rest = [each for each in arguments if each is not type(None)]
    if len(rest) == len(arguments):
        return {"anyOf": [schema_of(each) for each in arguments]}
    found = schema_of(rest[0]) if len(rest) == 1 else {"anyOf": [schema_of(each) for each in rest]}
    if "anyOf" in found:
        return {"anyOf": [*found["anyOf"], {"type": "null"}]}
    kind = found.get("type", [])
    kinds = kind if isinstance(kind, list) else [kind]
    if "null" in kinds or not kinds:
        return found
    choice = {"enum": [*found["enum"], None]} if "enum" in found else {}
    return {**found, "type": [*kinds, "null"], **choice}


def _named(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)
