"""etcd adapter of the store: for a control plane on several machines.  Never writes but through one compared head.

Objects, changes, owners, answered requests and audit records are keys; each write is one transaction that compares and
replaces the head, so that revisions have no gaps and every reader sees all of a change or nothing of it
(`docs/adr/0005-a-store-on-etcd.md`).
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import re
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from urllib.parse import urlsplit

from api.audit import Entry, Record, canonical
from api.errors import DataLoss, Expired, FailedPrecondition, InvalidArgument, Unavailable
from api.gen.etcd import rpc_pb2 as rpc
from api.kinds import Resource
from api.store import etcd_records as records
from api.store.base import (
    NO_TRAIL,
    Change,
    ChangeType,
    Key,
    Lease,
    Page,
    Preconditions,
    Query,
    Request,
    Trail,
    Write,
    already_exists,
)
from api.store.etcd_client import CompactedError, EtcdClient, one
from api.store.etcd_draft import Draft
from api.store.etcd_keys import Keys, Logged, after, read_audit, read_change, read_head
from api.store.etcd_lease import Leadership
from api.store.etcd_pages import Pages
from api.store.etcd_writer import Writer
from api.store.records import check, not_found, parse
from api.store.sqlstore import WINDOW, WINDOW_S
from api.store.values import key_of

VERSION = 1
OLDEST_ETCD = (3, 4)
# From the first to before the second, a member that is killed may lose what it acknowledged: any member until 3.5.3
# (etcd-io/etcd#13766), and the only one of a cluster (etcd-io/etcd#14370).
FAULTY_ETCD = (((3, 4, 0), (3, 4, 21)), ((3, 5, 0), (3, 5, 5)))
AT_ONCE = 500
AGAIN_S = 0.2

log = logging.getLogger(__name__)


class EtcdStore:
    """The store below one root of an etcd cluster.  Made by `open_etcd`."""

    def __init__(self, client: EtcdClient, keys: Keys, page_key: bytes, window: int, window_s: float) -> None:
        self._client = client
        self._keys = keys
        self._pages = Pages(client, keys, page_key)
        self._writer = Writer(client, keys, window, window_s)
        self._leadership = Leadership(client, keys)

    async def get(self, key: Key) -> Resource:
        """Return the object at `key`, as it is after every write that was acknowledged, by any member."""
        found = (await self._client.range(one(self._keys.object(key)))).kvs
        if not found:
            raise not_found(key)
        return parse(key.kind, found[0].value)

    async def create(self, write: Write, trail: Trail = NO_TRAIL) -> Resource:
        """Store a new object."""
        key = key_of(write.resource)

        async def work(draft: Draft) -> Resource:
            if (answered := await records.replayed(draft, trail, key.kind)) is not None:
                return answered
            if (taken := await records.find(draft, key)) is not None:
                raise already_exists(key, taken.metadata.uid)
            await records.require(draft, write.must_exist)
            created = records.put(draft, write.resource, ChangeType.ADDED)
            records.leave(draft, trail, None, created)
            return created

        return await self._writer.carry_out(records.reads_of(self._keys, trail, *write.must_exist, new=key), work)

    async def update(self, write: Write, trail: Trail = NO_TRAIL) -> Resource:
        """Replace an object if it is still the version that was read."""
        key = key_of(write.resource)

        async def work(draft: Draft) -> Resource:
            if (answered := await records.replayed(draft, trail, key.kind)) is not None:
                return answered
            stored = await records.find(draft, key)
            if stored is None:
                raise not_found(key)
            check(key, stored, Preconditions(resource_version=write.expect))
            await records.require(draft, write.must_exist)
            updated = records.put(draft, write.resource, ChangeType.MODIFIED, stored)
            records.leave(draft, trail, stored, updated)
            return updated

        return await self._writer.carry_out(records.reads_of(self._keys, trail, key, *write.must_exist), work)

    async def delete(
        self,
        key: Key,
        preconditions: Preconditions,
        *,
        orphan: bool = False,
        finalized: bool = False,
        trail: Trail = NO_TRAIL,
    ) -> Resource:
        """Remove an object and what it alone owns, or mark it deleted while it has finalizers.

        What is too much for one transaction of etcd goes in several: the first marks the object deleted, with its
        trail, and from then on it can own nothing new; the deepest go first and the object itself goes last.
        Whatever ends it halfway leaves no object without its owner, and the next delete goes on.
        """
        begun: list[Resource] = []

        async def work(draft: Draft) -> Resource | None:
            if (answered := await records.replayed(draft, trail, key.kind)) is not None:
                return answered
            stored = await records.find(draft, key)
            if stored is None:
                raise not_found(key)
            check(key, stored, preconditions)
            await records.require_unchanged(draft, preconditions.unchanged)
            before = copy.deepcopy(stored)
            if stored.metadata.finalizers and not finalized:
                marked = records.mark(draft, stored)
                records.leave(draft, trail, before, marked)
                return marked
            untouched = draft.mark()
            if not await records.clear(draft, stored, orphan=orphan):
                draft.back(untouched)
                begun[:] = [records.mark(draft, stored, finalized=True)]
                records.leave(draft, trail, before, stored)
                return None
            gone = records.remove(draft, stored)
            records.leave(draft, trail, before, None)
            return gone

        async def go_on(draft: Draft) -> Resource | None:
            await records.replayed(draft, fenced, key.kind)
            stored = await records.find(draft, key)
            if stored is None or stored.metadata.uid != begun[0].metadata.uid:
                return begun[0]
            return records.remove(draft, stored) if await records.clear(draft, stored, orphan=orphan) else None

        fenced = Trail(fence=trail.fence)
        done = await self._writer.carry_out(records.reads_of(self._keys, trail, key), work)
        while done is None:
            done = await self._writer.carry_out(records.reads_of(self._keys, fenced, key), go_on)
        return done

    async def remembered(self, request: Request, kind: str) -> Resource | None:
        """Return what a repeated request answered with."""
        found = (await self._client.range(one(self._keys.request(request.scope, request.id)))).kvs
        return records.answered(found[0].value if found else None, request, kind)

    async def record(self, entry: Entry, request: Request | None = None, answer: Resource | None = None) -> None:
        """Append to the audit log what changed nothing, and remember its answer; nothing for a known request."""
        trail, body = Trail(request=request if answer is not None else None), canonical(entry)

        async def work(draft: Draft) -> None:
            if answer is not None:
                if await records.replayed(draft, trail, answer.DESCRIPTOR.name) is not None:
                    return
                records.leave(draft, trail, None, answer)
            draft.append_audit(body)

        await self._writer.carry_out(records.reads_of(self._keys, trail), work)

    async def audit(self, after: int, limit: int) -> Sequence[Record]:
        """Return audit records, oldest first."""
        last = self._keys.audit(after + limit + 1) if limit >= 0 else b""
        request = rpc.RangeRequest(key=self._keys.audit(after + 1), range_end=last)
        return [read_audit(item.key, item.value) for item in (await self._client.range(request)).kvs]

    async def revision(self) -> int:
        """Return the newest committed revision."""
        found = (await self._client.range(one(self._keys.head))).kvs
        return read_head(found[0].value if found else None).revision

    def peek(self, key: Key) -> bytes | None:
        """Say nothing: etcd is asked through a connection."""
        return None

    async def list(self, kind: str, query: Query) -> Page:
        """Return the objects of `kind` that match: the pages of one list are read at the revision of the first."""
        return await self._pages.select(kind, query)

    async def watch(self, kinds: Collection[str], since: int) -> AsyncIterator[Change]:
        """Yield every change of `kinds` after revision `since`, for ever.

        The log is read, then etcd's own watch is followed from the revision of that reading.  Whatever ends the
        watch, the log says what was missed.
        """
        wanted = frozenset(kinds)
        while True:
            try:
                at, logged, complete = await self._logged(since)
            except (Unavailable, CompactedError) as error:
                log.warning("changes cannot be read: %s", error)
                await asyncio.sleep(AGAIN_S)
                continue
            for change in logged:
                since = change.revision
                if change.key.kind in wanted:
                    yield change.change()
            if not complete:
                continue
            async with contextlib.aclosing(self._client.watch(self._keys.changes, at + 1)) as stream:
                async for items in stream:
                    following = [read_change(item.key, item.value) for item in items]
                    for change in following:
                        if change.revision == since + 1:
                            since = change.revision
                            if change.key.kind in wanted:
                                yield change.change()
                    if following and following[-1].revision > since:
                        # Something between was not told: the log has it, or has forgotten it.
                        break
            await asyncio.sleep(AGAIN_S / 10)

    async def _logged(self, since: int) -> tuple[int, Sequence[Logged], bool]:
        """Return an etcd revision, the changes after `since` then, and whether these are all.  Raises Expired."""
        first = self._keys.change(since + 1)
        rest = rpc.RangeRequest(key=first, range_end=after(self._keys.changes), limit=AT_ONCE)
        at, (head, answer) = await self._client.read([one(self._keys.head), rest])
        known = read_head(head.kvs[0].value if head.kvs else None)
        if since < known.compacted:
            told = f"changes up to revision {known.compacted} are no longer kept: list again and watch from there"
            raise Expired(told)
        logged = [read_change(item.key, item.value) for item in answer.kvs]
        expected = range(since + 1, min(known.revision, since + AT_ONCE) + 1)
        if [change.revision for change in logged] != list(expected):
            raise DataLoss("the record of changes has a gap: restore etcd from a backup", reason="STORE_CORRUPT")
        return at, logged, not answer.more

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew a lease."""
        return await self._leadership.acquire(name, holder, ttl_s)

    async def release(self, lease: Lease) -> None:
        """Give a lease back early."""
        await self._leadership.release(lease)

    async def close(self) -> None:
        """Stop; every later call fails."""
        await self._client.close()
        await self._writer.close()


