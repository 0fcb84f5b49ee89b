"""SIGKILL at moments that nobody chose."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Killer:
    """Calls `strike` again and again, at random moments, from a thread of its own.  strikes: how often it did."""

    def __init__(
        self, strike: Callable[[random.Random], None], *, between_s: tuple[float, float], seed: int = 0
    ) -> None:
        self._strike = strike
        self._between_s = between_s
        self._pick = random.Random(seed)
        self._stop = threading.Event()
        self.strikes = 0
        self.failed: BaseException | None = None

    def struck(self, times: int) -> bool:
        """Whether it struck so often, or never will again."""
        return self.strikes >= times or self.failed is not None

    @contextmanager
    def about(self) -> Iterator[Killer]:
        """Strike while the block runs; what a strike raises is raised at its end."""
        thread = threading.Thread(target=self._run, name="killer")
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()
        if self.failed is not None:
            raise self.failed

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._pick.uniform(*self._between_s)):
                self._strike(self._pick)
                self.strikes += 1
        except BaseException as error:
            self.failed = error
