"""`ma apply`, `get`, `describe` and `delete`: the generic commands, for every kind."""

from __future__ import annotations

from typing import Annotated

import typer

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The project.", envvar="MA_NAMESPACE")]
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
    server_side: Annotated[
        bool, typer.Option("--server-side", help="Change only fields that the files declare or declared before.")
    ] = False,
    manager: Annotated[str, typer.Option("--field-manager", help="Server-side: who declares them.")] = "ma",
    force: Annotated[
        bool, typer.Option("--force-conflicts", help="Server-side: take over fields of other managers.")
    ] = False,
    plan: Annotated[
        str, typer.Option("--plan", metavar="FILE", help="What `ma plan -o json` wrote: apply that, or nothing.")
    ] = "",
) -> None:
    """Create or update what YAML files declare."""
    from api.cli import resources
    from api.cli.exits import USAGE, Failure

    if bool(plan) == bool(files):
        raise Failure("give files with --filename (-f), or a plan with --plan", code=USAGE)
    if plan:
        if dry_run or server_side or namespace:
            raise Failure("--plan goes alone: a plan says what is applied, and where", code=USAGE)
        from api.cli import plans

        raise typer.Exit(plans.apply(plan))

    if (force or manager != "ma") and not server_side:
        raise Failure("--field-manager and --force-conflicts belong to --server-side", code=USAGE)
    if not manager:
        raise Failure("--field-manager needs a name", code=USAGE)
    who = manager if server_side else ""
    raise typer.Exit(resources.apply(files or [], namespace=namespace, dry_run=dry_run, manager=who, force=force))


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
