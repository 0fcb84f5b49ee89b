"""The HTTP port with TLS: a program is who its certificate says, others send a token, nobody is let in without."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.config import TlsConfig
from api.http import certificate
from tests.api.http_running import ROOT, HttpServed
from tests.api.kubectl_tool import Kubectl, installed
from tests.security.certificates import Authority

TOKEN = "owner-0123456789abcdef"
JSON = {"content-type": "application/json"}


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


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    """A server that speaks plain HTTP and TLS, by a certificate of its own."""
    folder = tmp_path_factory.mktemp("both")
    made = HttpServed(folder / "store.db", token=TOKEN, own=certificate.own(folder / "run"))
    yield made
    made.close()


def trusting(both: HttpServed, **more: Any) -> httpx.Client:
    cert = both.path.parent / "run" / "tls.pem"
    context = ssl.create_default_context(cafile=str(cert))
    authorization = {"authorization": f"Bearer {TOKEN}"}
    return httpx.Client(base_url=f"https://localhost:{both.port}", verify=context, headers=authorization, **more)


def test_one_port_speaks_both(both: HttpServed) -> None:
    assert both.send("GET", f"{ROOT}/projects").status_code == 200
    large = {"metadata": {"name": "large"}, "spec": {"description": "x" * 1_000_000}}
    with trusting(both) as http:
        for _ in range(3):
            assert http.get(f"{ROOT}/projects").status_code == 200
        assert http.post(f"{ROOT}/projects", json=large).status_code == 201
        shown = http.get(f"{ROOT}/projects/large").json()
        assert shown["spec"]["description"] == large["spec"]["description"]
        with http.stream("GET", f"{ROOT}/projects?watch=true&timeoutSeconds=1") as lines:
            assert json.loads(next(lines.iter_lines()))["type"] == "ADDED"
        assert http.post(f"{ROOT}/projects", content=b" " * 5_000_000, headers=JSON).status_code == 413


def test_it_works_in_small_pieces_and_ends_what_is_no_tls(both: HttpServed) -> None:
    with socket.create_connection(("127.0.0.1", both.port), 5) as link:
        link.sendall(b"\x16\x03\x01\x00\x05hello")
        while link.recv(4096):
            pass
    context = ssl.create_default_context(cafile=str(both.path.parent / "run" / "tls.pem"))
    with socket.create_connection(("127.0.0.1", both.port), 5) as link:
        coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
        sealed = context.wrap_bio(coming, going, server_hostname="localhost")
        while True:
            try:
                sealed.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in going.read():
                    link.sendall(bytes([byte]))
                coming.write(link.recv(4096))
        sealed.write(b"GET /version HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n" % TOKEN.encode())
        for byte in going.read():
            link.sendall(bytes([byte]))
        found = b""
        while b"gitVersion" not in found:
            coming.write(link.recv(4096))
            try:
                found += sealed.read()
            except ssl.SSLWantReadError:
                continue
        assert found.startswith(b"HTTP/1.1 200 OK")


def test_kubectl_sends_its_token_to_the_platforms_own_certificate(both: HttpServed, tmp_path: Path) -> None:
    trusted = ["--certificate-authority", str(both.path.parent / "run" / "tls.pem"), "--token", TOKEN]
    kubectl = Kubectl(installed(), f"https://127.0.0.1:{both.port}", tmp_path, trusted)
    document = "apiVersion: michelangelo.api/v2\nkind: Project\nmetadata: {name: sealed, namespace: sealed}\n"
    assert "created" in kubectl.run("apply", "-f", "-", sent=document)
    assert "unchanged" in kubectl.run("apply", "-f", "-", sent=document)
    assert "sealed" in kubectl.run("get", "projects")
    kubectl.run("delete", "project", "sealed")


def test_the_certificate_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    first = certificate.own(tmp_path)
    assert first.cert is not None
    assert first.key is not None
    assert first.key.stat().st_mode & 0o777 == 0o600
    text = first.cert.read_bytes()
    assert certificate.own(tmp_path).cert.read_bytes() == text  # type: ignore[union-attr]
    first.key.write_text("broken")
    certificate.own(tmp_path)
    assert first.cert.read_bytes() != text
    certificate.context(first)
