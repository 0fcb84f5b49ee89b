"""Prints the graph of a pipeline as one line of JSON: how tools that import no user code get it.

    python -m operators.authoring.trace MODULE FUNCTION

Ends with 0 and the graph, or with 2 and {"faults": [{"path", "reason", "message", "file", "line"}]}.  What the user's
code prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from operators.authoring.errors import PipelineError
from operators.authoring.execute import load
from operators.authoring.loading import in_module
from operators.authoring.sources import users_own
from operators.errors import UserError

REFUSED = 2


def traced(module: str, function: str) -> dict[str, Any]:
    """Return the graph as JSON.  Raises what the user's code raises, PipelineError for a task that cannot be found."""
    found = in_module(module, function)
    traced = found.trace()
    for name, task in traced.tasks.items():
        if not _is_found(name, task.function):
            told = f"task {task.label!r} cannot be found again as {name}: define it at the top level of a module"
            raise PipelineError(told, reason="BAD_TASK", field="steps", source=_place(task.function))
    return traced.graph.to_json()


def faults_of(error: BaseException) -> list[dict[str, Any]]:
    """Return what was wrong, with the place in the user's code."""
    if isinstance(error, PipelineError):
        told = [(fault.field, fault.reason or error.reason, fault.description) for fault in error.violations]
        return [
            {"path": path, "reason": reason, "message": message, **error.source}
            for path, reason, message in told or [("", error.reason, str(error))]
        ]
    place: dict[str, Any] = {"file": "", "line": 0}
    frame = users_own(error.__traceback__)
    while frame is not None:
        place = {"file": os.path.basename(frame.tb_frame.f_code.co_filename), "line": frame.tb_lineno}
        frame = frame.tb_next
    if isinstance(error, SyntaxError):
        place = {"file": os.path.basename(error.filename or ""), "line": error.lineno or 0}
    message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return [{"path": "", "reason": "BAD_CODE", "message": message, **place}]


def main(module: str, function: str) -> int:
    """Print the graph, or the faults."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            printed, code = traced(module, function), 0
    except (Exception, SystemExit) as error:
        printed, code = {"faults": faults_of(error)}, REFUSED
    print(json.dumps(printed, allow_nan=False))
    return code


def _is_found(name: str, function: Any) -> bool:
    try:
        return load(name) is function
    except UserError:
        return False


def _place(function: Any) -> dict[str, Any]:
    code = function.__code__
    return {"file": os.path.basename(code.co_filename), "line": code.co_firstlineno}


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    sys.exit(main(*sys.argv[1:3]))
