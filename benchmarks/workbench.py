"""What a benchmark is given: its sizes, a folder for what it starts, homes of the platform.  Measures nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.systems import flights


@dataclass
class Workbench:
    """One call of `python -m benchmarks`.

    folder: removed at the end.  rounds: 0 is each benchmark's own number.  home: a home on which `ma demo` has run.
    """

    folder: Path
    say: Callable[[str], None]
    rounds: int = 0
    home: Path | None = None
    pipelines: int = 1000
    projects: int = 20
    window_s: float = 60.0
    objects: int = 1_000_000
    watchers: int = 500
    from_clone: bool = False
    _made: Path | None = field(default=None, repr=False)

    def rounds_or(self, own: int) -> int:
        """Return how many rounds to run."""
        return self.rounds or own

    def new_folder(self, name: str) -> Path:
        """Return an empty folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    def new_home(self) -> Path:
        """Return the place of a home that does not exist yet."""
        return self.new_folder("platform") / "home"

    def flights_home(self) -> Path:
        """Return a home on which the demo has run: the one that was given, or one that is made once."""
        if self.home is not None:
            return self.home
        if self._made is None:
            self.say("running `ma demo --exit` for a model and its features")
            home = self.new_home()
            flights.make(home)
            self._made = home
        return self._made
