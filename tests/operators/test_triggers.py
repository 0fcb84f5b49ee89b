"""Triggers: they go through the database as JSON, wait without holding up the others, stop a job only when asked."""

import asyncio
import importlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from operators import triggers
from operators.engines import engine
from operators.engines.base import JobSpec, JobState
from operators.hooks import michelangelo
from operators.triggers import JobTrigger, RolloutTrigger
from tests.patience import PATIENCE_S

EVERY = [
    JobTrigger(engine="local", job_id="train-1"),
    RolloutTrigger(namespace="flights", deployment="late", revision="model-1"),
]


def submitted(home: Path, job_id: str = "job", **args: Any) -> JobTrigger:
    places = {name: str(home / name) for name in ("ran", "pids", "until")}
    engine("local").submit(JobSpec(job_id, "family", {**places, **args}))
    return JobTrigger(engine="local", job_id=job_id)


async def first(trigger: BaseTrigger) -> Any:
    return (await asyncio.wait_for(anext(aiter(trigger.run())), PATIENCE_S)).payload


@pytest.mark.parametrize("trigger", EVERY, ids=lambda trigger: type(trigger).__name__)
def test_a_trigger_is_made_again_from_what_it_says_of_itself(trigger: BaseTrigger) -> None:
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
    assert type(again) is type(trigger)
    assert again.serialize() == trigger.serialize()


async def test_many_jobs_are_waited_for_without_a_thread_each(home: Path) -> None:
    names = [f"job-{number}" for number in range(5)]
    # Each writes down its processes in a file of its own: two that rename one file are in each other's way.
    waiting = [asyncio.ensure_future(first(submitted(home, name, pids=str(home / name)))) for name in names]
    before = threading.active_count()
    await asyncio.sleep(0.2)
    assert threading.active_count() <= before
    assert [task.result() for task in waiting if task.done()] == []
    (home / "until").touch()
    ended = await asyncio.gather(*waiting)
    assert [event["state"] for event in ended] == ["SUCCEEDED"] * 5


async def test_a_triggerer_that_stops_leaves_the_job_alone(home: Path) -> None:
    trigger = submitted(home)
    waiting = asyncio.ensure_future(first(trigger))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await trigger.cleanup()
    assert engine("local").result("job").state is JobState.RUNNING
    again = asyncio.ensure_future(first(JobTrigger(engine="local", job_id="job")))
    (home / "until").touch()
    assert (await again)["state"] == "SUCCEEDED"


async def test_a_person_who_kills_the_task_stops_the_job(home: Path) -> None:
    trigger = submitted(home, stubborn=True)
    await asyncio.to_thread(wait_for, home / "pids")
    stopping = asyncio.ensure_future(trigger.on_kill())
    longest = await longest_pause(stopping)
    assert longest < 0.5, "the loop was held up"
    assert engine("local").result("job").state is JobState.LOST


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def longest_pause(task: "asyncio.Future[Any]") -> float:
    longest, last = 0.0, time.monotonic()
    while not task.done():
        await asyncio.sleep(0.005)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    await task
    return longest


async def test_a_rollout_is_looked_at_until_it_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([(None, ""), (None, ""), (False, "model.onnx differs")])
    asked: list[tuple[str, ...]] = []

    def rollout(*about: str) -> Any:
        asked.append(about)
        time.sleep(0.3)
        return next(answers)

    monkeypatch.setattr(michelangelo, "rollout", rollout)
    monkeypatch.setattr(triggers, "ROLLOUT_LOOK_S", 0.01)
    event = asyncio.ensure_future(first(EVERY[1]))
    assert await longest_pause(event) < 0.2, "the loop was held up"
    assert event.result() == {"complete": False, "message": "model.onnx differs"}
    assert asked == [("flights", "late", "model-1")] * 3
