"""Rules about the version, the size and the end of life of base images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from typing import ClassVar

from estiba.doctor.finding import Finding, Location
from estiba.doctor.read.compose_file import Compose
from estiba.doctor.read.containers import Container, Image
from estiba.doctor.read.image_names import ImageName, parse_image_name
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.rule import Rule

_END_OF_LIFE = {
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
"""The day of a version's last security fix, as its makers announced it."""

_DEBIAN_NAMES = {"9": "stretch", "10": "buster", "11": "bullseye", "12": "bookworm"}
_FULL = ("python", "node")
_HUGE = ("continuumio/anaconda3", "anaconda3", "tensorflow/tensorflow")


class EndOfLifeImage(Rule):
    code = "base-end-of-life"
    severity = "warning"
    title = "The base image gets no security fixes any more."
    reason = "Vulnerabilities found after that day stay open in the image, also in Python and OpenSSL themselves."
    example: ClassVar = {
        "Dockerfile": 'FROM python:3.8-slim\nUSER 10001\nCMD ["python", "-m", "http.server", "8000"]\n',
    }
    remedy = "Build on a version that is still maintained, and run the tests with it."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for stage in image.used:
            if stage.below is None and stage.base and "$" not in stage.base:
                yield from cls._ended(stage.base, image.at(stage.instruction.line), today)

    @classmethod
    def _ended(cls, base: str, at: Location, today: date) -> Iterator[Finding]:
        for product, version in _versions(parse_image_name(base)):
            end = _END_OF_LIFE[product].get(version)
            if end is not None and date.fromisoformat(end) < today:
                message = f"{product.capitalize()} {version} of `{base}` has had no security fixes since {end}."
                yield cls.finding(at, message, _newer(product, today))
                return


def _versions(name: ImageName) -> Iterator[tuple[str, str]]:
    """Yield the products in an image with their versions: its own, and the Debian below it."""
    product = name.name.rpartition("/")[2]
    if name.name in ("python", "ubuntu", "alpine", "node"):
        number = re.match(r"\d+\.\d+" if name.name != "node" else r"\d+", name.tag)
        if number:
            yield product, number[0]
    if name.name == "debian" and (number := re.match(r"\d+", name.tag)) and number[0] in _DEBIAN_NAMES:
        yield "debian", _DEBIAN_NAMES[number[0]]
    if name.name in ("debian", "python", "node"):
        yield from (("debian", release) for release in _END_OF_LIFE["debian"] if release in name.tag)


def _newer(product: str, today: date) -> str:
    """Name the version that is maintained longest."""
    version = max(_END_OF_LIFE[product], key=lambda version: _END_OF_LIFE[product][version])
    if date.fromisoformat(_END_OF_LIFE[product][version]) < today:
        return f"Use a version of {product} that is still maintained."
    return f"Use one that is still maintained, such as {version} (until {_END_OF_LIFE[product][version]})."


class UnpinnedBaseImage(Rule):
    code = "unpinned-base"
    severity = "warning"
    title = "The base image has no version: another one may come with the next build."
    reason = (
        "The same Dockerfile gives another Python, and with it other packages, on the day after a release. A model "
        "pickled for the old one may not load any more."
    )
    example: ClassVar = {"Dockerfile": 'FROM python:latest\nUSER 10001\nCMD ["python", "-m", "http.server", "8000"]\n'}
    remedy = "Name the minor version, such as `python:3.12-slim`; best also the digest, `name:tag@sha256:...`."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for stage in image.used:
            if stage.below is None and stage.base and "$" not in stage.base:
                yield from cls._unpinned(stage.base, image.at(stage.instruction.line))

    @classmethod
    def check_compose(cls, compose: Compose, containers: Sequence[Container]) -> Iterator[Finding]:
        built = {_with_tag(service.image) for service in compose.services.values() if service.node.get("build")}
        for service in compose.services.values():
            if service.build is None and service.image and "$" not in service.image:
                if _with_tag(service.image) in built:
                    continue
                yield from cls._unpinned(service.image, service.node.get("image").at)

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        image = str(container.part("Config", "Image") or "")
        if image and not image.startswith("sha256:"):
            yield from cls._unpinned(image, container.at)

    @classmethod
    def _unpinned(cls, image: str, at: Location) -> Iterator[Finding]:
        """Check one name: no version, `latest`, or a version so short that it moves to another Python."""
        name = parse_image_name(image)
        if name.digest or name.name in ("scratch", "") or name.name != name.name.lower():  # a template's placeholder
            return
        if name.tag in ("", "latest"):
            because = "" if name.tag else ", as no tag means `latest`"
            message = f"`{image}` is whatever was published last{because}."
            yield cls.finding(at, message, f"Name a version{_example(name)}.")
        elif name.name == "python" and re.fullmatch(r"3?(?:-?(?:slim|alpine|bookworm|trixie|bullseye))*", name.tag):
            fix = f"Name the minor version too{_example(name)}."
            yield cls.finding(at, f"`{image}` moves to the next Python when that is released.", fix)


def _with_tag(image: str) -> tuple[str, str]:
    name = parse_image_name(image)
    return name.name, name.tag or "latest"


def _example(name: ImageName) -> str:
    return ", such as python:3.12-slim" if name.name == "python" else ", and best its digest (name:tag@sha256:...)"


class FullBaseImage(Rule):
    code = "full-base"
    severity = "warning"
    title = "Image too big: a full base image with compilers and headers."
    reason = (
        "It adds about 900 MB that no program needs at run time: every pull, start on a new machine and scan for "
        "vulnerabilities takes longer."
    )
    example: ClassVar = {"Dockerfile": 'FROM python:3.12\nUSER 10001\nCMD ["python", "-m", "http.server", "8000"]\n'}
    remedy = "Run on the `-slim` image. If something must be compiled, do it in an earlier stage of the Dockerfile."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        final = image.final
        if final is None or "$" in final.base or image.for_windows:
            return
        name = parse_image_name(final.base)
        at = image.at(final.instruction.line)
        full = re.fullmatch(r"(?:\d[\d.]*)?(?:-?(?:bookworm|bullseye|trixie|buster|latest))?|latest", name.tag)
        if name.name in _FULL and full and not name.slim:
            newest = "3.12" if name.name == "python" else "22"
            tag = name.tag if name.tag and name.tag != "latest" else newest
            message = f"`{final.base}` has compilers and headers, about 900 MB more than the slim one."
            version, dash, release = tag.partition("-")
            slim = f"{version}-slim{dash}{release}"
            yield cls.finding(at, message, f"Run on {name.name}:{slim}, and build in another stage if need be.")
        elif name.name in _HUGE:
            message = f"`{final.base}` is several gigabytes of libraries, most of which the program does not use."
            yield cls.finding(at, message, "Run on python:3.12-slim with the few libraries that it needs.")
