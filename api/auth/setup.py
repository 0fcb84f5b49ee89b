"""From the configuration to what lets people in, and every fault of it that keeps the server from starting."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from api.auth import jwks, static, tls
from api.auth.base import Anyone, Authenticator, Bearer, TokenCheck
from api.auth.entrance import Entrance
from api.auth.jwks import Keys, from_file, from_url
from api.auth.roles import RoleAccess
from api.auth.signed import Provider, SignedTokens
from api.auth.static import Book, FileTokens, OwnToken
from api.calls import Access, Everybody
from api.config import Config
from api.resources import Resources

SHORTEST_TOKEN = 16
TOKEN_BYTES = 32
LOOPBACK_NAMES = ("localhost",)


def with_own_token(config: Config) -> Config:
    """Return the configuration with the platform's own token, made at the first start."""
    if config.token or not config.auth.on:
        return config
    return replace(config, token=static.kept(config.token_path, lambda: secrets.token_urlsafe(TOKEN_BYTES)))


def authenticator(config: Config) -> Authenticator:
    """Return what tells who calls."""
    if not config.auth.on:
        return Anyone()
    book = Book(config.tokens_path)
    checks: list[TokenCheck] = [OwnToken(config.token), FileTokens(book)]
    if config.auth.issuer:
        auth = config.auth
        provider = Provider(auth.issuer, auth.audience, auth.user_claim, auth.groups_claim)
        fetch = from_url(auth.jwks) if _is_url(auth.jwks) else from_file(Path(auth.jwks))
        checks.append(SignedTokens(provider, Keys(fetch), book.revokes))
    return Bearer(checks)


@contextlib.asynccontextmanager
async def access_of(config: Config, resources: Resources) -> AsyncIterator[tuple[Access, Entrance]]:
    """Give the rights and the door of a server; the rights are followed until the end."""
    if not config.auth.on:
        yield Everybody(), Entrance(Anyone(), Everybody(), resources.record, config.limits)
        return
    access = RoleAccess(resources, creators=config.auth.project_creators, seen=lambda user: entrance.seen(user))
    entrance = Entrance(authenticator(config), access, resources.record, config.limits)
    async with access:
        yield access, entrance


def faults(config: Config) -> Iterator[str]:
    """Yield what is wrong with the settings of access, each with the variable that mends it."""
    yield from tls.faults(config.tls)
    if not is_loopback(config.api_host):
        if not config.auth.on:
            yield f"MA_API_HOST {config.api_host} is reached from elsewhere: it needs MA_AUTH=on"
        if config.tls.cert is None:
            yield f"MA_API_HOST {config.api_host} is reached from elsewhere: it needs MA_TLS_CERT and MA_TLS_KEY"
    if not config.auth.on:
        return
    if config.token and len(config.token) < SHORTEST_TOKEN:
        yield f"MA_TOKEN is shorter than {SHORTEST_TOKEN} characters: leave it out, and one is made"
    if not config.token and config.token_path.exists():
        yield f"the token in {config.token_path} is empty: remove the file, the next start makes another"
    try:
        static.read(config.tokens_path)
    except static.TokensFileError as error:
        yield f"MA_TOKENS_FILE: {error}"
    if config.auth.jwks:
        yield from _jwks_faults(config.auth.jwks)


def is_loopback(host: str) -> bool:
    """Whether nothing but this machine reaches a server that listens there."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _jwks_faults(place: str) -> Iterator[str]:
    if _is_url(place):
        parts = urlsplit(place)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            yield "MA_AUTH_JWKS is read without TLS: whoever stands between could give keys of its own; use https"
        return
    try:
        if not jwks.parse(Path(place).read_bytes()):
            yield f"MA_AUTH_JWKS {place} has no key for {', '.join(jwks.ALGORITHMS)}"
    except OSError as error:
        yield f"MA_AUTH_JWKS {place} cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        yield f"MA_AUTH_JWKS {place} is no JWK set"


def _is_url(place: str) -> bool:
    return place.startswith(("http://", "https://"))
