"""From a trained LightGBM model to the ONNX that is served.  Not to be believed before `RegisterModel` compared it.

LightGBM compares with float64 thresholds and ONNX with float32: a threshold that is rounded up sends the rows that lie
on it the other way.  Thresholds are therefore rounded down first, which changes no decision on float32 columns.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from operators.errors import UserError

if TYPE_CHECKING:
    import lightgbm

INPUT = "columns"
THRESHOLDS = re.compile(r"^threshold=(.*)$", re.MULTILINE)
SIZES = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)


def to_onnx(booster: lightgbm.Booster) -> bytes:
    """Return the model with one input, float32 [n, width], and one output, probabilities float32 [n, 2]."""
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    width = booster.num_feature()
    try:
        model = onnxmltools.convert_lightgbm(
            rounded_down(booster), initial_types=[(INPUT, FloatTensorType([None, width]))], zipmap=False
        )
    except (RuntimeError, ValueError, KeyError, NotImplementedError, AttributeError) as error:
        raise UserError(f"this model has no ONNX form ({error}): leave out unusual hyperparameters") from error
    kept = [output for output in model.graph.output if output.name == "probabilities"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return bytes(model.SerializeToString())


def rounded_down(booster: lightgbm.Booster) -> lightgbm.Booster:
    """Return the same model with every threshold the largest float32 that is not above it."""
    import lightgbm

    text = THRESHOLDS.sub(lambda found: f"threshold={_floats(found[1])}", booster.model_to_string())
    return lightgbm.Booster(model_str=SIZES.sub("", text))


def _floats(text: str) -> str:
    return " ".join(repr(_floor(float(value))) for value in text.split())


def _floor(value: float) -> float:
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return float(np.nextafter(single, np.float32(-np.inf))) if float(single) > value else float(single)
