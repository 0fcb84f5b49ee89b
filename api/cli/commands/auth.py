"""`ma auth`: who calls, and who may do what."""

from __future__ import annotations

from typing import Annotated

import typer

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The project.", envvar="MA_NAMESPACE")]
Verb = Annotated[str, typer.Argument(help="get, list, watch, create, update, delete, kill ...")]
KindName = Annotated[str, typer.Argument(metavar="KIND", help="pipelines, pipeline_run, pr ...")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    auth = typer.Typer(no_args_is_help=True, help="Tell who calls, and who may do what.")
    for command in (whoami, can_i, who_can):
        auth.command()(command)
    app.add_typer(auth, name="auth")


def whoami() -> None:
    """Show who the token of this command is."""
    from api.cli import auth

    auth.whoami()


def can_i(verb: Verb, kind: KindName, namespace: Namespace = "") -> None:
    """Say yes or no, and which role it takes; the exit code says it too."""
    from api.cli import auth

    raise typer.Exit(auth.can_i(verb, kind, namespace=namespace))


def who_can(verb: Verb, kind: KindName, namespace: Namespace = "") -> None:
    """Show who may; for administrators of the project."""
    from api.cli import auth

    auth.who_can(verb, kind, namespace=namespace)
