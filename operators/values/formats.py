"""Which format holds which type of value.  A library is imported only when a value of it is there.

A format is chosen by the exact type; what has none is refused with the way out, never pickled.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from operators.errors import UserError


class ValueRefused(UserError):
    """A value of this type cannot be stored.  The message says which, where, and what to return instead."""


@dataclass(frozen=True)
class Format:
    """How values of a type are stored.

    name: in references, for ever; suffix: of the file, with the dot; write, read: the value's bytes and back;
    digest: of the logical content of bytes that were written; None for that of the bytes themselves, which must then
    be the same each time.
    """

    name: str
    type: type
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]
    suffix: str = ".bin"
    digest: Callable[[bytes], str] | None = None


# Whose values a module can store, by the first part of the type's module.  Each module has FORMATS and ADVICE.
LIBRARIES = {
    "pandas": "tables",
    "polars": "tables",
    "pyarrow": "tables",
    "pyspark": "datasets",
    "ray": "datasets",
    "numpy": "arrays",
    "torch": "arrays",
    "onnx": "models",
    "lightgbm": "models",
}
NAMES = {
    "pandas": "tables",
    "pandas.series": "tables",
    "polars": "tables",
    "arrow": "tables",
    "numpy": "arrays",
    "torch": "arrays",
    "onnx": "models",
    "lightgbm": "models",
}
ADVICE = {
    "set": "sorted(value): a set has no order",
    "frozenset": "sorted(value): a set has no order",
    "generator": "list(value)",
    "map": "list(value)",
    "range": "list(value)",
    "dict_keys": "list(value)",
    "dict_values": "list(value)",
    "Decimal": "str(value)",
    "Path": "str(value); a file of this machine is not there on another: return its content instead",
    "PosixPath": "str(value); a file of this machine is not there on another: return its content instead",
    "function": "its result: code is no value",
    "module": "what was made with it: a module is no value",
}

_registered: dict[type, Format] = {}
_named: dict[str, Format] = {}


def register_format(
    type_: type,
    *,
    name: str,
    write: Callable[[Any], bytes],
    read: Callable[[bytes], Any],
    suffix: str = ".bin",
    digest: Callable[[bytes], str] | None = None,
) -> Format:
    """Let values of your own type pass between steps, in the module that defines the type.

    write and read: to bytes and back.  write gives the same bytes for the same content; where it cannot, `digest` says
    of bytes what their content is.
    Raises ValueError for a name or type that has another format.
    """
    given = Format(name, type_, write, read, suffix, digest)
    known = _named.get(name)
    if name in NAMES or name == "json" or (known and _qualified(known.type) != _qualified(type_)):
        raise ValueError(f"the format {name!r} is there already: choose another name")
    if type_.__module__ == "builtins":
        raise ValueError(f"{type_.__name__} is Python's own type: register a type of yours")
    # A module that is loaded again brings its types again.
    _registered[type_] = _named[name] = given
    return given


def format_of(value: Any, path: str = "") -> Format:
    """Return the format of a value.  Raises ValueRefused; `path`: where in a larger value it stands."""
    kind = type(value)
    if kind in _registered:
        return _registered[kind]
    module = LIBRARIES.get(kind.__module__.partition(".")[0])
    if kind is bytes:
        return BYTES
    if module:
        for each in _of_library(module):
            if each.type is kind:
                return each
    raise ValueRefused(_refusal(kind, path))


def format_named(name: str) -> Format:
    """Return the format of a reference.  Raises ValueRefused for one that nobody registered here."""
    if name in _named:
        return _named[name]
    if name == BYTES.name:
        return BYTES
    for each in _of_library(NAMES[name]) if name in NAMES else ():
        if each.name == name:
            return each
    raise ValueRefused(
        f"a value has the format {name!r}, which is not known here: import the module that calls "
        "register_format for it, or install the library of that format"
    )


def _of_library(module: str) -> list[Format]:
    found: list[Format] = importlib.import_module(f"operators.values.{module}").formats()
    return found


def _refusal(kind: type, path: str) -> str:
    name = kind.__name__ if kind.__module__ == "builtins" else _qualified(kind)
    at = f" at {path.lstrip('.')}" if path else ""
    advice = _advice(kind)
    return (
        f"a {name}{at} cannot be passed between steps, and nothing is pickled: "
        + (f"return {advice}" if advice else "return plain values, a table, arrays or an ONNX model")
        + ("" if kind.__module__ == "builtins" else ", or give the type a format with operators.register_format")
    )


def _advice(kind: type) -> str:
    import dataclasses
    import enum

    library = kind.__module__.partition(".")[0]
    if dataclasses.is_dataclass(kind):
        return "dataclasses.asdict(value)"
    if issubclass(kind, enum.Enum):
        return "value.value"
    if issubclass(kind, tuple) and hasattr(kind, "_asdict"):
        return "value._asdict()"
    if issubclass(kind, dict | list | str | int | float):
        plain = next(base for base in (dict, list, str, int, float) if issubclass(kind, base))
        return f"{plain.__name__}(value)"
    if library == "sklearn":
        return "skl2onnx.to_onnx(model, rows)"
    if library == "lightgbm":
        return "model.booster_"
    if library in ("pyspark", "ray"):
        return "a DataFrame of Spark, a Dataset of Ray"
    if library == "scipy":
        return "value.toarray()"
    return ADVICE.get(kind.__name__, "")


def _qualified(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


BYTES = Format("bytes", bytes, bytes, bytes)
