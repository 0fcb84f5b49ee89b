"""Airflow's REST API, version 2, as this platform uses it.  The only door to Airflow; never its database.

Source: Airflow 3.3 `/api/v2`.  Every call has a time limit; what Airflow answers becomes an error of the one tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from api.errors import AlreadyExists, ApiError, InvalidArgument, NotFound, Unavailable

TIMEOUT_S = 10.0
SHOWN = 200

DagRunId = tuple[str, str]
"""DAG id and run id."""


@dataclass(frozen=True)
class Dag:
    """A DAG as Airflow last parsed it.  `params`: name -> {"value", "schema", "description"}.

    file: below the folder of its bundle; unreadable: whether the file could not be read when it was parsed last.
    """

    dag_id: str
    is_paused: bool
    file_token: str
    tags: tuple[str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    is_stale: bool = False
    description: str = ""
    max_active_runs: int = 0
    max_active_tasks: int = 0
    file: str = ""
    owners: tuple[str, ...] = ()
    parsed: datetime | None = None
    parse_s: float = 0.0
    unreadable: bool = False


@dataclass(frozen=True)
class DagVersion:
    """What Airflow calls a DAG as it is now.  `bundle_version`: of all its files, such as a commit; may be empty."""

    number: int
    bundle: str
    bundle_version: str


@dataclass(frozen=True)
class Pool:
    """A pool of places for tasks.  `slots`: -1 for any number; `taken`: by what runs or is about to."""

    name: str
    slots: int
    taken: int


@dataclass(frozen=True)
class DagRun:
    """One run.  `state`: queued, running, success, failed; `due`: when it was to begin, the same for ever."""

    dag_id: str
    run_id: str
    state: str
    conf: Mapping[str, Any]
    due: datetime
    start: datetime | None
    end: datetime | None
    run_type: str
    triggered_by: str


@dataclass(frozen=True)
class Task:
    """One task instance.  `map_index`: -1 when not mapped; `state`: None before it is scheduled."""

    task_id: str
    display_name: str
    map_index: int
    try_number: int
    state: str | None
    start: datetime | None
    end: datetime | None
    operator: str
    pool: str = ""
    priority: int = 0
    scheduled: datetime | None = None
    queued: datetime | None = None


class Airflow:
    """Client of one Airflow.  Tokens are fetched when first needed and when they run out."""

    def __init__(self, url: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url
        self._http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, transport=transport)
        self._token = ""

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Whether API server, scheduler and metadata database are."""
        try:
            answer = await self._http.get("/api/v2/monitor/health")
            parts = answer.json()
        except (httpx.HTTPError, ValueError):
            return False
        return all(parts.get(part, {}).get("status") == "healthy" for part in ("metadatabase", "scheduler"))

    async def dag(self, dag_id: str) -> Dag:
        """Return a DAG with its params.  Raises NotFound."""
        found = await self._call("GET", f"/dags/{_quoted(dag_id)}/details")
        return _dag(found)

    async def dags(self, tags: Sequence[str] = (), match: str = "all") -> list[Dag]:
        """Return the DAGs that have all of `tags`, or with match "any" one of them."""
        found = await self._pages("/dags", "dags", {"tags": list(tags), "tags_match_mode": match})
        return [_dag(item) for item in found]

    async def tags(self, prefix: str) -> list[str]:
        """Return the tags that begin with `prefix`, of all DAGs that there are."""
        return [str(tag) for tag in await self._pages("/dagTags", "tags", {"tag_name_prefix_pattern": prefix})]

    async def version(self, dag_id: str) -> DagVersion:
        """Return a DAG's latest version.  Raises NotFound."""
        query = {"order_by": "-version_number", "limit": 1}
        found = (await self._call("GET", f"/dags/{_quoted(dag_id)}/dagVersions", params=query))["dag_versions"]
        if not found:
            raise NotFound(f"Airflow has no version of DAG {dag_id}")
        latest = found[0]
        return DagVersion(latest["version_number"], latest["bundle_name"] or "", latest["bundle_version"] or "")

    async def reparse(self, file_token: str) -> None:
        """Ask for a file to be parsed before all others."""
        try:
            await self._call("PUT", f"/parseDagFile/{_quoted(file_token)}")
        except AlreadyExists:
            return

    async def pause(self, dag_id: str, paused: bool) -> None:
        """Set the pause switch of a DAG."""
        await self._call("PATCH", f"/dags/{_quoted(dag_id)}", json={"is_paused": paused})

    async def delete_dag(self, dag_id: str) -> None:
        """Forget a DAG and its history.  Raises NotFound."""
        await self._call("DELETE", f"/dags/{_quoted(dag_id)}")

    async def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any], note: str = "") -> DagRun:
        """Create a run under `run_id`.  Raises AlreadyExists if that id is taken: read it to see whose it is."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)} | ({"note": note} if note else {})
        return _run(await self._call("POST", f"/dags/{_quoted(dag_id)}/dagRuns", json=body))

    async def run(self, dag_id: str, run_id: str) -> DagRun:
        """Return a run.  Raises NotFound."""
        return _run(await self._call("GET", f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"))

    async def recent_runs(self, since: datetime) -> list[DagRun]:
        """Return the runs of all DAGs that changed after `since`, oldest first."""
        query = {"updated_at_gte": since.isoformat(), "order_by": "id"}
        return [_run(item) for item in await self._pages("/dags/~/dagRuns", "dag_runs", query)]

    async def fail_run(self, dag_id: str, run_id: str) -> None:
        """Mark a run failed: its running tasks are killed."""
        path = f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"
        await self._call("PATCH", path, json={"state": "failed"})

    async def active_runs(self, dag_id: str) -> list[DagRun]:
        """Return the runs of a DAG that wait or go on, in the order in which they are begun."""
        query = {"state": ["queued", "running"], "order_by": "run_after"}
        return [_run(item) for item in await self._pages(f"/dags/{_quoted(dag_id)}/dagRuns", "dag_runs", query)]

    async def newest_run(self, dag_id: str, state: str = "") -> tuple[DagRun | None, int]:
        """Return the newest run of a DAG, of those in `state` if that is given, and how many there are."""
        query: dict[str, Any] = {"order_by": "-run_after", "limit": 1, **({"state": [state]} if state else {})}
        answer = await self._call("GET", f"/dags/{_quoted(dag_id)}/dagRuns", params=query)
        return (_run(answer["dag_runs"][0]) if answer["dag_runs"] else None), int(answer["total_entries"])

    async def clear(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> None:
        """Have one task of a run done again, with all that follows it in this run.

        Raises AlreadyExists if one of them runs, NotFound, InvalidArgument.
        """
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": [task_id if map_index < 0 else [task_id, map_index]],
            "only_failed": False,
            "include_downstream": True,
            "reset_dag_runs": True,
            "prevent_running_task": True,
        }
        await self._call("POST", f"/dags/{_quoted(dag_id)}/clearTaskInstances", json=body)

    async def delete_run(self, dag_id: str, run_id: str) -> None:
        """Forget a run.  Raises NotFound."""
        await self._call("DELETE", f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}")

    async def tasks(self, dag_id: str, run_id: str) -> list[Task]:
        """Return the task instances of a run."""
        path = f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/taskInstances"
        return [_task(item) for item in await self._pages(path, "task_instances", {})]

    async def tries(self, dag_id: str, run_id: str, task: Task) -> list[Task]:
        """Return every try of a task, oldest first; those that were cleared before they began are left out."""
        mapped = f"/{task.map_index}" if task.map_index >= 0 else ""
        path = f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/taskInstances/{_quoted(task.task_id)}{mapped}/tries"
        found = [_task(item) for item in (await self._call("GET", path))["task_instances"]]
        return sorted((each for each in found if each.try_number > 0), key=lambda each: each.try_number)

    async def waiting(self, pool: str) -> list[tuple[DagRunId, Task]]:
        """Return the tasks of all runs that wait for a place in a pool, those that get the next ones first."""
        query = {"state": "scheduled", "pool": pool}
        items = await self._pages("/dags/~/dagRuns/~/taskInstances", "task_instances", query)
        items.sort(key=lambda item: (-(item["priority_weight"] or 0), item["run_after"], item["map_index"]))
        return [((item["dag_id"], item["dag_run_id"]), _task(item)) for item in items]

    async def pool(self, name: str) -> Pool:
        """Return a pool.  Raises NotFound."""
        found = await self._call("GET", f"/pools/{_quoted(name)}")
        return Pool(found["name"], found["slots"], found["occupied_slots"])

    async def follows(self, dag_id: str) -> dict[str, tuple[str, ...]]:
        """Return which tasks come right after each task of a DAG.  Raises NotFound."""
        answer = await self._call("GET", f"/dags/{_quoted(dag_id)}/tasks")
        return {item["task_id"]: tuple(item["downstream_task_ids"] or ()) for item in answer["tasks"]}

    async def xcom(self, dag_id: str, run_id: str, task: Task, key: str) -> Any | None:
        """Return what a task pushed under `key`, None if it did not."""
        path = (
            f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/taskInstances/{_quoted(task.task_id)}"
            f"/xcomEntries/{_quoted(key)}"
        )
        query = {"map_index": task.map_index, "deserialize": "false", "stringify": "false"}
        try:
            return (await self._call("GET", path, params=query))["value"]
        except NotFound:
            return None

    async def log_records(self, dag_id: str, run_id: str, task: Task) -> list[Mapping[str, Any]]:
        """Return the log of a task's latest try: `event`, `level`, and `error_detail` where it tells an exception."""
        path = (
            f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/taskInstances/{_quoted(task.task_id)}"
            f"/logs/{max(task.try_number, 1)}"
        )
        answer = await self._call("GET", path, params={"full_content": "true", "map_index": task.map_index})
        return [line if isinstance(line, dict) else {"event": line} for line in answer.get("content", [])]

    async def events(self, dag_id: str, run_id: str, task: Task) -> list[Mapping[str, Any]]:
        """Return what Airflow noted of a task beside its state: {"event", "extra"}, the latest first."""
        query = {"dag_id": dag_id, "run_id": run_id, "task_id": task.task_id, "order_by": "-event_log_id", "limit": 20}
        found = (await self._call("GET", "/eventLogs", params=query))["event_logs"]
        return [{"event": one.get("event"), "extra": one.get("extra")} for one in found]

    async def task_log(self, dag_id: str, run_id: str, task: Task) -> str:
        """Return the log of a task's latest try as text."""
        return "\n".join(_log_line(line) for line in await self.log_records(dag_id, run_id, task))

    async def asset(self, uri: str) -> int | None:
        """Return the id of an asset, None if no DAG names it."""
        found = await self._call("GET", "/assets", params={"uri_pattern": uri, "limit": 100})
        return next((int(asset["id"]) for asset in found["assets"] if asset["uri"] == uri), None)

    async def asset_event(self, asset: int, extra: Mapping[str, Any]) -> None:
        """Note that an asset changed."""
        await self._call("POST", "/assets/events", json={"asset_id": asset, "extra": dict(extra)})

    async def _pages(self, path: str, key: str, query: Mapping[str, Any]) -> list[Any]:
        found: list[Any] = []
        while True:
            answer = await self._call("GET", path, params={**query, "limit": 100, "offset": len(found)})
            found += answer[key]
            if not answer[key] or len(found) >= answer["total_entries"]:
                return found

    async def _call(self, method: str, path: str, **sent: Any) -> Any:
        for attempt in (0, 1):
            answer = await self._send(method, path, **sent)
            if answer.status_code != 401 or attempt:
                break
            self._token = ""
        if answer.status_code == 204 or not answer.content:
            return None
        if not answer.is_success:
            raise _refusal(answer)
        return _json(answer)

    async def _send(self, method: str, path: str, **sent: Any) -> httpx.Response:
        try:
            if not self._token:
                granted = await self._http.get("/auth/token")
                if granted.status_code != 201:
                    raise _refusal(granted)
                self._token = str(_json(granted)["access_token"])
            headers = {"Authorization": f"Bearer {self._token}"}
            return await self._http.request(method, f"/api/v2{path}", headers=headers, **sent)
        except (httpx.HTTPError, KeyError) as error:
            told = str(error) or type(error).__name__
            raise Unavailable(f"Airflow at {self._url} does not answer: {told}") from error


