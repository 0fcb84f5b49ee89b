"""`ma event publish`: one event, told once for each key."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api.cli.context import client, say
from api.cli.exits import USAGE, Failure
from api.cli.runs import parameters
from api.errors import InvalidArgument
from api.messages import json_text
from api.subscriptions.values import LARGEST_DATA

DURATION = re.compile(r"(\d{1,9})(s|m|h|d)\Z")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def publish(
    name: str,
    *,
    namespace: str,
    data: str,
    settings: Sequence[str],
    key: str,
    source: str,
    subject: str,
    keep: str,
) -> None:
    """Publish an event and print its name, and whether it was there already."""
    told = payload(data, settings)
    ttl_s = seconds(keep) if keep else 0
    with client() as api:
        try:
            answer = api.publish(name, told, namespace=namespace, key=key, source=source, subject=subject, ttl_s=ttl_s)
        except ValueError as error:
            raise Failure(f"--data cannot be published: {error}", code=USAGE) from None
    say(f"{answer.event} was there already" if answer.duplicate else answer.event)


def payload(data: str, settings: Sequence[str]) -> Any:
    """Return what is told: JSON, or the one of a file, with single fields over it."""
    text = _read(data.removeprefix("@")) if data.startswith("@") else data.encode()
    told = None
    if text.strip():
        try:
            told = json_text.read(text, "--data")
        except InvalidArgument as error:
            raise Failure(error.message, code=USAGE) from None
    if not settings:
        return told
    if told is not None and not isinstance(told, dict):
        raise Failure("--set changes fields, and --data is no JSON object", code=USAGE)
    return {**(told or {}), **parameters(settings)}


def _read(name: str) -> bytes:
    """Return at most a byte more than can be published."""
    if name == "-":
        return sys.stdin.buffer.read(4 * LARGEST_DATA)
    with Path(name).open("rb") as file:
        return file.read(4 * LARGEST_DATA)


def seconds(text: str) -> int:
    """Return a time such as `12h` in seconds.  Raises Failure."""
    match = DURATION.match(text)
    if match is None:
        raise Failure(f"--keep wants a time such as 30m, 12h or 30d, not {json.dumps(text[:32])}", code=USAGE)
    return int(match[1]) * SECONDS[match[2]]
