"""Gives back the version of a module, and where its Python is."""

import importlib
import sys
from collections.abc import Mapping
from typing import Any


def run(args: Mapping[str, Any]) -> dict[str, str]:
    found = importlib.import_module(args["module"])
    return {"version": str(getattr(found, "VERSION", "") or found.__version__), "prefix": sys.prefix}
