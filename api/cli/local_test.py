"""`ma pipeline test -f`: a pipeline's YAML in one process of this machine, beside an API server of its own.

Stages keep reports, models and deployments by the API: a real server does that, with a store in a folder that goes with
the test, or stays where --keep says.  No Airflow and no platform of anybody's is reached.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api.cli import airflow_env, documents
from api.cli.authored import is_authored
from api.cli.context import configuration, warn
from api.cli.exits import REFUSED, USAGE, Failure
from api.cli.platform import preflight
from api.cli.platform.probes import answers
from api.client import Client
from api.config import Config
from api.errors import AlreadyExists
from api.kinds import kinds
from api.pipeline_dags import pipeline_manifest
from api.workflows import parse

PROGRAM = "operators.templates.try_out"
AUTHORED = "operators.authoring.try_out"
NEEDED = ("InferenceServer", "Deployment", "ModelFamily", "Model")
START_S = 60.0
STOP_S = 10.0
LOOK_S = 0.05


def run(files: Sequence[str], name: str, *, namespace: str, settings: Sequence[str], keep: str, run_name: str) -> int:
    """Run the one pipeline of some files, or the one of a name, and return the exit code."""
    found = _read(files, namespace)
    pipeline = _chosen(found, name)
    if is_authored(pipeline):
        return _authored(pipeline, files[0], settings)
    workflow, faults = parse(pipeline.spec)
    if faults:
        told = [f"  {fault.field}: {fault.description}" for fault in faults]
        raise Failure(f"pipeline {pipeline.metadata.name} cannot be built", *told, code=USAGE)
    rolled_out = _deployment(workflow, settings)
    if rolled_out and rolled_out not in {one.metadata.name for one in found if one.DESCRIPTOR.name == "Deployment"}:
        wanted = f"the pipeline rolls out to Deployment {rolled_out!r}, which the files do not declare"
        raise Failure(wanted, "give its folder, or -p deployment= to roll nothing out", code=USAGE)
    # Whoever ends this command ends its servers.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with _home(keep) as home, _servers(home, deploys=bool(rolled_out)) as config:
        named = run_name or f"test-{pipeline.metadata.name}-{datetime.now(UTC):%H%M%S}-{secrets.token_hex(2)}"
        root = _apply(config, found, pipeline, _folder(files[0]), named)
        manifest = pipeline_manifest(pipeline, workflow, root_dir=str(root), revision="test")
        asked = home / "test.json"
        asked.write_text(json.dumps(manifest))
        given = [word for setting in settings for word in ("-p", setting)]
        words = [str(asked), "--run", named, *given]
        command = [sys.executable, "-m", PROGRAM, *words, "--report", str(home / "test-report.json")]
        return subprocess.run(command, env=_environ(config), check=False).returncode  # noqa: S603


def _read(files: Sequence[str], namespace: str) -> list[Any]:
    found = documents.load(files, namespace=namespace)
    faults = [fault for document in found for fault in document.faults]
    if faults:
        raise Failure("these files cannot be read", *faults)
    return [document.resource for document in found]


def _chosen(found: Sequence[Any], name: str) -> Any:
    pipelines = [one for one in found if one.DESCRIPTOR.name == "Pipeline" and name in ("", one.metadata.name)]
    if len(pipelines) != 1:
        known = ", ".join(one.metadata.name for one in found if one.DESCRIPTOR.name == "Pipeline") or "none"
        raise Failure(f"which pipeline?  The files have {known}: name it, or give its file alone", code=USAGE)
    if not pipelines[0].metadata.namespace:
        raise Failure("which project?  Give it with -n or as metadata.namespace", code=USAGE)
    return pipelines[0]


def _deployment(workflow: Any, settings: Sequence[str]) -> str:
    """Return the deployment that a template rolls out to, empty if it has none."""
    given = dict(setting.partition("=")[::2] for setting in settings)
    return str(given.get("deployment", workflow.params.get("deployment", "")) or "")


def _authored(pipeline: Any, file: str, settings: Sequence[str]) -> int:
    """Run a pipeline in Python as its file would be run."""
    manifest = pipeline.spec.manifest
    target = f"{manifest.file_path}:{manifest.uniflow_function}"
    given = [word for setting in settings for word in ("-p", setting)]
    environ = {name: value for name, value in os.environ.items() if name != "MA_TOKEN"}
    command = [sys.executable, "-m", AUTHORED, *given, "--", target]
    return subprocess.run(command, env=environ, cwd=_folder(file), check=False).returncode  # noqa: S603


def _folder(file: str) -> Path:
    return Path(file) if Path(file).is_dir() else Path(file).absolute().parent


@contextlib.contextmanager
def _home(keep: str) -> Iterator[Path]:
    if keep:
        Path(keep).mkdir(mode=0o700, parents=True, exist_ok=True)
        yield Path(keep).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="ma-test-") as folder:
        yield Path(folder).resolve()


@contextlib.contextmanager
def _servers(home: Path, *, deploys: bool) -> Iterator[Config]:
    """Give the configuration of an API server, and an inference server if one is needed; both end with the block."""
    names = ("api_port", "api_http_port", "airflow_port", "serving_port")
    ports: dict[str, Any] = dict(zip(names, _free_ports(len(names)), strict=True))
    config = Config(home, configuration().projects_root, **ports)
    preflight.prepare(config)
    wanted = {"api.server": answers(config.api_http_port, "/readyz")}
    if deploys:
        wanted["serving.server"] = answers(config.serving_port, "/v2/health/live")
    with contextlib.ExitStack() as stack:
        for module in wanted:
            log = stack.enter_context((config.logs_path / f"{module}.log").open("wb"))
            command = [sys.executable, "-P", "-m", module]
            process = subprocess.Popen(command, env=_environ(config), stdout=log, stderr=log)  # noqa: S603
            stack.callback(_end, process)
            _await(wanted[module], process, module, config)
        yield replace(config, token=config.own_token)


def _free_ports(count: int) -> list[int]:
    """Return ports of which nobody makes use."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]


