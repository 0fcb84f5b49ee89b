"""Secrets that stand in parameters as they are: in structs, maps and typed content of a spec.  Pure; echoes none.

What is found has a known form, is called as secrets are, or looks as if drawn by chance.  A parameter that is none says
so in an annotation.  What is stored already is not refused again, so that an old pipeline can still be paused.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import string
from collections import Counter
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from api.errors import FieldViolation
from api.gen.michelangelo.api import typed_struct_pb2
from api.validation import is_map, shown

# Names of parameters whose values are no secrets, with commas between them.
NO_SECRETS = "michelangelo.airflow/no-secrets"
REASON = "INLINE_SECRET"
TOLD = (
    "looks like a secret, and everybody who may see this resource would see it: keep it in a connection of Airflow or "
    f"in a file that the task reads, and give its name; what is none is named in the annotation {NO_SECRETS}"
)
FORMS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|(?<![A-Za-z0-9])(?:A[KS]IA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|"
    r"github_pat_\w{22,}|glpat-[\w-]{20}|xox[abeoprs]-[\w-]{10,}|sk-[A-Za-z0-9_-]{20,}|[rs]k_live_\w{16,}|"
    r"AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*)|\w://[^/\s:@]*:[^/\s:@]+@",
    re.ASCII,
)
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
PASSWORDS = frozenset({"password", "passwd", "passphrase", "pwd"})
SECRETS = frozenset({"secret", "token", "credential", "credentials", "apikey"})
KEYS = frozenset({"api", "access", "private", "secret", "auth", "signing", "encryption"})
SHORTEST_SECRET = 8
RANDOM = re.compile(r"[A-Za-z0-9+/_=-]{32,4096}\Z", re.ASCII)
# Bits a character, and how often one of another kind follows: digests in hexadecimal have 4 bits, words few changes.
LEAST_BITS = 4.3
LEAST_CHANGES = 0.45
CHARACTERS = {"lower": string.ascii_lowercase, "upper": string.ascii_uppercase, "digit": string.digits}
CONTENT = typed_struct_pb2.TypedStruct.DESCRIPTOR.full_name


def secret_faults(old: Any | None, new: Any) -> list[FieldViolation]:
    """Return where the spec of `new` holds a secret that `old`, None for a new object, does not hold there."""
    spared = {name.strip() for name in new.metadata.annotations.get(NO_SECRETS, "").split(",")}
    found = {path: value for path, name, value in _texts(new.spec, "spec") if name not in spared and _is(name, value)}
    if not found:
        return []
    known = {} if old is None else {path: value for path, _, value in _texts(old.spec, "spec")}
    return [FieldViolation(path, TOLD, "", REASON) for path, value in found.items() if known.get(path) != value]


def _texts(message: Message, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield path, name and value of every text that somebody named."""
    if isinstance(message, Struct | Value | ListValue):
        yield from _json(_free(message), path, "")
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.Any":
        yield from _content(message, path)
        return
    for described, value in message.ListFields():
        here, of = f"{path}.{described.name}", described.message_type
        if is_map(described):
            for key in value:
                at, item = f"{here}[{shown(str(key))}]", value[key]
                if isinstance(item, str):
                    yield at, str(key), item
                elif isinstance(item, Message):
                    yield from _texts(item, at)
        elif of is None:
            continue
        elif described.is_repeated:
            for position, item in enumerate(value):
                yield from _texts(item, f"{here}[{position}]")
        else:
            yield from _texts(value, here)


def _content(packed: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if packed.TypeName() != CONTENT:
        return
    content = typed_struct_pb2.TypedStruct()
    try:
        packed.Unpack(content)
    except DecodeError:
        return
    value = _free(content.value)
    if isinstance(value.get("graph"), str):
        # The graph of a pipeline in Python is JSON in a text.
        try:
            value = {**value, "graph": json.loads(value["graph"])}
        except (ValueError, RecursionError):
            return
    yield from _json(value, path, "")


def _free(message: Any) -> Any:
    """Return the texts of a struct, and what they stand in; None for all other values."""
    if isinstance(message, Struct):
        return {key: _free(item) for key, item in message.fields.items()}
    if isinstance(message, ListValue):
        return [_free(item) for item in message.values]
    kind = message.WhichOneof("kind")
    if kind in ("struct_value", "list_value"):
        return _free(getattr(message, kind))
    return message.string_value if kind == "string_value" else None


def _json(value: Any, path: str, name: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(value, str):
        yield path, name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            # A constant of a graph is called as the parameter for which it stands.
            yield from _json(item, f"{path}.{shown(key)}", name if key in ("const", "default") and name else key)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _json(item, f"{path}[{position}]", name)


def _is(name: str, value: str) -> bool:
    if not value or value.isspace():
        return False
    words = [word.lower() for word in WORD.findall(name)] or [""]
    if words[-1] in PASSWORDS:
        return True
    named = words[-1] in SECRETS or (words[-1] == "key" and len(words) > 1 and words[-2] in KEYS)
    return (named and _could_be(value)) or FORMS.search(value) is not None or _is_random(value)


def _could_be(value: str) -> bool:
    """Whether a text that is called a secret is one, and no mark such as `[PAD]`."""
    mixed = any(char.isdigit() for char in value) and any(char.isalpha() for char in value)
    return len(value) >= SHORTEST_SECRET and mixed and not any(char.isspace() for char in value)


def _is_random(value: str) -> bool:
    """Whether a text looks as if drawn by chance: letters of both cases and digits, in no order."""
    if not RANDOM.match(value):
        return False
    count = len(value)
    bits = -sum(times / count * math.log2(times / count) for times in Counter(value).values())
    kinds = [next((kind for kind, of in CHARACTERS.items() if char in of), "other") for char in value]
    changes = sum(one != two for one, two in itertools.pairwise(kinds)) / (count - 1)
    return CHARACTERS.keys() <= set(kinds) and bits >= LEAST_BITS and changes >= LEAST_CHANGES
