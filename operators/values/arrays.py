"""Arrays and tensors as safetensors: numbers with a shape, and no code."""

from __future__ import annotations

import sys
from typing import Any

from operators.values.formats import Format, ValueRefused

KEY = "value"


def formats() -> list[Format]:
    """Return the formats of the libraries that are loaded; reading loads its own."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    return [
        Format("numpy", numpy.ndarray if numpy else type(None), _write_numpy, _read_numpy, ".safetensors"),
        Format("torch", torch.Tensor if torch else type(None), _write_torch, _read_torch, ".safetensors"),
    ]


def _checked(array: Any) -> Any:
    """Return the array as it is stored: rows one after the other, the low byte first."""
    import numpy

    kinds = "bool, int8 to int64, uint8 to uint64, float16, float32, float64 and complex64"
    if array.dtype.kind not in "biufc" or array.dtype.newbyteorder("=") not in _kinds():
        raise ValueRefused(f"an array of {array.dtype} cannot be passed between steps: use one of {kinds}, or a table")
    return numpy.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)


def _kinds() -> tuple[Any, ...]:
    import numpy

    names = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    return tuple(numpy.dtype(name) for name in (*names, "float16", "float32", "float64", "complex64"))


def _write_numpy(array: Any) -> bytes:
    from safetensors.numpy import save

    content: bytes = save({KEY: _checked(array)})
    return content


def _read_numpy(content: bytes) -> Any:
    from safetensors.numpy import load

    return load(content)[KEY].copy()


def _plain(tensor: Any) -> Any:
    return tensor.detach().cpu().contiguous()


def _write_torch(tensor: Any) -> bytes:
    from safetensors.torch import save

    content: bytes = save({KEY: _plain(tensor)})
    return content


def _read_torch(content: bytes) -> Any:
    from safetensors.torch import load

    return load(content)[KEY]
