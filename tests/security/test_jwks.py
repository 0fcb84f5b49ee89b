"""Keys of an identity provider: read once, again when one is missing, kept through an outage, never from elsewhere."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from jwt.algorithms import RSAAlgorithm

from api.auth.jwks import AGAIN_S, FRESH_S, LARGEST_BYTES, OUTAGE_S, Keys, from_url, parse
from api.errors import Unavailable
from tests.security.identity_provider import IdentityProvider


class Provider:
    """Gives a JWK set, or fails; counts how often it was asked."""

    def __init__(self, body: str) -> None:
        self.body = body.encode()
        self.asked = 0
        self.down = False
        self.now = 1000.0

    async def fetch(self) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise OSError("connection refused")
        return self.body


@pytest.fixture(scope="module")
def jwks() -> str:
    """A JWK set of three keys."""
    return IdentityProvider().jwks()


@pytest.fixture
def provider(jwks: str) -> Provider:
    """One that answers."""
    return Provider(jwks)


@pytest.fixture
def keys(provider: Provider) -> Keys:
    """Its keys, on its clock."""
    return Keys(provider.fetch, clock=lambda: provider.now)


async def test_known_keys_are_read_once_however_many_ask(keys: Keys, provider: Provider) -> None:
    found = await asyncio.gather(*(keys.key(kid) for kid in ("rsa", "ec", "ed") * 50))
    assert {key.algorithm_name for key in found if key} == {"RS256", "ES256", "EdDSA"}
    assert provider.asked == 1


async def test_unknown_keys_make_it_ask_at_most_once_a_minute(keys: Keys, provider: Provider) -> None:
    for second in range(120):
        provider.now = 1000.0 + second
        assert await keys.key(f"unknown-{second}") is None
    assert provider.asked == 2


async def test_a_new_key_is_found_and_a_withdrawn_one_is_forgotten(keys: Keys, provider: Provider, jwks: str) -> None:
    assert await keys.key("new") is None
    rotated = [{**key, "kid": key["kid"].replace("rsa", "new")} for key in json.loads(jwks)["keys"]]
    provider.body = json.dumps({"keys": rotated}).encode()
    provider.now += AGAIN_S
    assert await keys.key("new") is not None
    assert await keys.key("rsa") is None


async def test_keys_are_read_again_in_time_without_making_a_call_wait(keys: Keys, provider: Provider) -> None:
    await keys.key("rsa")
    provider.body = json.dumps({"keys": []}).encode()
    provider.now += FRESH_S + 1
    assert await keys.key("rsa") is not None
    await asyncio.sleep(0.01)
    assert provider.asked == 2
    assert await keys.key("rsa") is None


async def test_known_keys_outlive_an_outage_of_a_day_and_no_longer(keys: Keys, provider: Provider) -> None:
    assert await keys.key("rsa") is not None
    provider.down = True
    for hour in range(24):
        provider.now = 1000.0 + hour * 3600
        assert await keys.key("rsa") is not None
        await asyncio.sleep(0)
    provider.now = 1000.0 + OUTAGE_S + 1
    with pytest.raises(Unavailable):
        await keys.key("rsa")
    provider.down = False
    provider.now += AGAIN_S
    with pytest.raises(Unavailable):
        await keys.key("rsa")
    await asyncio.sleep(0.01)
    assert await keys.key("rsa") is not None


async def test_without_any_answer_nobody_is_let_in(keys: Keys, provider: Provider) -> None:
    provider.down = True
    with pytest.raises(Unavailable):
        await keys.key("rsa")


@pytest.mark.parametrize(
    "changed",
    [
        {"use": "enc"},
        {"alg": "HS256"},
        {"alg": "RS512"},
        {"alg": "none"},
        {"key_ops": ["encrypt"]},
        {"kid": 7},
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
        {"n": ""},
        {"d": "AQAB"},
    ],
)
def test_what_cannot_verify_signatures_is_no_key(jwks: str, changed: dict[str, Any]) -> None:
    key = next(key for key in json.loads(jwks)["keys"] if key["kid"] == "rsa")
    assert parse(json.dumps({"keys": [key]}).encode()).keys() == {"rsa"}
    assert parse(json.dumps({"keys": [{**key, **changed}]}).encode()) == {}


def test_a_short_key_is_no_key() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    short = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
    assert parse(json.dumps({"keys": [{**short, "kid": "short"}]}).encode()) == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_jwk_set_is_refused(body: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse(body)


class Site(http.server.BaseHTTPRequestHandler):
    """A site with keys, one that leads elsewhere, one without end and one that fails."""

    def do_GET(self) -> None:
        path = self.path
        self.send_response({"/elsewhere": 302, "/fails": 500}.get(path, 200))
        if path == "/elsewhere":
            self.send_header("Location", "/keys")
        self.end_headers()
        self.wfile.write(b"x" * (LARGEST_BYTES + 1) if path == "/endless" else b'{"keys": []}')

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """The address of the site."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_url_is_read_as_it_is(site: str) -> None:
    assert await from_url(f"{site}/keys")() == b'{"keys": []}'


@pytest.mark.parametrize("path", ["elsewhere", "endless", "fails"])
async def test_a_url_that_leads_elsewhere_or_has_no_end_gives_no_keys(site: str, path: str) -> None:
    with pytest.raises(OSError, match="it answered"):
        await from_url(f"{site}/{path}")()
