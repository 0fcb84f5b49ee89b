"""The `environment=` of a task: what was written, in the form of the graph; and how far this process is from it.

A requirements file is read where the task is declared, beside the task's own file; the graph holds what it says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from api.environments import canonical, environment_faults, lines, versions
from operators.authoring.errors import PipelineError

FILES = (".txt", ".in", ".lock")


def declared(environment: Any, function: Callable[..., Any], engine: str) -> Any:
    """Return an environment as the graph has it; what is none is returned as it is, to be refused with all else.

    Raises PipelineError for a requirements file that cannot be read.
    """
    if isinstance(environment, str):
        environment = _of_file(environment, function) if _is_file(environment) else {"named": environment}
    elif isinstance(environment, list | tuple):
        environment = {"requirements": list(environment)}
    return environment if any(True for _ in environment_faults(environment, engine=engine)) else _canonical(environment)


def _canonical(environment: Any) -> Any:
    return None if environment is None else canonical(environment)


def _is_file(text: str) -> bool:
    return text.endswith(FILES) or "/" in text or os.sep in text


def _of_file(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    code = getattr(function, "__code__", None)
    path = os.path.join(os.path.dirname(code.co_filename if code else ""), name)
    try:
        with open(path, encoding="utf-8") as file:
            return {"requirements": lines(file.read())}
    except (OSError, UnicodeDecodeError) as error:
        told = f"environment names the file {name!r}, which cannot be read: {getattr(error, 'strerror', None) or error}"
        raise PipelineError(told, reason="NO_REQUIREMENTS_FILE", field="environment") from None


def differences(environment: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield in what this process is not what a step asks for; nothing for a step without an environment."""
    if not environment:
        return
    from importlib import metadata

    for name in ("named", "image"):
        if name in environment:
            yield f"not in the environment {environment[name]!r}"
    for name, version in versions(environment).items():
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield f"without {name} {version}"
            continue
        if here != version:
            yield f"with {name} {here}, not {version}"
