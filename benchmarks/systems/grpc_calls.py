"""Calls by gRPC: gets of our server, a bare echo of the same bytes, puts of etcd.  Generic stubs, bytes in and out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import uvloop

from api.gen.etcd import rpc_pb2
from api.kinds import kinds
from benchmarks.systems.processes import free_ports, started, wait_until
from benchmarks.systems.servers import SERVER_CORE

ECHO = "/echo.Echo/Echo"
PUT = "/etcdserverpb.KV/Put"
VALUE = b"x" * 1000
Metadata = Sequence[tuple[str, str]]


def gets(port: int, project: str, name: str, token: str, at_once: int, seconds: float) -> float:
    """Return the gets a second of one object, `at_once` in flight."""
    kind = kinds()["ModelFamily"]
    described = kind.method("Get")
    request = described.input_type._concrete_class(name=name, namespace=project)  # type: ignore[attr-defined]
    path = f"/{kind.service.full_name}/{described.name}"
    sent = request.SerializeToString()
    return uvloop.run(_busy(port, path, sent, (("authorization", f"Bearer {token}"),), at_once, seconds))


def echoes(port: int, at_once: int, seconds: float) -> float:
    """Return the echoes a second."""
    return uvloop.run(_busy(port, ECHO, VALUE, (), at_once, seconds))


async def _busy(port: int, path: str, sent: bytes, metadata: Metadata, at_once: int, seconds: float) -> float:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(path)
        await call(sent, metadata=tuple(metadata))
        begun = time.monotonic()

        async def ask() -> int:
            count = 0
            while time.monotonic() - begun < seconds:
                await call(sent, metadata=tuple(metadata))
                count += 1
            return count

        counts = await asyncio.gather(*(ask() for _ in range(at_once)))
        return sum(counts) / (time.monotonic() - begun)


def etcd_puts(port: int, count: int) -> list[float]:
    """Put `count` new keys one after another; return the milliseconds of each."""
    found = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        put: Any = channel.unary_unary(PUT)
        run = time.monotonic_ns()
        for number in range(-1, count):
            request = rpc_pb2.PutRequest(key=f"/bench/{run}/{number}".encode(), value=VALUE)
            begun = time.perf_counter_ns()
            put(request.SerializeToString())
            if number >= 0:
                found.append((time.perf_counter_ns() - begun) / 1e6)
    return found


@contextlib.contextmanager
def echo(folder: Path) -> Iterator[int]:
    """Run a server that returns the bytes it is sent, on grpc.aio and uvloop as ours; yields its port."""
    (port,) = free_ports(1)
    log = folder / "echo.log"
    argv = [sys.executable, "-m", "benchmarks.systems.grpc_echo", str(port)]
    with started(argv, environ=dict(os.environ), log=log, core=SERVER_CORE) as server:
        wait_until(lambda: _answers(port), process=server, log=log)
        yield port


def _answers(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(ECHO)
        try:
            return bool(call(b"x", timeout=1) == b"x")
        except grpc.RpcError:
            return False
