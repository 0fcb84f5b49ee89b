"""The blocking client against a real server: what it returns, what it raises, and what it does while nobody answers."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api import errors, listing
from api.client import Client
from api.kinds import kinds
from tests.api.running import Served
from tests.api.workloads import pipeline
from tests.free_ports import free_ports
from tests.patience import soon
from tests.robustness.killed_server import KilledServer


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address, timeout_s=5) as made:
        yield made


def family(project: str, name: str = "family", description: str = "first") -> Any:
    new = kinds()["ModelFamily"].new(project, name)
    new.spec.description = description
    return new


def train(project: str, description: str = "first") -> Any:
    new = pipeline(project)
    new.spec.description = description
    return new


def test_importing_the_client_loads_no_grpc() -> None:
    program = "import sys, api.client; sys.exit('grpc' in sys.modules or 'google.protobuf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_apply_creates_then_leaves_alone_then_changes(client: Client, project: str) -> None:
    assert client.apply(family(project))[1] == "created"
    stored = client.get("ModelFamily", project, "family")
    assert client.apply(family(project)) == (stored, "unchanged")
    changed, what = client.apply(family(project, description="second"))
    assert (what, changed.spec.description, changed.metadata.generation) == ("configured", "second", 2)


def test_apply_keeps_the_labels_of_others(client: Client, project: str) -> None:
    client.apply(family(project))
    other = client.get("ModelFamily", project, "family")
    other.metadata.labels["other"] = "kept"
    other.metadata.finalizers.append("a.example/held")
    client.update(other)
    new = family(project)
    new.metadata.labels["mine"] = "set"
    applied, _ = client.apply(new)
    assert (applied.metadata.labels["other"], applied.metadata.labels["mine"]) == ("kept", "set")
    assert list(applied.metadata.finalizers) == ["a.example/held"]


def test_apply_changes_what_it_declares_and_leaves_the_rest(client: Client, project: str) -> None:
    """As an example's deployment: what serves is set by a pipeline's run, not by the document."""
    new = train(project)
    new.spec.owner.proxy_user, new.metadata.labels["a"] = "mine", "1"
    client.apply(new)
    other = client.get("Pipeline", project, "train")
    other.spec.owner.name = "a run"
    client.update(other)
    applied, what = client.apply(train(project))
    assert (what, applied.spec.owner.name, applied.spec.owner.proxy_user) == ("configured", "a run", "")
    assert "a" not in applied.metadata.labels
    mine = train(project)
    mine.spec.owner.name = "me"
    with pytest.raises(errors.Conflict) as refused:
        client.apply(mine)
    assert (refused.value.reason, [one.field for one in refused.value.violations]) == (
        "APPLY_CONFLICT",
        ["spec.owner.name"],
    )
    assert "--force-conflicts" in refused.value.message
    assert client.apply(mine, force=True)[0].spec.owner.name == "me"


def test_what_was_there_before_fields_had_managers_is_taken_over_or_stays(client: Client, project: str) -> None:
    """An object that an earlier release applied, or that was created: it says of no field who declared it."""
    old = train(project)
    old.spec.owner.proxy_user, old.spec.owner.name = "of the document", "a run"
    assert not client.create(old).metadata.managedFields
    new = train(project, description="second")
    new.spec.owner.proxy_user = "of the document"
    applied, _ = client.apply(new)
    assert (applied.spec.description, applied.spec.owner.name) == ("second", "a run")
    again, _ = client.apply(train(project, description="second"))
    assert (again.spec.owner.proxy_user, again.spec.owner.name) == ("", "a run")
    theirs = train(project, description="second")
    theirs.spec.owner.name = "ci"
    with pytest.raises(errors.Conflict):
        client.apply(theirs, "ci")
    mine = train(project, description="second")
    mine.spec.owner.name = "me"
    assert client.apply(mine)[0].spec.owner.name == "me"


def test_replace_leaves_nothing_that_is_not_declared_but_labels(client: Client, project: str) -> None:
    first = train(project)
    first.metadata.labels["a"], first.spec.owner.name = "1", "nobody's"
    client.apply(first)
    others = train(project)
    others.spec.owner.proxy_user = "theirs"
    client.apply(others, "ci")
    bare = train(project)
    with pytest.raises(errors.Conflict) as refused:
        client.apply(bare, replace=True)
    assert [one.field for one in refused.value.violations] == ["spec.owner.proxy_user"]
    exact, _ = client.apply(bare, replace=True, force=True)
    assert (exact.spec, exact.metadata.labels["a"]) == (bare.spec, "1")
    assert "a" not in client.apply(bare)[0].metadata.labels, "it is still what ma declared"


def test_what_was_read_can_be_applied(client: Client, project: str) -> None:
    client.apply(train(project))
    read = client.get("Pipeline", project, "train")
    read.spec.description = "second"
    other = client.get("Pipeline", project, "train")
    other.metadata.labels["other"] = "written meanwhile"
    client.update(other)
    applied, what = client.apply(read)
    assert (what, applied.spec.description, applied.metadata.labels["other"]) == (
        "configured",
        "second",
        "written meanwhile",
    )


def test_an_apply_for_one_state_is_refused_for_another(client: Client, project: str) -> None:
    def base(resource: Any) -> str:
        (change,) = [one for one in client.plan([resource], force=True).changes if one.kind]
        return str(change.base)

    first, second = train(project), train(project, description="second")
    assert base(first) == ""
    client.apply(first, base="")
    assert outdated(client, second, "") == outdated(client, second, "someone/1/-") == "PLAN_OUTDATED"
    known = base(second)
    client.apply(first, "ci")
    assert outdated(client, second, known) == "PLAN_OUTDATED", "another declares fields of it by now"
    assert client.apply(second, force=True, base=base(second))[1] == "configured"


def outdated(client: Client, resource: Any, base: str) -> str:
    with pytest.raises(errors.Conflict) as refused:
        client.apply(resource, base=base)
    return refused.value.reason


def test_a_dry_apply_stores_nothing(served: Served, client: Client, project: str) -> None:
    before = served.log()
    assert client.apply(family(project), dry_run=True)[1] == "created"
    assert served.log() == before
    client.apply(family(project))
    before = served.log()
    assert client.apply(family(project, description="second"), dry_run=True)[0].spec.description == "second"
    assert served.log() == before


def stale(client: Client, project: str) -> object:
    first = client.create(family(project))
    client.update(type(first).FromString(first.SerializeToString().replace(b"first", b"other")))
    first.spec.description = "third"
    return client.update(first)


@pytest.mark.parametrize(
    ("call", "error", "reason", "fields"),
    [
        (lambda c, p: c.get("Model", p, "none"), errors.NotFound, "NOT_FOUND", []),
        (lambda c, p: c.delete("Model", p, "none"), errors.NotFound, "NOT_FOUND", []),
        (lambda c, p: c.create(family(p, "Bad")), errors.InvalidArgument, "BAD_NAME", ["metadata.name"]),
        (lambda c, p: [c.create(family(p)), c.create(family(p))], errors.AlreadyExists, "ALREADY_EXISTS", []),
        (stale, errors.Conflict, "CONFLICT", ["spec.description"]),
        (
            lambda c, p: c.list("Model", p, equal={"nothing": 1}),
            errors.InvalidArgument,
            "BAD_FILTER",
            ["list_options_ext.operation.criterion[0].field_name"],
        ),
        (
            lambda c, p: c.create(family(p, "large", "x" * 5 * 2**20)),
            errors.ResourceExhausted,
            "TOO_LARGE",
            [],
        ),
        (lambda c, p: c.get("Model", p, "x" * 10**6), errors.NotFound, "NOT_FOUND", []),
    ],
)
def test_a_refusal_is_an_error_of_its_own_kind(
    client: Client,
    project: str,
    call: Callable[[Client, str], object],
    error: type[errors.ApiError],
    reason: str,
    fields: list[str],
) -> None:
    with pytest.raises(errors.ApiError) as refused:
        call(client, project)
    assert type(refused.value) is error
    assert refused.value.reason == reason
    assert [violation.field for violation in refused.value.violations] == fields
    assert refused.value.message


def test_find_is_none_for_what_is_not_there(client: Client, project: str) -> None:
    assert client.find("ModelFamily", project, "none") is None


def test_a_list_is_all_pages_in_the_order_asked_for(
    client: Client, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LARGEST_PAGE", 4)
    for number in range(11):
        new = family(project, f"m-{number:02}")
        new.metadata.labels["odd"] = str(number % 2)
        client.create(new)
    names = [item.metadata.name for item in client.list("ModelFamily", project, order=[("metadata.name", True)])]
    assert names == [f"m-{number:02}" for number in reversed(range(11))]
    assert len(client.list("ModelFamily", project, selector="odd=1")) == 5
    assert len(client.list("ModelFamily", project, limit=3)) == 3
    assert [item.metadata.name for item in client.list("ModelFamily", project, equal={"metadata.name": "m-07"})] == [
        "m-07"
    ]


def test_objects_that_are_large_together_come_in_several_pages(served: Served, client: Client, project: str) -> None:
    sizes = {f"m-{number:02}": 700_000 for number in range(12)} | {"m-05": 1_400_000, "m-06": 1_400_000}
    for name, size in sizes.items():
        client.create(family(project, name, "x" * size))
    first = served.list("ModelFamily", project)
    assert [item.metadata.name for item in first.items] == ["m-00", "m-01", "m-02", "m-03"]
    assert getattr(first.metadata, "continue")
    assert [item.metadata.name for item in client.list("ModelFamily", project)] == sorted(sizes)
    assert [item.metadata.name for item in client.list("ModelFamily", project, limit=7)] == sorted(sizes)[:7]
    served.call("ModelFamily", "DeleteCollection", namespace=project)
    assert not client.list("ModelFamily", project)


def test_a_list_that_others_change_is_read_again(
    client: Client, served: Served, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LARGEST_PAGE", 4)
    for number in range(9):
        client.create(family(project, f"m-{number}"))
    send, left = client._send, [2]

    def disturbed(kind: str, verb: str, request: Any) -> Any:
        if verb == "List" and getattr(request.list_options, "continue") and left[0]:
            left[0] -= 1
            served.create(family(project, f"later-{left[0]}"))
        return send(kind, verb, request)

    monkeypatch.setattr(client, "_send", disturbed)
    assert len(client.list("ModelFamily", project)) == 11
    left[0] = 100
    with pytest.raises(errors.Expired):
        client.list("ModelFamily", project)


def test_nobody_answering_is_told_in_time() -> None:
    (port,) = free_ports(1)
    began = time.monotonic()
    with Client(f"127.0.0.1:{port}", timeout_s=0.5) as client, pytest.raises(errors.Unavailable, match="ma status"):
        client.get("Project", "shop", "shop")
    assert time.monotonic() - began < soon(3)


def test_a_call_waits_for_a_server_that_starts_again(tmp_path: Path) -> None:
    with KilledServer(tmp_path) as server, Client.of(server.config) as client:
        client.create(kinds()["Project"].new("shop", "shop"))
        server.kill()
        found: list[Any] = []
        asking = threading.Thread(target=lambda: found.append(client.get("Project", "shop", "shop")))
        asking.start()
        time.sleep(0.3)
        server.start()
        asking.join(30)
        assert found[0].metadata.name == "shop"
