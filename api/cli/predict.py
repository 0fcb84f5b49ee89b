"""`ma predict`: one request to the inference server, and its answer for people.  Uses the Open Inference Protocol v2.

A request file holds either a whole protocol request (`inputs`) or one flat object of feature values.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from api.cli import output
from api.cli.exits import UNREACHABLE, Failure
from api.config import Config

TIMEOUT_S = 30.0
SHOWN = 300
EXPLANATION = ("VIEW", "FEATURE", "VALUE", "ENTITY", "AGE", "STATUS")


def request_of(given: Mapping[str, Any], *, at: str = "", explain: bool = False) -> dict[str, Any]:
    """Return a protocol request: `given` as it is if it is one, otherwise one row of its values."""
    if "inputs" in given:
        request = dict(given)
    else:
        values = {name: value for name, value in given.items() if name != "parameters"}
        inputs = [_tensor(name, value) for name, value in values.items()]
        request = {"inputs": inputs, "parameters": given.get("parameters", {})}
    parameters = dict(request.get("parameters") or {})
    if at:
        parameters["event_timestamp"] = at
    if explain:
        parameters["explain_features"] = True
    return {**request, **({"parameters": parameters} if parameters else {})}


def _tensor(name: str, value: Any) -> dict[str, Any]:
    values = value if isinstance(value, list) else [value]
    return {"name": name, "datatype": _datatype(values), "shape": [len(values)], "data": values}


def _datatype(values: Sequence[Any]) -> str:
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, bool) for value in present):
        return "BOOL"
    if present and all(isinstance(value, int) and not isinstance(value, bool) for value in present):
        return "INT64"
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return "FP64"
    return "BYTES"


def call(config: Config, deployment: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a deployment (`project.name`).  Raises Failure: code 3 if nothing answers, 1 if it refuses."""
    connection = http.client.HTTPConnection("127.0.0.1", config.serving_port, timeout=TIMEOUT_S)
    try:
        body = json.dumps(request).encode()
        path = f"/v2/models/{quote(deployment, safe='')}/infer"
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        message = f"the inference server at {config.serving_url} does not answer ({error}): try `ma status`"
        raise Failure(message, code=UNREACHABLE) from None
    finally:
        connection.close()
    if answer.status >= 500:
        raise Failure(f"{deployment}: {_reason(text)} (HTTP {answer.status})", code=UNREACHABLE)
    if answer.status != 200:
        raise Failure(f"{deployment} refused the request: {_reason(text)} (HTTP {answer.status})")
    return _object(text, f"{deployment} answered")


def _object(text: str, whose: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Failure(f"{whose}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Failure(f"{whose}: not a JSON object")
    return found


def _reason(text: str) -> str:
    try:
        found = json.loads(text)
        return str(found["error"])[:SHOWN]
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())[:SHOWN] or "no reason given"


def read_request(name: str) -> dict[str, Any]:
    """Return the object in a JSON file, `-` for standard input."""
    import sys
    from pathlib import Path

    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Failure(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failure(f"{name}: not UTF-8") from None
    return _object(text, name)


def show(answer: Mapping[str, Any]) -> None:
    """Print the outputs, and the features that were joined if the answer explains them."""
    for tensor in answer.get("outputs", ()):
        print(f"{tensor['name']}: {', '.join(_number(value) for value in tensor['data'])}")
    if features := (answer.get("parameters") or {}).get("features"):
        print()
        output.table(EXPLANATION, [_feature_row(feature) for feature in features])


def _feature_row(feature: Mapping[str, Any]) -> list[str]:
    entity = feature.get("entity")
    shown = ",".join(str(value) for value in entity.values()) if isinstance(entity, Mapping) else str(entity or "-")
    age_s = feature.get("age_s")
    return [
        str(feature.get("view", "")),
        str(feature.get("feature", "")),
        _number(feature.get("value")),
        shown,
        "-" if age_s is None else output.duration(float(age_s)),
        str(feature.get("status", "")),
    ]


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
