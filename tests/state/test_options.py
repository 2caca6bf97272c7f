"""URLs of state stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.core.errors import BadProject
from estiba.state.options import location, shown, without_password_file


def test_a_path_is_relative_to_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert location("sqlite:///.estiba/state.db", tmp_path) == f"sqlite:///{tmp_path}/.estiba/state.db"
    assert location("sqlite:////var/lib/state.db", tmp_path) == "sqlite:////var/lib/state.db"
    assert location("postgresql://ada@host/db", tmp_path) == "postgresql://ada@host/db"
    monkeypatch.setenv("ESTIBA_STATE", "sqlite:////elsewhere.db")
    assert location("sqlite:///a.db", tmp_path) == "sqlite:////elsewhere.db"
    assert location("sqlite:///a.db", tmp_path, override=False) == f"sqlite:///{tmp_path}/a.db"


@pytest.mark.parametrize("url", ["", "state.db", "sqlite:///", "mysql://host/db", "sqlite:state.db"])
def test_other_stores_are_refused_with_the_forms_that_work(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadProject, match=r"state\.url: .* is not the URL") as caught:
        location(url, tmp_path)
    assert "postgresql://USER@HOST/DATABASE" in str(caught.value.hint)


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    assert shown("postgresql://ada:geheim@host:5432/db") == "postgresql://ada:***@host:5432/db"
    with pytest.raises(BadProject) as caught:
        location("mysql://ada:geheim@host/db", tmp_path)
    assert "geheim" not in str(caught.value)


def test_the_file_of_a_password_is_no_parameter_of_the_driver() -> None:
    for url, expected in (
        ("postgresql://a@h/d?password_file=/run/p", ("postgresql://a@h/d", "/run/p")),
        (
            "postgresql://a@h/d?sslmode=require&password_file=%2Frun%2Fp",
            ("postgresql://a@h/d?sslmode=require", "/run/p"),
        ),
        ("postgresql://a@h/d?sslmode=require", ("postgresql://a@h/d?sslmode=require", "")),
    ):
        assert without_password_file(url) == expected
