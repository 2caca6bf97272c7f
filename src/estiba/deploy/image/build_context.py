"""Context: the folder of which an image is built, with everything in it that the Dockerfile names."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from estiba.core.errors import EstibaError
from estiba.core.stores.disk import explained
from estiba.core.stores.files import libraries
from estiba.deploy.image import dockerfile, entrypoint_check, requirements, shared_libraries, wheels
from estiba.deploy.image.spec import Recipe, recipe
from estiba.deploy.plan import image_options
from estiba.deploy.plan.plan import Plan, Service
from estiba.model.artifact import artifact
from estiba.model.registry import records

RECIPE = "recipe.json"
LOCK = "lock.json"
HELD = "registry"
"""The models of an image that holds none, to try it with."""

_BUILD_TOOLS = Path(__file__).parent / "slim"
"""The package that runs in the build stage."""

_NO_TIME = "1970-01-01T00:00:00.000000Z"


@dataclass(frozen=True)
class Context:
    """A folder to build from.

    Args:
        left_out: packages that are not in it, and why.
    """

    folder: Path
    recipe: Recipe
    left_out: Mapping[str, str]

    @property
    def wheels(self) -> list[Path]:
        """The packages of the image, Estiba's own wheel aside."""
        return sorted((self.folder / "wheels").glob("*.whl"))

    @property
    def models(self) -> Path:
        """A registry of the models that are served."""
        return self.folder / (HELD if self.recipe.registry else "models")


def assemble(plan: Plan, service: Service, folder: Path, *, style: str | None = None) -> Context:
    """Fills an empty folder with all that the image of a service is built of.

    Raises:
        EstibaError: wheels cannot be had, or the folder cannot be written. NotFound, BadArtifact: of its models.
        BadProject: its command starts what the image does not get.
    """
    entrypoint_check.check(plan, service)
    made = recipe(plan, service, style)
    with explained("write", folder):
        left_out = _packages(plan, service, made, folder / "wheels")
        made = _with_system_libraries(made, folder / "wheels")
        _tools(folder / "tools")
        if made.has_estiba:
            (folder / "code").mkdir()
            wheels.own(folder / "code")
        if made.models:
            _settings(made, folder / "models")
            _models(service, folder / HELD if made.registry else folder / "models")
        for path in made.include:
            _copy(plan.folder / path, folder / "app" / path)
        for name in ("models", HELD, "app"):
            _for_anybody(folder / name)
        texts = {dockerfile.DOCKERFILE: dockerfile.render(made), dockerfile.IGNORE: dockerfile.ignore(made)}
        texts["requirements.txt"] = requirements.locked(folder / "wheels", _reasons(service, made))
        texts[RECIPE] = msgspec.json.format(msgspec.json.encode(made), indent=2).decode() + "\n"
        texts[LOCK] = msgspec.json.format(msgspec.json.encode(left_out), indent=2).decode() + "\n"
        for name, text in texts.items():
            (folder / name).write_text(text)
    return Context(folder, made, left_out)


def opened(folder: Path) -> Context:
    """A context that was assembled earlier, such as one out of an archive.

    Raises:
        EstibaError: it is none.
    """
    with explained("read", folder):
        try:
            made = msgspec.json.decode((folder / RECIPE).read_bytes(), type=Recipe)
            left_out = msgspec.json.decode((folder / LOCK).read_bytes(), type=dict[str, str])
        except msgspec.MsgspecError as error:
            raise EstibaError(f"{folder} is not what an image is built of: {error}", hint="Export it again.") from None
    return Context(folder, made, left_out)


def _packages(plan: Plan, service: Service, made: Recipe, folder: Path) -> Mapping[str, str]:
    if made.kind == "models":
        found, left_out = _locked(_serving(service, made), made.python)
    else:
        found, left_out = _of_project(service, made)
    copy_tree(found, folder)
    for path in folder.glob("*.whl"):
        name, _ = requirements.wheel_name(path)
        if requirements.is_graphics(name) or name in left_out:
            path.unlink()
            left_out.setdefault(name, "only for graphics cards")
    if made.kind in ("notebook", "training"):
        return {**left_out, **_add_estiba(plan, made, folder)}
    return left_out


def _serving(service: Service, made: Recipe) -> requirements.Lock:
    if not made.registry:
        return requirements.serving(service.models)
    return requirements.serving(service.models, extra=["onnxruntime", *libraries(made.registry)])


