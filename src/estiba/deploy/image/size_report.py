"""Measure the size of an image by package, and report the files that were left out."""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from estiba.core.errors import EstibaError
from estiba.core.stores.disk import explained
from estiba.deploy.image.slim.trim_packages import OWNERS, REPORT, LeftOut

_KEPT = (REPORT, OWNERS, "var/lib/dpkg/info", "var/lib/dpkg/status", "etc/os-release", "usr/lib/os-release")
"""Paths below which files are read: they list the owners of the other files."""


@dataclass(frozen=True)
class Weight:
    """The size of an image, uncompressed.

    Args:
        bytes: of all files in the final state of the image.
        layers: bytes of each layer, the lowest first; a file that a later layer replaces counts in both.
        packages: bytes by package, the largest first.
        left_out: files that the build left out, the largest first.
        files: the number of files.
    """

    bytes: int
    layers: tuple[int, ...]
    packages: Mapping[str, int]
    left_out: tuple[LeftOut, ...]
    files: int

    @property
    def total(self) -> int:
        """Bytes of all layers: the size in a registry and on a disk, which a budget limits."""
        return sum(self.layers)


@dataclass
class Contents:
    """The files of an image, collected layer by layer."""

    sizes: dict[str, int] = field(default_factory=dict)
    layers: list[int] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)

    def add(self, layer: Iterable[tuple[str, int, bytes | None]]) -> None:
        """Add a layer of (path without a leading slash, size, content if `is_read` is True for the path)."""
        weight = 0
        for path, size, content in layer:
            folder, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                self._remove(folder)
            elif name.startswith(".wh."):
                self._remove(f"{folder}/{name[4:]}".lstrip("/"))
            else:
                weight += size
                self.sizes[path] = size
                if content is not None:
                    self.texts[path] = content
        self.layers.append(weight)

    def _remove(self, path: str) -> None:
        gone = [known for known in self.sizes if known == path or known.startswith(f"{path}/")]
        for known in gone:
            del self.sizes[known]
            self.texts.pop(known, None)


def is_read(path: str) -> bool:
    """True if the content of a file is needed to find the owners of others."""
    return path.startswith(_KEPT)


def archive(path: Path) -> Contents:
    """The contents of an image archive as docker and podman save it.

    Raises:
        EstibaError: the file is not an image archive.
    """
    contents = Contents()
    with explained("read", path):
        try:
            with tarfile.open(path) as outer:
                manifest = _member(outer, "manifest.json")
                for name in json.loads(manifest.read())[0]["Layers"]:
                    contents.add(_layer(_member(outer, name)))
        except (tarfile.TarError, ValueError, KeyError, IndexError) as error:
            raise EstibaError(f"{path} is not an archive of an image: {error}") from error
    return contents


def layout(folder: Path) -> Contents:
    """The contents of an image that was written as an OCI layout."""
    contents = Contents()
    with explained("read", folder):
        for name in json.loads((folder / "manifest.json").read_bytes())[0]["Layers"]:
            with (folder / name).open("rb") as handle:
                contents.add(_layer(handle))
    return contents


def _member(outer: tarfile.TarFile, name: str) -> IO[bytes]:
    member = outer.extractfile(name)
    if member is None:
        raise KeyError(name)
    return member


def _layer(content: IO[bytes]) -> Iterator[tuple[str, int, bytes | None]]:
    with tarfile.open(fileobj=content) as inner:
        for entry in inner:
            if entry.isdir():
                continue
            path = entry.name.removeprefix("./").lstrip("/")
            text = inner.extractfile(entry) if entry.isreg() and is_read(path) else None
            yield path, entry.size if entry.isreg() else 0, text.read() if text else None


def weigh(contents: Contents) -> Weight:
    """Add the sizes of all files up by the package that owns them."""
    owners = _owners(contents)
    debian = _debian(contents)
    packages: dict[str, int] = defaultdict(int)
    for path, size in contents.sizes.items():
        packages[_owner(path, owners, debian)] += size
    left_out: dict[tuple[str, str], int] = defaultdict(int)
    for path, content in contents.texts.items():
        if path.startswith(REPORT):
            for package, why, size in json.loads(content):
                left_out[package, why] += size
    return Weight(
        bytes=sum(contents.sizes.values()),
        layers=tuple(contents.layers),
        packages=dict(sorted(packages.items(), key=lambda item: (-item[1], item[0]))),
        left_out=tuple(
            sorted((LeftOut(name, why, size) for (name, why), size in left_out.items() if size), key=lambda e: -e.bytes)
        ),
        files=len(contents.sizes),
    )


def _owners(contents: Contents) -> dict[str, str]:
    owners: dict[str, str] = {}
    for path, content in contents.texts.items():
        if path.startswith(OWNERS):
            owners |= json.loads(content)
    return owners


def _debian(contents: Contents) -> dict[str, str]:
    """By path, the Debian package that owns it, in an image with the lists of dpkg."""
    owners: dict[str, str] = {}
    for path, content in contents.texts.items():
        if path.startswith("var/lib/dpkg/info/") and path.endswith(".list"):
            package = path.rpartition("/")[2].removesuffix(".list").partition(":")[0]
            for line in content.decode(errors="replace").splitlines():
                owners[line.lstrip("/")] = package
    return owners


def _owner(path: str, owners: Mapping[str, str], debian: Mapping[str, str]) -> str:
    if path in owners:  # outside of site-packages
        return owners[path].replace("_", "-").lower()
    parts = path.split("/")
    if "site-packages" in parts:
        return _package(parts[parts.index("site-packages") + 1 :], owners).replace("_", "-").lower()
    if path.startswith("models/"):
        return "models"
    if path.startswith("app/"):
        return "the application"
    if path.startswith("usr/local/lib/python3") or path.startswith(("usr/local/bin/python", "usr/local/include")):
        return "Python"
    if "libpython3" in path:
        return "Python"
    known = debian.get(path) or debian.get(path.removeprefix("usr/"))
    if known:
        return f"{known} (Debian)"
    if ".so" in parts[-1]:
        return f"{parts[-1].partition('.so')[0]} (system library)"
    return "other files"


def _package(inside: list[str], owners: Mapping[str, str]) -> str:
    """The package of a file in site-packages; bytecode belongs to the package of its source."""
    if inside[-2:-1] == ["__pycache__"]:
        inside = [*inside[:-2], inside[-1].partition(".")[0] + ".py"]
    known = (owners.get("/".join(inside[: end + 1])) for end in range(len(inside)))
    return next(filter(None, known), "") or inside[0].partition("-")[0].removesuffix(".libs").removesuffix(".py")


def check_budget(weight: Weight, budget: int | None, image: str) -> None:
    """Raise EstibaError if an image exceeds its budget; the message names the largest parts."""
    if budget is None or weight.total <= budget:
        return
    heaviest = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in list(weight.packages.items())[:5])
    raise EstibaError(
        f"{image} weighs {weight.total / 1e6:.1f} MB, more than its budget of {budget / 1e6:.0f} MB: {heaviest}.",
        hint='List all parts with: estiba build --explain. Or raise `budget`, or set style = "scratch".',
    )
