"""Two of Airflow's schedulers on one PostgreSQL database, below one false clock, stopped in the middle of ticks.

python -m tests.robustness.leaders_loop '{"manifest": {...}, "clock": "/…/clock", "end": 1798761600, ...}', below
libfaketime.  Each stops itself (SIGSTOP) at a place of a tick; this program lets time pass, and lets it go on later.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from typing import Any

from tests.robustness.year_loop import Clock, Scheduling, child

LEADERS = 2
# How far time may go on while one stands still, and how long that is (of the true time).
TICKS_BEYOND = 5
LONGEST_PAUSE_S = 1.5
IDLE_LOOPS = 10


class Leader:
    """One scheduler, in a process of its own.  It writes a byte for each loop: whether a tick was carried out."""

    def __init__(self, asked: dict[str, Any], number: int) -> None:
        self.stopped_until = 0.0
        self.idle = 0
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        self.pid = child(lambda: lead(asked, number, write))
        os.close(write)

    def loops(self) -> int:
        """Return how many loops it made since the last look."""
        try:
            said = os.read(self._read, 1000)
        except BlockingIOError:
            return 0
        assert said, "a scheduler ended"
        busy = said.rfind(b"1")
        self.idle = self.idle + len(said) if busy < 0 else len(said) - busy - 1
        return len(said)

    def has_stopped(self) -> bool:
        """Whether it stopped itself since the last look."""
        done, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        assert not done or os.WIFSTOPPED(status), f"a scheduler ended with {status}"
        return bool(done)

    def end(self) -> None:
        """Kill it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def lead(asked: dict[str, Any], number: int, write: int) -> None:
    """Schedule for ever; stand still at some places."""
    pick, calm = random.Random(f"{asked['seed']} {number}"), []
    signal.signal(signal.SIGUSR1, lambda *_: calm.append(True))

    def at(place: str) -> None:
        if not calm and pick.random() < asked["pauses_at"][place]:
            os.kill(os.getpid(), signal.SIGSTOP)

    scheduling = Scheduling(asked["manifest"], at)
    while True:
        os.write(write, b"1" if scheduling.loop() else b"0")


def main(asked: dict[str, Any]) -> None:
    """Let time pass until the end and all that is due was carried out; print how often a leader stood still."""
    clock, pick = Clock(asked["clock"]), random.Random(asked["seed"])
    os.waitpid(child(Scheduling(asked["manifest"]).parse), 0)
    leaders, pauses, both, beyond = [Leader(asked, number) for number in range(LEADERS)], 0, 0, 0
    calm = False
    while not calm or any(one.stopped_until for one in leaders) or any(one.idle < IDLE_LOOPS for one in leaders):
        time.sleep(0.01)
        for one in leaders:
            if one.has_stopped():
                pauses += 1
                one.stopped_until = time.monotonic() + pick.uniform(0, LONGEST_PAUSE_S)
                both += all(other.stopped_until for other in leaders)
            if one.stopped_until and time.monotonic() > one.stopped_until:
                one.stopped_until = 0.0
                os.kill(one.pid, signal.SIGCONT)
        still = any(one.stopped_until for one in leaders)
        beyond = beyond + 1 if still else 0
        if time.time() < asked["end"]:
            if (sum([one.loops() for one in leaders]) and not still) or 0 < beyond <= TICKS_BEYOND:
                clock.set(min(time.time() + pick.uniform(asked["step_s"] / 4, asked["step_s"]), asked["end"]))
        elif not calm:
            calm = True
            for one in leaders:
                one.idle = 0
                os.kill(one.pid, signal.SIGUSR1)
        else:
            for one in leaders:
                one.loops()
    for one in leaders:
        one.end()
    print(f"\nPAUSES {pauses} {both}", flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
