"""Writers at the same time: one of two stale ones wins, no acknowledged change is lost, a dry run writes nothing."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from api.kinds import kinds
from tests.api.running import Served, read, request_of

WRITERS = 8
EACH = 25


def at_once(count: int, work: Callable[[int], object]) -> list[Any]:
    """Run `work(number)` in threads that start together; return results and refusals in the threads' order."""
    start, ended = threading.Barrier(count), [object()] * count

    def one(number: int) -> None:
        start.wait()
        try:
            ended[number] = work(number)
        except grpc.RpcError as error:
            ended[number] = read(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def changed(item: Any, description: str) -> Any:
    new = type(item).FromString(item.SerializeToString())
    new.spec.description = description
    return new


@pytest.fixture
def family(served: Served, project: str) -> Any:
    new = kinds()["ModelFamily"].new(project, "counter")
    new.spec.description = "0"
    return served.create(new)


def test_one_of_two_updates_from_the_same_version_wins(served: Served, family: Any) -> None:
    for attempt in range(20):
        item = served.get("ModelFamily", family.metadata.namespace, "counter")
        ended = at_once(2, lambda n, item=item, a=attempt: served.update(changed(item, f"{a}-{n}")))  # type: ignore[misc]
        refused = [end for end in ended if hasattr(end, "reason")]
        (won,) = [end for end in ended if not hasattr(end, "reason")]
        assert [(one.code, one.reason) for one in refused] == [("ABORTED", "CONFLICT")]
        assert served.get("ModelFamily", family.metadata.namespace, "counter") == won


def test_eight_writers_lose_no_update(served: Served, family: Any) -> None:
    def add(_: int) -> int:
        done = 0
        while done < EACH:
            item = served.get("ModelFamily", family.metadata.namespace, "counter")
            try:
                served.update(changed(item, str(int(item.spec.description) + 1)))
            except grpc.RpcError as error:
                assert read(error).reason == "CONFLICT"  # noqa: PT017 - it is tried again
                continue
            done += 1
        return done

    assert at_once(WRITERS, add) == [EACH] * WRITERS
    item = served.get("ModelFamily", family.metadata.namespace, "counter")
    assert item.spec.description == str(WRITERS * EACH)
    assert item.metadata.generation == WRITERS * EACH + 1


def test_forced_updates_without_a_version_all_succeed(served: Served, family: Any) -> None:
    family.metadata.resourceVersion = ""

    def force(item: Any) -> bytes:
        request = request_of("ModelFamily", "Update", model_family=item).SerializeToString()
        return served.raw("ModelFamily", "Update", request, metadata=(("x-force", "true"),))

    ended = at_once(WRITERS, lambda n: [force(changed(family, f"{n}-{i}")) for i in range(10)])
    assert not [end for end in ended if hasattr(end, "reason")]
    item = served.get("ModelFamily", family.metadata.namespace, "counter")
    assert item.metadata.generation == 1 + WRITERS * 10


def test_one_of_many_creates_of_a_name_wins(served: Served, project: str) -> None:
    for number in range(10):
        new = kinds()["ModelFamily"].new(project, f"contested-{number}")
        ended = at_once(WRITERS, lambda _, new=new: served.create(new))  # type: ignore[misc]
        reasons = Counter(getattr(end, "reason", "created") for end in ended)
        assert reasons == {"created": 1, "ALREADY_EXISTS": WRITERS - 1}


def test_one_of_many_deletes_deletes(served: Served, project: str) -> None:
    for number in range(10):
        served.create(kinds()["ModelFamily"].new(project, f"gone-{number}"))
        ended = at_once(WRITERS, lambda _, n=number: served.delete("ModelFamily", project, f"gone-{n}"))  # type: ignore[misc]
        assert Counter(getattr(end, "reason", "deleted") for end in ended) == {"deleted": 1, "NOT_FOUND": WRITERS - 1}


def test_versions_grow_in_the_order_of_answers(served: Served, project: str) -> None:
    seen: list[list[int]] = [[] for _ in range(WRITERS)]

    def write(number: int) -> None:
        for step in range(EACH):
            made = served.create(kinds()["ModelFamily"].new(project, f"w{number}-{step}"))
            seen[number].append(int(made.metadata.resourceVersion))
            listed = served.list("ModelFamily", project)
            assert int(listed.metadata.resourceVersion) >= seen[number][-1]
            assert made.metadata.name in {item.metadata.name for item in listed.items}, "a read shows what was answered"

    at_once(WRITERS, write)
    assert all(mine == sorted(mine) and len(mine) == EACH for mine in seen)
    everything = [revision for mine in seen for revision in mine]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("kind", sorted(set(kinds()) - {"Project", "Cluster"}))
def test_a_dry_create_answers_as_a_real_one_and_writes_nothing(served: Served, project: str, kind: str) -> None:
    new = kinds()[kind].new(project, "dry")
    dry = attempt(lambda: served.create(new, dryRun=["All"]))
    before = served.log()
    assert not served.list(kind, project).items
    real = attempt(lambda: served.create(new))
    if isinstance(dry, str):
        assert dry == real
        assert served.log() == before
    else:
        assert dry.metadata.uid
        assert not dry.metadata.resourceVersion
        assert dry.spec == real.spec


def attempt(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except grpc.RpcError as error:
        return read(error).message


def test_a_dry_update_answers_as_a_real_one_and_writes_nothing(served: Served, family: Any) -> None:
    before = served.log()
    dry = served.update(changed(family, "other"), dryRun=["All"])
    assert (dry.spec.description, dry.metadata.generation) == ("other", 2)
    assert served.log() == before
    assert served.get("ModelFamily", family.metadata.namespace, "counter") == family


def test_dry_runs_between_real_ones_leave_no_trace(served: Served, project: str) -> None:
    pick, real = random.Random(3), 0
    before = served.log()[0]
    for number in range(200):
        new = changed(kinds()["ModelFamily"].new(project, f"m-{number % 20}"), str(number))
        call = pick.choice((served.create, served.update))
        if pick.random() < 0.5:
            attempt(lambda call=call, new=new: call(new, dryRun=["All"]))  # type: ignore[misc]
        elif not isinstance(attempt(lambda call=call, new=new: call(new)), str):  # type: ignore[misc]
            real += 1
    assert served.log()[0] == before + real
