"""The policies of a server as one document: read from the state store, and handed to the workers."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from estiba.core.stores.disk import explained
from estiba.gateway import keys
from estiba.gateway.jwks import KeySet
from estiba.gateway.jwt import TokenPolicy
from estiba.gateway.key_snapshot import KeySnapshot
from estiba.gateway.keys import ApiKey
from estiba.gateway.options import (
    DEPLOYMENT_KEY,
    DEPLOYMENT_ROLES,
    BrowserOptions,
    CacheOptions,
    Gateway,
    LimitsOptions,
    LogOptions,
)
from estiba.state.database import Database, LazyDatabase
from estiba.state.store import open_state


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """The policies in force.

    Args:
        state: URL of the state store, where the log is.
        keys: that requests need one of; None where they need none.
        tokens: that are admitted beside keys; None for none.
        workers: of the server; 0 for one each processor.
    """

    state: str
    keys: tuple[ApiKey, ...] | None = None
    log: LogOptions = LogOptions()
    limits: LimitsOptions = LimitsOptions()
    browsers: BrowserOptions = BrowserOptions()
    tokens: TokenPolicy | None = None
    cache: CacheOptions = CacheOptions()
    workers: int = 0


class StoredPolicy:
    """Reads the policies from a state store, which is opened when it is first needed, and again after an error."""

    def __init__(self, gateway: Gateway) -> None:
        """Open nothing yet."""
        self._gateway = gateway
        self._lock = threading.Lock()
        self._database = LazyDatabase(self._open)
        self._generation = -1
        self._content = b""
        self._snapshot = KeySnapshot(gateway.state)
        self._issued: KeySet | None = None
        self._tokens: TokenPolicy | None = None
        if gateway.needs_keys and gateway.jwt.issuer:
            self._issued = KeySet(gateway.jwt)
            self._tokens = TokenPolicy(gateway.jwt)

    def attach(self, folder: Path) -> None:
        """Take the wishes of workers of a server with this folder."""
        if self._issued is not None:
            self._issued.attach(folder)

    def last(self) -> tuple[bytes, float]:
        """The policies with the keys that a server before this one read last, and their age in seconds; or nothing."""
        if not self._gateway.needs_keys or (found := self._snapshot.read()) is None:
            return b"", 0.0
        return self._encoded(found[0]), found[1]

    def read(self) -> bytes:
        """The policies as JSON; cheap where nothing has changed.

        Raises:
            EstibaError: the state store cannot be read.
        """
        with self._lock:
            if not self._gateway.needs_keys:
                return self._encoded(None)
            try:
                return self._read()
            except BaseException:
                self._database.close()
                raise

    def _read(self) -> bytes:
        if self._issued is not None:  # before the store, which a start from the last keys does without
            self._issued.poll()
            tokens = TokenPolicy(self._gateway.jwt, self._issued.keys, self._issued.error)
            if tokens != self._tokens:
                self._tokens, self._generation = tokens, -1
        database = self._database.get()
        generation = keys.generation(database)
        if generation != self._generation:
            known = [key for key in keys.listed(database) if key.state == "active"]
            self._content = self._encoded(known)
            self._generation = generation
            self._snapshot.write(known)
            database.checkpoint()
        self._snapshot.confirm()
        return self._content

    def _open(self) -> Database:
        """Open the store, of which all must be read then: it may be another one than before."""
        database = open_state(self._gateway.state)
        try:
            self._admit_deployment_key(database)
        except BaseException:
            database.close()
            raise
        self._generation = -1
        return database

    def _admit_deployment_key(self, database: Database) -> None:
        if self._gateway.key_file:
            file = Path(self._gateway.key_file)
            with explained("read", file):
                key = file.read_text().strip()
            keys.admit(database, DEPLOYMENT_KEY, DEPLOYMENT_ROLES, key)

    def _encoded(self, in_force: Iterable[ApiKey] | None) -> bytes:
        known = None if in_force is None else tuple(in_force)
        gateway = self._gateway
        parts = gateway.log, gateway.limits, gateway.browsers, self._tokens, gateway.cache, gateway.workers
        return msgspec.json.encode(Policy(gateway.state, known, *parts))
