"""`ma trigger-run`: what happens to triggers, and what they are to do for a time that is over."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.commands.runs import Namespace, project

MaxConcurrency = Annotated[int, typer.Option("--max-concurrency", min=0, help="Most runs at a time; 0: any number.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=0, help="Runs of one batch; 0: all at once.")]
BatchWait = Annotated[float, typer.Option("--batch-wait", min=0, help="Seconds between two batches.")]
Named = Annotated[str, typer.Option("--name", help="The new trigger's name: the same again starts nothing twice.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    triggers = typer.Typer(no_args_is_help=True, help="Pause, resume, end, backfill and foretell triggers.")
    for command in (pause, resume, backfill, rerun):
        triggers.command()(command)
    triggers.command("kill")(end)
    triggers.command("next")(following)
    app.add_typer(triggers, name="trigger-run")


def pause(name: str, namespace: Namespace = "") -> None:
    """Keep a trigger from starting runs."""
    _act(name, "PAUSE", namespace)


def resume(name: str, namespace: Namespace = "") -> None:
    """Let a paused trigger start runs again; what was due meanwhile is left out."""
    _act(name, "RESUME", namespace)


def end(
    name: str,
    namespace: Namespace = "",
    with_runs: Annotated[bool, typer.Option("--runs", help="Kill its runs too; else they go on.")] = False,
) -> None:
    """End a trigger for good."""
    _act(name, "KILL", namespace, with_runs=with_runs)


def _act(name: str, action: str, namespace: str, *, with_runs: bool = False) -> None:
    from api.cli import triggers

    triggers.set_action(name, action, namespace=project(namespace), with_runs=with_runs)


def backfill(
    name: Annotated[str, typer.Argument(help="The trigger whose schedule and parameters are used.")],
    start: Annotated[str, typer.Option("--start", help="First instant: 2026-03-01, or with a time; UTC.")],
    end: Annotated[str, typer.Option("--end", help="Last instant; a date alone is the whole day.")],
    namespace: Namespace = "",
    only: Annotated[str, typer.Option("--only", help="all, missing (never ran) or failed (failed last).")] = "all",
    max_concurrency: MaxConcurrency = 0,
    batch_size: BatchSize = 0,
    batch_wait_s: BatchWait = 0,
    new_name: Named = "",
) -> None:
    """Start the runs of a time that is over, oldest first."""
    from api.cli import triggers

    triggers.backfill(
        name,
        namespace=project(namespace),
        bounds=(start, end),
        only=only,
        pace=triggers.Pace(max_concurrency, batch_size, batch_wait_s),
        new_name=new_name,
    )


def rerun(
    runs: Annotated[list[str], typer.Argument(help="Runs that have ended, of one pipeline.")],
    namespace: Namespace = "",
    resume_from: Annotated[list[str] | None, typer.Option("--from", help="Do again from this step on.")] = None,
    resume_up_to: Annotated[list[str] | None, typer.Option("--up-to", help="Stop after this step.")] = None,
    max_concurrency: MaxConcurrency = 0,
    batch_size: BatchSize = 0,
    batch_wait_s: BatchWait = 0,
    new_name: Named = "",
) -> None:
    """Repeat runs with the inputs that they had."""
    from api.cli import triggers

    triggers.rerun(
        runs,
        namespace=project(namespace),
        steps=(resume_from or [], resume_up_to or []),
        pace=triggers.Pace(max_concurrency, batch_size, batch_wait_s),
        new_name=new_name,
    )


def following(
    name: str,
    namespace: Namespace = "",
    count: Annotated[int, typer.Option("--count", min=1, max=100, help="How many.")] = 5,
) -> None:
    """Show when a trigger fires next, and what a change of the clock does to it."""
    from api.cli import triggers

    triggers.following(name, namespace=project(namespace), count=count)
