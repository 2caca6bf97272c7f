"""A service behind the reverse proxy is replaced one container beside the other, on a real Docker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Docker

from estiba.deploy.compose.deploy import ComposeTarget
from estiba.deploy.compose.project import ComposeProject
from estiba.deploy.compose.reverse_proxy import NETWORK
from estiba.deploy.output.files import Rendered
from estiba.deploy.plan.plan import Plan
from estiba.deploy.target import DeploymentFailed, deploy

pytestmark = pytest.mark.timeout(200)

Deploy = Callable[..., list[str]]


@pytest.fixture
def release(docker: Docker, tmp_path: Path) -> Iterator[Deploy]:
    """Deploys a service and returns the steps that were reported."""
    docker.need("debian:bookworm-slim")
    folder = tmp_path / "compose"

    def release(number: int, *, test: str = "true", replicas: int = 1) -> list[str]:
        web = {
            "image": "debian:bookworm-slim",
            "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait"],
            "environment": {"RELEASE": str(number)},
            "healthcheck": {"test": ["CMD", *test.split()], "interval": "1s", "retries": 2, "start_period": "0s"},
            "networks": {"backend": {}, NETWORK: {"aliases": ["web.front"]}},
            "deploy": {"replicas": replicas},
        }
        networks = {"backend": {}, NETWORK: {"internal": True}}
        compose = {"name": f"{docker.name}-r", "services": {"web": web}, "networks": networks}
        files = Rendered({"compose.yaml": json.dumps(compose)}, {".env": ""})
        compose_project = ComposeProject(folder, timeout_seconds=60)
        target = ComposeTarget(compose_project, Plan("shop", tmp_path, ()), files, frozenset({"web"}))
        steps: list[str] = []
        deploy(target, target.propose(), steps.append)
        return steps

    yield release
    docker("compose", "down", "--timeout", "1", folder=folder)


def containers(docker: Docker) -> dict[str, str]:
    """When each container of the service was started, by its id."""
    ids = docker("ps", "--quiet", "--no-trunc", "--filter", f"label=com.docker.compose.project={docker.name}-r").split()
    return {container: docker("inspect", "--format", "{{.State.StartedAt}}", container) for container in ids}


def test_the_new_container_is_healthy_before_the_old_one_stops(release: Deploy, docker: Docker) -> None:
    assert release(1)[-1].startswith("All services are ready after ")
    (old,) = containers(docker)
    assert "web: the new container is healthy; stopping the old one" in release(2)
    (new,) = containers(docker)
    assert new != old
    networks = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", new))
    assert "web.front" in networks[f"{docker.name}-r_{NETWORK}"]["Aliases"]


def test_a_new_container_that_is_unhealthy_is_removed_and_the_old_one_was_never_stopped(
    release: Deploy, docker: Docker
) -> None:
    release(1)
    before = containers(docker)
    with pytest.raises(DeploymentFailed, match="web did not become healthy beside the old container") as error:
        release(2, test="false")
    assert "The last healthy deployment runs again." in error.value.message
    assert containers(docker) == before


def test_containers_are_added_beside_those_that_run(release: Deploy, docker: Docker) -> None:
    release(1)
    before = containers(docker)
    assert not any("stopping" in step for step in release(1, replicas=3))
    assert containers(docker).items() > before.items()
    assert len(containers(docker)) == 3
