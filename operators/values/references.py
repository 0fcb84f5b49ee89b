"""What stands for a stored value: its digest and format.  Holds no address, so that it is the same in every place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Reference:
    """digest: "sha256:" and 64 hexadecimal digits, of the value's content and format; format: its name."""

    digest: str
    format: str

    def to_json(self) -> dict[str, str]:
        """Return what an XCom holds."""
        return {"digest": self.digest, "format": self.format}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Reference:
        """Return the reference that was written.  Raises ValueError for what is none."""
        digest, kind = found.get("digest"), found.get("format")
        if not isinstance(digest, str) or not DIGEST.match(digest) or not isinstance(kind, str):
            raise ValueError(f"{str(found)[:100]} is no reference to a value")
        return cls(digest, kind)
