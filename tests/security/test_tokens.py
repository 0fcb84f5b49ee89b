"""Tokens that are accepted and all that are not: one answer for every fault, the true one in the audit record."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from api.auth.base import MISSING, NOT_ACCEPTED
from tests.security.identity_provider import AUDIENCE, ISSUER, IdentityProvider, by_secret, unsigned
from tests.security.secured import OWNER, Secured, known, outcome, refused, token_of

Make = Callable[[IdentityProvider], str]


def now(seconds: float = 0) -> int:
    return int(time.time() + seconds)


@pytest.fixture(scope="module")
def provider() -> IdentityProvider:
    """An identity provider with keys of its own."""
    return IdentityProvider()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, provider: IdentityProvider) -> Iterator[Secured]:
    """A server that takes tokens of the provider, and of its file."""
    home = tmp_path_factory.mktemp("tokens")
    (home / "jwks.json").write_text(provider.jwks())
    users = [known("bob"), known("late", expires=1)]
    made = Secured(home, users, issuer=ISSUER, audience=AUDIENCE, jwks=str(home / "jwks.json"))
    project = made.owner.project()
    made.owner.bind(project, "VIEWER", "user:alice", "user:bob", "group:readers")
    yield made
    made.close()


def asks(secured: Secured, token: str) -> str:
    return outcome(lambda: secured.caller(token).list("Project"))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: p.token(),
        lambda p: p.token(kid="ec"),
        lambda p: p.token(kid="ed"),
        lambda p: p.token(aud=["other", AUDIENCE]),
        lambda p: p.token(headers={"typ": "at+jwt"}),
        lambda p: p.token(headers={"typ": "JWT"}),
        lambda p: p.token(exp=now(-1)),
        lambda p: p.token(exp=now(-55)),
        lambda p: p.token(nbf=now(55)),
        lambda p: p.token(iat=now(-11 * 3600)),
        lambda p: p.token(groups="not-a-list"),
        lambda p: p.token(groups=["a"] * 500),
    ],
)
def test_a_good_token_is_accepted(secured: Secured, provider: IdentityProvider, make: Make) -> None:
    assert [item.metadata.name for item in secured.caller(make(provider)).list("Project").items] != []


BAD: dict[str, tuple[Make, str]] = {
    "expired": (lambda p: p.token(exp=now(-61)), "Expired"),
    "not yet": (lambda p: p.token(nbf=now(120)), "Immature"),
    "of tomorrow": (lambda p: p.token(iat=now(3600)), "Immature"),
    "too old": (lambda p: p.token(iat=now(-12 * 3600 - 90), exp=now(600)), "12 hours"),
    "other audience": (lambda p: p.token(aud="other"), "Audience"),
    "no audience": (lambda p: p.token(drop="aud"), "aud"),
    "other issuer": (lambda p: p.token(iss="https://id.example.evil"), "issuer"),
    "no issuer": (lambda p: p.token(drop="iss"), "iss"),
    "no expiry": (lambda p: p.token(drop="exp"), "exp"),
    "no time of issue": (lambda p: p.token(drop="iat"), "iat"),
    "no subject": (lambda p: p.token(drop="sub"), "sub"),
    "endless": (lambda p: p.token(exp=float("inf")), "exp"),
    "empty subject": (lambda p: p.token(sub=""), "names no user"),
    "reserved subject": (lambda p: p.token(sub="system:platform"), "names no user"),
    "service by name": (lambda p: p.token(sub="service:trainer"), "names no user"),
    "number as subject": (lambda p: p.token(sub=7), "Subject"),
    "two lines": (lambda p: p.token(sub="alice\nroot"), "names no user"),
    "none": (lambda p: unsigned({"alg": "none", "typ": "JWT"}, p.claims()), "algorithm"),
    "None": (lambda p: unsigned({"alg": "nOnE", "kid": "rsa"}, p.claims()), "algorithm"),
    "no algorithm": (lambda p: unsigned({"kid": "rsa"}, p.claims()), "algorithm"),
    "public key as secret": (
        lambda p: by_secret({"alg": "HS256", "kid": "rsa"}, p.claims(), p.public_pem()),
        "algorithm",
    ),
    "secret beside its algorithm": (
        lambda p: by_secret({"alg": "RS256", "kid": "rsa"}, p.claims(), p.public_pem()),
        "Signature",
    ),
    "other algorithm of the key": (lambda p: p.token(kid="ec", headers={"kid": "rsa"}), "another algorithm"),
    "other key": (lambda p: IdentityProvider().token(), "Signature"),
    "own key in the header": (
        lambda p: IdentityProvider().token(headers={"jwk": {"kty": "oct", "k": "c2VjcmV0"}}),
        "Signature",
    ),
    "own key by URL": (
        lambda p: IdentityProvider().token(headers={"jku": "http://127.0.0.1:9/jwks", "kid": "rsa"}),
        "Signature",
    ),
    "unknown key": (lambda p: p.token(headers={"kid": "../../etc/passwd"}), "does not have"),
    "key by path": (lambda p: p.token(headers={"kid": "/dev/null"}), "does not have"),
    "key by SQL": (lambda p: p.token(headers={"kid": "rsa' OR '1'='1"}), "does not have"),
    "key by number": (lambda p: p.token(headers={"kid": "0"}), "does not have"),
    "no key": (lambda p: unsigned({"alg": "RS256"}, p.claims(), b"x" * 256), "does not have"),
    "critical header": (lambda p: p.token(headers={"crit": ["exp"], "exp": 1}), ""),
    "detached": (lambda p: unsigned({"alg": "RS256", "kid": "rsa", "b64": False, "crit": ["b64"]}, {}), ""),
    "log-out token": (lambda p: p.token(headers={"typ": "logout+jwt"}), "type"),
    "encrypted": (lambda p: p.token(headers={"typ": "JWE"}), "type"),
    "changed claims": (lambda p: _changed(p.token()), "Signature"),
    "cut signature": (lambda p: p.token()[:-8], ""),
    "no signature": (lambda p: p.token().rsplit(".", 1)[0] + ".", ""),
    "reserved group": (lambda p: p.token(groups=["readers", "system:masters"]), "only the platform"),
    "admins' group": (lambda p: p.token(groups=["System:admins"]), "only the platform"),
    "no base64": (lambda p: "!!!.???.###", ""),
    "no JSON": (lambda p: "YQ.YQ.YQ", ""),
    "dots alone": (lambda p: "..", ""),
    "unknown": (lambda p: "no-such-token", "no such token"),
    "expired in the file": (lambda p: token_of("late"), "expired"),
    "deep": (lambda p: unsigned({"alg": "RS256", "kid": "rsa"}, {}).replace("e30", "W1tb" * 4000), ""),
}


def _changed(token: str) -> str:
    header, claims, signature = token.split(".")
    return f"{header}.{claims[:-4]}{'AAAA' if claims[-4:] != 'AAAA' else 'BBBB'}.{signature}"


@pytest.mark.parametrize("case", BAD)
def test_a_bad_token_is_refused_in_one_text_and_the_audit_record_says_why(
    secured: Secured, provider: IdentityProvider, case: str
) -> None:
    make, why = BAD[case]
    before = len(secured.audit())
    told = refused(lambda: secured.caller(make(provider)).list("Project"))
    assert (told.code, told.reason, told.message) == ("UNAUTHENTICATED", "UNAUTHENTICATED", NOT_ACCEPTED)
    (record,) = secured.audit()[before:]
    assert (record.outcome, record.verb, record.kind, record.subject) == ("UNAUTHENTICATED", "List", "Project", "")
    assert why.lower() in record.reason.lower()
    assert "127.0.0.1" in record.reason
    assert record.request_id == told.request_id


@pytest.mark.parametrize("case", BAD)
def test_over_http_it_is_the_same_answer(secured: Secured, provider: IdentityProvider, case: str) -> None:
    sent = {"authorization": f"Bearer {BAD[case][0](provider)}"}
    told = secured.http.get("/apis/michelangelo.api/v2/projects", headers=sent)
    assert (told.status_code, told.json()["reason"], told.json()["message"]) == (401, "UNAUTHENTICATED", NOT_ACCEPTED)
    assert told.headers["www-authenticate"].startswith("Bearer")
    assert secured.audit()[-1].source == "http"


def test_over_http_a_good_token_is_accepted_and_a_name_is_borrowed_with_the_right_to_it(
    secured: Secured, provider: IdentityProvider
) -> None:
    """Rows 36, 38 and 42 over HTTP."""
    url = "/apis/michelangelo.api/v2/projects"
    for token in (provider.token(), token_of("bob"), provider.token(exp=now(-1))):
        told = secured.http.get(url, headers={"authorization": f"Bearer {token}"})
        assert told.status_code == 200
        assert len(told.json()["items"]) == 1
    many = provider.token(groups=["g"] * 5000)
    told = secured.http.get(url, headers={"authorization": f"Bearer {many}"})
    assert (told.status_code, told.json()["reason"]) in ((401, "CLAIMS_TOO_LARGE"), (431, "TOO_LARGE"))
    borrowed = {"authorization": f"Bearer {token_of('bob')}", "x-ma-impersonate-user": "alice"}
    assert secured.http.get(url, headers=borrowed).status_code == 403
    borrowed["authorization"] = f"Bearer {OWNER}"
    assert len(secured.http.get(url, headers=borrowed).json()["items"]) == 1


def test_the_positive_controls_fool_a_weak_verifier(provider: IdentityProvider) -> None:
    """What is refused above gets through where the algorithm is the token's to choose, or a part of it is the key."""
    claims = provider.claims(sub="mallory")

    def weak(token: str, key: bytes) -> Any:
        header, payload, _ = token.split(".")
        algorithm = json.loads(base64.urlsafe_b64decode(header + "=="))["alg"].lower()
        if algorithm == "none" or (algorithm == "hs256" and by_secret({"alg": "HS256"}, claims, key) == token):
            return json.loads(base64.urlsafe_b64decode(payload + "=="))["sub"]
        return None

    assert weak(unsigned({"alg": "none"}, claims), provider.public_pem()) == "mallory"
    assert weak(by_secret({"alg": "HS256"}, claims, provider.public_pem()), provider.public_pem()) == "mallory"
    cache = {provider.token(headers={"a": "x" * 100})[:20]: "alice"}
    assert cache.get(provider.token(sub="mallory", headers={"a": "x" * 100})[:20]) == "alice"


