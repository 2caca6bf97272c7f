"""Make, list and revoke API keys. The state store holds only their hashes.

A key is `est_`, 43 base62 characters (256 random bits) and 6 of a CRC-32 checksum, so that scanners for leaked secrets
find it, and a key that was cut short is recognised. As nobody can guess 256 bits, a fast hash (SHA-256) protects it as
well as a slow one would.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import msgspec

from estiba.core.errors import Conflict, EstibaError, NotFound
from estiba.core.suggest import did_you_mean
from estiba.gateway.options import Limit
from estiba.model.registry.records import check_name
from estiba.state.database import Database, Row, Transaction

Role = Literal["predict", "read", "admin"]
ROLES: tuple[str, ...] = get_args(Role)

PREFIX = "est_"
_COLUMNS = "hash, name, roles, models, created, expires, revoked, limits"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH, _CHECKSUM_LENGTH = 43, 6
_FORM = re.compile(rb"est_[0-9A-Za-z]{49}")


class ApiKey(NamedTuple):
    """A key as the state store knows it, and as workers get it.

    Args:
        digest: SHA-256 of the key.
        models: those that it may ask; empty for all.
        created, expires, revoked: in seconds since 1970; None for never.
        limits: its own, which come before those of the project file.
    """

    digest: bytes
    name: str
    roles: tuple[str, ...]
    models: tuple[str, ...]
    created: int
    expires: int | None
    revoked: int | None
    limits: Limit = Limit()

    @property
    def state(self) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= time.time() else "active"


class KeyRequest(NamedTuple):
    """The properties of a key to make.

    Args:
        models: those that it may ask; empty for all.
        lifetime: seconds until it expires; None for never.
        limits: its own, which come before those of the project file.
    """

    name: str
    roles: Sequence[str] = ("predict",)
    models: Sequence[str] = ()
    lifetime: float | None = None
    limits: Limit = Limit()


def digest_of(key: bytes) -> bytes:
    """The hash under which a key is kept."""
    return hashlib.sha256(key).digest()


def is_well_formed(key: bytes) -> bool:
    """Return True if it has the form of a key, and the checksum that belongs to it."""
    return _FORM.fullmatch(key) is not None and key[-_CHECKSUM_LENGTH:] == _checksum(key[:-_CHECKSUM_LENGTH])


def generate() -> str:
    """Return a new key, which no store knows yet."""
    body = PREFIX + _base62(secrets.randbits(256), _SECRET_LENGTH)
    return body + _checksum(body.encode()).decode()


def create(database: Database, request: KeyRequest) -> tuple[str, ApiKey]:
    """Make a key. It is returned once and can never be read again.

    Raises:
        EstibaError: a name, role or limit is invalid. Conflict: a key of that name exists and is not revoked.
    """
    check_name(request.name)
    check_limit(request.limits)
    for role in request.roles:
        if role not in ROLES:
            hint = f"Roles: {', '.join(ROLES)}."
            raise EstibaError(f"There is no role {role!r}{did_you_mean(role, ROLES)}", hint=hint)
    secret = generate()
    now = int(time.time())
    expires = None if request.lifetime is None else now + int(request.lifetime)
    rights = tuple(request.roles), tuple(request.models)
    key = ApiKey(digest_of(secret.encode()), request.name, *rights, now, expires, None, request.limits)
    with database.transaction() as writing:
        if _live(writing, request.name):
            hint = f"Choose another name, or revoke it first: estiba keys revoke {request.name}"
            raise Conflict(f"There is a key {request.name!r} already.", hint=hint)
        roles, models = (msgspec.json.encode(each).decode() for each in (key.roles, key.models))
        row = (key.digest, key.name, roles, models, now, expires, None, _encoded(key.limits))
        writing.execute(f"INSERT INTO api_key ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        _changed(writing)
    return secret, key


def admit(database: Database, name: str, roles: Sequence[str], secret: str) -> None:
    """Admit a key that was made elsewhere, such as in the secret file of a deployment. An older one of that name ends.

    Nothing changes where the store knows the key: one that was revoked stays so.

    Raises:
        EstibaError: it has not the form of a key.
    """
    if not is_well_formed(secret.encode()):
        raise EstibaError(f"The key {name!r} does not have the form of a key: is its file complete?")
    digest, now = digest_of(secret.encode()), int(time.time())
    with database.transaction() as writing:
        writing.lock_migrations()  # replicas that start together admit the same key
        if writing.execute("SELECT 1 FROM api_key WHERE hash = ?", [digest]):
            return
        writing.execute("UPDATE api_key SET revoked = ? WHERE name = ? AND revoked IS NULL", [now, name])
        rights = msgspec.json.encode(tuple(roles)).decode()
        row = (digest, name, rights, "[]", now, None, None, _encoded(Limit()))
        writing.execute(f"INSERT INTO api_key ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        _changed(writing)


def listed(database: Database) -> list[ApiKey]:
    """All keys, the newest last; also those that expired or were revoked."""
    with database.transaction(write=False) as reading:
        rows = reading.execute(f"SELECT {_COLUMNS} FROM api_key ORDER BY created, name")
    return [_key(row) for row in rows]


def revoke(database: Database, name: str) -> None:
    """Revoke a key: servers refuse it within a second.

    Raises:
        NotFound: there is no such key, or it is revoked already.
    """
    with database.transaction() as writing:
        _find(writing, name)
        writing.execute("UPDATE api_key SET revoked = ? WHERE name = ? AND revoked IS NULL", [int(time.time()), name])
        _changed(writing)


def limit(database: Database, name: str, limits: Limit) -> None:
    """Replace the limits of a key: servers follow within a second.

    Args:
        limits: all of its own; an empty one leaves those of the project file.

    Raises:
        NotFound: there is no such key, or it is revoked. EstibaError: a burst without a rate.
    """
    check_limit(limits)
    with database.transaction() as writing:
        _find(writing, name)
        values = [_encoded(limits), name]
        writing.execute("UPDATE api_key SET limits = ? WHERE name = ? AND revoked IS NULL", values)
        _changed(writing)


def check_limit(limits: Limit) -> None:
    """Raise EstibaError for a burst without a rate."""
    if limits.burst is not None and limits.rate is None:
        raise EstibaError("A burst needs a rate.", hint="Give the requests a second as well: --rate 100")


def generation(database: Database) -> int:
    """A number that every change raises."""
    with database.transaction(write=False) as reading:
        ((number,),) = reading.execute("SELECT generation FROM change")
    return int(number)


def _find(transaction: Transaction, name: str) -> None:
    """Raise NotFound unless a key of that name is in force."""
    if not _live(transaction, name):
        known = [str(each) for (each,) in transaction.execute("SELECT name FROM api_key WHERE revoked IS NULL")]
        hint = f"Keys: {', '.join(sorted(known))}." if known else "There is no key that could be revoked."
        raise NotFound(f"There is no key {name!r}{did_you_mean(name, known)}", hint=hint)


def _live(transaction: Transaction, name: str) -> bool:
    return bool(transaction.execute("SELECT 1 FROM api_key WHERE name = ? AND revoked IS NULL", [name]))


def _changed(transaction: Transaction) -> None:
    transaction.execute("UPDATE change SET generation = generation + 1")


def _key(row: Row) -> ApiKey:
    digest, name, roles, models, created, expires, revoked, limits = row
    own = msgspec.json.decode(limits, type=Limit)
    return ApiKey(bytes(digest), name, _texts(roles), _texts(models), created, expires, revoked, own)


def _encoded(limits: Limit) -> str:
    return msgspec.json.encode(limits).decode()


def _texts(column: str) -> tuple[str, ...]:
    return tuple(msgspec.json.decode(column, type=list[str]))


def _checksum(body: bytes) -> bytes:
    return _base62(zlib.crc32(body), _CHECKSUM_LENGTH).encode()


def _base62(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, rest = divmod(number, 62)
        digits = _DIGITS[rest] + digits
    return digits
