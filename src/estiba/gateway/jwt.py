"""Verify the tokens of an OIDC issuer: JSON Web Tokens as RFC 8725 and RFC 9068 recommend.

The algorithms come from the project file, and the key from the issuer's own set; what a token says about where its key
is to be found is never followed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from estiba.core.errors import MissingExtra, Unavailable
from estiba.gateway.jwks import WANTED_FILE
from estiba.gateway.keys import ROLES
from estiba.gateway.options import JwtOptions
from estiba.serving.pipeline import Unauthorized

if TYPE_CHECKING:
    from jwt import PyJWK

CHALLENGE = 'Bearer realm="estiba", error="invalid_token"'

CALLER_PREFIX = "jwt:"
"""Beginning of the name of a token's caller. Names of keys have no colon, so none can be mistaken for the other."""

MAX_TOKEN_BYTES = 8192
MAX_SUBJECT_CHARACTERS = 200
MAX_CACHED = 10_000
CACHE_SECONDS = 60.0
"""Time for which a verified token is not verified again."""

WISH_SECONDS = 1.0
"""Least time between two wishes of a worker for a key that it does not know."""

_REFUSED = ("jku", "x5u", "jwk", "crit", "b64", "zip")
"""Header parameters that name a key, or an extension that this server does not know."""

_FITS = {
    **{f"{kind}{size}": ("RSA", "") for kind in ("RS", "PS") for size in (256, 384, 512)},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""By algorithm, the type of its keys and their curve."""


class TokenPolicy(msgspec.Struct, frozen=True):
    """The tokens in force.

    Args:
        keys: public keys of the issuer. error: why they may be old; empty if they are not.
    """

    options: JwtOptions
    keys: tuple[dict[str, str], ...] = ()
    error: str = ""


class Claims(NamedTuple):
    """The rights of a token. `models` is None for all; `expires` is in seconds since 1970, leeway included."""

    name: str
    roles: frozenset[str]
    models: frozenset[str] | None
    expires: float


class Tokens:
    """Verifies tokens, and remembers those that are valid."""

    def __init__(self, policy: TokenPolicy, folder: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        """Take the keys of the issuer; raises MissingExtra without PyJWT.

        Args:
            folder: of the server's processes, where the supervisor finds the wish for new keys.
        """
        try:
            import jwt
            import jwt.algorithms
        except ModuleNotFoundError:
            raise MissingExtra("PyJWT, which verifies tokens,", "jwt") from None
        if not jwt.algorithms.has_crypto:
            raise MissingExtra("cryptography, which verifies tokens,", "jwt")
        self._jwt = jwt
        self._options = policy.options
        self._clock = clock
        self._wanted = None if folder is None else folder / WANTED_FILE
        self._wished_at = float("-inf")
        self._keys = {key["kid"]: key for key in policy.keys}
        self._ready: dict[tuple[str, str], PyJWK] = {}
        self._verified: dict[bytes, tuple[float, Claims]] = {}

    def find(self, token: bytes) -> Claims:
        """The rights of a token.

        Raises:
            Unauthorized: it is not valid. Unavailable: the keys of the issuer were never read.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise _invalid(f"it is larger than {MAX_TOKEN_BYTES} bytes")
        digest = hashlib.sha256(token).digest()
        now = self._clock()
        known = self._verified.get(digest)
        if known is not None and now < known[0]:
            return known[1]
        claims = self._verify(token)
        if len(self._verified) >= MAX_CACHED:
            self._verified.clear()
        self._verified[digest] = (min(now + CACHE_SECONDS, claims.expires), claims)
        return claims

    def _verify(self, token: bytes) -> Claims:
        if not self._keys:
            raise Unavailable("The keys of the issuer of tokens cannot be read yet.")
        jwt, options = self._jwt, self._options
        try:
            key, algorithm = self._key(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=options.audience,
                issuer=options.issuer,
                leeway=options.leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise _invalid("it has expired") from None
        except jwt.ImmatureSignatureError:
            raise _invalid("it is not valid yet") from None
        except jwt.InvalidAudienceError:
            raise _invalid("it is for another service") from None
        except jwt.InvalidIssuerError:
            raise _invalid("it is of another issuer") from None
        except jwt.MissingRequiredClaimError as error:
            raise _invalid(f"it has no {error.claim}") from None
        except jwt.PyJWTError:
            raise _invalid("it is no token of the issuer, or was changed") from None
        return self._rights(claims)

    def _key(self, header: Mapping[str, Any]) -> tuple[PyJWK, str]:
        """The key and the algorithm of a token; raises Unauthorized."""
        options, algorithm, kid = self._options, header.get("alg"), header.get("kid")
        for name in _REFUSED:
            if name in header:
                raise _invalid(f"its header has {name}")
        kind = str(header.get("typ", "")).lower().removeprefix("application/")
        if options.typ and kind != options.typ.lower():
            raise _invalid(f"its typ is not {options.typ}")
        if algorithm not in options.algorithms:
            raise _invalid("its algorithm is not allowed here")
        if not isinstance(kid, str) or kid not in self._keys:
            self._wish()
            raise _invalid("its key is not one of the issuer's")
        key = self._keys[kid]
        kty, curve = _FITS[algorithm]
        if key["kty"] != kty or key.get("crv", "") != curve or key.get("alg", algorithm) != algorithm:
            raise _invalid("its algorithm does not belong to its key")
        ready = self._ready.get((kid, algorithm))
        if ready is None:
            ready = self._ready[kid, algorithm] = self._jwt.PyJWK.from_dict(dict(key), algorithm)
        return ready, algorithm

    def _wish(self) -> None:
        """Ask the supervisor for the keys of the issuer, which limits how often it fetches them."""
        now = self._clock()
        if self._wanted is not None and now >= self._wished_at + WISH_SECONDS:
            self._wished_at = now
            try:
                self._wanted.touch()
            except OSError:  # a full disk: the next refresh brings the key
                return

    def _rights(self, claims: Mapping[str, Any]) -> Claims:
        options, subject = self._options, claims["sub"]
        if not (isinstance(subject, str) and subject.isprintable() and 0 < len(subject) <= MAX_SUBJECT_CHARACTERS):
            raise _invalid("its sub is no name")
        given = _texts(_claim(claims, options.roles_claim))
        mapping = options.role_map
        roles = {mapping[each] for each in given if each in mapping} if mapping else {*given} & {*ROLES}
        models = frozenset(_texts(_claim(claims, options.models_claim))) if options.models_claim else None
        return Claims(CALLER_PREFIX + subject, frozenset(roles), models, float(claims["exp"]) + options.leeway)


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a path such as realm_access.roles."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _texts(value: Any) -> Iterable[str]:
    """A list of texts, or texts between spaces as `scope` has them."""
    if isinstance(value, str):
        return value.split()
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _invalid(reason: str) -> Unauthorized:
    return Unauthorized(
        f"This token is not valid here: {reason}.", hint="Ask its issuer for another.", challenge=CHALLENGE
    )
