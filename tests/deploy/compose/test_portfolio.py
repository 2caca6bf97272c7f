"""The portfolio on a real Docker: it comes up, answers, recovers, is replaced without a loss, and goes back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import pytest
from constant_load import Load, LoadResults
from lab import Docker
from stacks import Stack, portfolio
from toys import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

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

REFUSED = 7
"""The exit code of curl when the connection is refused."""

Changed = TypeVar("Changed")


@pytest.fixture(scope="module")
def stack(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The portfolio, deployed with `estiba deploy compose` behind a front."""
    docker.need(*IMAGES.split())
    folder = tmp_path_factory.mktemp("stack") / "portfolio"
    with portfolio(docker, folder, PROFILES, '[server]\n\n[compose]\nfront = "nginx:1.29"\n\n') as found:
        found.build(*MODELS, "flask-api", "iris-fastapi")
        done = found.deploy()
        assert done.returncode == 0, done.stdout + done.stderr
        yield found


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


def test_what_was_asked_is_in_the_log_that_all_servers_share(stack: Stack) -> None:
    answers(stack)

    def logged() -> list[dict[str, object]]:
        lines = stack.compose("exec", "--no-TTY", "models", "estiba", "log", "bankchurn", "--json").splitlines()
        return [json.loads(line) for line in lines]

    assert until(lambda: len(logged()) > 0, 10)
    assert (logged()[-1]["input"], logged()[-1]["key"]) == (BANK, "")


def test_prometheus_reaches_all_that_it_watches(stack: Stack) -> None:
    def up() -> set[str]:
        targets = stack.ask(9090, "/api/v1/targets")["data"]["activeTargets"]
        return {target["labels"]["job"] for target in targets if target["health"] == "up"}

    assert until(lambda: up() == {*MODELS, "prometheus", "alertmanager"}, 60), up()
    rules = stack.ask(9090, "/api/v1/rules")["data"]["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}


def test_what_dies_is_started_again(stack: Stack) -> None:
    """`docker kill` counts as a person's wish to Docker, which then restarts nothing; a process that dies does not."""
    before = {row["ID"]: row["Service"] for row in stack.containers()}
    for container in before:
        stack.crash(container)
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


async def under_load(stack: Stack, change: Callable[[], Changed]) -> tuple[LoadResults, Changed]:
    async with Load(8000 + stack.offset, "/models/iris/predict", IRIS, connections=4) as tally:
        await asyncio.sleep(1)
        done = await asyncio.to_thread(change)
        await asyncio.sleep(1)
    return tally, done


def test_an_update_under_constant_load_loses_no_request(stack: Stack) -> None:
    stack.change("[server]\n", "[server]\naccess_log = 0.5\n")
    stack.build(*MODELS)
    tally, done = asyncio.run(under_load(stack, stack.deploy))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "models: the new container is healthy" in done.stdout
    assert (tally.lost, set(tally.statuses)) == ([], {200})
    assert tally.answered > 100


def test_more_and_fewer_containers_under_constant_load_lose_no_request(stack: Stack) -> None:
    for count in (3, 1):
        words = ("up", "--detach", "--no-recreate", "--wait", "--scale", f"models={count}", "models")
        tally, _ = asyncio.run(under_load(stack, partial(stack.compose, *words)))
        assert sum(row["Service"] == "models" for row in stack.containers()) == count
        assert (tally.lost, set(tally.statuses)) == ([], {200})


def test_an_address_of_one_model_leads_to_no_other(stack: Stack) -> None:
    """A container may get the address of one that is gone, which the front may still remember: it answers nobody there
    who wants another model."""
    label = '{{index .Config.Labels "com.docker.compose.service"}}'
    network = json.loads(stack.docker("network", "inspect", f"{stack.docker.name}_front"))[0]
    addresses = {
        stack.docker("inspect", f"--format={label}", container): about["IPv4Address"].partition("/")[0]
        for container, about in network["Containers"].items()
    }
    assert network["Internal"]
    assert set(addresses) == {"front", *MODELS}
    del addresses["front"]
    ports = dict(zip(MODELS, range(8000, 8004), strict=True))
    ask = ["exec", stack.container("front"), "curl", "--silent", "--max-time", "5"]
    for one, address in addresses.items():
        for other, port in ports.items():
            done = stack.docker.attempt(*ask, f"http://{address}:{port}/health/ready")
            assert (done.returncode == 0) == (one == other), (one, other, done.stdout)
            assert one == other or done.returncode == REFUSED


def test_what_does_not_become_healthy_is_taken_back(stack: Stack) -> None:
    before = stack.docker("compose", "images", "--format=json", folder=stack.folder / "deploy" / "compose")
    stack.change('command = ["sh", "-c", "printf', 'command = ["sh", "-c", "echo no such disk; exit 3; printf')
    began = time.monotonic()
    done = stack.deploy()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "changed  redis" in done.stdout
    assert "no such disk" in done.stderr
    assert "The last healthy deployment runs again." in done.stderr
    assert time.monotonic() - began < 200
    assert stack.ill() == []
    assert stack.docker("compose", "images", "--format=json", folder=stack.folder / "deploy" / "compose") == before
