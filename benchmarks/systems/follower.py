"""A watcher of runs, as any client is one: notes when it is first told that a run, or a step of it, has succeeded."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from types import TracebackType
from typing import Any

from api.config import Config

ENDED = "SUCCEEDED"
TOLD_S = 30.0


class Follower:
    """Follows the runs of a project over HTTP, in a thread of its own.  Use as a context manager."""

    def __init__(self, config: Config, project: str) -> None:
        self._link = http.client.HTTPConnection("127.0.0.1", config.api_http_port)
        self._headers = {"Authorization": f"Bearer {config.token}"}
        self._path = f"/apis/michelangelo.api/v2/namespaces/{project}/pipelineruns"
        self._told: dict[tuple[str, str], float] = {}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Follower:
        listing = json.loads(self._ask("?limit=1").read())
        self._answer = self._ask(f"?watch=true&resourceVersion={listing['metadata']['resourceVersion']}")
        self._socket = self._link.sock
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A close alone would wait for the thread, which reads.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._link.close()

    def told(self, run: str, step: str = "") -> float:
        """Return when it was told, in seconds since 1970, that a run or one of its steps had succeeded.

        Raises TimeoutError.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: (run, step) in self._told, TOLD_S):
                raise TimeoutError(f"nobody was told that {run} {step} has ended; told was {self._told}")
            return self._told[run, step]

    def _ask(self, query: str) -> http.client.HTTPResponse:
        self._link.request("GET", self._path + query, headers=self._headers)
        return self._link.getresponse()

    def _follow(self) -> None:
        try:
            while line := self._answer.readline():
                self._note(json.loads(line)["object"], time.time())
        except (OSError, ValueError, http.client.HTTPException):
            # The connection was closed: nobody asks any more.
            return

    def _note(self, run: Any, now: float) -> None:
        status = run.get("status", {})
        ended = [("", status)] + [(step.get("name", ""), step) for step in status.get("steps", ())]
        with self._changed:
            for step, told in ended:
                if str(told.get("state", "")).endswith(ENDED):
                    self._told.setdefault((run["metadata"]["name"], step), now)
            self._changed.notify_all()
