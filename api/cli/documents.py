"""From files to resources: found, read, typed by kind and put in the order in which they depend on each other.

Never talks to the server.  One document that cannot be read leaves the others whole.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from api.cli.exits import Failure
from api.errors import InvalidArgument
from api.kinds import kinds, stamp
from api.messages import json_text
from api.messages.fill import Fault, Filler, Reader
from api.messages.json_tree import JsonTree
from api.messages.yaml_text import YamlError, line_of
from api.messages.yaml_text import documents as read_yaml
from api.messages.yaml_tree import YamlTree, duplicates

STDIN = "-"
SUFFIXES = {".yaml", ".yml"}
JSON = ".json"
LEFT_OUT = {"apiVersion", "kind", "status", "typeMeta"}
FIRST = ("Project", "RoleBinding", "ModelFamily", "Cluster", "InferenceServer", "Model", "Pipeline", "Deployment")
LAST = ("TriggerRun", "PipelineRun")


@dataclass(frozen=True)
class Document:
    """One document of a file.  `resource` is None if there are `faults`; `where`: `file:line`."""

    where: str
    resource: Any | None
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load(names: Sequence[str], *, namespace: str = "") -> list[Document]:
    """Return the documents of files, folders (their `*.yaml`, not below) or `-`, ordered by dependency.

    A file whose name ends with `.json` is read as the API reads JSON.

    namespace: for documents that name none.  Raises Failure if a file is missing.
    """
    found = [document for source, text in _texts(names) for document in _documents(source, text, namespace)]
    return sorted(found, key=_rank)


def _rank(document: Document) -> int:
    kind = document.resource.DESCRIPTOR.name if document.resource is not None else ""
    if kind in FIRST:
        return FIRST.index(kind)
    return len(FIRST) + 1 + LAST.index(kind) if kind in LAST else len(FIRST)


def _texts(names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        if name == STDIN:
            yield "standard input", _stdin()
            continue
        path = Path(name)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
            if not files:
                raise Failure(f"{name} has no .yaml file")
        else:
            files = [path]
        for file in files:
            try:
                yield str(file), file.read_bytes()
            except OSError as error:
                raise Failure(f"{file}: {error.strerror}") from None


def _stdin() -> bytes:
    if sys.stdin is None or sys.stdin.closed:
        raise Failure("standard input is closed")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise Failure(f"standard input: {error.strerror}") from None


def parse(source: str, data: bytes) -> Iterator[Document]:
    """Yield the document of a JSON text.  `source`: where it comes from, for its faults."""
    yield _json(source, data, "")


def _documents(source: str, data: bytes, namespace: str) -> Iterator[Document]:
    if source.endswith(JSON):
        yield _json(source, data, namespace)
        return
    try:
        nodes = read_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        yield _broken(source, line, [Fault(line, f"byte 0x{data[error.start]:02x} is not UTF-8", reason="BAD_TEXT")])
        return
    except YamlError as error:
        yield _broken(source, error.fault.line, [error.fault])
        return
    if not nodes:
        yield _broken(source, 1, [Fault(1, "holds no document")])
    for node in nodes:
        if isinstance(node, yaml.MappingNode) and (twice := duplicates(node)):
            yield _broken(source, line_of(node), twice)
        else:
            yield _document(source, YamlTree(), node, namespace)


def _json(source: str, data: bytes, namespace: str) -> Document:
    """Read JSON as the API reads it: one document."""
    try:
        return _document(source, JsonTree(), json_text.read(data, "the file"), namespace)
    except InvalidArgument as error:
        faults = [Fault(0, found.description, found.field, found.reason) for found in error.violations]
        return _broken(source, 0, faults or [Fault(0, error.message, reason=error.reason)])


def _broken(source: str, line: int, faults: Sequence[Fault]) -> Document:
    return Document(_where(source, line), None, tuple(_shown(source, fault) for fault in faults))


def _shown(source: str, fault: Fault) -> str:
    told = f"{fault.path}: {fault.message}" if fault.path else fault.message
    # A reason is told once.
    reason = f" ({fault.reason})" if fault.reason and fault.reason not in told else ""
    return f"{_where(source, fault.line)}: {told}{reason}"


def _where(source: str, line: int) -> str:
    return f"{source}:{line}" if line else source


def _document(source: str, reader: Reader, value: Any, namespace: str) -> Document:
    line = reader.line(value)
    given = reader.fields(value)
    if given is None:
        return _broken(source, line, [Fault(line, "a document must be fields: apiVersion, kind, metadata, spec")])
    entries = list(given)
    top = {key: (where, item) for key, where, item in entries}
    faults = list(_header(reader, top, line))
    if faults:
        return _broken(source, line, faults)
    resource = kinds()[_text_of(top["kind"][1]) or ""].new()
    filler = Filler(reader)
    filler.fields(resource, [entry for entry in entries if entry[0] not in LEFT_OUT], "")
    faults = [*filler.faults, *_name(reader, resource, top, line)]
    if faults:
        return _broken(source, line, faults)
    stamp(resource)
    if not resource.metadata.namespace:
        own = resource.metadata.name if resource.DESCRIPTOR.name == "Project" else namespace
        if own:
            resource.metadata.namespace = own
    warnings: tuple[str, ...] = ()
    if "status" in top:
        where = _where(source, reader.line(top["status"][0]))
        warnings = (f"{where}: status is ignored: the platform writes it",)
    return Document(_where(source, line), resource, warnings=warnings)


def _text_of(value: Any) -> str | None:
    """Return the text of a scalar of either form, None for anything else."""
    if isinstance(value, yaml.ScalarNode):
        return str(value.value)
    return value if isinstance(value, str) else None


def _header(reader: Reader, top: Mapping[str, tuple[Any, Any]], line: int) -> Iterator[Fault]:
    kind = kinds().get(_text_of(top["kind"][1]) or "") if "kind" in top else None
    versions = [kind.group_version] if kind is not None else sorted({kind.group_version for kind in kinds().values()})
    for key, right in (("apiVersion", versions), ("kind", list(kinds()))):
        if key not in top:
            yield Fault(line, f"is missing, for example {right[0]}", key)
            continue
        value = top[key][1]
        text = _text_of(value)
        if text not in right:
            given = text[:64] if text is not None else "no text"
            near = difflib.get_close_matches(given, right, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(right)}"
            yield Fault(reader.line(value), f"unknown {given!r}: {hint}", key)


def _name(reader: Reader, resource: Any, top: Mapping[str, tuple[Any, Any]], line: int) -> Iterator[Fault]:
    if not resource.metadata.name and not resource.metadata.generateName:
        where = reader.line(top["metadata"][0]) if "metadata" in top else line
        yield Fault(where, "is required", "metadata.name")
