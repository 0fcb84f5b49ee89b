"""`ma kubeconfig`: lets kubectl in."""

from __future__ import annotations

from typing import Annotated

import typer

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The project that kubectl works in.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(kubeconfig)


def kubeconfig(namespace: Namespace = "") -> None:
    """Print what kubectl needs, with the token: keep it in a file of your own."""
    from api.cli import kubeconfig as work

    work.show(namespace)
