"""Gives back the environment that it sees."""

import json
import os
from collections.abc import Mapping
from typing import Any


def run(_: Mapping[str, Any]) -> dict[str, str]:
    return {"environment": json.dumps(dict(os.environ))}
