"""Fetch the wheels of an image with pip, cache them by request, and make Estiba's own wheel of its files."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import os
import platform
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import estiba
from estiba.core import shell
from estiba.core.errors import EstibaError, NotFound
from estiba.core.stores.disk import explained, place

GLIBC = range(36, 16, -1)
"""Minor versions of the C library that wheels may be built for: that of Debian 12 and older ones."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold."""


def machine() -> str:
    """The architecture of the machine, as in the names of wheels."""
    name = platform.machine()
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(name.lower(), name)


def cache() -> Path:
    """The cache of fetched wheels, a folder for each request."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "estiba" / "wheels"


def fetch(requirements: str, python: str, *, exact: Sequence[str] = (), place_in: Path | None = None) -> Path:
    """Fetch wheels for requirements into a cached folder, and return the folder.

    Args:
        requirements: the text of a requirements file; its dependencies are fetched too.
        exact: packages to fetch without their dependencies.
        python: the minor version of Python, such as `3.11`.
        place_in: the cache; by default in the user's cache folder.

    Raises:
        EstibaError: a package has no wheel, or the index cannot be reached; the message has pip's error.
    """
    key = "\0".join([requirements, *exact, python, machine()])
    target = (place_in or cache()) / hashlib.sha256(key.encode()).hexdigest()[:32]

    def fill(folder: Path) -> None:
        if requirements.strip():
            (folder / "requirements.txt").write_text(requirements)
            # A file with hashes lists all dependencies: none is to be added or resolved.
            whole = ["--no-deps"] if "--hash=" in requirements else []
            _download(folder, python, [*whole, "-r", str(folder / "requirements.txt")])
            (folder / "requirements.txt").unlink()
        if exact:
            _download(folder, python, ["--no-deps", *exact])

    if not target.is_dir():
        place(target, fill)
    return target


def _download(folder: Path, python: str, what: Sequence[str]) -> None:
    platforms = [f"manylinux_2_{minor}_{machine()}" for minor in GLIBC]
    platforms += [f"{old}_{machine()}" for old in ("manylinux2014", "manylinux2010", "manylinux1")]
    command = [*_pip(), "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    command += ["--python-version", _patch(python), "--implementation", "cp"]
    for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
        command += ["--abi", abi]
    for name in platforms:
        command += ["--platform", name]
    done = shell.run([*command, "--dest", str(folder), *what])
    if done.code:
        reason = [line for line in done.said.splitlines() if line.startswith("ERROR")] or [done.said]
        error = reason[-1].removeprefix("ERROR: ")
        hint = "Each package needs a wheel for that Python, and the index must be reachable (see pip's settings)."
        raise EstibaError(f"Wheels for Python {python} cannot be fetched: {error}", hint=hint)


def _patch(python: str) -> str:
    """A minor version with the running patch version, or with one that is new enough for any requirement."""
    here = platform.python_version()
    return here if here.startswith(f"{python}.") else f"{python}.99"


def _pip() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if shutil.which("uvx"):
        return ["uvx", "pip"]
    hint = "Install it with: python -m ensurepip"
    raise NotFound("Fetching wheels needs pip, which is not installed here.", hint=hint)


def own(folder: Path) -> Path:
    """Write Estiba's own wheel of the running files; equal files give equal bytes.

    Returns:
        The path of the wheel.
    """
    name = f"estiba-{estiba.__version__}"
    source = Path(estiba.__file__).parent
    with explained("read", source):
        files = {f"estiba/{path.relative_to(source).as_posix()}": path.read_bytes() for path in _sources(source)}
    compiled = any(path.endswith(".so") for path in files)
    # The kernel uses the limited C interface of Python 3.11, and so runs on all later versions.
    tag = f"cp311-abi3-linux_{machine()}" if compiled else "py3-none-any"
    about = metadata.distribution("estiba")
    files |= {f"{name}.dist-info/METADATA": (about.read_text("METADATA") or "").encode()}
    files |= {f"{name}.dist-info/entry_points.txt": b"[console_scripts]\nestiba = estiba.__main__:main\n"}
    wheel = f"Wheel-Version: 1.0\nGenerator: estiba\nRoot-Is-Purelib: {str(not compiled).lower()}\nTag: {tag}\n"
    files |= {f"{name}.dist-info/WHEEL": wheel.encode()}
    files |= {f"{name}.dist-info/RECORD": _record(files, name)}
    path = folder / f"{name}-{tag}.whl"
    with explained("write", path), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside in sorted(files):
            entry = zipfile.ZipInfo(inside, _EPOCH)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[inside])
    return path


def _sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _record(files: Mapping[str, bytes], name: str) -> bytes:
    lines = []
    for path in sorted(files):
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[path]).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(files[path])}")
    return ("\n".join([*lines, f"{name}.dist-info/RECORD,,"]) + "\n").encode()


def unpack(wheel: Path, root: Path, python: str) -> None:
    """Install a wheel below `root`/usr/local as pip does (Binary distribution format, PyPA), without running code.

    Raises:
        EstibaError: a path in the wheel leaves the folder.
    """
    base = root / "usr/local"
    site = base / f"lib/python{python}/site-packages"
    with explained("read", wheel), zipfile.ZipFile(io.BytesIO(wheel.read_bytes())) as archive:
        for entry in archive.infolist():
            target = _target(entry.filename, site, base)
            if target is None or entry.is_dir():
                continue
            if ".." in Path(entry.filename).parts or entry.filename.startswith("/"):
                raise EstibaError(f"{wheel.name} has a path outside of it: {entry.filename!r}.", hint="Fetch it again.")
            target.parent.mkdir(parents=True, exist_ok=True)
            data = archive.read(entry)
            script = target.is_relative_to(base / "bin")
            if script and data.startswith(b"#!python"):
                data = b"#!/usr/local/bin/python3" + data[len(b"#!python") :]
            target.write_bytes(data)
            target.chmod(0o755 if script or ".so" in target.suffixes or entry.external_attr >> 16 & 0o100 else 0o644)
    _scripts(site, wheel, base / "bin")


def _target(name: str, site: Path, base: Path) -> Path | None:
    """The path of an installed member of a wheel; None for headers, which are not installed."""
    parts = Path(name).parts
    if not parts[0].endswith(".data") or len(parts) < 3:
        return site / name
    rest = Path(*parts[2:])
    folders = {"purelib": site, "platlib": site, "scripts": base / "bin", "data": base}
    return folders[parts[1]] / rest if parts[1] in folders else None


def _scripts(site: Path, wheel: Path, folder: Path) -> None:
    """Write the commands of a wheel's entry points."""
    name, version, *_ = wheel.name.split("-")
    listed = site / f"{name}-{version}.dist-info" / "entry_points.txt"
    if not listed.is_file():
        return
    points = ConfigParser(delimiters=("=",), interpolation=None)
    points.optionxform = str  # type: ignore[assignment, method-assign]
    points.read_string(listed.read_text())
    for group in {"console_scripts", "gui_scripts"} & set(points.sections()):
        for command, value in points[group].items():
            folder.mkdir(parents=True, exist_ok=True)
            module, _, attribute = value.partition("[")[0].strip().partition(":")
            text = (
                "#!/usr/local/bin/python3\nimport sys\n"
                f"from {module} import {attribute.partition('.')[0]}\n\n"
                f"if __name__ == '__main__':\n    sys.exit({attribute}())\n"
            )
            (folder / command).write_text(text)
            (folder / command).chmod(0o755)
