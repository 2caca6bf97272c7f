"""Parse the name of a container image, and tell what well-known images hold."""

from __future__ import annotations

import re
from typing import NamedTuple

_ROOTS = ("python", "debian", "ubuntu", "alpine", "node", "scratch", "nvidia/cuda", "continuumio/miniconda3", "fedora")
"""Images that run as root unless the Dockerfile has a USER."""


_ALPINE_WITHOUT_CURL = ("alpine", "python", "node", "redis", "postgres")
"""Images whose variants on Alpine have no curl."""


_OWN_USER = (
    "jupyter/",
    "quay.io/jupyter/",
    "bitnami/",
    "cgr.dev/",
    "public.ecr.aws/lambda/",  # Lambda starts every image as a user of its own
    "amazon/aws-lambda-",
)


class ImageName(NamedTuple):
    """The parts of an image name. Docker Hub and `library/` are left out of `name`."""

    name: str
    tag: str
    digest: str

    @property
    def slim(self) -> bool:
        """True for a small image, as far as its name and tag tell."""
        return bool(re.search(r"slim|alpine|distroless|minimal|chainguard|wolfi", f"{self.name}:{self.tag}"))

    @property
    def known_root(self) -> bool:
        return self.name in _ROOTS

    @property
    def maybe_root(self) -> bool:
        return not re.search(r"nonroot|rootless|unprivileged", self.tag) and not self.name.startswith(_OWN_USER)

    def lacks(self, program: str) -> bool:
        """Return True if the image is known not to have curl, wget or nc."""
        if self.name == "scratch" or "distroless" in self.name:
            return True
        if self.name == "alpine" or "alpine" in self.tag:  # others on Alpine may install curl, as nginx does
            return program == "curl" and self.name in _ALPINE_WITHOUT_CURL  # wget and nc are BusyBox's
        slim = self.name in ("debian", "ubuntu") or (self.name in ("python", "node") and "slim" in self.tag)
        return slim or self.name in ("redis", "postgres", "ghcr.io/mlflow/mlflow")


def parse_image_name(text: str) -> ImageName:
    """Split `registry/name:tag@digest`."""
    rest, _, digest = text.partition("@")
    head, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    name = f"{head}{slash}{last}".removeprefix("docker.io/").removeprefix("library/")
    return ImageName(name, tag, digest)
