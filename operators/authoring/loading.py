"""Finds a pipeline in a user's file or module.  Imports the user's code: never called in a server."""

from __future__ import annotations

import importlib
import os
import sys

from operators.authoring.decorators import Pipeline
from operators.authoring.errors import PipelineError
from operators.errors import UserError


def found(target: str) -> Pipeline:
    """Return the pipeline of FILE, FILE:function, module or module:function.  Raises PipelineError, UserError."""
    place, _, function = target.partition(":")
    if place.endswith(".py") or os.sep in place:
        return in_module(_as_module(place), function)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return in_module(place, function)


def in_module(module: str, function: str = "") -> Pipeline:
    """Return a module's pipeline: the named one, or its only one."""
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise UserError(f"there is no module {module!r} here ({os.getcwd()})") from error
        raise
    pipelines = {name: value for name, value in vars(loaded).items() if isinstance(value, Pipeline)}
    own = {name: value for name, value in pipelines.items() if value.function.__module__ == module}
    if function:
        if function not in pipelines:
            raise _refused(module, f"there is no pipeline {function!r}: it has {', '.join(own) or 'none'}")
        return pipelines[function]
    if len(own) != 1:
        told = (
            f"it has {len(own)} pipelines, {', '.join(own)}: say {module}:{next(iter(own))}" if own else "it has none"
        )
        raise _refused(module, told + ("" if own else ": put @pipeline over a function"))
    return next(iter(own.values()))


def _as_module(file: str) -> str:
    if not os.path.isfile(file):
        raise UserError(f"there is no file {file!r}")
    folder, name = os.path.split(os.path.abspath(file))
    module = name.removesuffix(".py")
    if not module.isidentifier():
        raise UserError(f"{name!r} cannot be imported: name the file with letters, digits and '_'")
    sys.path.insert(0, folder)
    return module


def _refused(module: str, told: str) -> PipelineError:
    file = os.path.basename(getattr(sys.modules[module], "__file__", None) or module)
    return PipelineError(told, reason="NO_PIPELINE", field="pipeline", source={"file": file, "line": 1})
