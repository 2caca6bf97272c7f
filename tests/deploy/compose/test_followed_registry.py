"""A model server in Compose whose image holds no model: it reads the project's registry, and follows what is released
there without being started again. On a real Docker, with a folder and with an S3 server."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from images_made import PYTHON
from lab import Docker
from toys import CHURN, CHURN_ROW, toy, until

from estiba import project
from estiba.cli.main import run
from estiba.core.ports import free
from estiba.model.registry.registry import Registry, open_registry
from estiba.planning import lower

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TOML = """
[project]
name = "{name}"
registry = "{registry}"
[models.churn]
train = "shop:train"
port = {port}
[images]
models = "registry"
registry_environment = {{ {variables} }}
"""

CREDENTIALS = "[default]\naws_access_key_id = estiba\naws_secret_access_key = estiba\n"


@dataclass(frozen=True)
class Shop:
    """A project with one model, and the registry that it is in."""

    folder: Path
    registry: Registry
    port: int

    def release(self, number: int) -> None:
        fields = (msgspec.structs.replace(CHURN.fields[0], description=f"Release {number}."), *CHURN.fields[1:])
        made = toy("churn", msgspec.structs.replace(CHURN, fields=fields), CHURN_ROW, self.folder / "made")
        assert self.registry.push(made, ["production"]).version == number

    def version(self) -> str:
        """Of the model that answers a prediction."""
        address, body = f"http://127.0.0.1:{self.port}/predict", json.dumps(CHURN_ROW).encode()
        request = urllib.request.Request(address, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(json.load(answer)["version"])


@pytest.fixture
def bucket(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 server that containers reach at Docker's bridge.

    Its bucket has the name of `docker`, as all such servers of one process share what they hold.
    """
    moto = pytest.importorskip("moto.server", reason="moto is not installed: no S3 server to test against")
    import s3fs

    machine = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    server = moto.ThreadedMotoServer(ip_address=machine, port=0, verbose=False)
    server.start()
    address = f"http://{machine}:{server.get_host_and_port()[1]}"
    for name, value in {"ENDPOINT_URL": address, "ACCESS_KEY_ID": "estiba", "SECRET_ACCESS_KEY": "estiba"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(docker.name)
    yield address
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def shop(request: pytest.FixtureRequest, docker: Docker, tmp_path: Path) -> Iterator[Shop]:
    """Version 1 released, the image built, verified and running."""
    docker.need(f"python:{PYTHON}-slim")
    place, variables = str(tmp_path / "elsewhere"), ""
    if request.param == "bucket":
        place, address = f"s3://{docker.name}/shop", request.getfixturevalue("bucket")
        variables = f'AWS_ENDPOINT_URL = "{address}", AWS_SHARED_CREDENTIALS_FILE = "${{secrets.s3}}"'
        (tmp_path / ".estiba" / "secrets").mkdir(parents=True)
        (tmp_path / ".estiba" / "secrets" / "s3").write_text(CREDENTIALS)
    port = free("127.0.0.1")
    text = TOML.format(name=docker.name, registry=place, port=port, variables=variables)
    (tmp_path / "estiba.toml").write_text(text)
    found = Shop(tmp_path, open_registry(place, cache=tmp_path / "cache"), port)
    found.release(1)
    image = lower(project.load(tmp_path))["churn"].image
    compose = tmp_path / "deploy" / "compose"
    try:
        assert run(["build", "churn", "-C", str(tmp_path)]) == 0
        assert run(["compose", "-C", str(tmp_path)]) == 0
        docker("compose", "up", "--detach", "--wait", "churn", folder=compose)
        yield found
    finally:
        docker.attempt("compose", "down", "--volumes", "--timeout", "1", folder=compose)
        docker.attempt("rmi", "--force", image)


def test_a_release_is_followed_without_a_restart(shop: Shop, docker: Docker) -> None:
    compose = shop.folder / "deploy" / "compose"
    assert shop.version() == "1"
    before = docker("compose", "ps", "--quiet", folder=compose)
    shop.release(2)
    assert until(lambda: shop.version() == "2", 30)
    shop.registry.set_alias("churn", "production", 1)
    assert until(lambda: shop.version() == "1", 30)
    assert docker("compose", "ps", "--quiet", folder=compose) == before
    docker("compose", "restart", "churn", folder=compose)
    docker("compose", "up", "--detach", "--wait", "churn", folder=compose)
    assert shop.version() == "1"