def test_five_thousand_groups_are_too_many(secured: Secured, provider: IdentityProvider) -> None:
    told = refused(lambda: secured.caller(provider.token(groups=["g"] * 5000)).list("Project"))
    assert (told.code, told.reason) == ("UNAUTHENTICATED", "CLAIMS_TOO_LARGE")


def test_groups_give_their_rights(secured: Secured, provider: IdentityProvider) -> None:
    assert secured.caller(provider.token(sub="carol", groups=["readers", "Readers ", 7])).list("Project").items
    assert not secured.caller(provider.token(sub="carol", groups=["reader", "readers2"])).list("Project").items


def test_a_token_of_a_megabyte_never_reaches_the_verifier(secured: Secured) -> None:
    assert asks(secured, "x" * 2**20) in ("RESOURCE_EXHAUSTED", "UNAUTHENTICATED")
    assert asks(secured, token_of("bob")) == "OK"


@pytest.mark.parametrize("length", [20, 100, 1000])
def test_tokens_that_begin_alike_are_two(secured: Secured, provider: IdentityProvider, length: int) -> None:
    """A cache by a part of the token would take the second for the first (CVE-2026-35030)."""
    headers = {"a": "x" * length}
    first, second = (provider.token(sub=sub, headers=headers) for sub in ("alice", "mallory"))
    assert first[:length] == second[:length]
    assert secured.caller(first).list("Project").items
    assert not secured.caller(second).list("Project").items
    forged = first[:-4] + ("AAAA" if first[-4:] != "AAAA" else "BBBB")
    assert asks(secured, forged) == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("metadata", "code", "message"),
    [
        ([], "UNAUTHENTICATED", MISSING),
        ([("authorization", "Bearer ")], "UNAUTHENTICATED", NOT_ACCEPTED),
        ([("authorization", "Bearer")], "UNAUTHENTICATED", NOT_ACCEPTED),
        ([("authorization", "")], "UNAUTHENTICATED", NOT_ACCEPTED),
        ([("authorization", f"Basic {token_of('bob')}")], "UNAUTHENTICATED", NOT_ACCEPTED),
        ([("authorization", token_of("bob"))], "UNAUTHENTICATED", NOT_ACCEPTED),
        ([("authorization", f"Bearer {token_of('bob')}, Bearer x")], "UNAUTHENTICATED", NOT_ACCEPTED),
        ([("x-authorization", f"Bearer {token_of('bob')}")], "UNAUTHENTICATED", MISSING),
        ([("authorization", f"Bearer {token_of('bob')}")] * 2, "INVALID_ARGUMENT", ""),
        ([("authorization", "Bearer x"), ("authorization", f"Bearer {token_of('bob')}")], "INVALID_ARGUMENT", ""),
    ],
)
def test_what_is_no_bearer_token_is_refused(secured: Secured, metadata: Any, code: str, message: str) -> None:
    told = refused(lambda: secured.nobody.call("Project", "List", more=metadata))
    assert told.code == code
    assert message in told.message
    assert told.reason == ("TWO_AUTHORIZATIONS" if code == "INVALID_ARGUMENT" else "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("word", "count"),
    [("Bearer", 1), ("bearer", 1), ("BEARER", 1), ("Bearer", 3)],
)
def test_the_scheme_is_read_as_http_reads_it(secured: Secured, word: str, count: int) -> None:
    sent = [("authorization", word + " " * count + token_of("bob"))]
    assert secured.nobody.call("Project", "List", more=sent) is not None


