"""`ma pipeline` and `ma pipeline-run`: what happens to runs."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.commands import authored
from api.cli.commands.again import go_on, retry
from api.cli.commands.explain import explain, replay
from api.cli.commands.pipeline_test import try_out

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The project.", envvar="MA_NAMESPACE")]
Timeout = Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait; 0 is for ever.")]


def register(app: typer.Typer) -> None:
    """Add the groups."""
    pipeline = typer.Typer(no_args_is_help=True, help="Try, apply, start and take back pipelines.")
    pipeline.command("run")(run)
    authored.add(pipeline)
    pipeline.command("test")(try_out)
    pipeline.command("dags")(dags)
    app.add_typer(pipeline, name="pipeline")
    runs = typer.Typer(no_args_is_help=True, help="Follow, read, stop, retry and resume runs.")
    for command in (wait, logs, kill, retry, explain, replay):
        runs.command()(command)
    runs.command("resume")(go_on)
    app.add_typer(runs, name="pipeline-run")


def dags() -> None:
    """Show the DAGs of Airflow's that are tagged for the platform, and what became of each."""
    from api.cli import dags as tagged

    tagged.show()


def project(namespace: str) -> str:
    """Return the namespace; a run is never looked for in all projects."""
    if not namespace:
        raise typer.BadParameter("which project?  Give it with -n")
    return namespace


def run(
    name: Annotated[str, typer.Argument(help="The pipeline.")],
    namespace: Namespace = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter; repeatable.")
    ] = None,
    run_name: Annotated[str, typer.Option("--name", help="The run's name: the same again starts nothing twice.")] = "",
    follow: Annotated[bool, typer.Option("--wait", "-w", help="Show steps; the exit code is the run's.")] = False,
    timeout_s: Timeout = 0,
) -> None:
    """Start a pipeline and print the run's name."""
    from api.cli import runs

    raise typer.Exit(
        runs.run_pipeline(
            name,
            namespace=project(namespace),
            settings=settings or [],
            run_name=run_name,
            wait=follow,
            timeout_s=timeout_s,
        )
    )


def wait(name: str, namespace: Namespace = "", timeout_s: Timeout = 0) -> None:
    """Follow a run to its end."""
    from api.cli import runs

    raise typer.Exit(runs.wait_for(name, namespace=project(namespace), timeout_s=timeout_s))


def logs(
    name: str,
    namespace: Namespace = "",
    step: Annotated[str, typer.Option("--step", "-s", help="One step only.")] = "",
) -> None:
    """Show the logs of a run's tasks."""
    from api.cli import runs

    runs.logs(name, namespace=project(namespace), step=step)


def kill(
    name: str,
    namespace: Namespace = "",
    follow: Annotated[bool, typer.Option("--wait", "-w", help="Return when it is stopped.")] = False,
    timeout_s: Timeout = 0,
) -> None:
    """Stop a run and its jobs."""
    from api.cli import runs

    raise typer.Exit(runs.kill(name, namespace=project(namespace), wait=follow, timeout_s=timeout_s))
