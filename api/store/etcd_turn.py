"""The right of one transaction to be the next, for one that others overtook again and again.

Others see it when they begin, and wait as long as its holder says so again before every try; it goes with the
transaction that it was taken for, or with the next one if nothing was heard of it for a while.  It makes writers fair,
and none of them right.
"""

from __future__ import annotations

import contextlib
import time
import uuid

from api.errors import ApiError
from api.gen.etcd import rpc_pb2 as rpc
from api.store.etcd_client import EtcdClient
from api.store.etcd_keys import Keys

# For how long others wait for a word of its holder: longer than one try of a large transaction on a busy machine.
TURN_S = 1.0


class Turn:
    """Asked for by one transaction."""

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._key = keys.turn
        self._name = uuid.uuid4().hex.encode()
        self._taken = False
        self._waits_for = 0
        self._since = 0.0

    def is_free(self, holder: bytes | None, version: int) -> bool:
        """Whether nobody else is next, or was silent for so long that it may be dead.

        version: the etcd revision at which the holder last said that it is next.
        """
        if holder in (None, self._name):
            return True
        if version != self._waits_for:
            self._waits_for, self._since = version, time.monotonic()
        return time.monotonic() - self._since > TURN_S

    async def take(self) -> None:
        """Be the next, if nobody else is; say so again, if it is this one."""
        held = rpc.Compare(key=self._key, target=rpc.Compare.VALUE, value=self._name)
        if self._taken and await self._put(held):
            return
        # Without an answer it may be taken.
        self._taken = True
        self._taken = await self._put(rpc.Compare(key=self._key, target=rpc.Compare.VERSION, version=0))

    async def _put(self, condition: rpc.Compare) -> bool:
        request = rpc.TxnRequest(compare=[condition])
        request.success.add(request_put=rpc.PutRequest(key=self._key, value=self._name))
        answer, doubted = await self._client.txn(request)
        return answer.succeeded or doubted

    def ended(self) -> None:
        """Take note that it went with its transaction."""
        self._taken = False

    async def give_back(self) -> None:
        """Let others go on at once, if nothing was written."""
        if self._taken:
            request = rpc.TxnRequest()
            request.compare.add(key=self._key, target=rpc.Compare.VALUE, value=self._name)
            request.success.add().request_delete_range.key = self._key
            # Without an answer they go on a moment later.
            with contextlib.suppress(ApiError):
                await self._client.txn(request)
