"""One prediction: inputs checked, features joined, scored, answered, logged.  Loads no model and parses no HTTP."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import NamedTuple

from api.errors import ApiError, FieldViolation, ResourceExhausted, Unavailable
from serving import explain, instants, oip
from serving.deployments import Deployment, Serving
from serving.http import JSON, Response, encode, header_value, refused
from serving.join import Array, Joined, array
from serving.log import PredictionLog, Record
from serving.metrics import Meter, Metrics
from serving.models import EVENT_TIMESTAMP, BadModelOutput, Model
from serving.signature import Rows, invalid

LARGE_ROWS = 64
MOST_LARGE = 16
MOST_ID = 128


class Call(NamedTuple):
    """A request that is being answered."""

    deployment: str
    serving: Serving
    request: oip.InferRequest
    request_id: str
    received_ns: int
    began_s: float
    event_us: int
    rows: Rows
    joined: Joined


class Predictor:
    """Answers infer calls.  Few rows are scored at once, many in a thread, so that nobody waits for them."""

    def __init__(self, log: PredictionLog, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics
        self._large = 0

    def infer(self, deployment: Deployment, body: bytes, header_id: str) -> Response | Awaitable[Response]:
        """Answer a request for the current revision of a deployment."""
        received_ns, began_s = time.time_ns(), time.perf_counter()
        meter = self._metrics.of(deployment.name)
        request_id = header_id
        try:
            request = oip.read(body)
            request_id = _request_id(request.id or header_id)
            call = self._call(deployment, request, request_id, received_ns, began_s)
            columns = self._columns(call)
            if call.rows.size > LARGE_ROWS:
                return self._score_large(call, columns, meter)
            return self._answer(call, call.serving.model.score(columns, call.rows.size), meter)
        except ApiError as error:
            return _refuse(error, request_id, meter, began_s)
        except BadModelOutput as error:
            return _refuse(_bad_output(error), request_id, meter, began_s)

    def _call(
        self, deployment: Deployment, request: oip.InferRequest, request_id: str, received_ns: int, began_s: float
    ) -> Call:
        serving = deployment.current
        if serving is None:
            raise Unavailable(f"{deployment.name} has no revision that answers", reason="NOT_READY")
        model = serving.model
        event_us = _event_us(request.parameters.event_timestamp, received_ns)
        for wanted in request.outputs:
            if wanted.name != model.signature.output:
                text = f"is no output of this model; it has {model.signature.output}"
                raise invalid([FieldViolation(f"outputs.{wanted.name[:64]}", text, reason="UNKNOWN_OUTPUT")])
        rows = model.signature.read(request.inputs)
        joined = model.join.join(rows.values, rows.size, event_us)
        return Call(deployment.name, serving, request, request_id, received_ns, began_s, event_us, rows, joined)

    def _columns(self, call: Call) -> dict[str, Array]:
        columns = {**call.rows.columns, **call.joined.columns}
        if call.serving.model.reads_event_timestamp:
            columns[EVENT_TIMESTAMP] = array([call.event_us] * call.rows.size, "timestamp")
        return columns

    async def _score_large(self, call: Call, columns: dict[str, Array], meter: Meter) -> Response:
        if self._large >= MOST_LARGE:
            error = ResourceExhausted(f"{MOST_LARGE} large requests are being answered: try again", reason="OVERLOADED")
            return _refuse(error, call.request_id, meter, call.began_s, head=b"Retry-After: 1\r\n")
        self._large += 1
        try:
            scores = await asyncio.to_thread(call.serving.model.score, columns, call.rows.size)
        except BadModelOutput as error:
            return _refuse(_bad_output(error), call.request_id, meter, call.began_s)
        finally:
            self._large -= 1
        return self._answer(call, scores, meter)

    def _answer(self, call: Call, scores: list[float], meter: Meter) -> Response:
        model, count = call.serving.model, call.rows.size
        parameters = {}
        if call.request.parameters.explain_features:
            parameters["features"] = explain.features(call.joined.found, call.event_us)
        output = oip.Output(model.signature.output, "FP64", [count], scores)
        revision = call.serving.revision
        body = encode(oip.InferResponse(call.deployment, revision, call.request_id, [output], parameters))
        head = JSON + b"X-Request-Id: " + call.request_id.encode() + b"\r\n" + _warnings(model, call.rows, meter)
        for view in call.joined.found:
            for one in view:
                meter.features[one.status] += len(one.view.features)
        seconds = time.perf_counter() - call.began_s
        meter.request(200, seconds)
        self._log.add(
            Record(
                schema=model.schema,
                deployment=call.deployment,
                revision=revision,
                request_id=call.request_id,
                received_us=call.received_ns // 1000,
                latency_us=int(seconds * 1e6),
                event_us=call.event_us,
                values=call.rows.values,
                found=call.joined.found,
                scores=scores,
            )
        )
        return Response(200, body, head)


def _warnings(model: Model, rows: Rows, meter: Meter) -> bytes:
    """Return a header for each input with a value that was not in the training part; the prediction stands."""
    found = b""
    for name, known in model.categories.items():
        values = rows.values.get(name, ())
        unknown = sum(value is not None and value not in known for value in values)
        if unknown:
            meter.unknown_categories[name] += unknown
            found += b"X-Warning: " + header_value(f"unknown category in {unknown} rows of {name}") + b"\r\n"
    return found


def _request_id(given: str) -> str:
    if not given:
        return f"{random.getrandbits(128):032x}"
    if len(given) > MOST_ID or not (given.isascii() and given.isprintable()):
        text = f"expected at most {MOST_ID} printable ASCII characters"
        raise invalid([FieldViolation("id", text, reason="BAD_REQUEST_ID")])
    return given


def _event_us(given: str | int | None, received_ns: int) -> int:
    if given is None:
        return received_ns // 1000
    try:
        return instants.parse(given) if isinstance(given, str) else instants.checked(given)
    except ValueError as error:
        fault = FieldViolation("parameters.event_timestamp", str(error), reason="BAD_TIMESTAMP")
        raise invalid([fault]) from None


def _bad_output(error: BadModelOutput) -> Unavailable:
    return Unavailable(str(error), reason="BAD_MODEL_OUTPUT")


def _refuse(error: ApiError, request_id: str, meter: Meter, began_s: float, *, head: bytes = b"") -> Response:
    meter.request(error.http, time.perf_counter() - began_s)
    shown = header_value(request_id[:MOST_ID])
    return refused(error, head=head + (b"X-Request-Id: " + shown + b"\r\n" if shown else b""))
