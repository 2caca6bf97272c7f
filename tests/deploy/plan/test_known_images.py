"""Databases whose image is known need no other setting; what the project file says stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Docker
from projects import plan

from estiba.cli.main import run
from estiba.deploy.plan.known_images import environment_in_cluster
from estiba.deploy.plan.plan import Command


def test_the_image_of_postgresql_is_enough(tmp_path: Path) -> None:
    (service,) = plan(tmp_path, '[services.db]\nimage = "postgres:17"').services
    assert (service.port, service.published, service.user) == (5432, None, 999)
    assert service.environment == {"POSTGRES_PASSWORD_FILE": "${secrets.db-password}"}
    assert service.secrets == ("db-password",)
    assert service.volumes == {"data": "/var/lib/postgresql/data"}
    assert service.writable == ("/var/run/postgresql",)
    assert isinstance(service.health, Command)
    assert environment_in_cluster(service) == {"PGDATA": "/var/lib/postgresql/data/pgdata"}


def test_settings_of_the_project_stay(tmp_path: Path) -> None:
    text = """
    [services.db]
    image = "docker.io/library/postgres:18-alpine"
    port = 5433
    user = 5
    health = ["mine"]
    environment = { POSTGRES_PASSWORD = "x", POSTGRES_USER = "me" }
    """
    (service,) = plan(tmp_path, text).services
    assert (service.port, service.published, service.user, service.secrets) == (5433, 5433, 5, ())
    assert service.health == Command(("mine",))
    assert service.environment == {"PGPORT": "${port}", "POSTGRES_PASSWORD": "x", "POSTGRES_USER": "me"}
    assert service.volumes == {"data": "/var/lib/postgresql"}  # PostgreSQL 18 has a folder of its own there
    assert environment_in_cluster(service) == {}


@pytest.mark.parametrize(("image", "user"), [("redis:8", 999), ("postgres:17-alpine", 70), ("rabbitmq:4-alpine", 100)])
def test_each_known_image_has_its_user(tmp_path: Path, image: str, user: int) -> None:
    assert plan(tmp_path, f'[services.a]\nimage = "{image}"').services[0].user == user


@pytest.mark.parametrize("image", ["acme/postgres:17", "ghcr.io/acme/redis:8", "postgresql:17"])
def test_other_images_are_not_guessed_at(tmp_path: Path, image: str) -> None:
    (service,) = plan(tmp_path, f'[services.a]\nimage = "{image}"').services
    assert (service.user, service.port, service.volumes) == (None, None, {})


@pytest.mark.parametrize("keys", ["restart = false", 'command = "psql --file x"', 'command = ["sh", "-c", "pg_dump"]'])
def test_a_client_in_the_same_image_is_no_server(tmp_path: Path, keys: str) -> None:
    (service,) = plan(tmp_path, f'[services.a]\nimage = "postgres:17"\n{keys}').services
    assert (service.user, service.port, service.secrets, service.volumes) == (None, None, (), {})


def test_options_of_the_server_leave_it_one(tmp_path: Path) -> None:
    text = '[services.a]\nimage = "postgres:17"\ncommand = "postgres -c shared_buffers=1GB"'
    assert plan(tmp_path, text).services[0].user == 999


@pytest.fixture
def stores(docker: Docker, tmp_path: Path) -> Iterator[Path]:
    docker.need("postgres:17", "redis:8", "rabbitmq:4-management")
    (tmp_path / "estiba.toml").write_text(
        f"""
        [project]
        name = "{docker.name}-i"
        [services.db]
        image = "postgres:17"
        [services.cache]
        image = "redis:8"
        [services.queue]
        image = "rabbitmq:4-management"
        memory = "1GB"
        start_timeout = 120
        """
    )
    yield tmp_path
    docker("compose", "down", "--volumes", "--timeout", "1", folder=tmp_path / "deploy" / "compose")
    docker("volume", "rm", "--force", f"{docker.name}-i_estiba-last-good")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_databases_that_are_only_an_image_deploy_at_the_first_try(stores: Path, docker: Docker) -> None:
    assert run(["deploy", "compose", "-C", str(stores), "--yes"]) == 0
    ask = ["exec", f"{docker.name}-i-db-1", "psql", "--username", "postgres", "--no-align", "--tuples-only"]
    assert docker(*ask, "--command", "select 6 * 7") == "42"
