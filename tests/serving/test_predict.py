"""A deployed model answers over the Open Inference Protocol."""

import json
import math

import numpy as np
import pytest

from operators.features.artifact import load
from operators.features.graph import MISSING
from operators.features.scorer import Scorer
from serving.join import FeatureJoin
from serving.online_store import OnlineStore
from tests.serving.conftest import Stage
from tests.serving.running import AT, FLIGHT, ID, Server, request, tensor

AT_US = 1_388_491_200_000_000
DEPARTURE_US = AT_US + 3_600_000_000


def expected(stage: Stage, **changes: str) -> float:
    """Return the score of one flight by the scorer itself, with features by the join itself."""
    artifact = load(stage.first)
    store = OnlineStore(stage.home / "features" / "online.db")
    flight = {**FLIGHT, **changes}
    rows = {name: [flight[name]] for name in ("carrier", "origin", "dest", "tailnum")}
    columns = dict(FeatureJoin(artifact.document("features.json"), store).join(rows, 1, AT_US).columns)
    store.close()
    columns |= {name: np.array([flight[name]], object) for name in ("carrier", "origin", "dest")}
    columns["scheduled_departure"] = np.array([DEPARTURE_US], np.int64)
    columns["distance"] = np.array([12.0])
    return float(Scorer(artifact).predict(columns)[0])


def test_the_answer_is_the_one_of_the_model_and_the_joined_features(server: Server, stage: Stage) -> None:
    found = server.infer(request())
    assert found.status == 200, found.body
    answered = found.document
    score = expected(stage)
    assert answered["outputs"] == [{"name": "probability", "datatype": "FP64", "shape": [1], "data": [score]}]
    assert (answered["model_name"], answered["model_version"]) == (ID, "one")
    assert answered["parameters"] == {}
    assert 0 < score < 1
    assert score != expected(stage, origin="XXX", carrier="XX", dest="XX", tailnum=""), "the features make a difference"


def test_the_explanation_says_what_was_joined_and_how_old_it_was(server: Server) -> None:
    features = server.infer(request(explain=True)).document["parameters"]["features"]
    assert len(features) == 19
    assert features[0] == {
        "view": "weather",
        "feature": "temp",
        "value": 1.5,
        "entity": {"origin": "JFK"},
        "event_timestamp": "2013-12-31T11:00:00Z",
        "age_s": 3600.0,
        "status": "PRESENT",
        "row": 0,
    }
    assert {item["status"] for item in features} == {"PRESENT"}
    both = next(item for item in features if item["view"] == "carrier_origin_delays")
    assert both["entity"] == {"carrier": "AA", "origin": "JFK"}


def test_what_is_too_old_or_unknown_is_no_value_and_says_so(server: Server) -> None:
    found = server.infer(request(explain=True, carrier="UA", dest="XXX", tailnum=None))
    assert found.status == 200
    by_view = {item["view"]: item for item in found.document["parameters"]["features"]}
    late = by_view["carrier_delays"]
    assert (late["status"], late["value"]) == ("OUTSIDE_MAX_AGE", None)
    assert late["age_s"] == 8 * 86400
    assert late["event_timestamp"] == "2013-12-23T12:00:00Z"
    assert (by_view["destination_delays"]["status"], by_view["destination_delays"]["age_s"]) == ("NOT_FOUND", None)
    assert by_view["planes"]["status"] == "NOT_FOUND"
    assert by_view["planes"]["entity"] == {"tailnum": None}


def test_without_a_moment_features_are_judged_now(server: Server) -> None:
    body = request(explain=True)
    del body["parameters"]["event_timestamp"]
    by_view = {item["view"]: item["status"] for item in server.infer(body).document["parameters"]["features"]}
    assert by_view["weather"] == "OUTSIDE_MAX_AGE"
    assert by_view["planes"] == "PRESENT", "a view without a limit never ages"


@pytest.mark.parametrize("moment", [AT, "2013-12-31T07:00:00-05:00", AT_US])
def test_a_moment_may_be_text_with_a_zone_or_microseconds(server: Server, moment: str | int) -> None:
    features = server.infer(request(explain=True, at=moment)).document["parameters"]["features"]
    assert features[0]["age_s"] == 3600.0


@pytest.mark.parametrize(
    "sent",
    [
        tensor("scheduled_departure", ["2013-12-31T08:00:00-05:00"]),
        tensor("scheduled_departure", [DEPARTURE_US]),
        tensor("scheduled_departure", [[DEPARTURE_US]], datatype="INT64", shape=[1, 1]),
    ],
)
def test_an_input_timestamp_may_be_text_or_microseconds(server: Server, sent: dict[str, object]) -> None:
    body = request()
    body["inputs"] = [item for item in body["inputs"] if item["name"] != "scheduled_departure"] + [sent]
    found = server.infer(body)
    assert found.status == 200, found.body
    assert found.document["outputs"] == server.infer(request()).document["outputs"]


