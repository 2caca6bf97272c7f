"""Daemonless: the image of a context as an OCI layout, made on this machine without any container engine."""

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
from estiba.deploy.image.build_context import Context
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.image.oci_layout import Layer, Underlying
from estiba.deploy.image.spec import Recipe

_SAME_BYTES = {"SOURCE_DATE_EPOCH": "0", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


def write(made: Context, target: Path, base: Path | None = None) -> str:
    """Writes the image of a context as an OCI layout, which appears whole or not at all.

    An image of the style `scratch` takes Python from the base image if one is given, and else from this machine; one
    of the style `slim` lies on the layers of its base image.

    Args:
        target: a folder that is not there yet. base: what `docker save` wrote of the base image.

    Returns:
        The digest of its manifest, with the algorithm.

    Raises:
        Conflict: `target` is there. NotFound: the base image is needed and not here. EstibaError: another Python runs
            here than the image is to have, or it needs Debian packages.
    """
    _check(made.recipe, target)
    digests = []

    def fill(folder: Path) -> None:
        with temporary("build") as work:
            digests.append(_layout(made, folder, work, _base(made.recipe, base)))

    if not place(target, fill):
        raise Conflict(f"{target} appeared meanwhile.", hint="Choose another folder.")
    return digests[0]


def _check(recipe: Recipe, target: Path) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not sys.platform.startswith("linux"):
        raise EstibaError("Without a container engine, images are made on Linux only.", hint="Use --builder docker.")
    if here != recipe.python:
        hint = f"Run Estiba with Python {recipe.python}, or leave out --oci to build with a container engine."
        raise EstibaError(f"The image is to have Python {recipe.python}, and Python {here} runs here.", hint=hint)
    if recipe.packages:
        hint = "Leave out --oci to build with a container engine."
        names = ", ".join(recipe.packages)
        raise EstibaError(f"{recipe.service} needs Debian packages ({names}), which only apt installs.", hint=hint)
    if target.exists():
        raise Conflict(f"{target} is there already.", hint="Remove it, or choose another folder.")


def _base(recipe: Recipe, given: Path | None) -> Underlying | None:
    if given is None:
        if recipe.style == "slim":
            hint = f"Save it: docker save {recipe.base} -o base.tar, and say --base base.tar. Or use --style scratch."
            raise NotFound(f"The style slim needs the layers of {recipe.base}.", hint=hint)
        return None
    with explained("read", given):
        try:
            return oci_layout.base_image(given)
        except (tarfile.TarError, KeyError, ValueError, IndexError) as error:
            raise EstibaError(f"{given} is not an image as `docker save` writes it: {error}") from error


def _layout(made: Context, layout: Path, work: Path, base: Underlying | None) -> str:
    recipe = made.recipe
    packages, server, root = work / "packages", work / "server", work / "root-fs"
    _install(made, made.wheels, packages)
    _run(made, "trim_packages", str(packages), recipe.level, "packages")
    layers = _lowest(made, layout, work, base)
    layers.append(oci_layout.add_folder(layout, packages, "packages, each a wheel named by its SHA-256"))
    if recipe.has_estiba:
        _install(made, sorted((made.folder / "code").glob("*.whl")), server)
        _run(made, "trim_packages", str(server), "server" if recipe.models else "app", "server")
        layers.append(oci_layout.add_folder(layout, server, "the server"))
    if recipe.volumes:
        # A fresh volume gets owner and rights of what it is mounted over: group 0 may write to it.
        for place in recipe.volumes:
            (work / "volumes" / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for path in (work / "volumes").rglob("*"):
            path.chmod(0o770 if f"/{path.relative_to(work / 'volumes')}" in recipe.volumes else 0o755)
        layers.append(oci_layout.add_folder(layout, work / "volumes", "where volumes are mounted"))
    for name in ("app", "models"):
        if (made.folder / name).is_dir():
            layers.append(oci_layout.add_folder(layout, made.folder / name, name, name))
    shutil.rmtree(root, ignore_errors=True)
    return oci_layout.finish(layout, recipe, layers, _environment(recipe, base))


def _environment(recipe: Recipe, base: Underlying | None) -> dict[str, str]:
    if base is not None:
        return dict(base.environment)
    if any("dist-packages" in folder for folder in site.getsitepackages()):
        # Debian's own Python looks for packages elsewhere than every other one.
        return {"PYTHONPATH": f"/usr/local/lib/python{recipe.python}/site-packages"}
    return {}


def _lowest(made: Context, layout: Path, work: Path, base: Underlying | None) -> list[Layer]:
    """What the packages lie on: the base image and bytecode for its library, or Python and little else."""
    recipe, packages = made.recipe, work / "packages"
    system = "/"
    if base is not None:
        system = str(work / "base")
        oci_layout.unpack(base, Path(system))
    if recipe.style == "scratch":
        _run(made, "rootfs", str(work / "root-fs"), recipe.level, system, str(packages))
        return [
            oci_layout.add_folder(layout, work / "root-fs", "Python, and the shared libraries that all of it needs")
        ]
    assert base is not None
    with base.open() as contents:
        layers = [oci_layout.add_tar(layout, content, recipe.base) for content in contents]
    _run(made, "rootfs", "bytecode", str(work / "bytecode"), recipe.level, system)
    return [*layers, oci_layout.add_folder(layout, work / "bytecode", "bytecode of Python's own library")]


def _install(made: Context, found: list[Path], target: Path) -> None:
    target.mkdir()
    for wheel in found:
        wheels.unpack(wheel, target, made.recipe.python)


def _run(made: Context, module: str, *words: str) -> None:
    """Runs a step of the build stage as the Dockerfile does."""
    environment = {**_SAME_BYTES, "PYTHONPATH": str(made.folder / "tools")}
    done = shell.run([sys.executable, "-m", f"estiba.deploy.image.slim.{module}", *words], environment=environment)
    if done.code:
        full = "No space left on device" in done.said
        hint = (
            "The disk of temporary files is full: free some space, or name another place with TMPDIR." if full else None
        )
        raise EstibaError(f"The step {module} of {made.recipe.service} failed: {done.said.splitlines()[-1]}", hint=hint)


def load(engine: Engine, layout: Path, name: str) -> None:
    """Takes a layout into a container engine, under a name of its own."""
    with temporary("load") as folder:
        packed = folder / "image.tar"
        oci_layout.pack(layout, packed, name)
        engine.load(packed)
