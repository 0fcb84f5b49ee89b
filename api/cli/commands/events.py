"""`ma event`: saying that something happened."""

from __future__ import annotations

from typing import Annotated

import typer

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The project.", envvar="MA_NAMESPACE")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    events = typer.Typer(no_args_is_help=True, help="Say what happened; subscriptions begin runs for it.")
    events.callback()(group)
    events.command("publish")(publish)
    app.add_typer(events, name="event")


def group() -> None:
    """Say what happened; subscriptions begin runs for it."""


def publish(
    name: Annotated[str, typer.Argument(help="What happened, for example orders.loaded.")],
    namespace: Namespace = "",
    data: Annotated[str, typer.Option("--data", "-d", help="JSON; @FILE, or @- for standard input.")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of the data; repeatable.")
    ] = None,
    key: Annotated[str, typer.Option("--key", "-k", help="Published again with it, it is the same event.")] = "",
    source: Annotated[str, typer.Option("--source", help="Who says so; by default who calls.")] = "",
    subject: Annotated[str, typer.Option("--subject", help="What it happened to.")] = "",
    keep: Annotated[
        str, typer.Option("--keep", help="How long it is kept, for example 12h or 30d; 7d by default.")
    ] = "",
) -> None:
    """Publish an event and print its name."""
    from api.cli import events
    from api.cli.commands.runs import project

    events.publish(
        name,
        namespace=project(namespace),
        data=data,
        settings=settings or [],
        key=key,
        source=source,
        subject=subject,
        keep=keep,
    )
