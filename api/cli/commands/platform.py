"""`ma up`, `down`, `status` and `demo`: the platform's processes."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(demo)


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is up; `ma down` stops it.")] = False,
    owner: Annotated[str, typer.Option(hidden=True)] = "up",
) -> None:
    """Start the platform and stay until Ctrl-C."""
    from api.cli.context import configuration, say
    from api.cli.platform import up as platform

    start = platform.up_detached if detach else platform.up
    start(configuration(), owner=owner, say=say)


def down() -> None:
    """Stop the platform, and what a killed one left behind."""
    from api.cli.context import configuration, say
    from api.cli.platform import up as platform

    say("stopped" if platform.down(configuration(), say=say) else "nothing was running")


def status() -> None:
    """Show the platform's processes: state, process, uptime, restarts, memory."""
    from api.cli.context import configuration
    from api.cli.platform import status as platform

    raise typer.Exit(platform.show(configuration()))


def demo(
    leave: Annotated[bool, typer.Option("--exit", help="Stop everything when the demo is through.")] = False,
) -> None:
    """From nothing to a deployed model that answers: train, evaluate, deploy, predict."""
    from api.cli.context import configuration
    from api.cli.demo import run

    run(configuration(), leave=leave)
