"""`ma audit`: who did what, and whether the log is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

From = Annotated[
    Path | None, typer.Option("--file", help="A store.db or exported lines; this platform's store without it.")
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    audit = typer.Typer(no_args_is_help=True, help="Read and check the audit log.")
    audit.command("list")(show)
    audit.command()(verify)
    app.add_typer(audit, name="audit")


def verify(
    head: Annotated[Path | None, typer.Option("--head", help="The file of anchored heads (MA_AUDIT_ANCHOR).")] = None,
    file: From = None,
) -> None:
    """Check that no record was changed, removed, added or moved; with --head, that none was cut off the end."""
    from api.cli import audit

    raise typer.Exit(audit.verify(file, head))


def show(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The project.", envvar="MA_NAMESPACE")] = "",
    kind: Annotated[str, typer.Option("--kind", help="The kind, such as pipeline-run.")] = "",
    name: Annotated[str, typer.Option("--name", help="The object.")] = "",
    subject: Annotated[str, typer.Option("--subject", help="Who called.")] = "",
    verb: Annotated[str, typer.Option("--verb", help="Create, Update, Delete, Get and so on.")] = "",
    outcome: Annotated[str, typer.Option("--outcome", help="OK, PERMISSION_DENIED, ABORTED and so on.")] = "",
    request: Annotated[str, typer.Option("--request", help="The request id.")] = "",
    since: Annotated[str, typer.Option("--since", help="From this time on, ISO 8601, UTC without a zone.")] = "",
    until: Annotated[str, typer.Option("--until", help="Before this time, ISO 8601, UTC without a zone.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=0, help="The newest so many; 0 for all.")] = 100,
    form: Annotated[str, typer.Option("--output", "-o", help="table, json, or jsonl to verify elsewhere.")] = "table",
    file: From = None,
) -> None:
    """Show records, the newest last."""
    from api.cli import audit, names

    wanted = {
        "namespace": namespace,
        "kind": names.kind(kind).name if kind else "",
        "name": name,
        "subject": subject,
        "verb": verb,
        "outcome": outcome,
        "request_id": request,
    }
    audit.show(file, wanted, since=since, until=until, limit=limit, form=form)
