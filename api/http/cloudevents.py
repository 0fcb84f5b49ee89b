"""CloudEvents 1.0 over HTTP: one event in structured or binary mode, made a PublishRequest.  Decides nothing.

Source: https://github.com/cloudevents/spec, core 1.0.2, its JSON event format and HTTP protocol binding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from api.admission import refuse
from api.broker.publishing import Publisher, as_asked
from api.errors import ApiError, FieldViolation
from api.gen.michelangelo.platform.v1 import broker_service_pb2 as wire
from api.http import body, objects
from api.http.body import Body
from api.http.exchange import Answer, Exchange, answer
from api.http.refusals import MethodNotAllowed, Unsupported
from api.messages import json_text
from api.messages.free import fill
from api.messages.plain import plain
from api.validation import shown

STRUCTURED = "application/cloudevents+json"
VERSION = "1.0"
PREFIX = "ce-"
REQUIRED = ("id", "source", "type")
# What is a field of an event here; all others are kept as its attributes.
FIELDS = {"type": "name", "id": "key", "source": "source", "subject": "subject"}
# Attributes of CloudEvents' own; an extension may be a number, or true or false.
TEXTS = frozenset({"time", "dataschema", "datacontenttype", *FIELDS})
# An extension of ours: the run in which it is published, as PROJECT/RUN.
CAUSE = "macause"
NO_ATTRIBUTES = frozenset({"specversion", "time", "data", "data_base64", CAUSE, *FIELDS})
NAME = re.compile(r"[a-z0-9]{1,64}\Z")
SAID = {"name": "type", "key": "id", "data.": "data.", "attributes[": "attributes["}


class CloudEvents:
    """Takes CloudEvents in."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def __call__(self, project: str, exchange: Exchange) -> Answer:
        """Publish what a request brings: 201, or 200 for what was there.  Raises `api.errors`."""
        if exchange.method != "POST":
            raise MethodNotAllowed(exchange.method, ("POST",))
        exchange.query.check(frozenset())
        media = exchange.header("content-type").partition(";")[0].strip().lower()
        attributes, data = await (_structured(exchange) if media == STRUCTURED else _binary(exchange, media))
        request = _request(project, attributes)
        if data is not None:
            try:
                fill(request.data, data)
            except ValueError:
                refuse([FieldViolation("data", "is no JSON that can be kept", reason="BAD_MESSAGE")])
        try:
            told = await self._publisher.publish(exchange.call, request)
        except ApiError as error:
            raise as_asked(error, SAID) from error.__cause__
        return answer(plain(told), 200 if told.duplicate else 201)


async def _structured(exchange: Exchange) -> tuple[Mapping[str, Any], Any]:
    entries = objects.read(await body.read(exchange, (STRUCTURED,))).entries
    if "data_base64" in entries:
        told = "is not kept: publish JSON, or store the bytes and publish where they lie"
        refuse([FieldViolation("data_base64", told, reason="NOT_JSON")])
    media = entries.get("datacontenttype", "application/json")
    if isinstance(media, str) and not _is_json(media) and not isinstance(entries.get("data"), str | None):
        told = f"is {shown(media)!r}, and data is JSON"
        refuse([FieldViolation("datacontenttype", told, reason="NOT_JSON")])
    return {key: value for key, value in entries.items() if value is not None or key == "data"}, entries.get("data")


async def _binary(exchange: Exchange, media: str) -> tuple[Mapping[str, Any], Any]:
    """Return attributes from headers, and the body by its type."""
    found: dict[str, Any] = {}
    for name, value in exchange.headers:
        if name.startswith(PREFIX):
            key = name.removeprefix(PREFIX)
            if key in found:
                refuse([FieldViolation(key, f"is given twice, by the header {name}", reason="TWICE")])
            try:
                found[key] = unquote(value.strip().strip('"'), errors="strict")
            except UnicodeDecodeError:
                refuse([FieldViolation(key, "is not UTF-8 in percent codes", reason="BAD_TEXT")])
    if not found or media.startswith("application/cloudevents"):
        told = f"send one event as {STRUCTURED}, or its attributes as headers {PREFIX}id, {PREFIX}source, {PREFIX}type"
        raise Unsupported(f"the header Content-Type is {shown(media)!r}: {told}")
    if media and not _is_json(media) and media != "text/plain":
        told = "events carry JSON or text/plain; store the bytes and publish where they lie"
        raise Unsupported(f"the header Content-Type is {shown(media)!r}: {told}")
    sent = await body.read(exchange, (media,))
    if media:
        found["datacontenttype"] = media
    return found, _data(sent)


def _data(sent: Body) -> Any:
    if not sent.data:
        return None
    if _is_json(sent.media):
        return json_text.read(sent.data)
    try:
        return sent.data.decode()
    except UnicodeDecodeError:
        refuse([FieldViolation("data", "is no UTF-8", reason="BAD_TEXT")])


def _is_json(media: str) -> bool:
    named = media.partition(";")[0].strip().lower()
    return named.endswith("+json") or named.rpartition("/")[2] == "json"


def _request(project: str, attributes: Mapping[str, Any]) -> Any:
    """Return what is to be published, without its data.  Raises InvalidArgument with every fault."""
    missing = [name for name in REQUIRED if attributes.get(name, "") == ""]
    found = [FieldViolation(name, "is required", reason="MISSING_FIELD") for name in missing]
    if attributes.get("specversion") != VERSION:
        told = f"is {VERSION!r}, the version of CloudEvents that is spoken here"
        found.append(FieldViolation("specversion", told, shown(attributes.get("specversion", "")), "BAD_SPECVERSION"))
    texts: dict[str, str] = {}
    for name, value in attributes.items():
        if name in ("data", "data_base64"):
            continue
        if not NAME.match(name):
            told = "is no name of an attribute: lower-case letters and digits"
            found.append(FieldViolation(shown(name), told, reason="BAD_ATTRIBUTE"))
        elif name in TEXTS and not isinstance(value, str):
            found.append(FieldViolation(name, "is a text", reason="BAD_ATTRIBUTE"))
        elif isinstance(value, bool | int | str):
            texts[name] = str(value).lower() if isinstance(value, bool) else str(value)
        else:
            found.append(FieldViolation(name, "is a text, a number or true or false", reason="BAD_ATTRIBUTE"))
    refuse(found)
    request = wire.PublishRequest(namespace=project)
    for name, value in texts.items():
        if name in FIELDS:
            setattr(request, FIELDS[name], value)
        elif name not in NO_ATTRIBUTES:
            request.attributes[name] = value
    if "time" in texts:
        try:
            request.time.FromJsonString(texts["time"])
        except ValueError:
            told = "is a time such as 2026-11-21T06:00:00Z"
            refuse([FieldViolation("time", told, shown(texts["time"]), "BAD_TIME")])
    if CAUSE in texts:
        request.cause.namespace, _, request.cause.name = texts[CAUSE].rpartition("/")
    return request
