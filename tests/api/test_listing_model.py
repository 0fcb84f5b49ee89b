"""Lists over gRPC against lists computed by hand: criteria, nesting, order, pages and label selectors of four kinds."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import grpc
import pytest

from api.gen.michelangelo.api import list_pb2 as wire
from api.kinds import kinds
from tests.api.listing_model import Asker
from tests.api.running import Served, read

COUNT = 300
QUERIES = 300
ALGORITHMS = ("", "lightgbm", "LightGBM", "light_gbm", "light%", "größe", "线性", "a'b", 'a"b')
LABELS = ("team", "tier", "michelangelo/owner", "a.b/c-d_e")
VALUES = ("", "a", "b", "a.b", "a-b_c", "42")
SKIP = ["spec", "status"]


def labelled(item: Any, pick: random.Random) -> Any:
    for key in LABELS:
        if pick.random() < 0.5:
            item.metadata.labels[key] = pick.choice(VALUES)
    return item


def model(pick: random.Random, name: str) -> Any:
    made = labelled(kinds()["Model"].new(pick.choice(("p-a", "p-b")), name), pick)
    made.spec.algorithm, made.spec.description = pick.choice(ALGORITHMS), pick.choice(ALGORITHMS)
    made.spec.revision_id, made.spec.kind = pick.randint(-3, 3), pick.randint(0, 8)
    if pick.random() < 0.6:
        made.spec.owner.name = pick.choice(("ada", "", "bob"))
    if pick.random() < 0.6:
        made.spec.model_family.name = pick.choice(("one", "two"))
        made.spec.model_family.namespace = pick.choice(("", made.metadata.namespace))
    return made


def run(pick: random.Random, name: str) -> Any:
    made = labelled(kinds()["PipelineRun"].new(pick.choice(("p-a", "p-b")), name), pick)
    made.spec.pipeline.name = pick.choice(("one", "two"))
    if pick.random() < 0.6:
        made.spec.actor.name = pick.choice(("ada", "bob"))
    return made


def finished(pick: random.Random, item: Any) -> Any:
    item.status.state = pick.randint(0, 6)
    if pick.random() < 0.5:
        item.status.end_time.seconds, item.status.end_time.nanos = (
            pick.randint(0, 2_000_000_000),
            pick.choice((0, 1_000)),
        )
    return item


def trigger(pick: random.Random, name: str) -> Any:
    made = labelled(kinds()["TriggerRun"].new(pick.choice(("p-a", "p-b")), name), pick)
    made.spec.pipeline.name = pick.choice(("one", "two"))
    made.spec.trigger.cron_schedule.cron = "0 3 * * *"
    made.spec.auto_flip = pick.random() < 0.5
    return made


def project(pick: random.Random, name: str) -> Any:
    made = labelled(kinds()["Project"].new(name, name), pick)
    if pick.random() < 0.8:
        made.spec.tier = pick.randint(1, 5)
    return made


async def fill(resources: Any) -> Mapping[str, Sequence[Any]]:
    """Create the objects and return them as they are stored."""
    pick = random.Random(5)
    for space in ("p-a", "p-b"):
        await resources.create(kinds()["Project"].new(space, space))
        for name in ("one", "two"):
            await resources.create(kinds()["ModelFamily"].new(space, name))
            pipeline = kinds()["Pipeline"].new(space, name)
            pipeline.spec.manifest.file_path = "train"
            await resources.create(pipeline)
    made: dict[str, list[Any]] = {"Project": [await resources.get("Project", space, space) for space in ("p-a", "p-b")]}
    for make, kind in ((project, "Project"), (model, "Model"), (run, "PipelineRun"), (trigger, "TriggerRun")):
        for number in range(COUNT):
            stored = await resources.create(make(pick, f"{pick.choice('abc')}-{number}"))
            if kind == "PipelineRun":
                stored = await resources.update_status(finished(pick, stored))
            made.setdefault(kind, []).append(stored)
    return made


@pytest.fixture(scope="module")
def filled(served: Served) -> Mapping[str, Sequence[Any]]:
    return served.run(fill(served.resources))


def names(items: Sequence[Any]) -> list[str]:
    return [f"{item.metadata.namespace}/{item.metadata.name}" for item in items]


@pytest.mark.parametrize("kind", ["Project", "Model", "PipelineRun", "TriggerRun"])
def test_a_list_is_what_a_person_would_pick(served: Served, filled: Mapping[str, Sequence[Any]], kind: str) -> None:
    asker, pick, found = Asker(kind, filled[kind], seed=11), random.Random(11), 0
    for number in range(QUERIES):
        operation, test = asker.operation()
        order, arranged = asker.order()
        namespace = pick.choice(("", "", "p-a"))
        offset, limit = pick.choice(((0, 0), (0, 0), (5, 20), (3, 1), (1_000, 10)))
        extension = wire.ListOptionsExt(
            operation=operation,
            order_by=order,
            pagination=wire.PaginationSpec(offset=offset, limit=limit),
            returned_field_skip_list=SKIP,
        )
        page = served.list(kind, namespace, list_options_ext=extension)
        right = arranged([i for i in filled[kind] if test(i) and namespace in ("", i.metadata.namespace)])
        expected = right[offset : offset + limit] if limit else right[offset:]
        assert names(page.items) == names(expected), f"query {number}: {extension}"
        if limit:
            assert page.metadata.remainingItemCount == max(0, len(right) - offset - limit)
        found += len(expected)
    assert found > QUERIES, "the queries would be satisfied by a server that finds nothing"


@pytest.mark.parametrize("kind", ["Model", "PipelineRun"])
def test_every_operator_alone(served: Served, filled: Mapping[str, Sequence[Any]], kind: str) -> None:
    asker, seen = Asker(kind, filled[kind], seed=13), set()
    for _ in range(QUERIES):
        criterion, test = asker.criterion()
        seen.add(criterion.operator)
        extension = wire.ListOptionsExt(
            operation=wire.CriterionOperation(criterion=[criterion]), returned_field_skip_list=SKIP
        )
        page = served.list(kind, list_options_ext=extension)
        assert sorted(names(page.items)) == sorted(names([i for i in filled[kind] if test(i)])), criterion
    assert seen == set(range(1, 12))


def test_an_empty_condition_finds_all(served: Served, filled: Mapping[str, Sequence[Any]]) -> None:
    for operation in (
        wire.CriterionOperation(),
        wire.CriterionOperation(logical_operator=wire.LOGICAL_OPERATOR_OR, sub_operations=[wire.CriterionOperation()]),
    ):
        page = served.list("Model", list_options_ext=wire.ListOptionsExt(operation=operation))
        assert len(page.items) == COUNT


def test_fields_are_left_out_and_the_rest_stays(served: Served, filled: Mapping[str, Sequence[Any]]) -> None:
    paths = ["spec.algorithm", "metadata.labels", "spec.owner.name", "spec.model_family"]
    page = served.list("Model", "p-a", list_options_ext=wire.ListOptionsExt(returned_field_skip_list=paths))
    by_name = {item.metadata.name: item for item in filled["Model"] if item.metadata.namespace == "p-a"}
    assert len(page.items) == len(by_name)
    for item in page.items:
        whole = type(item).FromString(by_name[item.metadata.name].SerializeToString())
        whole.spec.ClearField("algorithm")
        whole.spec.ClearField("model_family")
        whole.metadata.ClearField("labels")
        if whole.spec.HasField("owner"):
            whole.spec.owner.ClearField("name")
        assert item == whole


def requirement(pick: random.Random) -> tuple[str, Any]:
    """Return one term of a label selector, in one of its spellings, and its meaning."""
    key, value = pick.choice([*LABELS, "absent"]), pick.choice(VALUES)
    some = [pick.choice(VALUES) for _ in range(pick.randint(1, 3))]
    gap = pick.choice(("", " ", "  "))
    return pick.choice(
        [
            (f"{key}{gap}={gap}{value}", lambda labels: labels.get(key) == value),
            (f"{key}{gap}=={gap}{value}", lambda labels: labels.get(key) == value),
            (f"{key}{gap}!={gap}{value}", lambda labels: labels.get(key) != value),
            (f"{key} in ({f',{gap}'.join(some)})", lambda labels: key in labels and labels[key] in some),
            (f"{key} notin{gap}({','.join(some)})", lambda labels: key not in labels or labels[key] not in some),
            (f"{gap}{key}{gap}", lambda labels: key in labels),
            (f"!{gap}{key}", lambda labels: key not in labels),
        ]
    )


@pytest.mark.parametrize("kind", ["Model", "PipelineRun", "Project"])
def test_a_label_selector_finds_what_it_says(served: Served, filled: Mapping[str, Sequence[Any]], kind: str) -> None:
    pick, found = random.Random(17), 0
    for _ in range(QUERIES):
        terms = [requirement(pick) for _ in range(pick.randint(1, 3))]
        selector = pick.choice((",", ", ", " , ")).join(text for text, _ in terms)
        page = served.list(
            kind,
            list_options={"labelSelector": selector},
            list_options_ext=wire.ListOptionsExt(returned_field_skip_list=SKIP),
        )
        right = [i for i in filled[kind] if all(test(i.metadata.labels) for _, test in terms)]
        assert sorted(names(page.items)) == sorted(names(right)), selector
        found += len(right)
    assert found > QUERIES


@pytest.mark.parametrize(
    ("selector", "test"),
    [
        ("metadata.name=a-1", lambda item: item.metadata.name == "a-1"),
        ("metadata.namespace!=p-a", lambda item: item.metadata.namespace != "p-a"),
        ("status.state=3,spec.pipeline=one", lambda i: i.status.state == 3 and i.spec.pipeline.name == "one"),
        ("state==PIPELINE_RUN_STATE_FAILED", lambda item: item.status.state == 5),
    ],
)
def test_a_field_selector_finds_what_it_says(
    served: Served, filled: Mapping[str, Sequence[Any]], selector: str, test: Any
) -> None:
    page = served.list("PipelineRun", list_options={"fieldSelector": selector})
    assert sorted(names(page.items)) == sorted(names([item for item in filled["PipelineRun"] if test(item)]))


def test_pages_are_the_whole_list_in_order(served: Served, filled: Mapping[str, Sequence[Any]]) -> None:
    order = wire.ListOptionsExt(order_by=[wire.OrderBy(field="revision_id", dir=wire.SORT_ORDER_DESC)])
    whole = names(served.list("Model", list_options_ext=order).items)
    for limit in (1, 7, 299, 300, 301):
        assert names(walk(served, "Model", "", limit, list_options_ext=order)[1]) == whole


def walk(served: Served, kind: str, namespace: str, limit: int, **fields: Any) -> tuple[int, list[Any]]:
    """Return revision and objects of a list that is read page by page."""
    items: list[Any] = []
    options: dict[str, Any] = {"limit": limit}
    revisions = set()
    while True:
        page = served.list(kind, namespace, list_options=options, **fields)
        assert len(page.items) <= limit
        items += page.items
        revisions.add(page.metadata.resourceVersion)
        options["continue"] = getattr(page.metadata, "continue")
        if not options["continue"]:
            assert len(revisions) == 1
            return int(page.metadata.resourceVersion), items
        assert page.metadata.remainingItemCount > 0


def test_pages_show_one_revision_while_others_write(served: Served) -> None:
    project = served.project()
    stop = threading.Event()
    writers = [threading.Thread(target=churn, args=(served, project, seed, stop)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    whole: list[tuple[int, list[Any]]] = []
    expired, deadline = 0, time.monotonic() + 5
    while time.monotonic() < deadline and (len(whole) < 15 or not expired):
        try:
            whole.append(walk(served, "ModelFamily", project, 7))
        except grpc.RpcError as error:
            assert read(error).reason == "EXPIRED"  # noqa: PT017 - either is right
            expired += 1
    stop.set()
    for writer in writers:
        writer.join()
    assert len(whole) >= 5
    assert expired
    for revision, items in whole:
        assert {(i.metadata.name, i.metadata.resourceVersion) for i in items} == dict_at(served, project, revision)


def churn(served: Served, project: str, seed: int, stop: threading.Event) -> None:
    pick, mine = random.Random(seed), set()
    while not stop.is_set():
        for _ in range(pick.randint(1, 5)):
            name = f"w{seed}-{pick.randrange(40)}"
            if name in mine and pick.random() < 0.4:
                served.delete("ModelFamily", project, name)
                mine.discard(name)
            elif name not in mine:
                served.create(kinds()["ModelFamily"].new(project, name))
                mine.add(name)
        stop.wait(pick.random() * 0.1)


def dict_at(served: Served, project: str, revision: int) -> set[tuple[str, str]]:
    """Return names and versions at a revision, from the record of changes."""
    state: dict[str, str] = {}
    for at, name, change in changes(served, project):
        if at > revision:
            break
        if change == "DELETED":
            state.pop(name)
        else:
            state[name] = str(at)
    return set(state.items())


def changes(served: Served, project: str) -> Iterator[tuple[int, str, str]]:
    with closing(sqlite3.connect(f"file:{served.path}?mode=ro", uri=True)) as db:
        yield from db.execute(
            "SELECT revision, name, type FROM change WHERE kind = 'ModelFamily' AND namespace = ? ORDER BY revision",
            (project,),
        ).fetchall()
