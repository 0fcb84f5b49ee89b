"""The manifest of a pipeline written in Python: module, function, packed code and graph, all checked.  Runs nothing.

`manifest.content` holds a TypedStruct `michelangelo.airflow/Graph` {"graph": JSON text}: text, because the numbers of a
Struct are all floating and 1 and 1.0 are two values to a task.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from api.engine_settings import unconfigured
from api.errors import FieldViolation
from api.graphs import graph_faults
from api.validation import shown

GRAPH_TYPE = "michelangelo.airflow/Graph"
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z", re.ASCII)
FUNCTION = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
TAR = re.compile(r"[a-z0-9]+://.*/code/(?P<namespace>[^/]+)/(?P<digest>[0-9a-f]{64})\.tar\Z", re.DOTALL)
WAY_OUT = "`ma pipeline apply -f` fills it in"


@dataclass(frozen=True)
class Authored:
    """`code`: SHA-256 of the packed files; `namespace`: whose they are."""

    graph: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    namespace: str = ""


def read(manifest: Any, kind: str, value: Mapping[str, Any], path: str) -> tuple[Authored, list[FieldViolation]]:
    """Return what a manifest says and its faults.  kind, value: of its content."""
    found = list(_names(manifest, path))
    tar = TAR.match(manifest.uniflow_tar)
    if tar is None:
        told = f"must be a URI that ends with /code/PROJECT/SHA256.tar: {WAY_OUT}"
        found.append(FieldViolation(f"{path}.uniflow_tar", told, shown(manifest.uniflow_tar)))
    graph = _json(value.get("graph")) if kind == GRAPH_TYPE else None
    if graph is None:
        told = f"must be a TypedStruct of {GRAPH_TYPE} with the JSON text of a graph: {WAY_OUT}"
        found.append(FieldViolation(f"{path}.content", told, shown(kind)))
        return Authored(), found
    faults = graph_faults(graph, f"{path}.content.graph")
    faults = faults or list(_engines(graph, f"{path}.content.graph"))
    made = Authored(graph, tar["digest"] if tar else "", tar["namespace"] if tar else "")
    return made, [*found, *faults]


def _names(manifest: Any, path: str) -> Iterator[FieldViolation]:
    if not MODULE.match(manifest.file_path):
        told = "names the Python module of the pipeline, for example flow or flows.train"
        yield FieldViolation(f"{path}.file_path", told, shown(manifest.file_path))
    if not FUNCTION.match(manifest.uniflow_function):
        told = "names the function with @pipeline in the module"
        yield FieldViolation(f"{path}.uniflow_function", told, shown(manifest.uniflow_function))


def _json(text: Any) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _engines(graph: Mapping[str, Any], path: str) -> Iterator[FieldViolation]:
    for position, step in enumerate(graph["steps"]):
        engine = step.get("engine", "local")
        if told := unconfigured(engine):
            yield FieldViolation(f"{path}.steps[{position}].engine", told, engine, "ENGINE_NOT_CONFIGURED")


def schemas(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of each parameter of a graph; each stands alone."""
    whole = graph.get("params") or {}
    shared = {name: whole[name] for name in ("$defs", "definitions") if name in whole}
    return {name: {**given, **shared} for name, given in whole.get("properties", {}).items()}
