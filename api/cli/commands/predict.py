"""`ma predict`: ask a deployed model."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(predict)


def predict(
    deployment: Annotated[str, typer.Argument(metavar="PROJECT.DEPLOYMENT")],
    file: Annotated[str, typer.Option("--filename", "-f", help="A JSON request; - for standard input.")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A feature value; repeatable.")
    ] = None,
    at: Annotated[str, typer.Option("--at", help="The moment to predict for, ISO 8601; now without it.")] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Show which features were joined.")] = False,
    form: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """Ask a deployed model for one prediction."""
    from api.cli import output
    from api.cli import predict as asking
    from api.cli.context import configuration
    from api.cli.runs import parameters

    if not file and not settings:
        raise typer.BadParameter("give the request with -f or --set")
    given = asking.read_request(file) if file else {}
    request = asking.request_of({**given, **parameters(settings or [])}, at=at, explain=explain)
    answer = asking.call(configuration(), deployment, request)
    if form == "json":
        print(output.as_json(answer))
    else:
        asking.show(answer)
