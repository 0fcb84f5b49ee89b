"""Which entries a backfill runs again, what a repeated run takes over, and when it is the next run's turn."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as runs
from api.gen.michelangelo.api.v2 import trigger_run_pb2 as triggers
from api.kinds import kinds
from operators.hooks.michelangelo import is_turn
from operators.start_runs import LABEL, TRIGGER_LABEL, Tick
from operators.triggers import TurnTrigger
from tests.dags.manifests import trigger

MOMENT = datetime(2026, 3, 3, 3, tzinfo=UTC)
FAILED, KILLED, SUCCEEDED, RUNNING = (
    runs.PIPELINE_RUN_STATE_FAILED,
    runs.PIPELINE_RUN_STATE_KILLED,
    runs.PIPELINE_RUN_STATE_SUCCEEDED,
    runs.PIPELINE_RUN_STATE_RUNNING,
)


class Book:
    """Resources by name, read as the client reads them."""

    def __init__(self, *resources: Any) -> None:
        self.resources = resources

    def get(self, kind: str, namespace: str, name: str) -> Any:
        return next(one for one in self.resources if one.metadata.name == name)

    def find(self, kind: str, namespace: str, name: str) -> Any:
        found = [one for one in self.resources if one.DESCRIPTOR.name == kind and one.metadata.name == name]
        return found[0] if found else None

    def list(self, kind: str, namespace: str, *, selector: str, equal: Any = None, limit: int = 0, **_: Any) -> Any:
        wanted = dict(term.split("=") for term in selector.split(","))
        found = [
            one
            for one in self.resources
            if one.DESCRIPTOR.name == kind
            and all(one.metadata.labels.get(key) == value for key, value in wanted.items())
            and all(getattr(one.status, key) == value for key, value in (equal or {}).items())
        ]
        return found[: limit or None]


def earlier(name: str, entry: str, state: Any, second: int, uid: str = "another") -> Any:
    """Return a run of the same instant."""
    run = kinds()["PipelineRun"].new("flights", name)
    run.metadata.labels.update(
        {
            TRIGGER_LABEL: uid,
            f"{LABEL}pipeline-name": "late",
            f"{LABEL}execution-timestamp": "20260303T030000Z",
            f"{LABEL}parameter-id": entry,
        }
    )
    run.metadata.creationTimestamp.seconds = second
    run.status.state = state
    return run


def backfill(only: str) -> Tick:
    entries: dict[str, Any] = {"eu": {}, "jp": {}, "uk": {}, "us": {}}
    return Tick(trigger(type="backfill", only=only, parameters=entries, start="2026-03-01T03:00:00Z"), MOMENT)


def test_only_what_failed_last_or_never_ran_is_run_again() -> None:
    book: Any = Book(
        earlier("a", "eu", FAILED, 1),
        earlier("b", "eu", SUCCEEDED, 2),
        earlier("c", "jp", SUCCEEDED, 1),
        earlier("d", "jp", KILLED, 2),
        earlier("e", "uk", RUNNING, 1),
        # What this backfill began itself decides nothing: a task that is repeated chooses the same.
        earlier("f", "us", SUCCEEDED, 3, uid="uid-nightly"),
    )
    assert backfill("all").wanted(book) == ["eu", "jp", "uk", "us"]
    assert backfill("failed").wanted(book) == ["jp"]
    assert backfill("missing").wanted(book) == ["us"]


def test_a_batch_counts_over_all_instants_of_a_backfill() -> None:
    assert backfill("all").ordinal(1) == 2 * 4 + 1
    assert Tick(trigger(), MOMENT).ordinal(1) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (([], []), None),
        ((["train"], []), (["train"], [])),
        ((["train"], ["evaluate"]), (["train"], ["evaluate"])),
        (([], ["train"]), (["prepare", "train", "evaluate"], ["train"])),
    ],
)
def test_a_repeated_run_takes_over_what_the_old_one_had(given: Any, expected: Any) -> None:
    old = earlier("old", "eu", FAILED, 1)
    old.spec.input.update({"kw_args": {"rows": 3}})
    old.spec.revision.name = "pipeline-late-1"
    for step in ("prepare", "train", "evaluate"):
        old.status.steps.add(name=step)
    rerun = {"runs": [["flights", "old"]], "resume_from": given[0], "resume_up_to": given[1]}
    tick = Tick(trigger(type="rerun", rerun=rerun, cron=None), MOMENT)
    assert tick.entries == ["flights/old"]
    book: Any = Book(old)
    run = tick.again(book, "flights/old")
    assert run.spec.input == old.spec.input
    assert run.spec.revision.name == "pipeline-late-1"
    assert run.metadata.labels[f"{LABEL}parameter-id"] == "eu"
    assert run.spec.HasField("resume") == (expected is not None)
    if expected:
        assert run.spec.resume.pipeline_run.name == "old"
        assert (list(run.spec.resume.resume_from), list(run.spec.resume.resume_up_to)) == expected


def test_it_is_the_next_runs_turn_when_few_enough_go_on_and_nobody_paused_it() -> None:
    own = kinds()["TriggerRun"].new("flights", "nightly")
    own.metadata.uid = "1"
    going = [earlier(name, "eu", state, 1, uid="1") for name, state in (("a", RUNNING), ("b", SUCCEEDED), ("c", 0))]
    book: Any = Book(own, *going)
    asked: dict[str, Any] = {"namespace": "flights", "name": "nightly", "uid": "1", "project": "flights"}
    assert is_turn(book, **asked, most=0, not_before=0.0)
    assert not is_turn(book, **asked, most=2, not_before=0.0)
    assert is_turn(book, **asked, most=3, not_before=0.0)
    later = (datetime.now(UTC) + timedelta(minutes=1)).timestamp()
    assert not is_turn(book, **asked, most=0, not_before=later)
    own.spec.action = triggers.TRIGGER_RUN_ACTION_PAUSE
    assert not is_turn(book, **asked, most=0, not_before=0.0)
    # Who was ended, or is another by now, waits for nothing: the task finds out why.
    own.spec.action = triggers.TRIGGER_RUN_ACTION_KILL
    assert is_turn(book, **asked, most=1, not_before=later)
    assert is_turn(book, **{**asked, "uid": "2"}, most=1, not_before=later)


def test_what_a_deferred_task_waits_on_goes_through_the_database() -> None:
    asked: dict[str, Any] = {
        "namespace": "flights",
        "name": "nightly",
        "uid": "1",
        "project": "flights",
        "most": 2,
        "not_before": 1.5,
    }
    path, arguments = TurnTrigger(**asked).serialize()
    assert path == "operators.triggers.TurnTrigger"
    assert arguments == asked