async def open_etcd(
    url: str, *, window: int = WINDOW, window_s: float = WINDOW_S, patience_s: float = 5.0
) -> EtcdStore:
    """Open the store at `etcd://host:port[,host:port][/root]`; `root` keeps stores of one cluster apart.

    window, window_s: how many changes are kept for watchers, and for how long; patience_s: how long a call is tried.
    Raises InvalidArgument for another URL, Unavailable when no member answers, FailedPrecondition for an etcd that is
    too old and for a store of a newer release.
    """
    members, keys = read_url(url)
    client = EtcdClient(members, patience_s=patience_s)
    try:
        await _check_release(client)
        page_key = await _prepare(client, keys)
    except BaseException:
        await client.close()
        raise
    return EtcdStore(client, keys, page_key, window, window_s)


def read_url(url: str) -> tuple[Sequence[str], Keys]:
    """Return members and layout.  Raises InvalidArgument."""
    parts = urlsplit(url)
    members = parts.netloc.split(",")
    plain = not (parts.query or parts.fragment or parts.username)
    if parts.scheme != "etcd" or not plain or not all(re.fullmatch(r"[\w.\-\[\]:]+:\d{1,5}", one) for one in members):
        # Before an @ may stand a password.
        told = f"{url.rsplit('@', 1)[-1][:100]!r} is no address of etcd: write etcd://host:port,host:port"
        raise InvalidArgument(told, reason="BAD_STORE_URL")
    root = parts.path.strip("/")
    return members, Keys(f"/{root}/michelangelo" if root else "/michelangelo")


