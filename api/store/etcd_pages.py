"""Lists on etcd: all pages of one list are read at the etcd revision of the first, as long as etcd keeps it.

What one namespace holds, in order of names, is read page by page; for everything else the objects of the kind are read
and picked one by one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from api.gen.etcd import kv_pb2 as kv
from api.gen.etcd import rpc_pb2 as rpc
from api.kinds import Resource
from api.store import tokens
from api.store.base import Key, Page, Query
from api.store.etcd_client import CompactedError, EtcdClient, one
from api.store.etcd_keys import Keys, after, read_head
from api.store.etcd_query import picked
from api.store.pages import ROW_BYTES, page_bytes
from api.store.records import parse
from api.store.tokens import Position
from api.store.values import fingerprint

AT_ONCE = 500


class Pages:
    """Lists of one store.  `secret` signs its page tokens."""

    def __init__(self, client: EtcdClient, keys: Keys, secret: bytes) -> None:
        self._client = client
        self._keys = keys
        self._secret = secret

    async def select(self, kind: str, query: Query) -> Page:
        """Run a list.  Raises Expired when etcd has forgotten the first page's revision, InvalidArgument for a token.

        A page with a limit also ends where its objects would have more bytes than `page_bytes`.
        """
        digest = fingerprint(kind, query)
        position = tokens.read(self._secret, query.start, digest) if query.start else None
        try:
            at, revision = await (self._now() if position is None else self._then(kind, position.revision))
            if query.namespace and query.namespaces is not None and query.namespace not in query.namespaces:
                return Page([], revision, remaining=0)
            choose = self._in_order if _in_order_of_names(query) else self._chosen
            items, following = await choose(kind, query, position, at)
        except CompactedError:
            raise tokens.expired(kind) from None
        most = page_bytes(query)
        page = items if most is None else list(_until_full(items[: query.limit], most))
        left = following + len(items) - len(page)
        token = ""
        if left and query.limit:
            last = page[-1].metadata
            token = tokens.write(self._secret, Position(revision, last.namespace, last.name), digest)
        return Page(page, revision, token, left)

    async def _now(self) -> tuple[int, int]:
        """Return etcd's revision and ours."""
        answer = await self._client.range(one(self._keys.head))
        return answer.header.revision, read_head(answer.kvs[0].value if answer.kvs else None).revision

    async def _then(self, kind: str, revision: int) -> tuple[int, int]:
        """Return the etcd revision at which one of ours was the newest, and ours.  Raises Expired."""
        found = (await self._client.range(rpc.RangeRequest(key=self._keys.change(revision), keys_only=True))).kvs
        if not found:
            raise tokens.expired(kind)
        return found[0].mod_revision, revision

    async def _in_order(
        self, kind: str, query: Query, position: Position | None, at: int
    ) -> tuple[Sequence[Resource], int]:
        """Return a page of one namespace, and how many objects follow it."""
        prefix = self._keys.objects(kind, query.namespace)
        start = prefix
        if position is not None:
            start = self._keys.object(Key(kind, position.namespace, position.name)) + b"\0"
        request = rpc.RangeRequest(key=start, range_end=after(prefix), revision=at, limit=query.limit)
        answer = await self._client.range(request)
        return [parse(kind, item.value) for item in answer.kvs], answer.count - len(answer.kvs)

    async def _chosen(
        self, kind: str, query: Query, position: Position | None, at: int
    ) -> tuple[Sequence[Resource], int]:
        """Return everything that matches after a position, and that nothing follows it."""
        items = picked([parse(kind, item.value) async for item in self._all(kind, query.namespace, at)], query)
        if position is None:
            return items[query.offset :], 0
        places = [(item.metadata.namespace, item.metadata.name) for item in items]
        return items[places.index((position.namespace, position.name)) + 1 :], 0

    async def _all(self, kind: str, namespace: str, at: int) -> AsyncIterator[kv.KeyValue]:
        prefix = self._keys.objects(kind, namespace)
        start, more = prefix, True
        while more:
            request = rpc.RangeRequest(key=start, range_end=after(prefix), revision=at, limit=AT_ONCE)
            answer = await self._client.range(request)
            for item in answer.kvs:
                yield item
                start = item.key + b"\0"
            more = answer.more


def _in_order_of_names(query: Query) -> bool:
    """Whether the order of keys is that of the answer: across namespaces it is not, `-` comes before `/`."""
    return bool(query.namespace and query.limit) and not (query.labels or query.where or query.order or query.offset)


def _until_full(items: Sequence[Resource], most: int) -> Iterator[Resource]:
    """Yield objects while they fit into one page, at least one."""
    left, first = most, True
    for item in items:
        left -= item.ByteSize() + ROW_BYTES
        if left < 0 and not first:
            return
        yield item
        first = False
