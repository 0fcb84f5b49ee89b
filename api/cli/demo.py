"""`ma demo`: the flights example from nothing to a prediction, each phase with its time.  Does nothing of its own.

Everything it does, a user can do with `ma up`, `apply`, `pipeline run --wait`, `get` and `predict`.  It can be killed
at any point and run again: a platform, a deployment and a run that stand are found and used.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from api.cli import documents, output, predict, runs
from api.cli.airflow_env import ROOT
from api.cli.context import say, warn
from api.cli.exits import OK, Failure
from api.cli.failures import api_lines
from api.cli.platform import record, up
from api.cli.report import tables
from api.client import Client
from api.config import Config
from api.errors import ApiError
from api.messages import enums

EXAMPLE = Path("examples") / "flights"
RUN_PREFIX = "demo"
READY_S = 120.0
SERVING_S = 120.0
LOOK_S = 0.25


@dataclass(frozen=True)
class Example:
    """What the example's files declare: the objects that the tour passes."""

    folder: Path
    resources: tuple[Any, ...]

    def named(self, kind: str) -> Any:
        """Return the first object of a kind.  Raises Failure."""
        for resource in self.resources:
            if resource.DESCRIPTOR.name == kind:
                return resource
        raise Failure(f"{self.folder} declares no {kind}")


def run(config: Config, *, leave: bool) -> None:
    """Show the tour; stay until Ctrl-C unless `leave`.  What it started is stopped at the end, whatever happens."""
    if not (config.projects_root / EXAMPLE).is_dir():
        config = replace(config, projects_root=ROOT)
    example = _example(config.projects_root / EXAMPLE)
    begun = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    try:
        _platform(config)
        with Client.of(config) as api:
            _apply(api, example)
            finished = _train(api, example)
            _evaluation(api, example.named("Project").metadata.name, finished)
        _prediction(config, example)
        _phase("done", begun)
        for line in up.addresses(config):
            say(line)
        if not leave:
            _stay(config)
    finally:
        _leave(config)


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _phase(title: str, begun: float) -> None:
    say(f"[{output.duration(time.monotonic() - begun):>6}] {title}")


@contextlib.contextmanager
def _timed(title: str) -> Iterator[None]:
    say(f"\n{title} ...")
    begun = time.monotonic()
    yield
    _phase(title, begun)


def _example(folder: Path) -> Example:
    found = documents.load([str(folder)])
    faults = [fault for document in found for fault in document.faults]
    if faults:
        raise Failure(*faults)
    return Example(folder, tuple(document.resource for document in found))


def _platform(config: Config) -> None:
    with _timed("start the platform"):
        if not record.running(config.run_path):
            up.up_detached(config, owner="demo", say=lambda line: say(f"  {line}"))
            return
        say(f"  the platform of {config.home} runs already: using it")
        _until(lambda: _phase_of(config) == "ready", "the platform is not ready, see `ma status`,", up.START_TIMEOUT_S)


def _phase_of(config: Config) -> str:
    known = record.read_live(config.run_path)
    return known.phase if known else ""


def _apply(api: Client, example: Example) -> None:
    with _timed(f"apply {EXAMPLE}"):
        for resource in example.resources:
            title = f"{resource.DESCRIPTOR.name} {resource.metadata.name}"
            try:
                _, what = api.apply(resource)
            except ApiError as error:
                raise Failure(f"{title} was refused", *api_lines(error)) from None
            say(f"  {title} {what}")
    pipeline = example.named("Pipeline").metadata
    with _timed("build the pipeline's DAG"):
        _until(lambda: _built(api, pipeline.namespace, pipeline.name), "the pipeline is not READY", READY_S)


def _built(api: Client, namespace: str, name: str) -> bool:
    status = api.get("Pipeline", namespace, name).status
    state = enums.of(status, "state")
    if state == "ERROR":
        raise Failure(f"pipeline {name} cannot be built: {status.error_message}")
    return state == "READY"


def _train(api: Client, example: Example) -> str:
    """Run the pipeline, or wait for the run that a killed demo began; return the run's name."""
    pipeline = example.named("Pipeline").metadata
    unfinished = _unfinished(api, pipeline.namespace)
    with _timed(f"run pipeline {pipeline.name}"):
        if unfinished:
            say(f"  run {unfinished} of an earlier demo is not finished: waiting for it")
            if runs.follow(api, pipeline.namespace, unfinished, timeout_s=0, tell=say) == OK:
                return unfinished
            say("  it did not succeed: starting another")
        name = f"{RUN_PREFIX}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        runs.start(api, pipeline.namespace, pipeline.name, {}, name=name)
        if runs.follow(api, pipeline.namespace, name, timeout_s=0, tell=say) != OK:
            raise Failure(f"run {name} failed; see `ma pipeline-run logs {name} -n {pipeline.namespace}`")
    return name


def _unfinished(api: Client, namespace: str) -> str:
    for item in api.list("PipelineRun", namespace):
        if item.metadata.name.startswith(f"{RUN_PREFIX}-") and runs.state_of(item) not in runs.ENDED:
            return str(item.metadata.name)
    return ""


def _evaluation(api: Client, namespace: str, run_name: str) -> None:
    reports = [
        item for item in api.list("EvaluationReport", namespace) if item.spec.source_pipeline_run.name == run_name
    ]
    if not reports:
        warn(f"run {run_name} left no evaluation report")
    for report in reports:
        say(f"\n{report.spec.title or report.metadata.name}")
        for header, rows in tables(report):
            output.table(header, rows)


def _prediction(config: Config, example: Example) -> None:
    deployment = example.named("Deployment").metadata
    target = f"{deployment.namespace}.{deployment.name}"
    given = predict.read_request(str(example.folder / "request.json"))
    request = predict.request_of(given, explain=True)
    with _timed(f"predict with {target} over HTTP"):
        answer = _answer(config, target, request)
    say(f"  POST {config.serving_url}/v2/models/{target}/infer")
    for tensor in request["inputs"]:
        say(f"  {tensor['name']} = {', '.join(map(str, tensor['data']))}")
    predict.show(answer)
    say()


def _answer(config: Config, target: str, request: dict[str, Any]) -> dict[str, Any]:
    """Ask until the deployment answers: its controller may still be rolling it out after a restart."""
    deadline = time.monotonic() + SERVING_S
    while True:
        try:
            return predict.call(config, target, request)
        except Failure:
            if time.monotonic() > deadline:
                raise
        time.sleep(LOOK_S)


def _until(condition: Any, message: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"{message} after {timeout_s:.0f} s")
        time.sleep(LOOK_S)


def _stay(config: Config) -> None:
    say("\nEverything stays up until Ctrl-C.")
    try:
        while record.running(config.run_path):
            time.sleep(1)
    except KeyboardInterrupt:
        say()
        return
    raise Failure(f"the platform ended; see {config.logs_path / 'supervisor.log'}")


def _leave(config: Config) -> None:
    """Stop a platform that a demo started, this one or one that was killed; `ma up`'s own is left running."""
    known = record.read(config.run_path)
    if known is not None and known.owner == "demo":
        begun = time.monotonic()
        up.down(config, say=say)
        _phase("everything is stopped", begun)
