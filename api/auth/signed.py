"""Signed tokens (JWT) of an OIDC identity provider.  Fixed algorithms, own keys, nothing taken from the token on trust.

Source: RFC 8725 (best current practices), RFC 9068 (`at+jwt`), `security-and-governance.md` T6.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from api.auth.base import MOST_GROUPS, Accepted, BadToken, is_name, is_reserved
from api.auth.jwks import ALGORITHMS, Keys
from api.calls import Principal

SKEW_S = 60
OLDEST_S = 12 * 3600
# Nothing that was checked is believed for longer: a withdrawn key or a revoked token stops working in that time.
CHECKED_S = 30.0
MOST_CHECKED = 10_000
TYPES = ("jwt", "at+jwt", "application/at+jwt")
REQUIRED = ["exp", "iat", "iss", "aud", "sub"]
CLAIMS_TOO_LARGE = "CLAIMS_TOO_LARGE"

Revokes = Callable[[str, str, float], bool]


@dataclass(frozen=True)
class Provider:
    """What tokens must say.  user_claim, groups_claim: which claims name the user and the groups."""

    issuer: str
    audience: str
    user_claim: str = "sub"
    groups_claim: str = "groups"


@dataclass(frozen=True)
class _Checked:
    principal: Principal
    jti: str
    issued: float
    until: float


class SignedTokens:
    """Checks signed tokens.  revokes: tells of (jti, user, issued at) whether the token was revoked."""

    def __init__(
        self,
        provider: Provider,
        keys: Keys,
        revokes: Revokes = lambda jti, user, issued: False,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._provider = provider
        self._keys = keys
        self._revokes = revokes
        self._clock = clock
        # By the SHA-256 of the whole token: a part of it can be the same in two (CVE-2026-35030).
        self._checked: OrderedDict[bytes, _Checked] = OrderedDict()

    async def check(self, token: str) -> Accepted | None:
        """Return whose token it is, None if it is no signed token."""
        if token.count(".") != 2:
            return None
        name = hashlib.sha256(token.encode()).digest()
        known = self._checked.get(name)
        if known is None or self._clock() >= known.until:
            known = await self._verify(token)
            self._remember(name, known)
        if self._revoked(known):
            raise BadToken("the token was revoked")
        return Accepted(known.principal, lambda: self._clock() < known.until and not self._revoked(known))

    def _revoked(self, known: _Checked) -> bool:
        return self._revokes(known.jti, known.principal.subject, known.issued)

    def _remember(self, name: bytes, known: _Checked) -> None:
        self._checked[name] = known
        self._checked.move_to_end(name)
        if len(self._checked) > MOST_CHECKED:
            self._checked.popitem(last=False)

    async def _verify(self, token: str) -> _Checked:
        try:
            header = jwt.get_unverified_header(token)
            _check_header(header)
            key = await self._keys.key(header.get("kid", ""))
            if key is None:
                raise BadToken("the token names a key that the identity provider does not have")
            if header["alg"] != key.algorithm_name:
                raise BadToken("the token names another algorithm than its key is for")
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._provider.audience,
                issuer=self._provider.issuer,
                leeway=SKEW_S,
                options={"require": REQUIRED, "enforce_minimum_key_length": True},
            )
            return self._read(claims)
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise BadToken(f"{type(error).__name__}: {error}"[:200]) from error

    def _read(self, claims: Mapping[str, Any]) -> _Checked:
        now = self._clock()
        issued, expires = float(claims["iat"]), float(claims["exp"])
        if now - issued > OLDEST_S + SKEW_S:
            raise BadToken("the token was issued more than 12 hours ago")
        user = claims.get(self._provider.user_claim)
        if not isinstance(user, str) or not is_name(user):
            raise BadToken(f"claim {self._provider.user_claim} names no user that can be one here")
        if self._provider.user_claim == "email" and claims.get("email_verified") is not True:
            raise BadToken("the e-mail address is not verified")
        jti = claims.get("jti", "")
        until = min(now + CHECKED_S, expires + SKEW_S, issued + OLDEST_S + SKEW_S)
        return _Checked(Principal(user, self._groups(claims)), jti, issued, until)

    def _groups(self, claims: Mapping[str, Any]) -> frozenset[str]:
        """Return the groups; what is no list of texts is no group.  A name of the platform's own refuses the token."""
        given = claims.get(self._provider.groups_claim)
        if not isinstance(given, list):
            return frozenset()
        if len(given) > MOST_GROUPS:
            raise BadToken(f"{len(given)} groups, at most {MOST_GROUPS} are allowed", reason=CLAIMS_TOO_LARGE)
        texts = [group for group in given if isinstance(group, str)]
        if any(is_reserved(group) for group in texts):
            raise BadToken("the token claims a group that only the platform gives")
        return frozenset(group for group in texts if is_name(group))


def _check_header(header: Mapping[str, Any]) -> None:
    """Refuse what a header must not say, before any key is looked for."""
    if header.get("alg") not in ALGORITHMS:
        raise BadToken(f"algorithm {str(header.get('alg'))[:32]!r} is not accepted")
    if "crit" in header or "b64" in header:
        raise BadToken("the token has critical headers that are not understood")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise BadToken(f"type {str(kind)[:32]!r} is not accepted")
    if not isinstance(header.get("kid", ""), str):
        raise BadToken("the key id is no text")
