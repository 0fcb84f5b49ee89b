"""No message, however odd, is an internal error, takes a second or stops the server; a refused one writes nothing."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.kinds import kinds
from api.workflows import STEPS_TYPE, typed
from tests.api.running import ANSWER_S, Served, read, request_of
from tests.api.workloads import built, run
from tests.robustness.random_messages import Maker

EACH = 150
PROJECT = "fuzzed"
KINDS = sorted(kinds())
REFUSALS = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "ABORTED",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "RESOURCE_EXHAUSTED",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a project, a pipeline and a family to refer to."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    made = Served(folder / "store.db")
    made.create(kinds()["Project"].new(PROJECT, PROJECT))
    pipeline = kinds()["Pipeline"].new(PROJECT, "a")
    pipeline.spec.manifest.file_path = "train"
    made.create(pipeline)
    made.create(kinds()["ModelFamily"].new(PROJECT, "a"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


def answer(served: Served, kind: str, verb: str, request: Any) -> str:
    """Return the outcome of a call: OK or the code of its refusal, which must be a good one."""
    before, began = served.log(), time.monotonic()
    try:
        served.call(kind, verb, request)
        return "OK"
    except grpc.RpcError as error:
        refusal = read(error)
    assert time.monotonic() - began < ANSWER_S, request
    assert refusal.code in REFUSALS, f"{refusal}\n{request!r}"[:5_000]
    assert refusal.reason, refusal
    assert served.log() == before
    return refusal.code


def place(maker: Maker, item: Any, *, name: str) -> None:
    """Give an object a name and a project that are accepted, most of the time."""
    if maker.pick.random() < 0.9:
        project = name if item.DESCRIPTOR.name == "Project" else PROJECT
        item.metadata.name, item.metadata.namespace = name, project
    if maker.pick.random() < 0.8:
        item.metadata.ClearField("ownerReferences")
        item.metadata.ClearField("resourceVersion")
        item.metadata.ClearField("uid")
        item.metadata.ClearField("creationTimestamp")


@pytest.mark.parametrize("kind", KINDS)
def test_any_object_is_stored_whole_or_refused(served: Served, kind: str) -> None:
    maker, outcomes = Maker(KINDS.index(kind)), Counter[str]()
    single = kinds()[kind].singular
    for number in range(EACH):
        item = maker.fill(kinds()[kind].new(), maker.pick.choice((0.05, 0.15, 0.4)))
        place(maker, item, name=f"f-{kind.lower()}-{number // 3}")
        verb = maker.pick.choice(("Create", "Create", "Update"))
        request = request_of(kind, verb, **{single: item})
        if maker.pick.random() < 0.2:
            maker.fill(request, 0.1)
        outcomes[answer(served, kind, verb, request)] += 1
    page = served.list(kind)
    for item in page.items:
        again = kinds()[kind].message.FromString(item.SerializeToString())
        assert again == item
        assert item.metadata.uid
    assert outcomes["INVALID_ARGUMENT"], outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_any_list_get_and_delete_is_answered(served: Served, kind: str) -> None:
    maker, outcomes = Maker(100 + KINDS.index(kind)), Counter[str]()
    for _ in range(EACH):
        verb = maker.pick.choice(("List", "List", "List", "Get", "Delete"))
        outcomes[answer(served, kind, verb, maker.fill(request_of(kind, verb), maker.pick.choice((0.1, 0.5))))] += 1
    assert len(outcomes) > 1, outcomes


def test_any_graph_of_steps_is_stored_or_refused(served: Served) -> None:
    maker, outcomes = Maker(7), Counter[str]()
    names = ["a", "b", "c", "Bad", "", 5, None, ["a"], {}]
    for number in range(EACH * 4):
        steps: Any = [odd_step(maker, names) for _ in range(maker.pick.randint(0, 4))]
        if maker.pick.random() < 0.1:
            steps = maker.json()
        item = kinds()["Pipeline"].new(PROJECT, f"graph-{number}")
        item.spec.manifest.content.Pack(typed(STEPS_TYPE, {"steps": steps}))
        outcomes[answer(served, "Pipeline", "Create", request_of("Pipeline", "Create", pipeline=item))] += 1
    assert outcomes["OK"], outcomes
    assert outcomes["INVALID_ARGUMENT"], outcomes


def odd_step(maker: Maker, names: list[Any]) -> Any:
    pick = maker.pick
    made: Any = {"name": pick.choice(names), "operator": pick.choice(("train", "train", "", 5))}
    if pick.random() < 0.6:
        made["needs"] = pick.choice((names[:1], names[1:2], [pick.choice(names)], maker.json()))
    if pick.random() < 0.3:
        made["with"] = pick.choice(({"x": "${steps.a.outputs.y}"}, maker.json()))
    if pick.random() < 0.2:
        made[pick.choice(("retries", "wiht"))] = maker.json()
    return made if pick.random() < 0.95 else maker.json()


def test_any_input_of_a_run_is_stored_or_refused(served: Served) -> None:
    maker, outcomes = Maker(8), Counter[str]()
    built(served, PROJECT)
    for number in range(EACH * 4):
        good = {"rows": 3, "rate": 0.5, "label": "x"}
        given = {name: maker.json() if maker.pick.random() < 0.15 else value for name, value in good.items()}
        item = run(PROJECT, kw_args=given if maker.pick.random() < 0.9 else maker.json())
        item.metadata.name = f"run-{number}"
        if maker.pick.random() < 0.1:
            item.spec.input.update({maker.text(): maker.json()})
        outcomes[answer(served, "PipelineRun", "Create", request_of("PipelineRun", "Create", pipeline_run=item))] += 1
    assert outcomes["OK"], outcomes
    assert outcomes["INVALID_ARGUMENT"], outcomes


def test_any_cron_expression_is_stored_or_refused(served: Served) -> None:
    maker, outcomes = Maker(9), Counter[str]()
    parts = ["*", "*/5", "0", "1-5", "5-1", "59", "60", "L", "W", "#", "1#2", "MON", "*/0", "1,2", ",", "-", "٣", "@"]
    for number in range(EACH * 2):
        item = kinds()["Pipeline"].new(PROJECT, f"cron-{number}")
        item.spec.manifest.file_path = "train"
        cron = " ".join(maker.pick.choice(parts[:5] if maker.pick.random() < 0.6 else parts) for _ in range(5))
        item.spec.manifest.trigger_map["t"].cron_schedule.cron = cron
        outcomes[answer(served, "Pipeline", "Create", request_of("Pipeline", "Create", pipeline=item))] += 1
    assert outcomes["OK"], outcomes
    assert outcomes["INVALID_ARGUMENT"], outcomes


def test_the_server_is_well_afterwards(served: Served) -> None:
    assert served.get("Project", PROJECT, PROJECT).metadata.name == PROJECT
    made = served.create(kinds()["ModelFamily"].new(PROJECT, "afterwards"))
    assert served.get("ModelFamily", PROJECT, "afterwards") == made
