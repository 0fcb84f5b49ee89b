"""The right of one transaction to be the next, for one that others overtook again and again.

Others see it when they begin, and wait; it ends with the transaction, or by itself if its holder dies.
"""

from __future__ import annotations

import logging
import uuid

from api.errors import ApiError
from api.gen.etcd import rpc_pb2 as rpc
from api.store.etcd_client import EtcdClient, LeaseGoneError
from api.store.etcd_keys import Keys

# For how long others wait if the holder is never heard of again.
TURN_S = 2

log = logging.getLogger(__name__)


class Turn:
    """Asked for by one transaction."""

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._key = keys.turn
        self._name = uuid.uuid4().hex.encode()
        self._lease = 0

    def is_free(self, holder: bytes | None) -> bool:
        """Whether nobody else is next."""
        return holder in (None, self._name)

    async def take(self) -> None:
        """Be the next, if nobody else is."""
        if not self._lease:
            self._lease = await self._client.grant(TURN_S)
        request = rpc.TxnRequest()
        request.compare.add(key=self._key, target=rpc.Compare.VERSION, version=0)
        request.success.add(request_put=rpc.PutRequest(key=self._key, value=self._name, lease=self._lease))
        try:
            await self._client.txn(request)
        except LeaseGoneError:
            self._lease = 0

    async def give_back(self) -> None:
        """Let others go on."""
        if self._lease:
            try:
                await self._client.revoke(self._lease)
            except ApiError as error:
                log.info("others wait %d s: %s", TURN_S, error.message)
