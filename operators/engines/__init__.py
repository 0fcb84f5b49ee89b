"""Where jobs run: one port (`base`), one adapter a file, one registry.  Never knows what a job is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from api.config import load
from operators.engines.base import Engine
from operators.engines.kubernetes import KubernetesEngine
from operators.engines.local import LocalEngine
from operators.engines.ray import RayEngine
from operators.engines.spark import SparkEngine

ENGINES: Mapping[str, Callable[[Path], Engine]] = {
    "kubernetes_job": KubernetesEngine,
    "local": LocalEngine,
    "ray": RayEngine,
    "spark": SparkEngine,
}


def engine(name: str) -> Engine:
    """Return an engine by its name.  Raises ValueError that lists the names."""
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}: use {', '.join(sorted(ENGINES))}")
    return ENGINES[name](load().jobs_path)
