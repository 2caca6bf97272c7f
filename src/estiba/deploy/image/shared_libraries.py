"""Find the shared libraries that wheels need and that neither wheels nor a slim Python image contain."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from estiba.core.errors import EstibaError
from estiba.core.stores.disk import explained
from estiba.deploy.image.slim import elf

_ALWAYS_THERE = re.compile(
    r"ld-linux.*|linux-vdso.*|lib(c|m|dl|rt|pthread|util|resolv|nsl|crypt|anl|nss_\w+)\.so\.\d+"
    r"|libstdc\+\+\.so\.6|libgcc_s\.so\.1|libz\.so\.1|libbz2\.so\.1.*|liblzma\.so\.5|libffi\.so\.\d+|libuuid\.so\.1"
    r"|libexpat\.so\.1|libsqlite3\.so\.0|libssl\.so\.3|libcrypto\.so\.3|libpython3.*\.so.*|libselinux\.so\.1"
)
"""Libraries of the slim Python images, or that a wheel may expect of every Linux (manylinux)."""

_GRAPHICS = re.compile(r"lib(cuda|cudart|cublas|cublasLt|cudnn|cufft|curand|cusolver|cusparse|nccl|nvrtc|nvinfer).*")

_DEBIAN = {
    "libgomp.so.1": "libgomp1",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libgobject-2.0.so.0": "libglib2.0-0",
    "libxcb.so.1": "libxcb1",
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libXrender.so.1": "libxrender1",
    "libpq.so.5": "libpq5",
    "libodbc.so.2": "unixodbc",
    "libsndfile.so.1": "libsndfile1",
    "libopenblas.so.0": "libopenblas0-pthread",
    "libgfortran.so.5": "libgfortran5",
    "libquadmath.so.0": "libquadmath0",
    "libnuma.so.1": "libnuma1",
    "libatomic.so.1": "libatomic1",
    "libmysqlclient.so.21": "libmysqlclient21",
    "libmariadb.so.3": "libmariadb3",
    "libexpat.so.1": "libexpat1",
}


def missing(wheels: Sequence[Path]) -> dict[str, str]:
    """By name of a missing shared library, the file that needs it.

    Raises:
        EstibaError: a wheel cannot be read.
    """
    needed_by: dict[str, str] = {}
    brought: set[str] = set()
    for wheel in wheels:
        for name, about in _libraries(wheel):
            brought |= {Path(name).name, about.soname}
            needed_by |= {needed: f"{wheel.name.split('-')[0]} ({name})" for needed in about.needed}
    return {
        name: where
        for name, where in sorted(needed_by.items())
        if name not in brought and not _ALWAYS_THERE.fullmatch(name) and not _GRAPHICS.match(name)
    }


def packages(missing: Mapping[str, str]) -> list[str]:
    """Debian packages with the given libraries.

    Raises:
        EstibaError: the package of a library is unknown.
    """
    for name, where in missing.items():
        if name not in _DEBIAN:
            hint = "Find its package with `apt-file search`, and add that to `packages` of the service."
            raise EstibaError(f"{where} needs the library {name}, which a slim image does not have.", hint=hint)
    return sorted({_DEBIAN[name] for name in missing})


def _libraries(wheel: Path) -> Iterator[tuple[str, elf.Elf]]:
    with explained("read", wheel), zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if ".so" in Path(name).suffixes and (about := elf.parse(archive.read(name))):
                yield name, about
