"""`[images]` of the project file, and the names of a project's images."""

from __future__ import annotations

import re
import unicodedata
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from estiba.deploy.plan.service_options import Memory

Style = Literal["slim", "scratch"]


EXCLUDED = ("__pycache__", "*.pyc", ".git", ".env", ".env.*", ".estiba", ".venv", ".DS_Store")
"""Patterns of files that are never copied into an image: caches, and files that may hold secrets."""


class ImageOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[images]` of the project file: how `estiba build` makes images.

    Args:
        repository: the prefix of each image's name, such as ghcr.io/acme/portfolio.
        python: the minor version of Python in the images; by default the one that runs Estiba.
        style: of images that serve models: `slim` on the official Python image, `scratch` with only the files that
            are used at run time.
        budget: the largest size of an image that serves models, uncompressed, such as 230MB.
        memory, cpus: limits of each container that serves models.
        replicas: the number of containers that serve models, on targets that can run more than one.
        models: `image` puts models into the images; with `registry` containers get them from the project's registry,
            so that a new version needs no new image.
        trust: also for models that run code of their authors, although this project has not trained them.
        registry_environment: variables for the access of containers to that registry, such as AWS_ENDPOINT_URL;
            `${secrets.NAME}` is the path of a secret.
    """

    repository: str = ""
    python: Annotated[str, Meta(pattern=r"^3\.[0-9]+$")] | None = None
    style: Style = "scratch"
    budget: Memory | None = None
    memory: Memory = "512MB"
    cpus: Annotated[float, Meta(gt=0)] = 1.0
    replicas: Annotated[int, Meta(ge=1)] = 1
    models: Literal["image", "registry"] = "image"
    trust: bool = False
    registry_environment: dict[str, str] = {}


def size(text: str) -> int:
    """The bytes of a text such as 230MB: 1 MB is a million bytes."""
    return int(text[:-2]) * {"MB": 10**6, "GB": 10**9}[text[-2:]]


def slug(name: str) -> str:
    """The name of a project as images, Compose and clusters allow it: lower-case letters, digits and single dashes."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:63].strip("-") or "project"


def is_excluded(path: Path) -> bool:
    """True if a file or folder of a project is never copied into an image.

    Besides EXCLUDED these are the deployments that Estiba wrote: they hold secrets, and the tag of the image itself.
    """
    if any(fnmatch(path.name, pattern) for pattern in EXCLUDED):
        return True
    compose = (path / "compose.yaml").is_file() and (path / "secrets").is_dir()
    return compose or ((path / "base" / "kustomization.yaml").is_file() and (path / "overlays").is_dir())


def host(image: str) -> str:
    """The host, with its port, of the registry in the name of an image; empty if it names none.

    As for container engines, the first part is a host if it contains a dot or a colon, or is localhost.
    """
    first, slash, _ = image.partition("/")
    return first if slash and (first == "localhost" or "." in first or ":" in first) else ""


def version(image: str) -> str:
    """The version in the name of an image: its tag, else the beginning of its digest, else `latest`."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or digest.rpartition(":")[2][:12] or "latest"


def reference(options: ImageOptions, project: str, service: str, tag: str) -> str:
    """The name of the image of a service.

    Args:
        tag: derived from the contents, so that equal tags mean equal images.
    """
    return f"{options.repository or slug(project)}/{service}:{tag}".lower()
