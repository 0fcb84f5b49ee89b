"""Stopping processes that cannot be found again while they end."""

import subprocess
import sys

import psutil

from operators.engines.processes import stop

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(120)"


def test_who_was_seen_once_is_stopped_when_its_mark_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        looks = iter([[psutil.Process(process.pid)]])
        stop(lambda: next(looks, []), 0.05)
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
        process.kill()
