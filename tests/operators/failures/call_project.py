"""Calls a function of the user's project, as the platform's own programs do."""

import importlib
from collections.abc import Mapping
from typing import Any


def run(args: Mapping[str, Any]) -> dict[str, str]:
    print(f"calls {args['module']}.{args['function']}")
    found = getattr(importlib.import_module(args["module"]), args["function"])(**args.get("with", {}))
    return {"found": str(found)}
