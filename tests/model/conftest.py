"""A registry over each kind of place: a folder, a real S3 server, and a disk that is soon full."""

from __future__ import annotations

import hashlib
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sample_artifacts import packed

from estiba.core.stores.files import Store, open_store
from estiba.model.artifact.artifact import Artifact
from estiba.model.registry.registry import Registry


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of a real S3 server in this process; others reach it as well."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed: no S3 server to test against")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "estiba")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "estiba")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        make_bucket("models")
        yield "s3://models"
    server.stop()


def make_bucket(name: str) -> None:
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "registry")
    return f"{request.getfixturevalue('s3')}/{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


@pytest.fixture
def registry(store: Store, tmp_path: Path) -> Registry:
    return Registry(store, tmp_path / "cache")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Artifact]:
    """Makes an artifact from a number and the name of its model."""

    def make(number: int = 0, name: str = "iris") -> Artifact:
        return packed(tmp_path / "packed", number, name)

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 64 KiB: a file system of its own, or, where mounting is not allowed, a process limit."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        yield folder
        subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
