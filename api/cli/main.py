"""The entry point of `ma`: its commands, and the one place where errors become lines and exit codes.

Imports nothing heavy: `ma --help` must answer at once.  What a command needs is imported by its body.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from api.cli import exits
from api.cli.commands import (
    audit,
    auth,
    backup,
    events,
    kubeconfig,
    platform,
    predict,
    resources,
    revisions,
    runs,
    tokens,
    triggers,
)
from api.cli.usage import readable

app = typer.Typer(
    name="ma",
    help="Michelangelo on Airflow: declare pipelines, models and deployments; Airflow does the work.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
for module in (
    platform,
    resources,
    runs,
    triggers,
    revisions,
    events,
    predict,
    auth,
    tokens,
    kubeconfig,
    audit,
    backup,
):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(f"ma {importlib.metadata.version('michelangelo-airflow')}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the stack of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["MA_DEBUG"] = "1"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ma` and return its exit code."""
    from api.cli import failures

    _plain_output()
    try:
        command = readable(typer.main.get_command(app))
        result = command(args=None if arguments is None else list(arguments), standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else exits.OK
    except BaseException as error:
        return failures.report(error)


def _plain_output() -> None:
    """What a terminal cannot show is replaced instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
