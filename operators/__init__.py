"""Lifecycle stages as Airflow operators, what runs on engines for them, and pipelines in Python.  Serves no requests.

from operators import Cache, foreach, loop, matrix, pipeline, publish, register_format, task, when
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from operators.authoring.control import foreach as foreach
    from operators.authoring.control import loop as loop
    from operators.authoring.control import matrix as matrix
    from operators.authoring.control import when as when
    from operators.authoring.decorators import Cache as Cache
    from operators.authoring.decorators import pipeline as pipeline
    from operators.authoring.decorators import task as task
    from operators.events import publish as publish
    from operators.values.formats import register_format as register_format

_PUBLIC = {
    "Cache": "operators.authoring.decorators",
    "foreach": "operators.authoring.control",
    "loop": "operators.authoring.control",
    "matrix": "operators.authoring.control",
    "pipeline": "operators.authoring.decorators",
    "publish": "operators.events",
    "register_format": "operators.values.formats",
    "task": "operators.authoring.decorators",
    "when": "operators.authoring.control",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
