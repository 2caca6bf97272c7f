"""Keys, limits and the log in containers, on a real Docker: in PostgreSQL and Redis, and in the only container."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from images_made import PYTHON
from lab import Docker
from toys import CHURN_ROW, until

from estiba import project
from estiba.cli.main import run
from estiba.core.ports import free
from estiba.planning import lower

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TOML = """
[project]
name = "{name}"
registry = "{registry}"
[server]
port = {port}
[models.churn]
train = "shop:train"
[gateway]
keys = "required"
[gateway.log]
enabled = true
[gateway.limits]
rows_per_day = 3
"""

SERVICES = """
service = "cache"
[state]
service = "db"
[services.db]
image = "postgres:17"
environment = { POSTGRES_USER = "shop" }
[services.cache]
image = "redis:8"
"""


@dataclass(frozen=True)
class Stack:
    """A project with one model, up in Compose."""

    folder: Path
    docker: Docker
    port: int

    @property
    def files(self) -> Path:
        return self.folder / "deploy" / "compose"

    def compose(self, *words: str) -> str:
        return self.docker("compose", *words, folder=self.files, seconds=200)

    def estiba(self, *words: str) -> str:
        """Run a command in the container of the server."""
        return self.compose("exec", "-T", "models", "estiba", *words)

    def status(self, key: str) -> int:
        """Ask for a prediction, and return the status of the answer."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        address, body = f"http://127.0.0.1:{self.port}/models/churn/predict", json.dumps(CHURN_ROW).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=10) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.estiba("log", "churn", "--json").splitlines()]


@pytest.fixture(params=["postgres", "sqlite"])
def stack(request: pytest.FixtureRequest, docker: Docker, toy_registry: Path, tmp_path: Path) -> Iterator[Stack]:
    """The image built and verified, and all services healthy."""
    docker.need(f"python:{PYTHON}-slim", *(["postgres:17", "redis:8"] if request.param == "postgres" else []))
    text = TOML.format(name=docker.name, registry=toy_registry, port=(port := free("127.0.0.1")))
    (tmp_path / "estiba.toml").write_text(text + SERVICES * (request.param == "postgres"))
    folder = ["-C", str(tmp_path)]
    assert run(["compose", *folder]) == 0
    assert run(["build", *folder]) == 0
    made = Stack(tmp_path, docker, port)
    try:
        made.compose("up", "--detach", "--wait")
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "1")


def test_containers_ask_for_keys_and_log_predictions(stack: Stack) -> None:
    first = (stack.files / "secrets" / "estiba-key").read_text()
    assert (stack.status(""), stack.status(first)) == (401, 200)

    shop = stack.estiba("keys", "create", "shop", "--model", "churn")
    assert until(lambda: stack.status(shop) == 200, 2)
    assert until(lambda: [row["key"] for row in stack.logged()] == ["deployment", "shop"], 5), stack.logged()
    assert stack.logged()[0]["input"].keys() == CHURN_ROW.keys()

    stack.estiba("keys", "revoke", "shop")
    time.sleep(1)
    assert stack.status(shop) == 401
    states = {key["name"]: key["state"] for key in json.loads(stack.estiba("keys", "list", "--json"))}
    assert states == {"deployment": "active", "shop": "revoked"}

    stack.compose("up", "--detach", "--wait", "--force-recreate")  # the store outlives the containers
    assert (stack.status(shop), stack.status(first)) == (401, 200)
    assert len(stack.logged()) == 3
    # Redis remembers both rows that this key has asked for; the server alone only that of the new container.
    is_counted_in_redis = "cache" in stack.compose("ps", "--services")
    assert [stack.status(first) for _ in range(3)] == ([200, 429, 429] if is_counted_in_redis else [200, 200, 429])
    no_secret_is_readable(stack)


def no_secret_is_readable(stack: Stack) -> None:
    """Look for the secrets where whoever may use Docker, or has the files, could read them."""
    values = [path.read_text() for path in (stack.files / "secrets").iterdir() if path.name != ".gitignore"]
    texts = [path.read_text() for path in stack.files.glob("*") if path.is_file()]
    for container in stack.compose("ps", "--quiet").split():
        image = stack.docker("inspect", "--format={{.Image}}", container)
        texts += [stack.docker("inspect", container), stack.docker("inspect", image)]
    assert values
    assert not [value for value in values for text in texts if value in text]


def test_a_plan_warns_of_a_setting_that_opens_servers_without_keys(
    docker: Docker, toy_registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.need(f"python:{PYTHON}-slim")
    text = TOML.format(name=docker.name, registry=toy_registry, port=free("127.0.0.1"))
    (tmp_path / "estiba.toml").write_text(text.partition("[gateway]")[0])
    image = lower(project.load(tmp_path))["models"].image
    assert run(["compose", "-C", str(tmp_path)]) == 0
    settings = tmp_path / "deploy" / "compose" / ".env"
    settings.write_text(settings.read_text().replace("# ESTIBA_BIND=127.0.0.1", "ESTIBA_BIND=0.0.0.0"))
    docker("tag", f"python:{PYTHON}-slim", image)
    try:
        assert run(["deploy", "compose", "--plan", "-C", str(tmp_path)]) == 0
    finally:
        docker("rmi", image)
    assert (
        "models is published at 0.0.0.0: whoever reaches it may use the models without a key" in capsys.readouterr().err
    )