@pytest.mark.parametrize("sent", [tensor("distance", [12.0]), tensor("distance", [1089], datatype="UINT16")])
def test_a_double_may_come_as_any_number(server: Server, sent: dict[str, object]) -> None:
    body = request()
    body["inputs"] = [item for item in body["inputs"] if item["name"] != "distance"] + [sent]
    assert server.infer(body).document["outputs"] == server.infer(request()).document["outputs"]


def test_many_rows_are_answered_as_each_alone(server: Server) -> None:
    origins = ["JFK", "LGA", "XXX"] * 100
    body = request(rows=300)
    body["inputs"] = [item if item["name"] != "origin" else tensor("origin", origins) for item in body["inputs"]]
    answered = server.infer(body).document["outputs"][0]
    alone = [server.infer(request(origin=origin)).document["outputs"][0]["data"][0] for origin in origins[:3]]
    assert answered["shape"] == [300]
    assert answered["data"] == pytest.approx(alone * 100, abs=1e-6)
    assert len(set(alone)) > 1


def test_the_most_rows_are_answered(server: Server) -> None:
    found = server.infer(request(rows=10_000))
    assert found.status == 200
    assert len(found.document["outputs"][0]["data"]) == 10_000


def test_no_rows_are_answered_with_no_rows(server: Server) -> None:
    body = request()
    for item in body["inputs"]:
        item.update(shape=[0], data=[])
    found = server.infer(body)
    assert found.status == 200, found.body
    assert found.document["outputs"][0] == {"name": "probability", "datatype": "FP64", "shape": [0], "data": []}


def test_an_optional_input_may_be_null_or_left_out(server: Server) -> None:
    null = server.infer(request(tailnum=None))
    body = request()
    body["inputs"] = [item for item in body["inputs"] if item["name"] != "tailnum"]
    absent = server.infer(body)
    assert null.status == absent.status == 200
    assert null.document["outputs"] == absent.document["outputs"]


def test_a_request_id_comes_back_from_body_or_header_or_is_made(server: Server) -> None:
    path = f"/v2/models/{ID}/infer"
    body = server.infer({**request(), "id": "mine"})
    assert (body.document["id"], body.headers["x-request-id"]) == ("mine", "mine")
    header = server.call("POST", path, request(), headers={"X-Request-Id": "yours"})
    assert (header.document["id"], header.headers["x-request-id"]) == ("yours", "yours")
    made = {server.infer(request()).document["id"] for _ in range(3)}
    assert len(made) == 3


def test_a_value_that_training_never_saw_is_answered_with_a_warning(server: Server) -> None:
    found = server.infer(request(carrier="ZZ"))
    assert found.status == 200
    assert found.headers["x-warning"] == "unknown category in 1 rows of carrier, unknown category in 1 rows of dest"
    assert "x-warning" not in server.infer(request(dest="JFK")).headers


def test_the_revision_that_answers_may_be_named(server: Server) -> None:
    assert server.call("POST", f"/v2/models/{ID}/versions/one/infer", request()).status == 200
    other = server.call("POST", f"/v2/models/{ID}/versions/two/infer", request())
    assert (other.status, other.document["reason"]) == (404, "VERSION_NOT_FOUND")


def test_golden_rows_survive_the_way_over_http(server: Server, stage: Stage) -> None:
    """Without entities that the store knows, an answer is the graph's and the model's on missing features."""
    artifact = load(stage.first)
    golden = artifact.document("golden.json")["columns"]
    scorer = Scorer(artifact)
    sent = {
        "carrier": [f"?{value}" for value in golden["carrier"]],
        "origin": [f"?{value}" for value in golden["origin"]],
        "dest": golden["dest"],
        "scheduled_departure": golden["scheduled_departure"],
        "distance": [0.0 if value is None else value for value in golden["distance"]],
    }
    columns = {
        item.name: np.array(sent[item.name], object if item.dtype == "string" else None)
        if item.name in sent
        else np.full(len(sent["dest"]), math.nan)
        for item in scorer.graph.inputs
    }
    assert MISSING not in columns["scheduled_departure"]
    inputs = [tensor(name, values) for name, values in sent.items()]
    answered = server.infer({"inputs": inputs})
    assert answered.status == 200, answered.body
    assert json.loads(answered.body)["outputs"][0]["data"] == pytest.approx(scorer.predict(columns).tolist(), abs=1e-6)
