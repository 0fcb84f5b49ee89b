"""Hooks of schemathesis.  Loaded by its command, not by pytest.

A watch would never end, so none is sent; and what is about a project is about one that exists, and goes on to.
"""

import re
from typing import Any

import schemathesis

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?\Z")
PROJECT = "example"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Ask for lists where a watch was meant, in a project that exists where any would do, and never delete that one."""
    if isinstance(case.query, dict):
        case.query.pop("watch", None)
    if isinstance(case.path_parameters, dict) and NAME.match(str(case.path_parameters.get("namespace", ""))):
        case.path_parameters["namespace"] = PROJECT
    if case.method.upper() == "DELETE" and "/projects" in case.path:
        case.query = {**(case.query or {}), "dryRun": "All"}
