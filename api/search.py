"""Search across kinds: text in names, labels and descriptions, and conditions on indexed fields.

Labels and conditions are found by the store's indexes.  Text is looked for in each object that they leave, one by one,
tens of microseconds each: an answer looks at most at 5,000 objects and says where to go on.  Pages are read at
different versions: what changes in between is found as it is when it is looked at.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from api.criteria import bad_filter, condition
from api.errors import InvalidArgument
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.kinds import Kind, kinds, value_at
from api.listing import parse_selector
from api.resources import Resources
from api.store.base import Criterion, Group, Operator, Query

USUAL_LIMIT, LARGEST_LIMIT = 50, 500
SCANNED = 5000
CHUNK = 500
LONGEST_TEXT = 256
MOST_MATCHES = 8
AROUND = 40
DEEPEST = 3
DESCRIPTIVE = re.compile(r"(.*_)?(description|display_name|title|summary|comment)\Z")

Position = tuple[str, str, str]


async def search(
    resources: Resources, request: Any, scopes: Mapping[str, frozenset[str] | None], principal: str
) -> wire.SearchResponse:
    """Return the next hits of a SearchRequest in the namespaces of each kind that `scopes` allows.

    Raises InvalidArgument.
    """
    _check(request)
    binding = _binding(request, principal)
    start = _read_token(request.page_token, binding)
    limit = min(request.limit or USUAL_LIMIT, LARGEST_LIMIT)
    labels = parse_selector(request.label_selector, "label_selector")
    pattern = re.compile(re.escape(request.text), re.IGNORECASE) if request.text else None
    answer = wire.SearchResponse()
    for kind, where in _conditions(request, scopes):
        position = start if start is not None and start[0] == kind.name else None
        if start is not None and kind.name < start[0]:
            continue
        while True:
            size = min(CHUNK, SCANNED - answer.scanned, CHUNK if pattern else limit - len(answer.hits))
            if size <= 0:
                answer.next_page_token = _token(position or (kind.name, "", ""), binding)
                return answer
            terms = [term for term in (where, _after(position)) if term is not None]
            where_now = Group(tuple(terms)) if terms else None
            query = Query(labels=labels, where=where_now, limit=size, namespaces=scopes[kind.name])
            page = await resources.list(kind.name, query)
            for item in page.items:
                position = (kind.name, item.metadata.namespace, item.metadata.name)
                answer.scanned += 1
                matches = [] if pattern is None else found(kind, item, pattern)
                if pattern is None or matches:
                    answer.hits.append(_hit(kind, item, matches))
                if len(answer.hits) == limit:
                    answer.next_page_token = _token(position, binding)
                    return answer
            if not page.next:
                break
    return answer


def _check(request: Any) -> None:
    if request.limit < 0:
        raise bad_filter("limit", f"must not be negative, is {request.limit}")
    if len(request.text) > LONGEST_TEXT:
        raise bad_filter("text", f"is longer than {LONGEST_TEXT} characters")


def _conditions(request: Any, scopes: Mapping[str, frozenset[str] | None]) -> Sequence[tuple[Kind, Group | None]]:
    """Return the kinds to look through, in order, with their condition.  Raises InvalidArgument."""
    usable, refused = [], []
    for name in sorted(scopes):
        visible = scopes[name]
        if visible is not None and not visible:
            continue
        try:
            usable.append((kinds()[name], condition(kinds()[name], request.operation, "operation")))
        except InvalidArgument as error:
            refused.append(error)
    if refused and (request.kinds or not usable):
        raise refused[0]
    return usable


def _after(position: Position | None) -> Group | None:
    if position is None:
        return None
    _, namespace, name = position
    later = Criterion("metadata.namespace", Operator.GREATER_THAN, (namespace,))
    here = Criterion("metadata.namespace", Operator.EQUAL, (namespace,))
    behind = Criterion("metadata.name", Operator.GREATER_THAN, (name,))
    return Group((later, Group((here, behind))), any=True)


def found(kind: Kind, resource: Any, pattern: re.Pattern[str]) -> list[wire.SearchMatch]:
    """Return where a text stands in an object, at most eight places."""
    matches: list[wire.SearchMatch] = []
    for field, text in _texts(kind, resource):
        place = pattern.search(text)
        if place is not None:
            matches.append(wire.SearchMatch(field=field, snippet=_snippet(text, *place.span())))
            if len(matches) == MOST_MATCHES:
                break
    return matches


def _texts(kind: Kind, resource: Any) -> Iterator[tuple[str, str]]:
    yield "metadata.name", resource.metadata.name
    for key in sorted(resource.metadata.labels):
        if not key.startswith("michelangelo/"):
            yield f"metadata.labels[{key}]", f"{key}={resource.metadata.labels[key]}"
    for path in descriptive(kind.name):
        value = value_at(resource, path)
        if value:
            yield path, value


@cache
def descriptive(kind: str) -> tuple[str, ...]:
    """Return the paths of a kind's texts that describe it, but no sensitive ones."""
    described = kinds()[kind]
    hidden = {*described.sensitive, *described.external}
    spec: Any = described.message.DESCRIPTOR.fields_by_name["spec"].message_type
    return tuple(path for path in _described(spec, "spec", DEEPEST) if not _below(path, hidden))


def _described(message: Descriptor, path: str, deeper: int) -> Iterator[str]:
    for field in message.fields:
        here = f"{path}.{field.name}"
        if field.is_repeated:
            continue
        if field.type == FieldDescriptor.TYPE_STRING and (DESCRIPTIVE.match(field.name) or here == "spec.name"):
            yield here
        elif field.message_type is not None and deeper and not field.message_type.full_name.startswith("google."):
            yield from _described(field.message_type, here, deeper - 1)


def _below(path: str, hidden: set[str]) -> bool:
    return any(f"{path}.".startswith(f"{one}.") for one in hidden)


def _snippet(text: str, start: int, end: int) -> str:
    first, last = max(0, start - AROUND), min(len(text), end + AROUND)
    return ("…" if first else "") + text[first:last] + ("…" if last < len(text) else "")


def _hit(kind: Kind, resource: Any, matches: Sequence[wire.SearchMatch]) -> wire.SearchHit:
    metadata = resource.metadata
    hit = wire.SearchHit(
        kind=kind.name,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resourceVersion,
        matches=matches,
    )
    hit.create_time.CopyFrom(metadata.creationTimestamp)
    return hit


def _binding(request: Any, principal: str) -> bytes:
    """Return a digest of what a page token belongs to: who asks, and what for."""
    asked = type(request)()
    asked.CopyFrom(request)
    asked.ClearField("page_token")
    asked.ClearField("limit")
    return hashlib.sha256(f"{principal}\0".encode() + asked.SerializeToString(deterministic=True)).digest()


def _token(position: Position, binding: bytes) -> str:
    """Return where a search ended.  It is no secret and gives no right: a changed one is an error, not a danger."""
    told = json.dumps(position).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(binding + told).digest()[:12] + told).decode()


def _read_token(token: str, binding: bytes) -> Position | None:
    if not token:
        return None
    try:
        raw = base64.urlsafe_b64decode(token.encode())
        kind, namespace, name = json.loads(raw[12:])
        if _token((kind, namespace, name), binding) != token:
            raise ValueError
    except (TypeError, ValueError) as error:
        told = "page_token is not one of this search: begin again without one"
        raise InvalidArgument(told, reason="BAD_TOKEN") from error
    return kind, namespace, name
