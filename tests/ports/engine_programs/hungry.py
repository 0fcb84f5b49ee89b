"""Takes `mib` of memory and holds it."""

import time
from collections.abc import Mapping
from typing import Any


def run(args: Mapping[str, Any]) -> dict[str, str]:
    held = [bytearray(2**20) for _ in range(args["mib"])]
    time.sleep(60)
    return {"mib": str(len(held))}
