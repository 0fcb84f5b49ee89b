"""What has been there long enough to be forgotten, told by when this process saw it.  Knows nothing of etcd.

Its clock is this machine's monotonic one: nothing is forgotten early because clocks of servers differ, or were set.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

SAMPLES = 60


@dataclass(frozen=True)
class Sample:
    """Our newest revision at a moment, and etcd's."""

    seen: float
    revision: int
    at: int


class History:
    """Remembers for `kept_s` which revisions there were when."""

    def __init__(self, kept_s: float) -> None:
        self._kept_s = kept_s
        self._samples: deque[Sample] = deque()

    def saw(self, revision: int, at: int) -> None:
        """Take note that a revision is the newest now."""
        now = time.monotonic()
        if not self._samples or now - self._samples[-1].seen >= self._kept_s / SAMPLES:
            self._samples.append(Sample(now, revision, at))

    def old(self) -> Sample:
        """Return what was the newest `kept_s` ago, or a little before."""
        limit = time.monotonic() - self._kept_s
        while len(self._samples) > 1 and self._samples[1].seen <= limit:
            self._samples.popleft()
        if self._samples and self._samples[0].seen <= limit:
            return self._samples[0]
        return Sample(0.0, 0, 0)
