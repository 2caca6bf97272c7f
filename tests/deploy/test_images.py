"""What the name of an image says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from projects import plan

from estiba.deploy.images import version
from estiba.deploy.kubernetes.workload import labels

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
    assert version(image) == found


@pytest.mark.parametrize("image", [*VERSIONS, f"web:{'a' * 62}-b", "web:_1"])
def test_a_label_of_kubernetes_is_one(image: str, tmp_path: Path) -> None:
    """Without a tag it was the whole name, slashes and all, which a cluster refuses."""
    made = plan(tmp_path, f'[project]\nname = "p"\n[services.web]\nimage = "{image}"\n')
    found = labels(made, made["web"])["app.kubernetes.io/version"]
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", found)
