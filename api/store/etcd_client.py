"""Calls on an etcd cluster: which member, how long, and what its errors mean.  Knows keys, never resources.

A call goes to one member; when that does not answer, to the next, until `patience_s` is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from api.errors import ApiError, DataLoss, FailedPrecondition, ResourceExhausted, Unavailable
from api.gen.etcd import kv_pb2 as kv
from api.gen.etcd import rpc_pb2 as rpc
from api.store.etcd_keys import after

Answer = TypeVar("Answer", bound=Message)

CALL_S = 5.0
KEEP_S = 1.0
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # After a restart of a member its clients are back within a second; gRPC's own default grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A watch on a connection that died silently ends; etcd allows a ping each 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
TRANSIENT = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED}
)

# The last is gRPC's, of a stream that breaks while it is written to: INTERNAL, although the member is only gone.
TRANSIENT_WORDS = (
    "too many requests",
    "context deadline exceeded",
    "context canceled",
    "Internal error from Core",
)


class CompactedError(Exception):
    """The revision is older than what etcd keeps, or newer than what the member knows."""


class LeaseGoneError(Exception):
    """The etcd lease has ended."""


class EtcdClient:
    """One connection to each member.  `doubted`: whether a write may have been carried out by an earlier try."""

    def __init__(self, members: Sequence[str], *, patience_s: float = 5.0) -> None:
        self.members = tuple(members)
        self._patience_s = patience_s
        self._channels = [grpc.aio.insecure_channel(member, options=OPTIONS) for member in members]
        self._methods: dict[tuple[int, str], Any] = {}
        self._current = 0
        self._closed = False

    async def close(self) -> None:
        """Close the connections; calls under way fail."""
        self._closed = True
        for channel in self._channels:
            await channel.close()

    def _unary(self, path: str, answer: type[Answer]) -> Any:
        method = self._methods.get((self._current, path))
        if method is None:
            method = self._channels[self._current].unary_unary(
                path, request_serializer=_serialized, response_deserializer=answer.FromString
            )
            self._methods[self._current, path] = method
        return method

    async def _call(self, path: str, request: Message, answer: type[Answer]) -> tuple[Answer, bool]:
        """Call until a member answers; returns the answer and whether an earlier try may have been carried out."""
        deadline, pause_s, doubted = time.monotonic() + self._patience_s, FIRST_PAUSE_S, False
        while True:
            self._check_open()
            left_s = deadline - time.monotonic()
            try:
                return await self._unary(path, answer)(request, timeout=min(CALL_S, max(left_s, 0.1))), doubted
            except grpc.aio.AioRpcError as error:
                self._check_open()
                if not _transient(error) or left_s <= pause_s:
                    raise self._meaning(error) from error
            except asyncio.CancelledError:
                self._check_open()
                raise
            doubted = True
            self.next_member()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _check_open(self) -> None:
        if self._closed:
            raise closed()

    def next_member(self) -> None:
        """Turn to another member."""
        self._current = (self._current + 1) % len(self._channels)

    def _meaning(self, error: grpc.aio.AioRpcError) -> Exception:
        code, details = error.code(), error.details() or ""
        if "revision has been compacted" in details or "is a future revision" in details:
            return CompactedError()
        if "lease not found" in details:
            return LeaseGoneError()
        if "space exceeded" in details:
            told = (
                "etcd's database has reached its quota: nothing was written; defragment it and disarm its NOSPACE alarm"
            )
            return ResourceExhausted(told, reason="DISK_FULL")
        if "too large" in details or "larger than max" in details:
            told = "larger than a request to etcd may be: make it smaller, or start etcd with more --max-request-bytes"
            return ResourceExhausted(told, reason="TOO_LARGE")
        if _transient(error):
            where = ", ".join(self.members)
            return Unavailable(f"etcd at {where} does not answer: try again", reason="STORE_UNREACHABLE")
        if code is grpc.StatusCode.DATA_LOSS:
            return DataLoss(f"etcd says that its data is damaged: {details}", reason="STORE_CORRUPT")
        return FailedPrecondition(f"etcd refuses the call: {code.name} {details}", reason="STORE_REFUSED")

    async def range(self, request: rpc.RangeRequest) -> rpc.RangeResponse:
        """Read keys, after everything that was acknowledged before.  Raises CompactedError."""
        return (await self._call("/etcdserverpb.KV/Range", request, rpc.RangeResponse))[0]

    async def txn(self, request: rpc.TxnRequest) -> tuple[rpc.TxnResponse, bool]:
        """Compare and write; returns the answer and whether it is doubted.  Raises LeaseGoneError.

        A doubted answer that says that the comparison failed may follow from an earlier try that succeeded.
        """
        return await self._call("/etcdserverpb.KV/Txn", request, rpc.TxnResponse)

    async def read(self, requests: Sequence[rpc.RangeRequest]) -> tuple[int, Sequence[rpc.RangeResponse]]:
        """Read several ranges at one revision, the newest, which comes first.  Raises CompactedError.

        Not in one transaction: a member before 3.5.5 panics when the caller of one that only reads goes away
        (etcd-io/etcd#14110).
        """
        first = await self.range(requests[0])
        at = first.header.revision
        return at, [first, *await self.read_at(at, requests[1:])]

    async def read_at(self, at: int, requests: Sequence[rpc.RangeRequest]) -> Sequence[rpc.RangeResponse]:
        """Read several ranges at a revision that a member told.  Raises CompactedError, also of one that is behind."""
        for request in requests:
            request.revision, request.serializable = at, True
        return await asyncio.gather(*(self.range(request) for request in requests))

    async def compact(self, revision: int) -> None:
        """Let etcd forget what keys were before a revision.  One that is forgotten already is no error."""
        with contextlib.suppress(CompactedError):
            request = rpc.CompactionRequest(revision=revision)
            await self._call("/etcdserverpb.KV/Compact", request, rpc.CompactionResponse)

    async def grant(self, ttl_s: int) -> int:
        """Make a lease of at least `ttl_s` and return its number."""
        granted, _ = await self._call(
            "/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantRequest(TTL=ttl_s), rpc.LeaseGrantResponse
        )
        return granted.ID

    async def revoke(self, lease: int) -> None:
        """End a lease.  One that has ended is no error."""
        with contextlib.suppress(LeaseGoneError):
            await self._call(
                "/etcdserverpb.Lease/LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease), rpc.LeaseRevokeResponse
            )

    async def status(self) -> rpc.StatusResponse:
        """Return release and state of a member."""
        return (await self._call("/etcdserverpb.Maintenance/Status", rpc.StatusRequest(), rpc.StatusResponse))[0]

    async def keep_alive(self, lease: int) -> bool:
        """Begin the term of a lease anew; False if it has ended.  Raises Unavailable."""
        self._check_open()
        call: Any = self._channels[self._current].stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=_serialized,
            response_deserializer=rpc.LeaseKeepAliveResponse.FromString,
        )(timeout=KEEP_S)
        try:
            await call.write(rpc.LeaseKeepAliveRequest(ID=lease))
            answer = await call.read()
            return answer is not grpc.aio.EOF and answer.TTL > 0
        except grpc.aio.AioRpcError as error:
            self._check_open()
            self.next_member()
            raise self._meaning(error) from error
        finally:
            call.cancel()

    async def watch(self, prefix: bytes, start: int) -> AsyncGenerator[Sequence[kv.KeyValue], None]:
        """Yield keys below `prefix` as they are written, from an etcd revision on, until the member goes away."""
        self._check_open()
        call: Any = self._channels[self._current].stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=_serialized,
            response_deserializer=rpc.WatchResponse.FromString,
        )(metadata=(("hasleader", "true"),))
        wanted = rpc.WatchCreateRequest(
            key=prefix,
            range_end=after(prefix),
            start_revision=start,
            filters=[rpc.WatchCreateRequest.NODELETE],
            fragment=True,
        )
        try:
            await call.write(rpc.WatchRequest(create_request=wanted))
            async for answer in call:
                if answer.canceled:
                    return
                if answer.events:
                    yield [event.kv for event in answer.events]
        except grpc.aio.AioRpcError as error:
            self._check_open()
            if not _transient(error) and not isinstance(self._meaning(error), Unavailable):
                raise self._meaning(error) from error
            self.next_member()
        except asyncio.CancelledError:
            self._check_open()
            raise
        finally:
            call.cancel()


def closed() -> ApiError:
    """Return the refusal of a call on a store that was closed."""
    return FailedPrecondition("the store is closed", reason="STORE_CLOSED")


def one(key: bytes) -> rpc.RangeRequest:
    """Return the read of one key."""
    return rpc.RangeRequest(key=key)


def below(prefix: bytes, **options: Any) -> rpc.RangeRequest:
    """Return the read of all keys that begin with `prefix`."""
    return rpc.RangeRequest(key=prefix, range_end=after(prefix), **options)


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _transient(error: grpc.aio.AioRpcError) -> bool:
    """Whether another try may help.  Some of it is told in words alone."""
    details = error.details() or ""
    return error.code() in TRANSIENT or any(words in details for words in TRANSIENT_WORDS)
