"""A model in its served form: transformation graph and ONNX Runtime session.  Online, batch and MLflow use this one.

Never unpickles: a session is made of the bytes that the artifact verified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from operators.features.artifact import Artifact, ArtifactError, load
from operators.features.graph import MISSING, Columns, Graph, Matrix

if TYPE_CHECKING:
    import pandas as pd

Scores = npt.NDArray[np.float32]


class Scorer:
    """Answers for one artifact.

    threads: of one call; 1 online, where calls are short and many.
    Raises ArtifactError if the graph or the model cannot be read.
    """

    def __init__(self, artifact: Artifact, *, threads: int = 1) -> None:
        try:
            self.graph = Graph.from_json(artifact.files["graph.json"].decode())
        except ValueError as error:
            raise ArtifactError("MALFORMED_ARTIFACT", str(error)) from error
        self._model = OnnxModel(artifact.files["model.onnx"], threads=threads)
        if self._model.width not in (None, len(self.graph.names)):
            text = f"the model reads {self._model.width} columns, its graph gives {len(self.graph.names)}"
            raise ArtifactError("MALFORMED_ARTIFACT", text)

    def predict(self, columns: Columns) -> Scores:
        """Return the probability of each row, float32 [n], from one array for each of the graph's inputs."""
        return self._model.run(self.graph.transform(columns))


class OnnxModel:
    """A classifier in ONNX: float32 [n, width] to the probability of its last class."""

    def __init__(self, content: bytes, *, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            (given,) = self._session.get_inputs()
        except Exception as error:  # onnxruntime's errors share no base of their own
            reason = str(error).splitlines()[0][:200]
            raise ArtifactError("MALFORMED_ARTIFACT", f"model.onnx cannot be loaded: {reason}") from error
        self._input = given.name
        self._output = [self._session.get_outputs()[-1].name]
        width = given.shape[-1] if given.shape else None
        self.width = width if isinstance(width, int) else None

    def run(self, matrix: Matrix) -> Scores:
        """Return float32 [n]."""
        found: Scores = self._session.run(self._output, {self._input: matrix})[0]
        return found[:, -1] if found.ndim == 2 else found


def columns_of(graph: Graph, frame: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a frame that a graph reads: what is missing becomes NaN, "" or `MISSING`."""
    return {item.name: array_of(frame[item.name], item.dtype) for item in graph.inputs}


def array_of(column: Any, dtype: str) -> npt.NDArray[Any]:
    """Return one column of a frame as the array of a graph's dtype."""
    import pandas as pd

    if dtype == "string":
        return column.fillna("").to_numpy(object)  # type: ignore[no-any-return]
    if dtype == "timestamp":
        instants = pd.to_datetime(column, utc=True).astype("datetime64[us, UTC]")
        return instants.astype("int64").where(instants.notna(), MISSING).to_numpy(np.int64)  # type: ignore[no-any-return]
    return column.to_numpy(np.float64, na_value=np.nan)  # type: ignore[no-any-return]


class PythonFunction:
    """What MLflow loads: rows of the graph's inputs to probabilities."""

    def __init__(self, path: str) -> None:
        self._scorer = Scorer(load(path))

    def predict(self, frame: pd.DataFrame, params: Any = None) -> Scores:
        """Return float32 [n]."""
        return self._scorer.predict(columns_of(self._scorer.graph, frame))


def _load_pyfunc(path: str) -> PythonFunction:
    """Entry point of MLflow's loader."""
    return PythonFunction(path)
