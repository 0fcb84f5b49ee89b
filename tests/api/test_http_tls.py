"""The HTTP port with TLS: a program is who its certificate says, others send a token, nobody is let in without."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.config import TlsConfig
from tests.api.http_running import ROOT, HttpServed
from tests.api.kubectl_tool import Kubectl, installed
from tests.security.certificates import Authority

TOKEN = "owner-0123456789abcdef"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    cert, key = authority.server("server")
    tls = TlsConfig(cert, key, client_ca=authority.cert)
    made = HttpServed(tmp_path_factory.mktemp("tls") / "store.db", token=TOKEN, tls=tls)
    yield made
    made.close()


def client(server: HttpServed, authority: Authority, shown: tuple[Path, Path] | None = None) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(authority.cert))
    if shown is not None:
        context.load_cert_chain(*shown)
    return httpx.Client(base_url=server.url, verify=context)


def test_a_certificate_or_a_token_opens(server: HttpServed, authority: Authority) -> None:
    with client(server, authority, authority.client("batch")) as http:
        assert http.get(f"{ROOT}/projects").status_code == 200
    with client(server, authority) as http:
        refused = http.get(f"{ROOT}/projects")
        assert (refused.status_code, refused.json()["reason"]) == (401, "UNAUTHENTICATED")
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert http.get(f"{ROOT}/projects", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_who_shows_a_certificate_is_in_the_audit_log(server: HttpServed, authority: Authority) -> None:
    shown = authority.client("scheduler", "spiffe://example/scheduler")
    with client(server, authority, shown) as http:
        assert http.post(f"{ROOT}/projects", json={"metadata": {"name": "by-cert"}}).status_code == 201
    records = server.run(server.store.audit(0, 100))
    assert any(b"spiffe://example/scheduler" in bytes(record.body) for record in records)


def test_a_certificate_of_somebody_else_is_refused(server: HttpServed, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").client("batch")
    with client(server, authority, stranger) as http, pytest.raises(httpx.TransportError):
        http.get(f"{ROOT}/projects")


def test_kubectl_shows_its_certificate_or_its_token(server: HttpServed, authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.client("kubectl")
    trusted = ["--certificate-authority", str(authority.cert)]
    by_cert = [*trusted, "--client-certificate", str(cert), "--client-key", str(key)]
    assert "No resources" in Kubectl(installed(), server.url, tmp_path / "a", by_cert).run("get", "pipelines", "-A")
    by_token = Kubectl(installed(), server.url, tmp_path / "b", [*trusted, "--token", TOKEN])
    assert "No resources" in by_token.run("get", "pipelines", "-A")
    nobody = Kubectl(installed(), server.url, tmp_path / "c", [*trusted, "--token", "wrong"])
    assert "You must be logged in to the server" in nobody.run("get", "pipelines", "-A", code=1)
