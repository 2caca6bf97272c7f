"""The portfolio on a real Docker: it comes up, answers, recovers, is replaced without a loss, and goes back."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("examples", "serving")]
from applications import clean, copied, registry  # noqa: E402
from constant_load import Load, Tally  # noqa: E402

from lab import Docker  # noqa: E402
from toys import until  # noqa: E402

pytestmark = pytest.mark.timeout(900)

PROFILES = ("apps", "stores", "monitoring", "logging")
MODELS = ("models", "bankchurn", "carvision", "telecom")
IMAGES = """postgres:17 redis:8 rabbitmq:4-management prom/prometheus:v3.7.3 prom/alertmanager:v0.28.1
    grafana/grafana:12.2.1 fluent/fluent-bit:4.1 docker.elastic.co/elasticsearch/elasticsearch:9.2.0
    docker.elastic.co/kibana/kibana:9.2.0 nginx:1.29 debian:bookworm-slim python:3.11-slim"""

IRIS = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
BANK = {
    "CreditScore": 650, "Geography": "France", "Gender": "Female", "Age": 40, "Tenure": 3, "Balance": 60000.0,
    "NumOfProducts": 2, "HasCrCard": 1, "IsActiveMember": 1, "EstimatedSalary": 50000.0,
}  # fmt: skip


@dataclass(frozen=True)
class Stack:
    """The portfolio under a name and on ports of its own."""

    folder: Path
    docker: Docker
    offset: int

    def estiba(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "estiba", *words, "-C", str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True, env=clean(), timeout=800)

    def build(self, *services: str) -> None:
        done = self.estiba("build", "--no-verify", *services)
        assert done.returncode == 0, done.stderr

    def deploy(self) -> subprocess.CompletedProcess[str]:
        return self.estiba("deploy", "compose", "--yes", *(f"--profile={name}" for name in PROFILES))

    def change(self, old: str, new: str) -> None:
        file = self.folder / "estiba.toml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    def compose(self, *words: str) -> str:
        chosen = [f"--profile={name}" for name in PROFILES]
        return self.docker("compose", *chosen, *words, folder=self.folder / "deploy" / "compose", seconds=600)

    def ask(self, port: int, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        address = f"http://127.0.0.1:{port + self.offset}{path}"
        request = urllib.request.Request(address, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def containers(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.compose("ps", "--all", "--format", "json").splitlines()]

    def ill(self) -> list[str]:
        """Services that are not up, or not healthy where they can tell."""
        rows = self.containers()
        return [row["Service"] for row in rows if row["State"] != "running" or row["Health"] not in ("", "healthy")]


@pytest.fixture(scope="module")
def stack(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The portfolio, deployed with `estiba deploy compose` behind a front."""
    docker.need(*IMAGES.split())
    folder = copied(tmp_path_factory.mktemp("stack") / "portfolio")
    models = registry("iris", "bankchurn", "carvision", "telecom")
    offset = 20000 + os.getpid() % 5000
    text = (folder / "estiba.toml").read_text().replace('name = "portfolio"', f'name = "{docker.name}"', 1)
    (folder / "estiba.toml").write_text(f'[server]\n\n[compose]\nfront = "nginx:1.29"\n\n{text}')
    (folder / ".estiba").mkdir(exist_ok=True)
    (folder / ".estiba" / "registry").symlink_to(models)
    found = Stack(folder, docker, offset)
    try:
        assert found.estiba("compose").returncode == 0
        settings = folder / "deploy" / "compose" / ".env"
        moved = re.sub(r"# (ESTIBA_PORT_\w+=)(\d+)", lambda m: f"{m[1]}{int(m[2]) + offset}", settings.read_text())
        settings.write_text(moved)
        found.build(*MODELS, "flask-api", "iris-fastapi")
        done = found.deploy()
        assert done.returncode == 0, done.stdout + done.stderr
        yield found
    finally:
        if (folder / "deploy" / "compose" / "compose.yaml").exists():
            found.compose("down", "--volumes", "--timeout", "1")
        for image in docker("image", "ls", "--quiet", f"{docker.name}/*").split():
            docker.attempt("rmi", "--force", image)


