"""Runs a job where nothing of this machine is shared: spec, code and values come from the artifact store, all it leaves
goes there.  The first process of a Kubernetes Job's pod.

    python -m operators.jobs.run_in_pod <URL of the attempt>

The work is that of `operators.jobs.run` in a folder of this pod; what it prints is this process's output too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from api import evidence as left
from api.blob_files import Files
from api.code_store import CodeStore, files_at
from api.config import load
from operators.jobs.run import RESULT, SPEC
from operators.jobs.traces import STACKS
from operators.task_process import stop_children

STARTED = "started"
CANCELLED = "cancelled"
BEFORE_RESULT = (left.BEGAN, left.CURVE, left.ENDED, left.EXCEPTION, STACKS, left.LOG)
NOT_AGAIN = 75
ASKED = 143
FIRST_LOOK_S, LONGEST_LOOK_S = 2.0, 30.0
LOG_S = 0.5
MOST_LOG_BYTES = 8 * 1024 * 1024


def main(url: str) -> int:
    """Run the job of the attempt at `url`; the exit status is 0 when it succeeded."""
    files = files_at(url)
    # A pod that was deleted is replaced, and one that was cancelled may begin late.
    if files.has(CANCELLED) or files.has(STARTED):
        print("this attempt was cancelled, or was begun by another pod: it is not run again", file=sys.stderr)
        return NOT_AGAIN
    files.write(STARTED, json.dumps({"pod": socket.gethostname(), "at": time.time()}).encode())
    spec = json.loads(files.read(SPEC))
    with tempfile.TemporaryDirectory(prefix="ma-job-") as scratch:
        folder = Path(scratch) / spec["job_id"]
        folder.mkdir()
        (folder / SPEC).write_text(json.dumps(_localized(spec, Path(scratch) / "code")))
        return _Work(folder, files).done()


def _localized(spec: dict[str, Any], code: Path) -> Mapping[str, Any]:
    """Return the spec with the code of its run unpacked here, and without what the pod's own limits keep."""
    run = spec["args"].get("run") or {}
    if run.get("code"):
        store = CodeStore(load().artifacts_url)
        run["root_dir"] = str(store.unpacked(run["project"], run["code"], code))
    return {**spec, "memory_mib": 0}


class _Work:
    """One run of the job's processes.  `folder`: of this pod; files: where it leaves what it has."""

    def __init__(self, folder: Path, files: Files) -> None:
        self._folder = folder
        self._files = files
        self._sent: dict[str, tuple[int, int]] = {}
        self._asked = False

    def done(self) -> int:
        """Run it to its end, send what it left, the result last, and return its exit status."""
        signal.signal(signal.SIGTERM, self._stop)
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "operators.jobs.run", str(self._folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        relay = threading.Thread(target=_relay, args=(process.stdout, self._folder / left.LOG), daemon=True)
        relay.start()
        period_s = FIRST_LOOK_S
        while True:
            try:
                code = process.wait(period_s)
                break
            except subprocess.TimeoutExpired:
                self._send(BEFORE_RESULT)
                period_s = min(2 * period_s, LONGEST_LOOK_S)
        relay.join(LOG_S)
        self._send((*BEFORE_RESULT, *(() if self._asked else (RESULT,))))
        return ASKED if self._asked else code if code >= 0 else 128 - code

    def _stop(self, *_: Any) -> None:
        """Kubernetes ends the pod, and kills it soon."""
        self._asked = True
        stop_children()

    def _send(self, names: tuple[str, ...]) -> None:
        for name in names:
            try:
                stat = (self._folder / name).stat()
                if self._sent.get(name) != (stat.st_mtime_ns, stat.st_size):
                    self._files.write(name, _end_of(self._folder / name))
                    self._sent[name] = (stat.st_mtime_ns, stat.st_size)
            except FileNotFoundError:
                continue
            except OSError as error:
                # Evidence is worth less than the work; without its result the work is lost.
                if name == RESULT:
                    raise
                print(f"{name} could not be sent: {error}", file=sys.stderr)


def _end_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - MOST_LOG_BYTES))
        return file.read()


def _relay(source: IO[bytes], path: Path) -> None:
    """Copy what the job prints to its log and to this process's output, until nobody can print any more."""
    with path.open("wb", buffering=0) as log:
        while data := os.read(source.fileno(), 65536):
            log.write(data)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