def _locked(lock: requirements.Lock, python: str) -> tuple[Path, dict[str, str]]:
    return wheels.fetch("", python, exact=[str(pin) for pin in lock.pins]), dict(lock.left_out)


def _add_estiba(plan: Plan, made: Recipe, folder: Path) -> Mapping[str, str]:
    """Adds what it takes to train and pack with Estiba, where the service's own requirements do not say which version.

    Returns:
        Packages that are left out of that, and why.
    """
    have = {requirements.wheel_name(path)[0] for path in folder.glob("*.whl")}
    code = made.include if made.kind == "training" else ()  # a notebook's needs are in its requirements
    lock = requirements.training(plan.folder, code)
    exact = [str(pin) for pin in lock.pins if pin.name not in have]
    if made.kind == "notebook" and "uv" not in have:
        exact.append("uv")
    for path in wheels.fetch("", made.python, exact=exact).glob("*.whl"):
        shutil.copyfile(path, folder / path.name)
    return lock.left_out


def _of_project(service: Service, made: Recipe) -> tuple[Path, dict[str, str]]:
    build = service.build
    assert build is not None
    text = ""
    if build.requirements is not None:
        with explained("read", build.requirements):
            text = build.requirements.read_text()
    kept, added = requirements.cpu_only(text)
    left_out = {name: f"{cpu} is the same without what only graphics cards need" for name, cpu in _swapped(added)}
    return wheels.fetch(kept if kept.strip() else "", made.python, exact=added), left_out


def _swapped(added: list[str]) -> list[tuple[str, str]]:
    names = {line.partition("==")[0] for line in added}
    return [(name, cpu) for name, cpu in requirements.CPU_BUILDS.items() if cpu in names]


def _with_system_libraries(made: Recipe, folder: Path) -> Recipe:
    """The recipe with the Debian packages that its wheels need and do not bring."""
    missing = shared_libraries.missing(sorted(folder.glob("*.whl")))
    packages = sorted({*made.packages, *shared_libraries.packages(missing)})
    return msgspec.structs.replace(made, packages=tuple(packages))


def _reasons(service: Service, made: Recipe) -> dict[str, str]:
    return {pin.name: pin.why for pin in _serving(service, made).pins} if service.models else {}


def _tools(folder: Path) -> None:
    package = folder / "estiba" / "deploy" / "image" / "slim"
    package.mkdir(parents=True)
    for parent in (package.parent, package.parents[1], package.parents[2]):
        (parent / "__init__.py").touch()
    for path in sorted(_BUILD_TOOLS.glob("*.py")):
        shutil.copyfile(path, package / path.name)


def _settings(made: Recipe, folder: Path) -> None:
    folder.mkdir()
    (folder / "server.json").write_bytes(msgspec.json.format(msgspec.json.encode(made.settings), indent=2) + b"\n")


def _models(service: Service, folder: Path) -> None:
    """A registry with one version of each model. It holds no time of making, so that equal models give equal bytes."""
    for model in service.models:
        manifest = artifact.read(model.path).manifest
        copy_tree(model.path, folder / records.artifact_folder(model.digest))
        version = records.Version(
            name=model.name,
            version=int(model.version),
            digest=model.digest,
            created=_NO_TIME,
            metrics=manifest.metrics,
        )
        path = folder / records.version_file(model.name, version.version)
        path.parent.mkdir(parents=True)
        path.write_bytes(records.encode(version))


def _copy(source: Path, target: Path) -> None:
    with explained("read", source):
        if source.is_dir():
            copy_tree(source, target, image_options.stays_out)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def _for_anybody(folder: Path) -> None:
    """Lets any user read it, and run what its owner may run, whatever rights new files get here: a container is one."""
    for path in (folder, *folder.rglob("*")):
        if path.exists() and not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def copy_tree(source: Path, target: Path, never: Callable[[Path], bool] = lambda path: False) -> None:
    """Copies a folder; links stay links.

    Unlike shutil.copytree it stops at the first file that cannot be copied, with that file's own error.

    Args:
        never: whether a file is left out, or a folder with all below it.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        place = target / path.name
        if never(path):
            continue
        if path.is_symlink():
            place.symlink_to(path.readlink())
        elif path.is_dir():
            copy_tree(path, place, never)
        else:
            shutil.copy(path, place)
