"""`ma pipeline test`: gives the terminal to a process that runs the user's code.  Imports none of it here."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

PROGRAM = "operators.authoring.try_out"


def try_out(
    target: Annotated[str, typer.Argument(help="FILE, FILE:function or module:function.")] = "pipeline.py",
    settings: Annotated[
        list[str] | None, typer.Option("--param", "-p", "--set", metavar="NAME=VALUE", help="A parameter; repeatable.")
    ] = None,
    values: Annotated[str, typer.Option("--values", metavar="URL", help="Keep the steps' outputs there.")] = "",
) -> None:
    """Run a pipeline in Python here, without a platform; breakpoints work."""
    given = [word for setting in settings or [] for word in ("-p", setting)]
    kept = ["--values", values] if values else []
    # A user's code gets neither the platform's token nor the memory of a process that had it.
    environ = {name: value for name, value in os.environ.items() if name != "MA_TOKEN"}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", PROGRAM, *given, *kept, "--", target], environ)  # noqa: S606
