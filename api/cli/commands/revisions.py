"""`ma plan`, `ma revision` and `ma pipeline rollback`: before an apply, and back from it."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.commands.resources import Force, Manager, Replace
from api.client import MANAGER

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The project.", envvar="MA_NAMESPACE")]
Form = Annotated[str, typer.Option("--output", "-o", help="table or json.")]


def register(app: typer.Typer) -> None:
    """Add the commands; `pipeline` is a group by now."""
    app.command()(plan)
    revisions = typer.Typer(no_args_is_help=True, help="Pipelines as they were: list them, compare them.")
    revisions.command("list")(show)
    revisions.command()(diff)
    app.add_typer(revisions, name="revision")
    for group in app.registered_groups:
        if group.name == "pipeline" and group.typer_instance is not None:
            group.typer_instance.command()(rollback)


def plan(
    files: Annotated[
        list[str], typer.Option("--filename", "-f", help="A file, a folder, or - for standard input; repeatable.")
    ],
    namespace: Namespace = "",
    form: Form = "table",
    manager: Manager = MANAGER,
    force: Force = False,
    replace: Replace = False,
) -> None:
    """Show what `ma apply` of the same files would change."""
    from api.cli import plans

    raise typer.Exit(plans.plan(files, namespace=namespace, form=form, manager=manager, force=force, replace=replace))


def show(
    pipeline: Annotated[str, typer.Argument(help="The pipeline.")],
    namespace: Namespace = "",
    form: Annotated[str, typer.Option("--output", "-o", help="table, json, yaml or name.")] = "table",
) -> None:
    """Show the revisions of a pipeline, newest first; * is the one it has now."""
    from api.cli import revisions
    from api.cli.commands.runs import project

    revisions.show(pipeline, namespace=project(namespace), form=form)


def diff(
    name: Annotated[str, typer.Argument(metavar="REVISION")],
    other: Annotated[str, typer.Argument(metavar="[OTHER]", help="Compare with this one, not with its parent.")] = "",
    namespace: Namespace = "",
    form: Form = "table",
) -> None:
    """Show what a revision changed."""
    from api.cli import revisions
    from api.cli.commands.runs import project

    revisions.diff(name, other, namespace=project(namespace), form=form)


def rollback(
    name: Annotated[str, typer.Argument(help="The pipeline.")],
    to: Annotated[str, typer.Option("--to", metavar="REVISION", help="Default: the one before.")] = "",
    namespace: Namespace = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; change nothing.")] = False,
) -> None:
    """Apply a pipeline as it was in an older revision."""
    from api.cli import revisions
    from api.cli.commands.runs import project

    revisions.rollback(name, to, namespace=project(namespace), dry_run=dry_run)
