"""An Airflow that keeps its book in memory and answers the same REST contract over HTTP.  Runs no task by itself.

What it answers is checked beside the real one in `tests/ports/test_airflow_contract.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.robustness.fakes.airflow_again import Again
from tests.robustness.fakes.airflow_book import (
    ACTIVE_TASKS,
    ENDED_TASKS,
    FakeDag,
    FakeRun,
    FakeTask,
    busy,
    conf_faults,
    page,
    run_json,
    task_json,
)

__all__ = ["FakeAirflow", "FakeDag", "FakeRun", "FakeTask"]


class FakeAirflow(Again):
    """`app` is the ASGI application; the other methods are what Airflow's scheduler, parser and user would do.

    `dags_path`, `manifests_path`: where project files and manifests stand; without them nothing is ever parsed.
    """

    def __init__(self, dags_path: Path | None = None, manifests_path: Path | None = None) -> None:
        self.dags: dict[str, FakeDag] = {}
        self.runs: dict[tuple[str, str], FakeRun] = {}
        self.posts: list[tuple[str, str]] = []
        self.pools: dict[str, int] = {}
        self.requests = 0
        self.broken: Response | None = None
        self.parses = True
        self.lost_requests = 0
        self._dags_path, self._manifests_path = dags_path, manifests_path
        self._parsed: dict[str, int] = {}
        self._tokens = 0
        self._watchers: list[Callable[[str, str], None]] = []
        self.app = Starlette(routes=self._routes())

    # What happens inside Airflow.

    def listen(self, watcher: Callable[[str, str], None]) -> None:
        """Call `watcher(dag_id, run_id)` whenever a run changes, as the listener plugin would report."""
        self._watchers.append(watcher)

    def template(self, dag_id: str, **schemas: Mapping[str, Any]) -> FakeDag:
        """Add a bare template DAG."""
        self.dags[dag_id] = FakeDag(
            dag_id, f"templates/{dag_id}.py", ("template",), {"ma": {"type": "object"}, **schemas}
        )
        return self.dags[dag_id]

    def plain(self, dag_id: str, *tags: str, tasks: Sequence[str] = ("first", "second"), **schemas: Any) -> FakeDag:
        """Read the DAG file of somebody who knows Airflow; reading it again is another version."""
        known = self.dags.get(dag_id)
        made = FakeDag(dag_id, f"{dag_id}.py", tags, dict(schemas), tuple(tasks), owners=("team",), description="plain")
        made.version = known.version + 1 if known else 1
        self.dags[dag_id] = made
        return made

    def expire_tokens(self) -> None:
        """Refuse every token given so far."""
        self._tokens += 1

    def parse(self, project: str) -> None:
        """Read a project's manifests, if its file stands."""
        if self._dags_path is None or self._manifests_path is None:
            return
        path = self._dags_path / f"{project}.py"
        stands = path.exists()
        found = set()
        for manifest in sorted((self._manifests_path / project).glob("*.json")) if stands else ():
            dag = self._dag_of(json.loads(manifest.read_text()))
            found.add(dag.dag_id)
            known = self.dags.get(dag.dag_id)
            dag.is_paused = known.is_paused if known else False
            self.dags[dag.dag_id] = dag
        for dag in self.dags.values():
            if dag.file == f"{project}.py":
                dag.is_stale = dag.dag_id not in found
        self._parsed[project] = path.stat().st_mtime_ns if stands else 0

    def _dag_of(self, manifest: Mapping[str, Any]) -> FakeDag:
        tags = (f"project:{manifest['project']}", *manifest["tags"])
        file = f"{manifest['project']}.py"
        if manifest["kind"] == "TriggerRun":
            return FakeDag(f"{manifest['project']}.{manifest['pipeline']}.{manifest['name']}", file, ("trigger", *tags))
        if manifest["kind"] == "Events":
            return FakeDag(f"{manifest['project']}.{manifest['name']}", file, tags)
        template = self.dags.get(manifest["template"])
        schemas = dict(template.schemas) if template else {}
        steps = manifest["steps"] or ()
        tasks = tuple(step["name"] for step in steps) or (template.tasks if template else ())
        made = FakeDag(f"{manifest['project']}.{manifest['name']}", file, ("pipeline", *tags), schemas, tasks)
        if steps:
            made.follows = {
                name: tuple(step["name"] for step in steps if name in (step.get("needs") or ())) for name in tasks
            }
        return made

    def look_for_files(self) -> None:
        """Parse the project files that are new or newer, as the refresh of the bundle does."""
        for path in self._dags_path.glob("*.py") if self.parses and self._dags_path else ():
            if self._parsed.get(path.stem) != path.stat().st_mtime_ns:
                self.parse(path.stem)

    def begin(self, dag_id: str, run_id: str, conf: dict[str, Any] | None = None) -> FakeRun:
        """Create a run, whoever asked for it."""
        now = datetime.now(UTC)
        run = FakeRun(dag_id, run_id, conf or {}, due=now, updated=now)
        run.tasks = {(task, -1): FakeTask(task) for task in self.dags[dag_id].tasks}
        self.runs[dag_id, run_id] = run
        self._changed(run)
        return run

    def advance(self, run: FakeRun, *, fail: str = "", verdict: Mapping[str, str] | None = None) -> None:
        """Take one step: the run starts, then each task starts and ends.  `fail` names the task that fails."""
        now = datetime.now(UTC)
        if run.state == "queued":
            run.state, run.start = "running", now
        elif run.state == "running":
            task = next((task for task in run.tasks.values() if task.state not in ENDED_TASKS), None)
            if task is None:
                states = {task.state for task in run.tasks.values()}
                run.state, run.end = ("failed" if "failed" in states else "success"), now
            elif task.state in (None, "scheduled", "queued"):
                task.state, task.try_number, task.start = "running", task.try_number + 1, now
                task.xcoms.setdefault("inputs", {"task": task.task_id})
            else:
                task.state, task.end = ("failed" if task.task_id == fail else "success"), now
                if task.state == "failed":
                    task.xcoms.update({"verdict": verdict} if verdict else {})
                    self._skip_rest(run)
                else:
                    task.xcoms.setdefault("return_value", {"done": task.task_id})
        self._changed(run)

    def finish(self, run: FakeRun, *, fail: str = "", verdict: Mapping[str, str] | None = None) -> None:
        """Take every step to the end."""
        while run.state in ("queued", "running"):
            self.advance(run, fail=fail, verdict=verdict)

    def clear(self, run: FakeRun) -> None:
        """Run everything once more, as "Clear" in the UI does."""
        self._clear(run, run.tasks.values())

    def mark(self, run: FakeRun, state: str) -> None:
        """Set the state of a run by hand: what runs fails, what has not begun is skipped."""
        now = datetime.now(UTC)
        for task in run.tasks.values():
            if task.state in ACTIVE_TASKS:
                task.state, task.end = state, now
        self._skip_rest(run)
        run.state, run.end = state, now
        self._changed(run)

    def lose(self, run: FakeRun) -> None:
        """Delete a run."""
        del self.runs[run.dag_id, run.run_id]
        for watcher in self._watchers:
            watcher(run.dag_id, run.run_id)

    def _skip_rest(self, run: FakeRun) -> None:
        for task in run.tasks.values():
            if task.state not in ENDED_TASKS:
                task.state = "skipped"

    def _changed(self, run: FakeRun) -> None:
        run.updated = datetime.now(UTC)
        for watcher in self._watchers:
            watcher(run.dag_id, run.run_id)

    # REST.

    def _routes(self) -> list[Route]:
        run = "/dags/{dag}/dagRuns/{run}"
        table: Sequence[tuple[str, str, Callable[[Request, Any], Any]]] = [
            ("GET", "/dags", self._list_dags),
            ("GET", "/dagTags", self._list_tags),
            ("GET", "/dags/{dag}/dagVersions", self._list_versions),
            ("GET", "/dags/{dag}/details", lambda request, _: self._dag_json(self._dag(request), details=True)),
            ("PATCH", "/dags/{dag}", self._patch_dag),
            ("DELETE", "/dags/{dag}", self._delete_dag),
            ("PUT", "/parseDagFile/{token}", self._parse_file),
            ("GET", "/dags/{dag}/dagRuns", self._list_runs),
            ("POST", "/dags/{dag}/dagRuns", self._post_run),
            ("GET", run, lambda request, _: run_json(self._run(request))),
            ("PATCH", run, self._patch_run),
            ("DELETE", run, self._delete_run),
            ("GET", f"{run}/taskInstances", self._list_tasks),
            ("GET", f"{run}/taskInstances/{{task}}/tries", self._tries),
            ("GET", f"{run}/taskInstances/{{task}}/{{index}}/tries", self._tries),
            ("POST", "/dags/{dag}/clearTaskInstances", self._clear_tasks),
            ("GET", "/dags/{dag}/tasks", self._dag_tasks),
            ("GET", "/pools/{pool}", self._pool),
            ("GET", f"{run}/taskInstances/{{task}}/xcomEntries/{{key}}", self._xcom),
            ("GET", f"{run}/taskInstances/{{task}}/logs/{{attempt}}", self._log),
            ("GET", "/eventLogs", self._events),
        ]
        routes = [Route(f"/api/v2{path}", self._guarded(work), methods=[verb]) for verb, path, work in table]
        return [Route("/auth/token", self._grant), Route("/api/v2/monitor/health", self._health), *routes]

    def _guarded(self, work: Callable[[Request, Any], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            self.requests += 1
            if self.broken is not None:
                return self.broken
            if request.headers.get("authorization") != f"Bearer token-{self._tokens}":
                return JSONResponse({"detail": "Not authenticated"}, status_code=401)
            body = await request.body()
            self.look_for_files()
            try:
                answer = work(request, json.loads(body) if body else {})
            except HTTPException as refusal:
                return JSONResponse({"detail": refusal.detail}, status_code=refusal.status_code)
            created = request.method == "PUT"
            return Response(status_code=204) if answer is None else JSONResponse(answer, 201 if created else 200)

        return endpoint

    async def _grant(self, _: Request) -> Response:
        if self.broken is not None:
            return self.broken
        return JSONResponse({"access_token": f"token-{self._tokens}"}, status_code=201)

    async def _health(self, _: Request) -> Response:
        fine = {"status": "healthy"}
        return self.broken or JSONResponse({"metadatabase": fine, "scheduler": fine, "dag_processor": fine})

    def _dag(self, request: Request) -> FakeDag:
        name = request.path_params["dag"]
        if name not in self.dags:
            raise HTTPException(404, f"The Dag with ID: `{name}` was not found")
        return self.dags[name]

    def _run(self, request: Request) -> FakeRun:
        dag, run = request.path_params["dag"], request.path_params["run"]
        if (dag, run) not in self.runs:
            raise HTTPException(404, f"The DagRun with dag_id: `{dag}` and run_id: `{run}` was not found")
        return self.runs[dag, run]

    def _dag_json(self, dag: FakeDag, *, details: bool = False) -> dict[str, Any]:
        params = {name: {"value": schema.get("default"), "schema": schema} for name, schema in dag.schemas.items()}
        return {
            "dag_id": dag.dag_id,
            "is_paused": dag.is_paused,
            "is_stale": dag.is_stale,
            "description": dag.description,
            "tags": [{"name": tag, "dag_id": dag.dag_id} for tag in sorted(dag.tags)],
            "file_token": f"signed.{dag.file}".replace("/", "|"),
            "max_active_runs": dag.max_active_runs,
            "relative_fileloc": dag.file,
            "owners": list(dag.owners),
            "last_parsed_time": dag.parsed.isoformat(),
            "last_parse_duration": 0.0,
            "has_import_errors": dag.unreadable,
        } | ({"params": params} if details else {})

    def _list_dags(self, request: Request, _: Any) -> dict[str, Any]:
        wanted = set(request.query_params.getlist("tags"))
        some = request.query_params.get("tags_match_mode") == "any"
        found = [dag for dag in self.dags.values() if not dag.is_stale]
        found = [dag for dag in found if (wanted & set(dag.tags) if some else wanted <= set(dag.tags))]
        return page(request, "dags", [self._dag_json(dag) for dag in found])

    def _list_tags(self, request: Request, _: Any) -> dict[str, Any]:
        # Airflow leaves what is neither letter nor digit off the end of a prefix.
        prefix = re.sub(r"[^A-Za-z0-9]+$", "", request.query_params["tag_name_prefix_pattern"])
        found = {tag for dag in self.dags.values() if not dag.is_stale for tag in dag.tags if tag.startswith(prefix)}
        return page(request, "tags", sorted(found))

    def _list_versions(self, request: Request, _: Any) -> dict[str, Any]:
        dag = self._dag(request)
        told = {"bundle_name": "own", "bundle_version": None}
        return page(request, "dag_versions", [{"version_number": n, **told} for n in range(dag.version, 0, -1)])

    def _patch_dag(self, request: Request, body: Any) -> dict[str, Any]:
        dag = self._dag(request)
        dag.is_paused = body["is_paused"]
        return self._dag_json(dag)

    def _delete_dag(self, request: Request, _: Any) -> None:
        dag = self._dag(request)
        still = [run for run in self.runs.values() if run.dag_id == dag.dag_id and busy(run)]
        if still:
            raise HTTPException(409, f"Task instances of dag with id: '{dag.dag_id}' are still running")
        del self.dags[dag.dag_id]
        for key in [key for key in self.runs if key[0] == dag.dag_id]:
            del self.runs[key]

    def _parse_file(self, request: Request, _: Any) -> dict[str, Any]:
        if self.lost_requests:
            self.lost_requests -= 1
        elif self.parses:
            self.parse(request.path_params["token"].removeprefix("signed.").removesuffix(".py"))
        return {}

    def _list_runs(self, request: Request, _: Any) -> dict[str, Any]:
        wanted = request.path_params["dag"]
        since = request.query_params.get("updated_at_gte")
        start = datetime.fromisoformat(since) if since else datetime.now(UTC) - timedelta(days=9999)
        states = request.query_params.getlist("state")
        found = [run for run in self.runs.values() if wanted in ("~", run.dag_id) and run.updated >= start]
        found = [run for run in found if not states or run.state in states]
        if request.query_params.get("order_by") == "-run_after":
            found.sort(key=lambda run: run.due, reverse=True)
        return page(request, "dag_runs", [run_json(run) for run in found])

    def _post_run(self, request: Request, body: Any) -> dict[str, Any]:
        dag = self._dag(request)
        if dag.is_stale:
            raise HTTPException(404, f"Dag with dag_id: '{dag.dag_id}' not found")
        if "logical_date" not in body:
            raise HTTPException(422, "logical_date: Field required")
        faults = conf_faults(dag, body.get("conf") or {})
        if faults:
            raise HTTPException(400, faults)
        run_id = body.get("dag_run_id") or f"manual__{datetime.now(UTC).isoformat()}"
        if not re.fullmatch(r"[A-Za-z0-9_.~:+-]+", run_id):
            raise HTTPException(400, f"The run_id provided '{run_id}' does not match regex pattern")
        if (dag.dag_id, run_id) in self.runs:
            raise HTTPException(409, "The object already exists")
        self.posts.append((dag.dag_id, run_id))
        return run_json(self.begin(dag.dag_id, run_id, body.get("conf") or {}))

    def _patch_run(self, request: Request, body: Any) -> dict[str, Any]:
        run = self._run(request)
        if "state" in body:
            self.mark(run, body["state"])
        return run_json(run)

    def _delete_run(self, request: Request, _: Any) -> None:
        self.lose(self._run(request))

    def _list_tasks(self, request: Request, _: Any) -> dict[str, Any]:
        if request.path_params["dag"] == "~":
            return page(request, "task_instances", self._waiting(request))
        return page(request, "task_instances", [task_json(task) for task in self._run(request).tasks.values()])

    def _log(self, request: Request, _: Any) -> dict[str, Any]:
        index = int(request.query_params.get("map_index", "-1"))
        task = self._run(request).tasks.get((request.path_params["task"], index))
        if task is None:
            raise HTTPException(404, "TaskInstance not found")
        return {"content": task.log, "continuation_token": None}

    def _events(self, request: Request, _: Any) -> dict[str, Any]:
        asked = request.query_params
        run = self.runs.get((asked["dag_id"], asked["run_id"]))
        tasks = [task for task in run.tasks.values() if task.task_id == asked["task_id"]] if run else []
        return page(request, "event_logs", [event for task in tasks for event in task.events])

    def _xcom(self, request: Request, _: Any) -> dict[str, Any]:
        key = request.path_params["key"]
        index = int(request.query_params.get("map_index", "-1"))
        task = self._run(request).tasks.get((request.path_params["task"], index))
        if task is None or key not in task.xcoms:
            raise HTTPException(404, f"XCom entry with key: `{key}` not found")
        return {"key": key, "value": task.xcoms[key]}
