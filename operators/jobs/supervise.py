"""Looks after a job from a process above it: curve, limits, and how it ended, which the killed cannot tell themselves.

The job is a fork of its supervisor, and dies with it.  The supervisor never touches the job's work.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from api import evidence as left
from operators.jobs import evidence, traces, vitals

STACK_S = 0.3
GRACE_S = 2.0
LOOK_S = 0.02
PR_SET_PDEATHSIG = 1


def supervised(folder: Path, spec: Mapping[str, Any], work: Callable[[], int]) -> int:
    """Run `work` in a child and return its exit status; evidence of both is left in `folder`.

    spec: `timeout_s` and `memory_mib` are limits, 0 for none; the job that breaks one is killed and has failed.
    """
    timeout_s, memory_mib = float(spec.get("timeout_s") or 0), int(spec.get("memory_mib") or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    above = os.getpid()
    child = os.fork()
    if child == 0:
        _die_with(above)
        with contextlib.suppress(OSError):
            traces.stacks_to(folder / traces.STACKS)
        return work()
    watch = _Watch(child, folder, timeout_s, memory_mib)
    root = str(spec["args"].get("run", {}).get("root_dir") or "")
    begin = evidence.began(
        folder, job=str(spec.get("job_id", "")), root=root, memory_mib=memory_mib, timeout_s=timeout_s
    )
    status = watch.until_ended()
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = 128 + number if number else os.WEXITSTATUS(status)
    stack = traces.stack_in(folder / traces.STACKS, root)
    evidence.ended(folder, begin, code=code, number=number, peak_mib=watch.curve.peak_mib, stack=stack, **watch.told)
    os._exit(code)


def _die_with(parent: int) -> None:
    """Be killed when the supervisor is: nobody else would notice how this process ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)


class _Watch:
    def __init__(self, pid: int, folder: Path, timeout_s: float, memory_mib: int) -> None:
        self._pid = pid
        self._folder = folder
        self._deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
        self._timeout_s = timeout_s
        self._memory_mib = memory_mib
        self._descriptor = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
        self.curve = vitals.Curve(pid, folder / left.CURVE)
        self.curve.look()
        self.told: dict[str, Any] = {}
        signal.signal(signal.SIGTERM, self._asked)

    def _asked(self, *_: Any) -> None:
        """Whoever stops a job asks all its processes: the job's own ends it, and this one tells."""
        self.told["asked"] = True

    def until_ended(self) -> int:
        """Look until the child is gone; return its status as `wait` gives it."""
        while not self._gone(min(self.curve.period_s, max(self._deadline - time.monotonic(), 0))):
            used = self.curve.look()
            if self._memory_mib and used > self._memory_mib:
                message = f"it used {used:.0f} MiB, its limit is {self._memory_mib} MiB"
                return self._stop("memory", message, at_once=True)
            if time.monotonic() >= self._deadline:
                return self._stop("timeout", f"it ran longer than its timeout of {self._timeout_s:g} s")
        return self._reaped()

    def _gone(self, timeout_s: float) -> bool:
        if self._descriptor >= 0:
            return bool(select.select([self._descriptor], [], [], timeout_s)[0])
        deadline = time.monotonic() + timeout_s
        while os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_S)
        return True

    def _reaped(self) -> int:
        _, status, usage = os.wait4(self._pid, 0)
        largest = usage.ru_maxrss / 1024 if sys.platform == "linux" else usage.ru_maxrss / vitals.MIB
        self.curve.end(largest, usage.ru_utime + usage.ru_stime)
        self.told["cpu_s"] = round(usage.ru_utime + usage.ru_stime, 2)
        return status

    def _stop(self, limit: str, message: str, *, at_once: bool = False) -> int:
        """Kill the child for a limit, after it has said where it stands, and write its result for it."""
        self.told.update(limit=limit, message=message)
        if not at_once:
            self._send(signal.SIGUSR2)
            if not self._gone(STACK_S):
                self._send(signal.SIGTERM)
        members = vitals.tree(self._pid)
        self._gone(0 if at_once else GRACE_S)
        for pid in members:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        status = self._reaped()
        failed = {"state": "FAILED", "error": {"kind": "system", "message": message}}
        temporary = self._folder / f".{left.RESULT}.{os.getpid()}"
        temporary.write_text(json.dumps(failed))
        os.replace(temporary, self._folder / left.RESULT)
        return status

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)
