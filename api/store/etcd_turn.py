"""The right of one transaction to be the next, for one that others overtook again and again.

Others see it when they begin, and wait.  Its holder says it again before every try, with how long a try may take; it
goes with the transaction that it was taken for, or with the next one if nothing was heard of it for longer.  It makes
writers fair, and none of them right.
"""

from __future__ import annotations

import contextlib
import time
import uuid

from api.errors import ApiError
from api.gen.etcd import rpc_pb2 as rpc
from api.store.etcd_client import EtcdClient
from api.store.etcd_keys import Keys

# For how long others wait for a word of its holder, at least and at most: one try takes some milliseconds, one of a
# large transaction on a busy machine longer.
TURN_S = 0.25
LONGEST_TURN_S = 2.0
# Times the try before.
SLACK = 4


class Turn:
    """Asked for by one transaction."""

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._key = keys.turn
        self._name = uuid.uuid4().hex.encode()
        # What it wrote last, empty before.
        self._taken = b""
        self._waits_for = 0
        self._since = 0.0

    def is_free(self, holder: bytes | None, version: int) -> bool:
        """Whether nobody else is next, or was silent for so long that it may be dead.

        version: the etcd revision at which the holder last said that it is next.
        """
        if holder is None or holder.startswith(self._name):
            return True
        if version != self._waits_for:
            self._waits_for, self._since = version, time.monotonic()
        return time.monotonic() - self._since > _wait_s(holder)

    async def take(self, tried_s: float) -> None:
        """Be the next, if nobody else is; say so again, if it is this one.  `tried_s`: how long the last try took."""
        value = self._name + b" %.3f" % min(max(TURN_S, SLACK * tried_s), LONGEST_TURN_S)
        if self._taken:
            held = rpc.Compare(key=self._key, target=rpc.Compare.VALUE, value=self._taken)
        else:
            held = rpc.Compare(key=self._key, target=rpc.Compare.VERSION, version=0)
        request = rpc.TxnRequest(compare=[held])
        request.success.add(request_put=rpc.PutRequest(key=self._key, value=value))
        # Without an answer it may be taken.
        self._taken = value
        answer, doubted = await self._client.txn(request)
        if not (answer.succeeded or doubted):
            self._taken = b""

    def ended(self) -> None:
        """Take note that it went with its transaction."""
        self._taken = b""

    async def give_back(self) -> None:
        """Let others go on at once, if nothing was written."""
        if self._taken:
            request = rpc.TxnRequest()
            request.compare.add(key=self._key, target=rpc.Compare.VALUE, value=self._taken)
            request.success.add().request_delete_range.key = self._key
            # Without an answer they go on a moment later.
            with contextlib.suppress(ApiError):
                await self._client.txn(request)


def _wait_s(holder: bytes) -> float:
    """Return how long to wait for what a holder wrote."""
    try:
        return min(max(TURN_S, float(holder.partition(b" ")[2])), LONGEST_TURN_S)
    except ValueError:
        return TURN_S
