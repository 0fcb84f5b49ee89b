"""The one door of every transport: who calls, in whose name, and a record of whoever was not let in."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace

from api.audit import Entry
from api.auth.base import NO_CERTIFICATE, Authenticator, BadToken, Certificate, Headers, is_name
from api.calls import Access, Call, Principal
from api.errors import ApiError, InvalidArgument, PermissionDenied, Unauthenticated
from api.gate import Gate
from api.limits import DEFAULT, LimitsConfig
from api.strangers import Strangers

IMPERSONATE_USER = "x-ma-impersonate-user"
LONGEST_WHY = 200
MOST_SEEN = 10_000

Record = Callable[[Entry], Awaitable[None]]


class Entrance:
    """Lets calls in.  record: appends to the audit log; gate: through which whoever came in must go."""

    def __init__(
        self, authenticator: Authenticator, access: Access, record: Record, limits: LimitsConfig = DEFAULT
    ) -> None:
        self.gate = Gate(limits)
        self._authenticator = authenticator
        self._access = access
        self._record = record
        self._strangers = Strangers(limits.bad_tokens)
        self._seen: OrderedDict[str, None] = OrderedDict()

    async def enter(
        self,
        call: Call,
        headers: Headers,
        peer: str,
        certificate: Certificate = NO_CERTIFICATE,
        *,
        verb: str,
        kind: str = "",
    ) -> Call:
        """Return the call with who makes it.  headers: names in lower case; verb, kind: what it calls, for the record.

        Raises Unauthenticated, PermissionDenied, InvalidArgument; Overloaded for too many refusals, which have no
        record.
        """
        try:
            principal = await self._authenticator.authenticate(headers, peer, certificate)
            self._note(principal.subject)
            call.principal = await self._in_whose_name(call, principal, headers)
            return call
        except (Unauthenticated, PermissionDenied) as error:
            await self._strangers.check(peer)
            policy = self._access.policy if isinstance(error, _Denied) else ""
            await self._record(replace(_refused(call, error, peer, verb, kind), policy=policy))
            raise

    def known(self, authorization: str | None) -> Principal | None:
        """Return who sends that header and speaks for itself; None where telling it takes time, or it is refused.

        `enter` says what it is then, and whoever is known was let in by it.
        """
        return self._authenticator.known(authorization)

    def seen(self, user: str) -> bool:
        """Whether a user was let in since the start, as far back as is remembered."""
        return user in self._seen

    def _note(self, subject: str) -> None:
        if subject not in self._seen:
            self._seen[subject] = None
            if len(self._seen) > MOST_SEEN:
                self._seen.popitem(last=False)

    async def _in_whose_name(self, call: Call, principal: Principal, headers: Headers) -> Principal:
        wanted = [value for name, value in headers if name == IMPERSONATE_USER]
        if not wanted:
            return principal
        if len(wanted) > 1 or not is_name(wanted[0]):
            raise InvalidArgument(f"{IMPERSONATE_USER} is the name of one user", reason="BAD_IMPERSONATION")
        try:
            await self._access.require(replace(call, principal=principal), "Impersonate", "", "")
        except PermissionDenied as error:
            raise _Denied(error, principal) from None
        return Principal(wanted[0], via=principal.subject)


class _Denied(PermissionDenied):
    """A refusal of somebody who is known."""

    def __init__(self, error: PermissionDenied, principal: Principal) -> None:
        super().__init__(error.message, reason=error.reason)
        self.principal = principal


def _refused(call: Call, error: ApiError, peer: str, verb: str, kind: str) -> Entry:
    """Return the record of a call that was not let in, with the true fault of its token and where it came from."""
    known = error.principal if isinstance(error, _Denied) else Principal("")
    why = error.why if isinstance(error, BadToken) else error.reason
    return Entry(
        time_us=time.time_ns() // 1000,
        subject=known.subject,
        groups=tuple(sorted(known.groups)),
        source=call.source,
        verb=verb,
        kind=kind,
        namespace="",
        name="",
        request_id=call.request_id,
        outcome=error.code,
        reason=f"{why} (from {peer})"[:LONGEST_WHY],
    )