def test_a_revoked_token_is_refused_within_a_minute(secured: Secured, provider: IdentityProvider) -> None:
    """Row 37: of the file and of the provider; its holder gets no other chance."""
    by_id, by_user = provider.token(jti="lost"), provider.token(sub="dave", iat=now(-100))
    newer = provider.token(sub="dave", iat=now())
    for token in (token_of("bob"), by_id, by_user, newer):
        assert asks(secured, token) == "OK"
    began = time.monotonic()
    secured.write_tokens([known("late", expires=1)], [{"jti": "lost"}, {"user": "dave", "before": now(-50)}])
    for token in (token_of("bob"), by_id, by_user):
        while asks(secured, token) == "OK":
            assert time.monotonic() - began < 60
            time.sleep(0.1)
    assert time.monotonic() - began < 5
    assert asks(secured, newer) == "OK"
    secured.write_tokens([known("bob"), known("late", expires=1)])


def test_a_tokens_file_that_cannot_be_read_lets_nobody_in_by_it(secured: Secured, provider: IdentityProvider) -> None:
    kept = secured.tokens_file.read_bytes()
    secured.tokens_file.write_text("{")
    try:
        time.sleep(1.1)
        assert asks(secured, token_of("bob")) == "UNAUTHENTICATED"
        assert asks(secured, provider.token()) == "UNAUTHENTICATED"
        assert secured.owner.list("Project") is not None
    finally:
        secured.tokens_file.write_bytes(kept)
        time.sleep(1.1)
    assert asks(secured, token_of("bob")) == "OK"


def test_health_and_reflection_are_open_and_nothing_else_is(secured: Secured) -> None:
    health: Any = secured.nobody.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert health(b"", timeout=5) == b"\x08\x01"
    with pytest.raises(grpc.RpcError) as unknown:
        secured.nobody.raw("/michelangelo.api.v2.ProjectService/NoSuchMethod", b"")
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined,unused-ignore]
