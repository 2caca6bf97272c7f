"""estiba keys, and the address that a server may listen on."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from command_line import Estiba

from estiba.gateway.keys import is_well_formed


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESTIBA_STATE", f"sqlite:///{tmp_path}/state.db")
    return tmp_path / "state.db"


def test_a_key_is_alone_on_standard_output(estiba: Estiba) -> None:
    ran = estiba("keys", "create", "ada", "--model", "churn", "--expires", "90d")
    assert (ran.code, is_well_formed(ran.out.strip().encode())) == (0, True)
    assert "roles: predict; models: churn; expires: 20" in ran.err
    assert ran.out.strip() not in ran.err
    listed = estiba("keys", "list").out
    assert ran.out.strip()[4:] not in listed
    assert listed.splitlines()[1].split()[:4] == ["ada", "active", "predict", "churn"]


def test_json_for_scripts(estiba: Estiba) -> None:
    made = json.loads(
        estiba("keys", "create", "ada", "--role", "read", "--role", "predict", "--expires", "2h", "--json").out
    )
    assert is_well_formed(made.pop("key").encode())
    assert made == json.loads(estiba("keys", "list", "--json").out)[0]
    assert (made["name"], made["roles"], made["models"], made["state"]) == ("ada", ["read", "predict"], [], "active")
    assert 7190 < made["expires"] - time.time() <= 7200
    assert json.loads(estiba("keys", "revoke", "ada", "--json").out) == {"name": "ada", "state": "revoked"}


def test_mistakes_have_exit_codes_and_hints(estiba: Estiba) -> None:
    estiba("keys", "create", "ada")
    again = estiba("keys", "create", "ada")
    assert (again.code, "There is a key 'ada' already" in again.err) == (5, True)
    unknown = estiba("keys", "revoke", "adda")
    assert (unknown.code, "did you mean 'ada'" in unknown.err) == (4, True)
    for wrong in ("90", "0d", "soon", "1y", "-1d"):
        assert estiba("keys", "create", "bob", "--expires", wrong).code == 2
    assert estiba("keys", "create", "two words").code == 1
    assert [key["name"] for key in json.loads(estiba("keys", "list", "--json").out)] == ["ada"]


def test_an_empty_store_says_how_to_begin(estiba: Estiba) -> None:
    assert "estiba keys create NAME" in estiba("keys", "list").out


def test_the_state_option_comes_first(estiba: Estiba, tmp_path: Path, state: Path) -> None:
    estiba("keys", "create", "ada", "--state", f"sqlite:///{tmp_path}/other.db")
    assert (tmp_path / "other.db").exists()
    assert not state.exists()
    assert estiba("keys", "list", "--state", "mysql://ada:geheim@host/db").code == 2
    assert "geheim" not in estiba("keys", "list", "--state", "mysql://ada:geheim@host/db").err


def test_limits_are_given_shown_and_replaced(estiba: Estiba) -> None:
    made = estiba("keys", "create", "shop", "--rate", "100", "--burst", "300", "--rows-per-day", "5000")
    assert "limits: 100/s, 300 at once; 5000 rows a day" in made.err
    assert "100/s, 300 at once; 5000 rows a day" in estiba("keys", "list").out
    (shop,) = json.loads(estiba("keys", "list", "--json").out)
    assert shop["limits"] == {"rate": 100.0, "burst": 300, "rows_per_day": 5000}
    assert "2 at a time" in estiba("keys", "limit", "shop", "--concurrent", "2").out
    assert json.loads(estiba("keys", "limit", "shop", "--rate", "0.5", "--json").out) == {
        "name": "shop", "limits": {"rate": 0.5}
    }  # fmt: skip
    assert "has no limits of its own" in estiba("keys", "limit", "shop").out
    burst = estiba("keys", "limit", "shop", "--burst", "3")
    assert (burst.code, "A burst needs a rate." in burst.err) == (1, True)
    assert estiba("keys", "limit", "shp", "--rate", "3").code == 4
    for wrong in ("0", "-1", "many"):
        assert estiba("keys", "limit", "shop", "--rate", wrong).code == 2
