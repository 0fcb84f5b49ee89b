"""From files to resources: found, read, typed by kind and put in the order in which they depend on each other.

Never talks to the server.  One document that cannot be read leaves the others whole.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from api.cli.exits import Failure
from api.kinds import kinds, stamp
from api.messages.fill import Fault, Filler
from api.messages.yaml_text import YamlError, entries, line_of
from api.messages.yaml_text import documents as read_yaml
from api.messages.yaml_tree import YamlTree, duplicates

STDIN = "-"
SUFFIXES = {".yaml", ".yml"}
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

    namespace: for documents that name none.  Raises Failure if a file is missing.
    """
    found = [document for source, text in _texts(names) for document in _documents(source, text, namespace)]
    return sorted(found, key=_rank)


def _rank(document: Document) -> int:
    kind = document.resource.DESCRIPTOR.name if document.resource is not None else ""
    if kind in FIRST:
        return FIRST.index(kind)
    return len(FIRST) + 1 + LAST.index(kind) if kind in LAST else len(FIRST)


def _texts(names: Sequence[str]) -> Iterator[tuple[str, str | Fault]]:
    for name in names:
        if name == STDIN:
            yield "standard input", _decoded(_stdin())
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
                yield str(file), _decoded(file.read_bytes())
            except OSError as error:
                raise Failure(f"{file}: {error.strerror}") from None


def _stdin() -> bytes:
    if sys.stdin is None or sys.stdin.closed:
        raise Failure("standard input is closed")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise Failure(f"standard input: {error.strerror}") from None


def _decoded(data: bytes) -> str | Fault:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Fault(data[: error.start].count(b"\n") + 1, f"byte 0x{data[error.start]:02x} is not UTF-8")


def _documents(source: str, text: str | Fault, namespace: str) -> Iterator[Document]:
    if isinstance(text, Fault):
        yield _broken(source, text.line, [text])
        return
    try:
        nodes = read_yaml(text)
    except YamlError as error:
        yield _broken(source, error.fault.line, [error.fault])
        return
    if not nodes:
        yield _broken(source, 1, [Fault(1, "holds no document")])
    for node in nodes:
        yield _document(source, node, namespace)


def _broken(source: str, line: int, faults: Sequence[Fault]) -> Document:
    shown = tuple(
        f"{source}:{fault.line}: {fault.path + ': ' if fault.path else ''}{fault.message}" for fault in faults
    )
    return Document(f"{source}:{line}", None, shown)


def _document(source: str, node: yaml.Node, namespace: str) -> Document:
    line = line_of(node)
    if not isinstance(node, yaml.MappingNode):
        return _broken(source, line, [Fault(line, "a document must be fields: apiVersion, kind, metadata, spec")])
    if twice := duplicates(node):
        return _broken(source, line, twice)
    top = {key: (key_node, value) for key, key_node, value in entries(node)}
    faults = list(_header(top, line))
    if faults:
        return _broken(source, line, faults)
    resource = kinds()[str(top["kind"][1].value)].new()
    filler = Filler(YamlTree())
    kept = [pair for pair in node.value if pair[0].value not in ("apiVersion", "kind", "status", "typeMeta")]
    filler.fill(resource, yaml.MappingNode(node.tag, kept, node.start_mark, node.end_mark), "")
    faults = [*filler.faults, *_name(resource, top, line)]
    if faults:
        return _broken(source, line, faults)
    stamp(resource)
    if not resource.metadata.namespace:
        own = resource.metadata.name if resource.DESCRIPTOR.name == "Project" else namespace
        if own:
            resource.metadata.namespace = own
    warnings: tuple[str, ...] = ()
    if "status" in top:
        warnings = (f"{source}:{line_of(top['status'][0])}: status is ignored: the platform writes it",)
    return Document(f"{source}:{line}", resource, warnings=warnings)


def _header(top: dict[str, tuple[yaml.Node, yaml.Node]], line: int) -> Iterator[Fault]:
    named = top["kind"][1].value if "kind" in top else ""
    kind = kinds().get(named) if isinstance(named, str) else None
    versions = [kind.group_version] if kind is not None else sorted({kind.group_version for kind in kinds().values()})
    for key, right in (("apiVersion", versions), ("kind", list(kinds()))):
        if key not in top:
            yield Fault(line, f"is missing, for example {right[0]}", key)
            continue
        value = top[key][1]
        if not isinstance(value, yaml.ScalarNode) or value.value not in right:
            given = str(value.value)[:64] if isinstance(value, yaml.ScalarNode) else "no text"
            near = difflib.get_close_matches(given, right, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(right)}"
            yield Fault(line_of(value), f"unknown {given!r}: {hint}", key)


def _name(resource: Any, top: dict[str, tuple[yaml.Node, yaml.Node]], line: int) -> Iterator[Fault]:
    if not resource.metadata.name and not resource.metadata.generateName:
        where = line_of(top["metadata"][0]) if "metadata" in top else line
        yield Fault(where, "is required", "metadata.name")
