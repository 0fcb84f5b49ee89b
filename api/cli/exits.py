"""Exit codes of `ma`, and the errors that carry one.  Prints nothing itself.

The codes are documented in `docs/cli.md`; scripts depend on them.
"""

from __future__ import annotations

OK = 0
REFUSED = 1
USAGE = 2
UNREACHABLE = 3
KILLED = 4
TIMED_OUT = 5
CONFIGURATION = 78
INTERRUPTED = 130
CLOSED_PIPE = 141


class Failure(Exception):
    """What ends a command: one or more lines for a person and an exit code for a script."""

    def __init__(self, *lines: str, code: int = REFUSED) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.code = code
