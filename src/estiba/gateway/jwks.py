"""Fetch the public keys of an OIDC issuer: OpenID Connect Discovery 1.0 and JSON Web Key Sets (RFC 7517).

Keys are fetched by the supervisor, in a thread of their own, so that an issuer that is slow or down delays nothing.
Keys that were fetched once stay in force until a later fetch succeeds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from estiba.core.addresses import is_loopback
from estiba.core.errors import BadProject, EstibaError
from estiba.core.log import Log
from estiba.gateway.options import JwtOptions

REFRESH_SECONDS = 300.0
"""Interval of fetches while nothing asks for a new key."""

RETRY_SECONDS = 10.0
"""Least time between two fetches, whatever tokens ask for."""

FETCH_TIMEOUT_SECONDS = 5.0
START_WAIT_SECONDS = 3.0
"""Time for which a server that starts waits for the first keys."""

MAX_DOCUMENT_BYTES = 256 * 1024
MAX_KEYS = 64
MAX_KID_CHARACTERS = 256
MIN_RSA_DIGITS = 342
"""Base64 characters of a modulus of 2048 bits."""

WANTED_FILE = "jwks.wanted"
"""File in the folder of the server's processes by which a worker asks for keys that it does not know."""

_MEMBERS = frozenset({"kty", "kid", "alg", "use", "n", "e", "crv", "x", "y"})
"""Members of public keys; no others are passed on."""


class KeySet:
    """The public keys of an issuer.

    Attributes:
        keys: as JSON objects, each with its `kid`.
        error: why the last fetch failed; empty if it did not.
    """

    def __init__(self, options: JwtOptions, clock: Callable[[], float] = time.monotonic) -> None:
        """Fetch nothing yet."""
        self._options = options
        self._clock = clock
        self._log = Log()
        self._wanted: Path | None = None
        self._began_at = float("-inf")
        self._thread: threading.Thread | None = None
        self.keys: tuple[dict[str, str], ...] = ()
        self.error = ""

    def attach(self, folder: Path) -> None:
        """Take the wishes of the workers of a server with this folder."""
        self._wanted = folder / WANTED_FILE

    def poll(self) -> None:
        """Begin a fetch where one is due. Waits for a moment for the first keys only."""
        now = self._clock()
        if self._thread is not None and self._thread.is_alive():
            return
        interval = RETRY_SECONDS if self.error or not self.keys or self._is_wanted() else REFRESH_SECONDS
        if now < self._began_at + interval:
            return
        first = self._began_at == float("-inf")
        self._began_at = now
        if self._wanted is not None:
            self._wanted.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._refresh, name="jwks", daemon=True)
        self._thread.start()
        if first:
            self._thread.join(START_WAIT_SECONDS)

    def _is_wanted(self) -> bool:
        return self._wanted is not None and self._wanted.exists()

    def _refresh(self) -> None:
        try:
            self.keys = fetch(self._options)
        except Exception as error:
            reason = error.message if isinstance(error, EstibaError) else f"{type(error).__name__}: {error}"
            if reason != self.error:
                self._log.warning("the keys of the issuer cannot be read; those before stay in force", reason=reason)
            self.error = reason
        else:
            if self.error:
                self._log.info("the keys of the issuer can be read again")
            self.error = ""


def fetch(options: JwtOptions) -> tuple[dict[str, str], ...]:
    """The public keys of the issuer; raises EstibaError where they cannot be read."""
    address = options.jwks_uri
    if not address:
        url = options.issuer.rstrip("/") + "/.well-known/openid-configuration"
        document = _get(url)
        if document.get("issuer") != options.issuer:
            raise EstibaError(f"{url} is of the issuer {document.get('issuer')!r}, not of {options.issuer!r}.")
        address = str(document.get("jwks_uri", ""))
        if not is_safe(address):
            raise EstibaError(f"{url} names no jwks_uri with https.")
    entries = _get(address).get("keys")
    keys = [_public(entry) for entry in entries] if isinstance(entries, list) else []
    usable = tuple(key for key in keys if key)[:MAX_KEYS]
    if not usable:
        raise EstibaError(f"{address} has no public key that signatures can be checked with.")
    return usable


def is_safe(url: str) -> bool:
    """Return True for https, and for http on this machine."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    )


def check_jwt(options: JwtOptions) -> None:
    """Raise BadProject for `[gateway.jwt]` that cannot be, or that is not safe."""
    given = options != JwtOptions()
    if given and not options.issuer:
        raise BadProject("gateway.jwt.issuer: this key is missing.", hint='Write it as tokens have it in "iss".')
    if options.issuer and not options.audience:
        hint = 'Name what tokens for this server have in "aud": tokens for other services are not for this one.'
        raise BadProject("gateway.jwt.audience: this key is missing.", hint=hint)
    for name in ("issuer", "jwks_uri"):
        url = getattr(options, name)
        if url and not is_safe(url):
            hint = "Only an issuer on this machine, such as http://127.0.0.1:8080, may do without."
            raise BadProject(f"gateway.jwt.{name}: {url!r} is no URL with https.", hint=hint)


def _get(url: str) -> dict[str, Any]:
    """A JSON object at a URL, without following redirects; raises EstibaError."""
    import urllib3

    try:
        with urllib3.PoolManager(retries=False, timeout=FETCH_TIMEOUT_SECONDS) as pool:
            answer = pool.request("GET", url, redirect=False, preload_content=False)
            content = answer.read(MAX_DOCUMENT_BYTES + 1, decode_content=False)
            answer.close()
    except urllib3.exceptions.HTTPError as error:
        raise EstibaError(f"{url} cannot be reached: {error}.") from None
    if answer.status != 200:
        raise EstibaError(f"{url} answered {answer.status}.")
    if len(content) > MAX_DOCUMENT_BYTES:
        raise EstibaError(f"{url} is larger than {MAX_DOCUMENT_BYTES} bytes.")
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise EstibaError(f"{url} is no JSON object.") from None


def _public(entry: Any) -> dict[str, str]:
    """The public members of a key for signatures; empty for any other."""
    if not isinstance(entry, dict):
        return {}
    key = {name: value for name, value in entry.items() if name in _MEMBERS and isinstance(value, str)}
    weak = key.get("kty") == "RSA" and len(key.get("n", "")) < MIN_RSA_DIGITS
    asymmetric = key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
    return key if asymmetric and not weak and 0 < len(key.get("kid", "")) <= MAX_KID_CHARACTERS else {}
