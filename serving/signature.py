"""What a caller has to send, from `signature.json`: reads the inputs of a request or names every fault in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from api.errors import FieldViolation, InvalidArgument, ResourceExhausted
from operators.features.graph import DTYPES
from serving import instants
from serving.join import Array, array
from serving.oip import Tensor
from serving.online_store import Value

MOST_ROWS = 10_000
MOST_NAMED = 10
INT64_LEAST, INT64_MOST = -(2**63), 2**63 - 1
FLOAT32_MOST = 3.4028234663852886e38

INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
FLOATS = ("FP64", "FP32", "FP16")
ACCEPTED: Mapping[str, tuple[str, ...]] = {
    "string": ("BYTES",),
    "double": (*FLOATS, *INTEGERS),
    "long": INTEGERS,
    "bool": ("BOOL",),
    "timestamp": ("BYTES", "INT64"),
}
DATATYPES = {"string": "BYTES", "double": "FP64", "long": "INT64", "bool": "BOOL", "timestamp": "BYTES"}
EXPECTED = {
    **DATATYPES,
    "double": "FP64 or another number type",
    "long": "INT64 or another integer type",
    "timestamp": "BYTES or INT64",
}
TYPES: Mapping[str, frozenset[type]] = {
    "BYTES": frozenset({str}),
    "BOOL": frozenset({bool}),
    **dict.fromkeys(FLOATS, frozenset({int, float})),
    **dict.fromkeys(INTEGERS, frozenset({int})),
}
NOTHING = type(None)


@dataclass(frozen=True)
class Expected:
    """One request input."""

    name: str
    dtype: str
    required: bool


class Rows(NamedTuple):
    """Inputs of a request: `values` by input, None for what is missing; `columns` the same as a graph reads them."""

    size: int
    values: dict[str, Sequence[Value]]
    columns: dict[str, Array]


class Signature:
    """Inputs and output of a model.  Raises KeyError, TypeError or ValueError if the document is malformed."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.inputs = tuple(
            Expected(str(item["name"]), str(item["dtype"]), bool(item["required"])) for item in document["inputs"]
        )
        unknown = sorted({item.dtype for item in self.inputs} - set(DTYPES))
        if unknown:
            raise ValueError(f"dtype {', '.join(unknown)} of an input is not known")
        (output,) = document["outputs"]
        self.output = str(output["name"])
        self._by_name = {item.name: item for item in self.inputs}

    def read(self, tensors: Sequence[Tensor]) -> Rows:
        """Return the rows.  Raises InvalidArgument with every fault, ResourceExhausted for too many rows."""
        faults: list[FieldViolation] = []
        given: dict[str, Tensor] = {}
        for tensor in tensors:
            if tensor.name not in self._by_name:
                faults.append(self._unknown(tensor.name))
            elif tensor.name in given:
                faults.append(_fault("DUPLICATE_INPUT", tensor.name, "is given more than once"))
            else:
                given[tensor.name] = tensor
        count = self._count(given, faults)
        values: dict[str, Sequence[Value]] = {}
        columns: dict[str, Array] = {}
        for item in self.inputs:
            found = given.get(item.name)
            read = _absent(item, count, faults) if found is None else _read(item, found, faults)
            if not faults:
                values[item.name] = read
                columns[item.name] = array(read, item.dtype)
        if faults:
            raise invalid(faults)
        return Rows(count, values, columns)

    def _unknown(self, name: str) -> FieldViolation:
        known = ", ".join(self._by_name)
        return _fault("UNKNOWN_INPUT", name[:64], f"is no input of this model; it has {known}")

    def _count(self, given: Mapping[str, Tensor], faults: list[FieldViolation]) -> int:
        """Return the number of rows, after judging every shape."""
        counts: dict[str, int] = {}
        for name, tensor in given.items():
            shape = tensor.shape
            if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)) or shape[0] < 0:
                faults.append(_fault("WRONG_SHAPE", name, f"expected shape [rows] or [rows, 1], got {shape[:8]}"))
            elif shape[0] != len(tensor.data):
                text = f"shape {shape} says {shape[0]} values, data has {len(tensor.data)}"
                faults.append(_fault("WRONG_SHAPE", name, text))
            else:
                counts[name] = shape[0]
        count = max(counts.values(), default=1)
        if count > MOST_ROWS:
            text = f"a request has at most {MOST_ROWS:,} rows, this one has {count:,}: send it in parts"
            error = ResourceExhausted(text, reason="TOO_MANY_ROWS", violations=[FieldViolation("inputs", text)])
            error.http = 413
            raise error
        for name, rows in counts.items():
            if rows != count:
                faults.append(_fault("WRONG_SHAPE", name, f"has {rows} rows, another input has {count}"))
        return count


