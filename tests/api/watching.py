"""A client of the watch over real gRPC: a thread that reads what is sent, and what a test asks of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.kinds import kinds
from tests.api.running import Refusal, Served, read

SERVICE = "/michelangelo.platform.v1.ResourceService/"
LONGEST_S = 15.0
TYPES = wire.WatchEvent.Type


@dataclass(frozen=True)
class Told:
    """One event as a client sees it.  `resource`: the parsed object, None in a bookmark."""

    type: str
    revision: int
    kind: str
    resource: Any

    @property
    def name(self) -> str:
        """The object's name."""
        return "" if self.resource is None else str(self.resource.metadata.name)


class Stream:
    """An open watch.  `events`: what came so far, in order; `responses`: how many messages it came in."""

    def __init__(self, served: Served, *, channel: grpc.Channel | None = None, pause_s: float = 0.0, **fields: Any):
        request = wire.WatchRequest(**fields)
        method: Any = (channel or served.channel).unary_stream(
            SERVICE + "Watch", request_serializer=None, response_deserializer=wire.WatchResponse.FromString
        )
        self.events: list[Told] = []
        self.responses = 0
        self.refusal: Refusal | None = None
        self._call = method(request.SerializeToString(), timeout=120)
        self._call.initial_metadata()
        self._pause_s = pause_s
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        refusal = None
        try:
            for response in self._call:
                with self._news:
                    self.responses += 1
                    self.events += [told(event) for event in response.events]
                    self._news.notify_all()
                if self._pause_s:
                    time.sleep(self._pause_s)
        except grpc.RpcError as error:
            refusal = read(error)
        with self._news:
            self.refusal = refusal
            self._news.notify_all()

    def until(self, met: Callable[[Sequence[Told]], bool], what: str = "it") -> list[Told]:
        """Wait until the events so far meet a condition, and return them."""
        with self._news:
            if not self._news.wait_for(lambda: met(self.events) or self.refusal is not None, LONGEST_S):
                raise AssertionError(f"{what} did not come: {self.events[-5:]}")
            assert met(self.events), (self.refusal, self.events[-5:])
            return list(self.events)

    def changes(self, count: int) -> list[Told]:
        """Wait for a number of events that are no bookmarks, and return them; there are no more."""
        self.until(lambda events: sum(event.type != "BOOKMARK" for event in events) >= count, f"{count} changes")
        found = [event for event in self.events if event.type != "BOOKMARK"]
        assert len(found) == count, found
        return found

    def reached(self, revision: int) -> list[Told]:
        """Wait until everything up to a revision came, and return the changes."""
        self.until(lambda events: bool(events) and events[-1].revision >= revision, f"revision {revision}")
        return [event for event in self.events if event.type != "BOOKMARK"]

    def ended(self) -> Refusal:
        """Wait until the server ends the watch, and return why."""
        self._thread.join(LONGEST_S)
        assert self.refusal is not None, "the watch goes on"
        return self.refusal

    def close(self) -> None:
        """Leave."""
        self._call.cancel()
        self._thread.join(LONGEST_S)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def told(event: wire.WatchEvent) -> Told:
    """Return an event with its object parsed."""
    resource = None
    if event.HasField("object"):
        resource = kinds()[event.kind].message()
        assert event.object.Unpack(resource), event.object.type_url
    return Told(TYPES.Name(event.type), int(event.resource_version), event.kind, resource)


def refused(served: Served, **fields: Any) -> Refusal:
    """Return the refusal of a watch that must not open."""
    with Stream(served, **fields) as stream:
        return stream.ended()
