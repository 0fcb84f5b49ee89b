"""Starting the PipelineRuns of a trigger: what an Airflow task of its DAG does.  Keeps no time and no state.

A run's name is computed from (trigger, instant, entry): whoever repeats a task finds the run that an earlier try made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from api.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from api.instants import Missed, Schedule
from operators.triggers import TurnTrigger

if TYPE_CHECKING:
    from api.client import Client

LABEL = "pipelinerun.michelangelo/"
# Runs of one trigger, also when another one had its name before.
TRIGGER_LABEL = "michelangelo.airflow/trigger"
RERUN_OF = "michelangelo.airflow/rerun-of"
# Two entries of one digest would be one run: at 48 bits a million entries an instant are still told apart.
DIGEST_LENGTH = 12
STAMP = "%Y%m%dT%H%M%SZ"


def run_name(trigger: str, uid: str, instant: datetime, entry: str) -> str:
    """Return the name of the run of one entry at one instant: the same however often the task is repeated."""
    moment = instant.astimezone(UTC)
    digest = hashlib.sha256(f"{uid}/{moment.isoformat()}/{entry}".encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{trigger[:180]}-{moment:%Y%m%d-%H%M%S}-{digest}"


def inputs(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's input of a parameter entry: kw_args over parameter_map, whose values are text."""
    given = {key: value for key, value in entry.items() if key != "parameter_map"}
    values = {**entry.get("parameter_map", {}), **entry.get("kw_args", {})}
    return {**given, **({"kw_args": values} if values else {})}


