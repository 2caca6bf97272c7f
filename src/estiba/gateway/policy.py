"""The policies of a server as one document: read from the state store, and handed to the workers."""

from __future__ import annotations

import threading
import time

import msgspec

from estiba.gateway import keys
from estiba.gateway.log_retention import LogKeeper
from estiba.gateway.options import Gateway
from estiba.gateway.prediction_log import LogSettings
from estiba.state.database import Database
from estiba.state.store import open_state


class KeyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key that is in force, without the key itself.

    Args:
        digest: SHA-256 of it, in hexadecimal digits.
        models: those that it may ask; empty for all.
        expires: in seconds since 1970; 0 for never.
    """

    digest: str
    name: str
    roles: tuple[str, ...]
    models: tuple[str, ...] = ()
    expires: int = 0


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """The policies in force.

    Args:
        keys: that requests need one of; None where they need none.
        log: the log of predictions; None where there is none.
    """

    keys: tuple[KeyRecord, ...] | None = None
    log: LogSettings | None = None


class StoredPolicy:
    """Reads the policies from a state store, which is opened when it is first needed, and again after an error."""

    def __init__(self, gateway: Gateway) -> None:
        """Open nothing yet."""
        self._gateway = gateway
        log = gateway.log
        self._log = LogSettings(gateway.state, log.sample, log.redact) if log.enabled else None
        self._keeper = LogKeeper(gateway.state, log.keep_days) if log.enabled else None
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._generation = -1
        self._content = b""

    def read(self) -> bytes:
        """The policies as JSON; cheap where nothing has changed.

        Raises:
            EstibaError: the state store cannot be read.
        """
        with self._lock:
            if self._keeper is not None:
                self._keeper.tick()
            if not self._gateway.needs_keys:
                return msgspec.json.encode(Policy(log=self._log))
            try:
                return self._read()
            except BaseException:
                if self._database is not None:
                    self._database.close()
                self._database = None
                raise

    def _read(self) -> bytes:
        if self._database is not None and self._database.is_replaced():
            self._database.close()
            self._database, self._generation = None, -1
        if self._database is None:
            self._database = open_state(self._gateway.state)
        generation = keys.generation(self._database)
        if generation != self._generation:
            self._content = msgspec.json.encode(Policy(_in_force(self._database), self._log))
            self._generation = generation
            self._database.checkpoint()
        return self._content


def _in_force(database: Database) -> tuple[KeyRecord, ...]:
    now = time.time()
    return tuple(
        KeyRecord(key.digest.hex(), key.name, key.roles, key.models, key.expires or 0)
        for key in keys.listed(database)
        if key.revoked is None and (key.expires is None or key.expires > now)
    )
