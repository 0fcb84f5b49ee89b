"""Stopping processes that cannot be found again while they end."""

import subprocess
import sys

import psutil
import pytest

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


def test_processes_are_asked_in_the_order_in_which_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(8)]
    named = [psutil.Process(process.pid) for process in reversed(started)]
    asked, send = list[int](), psutil.Process.send_signal

    def note(process: psutil.Process, number: int) -> None:
        asked.append(process.pid)
        send(process, number)

    monkeypatch.setattr(psutil.Process, "send_signal", note)
    stop(lambda: named, 5)
    assert asked == [process.pid for process in named]
    for process in started:
        process.wait()
