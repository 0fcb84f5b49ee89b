"""`ma pipeline apply` and `dev-run`: the commands for pipelines written in Python."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.commands.resources import Force

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The project.", envvar="MA_NAMESPACE")]
Folder = Annotated[str, typer.Option("--code", metavar="FOLDER", help="The Python code; else beside the file.")]


def add(pipeline: typer.Typer) -> None:
    """Add the commands to `ma pipeline`."""
    pipeline.command("apply")(apply)
    pipeline.command("dev-run")(dev_run)


def apply(
    files: Annotated[list[str], typer.Option("--filename", "-f", help="A pipeline's YAML; repeatable.")],
    namespace: Namespace = "",
    folder: Folder = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check at the server; store nothing.")] = False,
    force: Force = False,
) -> None:
    """Apply pipelines; the code of those in Python is packed and traced."""
    from api.cli import authored

    raise typer.Exit(authored.apply(files, namespace=namespace, folder=folder, dry_run=dry_run, force=force))


def dev_run(
    file: Annotated[str, typer.Option("--filename", "-f", help="The pipeline's YAML.")],
    namespace: Namespace = "",
    folder: Folder = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter; repeatable.")
    ] = None,
    run_name: Annotated[str, typer.Option("--name", help="The run's name.")] = "",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the run's name and return.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait; 0 is for ever.")] = 0,
) -> None:
    """Run uncommitted code on the platform without registering a pipeline."""
    from api.cli import authored

    raise typer.Exit(
        authored.dev_run(
            file,
            namespace=namespace,
            folder=folder,
            settings=settings or [],
            run_name=run_name,
            wait=not detach,
            timeout_s=timeout_s,
        )
    )
