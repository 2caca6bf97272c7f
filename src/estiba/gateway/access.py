"""Admit requests by their API key and its rights: which models it may ask, and what it may read."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import NamedTuple

from estiba.core.errors import BadRequest, Unavailable
from estiba.gateway import keys
from estiba.gateway.jwt import CALLER_PREFIX, Claims, Tokens
from estiba.gateway.keys import ApiKey
from estiba.gateway.policy import Policy
from estiba.serving.exchange import Exchange
from estiba.serving.http.request import Request
from estiba.serving.pipeline import Forbidden, Unauthorized

REALM = 'Bearer realm="estiba"'
INVALID = f'{REALM}, error="invalid_token"'
FEEDBACK = "/feedback"
"""Path of labels, for those who may predict."""

EXPLANATIONS = "/explain"
"""End of the path of explanations, which are predictions for those who may ask this model."""

DESCRIPTIONS = ("/models", "/v1/models", "/v2", "/openapi.json", "/docs")
"""Beginnings of the paths that describe models: those who may predict may read them."""

MEASURES = ("/route/history", "/drift", "/quality")
"""Ends of the paths of what became of models, and of who changed a route: for those who may read."""

CHANGES = (b"PUT", b"DELETE", b"PATCH")
"""Methods that change what is served."""


class _Holder(NamedTuple):
    """The holder of a key. `models` is empty for all; `expires` is infinite for never."""

    name: str
    admin: bool
    predict: bool
    read: bool
    models: frozenset[str]
    expires: float


class KeyAccess:
    """Admits the holders of keys. Health checks are never asked."""

    def __init__(self, policy: Policy, tokens: Tokens | None = None) -> None:
        """Admit the keys of a policy, and tokens that are valid."""
        self._tokens = tokens
        self._by_digest = {key.digest: _of_key(key) for key in policy.keys or ()}
        self._seen: dict[bytes, _Holder] = {}  # by header, so that a key is hashed once

    def __call__(self, exchange: Exchange) -> None:
        """Set the exchange's caller to the name of the key.

        Raises:
            Unauthorized: no key, or none that is valid. Forbidden: the key does not have the right.
            BadRequest: two keys that differ.
        """
        given = _given(exchange.request)
        holder = self._seen.get(given)
        if holder is None:
            holder = self._find(given)
        if holder.expires <= time.time():
            raise Unauthorized("This key has expired.", hint="Ask for a new one.", challenge=INVALID)
        exchange.caller = holder.name
        if exchange.route:
            _check_predict(holder, exchange.route)
        else:
            _check_management(holder, exchange.request.method, exchange.request.decoded_path)

    def _find(self, given: bytes) -> _Holder:
        if not given:
            hint = "Send one as Authorization: Bearer KEY, or as X-API-Key."
            raise Unauthorized("A key is missing.", hint=hint, challenge=REALM)
        if self._tokens is not None and b"." in given:
            return _of_token(self._tokens.find(given))
        if not keys.is_well_formed(given):
            hint = "It begins with est_ and has 53 characters: is it complete?"
            raise Unauthorized("This is no key of Estiba.", hint=hint, challenge=INVALID)
        holder = self._by_digest.get(keys.digest_of(given))
        if holder is None:
            hint = "It may be revoked, expired, or of another server."
            raise Unauthorized("This key is not valid here.", hint=hint, challenge=INVALID)
        self._seen[given] = holder
        return holder


def refuse_all(exchange: Exchange) -> None:
    """Refuse every request, as the keys were never read since the server started."""
    raise Unavailable("The keys of this server cannot be read yet.")


def _of_key(key: ApiKey) -> _Holder:
    return _holder(key.name, key.roles, frozenset(key.models), float("inf") if key.expires is None else key.expires)


def _of_token(claims: Claims) -> _Holder:
    """The holder of a token. One whose claim of models names none may ask none."""
    models = frozenset() if claims.models is None else claims.models or frozenset({""})
    return _holder(claims.name, claims.roles, models, claims.expires)


def _holder(name: str, roles: Collection[str], models: frozenset[str], expires: float) -> _Holder:
    admin = "admin" in roles
    return _Holder(
        name=name,
        admin=admin,
        predict=admin or "predict" in roles,
        read=admin or "read" in roles,
        models=models,
        expires=expires,
    )


def _check_predict(holder: _Holder, model: str) -> None:
    """Raise Forbidden unless the holder may ask that model."""
    if not holder.predict:
        raise _forbidden("predict", "This key may not ask models: it lacks the role predict.")
    if holder.models and model not in holder.models:
        raise _forbidden("predict", f"This key is not for the model {model!r}.")


def _check_management(holder: _Holder, method: bytes, path: str) -> None:
    """Raise Forbidden unless the holder may ask this of a decoded path that predicts nothing.

    Raises:
        BadRequest: the path has a control character; Starlette's patterns let a line end follow a path.
    """
    if any(character < " " or character == "\x7f" for character in path):
        raise BadRequest("The path has a control character.")
    if path == FEEDBACK:
        _check_feedback(holder)
    elif path.startswith("/models/") and path.endswith(EXPLANATIONS):
        _check_predict(holder, path.split("/")[2])
    elif path.startswith("/models/") and method in CHANGES:
        _check_change(holder, path.split("/")[2])
    elif not holder.read and not (holder.predict and _describes(path)):
        raise _forbidden("read", "This key may not read this: it lacks the role read.")


def _check_feedback(holder: _Holder) -> None:
    if not holder.predict:
        raise _forbidden("predict", "This key may not send labels: it lacks the role predict.")
    if holder.models and holder.name.startswith(CALLER_PREFIX):
        raise _forbidden("predict", "A token that is for some models only may not send labels: use a key.")


def _check_change(holder: _Holder, model: str) -> None:
    """Raise Forbidden unless the holder may change that model."""
    if not holder.admin:
        raise _forbidden("admin", "This key may not change what is served: it lacks the role admin.")
    if holder.models and model not in holder.models:
        raise _forbidden("admin", f"This key is not for the model {model!r}.")


def _describes(path: str) -> bool:
    """Tell if a path describes models, and names nobody."""
    return path == "/" or (path.startswith(DESCRIPTIONS) and not path.endswith(MEASURES))


def _given(request: Request) -> bytes:
    """The key that a request carries; empty if there is none.

    Raises:
        BadRequest: it carries two that differ. Unauthorized: another scheme than Bearer.
    """
    sent = b""
    for name, value in request.headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() != b"bearer":
                raise Unauthorized("Keys are sent as Authorization: Bearer KEY, or as X-API-Key.", challenge=REALM)
            key = key.strip()
        elif name == b"x-api-key":
            key = value
        else:
            continue
        if sent and key != sent:
            raise BadRequest("The request carries two keys that differ.", hint="Send one.")
        sent = key
    return sent


def _forbidden(scope: str, message: str) -> Forbidden:
    return Forbidden(message, challenge=f'{REALM}, error="insufficient_scope", scope="{scope}"')
