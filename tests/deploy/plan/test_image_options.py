"""Names of images, and the options that choose them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from projects import plan

from estiba.deploy.compose import render
from estiba.deploy.compose.render import ComposeOptions
from estiba.deploy.kubernetes.workloads import labels
from estiba.deploy.plan import image_options

DIGEST = "sha256:" + "8c" * 32

VERSIONS = {
    "postgres": "latest",
    "postgres:17": "17",
    "localhost:5000/acme/web": "latest",
    "localhost:5000/acme/web:2": "2",
    f"ghcr.io/acme/web:2@{DIGEST}": "2",
    f"ghcr.io/acme/web@{DIGEST}": "8c8c8c8c8c8c",
}


@pytest.mark.parametrize(("image", "found"), VERSIONS.items())
def test_its_version(image: str, found: str) -> None:
    assert image_options.version(image) == found


@pytest.mark.parametrize("image", [*VERSIONS, f"web:{'a' * 62}-b", "web:_1"])
def test_a_label_of_kubernetes_is_one(image: str, tmp_path: Path) -> None:
    """Without a tag it was the whole name, slashes and all, which a cluster refuses."""
    made = plan(tmp_path, f'[project]\nname = "p"\n[services.web]\nimage = "{image}"\n')
    found = labels(made, made["web"])["app.kubernetes.io/version"]
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", found)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("ghcr.io/acme/shop:1", "ghcr.io"),
        ("localhost/shop:1", "localhost"),
        ("registry:5000/shop:1", "registry:5000"),
        ("acme/shop:1", ""),
        ("python:3.12-slim", ""),
        ("shop", ""),
    ],
)
def test_which_registry_a_name_says(name: str, host: str) -> None:
    assert image_options.host(name) == host


@pytest.mark.parametrize(("repository", "policy"), [("", "never"), ("acme", "never"), ("registry:5000/acme", None)])
def test_compose_fetches_what_a_registry_has(repository: str, policy: str | None, tmp_path: Path) -> None:
    more = f'[images]\nrepository = "{repository}"\n' if repository else ""
    made = plan(tmp_path, f'[project]\nname = "p"\n{more}[services.web]\ncommand = ["python"]\n')
    found = yaml.safe_load(render.render(made, ComposeOptions()).texts["compose.yaml"])
    assert found["services"]["web"].get("pull_policy") == policy
