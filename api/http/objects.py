"""Resources as JSON: protobuf JSON below `spec` and `status`, Kubernetes' names above.  Reads strictly, writes all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from api.admission import refuse
from api.errors import FieldViolation, InvalidArgument
from api.http.body import Body
from api.kinds import Kind, stamp
from api.messages import json_text, yaml_text
from api.messages.fill import Fault, Filler, Reader
from api.messages.json_tree import JsonTree
from api.messages.plain import plain
from api.messages.yaml_tree import YamlTree, duplicates
from api.validation import nearest, shown

HEADER = ("apiVersion", "kind")
PARTS = ("metadata", "spec", "status")


@dataclass(frozen=True)
class Document:
    """A body as a tree: how to read it, and its value."""

    reader: Reader
    value: Any

    @property
    def entries(self) -> dict[str, Any]:
        """Return the values at its top by key.  Raises InvalidArgument if it is no mapping."""
        found = self.reader.fields(self.value)
        if found is None:
            told = f"the body wants fields, not {self.reader.shape(self.value)}"
            raise InvalidArgument(told, reason="BAD_MESSAGE")
        return {key: value for key, _, value in found}


def read(body: Body) -> Document:
    """Return the document of a body, by its type.  Raises InvalidArgument."""
    if body.media.endswith("json") or not body.media:
        return Document(JsonTree(), json_text.read(body.data))
    try:
        nodes = yaml_text.documents(body.data.decode("utf-8"))
    except UnicodeDecodeError as error:
        told = f"the body is not UTF-8: byte 0x{body.data[error.start]:02x} at position {error.start}"
        raise InvalidArgument(told, reason="BAD_TEXT") from None
    except yaml_text.YamlError as error:
        reason = "YAML_FEATURE" if "YAML_FEATURE" in str(error) else "BAD_MESSAGE"
        raise InvalidArgument(f"line {error.fault.line}: {error}", reason=reason) from None
    if len(nodes) != 1:
        raise InvalidArgument(f"the body has {len(nodes)} documents: send one", reason="BAD_MESSAGE")
    twice = duplicates(nodes[0])
    refuse([FieldViolation("", f"line {fault.line}: {fault.message}", reason=fault.reason) for fault in twice])
    return Document(YamlTree(), nodes[0])


def resource(kind: Kind, document: Document) -> Any:
    """Return the object that a document describes.  Raises InvalidArgument with every fault."""
    top = document.entries
    found = list(_header(kind, document, top))
    made = kind.message()
    filler = Filler(document.reader)
    known = [(key, value, value) for key, value in top.items() if key in PARTS]
    filler.fields(made, known, "")
    for key in top:
        if key not in PARTS and key not in HEADER:
            told = f"unknown field{nearest(key, (*HEADER, *PARTS))}"
            found.append(FieldViolation(shown(key), told, reason="UNKNOWN_FIELD"))
    refuse([*found, *_violations(filler.faults)])
    stamp(made)
    return made


def message(target: Message, document: Document, path: str = "", ignore: Iterable[str] = ()) -> None:
    """Fill any other message from a document.  Raises InvalidArgument with every fault."""
    filler = Filler(document.reader)
    filler.fields(target, [(key, value, value) for key, value in document.entries.items() if key not in ignore], path)
    refuse(_violations(filler.faults))


def from_text(target: Message, text: str, path: str) -> None:
    """Fill a message from JSON that stands in a parameter."""
    if text:
        message(target, Document(JsonTree(), json_text.read(text.encode("utf-8"), path)), path)


def _header(kind: Kind, document: Document, top: dict[str, Any]) -> Iterable[FieldViolation]:
    for key, right in (("apiVersion", kind.group_version), ("kind", kind.name)):
        if key in top and not document.reader.absent(top[key]):
            given = document.reader.plain(top[key])
            if given != right:
                told = f"is {right} at this path, not {shown(given)}"
                yield FieldViolation(key, told, shown(given), "ID_MISMATCH")


def _violations(faults: Iterable[Fault]) -> list[FieldViolation]:
    return [
        FieldViolation(
            fault.path, f"{f'line {fault.line}: ' if fault.line else ''}{fault.message}", reason=fault.reason
        )
        for fault in faults
    ]


def encoded(kind: Kind, made: Any) -> dict[str, Any]:
    """Return an object as JSON shows it."""
    found = plain(made)
    found.pop("typeMeta", None)
    return {"apiVersion": kind.group_version, "kind": kind.name, **found}


def listed(kind: Kind, listing: Any) -> dict[str, Any]:
    """Return a list as JSON shows it."""
    return {
        "apiVersion": kind.group_version,
        "kind": f"{kind.name}List",
        "metadata": plain(listing.metadata),
        "items": [encoded(kind, item) for item in listing.items],
    }
