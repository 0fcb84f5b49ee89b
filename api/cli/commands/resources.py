"""`ma apply`, `get`, `describe` and `delete`: the generic commands, for every kind."""

from __future__ import annotations

from typing import Annotated

import typer

from api.client import MANAGER

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The project.", envvar="MA_NAMESPACE")]
Manager = Annotated[str, typer.Option("--field-manager", help="Who declares the fields.")]
Force = Annotated[bool, typer.Option("--force-conflicts", help="Take over fields that others set otherwise.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Make each spec exactly what its file says, also where nobody declared it.")
]
KindName = Annotated[str, typer.Argument(metavar="KIND", help="pipelines, pipeline_run, pr ...")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (apply, get, describe, delete):
        app.command()(command)


def apply(
    files: Annotated[
        list[str] | None,
        typer.Option("--filename", "-f", help="A file, a folder, or - for standard input; repeatable."),
    ] = None,
    namespace: Namespace = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check at the server; store nothing.")] = False,
    manager: Manager = MANAGER,
    force: Force = False,
    replace: Replace = False,
    plan: Annotated[
        str, typer.Option("--plan", metavar="FILE", help="What `ma plan -o json` wrote: apply that, or nothing.")
    ] = "",
) -> None:
    """Create what YAML files declare, or change it to that; fields of others stay."""
    from api.cli import resources
    from api.cli.exits import USAGE, Failure

    if bool(plan) == bool(files):
        raise Failure("give files with --filename (-f), or a plan with --plan", code=USAGE)
    if plan:
        if dry_run or namespace or force or replace or manager != MANAGER:
            raise Failure("--plan goes alone: a plan says what is applied, where and how", code=USAGE)
        from api.cli import plans

        raise typer.Exit(plans.apply(plan))

    if not manager:
        raise Failure("--field-manager needs a name", code=USAGE)
    raise typer.Exit(
        resources.apply(
            files or [], namespace=namespace, dry_run=dry_run, manager=manager, force=force, replace=replace
        )
    )


def get(
    kind: KindName,
    name: Annotated[str, typer.Argument(help="One object; all of the kind without it.")] = "",
    namespace: Namespace = "",
    selector: Annotated[str, typer.Option("--selector", "-l", help="Labels, for example team=ads,stage!=dev.")] = "",
    form: Annotated[str, typer.Option("--output", "-o", help="table, json, yaml or name.")] = "table",
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most so many; 0 is all.")] = 0,
) -> None:
    """Show objects of a kind."""
    from api.cli import resources

    resources.get(kind, name, namespace=namespace, selector=selector, form=form, limit=limit)


def describe(kind: KindName, name: str, namespace: Namespace = "") -> None:
    """Show everything about one object."""
    from api.cli import resources

    resources.describe(kind, name, namespace=namespace)


def delete(
    kind: KindName,
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    namespace: Namespace = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete objects by name."""
    from api.cli import resources

    raise typer.Exit(resources.delete(kind, names, namespace=namespace, yes=yes))