@dataclass(frozen=True)
class Tick:
    """One instant of a trigger.  manifest: `api.trigger_dags`; began: when Airflow began it, None if a person asked."""

    manifest: Mapping[str, Any]
    instant: datetime
    began: datetime | None = None

    @classmethod
    def of(cls, manifest: Mapping[str, Any], context: Mapping[str, Any]) -> Tick:
        """Return the tick that a task works for.  All tasks and tries of a DAG run have the same one."""
        dag_run = context["dag_run"]
        # A run that a person starts need not have a logical date.
        instant = context.get("logical_date") or dag_run.run_after
        return cls(manifest, instant, dag_run.start_date if dag_run.run_type == "scheduled" else None)

    @property
    def entries(self) -> list[str]:
        """What is to be run, in order: entries of the parameters, or runs to repeat as `namespace/name`."""
        rerun = self.manifest.get("rerun")
        if rerun:
            return [f"{namespace}/{name}" for namespace, name in rerun["runs"]]
        return sorted(self.manifest["parameters"])

    def held_back(self, api: Client) -> str:
        """Return why nothing is to be started, empty if something is."""
        from api.gen.michelangelo.api.v2 import trigger_run_pb2 as wire

        namespace = self.manifest.get("namespace", self.manifest["project"])
        trigger = api.find("TriggerRun", namespace, self.manifest["name"])
        if trigger is None or trigger.metadata.uid != self.manifest["uid"]:
            return "the trigger is gone"
        if trigger.spec.kill or trigger.spec.action == wire.TRIGGER_RUN_ACTION_KILL:
            return "the trigger was ended"
        if self.manifest.get("type", "cron") not in ("cron", "interval"):
            return ""
        if trigger.spec.action == wire.TRIGGER_RUN_ACTION_PAUSE:
            return "the trigger is paused"
        return self._out_of_time()

    def _out_of_time(self) -> str:
        manifest, instant = self.manifest, int(self.instant.timestamp())
        if self.began is None:
            return ""
        if instant <= datetime.fromisoformat(manifest["start"]).timestamp():
            return "it was due before the trigger was activated or resumed"
        interval_s = manifest["interval_s"]
        schedule = Schedule(manifest["cron"], interval_s and int(interval_s), manifest.get("timezone", "UTC"))
        missed = Missed.parse(manifest.get("missed", ""))
        if missed.wants(schedule, instant, int(self.began.timestamp())):
            return ""
        return f"it was missed, it began at {self.began:%Y-%m-%dT%H:%M:%SZ} (missed ticks: {missed})"

    def name_of(self, entry: str) -> str:
        """Return the name of the run of an entry."""
        return run_name(self.manifest["name"], self.manifest["uid"], self.instant, entry)

    def create(self, api: Client, entry: str) -> str:
        """Create the PipelineRun of `entry` and return its name; one that exists is the same run.

        Raises AirflowFailException if the API refuses the values: it would refuse them again.
        """
        name = self.name_of(entry)
        told = f"entry {entry!r} of trigger {self.manifest['name']}"
        try:
            api.create(self.again(api, entry) if self.manifest.get("rerun") else self.run(entry))
        except AlreadyExists:
            return name
        except FailedPrecondition as error:
            if error.reason == "PIPELINE_PAUSED":
                raise AirflowSkipException(f"{told}: {error.message}") from error
            raise AirflowFailException(f"{told}: {error.message}") from error
        except (InvalidArgument, NotFound) as error:
            raise AirflowFailException(f"{told}: {error.message}") from error
        return name

    def run(self, entry: str) -> Any:
        """Return the PipelineRun of an entry."""
        from api.kinds import kinds

        manifest = self.manifest
        run = kinds()["PipelineRun"].new(manifest["project"], self.name_of(entry))
        run.metadata.labels.update(
            {
                TRIGGER_LABEL: manifest["uid"],
                f"{LABEL}triggered-by": manifest["name"],
                f"{LABEL}source-trigger": manifest.get("source", manifest["name"]),
                f"{LABEL}execution-timestamp": self.stamp,
                f"{LABEL}parameter-id": entry,
                f"{LABEL}pipeline-name": manifest["pipeline"],
                f"{LABEL}environment": "production",
            }
        )
        run.spec.pipeline.namespace, run.spec.pipeline.name = manifest["project"], manifest["pipeline"]
        if manifest.get("revision"):
            run.spec.revision.namespace, run.spec.revision.name = manifest["project"], manifest["revision"]
        run.spec.actor.name = f"trigger:{manifest['name']}"
        given = inputs(manifest["parameters"].get(entry, {}))
        if given:
            run.spec.input.update(given)
        return run

    def again(self, api: Client, entry: str) -> Any:
        """Return the PipelineRun that repeats one of the past: its input, its revision, what it did if that is kept."""
        namespace, _, name = entry.partition("/")
        old = api.get("PipelineRun", namespace, name)
        run, rerun = self.run(entry), self.manifest["rerun"]
        run.spec.input.CopyFrom(old.spec.input)
        if old.spec.HasField("revision"):
            run.spec.revision.CopyFrom(old.spec.revision)
        if parameter := old.metadata.labels.get(f"{LABEL}parameter-id"):
            run.metadata.labels[f"{LABEL}parameter-id"] = parameter
        run.metadata.annotations[RERUN_OF] = name
        if rerun["resume_from"] or rerun["resume_up_to"]:
            resume = run.spec.resume
            resume.pipeline_run.namespace, resume.pipeline_run.name = namespace, name
            # In a BatchRerun no step named means all of them, in a Resume those that did not succeed.
            resume.resume_from.extend(rerun["resume_from"] or [step.name for step in old.status.steps])
            resume.resume_up_to.extend(rerun["resume_up_to"])
        return run

    @property
    def stamp(self) -> str:
        """The instant as the label that all its runs have."""
        return self.instant.astimezone(UTC).strftime(STAMP)

    def wanted(self, api: Client) -> list[str]:
        """Return the entries that a backfill is to run: all, those that never ran, or those that failed last."""
        only = self.manifest.get("only", "all")
        if only == "all" or self.manifest.get("type") != "backfill":
            return self.entries
        selector = f"{LABEL}pipeline-name={self.manifest['pipeline']},{LABEL}execution-timestamp={self.stamp}"
        before = [
            run
            for run in api.list("PipelineRun", self.manifest["project"], selector=selector)
            if run.metadata.labels.get(TRIGGER_LABEL) != self.manifest["uid"]
        ]
        return list(_chosen(self.entries, before, only))

    def ordinal(self, position: int) -> int:
        """Return how many runs of the whole trigger come before one of this instant."""
        if self.manifest.get("type") != "backfill":
            return position
        manifest, interval_s = self.manifest, self.manifest["interval_s"]
        schedule = Schedule(manifest["cron"], interval_s and int(interval_s), manifest.get("timezone", "UTC"))
        start = int(datetime.fromisoformat(manifest["start"]).timestamp())
        before = sum(1 for _ in _between(schedule, start, int(self.instant.timestamp())))
        return before * len(self.entries) + position


