"""One input through gRPC, HTTP and `ma`, and how each refuses it.  Real server, real store, the real command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.cli.main import main
from api.kinds import kinds
from api.messages.fill import Filler
from api.messages.json_tree import JsonTree
from tests.api.http_running import HttpServed
from tests.api.running import read, request_of

ROOT = "/apis/michelangelo.api/v2"
REASON = re.compile(r"\(([A-Z][A-Z_]+)\)")
TOKEN = "the-token-of-these-tests-and-of-nothing-else"
BEARER = ("authorization", f"Bearer {TOKEN}")


@dataclass(frozen=True)
class Answer:
    """How an input was answered.  reasons: empty if it was accepted; fields: refused paths; text: all that was said."""

    reasons: frozenset[str]
    fields: tuple[str, ...]
    text: str
    warned: str = ""
    uid: str = ""


class Surfaces:
    """A server of which every surface can be used.  `folder`: for files that `ma` reads."""

    def __init__(self, served: HttpServed, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.served = served
        self.folder = folder
        self._capsys = capsys
        self.project = served.project()

    def grpc(
        self, kind: str, verb: str, request: Any = None, metadata: Sequence[tuple[str, str]] = (), **fields: Any
    ) -> Answer:
        """Call one method with a message, or with bytes."""
        body = (
            request if isinstance(request, bytes) else (request or request_of(kind, verb, **fields)).SerializeToString()
        )
        described: Any = kinds()[kind]
        method = described.method(verb)
        call: Any = self.served.channel.unary_unary(
            f"/{described.service.full_name}/{method.name}", request_serializer=None, response_deserializer=None
        )
        sent = metadata if any(key == "authorization" for key, _ in metadata) else (*metadata, BEARER)
        try:
            raw, ended = call.with_call(body, timeout=20, metadata=tuple(sent))
        except grpc.RpcError as error:
            refused = read(error)
            return Answer(frozenset({refused.reason or refused.code}), tuple(refused.paths), refused.message)
        found = method.output_type._concrete_class.FromString(raw)
        warned = "; ".join(str(value) for key, value in ended.trailing_metadata() or () if key == "warning")
        uid = (
            getattr(found, described.singular).metadata.uid
            if described.singular in found.DESCRIPTOR.fields_by_name
            else ""
        )
        return Answer(frozenset(), (), "", warned, uid)

    def http(
        self, method: str, path: str, value: Any = None, headers: Mapping[str, str] | None = None, **sent: Any
    ) -> Answer:
        """Send a request; `value` goes as JSON, bytes as they are."""
        given = {**dict([BEARER]), **(headers or {})}
        if isinstance(value, bytes):
            sent["content"] = value
            given.setdefault("content-type", "application/json")
            value = None
        answer = self.served.send(method, path, value, headers=given, **sent)
        found = answer.json() if answer.content else {}
        if answer.status_code < 300:
            uid = found.get("metadata", {}).get("uid", "") if isinstance(found, dict) else ""
            return Answer(frozenset(), (), "", answer.headers.get("warning", ""), uid)
        fields = tuple(violation["field"] for violation in found["field_violations"])
        return Answer(frozenset({found["reason"]}), fields, found["message"])

    def ma(self, *arguments: str) -> Answer:
        """Run `ma`."""
        self._capsys.readouterr()
        code = main(list(arguments))
        said = self._capsys.readouterr()
        assert "Traceback" not in said.err
        if code == 0:
            return Answer(frozenset(), (), said.out, said.err)
        found = frozenset(REASON.findall(said.err)) or frozenset({f"exit {code}"})
        return Answer(found, tuple(re.findall(r"[\w.\[\]]+(?=: )", said.err)), said.err)

    def apply(self, document: Any) -> Answer:
        """Run `ma apply` on a document, or on the bytes of a file of JSON."""
        path = self.folder / "input.json"
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return self.ma("apply", "-f", str(path))

    def message(self, document: Mapping[str, Any]) -> Any:
        """Return the object that a document describes, without judging it."""
        resource = kinds()[document["kind"]].new()
        filler = Filler(JsonTree())
        filler.fields(
            resource, [(key, item, item) for key, item in document.items() if key in ("metadata", "spec", "status")], ""
        )
        return resource

    def path(self, kind: str, namespace: str = "", name: str = "") -> str:
        """Return the path of a collection, or of an object."""
        plural = kinds()[kind].plural.replace("_", "")
        place = f"/namespaces/{namespace or self.project}" if kind != "Project" else ""
        return f"/apis/{kinds()[kind].group_version}{place}/{plural}{'/' + name if name else ''}"


Send = Callable[[Surfaces], Answer]


@dataclass(frozen=True)
class Case:
    """One row of the catalogue on one surface.  reason: expected, empty if it is accepted; field: a refused path."""

    row: int
    surface: str
    name: str
    send: Send
    reason: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.row}-{self.surface}-{self.name}"
