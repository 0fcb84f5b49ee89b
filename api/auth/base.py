"""The port of authentication, and what every authenticator refuses with.  Knows no token format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class Authenticator(Protocol):
    """Tells who calls."""

    async def authenticate(
        self, headers: Headers, peer: str, peer_certificate: Certificate = NO_CERTIFICATE
    ) -> Principal:
        """Return who calls.  peer: the address of the caller, for people.

        Raises Unauthenticated, and InvalidArgument for what contradicts itself.
        """
        ...


class TokenCheck(Protocol):
    """Knows the tokens of one kind."""

    async def check(self, token: str) -> Principal | None:
        """Return whose token it is, None if it is not one of this kind.  Raises BadToken."""
        ...


class Anyone:
    """Lets everybody in as the same user: for a server that nobody else can reach, and tests."""

    async def authenticate(
        self, headers: Headers, peer: str, peer_certificate: Certificate = NO_CERTIFICATE
    ) -> Principal:
        """Return the one user."""
        return Principal("anonymous")


class Bearer:
    """Takes a bearer token, or the certificate of a program that sends none."""

    def __init__(self, checks: Sequence[TokenCheck]) -> None:
        self._checks = tuple(checks)

    async def authenticate(
        self, headers: Headers, peer: str, peer_certificate: Certificate = NO_CERTIFICATE
    ) -> Principal:
        """Return who calls: of a token and a certificate the token says it, for it speaks of this call."""
        token = bearer_token(headers)
        if token is None:
            if (service := service_of(peer_certificate)) is not None:
                return service
            raise Unauthenticated(MISSING)
        for check in self._checks:
            if (principal := await check.check(token)) is not None:
                return principal
        raise BadToken("no such token")


def bearer_token(headers: Headers) -> str | None:
    """Return the token that was sent, None if there is none.  Raises InvalidArgument for two, BadToken."""
    given = [value for name, value in headers if name == AUTHORIZATION]
    if not given:
        return None
    if len(given) > 1:
        told = f"{AUTHORIZATION} is given {len(given)} times: send it once"
        raise InvalidArgument(told, reason="TWO_AUTHORIZATIONS")
    scheme, _, token = given[0].partition(" ")
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
