"""`ma token`: tokens of users and services, given out once and kept as hashes."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    tokens = typer.Typer(no_args_is_help=True, help="Give tokens to people and programs, and take them back.")
    tokens.command("create")(create)
    tokens.command("list")(show)
    tokens.command("revoke")(revoke)
    tokens.command("print")(own)
    app.add_typer(tokens, name="token")


def create(
    name: Annotated[str, typer.Argument(help="Who it is for: a user, or a service with --service.")],
    groups: Annotated[list[str] | None, typer.Option("--group", "-g", help="A group; repeatable.")] = None,
    service: Annotated[bool, typer.Option("--service", help="It is for a program.")] = False,
    days: Annotated[int, typer.Option("--days", min=0, help="How long it works; 0 for ever.")] = 90,
) -> None:
    """Make a token and print it, once.  The server takes it within a second."""
    from api.cli import tokens

    tokens.create(name, groups=groups or [], service=service, days=days)


def show() -> None:
    """Show whose tokens there are."""
    from api.cli import tokens

    tokens.show()


def revoke(
    which: Annotated[str, typer.Argument(metavar="NAME|ID", help="All tokens of a name, or the one of an id.")],
) -> None:
    """Take tokens back.  The server refuses them within a second."""
    from api.cli import tokens

    tokens.revoke(which)


def own(
    public_client: Annotated[
        bool, typer.Option("--public-client", help="As the file ~/.ma/config.toml of Michelangelo's own client.")
    ] = False,
) -> None:
    """Print the token that `ma` itself sends."""
    from api.cli import tokens

    tokens.own(public_client=public_client)
