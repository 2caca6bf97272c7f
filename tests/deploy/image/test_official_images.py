"""The properties of official images that Estiba relies on, checked on the local images of these names or stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import eventually
from lab import Docker

pytestmark = pytest.mark.slow

HARD = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp", "--pids-limit=256"]


def test_a_run_leaves_nothing_behind(docker: Docker) -> None:
    docker.need("redis:8")
    mine = Docker()
    mine("network", "create", mine.label, mine.name)
    mine("volume", "create", mine.label, mine.name)
    mine("run", "-d", mine.label, f"--network={mine.name}", f"--volume={mine.name}:/data", "redis:8")
    mine("build", "-q", mine.label, "-", text="FROM redis:8\nLABEL a=b\n")
    mine.forget()
    for listing in (["ps", "-a"], ["network", "ls"], ["volume", "ls"], ["image", "ls"]):
        assert docker(*listing, "-q", f"--filter=label=org.estiba.test={mine.name}") == ""


def test_what_fails_says_why(docker: Docker) -> None:
    with pytest.raises(AssertionError, match="No such image"):
        docker("image", "inspect", "estiba/nowhere:1")


def test_postgres_takes_its_password_from_a_file(docker: Docker, tmp_path: Path) -> None:
    docker.need("postgres:17")
    (tmp_path / "compose.yaml").write_text(POSTGRES)
    (tmp_path / "password").write_text("of a file")
    (tmp_path / "password").chmod(0o644)
    try:
        docker("compose", docker.project, "up", "--detach", "--wait", folder=tmp_path)
        ask = ["compose", docker.project, "exec", "-T", "-e"]
        query = ["db", "psql", "-h", "db", "-U", "shop", "orders", "-tAc", "select 6 * 7"]
        assert docker(*ask, "PGPASSWORD=of a file", *query, folder=tmp_path) == "42"
        refused = docker.attempt(*ask, "PGPASSWORD=guessed", *query, folder=tmp_path)
        assert "password authentication failed" in refused.stderr
        docker("compose", docker.project, "stop", folder=tmp_path)
        assert "Exited (0)" in docker("compose", docker.project, "ps", "-a", "--format={{.Status}}", folder=tmp_path)
    finally:  # other tests use the same name of a project
        docker("compose", docker.project, "down", "--volumes", folder=tmp_path)


POSTGRES = """\
services:
  db:
    image: postgres:17
    user: "999"
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    tmpfs: [/tmp, /var/run/postgresql]
    environment: {POSTGRES_USER: shop, POSTGRES_DB: orders, POSTGRES_PASSWORD_FILE: /run/secrets/password}
    secrets: [password]
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -h, localhost, -U, shop], interval: 1s, retries: 60}
volumes: {data: {}}
secrets: {password: {file: ./password}}
"""


@pytest.mark.parametrize(
    ("image", "user", "state", "check"),
    [
        ("redis:8", "999", "/data", "redis-cli ping | grep PONG"),
        ("prom/prometheus:v3.7.3", "65534", "/prometheus", "wget -qO- http://localhost:9090/-/ready"),
        ("prom/alertmanager:v0.28.1", "65534", "/alertmanager", "wget -qO- http://localhost:9093/-/ready"),
        ("grafana/grafana:12.2.1", "472", "/var/lib/grafana", "wget -qO- http://localhost:3000/api/health"),
    ],
)
def test_it_runs_hardened_and_ends_when_asked(docker: Docker, image: str, user: str, state: str, check: str) -> None:
    docker.need(image)
    health = [f"--health-cmd={check}", "--health-interval=1s"]
    container = docker("run", "-d", docker.label, *HARD, f"--user={user}", f"--volume={state}", *health, image)
    healthy = ["inspect", "-f", "{{.State.Health.Status}}", container]
    eventually(lambda: docker(*healthy) == "healthy")
    docker("stop", "--time=20", container)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", container) == "0"