async def _check_release(client: EtcdClient) -> None:
    where = ", ".join(client.members)
    try:
        release = (await client.status()).version
    except Unavailable as error:
        told = f"no member of the etcd cluster {where} answers: start etcd, or correct the address of the store"
        raise Unavailable(told, reason="STORE_UNREACHABLE") from error
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:3])
    if loses(numbers):
        log.warning("etcd at %s is release %s, which can lose data when it is killed: upgrade it", where, release)
    if numbers < OLDEST_ETCD:
        told = f"etcd at {where} is release {release}: the store needs 3.4 or later, upgrade etcd"
        raise FailedPrecondition(told, reason="ETCD_TOO_OLD")


def loses(release: tuple[int, ...]) -> bool:
    """Whether a release of etcd is known to lose what it acknowledged when it is killed."""
    return any(first <= release < mended for first, mended in FAULTY_ETCD)


async def _prepare(client: EtcdClient, keys: Keys) -> bytes:
    """Write what an empty store needs and return the secret of page tokens.  Raises FailedPrecondition."""
    _, (version, page_key) = await client.read([one(keys.version), one(keys.page_key)])
    if not version.kvs:
        request = rpc.TxnRequest()
        request.compare.add(key=keys.version, target=rpc.Compare.VERSION, version=0)
        for key, value in ((keys.version, str(VERSION).encode()), (keys.page_key, secrets.token_bytes(32))):
            request.success.add(request_put=rpc.PutRequest(key=key, value=value))
        await client.txn(request)
        _, (version, page_key) = await client.read([one(keys.version), one(keys.page_key)])
    found = int(version.kvs[0].value)
    if found > VERSION:
        raise FailedPrecondition(
            f"the store has layout {found} of a newer release, this one knows {VERSION}: upgrade the program",
            reason="STORE_TOO_NEW",
        )
    return page_key.kvs[0].value
