"""Build the image of a context as an OCI layout on this machine, without a container engine."""

from __future__ import annotations

import shutil
import site
import sys
import tarfile
from pathlib import Path

from estiba.core import shell
from estiba.core.errors import Conflict, EstibaError, NotFound
from estiba.core.stores.disk import explained, place, temporary
from estiba.deploy.image import oci_layout, wheels
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.image.oci_layout import Layer, Underlying
from estiba.deploy.image.spec import ImageSpec

_REPRODUCIBLE = {"SOURCE_DATE_EPOCH": "0", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


def write(context: BuildContext, target: Path, base: Path | None = None) -> str:
    """Write the image of a context as an OCI layout, which appears whole or not at all.

    An image of the style `scratch` takes Python from the base image if there is one, and else from this machine; one
    of the style `slim` is built on the layers of its base image.

    Args:
        target: a folder that does not exist yet. base: a file that `docker save` wrote of the base image.

    Returns:
        The digest of its manifest, with the algorithm.

    Raises:
        Conflict: `target` exists. NotFound: the base image is needed and `base` is None. EstibaError: another Python
            runs here than the image is to have, or it needs Debian packages.
    """
    _check(context.spec, target)
    digests = []

    def fill(folder: Path) -> None:
        with temporary("build") as work:
            digests.append(_layout(context, folder, work, _base(context.spec, base)))

    if not place(target, fill):
        raise Conflict(f"{target} appeared meanwhile.", hint="Choose another folder.")
    return digests[0]


def _check(spec: ImageSpec, target: Path) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not sys.platform.startswith("linux"):
        raise EstibaError("Without a container engine, images are built on Linux only.", hint="Use --builder docker.")
    if here != spec.contents.python:
        hint = f"Run Estiba with Python {spec.contents.python}, or leave out --oci to build with a container engine."
        raise EstibaError(
            f"The image needs Python {spec.contents.python}, but Estiba runs on Python {here}.", hint=hint
        )
    if spec.contents.packages:
        hint = "Leave out --oci to build with a container engine."
        names = ", ".join(spec.contents.packages)
        raise EstibaError(f"{spec.service} needs Debian packages ({names}), which only apt can install.", hint=hint)
    if target.exists():
        raise Conflict(f"{target} exists already.", hint="Remove it, or choose another folder.")


def _base(spec: ImageSpec, saved: Path | None) -> Underlying | None:
    if saved is None:
        if spec.style == "slim":
            base = spec.contents.base
            hint = f"Save it: docker save {base} -o base.tar, and pass --base base.tar. Or use --style scratch."
            raise NotFound(f"The style slim needs the layers of {base}.", hint=hint)
        return None
    with explained("read", saved):
        try:
            return oci_layout.base_image(saved)
        except (tarfile.TarError, KeyError, ValueError, IndexError) as error:
            raise EstibaError(f"{saved} is not an image archive of `docker save`: {error}") from error


def _layout(context: BuildContext, layout: Path, work: Path, base: Underlying | None) -> str:
    spec = context.spec
    packages, server, root = work / "packages", work / "server", work / "root-fs"
    _install(context, context.wheels, packages)
    _run(context, "trim_packages", str(packages), spec.contents.trim_level, "packages")
    layers = _lowest(context, layout, work, base)
    layers.append(oci_layout.add_folder(layout, packages, "packages, each a wheel named by its SHA-256"))
    if spec.has_estiba:
        _install(context, sorted((context.folder / "code").glob("*.whl")), server)
        _run(context, "trim_packages", str(server), "server" if spec.contents.models else "app", "server")
        layers.append(oci_layout.add_folder(layout, server, "the server"))
    if spec.runtime.volumes:
        # A new volume gets the owner and mode of the folder that it is mounted over: group 0 may write to it.
        for volume in spec.runtime.volumes:
            (work / "volumes" / volume.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for path in (work / "volumes").rglob("*"):
            path.chmod(0o770 if f"/{path.relative_to(work / 'volumes')}" in spec.runtime.volumes else 0o755)
        layers.append(oci_layout.add_folder(layout, work / "volumes", "mount points of volumes"))
    for name in ("app", "models"):
        if (context.folder / name).is_dir():
            layers.append(oci_layout.add_folder(layout, context.folder / name, name, name))
    shutil.rmtree(root, ignore_errors=True)
    return oci_layout.finish(layout, spec, layers, _environment(spec, base))


def _environment(spec: ImageSpec, base: Underlying | None) -> dict[str, str]:
    if base is not None:
        return dict(base.environment)
    if any("dist-packages" in folder for folder in site.getsitepackages()):
        # Debian's own Python looks for packages in another folder than other builds of Python.
        return {"PYTHONPATH": f"/usr/local/lib/python{spec.contents.python}/site-packages"}
    return {}


def _lowest(context: BuildContext, layout: Path, work: Path, base: Underlying | None) -> list[Layer]:
    """The layers below the packages: the base image with bytecode for its library, or Python and shared libraries."""
    spec, packages = context.spec, work / "packages"
    system = "/"
    if base is not None:
        system = str(work / "base")
        oci_layout.unpack(base, Path(system))
    if spec.style == "scratch":
        _run(context, "rootfs", str(work / "root-fs"), spec.contents.trim_level, system, str(packages))
        return [oci_layout.add_folder(layout, work / "root-fs", "Python, and the shared libraries that are needed")]
    assert base is not None
    with base.open() as contents:
        layers = [oci_layout.add_tar(layout, content, spec.contents.base) for content in contents]
    _run(context, "rootfs", "bytecode", str(work / "bytecode"), spec.contents.trim_level, system)
    return [*layers, oci_layout.add_folder(layout, work / "bytecode", "bytecode of Python's own library")]


def _install(context: BuildContext, paths: list[Path], target: Path) -> None:
    target.mkdir()
    for wheel in paths:
        wheels.unpack(wheel, target, context.spec.contents.python)


def _run(context: BuildContext, module: str, *arguments: str) -> None:
    """Run a step of the build stage as the Dockerfile does."""
    environment = {**_REPRODUCIBLE, "PYTHONPATH": str(context.folder / "tools")}
    done = shell.run([sys.executable, "-m", f"estiba.deploy.image.slim.{module}", *arguments], environment=environment)
    if done.code:
        full = "No space left on device" in done.said
        hint = (
            "The disk of temporary files is full: free some space, or set TMPDIR to another folder." if full else None
        )
        raise EstibaError(
            f"The step {module} of {context.spec.service} failed: {done.said.splitlines()[-1]}", hint=hint
        )


def load(engine: Engine, layout: Path, name: str) -> None:
    """Load a layout into a container engine under the given name."""
    with temporary("load") as folder:
        packed = folder / "image.tar"
        oci_layout.pack(layout, packed, name)
        engine.load(packed)
