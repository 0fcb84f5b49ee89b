"""One model that may answer: verified, checked against its own golden rows, warm.  Never answers before that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.features.artifact import Artifact, ArtifactError, load
from operators.features.graph import Category, Graph
from operators.features.scorer import Scorer
from serving import instants
from serving.join import Array, FeatureJoin, array
from serving.log import Schema
from serving.online_store import OnlineStore
from serving.signature import Signature

EVENT_TIMESTAMP = "event_timestamp"
WARM_UP_CALLS = 5
SHOWN = 3


class BadModelOutput(Exception):
    """The model answered with something that is no probability for each row."""


class Model:
    """Answers for one revision of a deployment."""

    def __init__(self, artifact: Artifact, store: OnlineStore) -> None:
        self._scorer = Scorer(artifact)
        self.graph: Graph = self._scorer.graph
        try:
            self.signature = Signature(artifact.document("signature.json"))
            self.join = FeatureJoin(artifact.document("features.json"), store)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError("MALFORMED_ARTIFACT", f"signature.json or features.json: {error!r}") from error
        _complete(self.graph, self.signature, self.join)
        self.reads_event_timestamp = any(item.name == EVENT_TIMESTAMP for item in self.graph.inputs) and (
            EVENT_TIMESTAMP not in {item.name for item in self.signature.inputs}
        )
        self.categories = {
            node.input: frozenset(("", *node.categories)) for node in self.graph.nodes if isinstance(node, Category)
        }
        inputs = [(item.name, item.dtype) for item in self.signature.inputs]
        self.schema = Schema(inputs, self.join.features, self.signature.output)

    def score(self, columns: Mapping[str, Array], count: int) -> list[float]:
        """Return the output of each row.  Raises BadModelOutput."""
        if not count:
            return []
        scores = self._scorer.predict(columns)
        if scores.shape != (count,):
            raise BadModelOutput(f"the model answered with shape {scores.shape} for {count} rows")
        found: list[float] = scores.tolist()
        for value in found:
            if not 0.0 <= value <= 1.0:
                raise BadModelOutput("the model answered with something that is no probability")
        return found


def open_model(uri: str, store: OnlineStore) -> Model:
    """Load, verify, check and warm the model at `uri`.  Raises ArtifactError with the reason it may not serve."""
    artifact = load(uri)
    model = Model(artifact, store)
    _check_golden(model, artifact.document("golden.json"))
    return model


def _complete(graph: Graph, signature: Signature, join: FeatureJoin) -> None:
    sent = {item.name for item in signature.inputs} | {EVENT_TIMESTAMP}
    joined = {name for name, _ in join.features}
    absent = [item.name for item in graph.inputs if item.name not in (joined if item.source == "feature" else sent)]
    absent += [name for view in join.views for name in view.key_inputs if name not in sent]
    if absent:
        text = f"the model reads {', '.join(sorted(set(absent)))}, which nobody gives it"
        raise ArtifactError("MALFORMED_ARTIFACT", text)


def _check_golden(model: Model, golden: Mapping[str, Any]) -> None:
    """Compare the answers to held-out rows with those of the trained model, then warm up on the first row."""
    try:
        columns = {item.name: _golden_column(golden["columns"][item.name], item.dtype) for item in model.graph.inputs}
        expected = np.asarray(golden["expected"], np.float64)
        tolerance = float(golden["tolerance"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError("MALFORMED_ARTIFACT", f"golden.json: {error!r}") from error
    if not len(expected) or {len(column) for column in columns.values()} != {len(expected)}:
        raise ArtifactError("MALFORMED_ARTIFACT", "golden.json has no rows, or columns of different length")
    try:
        found = np.asarray(model.score(columns, len(expected)))
    except BadModelOutput as error:
        raise ArtifactError("BAD_MODEL_OUTPUT", str(error)) from error
    _compare(found, expected, tolerance)
    first = {name: column[:1] for name, column in columns.items()}
    for _ in range(WARM_UP_CALLS):
        model.score(first, 1)


def _golden_column(values: list[Any], dtype: str) -> Array:
    if dtype == "timestamp":
        values = [instants.parse(value) if isinstance(value, str) else value for value in values]
    return array(values, dtype)


def _compare(found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], tolerance: float) -> None:
    wrong = np.flatnonzero(~(np.abs(found - expected) <= tolerance))
    if len(wrong):
        shown = ", ".join(f"row {row}: {found[row]:.6g} instead of {expected[row]:.6g}" for row in wrong[:SHOWN])
        text = f"{len(wrong)} of {len(expected)} golden rows differ by more than {tolerance:g}: {shown}"
        raise ArtifactError("GOLDEN_MISMATCH", text)
