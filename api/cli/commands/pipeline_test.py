"""`ma pipeline test`: gives the terminal to a process that runs the user's code.  Imports none of it here."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

PROGRAM = "operators.authoring.try_out"
TARGET = "pipeline.py"


def try_out(
    target: Annotated[str, typer.Argument(help="FILE, FILE:function or module:function.")] = TARGET,
    settings: Annotated[
        list[str] | None, typer.Option("--param", "-p", "--set", metavar="NAME=VALUE", help="A parameter; repeatable.")
    ] = None,
    values: Annotated[str, typer.Option("--values", metavar="URL", help="Keep the steps' outputs there.")] = "",
    files: Annotated[
        list[str] | None, typer.Option("--filename", "-f", help="A pipeline's YAML, with others; repeatable.")
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The project.", envvar="MA_NAMESPACE")] = "",
    keep: Annotated[str, typer.Option("--keep", metavar="FOLDER", help="With -f: what stages make stays there.")] = "",
    run_name: Annotated[str, typer.Option("--name", help="With -f: the run's name.")] = "",
) -> None:
    """Run a pipeline here, without a platform; breakpoints work.  With -f, TARGET is a pipeline of these files."""
    if files:
        from api.cli import local_test

        code = local_test.run(
            files,
            "" if target == TARGET else target,
            namespace=namespace,
            settings=settings or [],
            keep=keep,
            run_name=run_name,
        )
        raise typer.Exit(code)
    given = [word for setting in settings or [] for word in ("-p", setting)]
    kept = ["--values", values] if values else []
    # A user's code gets neither the platform's token nor the memory of a process that had it.
    environ = {name: value for name, value in os.environ.items() if name != "MA_TOKEN"}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", PROGRAM, *given, *kept, "--", target], environ)  # noqa: S606
