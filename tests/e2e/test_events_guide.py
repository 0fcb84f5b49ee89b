"""What docs/events.md shows works: its files, its commands and its Python, one after the other, on a real platform."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.subscriptions.values import EVENT, SUBSCRIPTION
from tests.e2e.flights_platform import PROJECT, Flights, eventually
from tests.e2e.guide import Guide

DAG = f"{PROJECT}.train"
MADE = {"Subscription": ("on-loaded", "when-both", "on-model"), "Pipeline": ("score",)}


@pytest.fixture
def held(flights: Flights) -> Iterator[Flights]:
    """The example, whose pipeline's runs are made and do not begin; what the guide makes is removed."""
    with flights.airflow() as airflow:
        airflow.patch(f"/api/v2/dags/{DAG}", json={"is_paused": True}).raise_for_status()
        yield flights
        for kind, names in MADE.items():
            for name in names:
                if flights.api.find(kind, PROJECT, name) is not None:
                    flights.api.delete(kind, PROJECT, name)
        for run in begun(flights):
            flights.api.delete("PipelineRun", PROJECT, run.metadata.name)
        airflow.patch(f"/api/v2/dags/{DAG}", json={"is_paused": False}).raise_for_status()


def begun(flights: Flights, subscription: str = "") -> list[Any]:
    selector = f"{SUBSCRIPTION}={subscription}" if subscription else SUBSCRIPTION
    return flights.api.list("PipelineRun", PROJECT, selector=selector)


def test_the_guide_from_its_beginning_to_its_end(held: Flights, tmp_path: Path) -> None:
    port = {"127.0.0.1:15567": f"127.0.0.1:{held.config.api_http_port}"}
    told = Guide("events.md").follow(held.config, tmp_path, port)
    assert "was there already" in told
    assert told.count('"event":') == 2
    single = eventually(lambda: found if len(found := begun(held, "on-loaded")) >= 3 else None, "three runs")
    (pair,) = eventually(lambda: begun(held, "when-both"), "the run of both")
    assert len(single) == 3
    assert len(pair.metadata.annotations[EVENT].split(",")) == 2
    conf = {run.metadata.name: dag_run(held, run)["conf"] for run in (*single, pair)}
    until = sorted(conf[run.metadata.name]["train_until"] for run in single)
    assert until == ["2013-09-30", "2013-10-31", "2013-11-30"]
    assert conf[pair.metadata.name]["train_until"] == "2013-12-31"
    assert {conf[run.metadata.name]["minimum_auc"] for run in single} == {0.7}
    shown(held)
    ended = held.ma("get", "subscription", "on-loaded", "-n", PROJECT, "-o", "json")
    assert json.loads(ended.out)["status"]["runs"] == "3"


def dag_run(flights: Flights, run: Any) -> Any:
    """Return Airflow's own record of a run."""

    def look() -> Any:
        name = flights.run(run.metadata.name).status.workflow_run_id
        return airflow.get(f"/api/v2/dags/{DAG}/dagRuns/{name}").raise_for_status().json() if name else None

    with flights.airflow() as airflow:
        return eventually(look, f"the DAG run of {run.metadata.name}")


def shown(flights: Flights) -> None:
    """Airflow's graph has the events as assets, which subscriptions wait for them, and each event that came."""

    def look() -> Any:
        found = airflow.get("/api/v2/assets", params={"uri_pattern": f"ma-event://{PROJECT}/"}).json()["assets"]
        by_uri = {asset["uri"].rsplit("/", 1)[-1]: asset for asset in found}
        loaded = by_uri.get("flights.loaded")
        if loaded is None or len(by_uri) < 4:
            return None
        events = airflow.get("/api/v2/assets/events", params={"asset_id": loaded["id"]}).json()["asset_events"]
        return (loaded, events) if len(events) >= 3 else None

    with flights.airflow() as airflow:
        loaded, events = eventually(look, "the events as assets", timeout_s=120)
    assert [task["task_id"] for task in loaded["consuming_tasks"]] == ["on-loaded"]
    assert {event["extra"]["key"] for event in events} == {"2013-09", "2013-10", "2013-11"}