def _between(schedule: Schedule, start: int, end: int) -> Iterator[int]:
    for instant in schedule.after(start - 1):
        if instant >= end:
            return
        yield instant


def _chosen(entries: Sequence[str], before: Sequence[Any], only: str) -> Iterator[str]:
    from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire

    unfinished_well = (wire.PIPELINE_RUN_STATE_FAILED, wire.PIPELINE_RUN_STATE_KILLED)
    for entry in entries:
        mine = [run for run in before if run.metadata.labels.get(f"{LABEL}parameter-id") == entry]
        latest = max(mine, key=lambda run: run.metadata.creationTimestamp.ToNanoseconds(), default=None)
        if latest is None:
            if only == "missing":
                yield entry
        elif only == "failed" and latest.status.state in unfinished_well:
            yield entry


class StartRunsOperator(BaseOperator):
    """Creates the runs of one instant one after another, in batches and never more at a time than are allowed.

    One writer, so that no bound is passed; while it waits it holds no worker.
    """

    template_fields: Sequence[str] = ()
    ui_color = "#e8f1fb"

    def __init__(self, *, manifest: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manifest = manifest

    def execute(self, context: Any) -> list[str]:
        """Create all runs, or find them.  Returns their names."""
        return self._go_on(Tick.of(self.manifest, context))

    def go_on(self, context: Any, event: Mapping[str, Any]) -> list[str]:
        """Go on when it is the next one's turn."""
        return self._go_on(Tick.of(self.manifest, context))

    def _go_on(self, tick: Tick) -> list[str]:
        from operators.hooks.michelangelo import client

        names, refused = [], []
        with client() as api:
            entries = tick.wanted(api)
            if not entries:
                raise AirflowSkipException("nothing of this instant is missing, or failed")
            for position, entry in enumerate(entries):
                # A name that is there was made before this task waited, or by an earlier try.
                if api.find("PipelineRun", self.manifest["project"], tick.name_of(entry)) is None:
                    if reason := tick.held_back(api):
                        raise AirflowSkipException(f"{tick.stamp}: {reason}")
                    self._wait_for_turn(api, tick, position)
                    try:
                        self.log.info("run %s of %s", tick.create(api, entry), entry)
                    except AirflowFailException as error:
                        # The others are not to wait for one that would be refused again.
                        refused.append(str(error))
                        continue
                names.append(tick.name_of(entry))
        if refused:
            raise AirflowFailException("; ".join(refused))
        return names

    def _wait_for_turn(self, api: Client, tick: Tick, position: int) -> None:
        """Defer unless the next run may be created now."""
        from operators.hooks.michelangelo import is_turn

        namespace = self.manifest.get("namespace", self.manifest["project"])
        asked = {
            "namespace": namespace,
            "name": self.manifest["name"],
            "uid": self.manifest["uid"],
            "project": self.manifest["project"],
            "most": int(self.manifest["max_concurrency"]),
            "not_before": self._batch_begins(api, tick, position),
        }
        if not is_turn(api, **asked):
            self.defer(trigger=TurnTrigger(**asked), method_name="go_on")

    def _batch_begins(self, api: Client, tick: Tick, position: int) -> float:
        """Return when the batch may begin that a run opens, as Unix time; 0 for at once."""
        batch = self.manifest.get("batch")
        if not batch or tick.ordinal(position) % batch["size"]:
            return 0.0
        selector = f"{TRIGGER_LABEL}={self.manifest['uid']}"
        order = [("metadata.creation_timestamp", True)]
        if self.manifest.get("type") != "backfill":
            selector = f"{selector},{LABEL}execution-timestamp={tick.stamp}"
        newest = api.list("PipelineRun", self.manifest["project"], selector=selector, order=order, limit=1)
        return float(newest[0].metadata.creationTimestamp.ToNanoseconds() / 1e9 + batch["wait_s"]) if newest else 0.0


def start_date(manifest: Mapping[str, Any]) -> pendulum.DateTime:
    """Return what a trigger's instants come after: of a backfill the first one counts."""
    start = pendulum.instance(datetime.fromisoformat(manifest["start"]))
    return start.subtract(seconds=1) if manifest.get("type") == "backfill" else start
