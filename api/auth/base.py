"""The port of authentication, and what every authenticator refuses with.  Knows no token format."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from api.calls import Principal
from api.errors import InvalidArgument, Unauthenticated

Headers = Sequence[tuple[str, str]]
"""Names in lower case with their values, in order; a name may come more than once."""

Certificate = Mapping[str, Sequence[bytes]]
"""What a verified client certificate says, in gRPC's words: `x509_common_name`, `x509_subject_alternative_name`."""

NO_CERTIFICATE: Certificate = MappingProxyType({})
AUTHORIZATION = "authorization"
LONGEST_TOKEN = 48 * 1024
LONGEST_NAME = 256
MOST_GROUPS = 500
# Names that no identity provider, token file or certificate can give.
RESERVED = ("system:", "service:")
# What is remembered of tokens that were accepted; longer ones are checked each time.
MOST_ACCEPTED = 1_000
LONGEST_ACCEPTED = 4 * 1024
# Whoever is in it may do everything everywhere; only the platform's own token puts one there.
ADMINS = "system:admins"
# One text for all faults of a token: which one it is helps nobody but a forger.  The audit record has it.
NOT_ACCEPTED = "the token is not accepted: ask for a new one; `ma token --help` and docs/access.md say how"
MISSING = "no token was sent: send the metadata or header `authorization: Bearer <token>`"


class BadToken(Unauthenticated):
    """A token that is not accepted.  `why`: the true fault, for the audit record alone."""

    def __init__(self, why: str, *, reason: str = "") -> None:
        super().__init__(NOT_ACCEPTED, reason=reason)
        self.why = why


@dataclass(frozen=True)
class Accepted:
    """A token that was checked.  holds: whether a check would find the same now, told at once; False says nothing."""

    principal: Principal
    holds: Callable[[], bool]


class Authenticator(Protocol):
    """Tells who calls."""

    async def authenticate(
        self, headers: Headers, peer: str, peer_certificate: Certificate = NO_CERTIFICATE
    ) -> Principal:
        """Return who calls.  peer: the address of the caller, for people.

        Raises Unauthenticated, and InvalidArgument for what contradicts itself.
        """
        ...

    def known(self, authorization: str | None) -> Principal | None:
        """Return who calls by the one header of that name, None for no header, where that takes no wait.

        None says nothing.
        """
        ...


class TokenCheck(Protocol):
    """Knows the tokens of one kind."""

    async def check(self, token: str) -> Accepted | None:
        """Return whose token it is, None if it is not one of this kind.  Raises BadToken."""
        ...


ANONYMOUS = Principal("anonymous")


class Anyone:
    """Lets everybody in as the same user: for a server that nobody else can reach, and tests."""

    async def authenticate(
        self, headers: Headers, peer: str, peer_certificate: Certificate = NO_CERTIFICATE
    ) -> Principal:
        """Return the one user."""
        return ANONYMOUS

    def known(self, authorization: str | None) -> Principal | None:
        """Return the one user."""
        return ANONYMOUS


class Bearer:
    """Takes a bearer token, or the certificate of a program that sends none."""

    def __init__(self, checks: Sequence[TokenCheck]) -> None:
        self._checks = tuple(checks)
        # By the whole header: what makes it a token is not looked at twice.
        self._accepted: OrderedDict[str, Accepted] = OrderedDict()

    async def authenticate(
        self, headers: Headers, peer: str, peer_certificate: Certificate = NO_CERTIFICATE
    ) -> Principal:
        """Return who calls: of a token and a certificate the token says it, for it speaks of this call."""
        authorization = authorization_of(headers)
        if authorization is None:
            if (service := service_of(peer_certificate)) is not None:
                return service
            raise Unauthenticated(MISSING)
        token = bearer_token(authorization)
        for check in self._checks:
            if (accepted := await check.check(token)) is not None:
                self._remember(authorization, accepted)
                return accepted.principal
        raise BadToken("no such token")

    def known(self, authorization: str | None) -> Principal | None:
        """Return whose token it is, if it was accepted and would be again."""
        accepted = self._accepted.get(authorization) if authorization is not None else None
        return accepted.principal if accepted is not None and accepted.holds() else None

    def _remember(self, authorization: str, accepted: Accepted) -> None:
        if len(authorization) <= LONGEST_ACCEPTED:
            self._accepted[authorization] = accepted
            if len(self._accepted) > MOST_ACCEPTED:
                self._accepted.popitem(last=False)


def authorization_of(headers: Headers) -> str | None:
    """Return the header that holds a token, None if there is none.  Raises InvalidArgument for two."""
    given = [value for name, value in headers if name == AUTHORIZATION]
    if not given:
        return None
    if len(given) > 1:
        told = f"{AUTHORIZATION} is given {len(given)} times: send it once"
        raise InvalidArgument(told, reason="TWO_AUTHORIZATIONS")
    return given[0]


def bearer_token(authorization: str) -> str:
    """Return the token of a header.  Raises BadToken."""
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer":
        raise BadToken("the scheme is not Bearer")
    if not token:
        raise BadToken("the token is empty")
    if len(token) > LONGEST_TOKEN:
        raise BadToken(f"the token is longer than {LONGEST_TOKEN} characters")
    return token


def service_of(certificate: Certificate) -> Principal | None:
    """Return the program that a client certificate names: its first URI, otherwise its common name."""
    alternative = [
        text for raw in certificate.get("x509_subject_alternative_name", ()) if "://" in (text := _text(raw))
    ]
    common = [_text(raw) for raw in certificate.get("x509_common_name", ())]
    for name in [*alternative, *common]:
        if is_name(name):
            return service(name)
    return None


def service(name: str) -> Principal:
    """Return the principal of a program."""
    return Principal(f"service:{name}", kind="service")


def is_name(name: str) -> bool:
    """Whether a name from outside can be one of a principal or a group: printable, not too long, not reserved."""
    return 0 < len(name) <= LONGEST_NAME and name.isprintable() and name == name.strip() and not is_reserved(name)


def is_reserved(name: str) -> bool:
    """Whether a name is one that only the platform gives."""
    return name.strip().lower().startswith(RESERVED)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
