"""Notes that it ran, prints, and gives its arguments back; with `error` it fails."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operators.errors import UserError


def run(args: Mapping[str, Any]) -> dict[str, str]:
    with Path(args["ran"]).open("a") as file:
        file.write("ran\n")
    print(args.get("print", "hello") * args.get("times", 1), flush=True)
    if args.get("error") == "user":
        raise UserError("column 'x' is not there")
    if args.get("error") == "system":
        raise OSError("the disk is full")
    return {} if args.get("error") == "none" else {"args": json.dumps(args)}
