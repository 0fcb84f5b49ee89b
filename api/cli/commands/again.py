"""The commands `ma pipeline-run retry` and `ma pipeline-run resume`."""

from __future__ import annotations

from typing import Annotated

import typer

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The project.", envvar="MA_NAMESPACE")]
Timeout = Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait; 0 is for ever.")]
Follow = Annotated[bool, typer.Option("--wait", "-w", help="Show steps; the exit code is the run's.")]


def retry(
    name: str,
    namespace: Namespace = "",
    step: Annotated[str, typer.Option("--step", "-s", help="The step; without it the one that failed.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, for people.")] = "",
    follow: Follow = False,
    timeout_s: Timeout = 0,
) -> None:
    """Do one step of an ended run again, and what follows it."""
    from api.cli import again

    given = project(namespace)
    raise typer.Exit(again.retry(name, namespace=given, step=step, reason=reason, wait=follow, timeout_s=timeout_s))


def go_on(
    name: str,
    namespace: Namespace = "",
    start: Annotated[
        list[str] | None, typer.Option("--from", metavar="STEP", help="Do it again, and what follows; repeatable.")
    ] = None,
    up_to: Annotated[
        list[str] | None, typer.Option("--up-to", metavar="STEP", help="Stop after it; repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Although the pipeline or its input changed.")] = False,
    run_name: Annotated[str, typer.Option("--name", help="The new run's name.")] = "",
    follow: Follow = False,
    timeout_s: Timeout = 0,
) -> None:
    """Start a run that takes over what an earlier one did."""
    from api.cli import again

    raise typer.Exit(
        again.resume(
            name,
            namespace=project(namespace),
            start=start or [],
            up_to=up_to or [],
            force=force,
            run_name=run_name,
            wait=follow,
            timeout_s=timeout_s,
        )
    )


def project(namespace: str) -> str:
    """Return the namespace; a run is never looked for in all projects."""
    if not namespace:
        raise typer.BadParameter("which project?  Give it with -n")
    return namespace
