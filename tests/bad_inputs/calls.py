"""Rows whose input is a call: sizes, types, request ids, versions, lists, watches, who calls."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from api.gen.michelangelo.api import list_pb2
from api.kinds import kinds
from tests.bad_inputs.objects import family
from tests.bad_inputs.surfaces import BEARER, ROOT, Answer, Case, Surfaces

MIB = 1024 * 1024
JSON = {"content-type": "application/json"}
FAMILIES = "ModelFamily"
# Stands for the version before the newest one.
STALE = "stale"


def stored(here: Surfaces) -> Any:
    """Create a model family of a new name and return it."""
    new = kinds()[FAMILIES].new(here.project, f"f-{uuid.uuid4().hex[:8]}")
    new.spec.name = "known"
    return here.served.create(new)


def sizes() -> Iterator[Case]:
    """Rows 11 to 14: what is too large, and what is no request of the API."""
    large = "x" * (5 * MIB)
    yield Case(
        11,
        "grpc",
        "5 MiB",
        lambda here: here.grpc(
            FAMILIES, "Create", model_family=here.message(family(here, spec={"description": large}))
        ),
        "TOO_LARGE",
    )
    yield Case(
        11,
        "http",
        "5 MiB",
        lambda here: here.http("POST", here.path(FAMILIES), family(here, spec={"description": large})),
        "TOO_LARGE",
    )
    yield Case(11, "ma", "5 MiB", lambda here: here.apply(family(here, spec={"description": large})), "TOO_LARGE")
    packed = gzip.compress(b" " * (11 * MIB))
    yield Case(
        12,
        "http",
        "11 MiB packed",
        lambda here: here.http("POST", here.path(FAMILIES), packed, {"content-encoding": "gzip"}),
        "TOO_LARGE",
    )
    for kind in ("text/plain", "application/json; charset=utf-16"):
        yield Case(
            13,
            "http",
            kind,
            lambda here, kind=kind: here.http("POST", here.path(FAMILIES), b"{}", {"content-type": kind}),  # type: ignore[misc]
            "UNSUPPORTED_MEDIA_TYPE",
        )
    yield Case(14, "http", "method", lambda here: here.http("TRACE", here.path(FAMILIES)), "METHOD_NOT_ALLOWED")
    yield Case(14, "http", "route", lambda here: here.http("GET", f"{ROOT}/planets"), "NO_ROUTE")
    yield Case(14, "http", "slash", lambda here: here.http("GET", here.path(FAMILIES) + "/"), "")


def request_ids() -> Iterator[Case]:
    """Rows 16 to 19: names that are taken, requests that are repeated."""

    def taken(here: Surfaces, surface: str) -> Answer:
        there = stored(here)
        document = family(here, there.metadata.name)
        if surface == "grpc":
            return here.grpc(FAMILIES, "Create", model_family=here.message(document))
        return here.http("POST", here.path(FAMILIES), document)

    def twice(here: Surfaces, surface: str, other: bool, request_id: str = "") -> Answer:
        name, given = f"f-{uuid.uuid4().hex[:8]}", request_id or str(uuid.uuid4())
        documents = [family(here, name), family(here, name, spec={"description": "other"} if other else {})]
        answers = []
        for document in documents:
            if surface == "grpc":
                made = here.message(document)
                answers.append(here.grpc(FAMILIES, "Create", metadata=[("x-request-id", given)], model_family=made))
            else:
                answers.append(here.http("POST", here.path(FAMILIES), document, {"x-request-id": given}))
        if not answers[1].reasons:
            assert answers[0].uid == answers[1].uid != ""
        return answers[1]

    for surface in ("grpc", "http"):
        yield Case(16, surface, "taken", lambda here, s=surface: taken(here, s), "ALREADY_EXISTS")  # type: ignore[misc]
        yield Case(17, surface, "repeated", lambda here, s=surface: twice(here, s, False), "")  # type: ignore[misc]
        yield Case(
            18,
            surface,
            "other body",
            lambda here, s=surface: twice(here, s, True),  # type: ignore[misc]
            "REQUEST_ID_REUSED",
        )
        for bad in ("not-a-uuid", "a" * 4000):
            yield Case(
                19,
                surface,
                bad[:10],
                lambda here, s=surface, bad=bad: twice(here, s, False, bad),  # type: ignore[misc]
                "BAD_REQUEST_ID",
            )


def versions() -> Iterator[Case]:
    """Rows 20 to 22, 25 and 26: updates and deletions of what has changed, or may not."""

    def update(here: Surfaces, surface: str, change: Callable[[Any], None]) -> Answer:
        there = stored(here)
        read = there.metadata.resourceVersion
        there.spec.description = "newer"
        there = here.served.update(there)
        change(there)
        if there.metadata.resourceVersion == STALE:
            there.metadata.resourceVersion = read
        if surface == "grpc":
            return here.grpc(FAMILIES, "Update", model_family=there)
        document = here.served.done("GET", here.path(FAMILIES, name=there.metadata.name), headers=dict([BEARER]))
        metadata = document["metadata"]
        metadata["resourceVersion"] = there.metadata.resourceVersion
        metadata["uid"] = there.metadata.uid
        document["spec"]["description"] = there.spec.description
        return here.http("PUT", here.path(FAMILIES, name=there.metadata.name), document)

    def version(value: str) -> Callable[[Any], None]:
        def change(there: Any) -> None:
            there.metadata.resourceVersion = value
            there.spec.description = "changed"

        return change

    def other_uid(there: Any) -> None:
        there.metadata.uid = str(uuid.uuid4())
        there.spec.description = "changed"

    for surface in ("grpc", "http"):
        for name, change, reason in (
            ("none", version(""), "ETAG_REQUIRED"),
            ("stale", version(STALE), "CONFLICT"),
            ("never", version("1"), "BAD_RESOURCE_VERSION"),
            ("garbage", version("garbage"), "BAD_RESOURCE_VERSION"),
        ):
            yield Case(20, surface, name, lambda here, s=surface, c=change: update(here, s, c), reason)  # type: ignore[misc]
        yield Case(21, surface, "uid", lambda here, s=surface: update(here, s, other_uid), "IMMUTABLE_FIELD")  # type: ignore[misc]
    yield Case(
        26,
        "http",
        "old version",
        lambda here: here.http(
            "DELETE", here.path(FAMILIES, name=stored(here).metadata.name), {"preconditions": {"resourceVersion": "1"}}
        ),
        "CONFLICT",
    )
    yield Case(26, "grpc", "old version", _delete_old, "CONFLICT")
    yield Case(
        26, "ma", "not there", lambda here: here.ma("delete", "modelfamily", "none", "-n", here.project, "-y"), "exit 1"
    )


def _delete_nothing(here: Surfaces) -> Answer:
    return here.ma("delete", "modelfamily", "none", "-n", here.project, "-y")


def _delete_old(here: Surfaces) -> Answer:
    there = stored(here)
    options = {"preconditions": {"resourceVersion": "1"}}
    return here.grpc(FAMILIES, "Delete", name=there.metadata.name, namespace=here.project, delete_options=options)


def lists() -> Iterator[Case]:
    """Rows 27 to 31: pages, tokens, filters, orders, positions of a watch."""

    def ours(here: Surfaces, **options: Any) -> Answer:
        return here.grpc(FAMILIES, "List", namespace=here.project, list_options=options)

    def theirs(here: Surfaces, query: str) -> Answer:
        return here.http("GET", f"{here.path(FAMILIES)}?{query}")

    yield Case(27, "grpc", "-1", lambda here: ours(here, limit=-1), "BAD_FILTER")
    yield Case(27, "http", "-1", lambda here: theirs(here, "limit=-1"), "BAD_FILTER")
    yield Case(27, "ma", "-1", lambda here: here.ma("get", "modelfamilies", "--limit", "-1"), "exit 2")
    for count in ("0", "1000000000"):
        yield Case(27, "grpc", count, lambda here, c=count: ours(here, limit=int(c)), "")  # type: ignore[misc]
        yield Case(27, "http", count, lambda here, c=count: theirs(here, f"limit={c}"), "")  # type: ignore[misc]
    yield Case(28, "grpc", "mutated", lambda here: ours(here, **{"limit": 1, "continue": "abcd"}), "BAD_TOKEN")
    yield Case(28, "http", "mutated", lambda here: theirs(here, "limit=1&continue=abcd"), "BAD_TOKEN")
    for name, selector in (("unclosed", "a in (b"), ("injection", "a=b' OR 1=1 --"), ("quote", "a='b")):
        yield Case(29, "grpc", name, lambda here, s=selector: ours(here, labelSelector=s), "BAD_FILTER")  # type: ignore[misc]
        yield Case(
            29,
            "http",
            name,
            lambda here, s=selector: here.http("GET", here.path(FAMILIES), params={"labelSelector": s}),  # type: ignore[misc]
            "BAD_FILTER",
        )
        yield Case(29, "ma", name, lambda here, s=selector: here.ma("get", "modelfamilies", "-l", s), "BAD_FILTER")  # type: ignore[misc]
    yield Case(
        30,
        "grpc",
        "order",
        lambda here: here.grpc(
            FAMILIES,
            "List",
            namespace=here.project,
            list_options_ext=list_pb2.ListOptionsExt(
                order_by=[list_pb2.OrderBy(field="spec.secret", dir=list_pb2.SORT_ORDER_ASC)]
            ),
        ),
        "BAD_FILTER",
    )
    order = json.dumps({"orderBy": [{"field": "spec.secret", "dir": "SORT_ORDER_ASC"}]})
    yield Case(
        30,
        "http",
        "order",
        lambda here: here.http("GET", here.path(FAMILIES), params={"listOptionsExt": order}),
        "BAD_FILTER",
    )
    for version, reason in (
        ("999999999", "RV_IN_FUTURE"),
        ("-1", "BAD_RESOURCE_VERSION"),
        ("text", "BAD_RESOURCE_VERSION"),
    ):
        yield Case(
            31,
            "http",
            version,
            lambda here, v=version: theirs(here, f"watch=true&resourceVersion={v}"),  # type: ignore[misc]
            reason,
        )


def callers() -> Iterator[Case]:
    """Rows 35 and 36: who calls without a token, or with one that is none."""
    for row, name, given in (
        (35, "basic", "Basic YTpi"),
        (35, "unknown", "Bearer nobody-has-this-token"),
        (36, "unsigned", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."),
    ):
        yield Case(
            row,
            "http",
            name,
            lambda here, g=given: here.http("GET", here.path(FAMILIES), headers={"authorization": g}),  # type: ignore[misc]
            "UNAUTHENTICATED",
        )


def all_cases() -> Iterator[Case]:
    """Yield every case of this file."""
    yield from sizes()
    yield from request_ids()
    yield from versions()
    yield from lists()
    yield from callers()
