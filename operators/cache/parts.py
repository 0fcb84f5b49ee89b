"""What an output is kept by: code, inputs, environment, declared version.  Values; looks nothing up."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from operators.values.trees import digest_of, written


@dataclass(frozen=True)
class Parts:
    """code: text by part; traced: the code's digest when the pipeline was applied, "" if nobody took it;
    inputs: digest by argument; environment: text by name; version: as the task declares it.
    """

    code: Mapping[str, str] = field(default_factory=dict)
    traced: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    version: str = ""

    def key(self) -> str:
        """Return the digest of all of them, in hexadecimal digits."""
        return digest_of(written(self.to_json())).removeprefix("sha256:")

    def summary(self) -> Parts:
        """Return the same with digests in place of code: enough to see what differs."""
        short = {
            name: hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
            for name, text in self.code.items()
        }
        return replace(self, code=short)

    def to_json(self) -> dict[str, Any]:
        """Return them as JSON."""
        return {
            "code": dict(self.code),
            "traced": self.traced,
            "inputs": dict(self.inputs),
            "environment": dict(self.environment),
            "version": self.version,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Parts:
        """Return what was written.  Raises KeyError, TypeError for what is none."""
        return cls(
            dict(found["code"]),
            str(found["traced"]),
            dict(found["inputs"]),
            dict(found["environment"]),
            str(found["version"]),
        )


def inputs_of(trees: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each argument, given as trees of values."""
    return {name: digest_of(written(tree)) for name, tree in trees.items()}


def line_name(pipeline: str, step: str) -> str:
    """Return what stands for all entries of one step of a pipeline: a label's value."""
    return hashlib.sha256(f"{pipeline}/{step}".encode()).hexdigest()[:40]
