"""A project of toy models whose image is assembled, and a container engine, for the tests of images."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from estiba import project
from estiba.core.errors import NotFound
from estiba.deploy.image import build_context, container_engine
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.image.spec import ImageSpec
from estiba.deploy.plan.plan import Plan
from estiba.planning import lower

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def changed(spec: ImageSpec, **changes: Any) -> ImageSpec:
    """The specification with other values: `changed(spec, image="a:1", runtime={"stop_grace": 1})`."""
    for group in ("contents", "process", "runtime"):
        if group in changes:
            changes[group] = msgspec.structs.replace(getattr(spec, group), **changes[group])
    return msgspec.structs.replace(spec, **changes)


def toy_plan(folder: Path, registry: Path, more: str = "") -> Plan:
    """The plan of a project with one toy model."""
    folder.mkdir(parents=True, exist_ok=True)
    head = f'[project]\nname = "toys"\nregistry = "{registry}"\n[models.churn]\ntrain = "a:b"\n'
    (folder / "estiba.toml").write_text(head + more)
    return lower(project.load(folder))


@pytest.fixture(scope="session")
def made(toy_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildContext:
    """The build context of a toy model's image. The wheels come from the index once and are kept in pip's cache."""
    if not sys.platform.startswith("linux"):
        pytest.skip("images are made on Linux")
    folder = tmp_path_factory.mktemp("images")
    plan = toy_plan(folder / "project", toy_registry)
    (folder / "models").mkdir()
    return build_context.assemble(plan, plan["models"], folder / "models")


SERVER = """
import http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.HTTPServer(("", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""

WEB = """
[services.web]
command = ["python", "server.py", "${port}"]
requirements = "requirements.txt"
include = ["server.py"]
style = "scratch"
port = 5000
health = "/"
"""


def web_plan(folder: Path, code: str = SERVER) -> Plan:
    """The plan of a project with one small application that needs one package."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.py").write_text(code)
    (folder / "requirements.txt").write_text("idna==3.10\n")
    (folder / "estiba.toml").write_text('[project]\nname = "toys"\n' + WEB)
    return lower(project.load(folder))


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> BuildContext:
    """The build context of the small application's image."""
    if not sys.platform.startswith("linux"):
        pytest.skip("images are made on Linux")
    folder = tmp_path_factory.mktemp("web")
    plan = web_plan(folder / "project")
    (folder / "web").mkdir()
    return build_context.assemble(plan, plan["web"], folder / "web")


@pytest.fixture
def copy(web: BuildContext, tmp_path: Path) -> BuildContext:
    """The small application in a folder that a test may change."""
    shutil.copytree(web.folder, tmp_path / "context")
    return BuildContext(tmp_path / "context", web.spec, web.left_out)


@pytest.fixture(scope="session")
def engine() -> Engine:
    """A container engine that has the base image."""
    try:
        found = container_engine.find("docker")
    except NotFound as error:
        pytest.skip(f"{error.message} scripts/lab/docker starts one.")
    if found.try_to("buildx", "version").code:
        pytest.skip('Docker has no buildx here: eval "$(scripts/lab/env)" brings it.')
    base = f"python:{PYTHON}-slim"
    if not found.has(base):
        pytest.skip(f"The image {base} is not here: scripts/lab/images {base} makes a stand-in.")
    return found
