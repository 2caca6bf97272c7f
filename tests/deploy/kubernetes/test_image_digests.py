"""Digests of images in manifests that are rendered again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from estiba.core.errors import Conflict
from estiba.deploy.kubernetes.image_digests import keep_digests
from estiba.deploy.kubernetes.options import KubernetesOptions
from estiba.deploy.kubernetes.render import render
from estiba.deploy.output.files import write
from estiba.deploy.plan.plan import Build, Plan, Service

REPOSITORY = "127.0.0.1:5000/acme/web"
DIGEST = f"sha256:{'ab' * 32}"
BUILD = Build("app", "slim", "3.12")


def plan(image: str) -> Plan:
    services = (Service("web", image, build=BUILD), Service("db", "postgres:16", user=999))
    return Plan("shop", Path("/shop"), services)


def images(plan: Plan) -> list[str]:
    return [service.image for service in plan.services]


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """Manifests of an image that was pinned to its digest."""
    write(render(plan(f"{REPOSITORY}:1@{DIGEST}"), KubernetesOptions()), tmp_path)
    return tmp_path


def test_the_digest_of_the_same_tag_is_kept(manifests: Path) -> None:
    kept = keep_digests(plan(f"{REPOSITORY}:1"), manifests)
    assert images(kept) == [f"{REPOSITORY}:1@{DIGEST}", "postgres:16"]
    assert render(kept, KubernetesOptions()).texts["base/web.yaml"] == (manifests / "base" / "web.yaml").read_text()


def test_a_tag_whose_digest_is_not_known_is_refused(manifests: Path) -> None:
    with pytest.raises(Conflict, match=f"digest of an older image of web; the project now has {REPOSITORY}:2") as error:
        keep_digests(plan(f"{REPOSITORY}:2"), manifests)
    assert error.value.hint is not None
    assert "--pin images.json" in error.value.hint
    assert "--no-render" in error.value.hint


def test_images_without_digests_stay_as_they_are(manifests: Path, tmp_path: Path) -> None:
    other = plan("ghcr.io/acme/web:2")
    assert images(keep_digests(other, manifests)) == images(other)
    foreign = replace(other, services=(Service("web", f"{REPOSITORY}:2", user=1000),))
    assert images(keep_digests(foreign, manifests)) == [f"{REPOSITORY}:2"]
    assert images(keep_digests(plan("web:1"), tmp_path / "nothing")) == ["web:1", "postgres:16"]
