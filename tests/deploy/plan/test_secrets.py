"""Secrets are generated once, with permissions for their owner only, and ignored by git."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from estiba.core.errors import BadProject, EstibaError, NotFound
from estiba.deploy.plan import secrets


@pytest.fixture(autouse=True)
def no_other_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(secrets.VARIABLE, raising=False)


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = secrets.ensure(tmp_path, ["password"])["password"]
    assert path == tmp_path / ".estiba/secrets/password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    first = secrets.read(tmp_path, "password")
    assert len(first) == 43
    secrets.ensure(tmp_path, ["password", "other"])
    assert secrets.read(tmp_path, "password") == first != secrets.read(tmp_path, "other")


def test_git_does_not_see_it(tmp_path: Path) -> None:
    secrets.ensure(tmp_path, ["password"])
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    said = subprocess.run(
        ["git", "-C", str(tmp_path), "status", "--short", "-uall"], check=True, capture_output=True, text=True
    )
    assert said.stdout == ""


def test_one_that_was_written_by_hand_is_kept_and_may_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(secrets.VARIABLE, str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/token").write_text("mine\n")
    assert secrets.ensure(tmp_path, ["token"]) == {"token": tmp_path / "run/token"}
    assert secrets.read(tmp_path, "token") == "mine"
    assert not (tmp_path / ".estiba").exists()


def test_what_is_no_secret_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"Cannot read .*nothing"):
        secrets.read(tmp_path, "nothing")
    with pytest.raises(BadProject, match="cannot be the name of a secret"):
        secrets.path_of(tmp_path, "../key")
    secrets.ensure(tmp_path, ["empty"])["empty"].write_text("\n")
    with pytest.raises(EstibaError, match="is empty"):
        secrets.ensure(tmp_path, ["empty"])
