"""Base images: their version, how much is in them, whose program they run, and how long they are looked after."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

from estiba.doctor.catalogue import Finding, Location, finding
from estiba.doctor.read.containers import Image
from estiba.doctor.read.dockerfile_stages import Stage

_END = {
    "python": {
        "2.7": "2020-01-01",
        "3.6": "2021-12-23",
        "3.7": "2023-06-27",
        "3.8": "2024-10-07",
        "3.9": "2025-10-31",
        "3.10": "2026-10-31",
        "3.11": "2027-10-31",
        "3.12": "2028-10-31",
        "3.13": "2029-10-31",
        "3.14": "2030-10-31",
    },
    "debian": {"stretch": "2022-06-30", "buster": "2024-06-30", "bullseye": "2026-08-31", "bookworm": "2028-06-30"},
    "ubuntu": {"16.04": "2021-04-30", "18.04": "2023-05-31", "20.04": "2025-05-31", "22.04": "2027-04-30"},
    "alpine": {"3.17": "2024-11-22", "3.18": "2025-05-09", "3.19": "2025-11-01", "3.20": "2026-04-01"},
    "node": {"14": "2023-04-30", "16": "2023-09-11", "18": "2025-04-30", "20": "2026-04-30"},
}
"""The day on which a version gets its last security fix, as its makers announced it."""

_DEBIANS = {"9": "stretch", "10": "buster", "11": "bullseye", "12": "bookworm"}
_ROOTS = ("python", "debian", "ubuntu", "alpine", "node", "scratch", "nvidia/cuda", "continuumio/miniconda3", "fedora")
"""Images whose program runs as root unless somebody says USER."""

_FULL = ("python", "node")
_HUGE = ("continuumio/anaconda3", "anaconda3", "tensorflow/tensorflow")


class ImageName(NamedTuple):
    """An image's name in parts. Without a registry and `library/` where it is one of Docker's own."""

    name: str
    tag: str
    digest: str

    @property
    def slim(self) -> bool:
        """Whether it is one of the small ones, as far as its tag tells."""
        return bool(re.search(r"slim|alpine|distroless|minimal|chainguard|wolfi", f"{self.name}:{self.tag}"))

    @property
    def known_root(self) -> bool:
        return self.name in _ROOTS

    @property
    def maybe_root(self) -> bool:
        return not re.search(r"nonroot|rootless|unprivileged", self.tag) and not self.name.startswith(
            ("jupyter/", "quay.io/jupyter/", "bitnami/", "cgr.dev/")
        )

    def lacks(self, program: str) -> bool:
        """Whether curl or wget is certainly not in it."""
        if self.name == "scratch" or "distroless" in self.name:
            return True
        if self.name == "alpine" or "alpine" in self.tag:
            return program == "curl"  # wget is one of BusyBox's
        slim = self.name in ("debian", "ubuntu") or (self.name in ("python", "node") and "slim" in self.tag)
        return slim or self.name in ("redis", "postgres", "ghcr.io/mlflow/mlflow")


def base(text: str) -> ImageName:
    """Parts the name of an image: `registry/name:tag@digest`."""
    rest, _, digest = text.partition("@")
    head, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    name = f"{head}{slash}{last}".removeprefix("docker.io/").removeprefix("library/")
    return ImageName(name, tag, digest)


def check(image: Image, today: date) -> Iterator[Finding]:
    """What is wrong with the base images of a Dockerfile."""
    for stage in image.used:
        if stage.below is None and stage.base and "$" not in stage.base:
            at = image.at(stage.instruction.line)
            yield from unpinned(stage.base, at)
            yield from _ended(stage, at, today)
    if image.final is not None and "$" not in image.final.base:
        yield from _full(image.final, image)


def unpinned(name: str, at: Location) -> Iterator[Finding]:
    """An image without a version, `latest`, or a version so short that it moves to another Python."""
    found = base(name)
    if found.digest or found.name in ("scratch", "") or found.name != found.name.lower():  # a template's placeholder
        return
    if found.tag in ("", "latest"):
        said = f"`{name}` is whatever was published last" + ("" if found.tag else ", as no tag means `latest`")
        yield finding("unpinned-base", at, f"{said}.", f"Name a version{_example(found)}.")
    elif found.name == "python" and re.fullmatch(r"3?(?:-?(?:slim|alpine|bookworm|trixie|bullseye))*", found.tag):
        fix = f"Name the minor version too{_example(found)}."
        yield finding("unpinned-base", at, f"`{name}` moves to the next Python when that comes out.", fix)


def _example(found: ImageName) -> str:
    return ", such as python:3.12-slim" if found.name == "python" else ", and best its digest (name:tag@sha256:...)"


def _ended(stage: Stage, at: Location, today: date) -> Iterator[Finding]:
    found = base(stage.base)
    for product, version in _versions(found):
        end = _END[product].get(version)
        if end is not None and date.fromisoformat(end) < today:
            message = f"{product.capitalize()} {version} of `{stage.base}` has had no security fixes since {end}."
            yield finding("base-end-of-life", at, message, _newer(product, today))
            return


def _versions(found: ImageName) -> Iterator[tuple[str, str]]:
    name = found.name.rpartition("/")[2]
    if found.name in ("python", "ubuntu", "alpine", "node"):
        number = re.match(r"\d+\.\d+" if found.name != "node" else r"\d+", found.tag)
        if number:
            yield name, number[0]
    if found.name == "debian" and (number := re.match(r"\d+", found.tag)) and number[0] in _DEBIANS:
        yield "debian", _DEBIANS[number[0]]
    if found.name in ("debian", "python", "node"):
        yield from (("debian", code) for code in _END["debian"] if code in found.tag)


def _newer(product: str, today: date) -> str:
    """The version that is looked after longest."""
    name = max(_END[product], key=lambda version: _END[product][version])
    if date.fromisoformat(_END[product][name]) < today:
        return f"Take a version of {product} that is still looked after."
    return f"Take one that is still looked after, such as {name} (until {_END[product][name]})."


def _full(stage: Stage, image: Image) -> Iterator[Finding]:
    found = base(stage.base)
    at = image.at(stage.instruction.line)
    plain = re.fullmatch(r"(?:\d[\d.]*)?(?:-?(?:bookworm|bullseye|trixie|buster|latest))?|latest", found.tag)
    if found.name in _FULL and plain and not found.slim:
        tag = found.tag if found.tag and found.tag != "latest" else "3.12" if found.name == "python" else "22"
        message = f"`{stage.base}` brings compilers and headers, about 900 MB more than the slim one."
        yield finding(
            "full-base", at, message, f"Run on {found.name}:{tag}-slim, and build in another stage if need be."
        )
    elif found.name in _HUGE:
        message = f"`{stage.base}` is several gigabytes of libraries, most of which the program does not use."
        yield finding("full-base", at, message, "Run on python:3.12-slim with the few libraries that it needs.")