def _absent(item: Expected, count: int, faults: list[FieldViolation]) -> Sequence[Value]:
    if item.required:
        faults.append(_fault("MISSING_INPUT", item.name, f"is missing; expected {DATATYPES[item.dtype]}"))
    return [None] * count


def _read(item: Expected, tensor: Tensor, faults: list[FieldViolation]) -> Sequence[Value]:
    """Return the values of one input; what is wrong with them goes to `faults`."""
    data = tensor.data
    if len(tensor.shape) == 2:
        data = [cell[0] if type(cell) is list and len(cell) == 1 else cell for cell in data]
    types = set(map(type, data))
    if NOTHING in types:
        types.discard(NOTHING)
        if item.required:
            faults += _named("NULL_VALUE", item, data, _null)
        if not types:
            return data
    if tensor.datatype not in ACCEPTED[item.dtype]:
        text = f"expected {EXPECTED[item.dtype]}, got {tensor.datatype[:32]!r}"
        faults.append(_fault("WRONG_DATATYPE", item.name, text))
        return data
    if not types <= TYPES[tensor.datatype]:
        faults += _named("WRONG_TYPE", item, data, _Mistyped(tensor.datatype))
        return data
    if item.dtype == "timestamp":
        return _instants(item, data, faults)
    if item.dtype in ("double", "long") and types:
        present = data if None not in data else [value for value in data if value is not None]
        if not (min(present) >= -FLOAT32_MOST and max(present) <= FLOAT32_MOST):
            faults += _named("NON_FINITE", item, data, _infinite)
        elif item.dtype == "long" and not (min(present) >= INT64_LEAST and max(present) <= INT64_MOST):
            faults += _named("OUT_OF_RANGE", item, data, _huge)
    return data


def _instants(item: Expected, data: Sequence[Any], faults: list[FieldViolation]) -> Sequence[Value]:
    def wrong(value: Any) -> str:
        try:
            _instant(value)
        except ValueError as error:
            return str(error)
        return ""

    try:
        return [_instant(value) for value in data]
    except ValueError:
        faults += _named("BAD_TIMESTAMP", item, data, wrong)
        return data


def _instant(value: str | int | None) -> int | None:
    if value is None:
        return None
    return instants.parse(value) if isinstance(value, str) else instants.checked(value)


def _null(value: Any) -> str:
    return "is null and the input is required" if value is None else ""


def _infinite(value: Any) -> str:
    fine = value is None or -FLOAT32_MOST <= value <= FLOAT32_MOST
    return "" if fine else "expected a finite number of 32 bits, got one that is not"


def _huge(value: Any) -> str:
    fine = value is None or INT64_LEAST <= value <= INT64_MOST
    return "" if fine else "expected a whole number of 64 bits, got a larger one"


class _Mistyped:
    def __init__(self, datatype: str) -> None:
        self._datatype = datatype

    def __call__(self, value: Any) -> str:
        if value is None or type(value) in TYPES[self._datatype]:
            return ""
        return f"expected a value of {self._datatype}, got {JSON_NAMES.get(type(value), 'something else')}"


JSON_NAMES = {
    str: "text",
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def _named(reason: str, item: Expected, data: Sequence[Any], wrong: Any) -> list[FieldViolation]:
    """Return a fault for each of the first wrong rows, and how many more there are."""
    every = [(row, text) for row, value in enumerate(data) if (text := wrong(value))]
    found = [
        FieldViolation(f"inputs.{item.name}[{row}]", f"row {row}: {text}", reason=reason)
        for row, text in every[:MOST_NAMED]
    ]
    if len(every) > MOST_NAMED:
        found.append(_fault(reason, item.name, f"and {len(every) - MOST_NAMED:,} more rows"))
    return found


def _fault(reason: str, name: str, text: str) -> FieldViolation:
    return FieldViolation(f"inputs.{name}", text, reason=reason)


def invalid(faults: Sequence[FieldViolation]) -> InvalidArgument:
    """Return the refusal of a request: its reason is the one of its faults, or INVALID_REQUEST if they differ."""
    reasons = {fault.reason for fault in faults}
    described = "; ".join(f"{fault.field}: {fault.description}" for fault in faults[:MOST_NAMED])
    more = f"; and {len(faults) - MOST_NAMED} more faults" if len(faults) > MOST_NAMED else ""
    reason = reasons.pop() if len(reasons) == 1 else "INVALID_REQUEST"
    return InvalidArgument(described + more, reason=reason, violations=faults)