def _quoted(part: str) -> str:
    # Airflow takes "." and ".." as ids of runs; written plainly they would be steps to another address.
    return quote(part, safe="") if part.strip(".") else part.replace(".", "%2E")


def _refusal(answer: httpx.Response) -> ApiError:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text
    text = f"Airflow answered {answer.status_code}: {_shortened(str(detail))}"
    if answer.status_code == 404:
        return NotFound(text)
    if answer.status_code == 409:
        return AlreadyExists(text)
    if answer.status_code in (400, 422):
        return InvalidArgument(text)
    return Unavailable(text)


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise Unavailable(f"Airflow answered no JSON: {_shortened(answer.text)}") from error


def _shortened(text: str) -> str:
    return " ".join(text.split())[:SHOWN]


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _dag(found: Mapping[str, Any]) -> Dag:
    return Dag(
        dag_id=found["dag_id"],
        is_paused=bool(found["is_paused"]),
        file_token=found["file_token"],
        tags=tuple(tag["name"] for tag in found["tags"] or ()),
        params=found.get("params") or {},
        is_stale=bool(found.get("is_stale")),
        description=found.get("description") or "",
        max_active_runs=found.get("max_active_runs") or 0,
        max_active_tasks=found.get("max_active_tasks") or 0,
        file=found.get("relative_fileloc") or "",
        owners=tuple(found.get("owners") or ()),
        parsed=_time(found.get("last_parsed_time")),
        parse_s=found.get("last_parse_duration") or 0.0,
        unreadable=bool(found.get("has_import_errors")),
    )


