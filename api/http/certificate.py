"""The platform's own certificate, for this machine's names: kubectl sends tokens over TLS alone.  Made once."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from pathlib import Path
from typing import Any

from api.config import TlsConfig

NAMES = ("localhost",)
ADDRESSES = ("127.0.0.1", "::1")
VALID = datetime.timedelta(days=3650)
RENEWED = datetime.timedelta(days=30)


def own(folder: Path) -> TlsConfig:
    """Return certificate and key in a folder, made anew if they are missing, broken or about to expire."""
    tls = TlsConfig(folder / "tls.pem", folder / "tls.key")
    if not _usable(tls):
        _make(tls)
    return tls


def context(tls: TlsConfig) -> ssl.SSLContext:
    """Return what a server needs to speak TLS."""
    assert tls.cert is not None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    made.load_cert_chain(tls.cert, tls.key)
    return made


def _usable(tls: TlsConfig) -> bool:
    from cryptography import x509

    assert tls.cert is not None
    try:
        context(tls)
        expires = x509.load_pem_x509_certificate(tls.cert.read_bytes()).not_valid_after_utc
    except (OSError, ssl.SSLError, ValueError):
        return False
    return expires - datetime.datetime.now(datetime.UTC) > RENEWED


def _make(tls: TlsConfig) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "michelangelo-airflow")])
    names = [x509.DNSName(each) for each in NAMES]
    addresses = [x509.IPAddress(ipaddress.ip_address(each)) for each in ADDRESSES]
    now = datetime.datetime.now(datetime.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    _write(tls.key, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    _write(tls.cert, made.public_bytes(serialization.Encoding.PEM))


def _usage() -> Any:
    from cryptography.x509 import KeyUsage

    return KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path | None, data: bytes) -> None:
    """Write a file for its owner alone, whole or not at all."""
    assert path is not None
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    fresh.replace(path)
