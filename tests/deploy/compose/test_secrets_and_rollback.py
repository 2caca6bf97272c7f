"""Secrets in use are never generated anew, and only what was healthy is restored."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Docker

from estiba.cli.main import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

SHOP = """
[project]
name = "{name}"

[services.db]
image = "debian:bookworm-slim"
command = ["sh", "-c", "cat ${{secrets.password}} >> ${{volumes.data}}/seen; trap 'exit 0' TERM; sleep 600 & wait"]
health = ["true"]
secrets = {secrets}
volumes = {{ data = "/data" }}
user = 0

[services.web]
image = "debian:bookworm-slim"
command = ["sh", "-c", "{web}"]
health = ["true"]
"""

GOOD = "trap 'exit 0' TERM; sleep 600 & wait"

Deploy = Callable[..., int]


@pytest.fixture
def deploy(docker: Docker, tmp_path: Path) -> Iterator[Deploy]:
    """Deploys a database with a password and a volume, and an application that does what it is told."""
    docker.need("debian:bookworm-slim")
    name = f"{docker.name}-k"

    def deploy(*words: str, web: str = GOOD, secrets: str = '["password"]') -> int:
        (tmp_path / "estiba.toml").write_text(SHOP.format(name=name, web=web, secrets=secrets))
        return run(["deploy", "compose", "-C", str(tmp_path), *(words or ("--yes",))])

    yield deploy
    running = docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={name}").split()
    if running:
        docker("rm", "--force", *running)
    for kind in ("volume", "network"):
        if found := docker(kind, "ls", "--quiet", "--filter", f"label=com.docker.compose.project={name}").split():
            docker(kind, "rm", *found)


def clean_checkout(folder: Path) -> None:
    """Remove what is not in git, as a checkout of GitHub Actions does."""
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    (folder / ".gitignore").write_text(".estiba/\n")
    subprocess.run(["git", "-C", str(folder), "add", "estiba.toml", ".gitignore"], check=True)
    subprocess.run(["git", "-C", str(folder), "clean", "-ffdxq"], check=True)
    shutil.rmtree(folder / ".git")


def test_the_plan_lists_new_secrets(deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy("--plan") == 0
    path = tmp_path / ".estiba" / "secrets" / "password"
    assert f"new      secret password  will be generated in {path}" in capsys.readouterr().out
    assert not path.exists()


def test_a_lost_secret_is_named_and_nothing_is_changed(
    deploy: Deploy, docker: Docker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy() == 0
    secret = (tmp_path / ".estiba/secrets/password").read_text()
    clean_checkout(tmp_path)
    container = f"{docker.name}-k-db-1"
    for words in (("--yes",), ("--plan",)):
        assert deploy(*words, web=f"echo 2; {GOOD}") == 4
        said = capsys.readouterr().err
        assert f"is not in {tmp_path}/.estiba/secrets/password" in said
        assert "Nothing was changed." in said
        assert f"docker exec {container} cat /run/secrets/password" in said
    assert not (tmp_path / ".estiba").exists()
    assert run(["compose", "-C", str(tmp_path)]) == 4

    # The remedy of the hint.
    (tmp_path / ".estiba/secrets").mkdir(parents=True)
    (tmp_path / ".estiba/secrets/password").write_text(docker("exec", container, "cat", "/run/secrets/password"))
    assert deploy(web=f"echo 2; {GOOD}") == 0
    assert docker("exec", container, "cat", "/data/seen").startswith(secret)


def test_a_volume_alone_keeps_its_secret_too(
    deploy: Deploy, docker: Docker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy() == 0
    docker("compose", "down", "--timeout", "1", folder=tmp_path / "deploy" / "compose")
    clean_checkout(tmp_path)
    assert deploy() == 4
    assert f"docker volume rm {docker.name}-k_db-data" in capsys.readouterr().err
    docker("volume", "rm", f"{docker.name}-k_db-data")
    assert deploy() == 0


def test_a_service_that_runs_without_a_secret_may_get_one(deploy: Deploy) -> None:
    assert deploy(secrets='["password"]') == 0
    assert deploy(secrets='["password", "token"]') == 0


def test_files_that_were_only_written_are_not_restored(
    deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy("--plan")
    assert run(["compose", "-C", str(tmp_path)]) == 0
    assert deploy("--yes", "--timeout", "20", web="echo no licence; exit 3") == 1
    said = capsys.readouterr().err
    assert "web is restarting (exit code 3)." in said
    assert "no licence" in said
    assert "There is no earlier healthy deployment to restore" in said


def test_what_was_healthy_is_restored_after_a_cleaned_checkout(
    deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTIBA_SECRETS", str(tmp_path.parent / "kept"))
    assert deploy() == 0
    clean_checkout(tmp_path)
    assert not (tmp_path / "deploy").exists()
    assert deploy("--yes", "--timeout", "20", web="exit 7") == 1
    said = capsys.readouterr().err
    assert "web is restarting (exit code 7)." in said
    assert "The last healthy deployment runs again." in said
