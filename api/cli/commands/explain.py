"""`ma pipeline-run explain` and `ma pipeline-run replay`: why a run failed, and its task once more, here."""

from __future__ import annotations

from typing import Annotated

import typer

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The project.", envvar="MA_NAMESPACE")]


def explain(
    name: str,
    namespace: Namespace = "",
    form: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
) -> None:
    """Say why a run failed, or what it does now, and what to type next."""
    from api.cli import explain

    raise typer.Exit(explain.explain(name, namespace=_project(namespace), form=form))


def replay(
    name: str,
    namespace: Namespace = "",
    task: Annotated[str, typer.Option("--task", "-t", help="The task; the one that failed if left out.")] = "",
    map_index: Annotated[int, typer.Option("--map-index", min=-1, help="Which one of a mapped task.")] = -1,
    debug: Annotated[bool, typer.Option("--pdb", help="Stop in the debugger where it failed.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch folder.")] = False,
) -> None:
    """Run a task of a run once more on this machine: its code and inputs, nothing stored."""
    from api.cli import explain

    code = explain.replay(name, namespace=_project(namespace), task=task, map_index=map_index, debug=debug, keep=keep)
    raise typer.Exit(code)


def _project(namespace: str) -> str:
    if not namespace:
        raise typer.BadParameter("which project?  Give it with -n")
    return namespace
