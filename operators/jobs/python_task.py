"""Runs one instance of a step of a pipeline written in Python, on an engine.  The code lies in the run's root_dir.

args: run, step (of the graph), inputs (trees by argument).  Returns the reference of what the task returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.config import load
from operators.authoring.execute import execute
from operators.authoring.graph import Step
from operators.values.store import values_at


def run(args: Mapping[str, Any]) -> Mapping[str, str]:
    """Run the step."""
    values = values_at(load().values_url)
    return execute(Step(**args["step"]), args["inputs"], values).output.to_json()
