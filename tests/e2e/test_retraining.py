"""A cron trigger retrains by itself: Airflow keeps the time, every instant is one run, every run one model version."""

from typing import Any

from google.protobuf import struct_pb2

from api.kinds import kinds
from tests.e2e.flights_platform import PROJECT, SUCCEEDED, Flights, eventually

EVERY_MINUTE = "* * * * *"
SMALL: dict[str, Any] = {"sample_fraction": 0.05, "minimum_auc": 0.5, "deployment": "", "model_name": "minutely"}


def trigger() -> Any:
    """A TriggerRun that starts a small training every minute."""
    resource = kinds()["TriggerRun"].new(PROJECT, "minutely")
    resource.spec.pipeline.namespace, resource.spec.pipeline.name = PROJECT, "train"
    resource.spec.actor.name = "test"
    resource.spec.trigger.cron_schedule.cron = EVERY_MINUTE
    given = struct_pb2.Struct()
    given.update(SMALL)
    resource.spec.trigger.parameters_map["small"].kw_args.CopyFrom(given)
    return resource


def test_a_trigger_of_one_minute_makes_two_runs_and_each_registers_a_version(flights: Flights) -> None:
    flights.api.create(trigger())

    def own() -> list[Any]:
        runs = flights.api.list("PipelineRun", PROJECT, selector="pipelinerun.michelangelo/source-trigger=minutely")
        return sorted(runs, key=lambda run: str(run.metadata.name))

    try:
        runs = eventually(lambda: own() if len(own()) >= 2 else None, "the second run", timeout_s=180)[:2]
    finally:
        ended = flights.ma("trigger-run", "kill", "minutely", "-n", PROJECT)
        assert ended.code == 0, ended.err
    assert runs[0].metadata.labels["pipelinerun.michelangelo/execution-timestamp"].endswith("00Z")
    for run in runs:
        assert flights.until_ended(run.metadata.name).status.state == SUCCEEDED
    sources = {
        model.spec.source_pipeline_run.name: model.metadata.name
        for model in flights.api.list("Model", PROJECT)
        if model.spec.model_family.name == "minutely"
    }
    assert {run.metadata.name for run in runs} <= sources.keys()
    assert {"minutely-1", "minutely-2"} <= set(sources.values())


def test_the_trigger_is_a_dag_with_the_schedule_and_is_gone_when_it_ended(flights: Flights) -> None:
    with flights.airflow() as http:
        nightly = http.get(f"/api/v2/dags/{PROJECT}.train.nightly").json()
        assert "0 3 * * *" in f"{nightly['timetable_summary']} {nightly['timetable_description']}"
        assert nightly["next_dagrun_run_after"].endswith("03:00:00Z")
        eventually(
            lambda: (
                http.get(f"/api/v2/dags/{PROJECT}.train.minutely").status_code == 404
                or http.get(f"/api/v2/dags/{PROJECT}.train.minutely").json().get("is_stale")
            ),
            "the end of the trigger's DAG",
            timeout_s=60,
        )
