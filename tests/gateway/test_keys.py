"""Keys in a state store."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from estiba.core.errors import Conflict, EstibaError, NotFound
from estiba.gateway import keys
from estiba.gateway.keys import KeyRequest
from estiba.state.database import Database
from estiba.state.store import open_state


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_state(f"sqlite:///{tmp_path}/state.db")
    yield opened
    opened.close()


def test_a_key_has_256_random_bits_and_a_checksum(database: Database) -> None:
    made = [keys.create(database, KeyRequest(f"key-{i}"))[0].encode() for i in range(50)]
    assert len(set(made)) == 50
    for key in made:
        assert keys.is_well_formed(key)
        assert (key[:4], len(key)) == (b"est_", 53)
        damaged = [key[:i] + (b"A" if key[i : i + 1] != b"A" else b"B") + key[i + 1 :] for i in range(4, 53)]
        for wrong in (*damaged, key[:-1], key + b"A", key.lower(), b"", b"est_", key[4:]):
            assert not keys.is_well_formed(wrong)


def test_only_a_hash_is_stored(database: Database, tmp_path: Path) -> None:
    secret, made = keys.create(database, KeyRequest("ada"))
    assert made.digest == hashlib.sha256(secret.encode()).digest()
    database.close()
    for file in tmp_path.iterdir():
        assert secret[4:].encode() not in file.read_bytes()


def test_keys_are_listed_with_their_rights_and_state(database: Database) -> None:
    keys.create(database, KeyRequest("ada", ("predict", "read"), ("churn", "price"), 3600))
    keys.create(database, KeyRequest("bob", lifetime=-5))
    keys.create(database, KeyRequest("eve"))
    keys.revoke(database, "eve")
    by_name = {key.name: key for key in keys.listed(database)}
    assert {name: key.state for name, key in by_name.items()} == {"ada": "active", "bob": "expired", "eve": "revoked"}
    ada = by_name["ada"]
    assert (ada.roles, ada.models) == (("predict", "read"), ("churn", "price"))
    assert ada.expires is not None
    assert 3590 < ada.expires - time.time() <= 3600


def test_a_name_is_free_again_once_its_key_is_revoked(database: Database) -> None:
    first, _ = keys.create(database, KeyRequest("ada"))
    with pytest.raises(Conflict, match="There is a key 'ada' already") as caught:
        keys.create(database, KeyRequest("ada"))
    assert "estiba keys revoke ada" in str(caught.value.hint)
    keys.revoke(database, "ada")
    second, _ = keys.create(database, KeyRequest("ada"))
    assert first != second
    assert [key.state for key in keys.listed(database)] == ["revoked", "active"]


def test_mistakes_name_what_would_be_right(database: Database) -> None:
    keys.create(database, KeyRequest("prometheus"))
    with pytest.raises(NotFound, match="no key 'promtheus'; did you mean 'prometheus'"):
        keys.revoke(database, "promtheus")
    with pytest.raises(EstibaError, match="no role 'predit'; did you mean 'predict'"):
        keys.create(database, KeyRequest("bob", ("predit",)))
    with pytest.raises(EstibaError, match="cannot be the name"):
        keys.create(database, KeyRequest("two words"))
    assert [key.name for key in keys.listed(database)] == ["prometheus"]


def test_every_change_is_counted(database: Database) -> None:
    before = keys.generation(database)
    keys.create(database, KeyRequest("ada"))
    assert keys.generation(database) == before + 1
    keys.revoke(database, "ada")
    assert keys.generation(database) == before + 2


def test_a_key_made_elsewhere_is_admitted_once_and_ends_the_one_before(database: Database) -> None:
    first, second = keys.generate(), keys.generate()
    for secret in (first, first, second, first):  # a container of the first is started again at last
        keys.admit(database, "deployment", ("predict", "read"), secret)
    states = {key.digest: key.state for key in keys.listed(database)}
    assert states == {keys.digest_of(first.encode()): "revoked", keys.digest_of(second.encode()): "active"}
    before = keys.generation(database)
    keys.revoke(database, "deployment")
    keys.admit(database, "deployment", ("predict", "read"), second)
    assert {key.state for key in keys.listed(database)} == {"revoked"}
    assert keys.generation(database) == before + 1
    with pytest.raises(EstibaError, match="does not have the form of a key"):
        keys.admit(database, "deployment", ("predict",), first[:-1])
