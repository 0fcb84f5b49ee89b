"""What is wrong with a pipeline as it is written: told with file and line of the user's code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.errors import FieldViolation, InvalidArgument
from operators.authoring.sources import here


class PipelineError(InvalidArgument):
    """A pipeline cannot be what it says.  `source`: {"file", "line"} of the user's code."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "BAD_PIPELINE",
        field: str = "",
        source: Mapping[str, Any] | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        self.source = dict(source or here())
        found = violations or ([FieldViolation(field, message, reason=reason)] if field else ())
        super().__init__(f"{self.source['file']}:{self.source['line']}: {message}", reason=reason, violations=found)
