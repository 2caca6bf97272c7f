"""Tokens of a real issuer are verified as RFC 8725 asks, also while the issuer is down."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from issuer import AUDIENCE, Issuer, raw
from toys import Live

from estiba.core.errors import BadProject, EstibaError
from estiba.gateway import jwks
from estiba.gateway.jwks import KeySet, check_jwt
from estiba.gateway.jwt import TokenPolicy, Tokens
from estiba.gateway.key_snapshot import KeySnapshot
from estiba.gateway.options import Gateway, JwtOptions
from estiba.gateway.policy import Policy, StoredPolicy
from estiba.serving.pipeline import Unauthorized

BODY = {"records": [{"x": 1.0}]}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    signing = Issuer()
    yield signing
    signing.close()


def options(issuer: Issuer, **changes: Any) -> JwtOptions:
    return JwtOptions(**{"issuer": issuer.url, "audience": AUDIENCE, **changes})


@pytest.fixture(scope="module")
def tokens(issuer: Issuer) -> Tokens:
    return verifier(issuer)


def verifier(issuer: Issuer, **changes: Any) -> Tokens:
    return Tokens(TokenPolicy(options(issuer, **changes), jwks.fetch(options(issuer))))


@pytest.mark.parametrize("key", ["rsa", "ec", "ed"])
def test_a_token_of_each_kind_of_key_is_verified(issuer: Issuer, tokens: Tokens, key: str) -> None:
    claims = tokens.find(issuer.token(key).encode())
    assert (claims.name, claims.roles, claims.models) == ("jwt:ada", {"predict"}, None)


Make = Callable[[Issuer], str]


def _none(issuer: Issuer) -> str:
    return raw({"alg": "none", "typ": "at+jwt", "kid": "rsa"}, issuer.claims())


def _hmac_with_the_public_key(issuer: Issuer) -> str:
    public = issuer.private["rsa"].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    unsigned = raw({"alg": "HS256", "typ": "at+jwt", "kid": "rsa"}, issuer.claims()).rpartition(".")[0]
    signature = hmac.new(pem, unsigned.encode(), hashlib.sha256).digest()
    return unsigned + "." + raw({}, {}, signature).rpartition(".")[2]


def _changed(issuer: Issuer) -> str:
    head, _, signature = issuer.token().split(".")
    return f"{head}.{raw({}, issuer.claims(sub='root')).split('.')[1]}.{signature}"


def _of_another_key(issuer: Issuer) -> str:
    return issuer.token("ed", header={"kid": "rsa"})


NOW = int(time.time())

ATTACKS: dict[str, tuple[Make, str]] = {
    "alg none": (_none, "algorithm"),
    "alg None": (lambda i: raw({"alg": "None", "typ": "at+jwt", "kid": "rsa"}, i.claims()), "algorithm"),
    "no alg": (lambda i: raw({"typ": "at+jwt", "kid": "rsa"}, i.claims()), "valid here"),
    "HS256 with the public key": (_hmac_with_the_public_key, "algorithm"),
    "changed claims": (_changed, "was changed"),
    "the key of another algorithm": (_of_another_key, "does not belong to its key"),
    "wrong aud": (lambda i: i.token(aud="https://other.example.com"), "another service"),
    "no aud": (lambda i: i.token(aud=None), "has no aud"),
    "wrong iss": (lambda i: i.token(iss="https://evil.example.com"), "another issuer"),
    "issuer with a slash": (lambda i: i.token(iss=i.url + "/"), "another issuer"),
    "expired": (lambda i: i.token(exp=NOW - 120), "expired"),
    "no exp": (lambda i: i.token(exp=None), "has no exp"),
    "nbf": (lambda i: i.token(nbf=NOW + 3000), "not valid yet"),
    "no sub": (lambda i: i.token(sub=None), "has no sub"),
    "sub with a line break": (lambda i: i.token(sub="ada\nroot"), "no name"),
    "unknown kid": (lambda i: i.token(header={"kid": "other"}), "not one of the issuer's"),
    "kid that is a path": (lambda i: i.token(header={"kid": "../../etc/passwd"}), "not one of the issuer's"),
    "kid that is SQL": (lambda i: i.token(header={"kid": "' OR 1=1 --"}), "not one of the issuer's"),
    "crit": (lambda i: i.token(header={"crit": ["exp"]}), "valid here"),
    "jku": (lambda i: i.token(header={"jku": "https://evil.example.com/keys"}), "jku"),
    "x5u": (lambda i: i.token(header={"x5u": "https://evil.example.com/cert"}), "x5u"),
    "jwk": (lambda i: i.token(header={"jwk": i.public("ed")}), "jwk"),
    "an id token": (lambda i: i.token(header={"typ": "JWT"}), "typ"),
    "too large": (lambda i: i.token(more="a" * 9000), "larger than"),
    "five parts": (lambda i: i.token() + ".a.b", "valid here"),
    "no JSON": (lambda i: "a.b.c", "valid here"),
    "a list as header": (lambda i: "W10.e30.", "valid here"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_rfc_8725_warns_of_is_refused(issuer: Issuer, tokens: Tokens, attack: str) -> None:
    make, reason = ATTACKS[attack]
    with pytest.raises(Unauthorized, match=reason) as refused:
        tokens.find(make(issuer).encode())
    assert 'error="invalid_token"' in refused.value.challenge


def test_leeway_role_map_and_claims_by_path(issuer: Issuer) -> None:
    strict = verifier(issuer)
    assert strict.find(issuer.token(exp=int(time.time()) - 30).encode()).name == "jwt:ada"
    mapped = verifier(
        issuer, roles_claim="realm_access.roles", role_map={"scorers": "predict", "ops": "admin"}, models_claim="models"
    )
    token = issuer.token(realm_access={"roles": ["scorers", "predict", "read"]}, models=["price"])
    claims = mapped.find(token.encode())
    assert (claims.roles, claims.models) == ({"predict"}, {"price"})
    assert mapped.find(issuer.token().encode()).models == frozenset()  # asked for, and not there: none
    assert verifier(issuer, roles_claim="scope").find(issuer.token(scope="read predict x").encode()).roles == {
        "read",
        "predict",
    }


def test_a_verified_token_is_remembered_for_a_minute_and_never_beyond_its_end(issuer: Issuer) -> None:
    clock = [time.time()]
    policy = TokenPolicy(options(issuer, leeway=0), jwks.fetch(options(issuer)))
    tokens = Tokens(policy, clock=lambda: clock[0])
    token = issuer.token(exp=int(clock[0]) + 5).encode()
    assert tokens.find(token) is tokens.find(token)
    (until,) = [until for until, _ in tokens._verified.values()]
    assert until == int(clock[0]) + 5
    long = tokens.find(issuer.token().encode())
    clock[0] += 61
    assert tokens.find(issuer.token().encode()) is not long


def test_ten_thousand_unknown_keys_cause_one_fetch_in_ten_seconds(issuer: Issuer, tmp_path: Path) -> None:
    clock = [1000.0]
    keys = KeySet(options(issuer), clock=lambda: clock[0])
    keys.attach(tmp_path)
    keys.poll()
    before = issuer.fetches
    tokens = Tokens(TokenPolicy(options(issuer), keys.keys), tmp_path)
    token = issuer.token(header={"kid": "PLACEHOLDER"})
    for number in range(10_000):
        with pytest.raises(Unauthorized):
            tokens.find(raw({"alg": "RS256", "typ": "at+jwt", "kid": f"k{number}"}, {}).encode())
        clock[0] += 0.0009  # nine seconds together
        keys.poll()
    assert issuer.fetches == before
    clock[0] += 1.1
    keys.poll()
    assert keys._thread is not None
    keys._thread.join()
    assert issuer.fetches == before + 1
    assert token


def test_keys_stay_while_the_issuer_is_down(issuer: Issuer, tmp_path: Path) -> None:
    clock = [0.0]
    keys = KeySet(options(issuer), clock=lambda: clock[0])
    keys.poll()
    known = keys.keys
    assert {key["kid"] for key in known} == {"rsa", "ec", "ed"}
    issuer.down = True
    try:
        for _ in range(60):  # an hour
            clock[0] += 60
            keys.poll()
            assert keys._thread is not None
            keys._thread.join()
        assert keys.error
        assert keys.keys == known
        assert Tokens(TokenPolicy(options(issuer), keys.keys)).find(issuer.token().encode()).name == "jwt:ada"
    finally:
        issuer.down = False
    clock[0] += 11
    keys.poll()
    keys._thread.join()
    assert keys.error == ""


def test_keys_of_the_issuer_are_known_while_the_state_store_is_down(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    url = "postgresql://127.0.0.1:1/none"
    KeySnapshot(url).write([])
    stored = StoredPolicy(Gateway(state=url, needs_keys=True, jwt=options(issuer)))
    with pytest.raises(EstibaError):
        stored.read()
    policy = msgspec.json.decode(stored.last()[0], type=Policy)
    assert policy.tokens is not None
    assert Tokens(policy.tokens).find(issuer.token().encode()).name == "jwt:ada"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"issuer": "https://evil.example.com"}, "is of the issuer"),
        ({"jwks_uri": "http://evil.example.com/keys"}, "no jwks_uri with https"),
        ({"jwks_uri": "file:///etc/passwd"}, "no jwks_uri with https"),
        ({"padding": "a" * 300_000}, "larger than"),
    ],
)
def test_a_discovery_document_that_is_not_the_issuer_s_is_refused(
    issuer: Issuer, changes: dict[str, str], message: str
) -> None:
    issuer.changes = changes
    try:
        with pytest.raises(EstibaError, match=message):
            jwks.fetch(options(issuer))
    finally:
        issuer.changes = {}


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"issuer": "http://login.example.com", "audience": "a"}, "issuer"),
        ({"issuer": "https://login.example.com"}, "audience"),
        ({"audience": "a"}, "issuer"),
        ({"issuer": "https://a.example", "audience": "a", "jwks_uri": "ftp://a.example"}, "jwks_uri"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, str], key: str) -> None:
    with pytest.raises(BadProject, match=rf"gateway\.jwt\.{key}"):
        check_jwt(JwtOptions(**given))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def live(issuer: Issuer, start_server: Callable[..., Live], tmp_path_factory: pytest.TempPathFactory) -> Live:
    gateway = {
        "state": f"sqlite:///{tmp_path_factory.mktemp('state')}/state.db",
        "needs_keys": True,
        "jwt": {"issuer": issuer.url, "audience": AUDIENCE, "models_claim": "models"},
        "limits": {"rate": 0.001, "burst": 3},
    }
    return start_server("churn", "price", default="price", gateway=gateway)


def ask(live: Live, token: str, model: str = "price", **headers: str) -> httpx.Response:
    given = {"authorization": f"Bearer {token}", **headers}
    return httpx.post(f"{live.url}/models/{model}/predict", json=BODY, headers=given)


@pytest.mark.slow
def test_a_server_admits_tokens_by_their_rights(issuer: Issuer, live: Live) -> None:
    assert ask(live, issuer.token(sub="eve", models=["price"])).status_code == 200
    other = ask(live, issuer.token(sub="eve", models=["churn"]))
    assert (other.status_code, "price" in other.json()["detail"]) == (403, True)
    assert ask(live, issuer.token(sub="eve")).status_code == 403  # its claim of models is missing
    reader = ask(live, issuer.token(sub="eve", models=["price"], roles=["read"]))
    assert (reader.status_code, "role predict" in reader.json()["detail"]) == (403, True)
    assert 'error="insufficient_scope"' in reader.headers["www-authenticate"]
    bad = ask(live, issuer.token(sub="eve", exp=1))
    assert (bad.status_code, 'error="invalid_token"' in bad.headers["www-authenticate"]) == (401, True)
    two = ask(live, issuer.token(models=["price"]), **{"x-api-key": issuer.token(sub="bob")})
    assert two.status_code == 400
    assert ask(live, _none(issuer)).status_code == 401


@pytest.mark.slow
def test_limits_count_by_subject(issuer: Issuer, live: Live) -> None:
    def statuses(subject: str) -> list[int]:
        return [ask(live, issuer.token(sub=subject, models=["price"])).status_code for _ in range(4)]

    assert statuses("carol") == [200, 200, 200, 429]
    assert statuses("dave") == [200, 200, 200, 429]
    refused = ask(live, issuer.token(sub="carol", models=["price"]))
    assert "jwt:carol" in refused.json()["detail"]
