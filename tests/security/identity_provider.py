"""An identity provider that signs what it is told to: its keys, its JWK set, and tokens good and bad."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://id.example"
AUDIENCE = "michelangelo"


@dataclass
class IdentityProvider:
    """Keys by id, one of each algorithm."""

    rsa: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    ec: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    ed: ed25519.Ed25519PrivateKey = field(default_factory=ed25519.Ed25519PrivateKey.generate)

    def jwks(self) -> str:
        """Return the JWK set."""
        keys = {
            "rsa": RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True),
            "ec": ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True),
            "ed": OKPAlgorithm.to_jwk(self.ed.public_key(), as_dict=True),
        }
        return json.dumps({"keys": [{**key, "kid": kid, "use": "sig"} for kid, key in keys.items()]})

    def token(
        self, *, kid: str = "rsa", headers: Mapping[str, Any] | None = None, drop: str = "", **claims: Any
    ) -> str:
        """Return a good token of `alice`, but for what is said otherwise.  `drop`: a claim to leave out."""
        key: Any = {"rsa": self.rsa, "ec": self.ec, "ed": self.ed}[kid]
        algorithm = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}[kid]
        return jwt.encode(self.claims(drop=drop, **claims), key, algorithm, headers={"kid": kid, **(headers or {})})

    @staticmethod
    def claims(*, drop: str = "", **claims: Any) -> dict[str, Any]:
        """Return the claims of a good token."""
        now = int(time.time())
        good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600}
        return {name: value for name, value in {**good, **claims}.items() if name != drop}

    def public_pem(self) -> bytes:
        """Return the public RSA key as it is published, which is what a confused verifier takes for a secret."""
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.rsa.public_key().public_bytes(serialization.Encoding.PEM, kind)


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any], signature: bytes = b"") -> str:
    """Return a token of parts, whatever they are."""
    return f"{coded(json.dumps(header).encode())}.{coded(json.dumps(claims).encode())}.{coded(signature)}"


def by_secret(header: Mapping[str, Any], claims: Mapping[str, Any], secret: bytes) -> str:
    """Return a token signed with HMAC, which our library would refuse to make with a public key."""
    signing = ".".join(unsigned(header, claims).split(".")[:2])
    made = hmac.HMAC(secret, hashes.SHA256())
    made.update(signing.encode())
    return f"{signing}.{coded(made.finalize())}"


def coded(raw: bytes) -> str:
    """Return base64 for URLs without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
