"""`[gateway]` of the project file."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from estiba.core.addresses import is_loopback
from estiba.core.errors import BadProject, EstibaError
from estiba.core.variables import CACHE_STORE, LIMITS_STORE
from estiba.model.registry.route_record import RouteOptions
from estiba.serving.options import ServerOptions

DEPLOYMENT_KEY = "deployment"
"""Name of the key that a deployment makes for its own services and its user, in a secret file."""

DEPLOYMENT_ROLES = ("predict", "read")


class LogOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[gateway.log]` of the project file: the log of predictions, in the state store.

    Args:
        enabled: keep input and output of every row that a model answers.
        sample: the share of requests that are kept, 0 to 1.
        redact: names of fields whose values are not kept.
        keep_days: days after which rows are removed.
    """

    enabled: bool = False
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    redact: tuple[str, ...] = ()
    keep_days: Annotated[float, Meta(gt=0)] = 30.0


class Limit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The limits of one key, or of one model. A field that is left out limits nothing.

    Args:
        rate: requests a second, over time.
        burst: requests that may arrive at once; by default those of one second.
        concurrent: requests that are answered at the same time.
        rows_per_day: rows of requests between midnight and midnight (UTC).
    """

    rate: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    burst: Annotated[int, Meta(ge=1, le=10**6)] | None = None
    concurrent: Annotated[int, Meta(ge=1, le=10**6)] | None = None
    rows_per_day: Annotated[int, Meta(ge=1, le=10**12)] | None = None

    @property
    def is_empty(self) -> bool:
        """True if it limits nothing."""
        return self.rate is None and self.concurrent is None and self.rows_per_day is None

    def over(self, default: Limit) -> Limit:
        """Return these limits, and those of `default` where this has none."""
        return Limit(
            rate=default.rate if self.rate is None else self.rate,
            burst=default.burst if self.rate is None and self.burst is None else self.burst,
            concurrent=default.concurrent if self.concurrent is None else self.concurrent,
            rows_per_day=default.rows_per_day if self.rows_per_day is None else self.rows_per_day,
        )


class LimitsOptions(Limit, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[gateway.limits]` of the project file: the limits of each key that has none of its own.

    Args:
        rate: requests a second, over time.
        burst: requests that may arrive at once; by default those of one second.
        concurrent: requests that are answered at the same time.
        rows_per_day: rows of requests between midnight and midnight (UTC).
        models: by name, the limits of a model for all callers together.
        headers: send the fields RateLimit and RateLimit-Policy with each answer.
        store: URL of a Redis or Valkey server, such as redis://HOST:6379/0, that counts over several servers; empty:
            each server counts alone. $ESTIBA_LIMITS_STORE overrides it.
        service: a Redis or Valkey service of the project, which counts for the model servers in containers.
        timeout: seconds after which an answer of that store is late.
        without_store: while it cannot be reached, `local`: each server counts alone, its share of the limits; `open`:
            nothing is limited; `closed`: requests with limits are refused.
    """

    models: dict[str, Limit] = {}
    headers: bool = True
    store: str = ""
    service: str = ""
    timeout: Annotated[float, Meta(gt=0, le=5)] = 0.05
    without_store: Literal["local", "open", "closed"] = "local"

    @property
    def for_keys(self) -> Limit:
        """The limits of each key that has none of its own."""
        return Limit(rate=self.rate, burst=self.burst, concurrent=self.concurrent, rows_per_day=self.rows_per_day)


MEMORY = "memory"


class CacheOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[gateway.cache]` of the project file: answers that are given again to equal rows.

    Args:
        enabled: keep answers.
        models: names of the models whose answers are kept; empty: all but those of the python engine, which may answer
            equal rows differently.
        ttl: seconds for which an answer is used.
        max_bytes: memory of a server for answers, which its workers share out among themselves.
        store: `memory`: each worker keeps its own; or the URL of a Redis or Valkey server, such as redis://HOST:6379/1,
            that several servers share. $ESTIBA_CACHE_STORE overrides it.
        service: a Redis or Valkey service of the project, which keeps answers for the model servers in containers.
        timeout: seconds after which an answer of that store is late, and the model computes.
    """

    enabled: bool = False
    models: tuple[str, ...] = ()
    ttl: Annotated[float, Meta(ge=0.001, le=31_536_000)] = 60.0
    max_bytes: Annotated[int, Meta(ge=4096)] = 64 * 1024 * 1024
    store: str = MEMORY
    service: str = ""
    timeout: Annotated[float, Meta(gt=0, le=5)] = 0.005


class BrowserOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[gateway.browsers]` of the project file: pages that may ask models from the browser (CORS).

    Args:
        origins: of those pages, such as `https://app.example.com`; other pages cannot read answers.
        max_age: seconds for which a browser may keep the permission.
    """

    origins: tuple[str, ...] = ()
    max_age: Annotated[int, Meta(ge=0, le=86_400)] = 600


Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # asymmetric only


class JwtOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[gateway.jwt]` of the project file: tokens of an OIDC issuer, where requests need keys.

    Args:
        issuer: URL of the issuer, exactly as tokens have it in `iss`; empty: no tokens are taken.
        audience: the name of this server, as tokens have it in `aud`.
        algorithms: of signatures.
        jwks_uri: URL of the issuer's keys; by default the one that its discovery document names.
        typ: that the header of a token must have; empty takes any.
        roles_claim: the claim with the caller's roles, such as `realm_access.roles`: a list, or texts between spaces.
        role_map: by value of that claim, the role predict, read or admin; by default the values are these roles.
        models_claim: the claim with the names of the models that the caller may ask; by default all.
        leeway: seconds by which clocks may differ.
    """

    issuer: str = ""
    audience: str = ""
    algorithms: tuple[Algorithm, ...] = ("RS256", "PS256", "ES256", "EdDSA")
    jwks_uri: str = ""
    typ: str = "at+jwt"
    roles_claim: str = "roles"
    role_map: dict[str, Literal["predict", "read", "admin"]] = {}
    models_claim: str = ""
    leeway: Annotated[float, Meta(ge=0, le=600)] = 60.0


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[gateway]` of the project file.

    Args:
        keys: `required`: every request but health checks needs an API key; `off`: none does; `auto`: they are required
            where other machines can reach the server, unless it is `insecure`.
        routes: by model, which version answers which share of its requests. Then this file decides, and `estiba route`
            does not.
    """

    keys: Literal["auto", "required", "off"] = "auto"
    log: LogOptions = LogOptions()
    limits: LimitsOptions = LimitsOptions()
    cache: CacheOptions = CacheOptions()
    browsers: BrowserOptions = BrowserOptions()
    jwt: JwtOptions = JwtOptions()
    routes: dict[str, RouteOptions] = {}


class StoreAddress(NamedTuple):
    """The parts of a URL such as redis://user:password@host:6379/0; rediss:// is encrypted."""

    host: str
    port: int
    encrypted: bool
    login: tuple[str, ...]
    database: int

    @classmethod
    def of(cls, url: str) -> StoreAddress:
        """Read a URL; raises ValueError."""
        parts = urlsplit(url)
        database = parts.path.strip("/") or "0"
        if parts.scheme not in ("redis", "rediss") or not parts.hostname or not database.isdigit():
            raise ValueError(url)
        login = tuple(unquote(each) for each in (parts.username, parts.password) if each)
        return cls(parts.hostname, parts.port or 6379, parts.scheme == "rediss", login, int(database))


class Gateway(msgspec.Struct, frozen=True):
    """The policies of one server, as its address and the project file decide them.

    Args:
        state: URL of the state store.
        needs_keys: requests need an API key.
        key_file: a file with a key that is admitted as DEPLOYMENT_KEY; empty for none.
        routes: of the project file, by model.
        workers: of the server; 0 for one each processor.
    """

    state: str = ""
    needs_keys: bool = False
    log: LogOptions = LogOptions()
    limits: LimitsOptions = LimitsOptions()
    key_file: str = ""
    browsers: BrowserOptions = BrowserOptions()
    routes: dict[str, RouteOptions] = {}
    jwt: JwtOptions = JwtOptions()
    cache: CacheOptions = CacheOptions()
    workers: int = 0

    @property
    def has_policies(self) -> bool:
        """True if a server asks any policy."""
        return (
            self.needs_keys
            or self.log.enabled
            or has_limits(self.limits)
            or self.cache.enabled
            or bool(self.browsers.origins)
        )


def has_limits(options: LimitsOptions) -> bool:
    """Return True if the project file limits anything."""
    return not options.is_empty or any(not limit.is_empty for limit in options.models.values())


def check_limits(options: LimitsOptions) -> None:
    """Raise BadProject for a burst without a rate, or a store that is none of Redis."""
    if options.store:
        check_store(options.store, "gateway.limits.store")
    if options.store and options.service:
        hint = "Keep one of them: a service of this project, or a server elsewhere."
        raise BadProject("gateway.limits: both store and service say what counts in containers.", hint=hint)
    sections = {"gateway.limits": options.for_keys}
    sections |= {f"gateway.limits.models.{name}": limit for name, limit in options.models.items()}
    for path, limit in sections.items():
        if limit.burst is not None and limit.rate is None:
            raise BadProject(f"{path}.burst: there is no rate.", hint=f"Add rate, requests a second, to [{path}].")


def check_cache(options: CacheOptions) -> None:
    """Raise BadProject for a store that is none."""
    if options.store != MEMORY:
        check_store(options.store, "gateway.cache.store")
        if options.service:
            hint = "Keep one of them: a service of this project, or a server elsewhere."
            raise BadProject("gateway.cache: both store and service say what keeps answers in containers.", hint=hint)


def check_store(url: str, where: str) -> None:
    """Raise BadProject for a URL that is none of Redis."""
    try:
        StoreAddress.of(url)
    except ValueError:
        raise BadProject(
            f"{where}: this is not the URL of a Redis server.",
            hint="Use redis://HOST:6379/0, or rediss:// for TLS; a user and a password go before the host, with @.",
        ) from None


def needs_keys(options: GatewayOptions, server: ServerOptions) -> bool:
    """Return True if requests to this server need a key.

    Raises:
        EstibaError: other machines could use the models without one, and `insecure` does not allow it.
    """
    if options.keys == "required":
        return True
    if server.unix or is_loopback(server.host) or server.insecure:
        return False
    if options.keys == "off":
        raise EstibaError(
            f"Serving on {server.host} without keys would let every machine that reaches it use the models.",
            hint='Leave out keys = "off" in [gateway], or pass --insecure (insecure = true in [server]).',
        )
    return True


def gateway_of(options: GatewayOptions, server: ServerOptions, state: str, key_file: str = "") -> Gateway:
    """The policies of a server; raises as `needs_keys` and `check_store`.

    Args:
        state: URL of the state store.
        key_file: a file with the key of the deployment; empty for none.
    """
    limits = options.limits
    if store := os.environ.get(LIMITS_STORE):
        check_store(store, f"${LIMITS_STORE}")
        limits = msgspec.structs.replace(limits, store=store)
    cache = options.cache
    if store := os.environ.get(CACHE_STORE):
        check_store(store, f"${CACHE_STORE}")
        cache = msgspec.structs.replace(cache, store=store)
    required, routes = needs_keys(options, server), options.routes
    edge = options.browsers, routes, options.jwt
    return Gateway(state, required, options.log, limits, key_file, *edge, cache, server.workers or 0)


def check_origins(options: BrowserOptions) -> None:
    """Raise BadProject for an origin that no browser sends: it sends scheme, host and a port that is not the usual."""
    for origin in options.origins:
        _check_origin(origin)


def _check_origin(origin: str) -> None:
    usual = {"http": ":80", "https": ":443"}
    scheme, _, rest = origin.partition("://")
    if not re.fullmatch(
        r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?", origin
    ) or rest.endswith(usual.get(scheme, "")):
        raise BadProject(
            f"gateway.browsers.origins: {origin!r} is no origin as browsers send it.",
            hint='Write scheme, host and an unusual port, in small letters and without a path: "https://app.example.com".',
        )
