"""Models in formats that hold no code: ONNX, and LightGBM's own text."""

from __future__ import annotations

import sys
from typing import Any

from operators.values.formats import Format


def formats() -> list[Format]:
    """Return the formats of the libraries that are loaded; reading loads its own."""
    onnx, lightgbm = sys.modules.get("onnx"), sys.modules.get("lightgbm")
    return [
        Format("onnx", onnx.ModelProto if onnx else type(None), _write_onnx, _read_onnx, ".onnx"),
        Format("lightgbm", lightgbm.Booster if lightgbm else type(None), _write_booster, _read_booster, ".txt"),
    ]


def _write_onnx(model: Any) -> bytes:
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _read_onnx(content: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(content)


def _write_booster(model: Any) -> bytes:
    text: str = model.model_to_string(num_iteration=-1)
    return text.encode()


def _read_booster(content: bytes) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=content.decode())