def test_compose_finds_nothing_to_complain_about(stack: Stack) -> None:
    folder = stack.folder / "deploy" / "compose"
    done = stack.docker.attempt("compose", "--profile", "*", "config", "--quiet", folder=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_port_answers(stack: Stack) -> None:
    answers(stack)


def answers(stack: Stack) -> None:
    assert stack.ask(8000, "/models/iris/predict", IRIS)["predictions"][0]["prediction"] in ("setosa", 0)
    assert 0 < stack.ask(8001, "/predict", BANK)["churn_probability"] < 1
    assert stack.ask(8002, "/predict", {"model_year": 2014, "model": "ford f-150"})["prediction"] > 0
    usage = {"calls": 40.0, "minutes": 311.9, "messages": 83.0, "mb_used": 19915.42}
    assert stack.ask(8003, "/predict", usage)["prediction"] in (0, 1)
    assert stack.ask(8004, "/openapi.json")["openapi"].startswith("3.")
    assert stack.ask(5001, "/health")["status"] == "ok"


def test_prometheus_reaches_all_that_it_watches(stack: Stack) -> None:
    def down() -> list[str]:
        targets = stack.ask(9090, "/api/v1/targets")["data"]["activeTargets"]
        return [target["labels"]["job"] for target in targets if target["health"] != "up"]

    assert until(lambda: not down(), 60), down()
    rules = stack.ask(9090, "/api/v1/rules")["data"]["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}


def test_what_dies_is_started_again(stack: Stack) -> None:
    """`docker kill` counts as a person's wish to Docker, which then restarts nothing; a process that dies does not."""
    before = {row["ID"]: row["Service"] for row in stack.containers()}
    for container in before:
        pid = stack.docker("inspect", "--format={{.State.Pid}}", container)
        privileges = ["--rm", "--privileged", "--pid=host", stack.docker.label]
        stack.docker("run", *privileges, "debian:bookworm-slim", "sh", "-c", f"kill -9 {pid}")
    assert until(lambda: not stack.ill(), 240), stack.ill()
    counts = [stack.docker("inspect", "--format={{.RestartCount}}", container) for container in before]
    assert "0" not in counts
    answers(stack)


def test_what_was_killed_by_hand_is_brought_back_by_a_deployment(stack: Stack) -> None:
    for row in stack.containers():
        stack.docker("kill", row["ID"])
    done = stack.deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped" in done.stdout
    answers(stack)


async def under_load(stack: Stack) -> tuple[Tally, int, str]:
    async with Load(8000 + stack.offset, "/models/iris/predict", IRIS, connections=4) as tally:
        await asyncio.sleep(1)
        done = await asyncio.to_thread(stack.deploy)
        await asyncio.sleep(1)
    return tally, done.returncode, done.stdout + done.stderr


def test_an_update_under_constant_load_loses_no_request(stack: Stack) -> None:
    stack.change("[server]\n", "[server]\naccess_log = 0.5\n")
    stack.build(*MODELS)
    tally, code, said = asyncio.run(under_load(stack))
    assert code == 0, said
    assert "models: the new one is healthy" in said
    assert (tally.lost, set(tally.statuses)) == ([], {200})
    assert tally.answered > 100


def test_what_does_not_become_healthy_is_taken_back(stack: Stack) -> None:
    before = stack.docker("compose", "images", "--format=json", folder=stack.folder / "deploy" / "compose")
    stack.change('command = ["sh", "-c", "printf', 'command = ["sh", "-c", "echo no such disk; exit 3; printf')
    began = time.monotonic()
    done = stack.deploy()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "changed  redis" in done.stdout
    assert "no such disk" in done.stderr
    assert "What ran before runs again." in done.stderr
    assert time.monotonic() - began < 200
    assert stack.ill() == []
    assert stack.docker("compose", "images", "--format=json", folder=stack.folder / "deploy" / "compose") == before
