"""Every fault of a request is refused with a reason and the field, all of them at once."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.running import ID, Answer, Server, request, tensor

Change = Callable[[dict[str, Any]], None]


def put(name: str, **changes: Any) -> Change:
    """Change one input."""

    def change(body: dict[str, Any]) -> None:
        next(item for item in body["inputs"] if item["name"] == name).update(changes)

    return change


def add(item: Any) -> Change:
    return lambda body: body["inputs"].append(item)


def drop(name: str) -> Change:
    def change(body: dict[str, Any]) -> None:
        body["inputs"] = [item for item in body["inputs"] if item["name"] != name]

    return change


def parameter(**changes: Any) -> Change:
    return lambda body: body["parameters"].update(changes)


def whole(**changes: Any) -> Change:
    return lambda body: body.update(changes)


CASES: list[tuple[str, Change, str, str, str]] = [
    ("missing", drop("carrier"), "MISSING_INPUT", "inputs.carrier", "expected BYTES"),
    ("unknown", add(tensor("speed", [1])), "UNKNOWN_INPUT", "inputs.speed", "it has carrier, origin"),
    ("twice", add(tensor("dest", ["MIA"])), "DUPLICATE_INPUT", "inputs.dest", "more than once"),
    ("text for number", put("distance", datatype="BYTES", data=["7"]), "WRONG_DATATYPE", "inputs.distance", "'BYTES'"),
    ("number for text", put("dest", datatype="INT64", data=[7]), "WRONG_DATATYPE", "inputs.dest", "expected BYTES"),
    ("no datatype", put("dest", datatype="STRING"), "WRONG_DATATYPE", "inputs.dest", "'STRING'"),
    (
        "float time",
        put("scheduled_departure", datatype="FP64", data=[1.5]),
        "WRONG_DATATYPE",
        "inputs.scheduled_departure",
        "BYTES or INT64",
    ),
    (
        "text value",
        put("distance", data=["far"]),
        "WRONG_TYPE",
        "inputs.distance[0]",
        "row 0: expected a value of INT64",
    ),
    ("boolean value", put("distance", data=[True]), "WRONG_TYPE", "inputs.distance[0]", "got a boolean"),
    ("fraction in INT64", put("distance", data=[1.5]), "WRONG_TYPE", "inputs.distance[0]", "got a number"),
    ("nested value", put("distance", data=[[1]]), "WRONG_TYPE", "inputs.distance[0]", "got a list"),
    ("null", put("distance", data=[None]), "NULL_VALUE", "inputs.distance[0]", "row 0: is null"),
    (
        "huge",
        put("distance", datatype="FP64", data=[1e39]),
        "NON_FINITE",
        "inputs.distance[0]",
        "finite number of 32 bits",
    ),
    ("huge whole number", put("distance", data=[10**60]), "NON_FINITE", "inputs.distance[0]", "finite"),
    ("shape of two rows", put("dest", shape=[2]), "WRONG_SHAPE", "inputs.dest", "says 2 values, data has 1"),
    ("matrix", put("dest", shape=[1, 2]), "WRONG_SHAPE", "inputs.dest", "expected shape [rows]"),
    ("no shape", put("dest", shape=[]), "WRONG_SHAPE", "inputs.dest", "expected shape [rows]"),
    ("negative shape", put("dest", shape=[-1]), "WRONG_SHAPE", "inputs.dest", "[-1]"),
    ("more rows than others", put("dest", shape=[2], data=["A", "B"]), "WRONG_SHAPE", "inputs.carrier", "has 1 rows"),
    (
        "no date",
        put("scheduled_departure", data=["30 February"]),
        "BAD_TIMESTAMP",
        "inputs.scheduled_departure[0]",
        "ISO 8601",
    ),
    (
        "no zone",
        put("scheduled_departure", data=["2013-12-31T13:00:00"]),
        "BAD_TIMESTAMP",
        "inputs.scheduled_departure[0]",
        "no time zone",
    ),
    (
        "far future",
        put("scheduled_departure", datatype="INT64", data=[2**62]),
        "BAD_TIMESTAMP",
        "inputs.scheduled_departure[0]",
        "no year",
    ),
    ("moment no date", parameter(event_timestamp="soon"), "BAD_TIMESTAMP", "parameters.event_timestamp", "ISO 8601"),
    (
        "moment no zone",
        parameter(event_timestamp="2013-12-31"),
        "BAD_TIMESTAMP",
        "parameters.event_timestamp",
        "no time zone",
    ),
    ("moment list", parameter(event_timestamp=[1]), "MALFORMED_REQUEST", "parameters.event_timestamp", "Expected"),
    (
        "explain text",
        parameter(explain_features="yes"),
        "MALFORMED_REQUEST",
        "parameters.explain_features",
        "Expected `bool`",
    ),
    ("unknown output", whole(outputs=[{"name": "label"}]), "UNKNOWN_OUTPUT", "outputs.label", "it has probability"),
    ("id too long", whole(id="x" * 129), "BAD_REQUEST_ID", "id", "at most 128"),
    ("id with line break", whole(id="a\r\nSet-Cookie: b"), "BAD_REQUEST_ID", "id", "printable ASCII"),
    ("id a number", whole(id=7), "MALFORMED_REQUEST", "id", "Expected `str`"),
    ("inputs an object", whole(inputs={}), "MALFORMED_REQUEST", "inputs", "Expected `array`"),
    ("inputs missing", lambda body: body.pop("inputs"), "MALFORMED_REQUEST", "inputs", "Expected `array`"),
    ("tensor a number", add(7), "MALFORMED_REQUEST", "inputs[6]", "Expected `object`"),
    (
        "tensor without data",
        add({"name": "a", "datatype": "FP64", "shape": [1]}),
        "MALFORMED_REQUEST",
        "inputs[6].data",
        "missing required field `data`",
    ),
    ("shape of text", put("dest", shape=["1"]), "MALFORMED_REQUEST", "inputs[2].shape[0]", "Expected `int`"),
]


@pytest.mark.parametrize(("change", "reason", "field", "text"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_a_fault_is_refused_by_name(server: Server, change: Change, reason: str, field: str, text: str) -> None:
    body = request()
    change(body)
    found = server.infer(body)
    assert (found.status, found.document["reason"]) == (400, reason), found.body
    violations = found.document["violations"]
    described = {item["field"]: item["description"] for item in violations}
    assert field in described
    assert text in described[field]
    assert text in found.document["error"]
    assert all(item["reason"] == reason for item in violations)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"<html>",
        b"\xff\xfe",
        b'{"inputs": [NaN]}',
        b'{"inputs": []} x',
        b'{"a":' * 100_000,
        b'{"inputs": [{"name": "\\ud800", "datatype": "", "shape": [], "data": []}]}',
        b'{"inputs": [{"name": "\\ud800", "datatype": "", "shape": [], "data": [1e999]}]}',
        b'{"inputs": [{"name": "a", "datatype": "", "shape": [], "data": [1e999, NaN]}]}',
    ],
    ids=[
        "empty",
        "truncated",
        "html",
        "no utf-8",
        "NaN",
        "more behind it",
        "deep",
        "half",
        "huge and half",
        "huge, NaN",
    ],
)
def test_what_is_no_json_is_refused(server: Server, body: bytes) -> None:
    found = server.infer(body)
    assert (found.status, found.document["reason"]) == (400, "MALFORMED_JSON")


@pytest.mark.parametrize("body", [b"null", b"[]", b"7", b'"text"'])
def test_json_that_is_no_message_is_refused(server: Server, body: bytes) -> None:
    found = server.infer(body)
    assert (found.status, found.document["reason"]) == (400, "MALFORMED_REQUEST")


def test_a_number_that_json_cannot_hold_is_named(server: Server) -> None:
    body = b'{"inputs": [{"name": "distance", "datatype": "FP64", "shape": [1], "data": [1e999]}]}'
    found = server.infer(body)
    assert found.status == 400
    assert ("inputs.distance[0]", "NON_FINITE") in {(v["field"], v["reason"]) for v in found.document["violations"]}


def test_all_faults_come_in_one_answer(server: Server) -> None:
    body = request()
    for change in (drop("carrier"), add(tensor("speed", [1])), put("distance", data=["far"]), put("dest", shape=[3])):
        change(body)
    found = server.infer(body)
    assert (found.status, found.document["reason"]) == (400, "INVALID_REQUEST")
    assert {(item["field"], item["reason"]) for item in found.document["violations"]} == {
        ("inputs.carrier", "MISSING_INPUT"),
        ("inputs.speed", "UNKNOWN_INPUT"),
        ("inputs.distance[0]", "WRONG_TYPE"),
        ("inputs.dest", "WRONG_SHAPE"),
    }


def test_wrong_rows_are_counted_and_the_first_ones_named(server: Server) -> None:
    body = request(rows=40)
    put("distance", data=[1, None] * 20)(body)
    violations = server.infer(body).document["violations"]
    assert [item["field"] for item in violations[:2]] == ["inputs.distance[1]", "inputs.distance[3]"]
    assert len(violations) == 11
    assert violations[-1]["description"] == "and 10 more rows"


def test_too_many_rows_are_refused_as_too_large(server: Server) -> None:
    found = server.infer(request(rows=10_001))
    assert (found.status, found.document["reason"]) == (413, "TOO_MANY_ROWS")
    assert "10,000" in found.document["error"]


def test_a_refusal_carries_the_request_id(server: Server) -> None:
    found = server.infer({**request(), "id": "mine", "inputs": []})
    assert (found.status, found.headers["x-request-id"]) == (400, "mine")


def refused_without_a_trace(found: Answer) -> bool:
    return found.status >= 400 and not any(part in found.body for part in (b"Traceback", b"/work", b".py"))


def test_an_answer_to_a_fault_shows_nothing_of_the_server(server: Server) -> None:
    for body in (b"{", b"null", b'{"inputs": 7}'):
        assert refused_without_a_trace(server.infer(body))
    assert refused_without_a_trace(server.call("POST", f"/v2/models/{ID}/nothing", request()))
