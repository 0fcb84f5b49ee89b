"""Client certificates: a program is who its certificate says, a person beside it who its token says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.auth.base import service_of
from api.auth.setup import access_of
from api.client import Client
from api.config import TlsConfig
from api.errors import ApiError, Unavailable
from api.server import grpc_server
from tests.security.certificates import Authority
from tests.security.secured import OWNER, Secured, known, token_of

URI = "spiffe://example/ns/training/sa/scheduler"


class Mutual(Secured):
    """A server that every client must show a certificate to."""

    def __init__(self, home: Path, tls: TlsConfig) -> None:
        self._tls = tls
        super().__init__(home, [known("bob")])

    async def _start(self) -> int:
        port = await super()._start()
        self.plain = f"127.0.0.1:{port}"
        access, entrance = await self._stack.enter_async_context(access_of(self.config, self.resources))
        server = grpc_server(self.resources, 0, access=access, entrance=entrance, tls=self._tls)
        return await self._stack.enter_async_context(server)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates of server and clients."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> TlsConfig:
    """What server and clients are given."""
    cert, key = authority.server("server")
    return TlsConfig(cert, key, client_ca=authority.cert, ca=authority.cert)


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, tls: TlsConfig) -> Iterator[Mutual]:
    """The server."""
    made = Mutual(tmp_path_factory.mktemp("mutual"), tls)
    yield made
    made.close()


def client(mutual: Mutual, tls: TlsConfig, shown: tuple[Path, Path], token: str = "") -> Client:
    cert, key = shown
    return Client(mutual.address, timeout_s=3, token=token, tls=replace(tls, client_cert=cert, client_key=key))


@pytest.fixture(scope="module")
def project(mutual: Mutual, tls: TlsConfig, authority: Authority) -> str:
    """A project with bindings for both."""
    from api.kinds import kinds

    with client(mutual, tls, authority.client("owner"), OWNER) as api:
        api.create(kinds()["Project"].new("shop", "shop"))
        bound = kinds()["RoleBinding"].new("shop", "seen")
        bound.spec.role = 1
        bound.spec.subjects.add(kind=3, name=URI)
        bound.spec.subjects.add(kind=3, name="batch")
        bound.spec.subjects.add(kind=1, name="bob")
        api.create(bound)
    return "shop"


@pytest.mark.parametrize(
    ("name", "uri", "token", "sees"),
    [
        ("scheduler", URI, "", True),
        ("batch", "", "", True),
        ("batch", "spiffe://example/other", "", False),
        ("bob", "", "", False),
        ("nobody", "", token_of("bob"), True),
        ("scheduler", URI, token_of("bob"), True),
        ("system:platform", "", "", False),
    ],
)
def test_a_certificate_is_a_service_and_a_token_comes_before_it(
    mutual: Mutual, tls: TlsConfig, authority: Authority, project: str, name: str, uri: str, token: str, sees: bool
) -> None:
    with client(mutual, tls, authority.client(name, uri), token) as api:
        if name == "system:platform":
            with pytest.raises(ApiError) as refused:
                api.list("Project")
            assert refused.value.code == "UNAUTHENTICATED"
        else:
            assert [item.metadata.name for item in api.list("Project")] == ([project] if sees else [])


def test_a_bad_token_is_not_saved_by_a_certificate(mutual: Mutual, tls: TlsConfig, authority: Authority) -> None:
    with client(mutual, tls, authority.client("batch"), "no-such-token") as api:
        with pytest.raises(ApiError) as refused:
            api.list("Project")
        assert refused.value.code == "UNAUTHENTICATED"


def test_without_a_certificate_of_the_authority_nobody_connects(mutual: Mutual, tls: TlsConfig, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    with client(mutual, tls, other.client("batch")) as api, pytest.raises(Unavailable):
        api.list("Project")
    with Client(mutual.address, timeout_s=1, token=OWNER, tls=tls) as api, pytest.raises(Unavailable):
        api.list("Project")
    # A server whose certificate nobody trusts is not talked to either.
    stranger = TlsConfig(ca=other.cert)
    with Client(mutual.address, timeout_s=1, token=OWNER, tls=stranger) as api, pytest.raises(Unavailable):
        api.list("Project")


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({}, None),
        ({"x509_common_name": [b"batch"]}, "service:batch"),
        ({"x509_common_name": [b"batch"], "x509_subject_alternative_name": [b"a.example"]}, "service:batch"),
        ({"x509_subject_alternative_name": [b"a.example", b"spiffe://a/b"]}, "service:spiffe://a/b"),
        ({"x509_common_name": [b""]}, None),
        ({"x509_common_name": [b"service:other"]}, None),
        ({"x509_common_name": [b"a\nb"]}, None),
        ({"x509_common_name": [b"x" * 300]}, None),
        ({"transport_security_type": [b"ssl"]}, None),
    ],
)
def test_what_a_certificate_says_becomes_a_name(said: Any, name: str | None) -> None:
    found = service_of(said)
    assert (found and (found.subject, found.kind)) == (name and (name, "service"))


def test_a_plain_connection_shows_no_certificate(mutual: Mutual) -> None:
    call: Any = grpc.insecure_channel(mutual.plain).unary_unary("/michelangelo.api.v2.ProjectService/ListProject")
    with pytest.raises(grpc.RpcError) as refused:
        call(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined,unused-ignore]
