"""Images: `[images]` of the project file, and what the images of a project are called."""

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


NEVER = ("__pycache__", "*.pyc", ".git", ".env", ".env.*", ".estiba", ".venv", ".DS_Store")
"""What is never copied out of a project: caches, and what may hold secrets."""


class ImageOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[images]` of the project file: how `estiba build` makes images.

    Args:
        repository: goes before the name of each image, such as ghcr.io/acme/portfolio.
        python: minor version of the images' Python; by default the one that runs Estiba.
        style: of images that serve models: `slim` on the official Python image, `scratch` with only what runs.
        budget: the most that an image that serves models may weigh, uncompressed, such as 230MB.
        memory, cpus: limits of each container that serves models.
        replicas: how many of each serve models, where more than one can.
        models: `image` puts models into the images; with `registry` containers get them from the project's registry,
            so that a new version needs no new image.
        registry_environment: variables that containers reach that registry with, such as AWS_ENDPOINT_URL;
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
    registry_environment: dict[str, str] = {}


def size(text: str) -> int:
    """Bytes of a text such as 230MB: 1 MB is a million bytes."""
    return int(text[:-2]) * {"MB": 10**6, "GB": 10**9}[text[-2:]]


def slug(name: str) -> str:
    """The name of a project as images, Compose and clusters allow it: lower-case letters, digits and single dashes."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:63].strip("-") or "project"


def stays_out(path: Path) -> bool:
    """Whether a file or folder of a project is in no image: caches, secrets, and the deployments that Estiba wrote,
    which hold secrets too, and whose text would change the tag that stands in it."""
    if any(fnmatch(path.name, pattern) for pattern in NEVER):
        return True
    compose = (path / "compose.yaml").is_file() and (path / "secrets").is_dir()
    return compose or ((path / "base" / "kustomization.yaml").is_file() and (path / "overlays").is_dir())


def host(image: str) -> str:
    """The host, with its port, of the registry that the name of an image begins with; empty where it names none.

    As container engines have it, the first part is a host if there is a dot or a colon in it, or if it is localhost.
    """
    first, slash, _ = image.partition("/")
    return first if slash and (first == "localhost" or "." in first or ":" in first) else ""


def version(image: str) -> str:
    """What the name of an image says of its version: its tag, else the beginning of its digest, else `latest`."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or digest.rpartition(":")[2][:12] or "latest"


def reference(options: ImageOptions, project: str, service: str, tag: str) -> str:
    """The name of the image of a service.

    Args:
        tag: says what is in it, so that equal tags mean equal images.
    """
    return f"{options.repository or slug(project)}/{service}:{tag}".lower()
