"""Leadership on etcd: a permanent key counts the epochs, another stands for the holder and goes when nobody renews it.

Two clocks end a term, and neither compares the clocks of two machines.  The holder's key goes with an etcd lease, by
the time of etcd's leader: so a newcomer does not wait for somebody long dead.  etcd counts whole seconds and makes
short terms longer; a candidate that saw the same holder's key for a whole term by its own monotonic clock takes
it earlier.  A holder renews by writing its key anew, and counts its term from before that write: it ends first.
What it decides late is refused all the same: a fenced write compares the key of the epochs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time

from api.errors import Unavailable
from api.gen.etcd import kv_pb2 as kv
from api.gen.etcd import rpc_pb2 as rpc
from api.store.base import Lease
from api.store.etcd_client import CompactedError, EtcdClient, LeaseGoneError, one
from api.store.etcd_keys import Keys
from api.store.etcd_records import read_epoch

ATTEMPTS = 5


class Leadership:
    """Takes and gives back leases for one process."""

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        # The revision of the holder's key by name, and when it was first seen at it.
        self._seen: dict[str, tuple[int, float]] = {}
        # Our own etcd lease and its term by name and holder.
        self._own: dict[tuple[str, str], tuple[int, int]] = {}
        self._turn = asyncio.Lock()

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew a lease; None while another holds it."""
        async with self._turn:
            for _ in range(ATTEMPTS):
                with contextlib.suppress(LeaseGoneError, CompactedError):
                    epoch, held = await self._read(name)
                    if held is not None and not self._may_take(name, holder, held):
                        return None
                    if (taken := await self._take(name, holder, ttl_s, epoch, held)) is not None:
                        return taken
                self._own.pop((name, holder), None)
            return None

    async def _read(self, name: str) -> tuple[kv.KeyValue, kv.KeyValue | None]:
        _, (epoch, held) = await self._client.read([one(self._keys.lease(name)), one(self._keys.holder(name))])
        if not held.kvs:
            self._seen.pop(name, None)
        elif self._seen.get(name, (0, 0.0))[0] != held.kvs[0].mod_revision:
            self._seen[name] = (held.kvs[0].mod_revision, time.monotonic())
        return (epoch.kvs[0] if epoch.kvs else kv.KeyValue(value=b"0 ")), (held.kvs[0] if held.kvs else None)

    def _may_take(self, name: str, holder: str, held: kv.KeyValue) -> bool:
        other, term_s = json.loads(held.value)
        return bool(other == holder or time.monotonic() - self._seen[name][1] > term_s)

    async def _take(
        self, name: str, holder: str, ttl_s: float, epoch: kv.KeyValue, held: kv.KeyValue | None
    ) -> Lease | None:
        """Write the holder's key, and the epoch's if the holder is new.  None if somebody else was faster."""
        number, last = read_epoch(epoch.value)
        new = last != holder
        number += new
        lease = await self._etcd_lease(name, holder, ttl_s)
        request = rpc.TxnRequest()
        for key, found in ((self._keys.lease(name), epoch), (self._keys.holder(name), held)):
            version = found.mod_revision if found is not None else 0
            request.compare.add(key=key, target=rpc.Compare.MOD, mod_revision=version)
        if new:
            value = f"{number} {holder}".encode()
            request.success.add(request_put=rpc.PutRequest(key=self._keys.lease(name), value=value))
        term = json.dumps([holder, ttl_s]).encode()
        request.success.add(request_put=rpc.PutRequest(key=self._keys.holder(name), value=term, lease=lease))
        answer, _ = await self._client.txn(request)
        if not answer.succeeded:
            return None
        self._seen[name] = (answer.header.revision, time.monotonic())
        return Lease(name, holder, number, ttl_s)

    async def _etcd_lease(self, name: str, holder: str, ttl_s: float) -> int:
        """Return an etcd lease whose term begins now."""
        term_s = max(1, math.ceil(ttl_s))
        lease, granted_s = self._own.get((name, holder), (0, 0))
        kept = False
        if granted_s >= term_s:
            # A member that does not answer: the others grant a new one.
            with contextlib.suppress(Unavailable):
                kept = await self._client.keep_alive(lease)
        if not kept:
            lease = await self._client.grant(term_s)
            self._own[name, holder] = (lease, term_s)
        return lease

    async def release(self, lease: Lease) -> None:
        """Give a lease back, keeping its epoch.  One that another took is left alone."""
        async with self._turn:
            epoch, held = await self._read(lease.name)
            number, last = read_epoch(epoch.value)
            own, _ = self._own.pop((lease.name, lease.holder), (0, 0))
            if (number, last) == (lease.epoch, lease.holder):
                request = rpc.TxnRequest()
                key = self._keys.lease(lease.name)
                request.compare.add(key=key, target=rpc.Compare.MOD, mod_revision=epoch.mod_revision)
                request.success.add(request_put=rpc.PutRequest(key=key, value=f"{number} ".encode()))
                if held is not None:
                    request.success.add().request_delete_range.key = self._keys.holder(lease.name)
                await self._client.txn(request)
            if own:
                await self._client.revoke(own)
