"""Rows whose input is an object: the same document is created by gRPC, posted, and applied."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from api.kinds import kinds
from tests.bad_inputs.surfaces import Answer, Case, Surfaces

Made = Callable[[Surfaces], dict[str, Any]]
UNKNOWN_UID = "00000000-0000-4000-8000-000000000000"


def family(here: Surfaces, name: str = "bad", **more: Any) -> dict[str, Any]:
    """Return the document of a model family."""
    document = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "ModelFamily",
        "metadata": {"name": name, "namespace": here.project, **more.pop("metadata", {})},
        "spec": {"name": "bad", **more.pop("spec", {})},
    }
    return document | more


def run(here: Surfaces, spec: str) -> bytes:
    """Return the text of a run whose spec is given as text."""
    metadata = json.dumps({"name": "bad", "namespace": here.project})
    text = f'{{"apiVersion": "michelangelo.api/v2", "kind": "PipelineRun", "metadata": {metadata}, "spec": {spec}}}'
    return text.encode("utf-8", "surrogatepass")


def everywhere(row: int, name: str, make: Made, reason: str, field: str = "") -> Iterator[Case]:
    """Yield a document's case on each surface."""

    def by_grpc(here: Surfaces) -> Answer:
        document = make(here)
        return here.grpc(document["kind"], "Create", **{kinds()[document["kind"]].singular: here.message(document)})

    def by_http(here: Surfaces) -> Answer:
        document = make(here)
        return here.http("POST", here.path(document["kind"]), document)

    yield Case(row, "grpc", name, by_grpc, reason, field)
    yield Case(row, "http", name, by_http, reason, field)
    yield Case(row, "ma", name, lambda here: here.apply(make(here)), reason, field)


def as_text(row: int, name: str, make: Callable[[Surfaces], bytes], reason: str, field: str = "") -> Iterator[Case]:
    """Yield the cases of a text of JSON: gRPC has no text."""
    yield Case(row, "http", name, lambda here: here.http("POST", here.path("PipelineRun"), make(here)), reason, field)
    yield Case(row, "ma", name, lambda here: here.apply(make(here)), reason, field)


def texts() -> Iterator[Case]:
    """Rows 1 to 10: what cannot be read, or could be read in two ways."""
    yield Case(1, "grpc", "bytes", lambda here: here.grpc("Project", "Create", b"\xff" * 8), "BAD_MESSAGE")
    yield from as_text(1, "half", lambda here: b"{", "BAD_MESSAGE")
    yield Case(
        2,
        "grpc",
        "another message",
        lambda here: here.grpc("PipelineRun", "Create", b"\x08\x01\x0a\x00"),
        "BAD_NAME",
    )
    yield Case(
        2,
        "http",
        "another kind",
        lambda here: here.http("POST", here.path("PipelineRun"), family(here) | {"spec": {}}),
        "ID_MISMATCH",
    )
    for told, spec, reason, field in (
        ("3 unknown", '{"replcas": 1}', "UNKNOWN_FIELD", "spec.replcas"),
        ("4 twice", '{"description": "a", "description": "b"}', "DUPLICATE_KEY", "spec"),
        ("4 both names", '{"localDiff": "a", "local_diff": "a"}', "DUPLICATE_KEY", "spec.local_diff"),
        ("5 NaN", '{"input": {"a": NaN}}', "NOT_FINITE", "spec.input.a"),
        ("5 infinite", '{"input": {"a": [1, -Infinity]}}', "NOT_FINITE", "spec.input.a[1]"),
        ("5 minus zero", '{"input": {"a": -0}}', "NOT_FINITE", "spec.input.a"),
        ("5 1e400", '{"input": {"a": 1e400}}', "NOT_FINITE", "spec.input.a"),
        ("6 large", '{"input": {"a": 9007199254740993}}', "UNSAFE_INTEGER", "spec.input.a"),
        ("7 5000 digits", '{"input": {"a": ' + "9" * 5000 + "}}", "UNSAFE_INTEGER", "spec.input.a"),
        ("8 half a pair", '{"description": "\\ud800"}', "BAD_TEXT", "spec.description"),
        ("8 NUL", '{"description": "a\\u0000b"}', "BAD_TEXT", "spec.description"),
        ("8 not UTF-8", '{"description": "\udfff"}', "BAD_TEXT", ""),
        ("10 deep", '{"input": ' + '{"a": ' * 40 + "1" + "}" * 41, "TOO_DEEP", "spec.input"),
    ):
        row, _, name = told.partition(" ")
        yield from as_text(int(row), name, lambda here, spec=spec: run(here, spec), reason, field)  # type: ignore[misc]
    yield from as_text(9, "mark", lambda here: b"\xef\xbb\xbf" + run(here, "{}"), "TRAILING_DATA")
    yield from as_text(9, "more", lambda here: run(here, "{}") + b" {}", "TRAILING_DATA")
    yield from as_text(10, "brackets", lambda here: b"[" * 100_000, "TOO_DEEP")


def names() -> Iterator[Case]:
    """Rows 15 and 23: names."""
    for told, name in (
        ("254 characters", "a" * 254),
        ("upper", "Upper"),
        ("underscore", "a_b"),
        ("hyphen first", "-a"),
        ("dot last", "a."),
        ("emoji", "\U0001f600"),
        ("ligature", "\ufb00"),
        ("right to left", "\u202eabc"),
        ("dots", ".."),
    ):
        yield from everywhere(15, told, functools.partial(family, name=name), "BAD_NAME", "metadata.name")
    project = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "Project",
        "metadata": {"name": "one", "namespace": "two"},
        "spec": {},
    }
    for case in everywhere(23, "project of another name", lambda here: dict(project), "BAD_NAME", "metadata.namespace"):
        if case.surface != "http":
            yield case
    yield Case(
        23,
        "http",
        "path and body",
        lambda here: here.http("POST", here.path("ModelFamily"), family(here, metadata={"namespace": "other"})),
        "ID_MISMATCH",
        "metadata.namespace",
    )


def owners() -> Iterator[Case]:
    """Row 24: owners that are not there."""
    reference = {"apiVersion": "michelangelo.api/v2", "kind": "ModelFamily", "name": "nobody", "uid": UNKNOWN_UID}
    for told, change in (("missing", {}), ("no kind", {"kind": "Planet"})):
        yield from everywhere(
            24,
            told,
            lambda here, change=change: family(  # type: ignore[misc]
                here, metadata={"ownerReferences": [reference | change]}
            ),
            "BAD_OWNER",
        )


def all_cases() -> Iterator[Case]:
    """Yield every case of this file."""
    yield from texts()
    yield from names()
    yield from owners()