def _run(found: Mapping[str, Any]) -> DagRun:
    return DagRun(
        dag_id=found["dag_id"],
        run_id=found["dag_run_id"],
        state=found["state"],
        conf=found["conf"] or {},
        due=datetime.fromisoformat(found["run_after"]),
        start=_time(found["start_date"]),
        end=_time(found["end_date"]),
        run_type=found["run_type"],
        triggered_by=found.get("triggering_user_name") or found.get("triggered_by") or "",
    )


def _task(found: Mapping[str, Any]) -> Task:
    return Task(
        task_id=found["task_id"],
        display_name=found["task_display_name"],
        map_index=found["map_index"],
        try_number=found["try_number"],
        state=found["state"],
        start=_time(found["start_date"]),
        end=_time(found["end_date"]),
        operator=found.get("operator_name") or found.get("operator") or "",
        pool=found.get("pool") or "",
        priority=found.get("priority_weight") or 0,
        scheduled=_time(found.get("scheduled_when")),
        queued=_time(found.get("queued_when")),
    )


def _log_line(line: Mapping[str, Any]) -> str:
    if line.keys() == {"event"}:
        return str(line["event"])
    stamp = str(line.get("timestamp") or "")[:19]
    return f"{stamp} {line.get('level', '')} {line.get('event', '')}".strip()