def _await(ready: Any, process: subprocess.Popen[bytes], module: str, config: Config) -> None:
    deadline = time.monotonic() + START_S
    while not ready(0):
        if process.poll() is not None or time.monotonic() > deadline:
            text = (config.logs_path / f"{module}.log").read_text(errors="replace").strip()
            raise Failure(f"{module} did not start", *text.splitlines()[-5:], code=REFUSED)
        time.sleep(LOOK_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environ(config: Config) -> dict[str, str]:
    """Return what a process of the test gets: its own platform's variables, and an Airflow home that is nobody's."""
    airflow = {"AIRFLOW_HOME": str(config.airflow_home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MA_", "AIRFLOW"))}
    return {**outside, **config.environ(), "MA_TOKEN": "", **airflow_env.process(), **airflow}


def _apply(config: Config, found: Sequence[Any], pipeline: Any, folder: Path, run_name: str) -> Path:
    """Make the project, what its pipeline rolls out to, and the run that reports name; return its code."""
    project = pipeline.metadata.namespace
    given = next((one for one in found if one.DESCRIPTOR.name == "Project" and one.metadata.name == project), None)
    if given is None:
        given = kinds()["Project"].new(project, project)
    root = config.projects_root / given.spec.root_dir.lstrip("/") if given.spec.root_dir else folder
    with Client.of(config, warn=warn) as api:
        for resource in (given, *(one for one in found if one.DESCRIPTOR.name in NEEDED), pipeline):
            if resource.metadata.namespace == project:
                api.apply(resource)
        run = kinds()["PipelineRun"].new(project, run_name)
        run.spec.pipeline.namespace, run.spec.pipeline.name = project, pipeline.metadata.name
        try:
            api.create(run)
        except AlreadyExists:
            raise Failure(f"a test called {run_name!r} was kept: give another --name", code=USAGE) from None
    return root.resolve()
