"""YAML as this platform reads it: plain data of YAML 1.2 with line numbers, nothing that runs, repeats or surprises.

Anchors, aliases, tags and merge keys are refused (`YAML_FEATURE`).  Scalars stay text until a field's type is known, so
`no`, `012`, `1:30` and dates are what was written when the field is a string.  Never builds Python objects from tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from api.messages.fill import Fault

LARGEST_BYTES = 4 * 1024 * 1024
DEEPEST = 64
# Python reads at most 4,300 digits; no field holds more than 20.
LONGEST_INTEGER = 400
NULL = re.compile(r"~|null|Null|NULL|")
TRUE = re.compile(r"true|True|TRUE")
FALSE = re.compile(r"false|False|FALSE")
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class YamlError(Exception):
    """The text cannot be read.  Carries its fault."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(line, message)


def documents(text: str) -> list[yaml.Node]:
    """Return the documents of a text that are not empty.  Raises YamlError with the line."""
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST_BYTES:
        raise YamlError(1, f"larger than {LARGEST_BYTES // 2**20} MiB")
    try:
        _check(text)
        composed = yaml.compose_all(text, Loader=yaml.BaseLoader)
        return [node for node in composed if node is not None and not is_null(node)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(mark.line + 1 if mark else 1, _explained(error)) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise YamlError(line, f"character U+{_code(error.character):04X} is not allowed in YAML") from None


def line_of(node: yaml.Node) -> int:
    """Return the line on which a node begins, from 1."""
    return int(node.start_mark.line) + 1


def is_null(node: yaml.Node) -> bool:
    """Whether a node is a plain null or nothing at all."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and bool(NULL.fullmatch(node.value))


def entries(node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yield key text, key node and value node."""
    for key, value in node.value:
        yield str(key.value), key, value


def plain(node: yaml.Node) -> object:
    """Return a node as JSON-like data by YAML 1.2's core schema.  Quoted scalars are text."""
    if isinstance(node, yaml.MappingNode):
        return {key: plain(value) for key, _, value in entries(node)}
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    return scalar(node)


def scalar(node: Any) -> str | int | float | bool | None:
    """Return the value of a scalar by YAML 1.2's core schema."""
    text = str(node.value)
    if node.style is not None:
        return text
    if NULL.fullmatch(text):
        return None
    if TRUE.fullmatch(text) or FALSE.fullmatch(text):
        return text.lower() == "true"
    if INTEGER.fullmatch(text):
        # Beyond what is exact it only matters that it is.
        return int(text[:LONGEST_INTEGER])
    if FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _check(text: str) -> None:
    """Refuse what is YAML and yet not wanted: by events, before anything is built from an alias."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise YamlError(line, "anchors and aliases are not allowed (YAML_FEATURE): write the value out")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise YamlError(line, f"tag {str(tag)[:64]!r} is not allowed (YAML_FEATURE): remove it")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise YamlError(line, f"nested deeper than {DEEPEST} levels")


def _explained(error: yaml.MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem or error.context or "not YAML").split())
    if "'\\t'" in problem:
        return "a tab cannot indent: use spaces"
    return f"not YAML: {problem}"


def _code(character: object) -> int:
    return character if isinstance(character, int) else ord(str(character)[:1] or "\0")
