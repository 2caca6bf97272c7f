"""Assemble the build context of an image: a folder with everything that its Dockerfile names."""

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
from estiba.deploy.image.spec import ImageSpec, image_spec
from estiba.deploy.plan import image_options
from estiba.deploy.plan.plan import Plan, Service
from estiba.model.artifact import artifact
from estiba.model.registry import records

SPEC = "image.json"
LOCK = "lock.json"
HELD = "registry"
"""The folder of models with which an image that holds none is verified."""

_BUILD_TOOLS = Path(__file__).parent / "slim"
"""The package that runs in the build stage; its files are copied into the context."""

_EPOCH = "1970-01-01T00:00:00.000000Z"


@dataclass(frozen=True)
class BuildContext:
    """The folder that an image is built from.

    Args:
        left_out: by package that is not in it, the reason.
    """

    folder: Path
    spec: ImageSpec
    left_out: Mapping[str, str]

    @property
    def wheels(self) -> list[Path]:
        """The wheels of the image, without Estiba's own."""
        return sorted((self.folder / "wheels").glob("*.whl"))

    @property
    def models(self) -> Path:
        """The folder of a registry with the models that the image serves."""
        return self.folder / (HELD if self.spec.contents.registry else "models")


def assemble(plan: Plan, service: Service, folder: Path, *, style: str | None = None) -> BuildContext:
    """Fill an empty folder with everything that the image of a service is built from.

    Raises:
        EstibaError: wheels cannot be fetched, or the folder cannot be written. NotFound, BadArtifact: a model is
            missing or broken. BadProject: the command starts a file that the image does not get.
    """
    entrypoint_check.check(plan, service)
    spec = image_spec(plan, service, style)
    with explained("write", folder):
        left_out = _packages(plan, service, spec, folder / "wheels")
        spec = _with_system_libraries(spec, folder / "wheels")
        _tools(folder / "tools")
        if spec.has_estiba:
            (folder / "code").mkdir()
            wheels.own(folder / "code")
        if spec.contents.models:
            _settings(spec, folder / "models")
            _models(service, folder / HELD if spec.contents.registry else folder / "models")
        for path in spec.contents.include:
            _copy(plan.folder / path, folder / "app" / path)
        for name in ("models", HELD, "app"):
            _make_readable(folder / name)
        texts = {dockerfile.DOCKERFILE: dockerfile.render(spec), dockerfile.IGNORE: dockerfile.ignore(spec)}
        texts["requirements.txt"] = requirements.locked(folder / "wheels", _reasons(service, spec))
        texts[SPEC] = msgspec.json.format(msgspec.json.encode(spec), indent=2).decode() + "\n"
        texts[LOCK] = msgspec.json.format(msgspec.json.encode(left_out), indent=2).decode() + "\n"
        for name, text in texts.items():
            (folder / name).write_text(text)
    return BuildContext(folder, spec, left_out)


def opened(folder: Path) -> BuildContext:
    """Read a build context that was assembled earlier, such as one from an archive.

    Raises:
        EstibaError: the folder is not a build context.
    """
    with explained("read", folder):
        try:
            spec = msgspec.json.decode((folder / SPEC).read_bytes(), type=ImageSpec)
            left_out = msgspec.json.decode((folder / LOCK).read_bytes(), type=dict[str, str])
        except msgspec.MsgspecError as error:
            raise EstibaError(
                f"{folder} is not the build context of an image: {error}", hint="Export it again."
            ) from None
    return BuildContext(folder, spec, left_out)


def _packages(plan: Plan, service: Service, spec: ImageSpec, folder: Path) -> Mapping[str, str]:
    if spec.kind == "models":
        fetched, left_out = _locked(_serving(service, spec), spec.contents.python)
    else:
        fetched, left_out = _of_project(service, spec)
    copy_tree(fetched, folder)
    for path in folder.glob("*.whl"):
        name, _ = requirements.wheel_name(path)
        if requirements.is_graphics(name) or name in left_out:
            path.unlink()
            left_out.setdefault(name, "only for graphics cards")
    if spec.kind in ("notebook", "training"):
        return {**left_out, **_add_estiba(plan, spec, folder)}
    return left_out


def _serving(service: Service, spec: ImageSpec) -> requirements.Lock:
    driver = requirements.POSTGRES_DRIVER if spec.contents.store == "postgres" else ()
    if not spec.contents.registry:
        return requirements.serving(service.models, extra=driver)
    return requirements.serving(service.models, extra=["onnxruntime", *libraries(spec.contents.registry), *driver])


def _locked(lock: requirements.Lock, python: str) -> tuple[Path, dict[str, str]]:
    return wheels.fetch("", python, exact=[str(pin) for pin in lock.pins]), dict(lock.left_out)


def _add_estiba(plan: Plan, spec: ImageSpec, folder: Path) -> Mapping[str, str]:
    """Add the wheels for training and packing with Estiba that the service's own requirements do not bring.

    Returns:
        By package that is left out of those, the reason.
    """
    have = {requirements.wheel_name(path)[0] for path in folder.glob("*.whl")}
    code = spec.contents.include if spec.kind == "training" else ()  # a notebook's needs are in its requirements
    lock = requirements.training(plan.folder, code)
    exact = [str(pin) for pin in lock.pins if pin.name not in have]
    if spec.kind == "notebook" and "uv" not in have:
        exact.append("uv")
    for path in wheels.fetch("", spec.contents.python, exact=exact).glob("*.whl"):
        shutil.copyfile(path, folder / path.name)
    return lock.left_out


def _of_project(service: Service, spec: ImageSpec) -> tuple[Path, dict[str, str]]:
    build = service.build
    assert build is not None
    text = ""
    if build.requirements is not None:
        with explained("read", build.requirements):
            text = build.requirements.read_text()
    kept, added = requirements.cpu_only(text)
    left_out = {name: f"{cpu} is the same without what only graphics cards need" for name, cpu in _swapped(added)}
    return wheels.fetch(kept if kept.strip() else "", spec.contents.python, exact=added), left_out


def _swapped(added: list[str]) -> list[tuple[str, str]]:
    names = {line.partition("==")[0] for line in added}
    return [(name, cpu) for name, cpu in requirements.CPU_BUILDS.items() if cpu in names]


def _with_system_libraries(spec: ImageSpec, folder: Path) -> ImageSpec:
    """Add the Debian packages whose shared libraries the wheels need and do not bring."""
    missing = shared_libraries.missing(sorted(folder.glob("*.whl")))
    packages = sorted({*spec.contents.packages, *shared_libraries.packages(missing)})
    contents = msgspec.structs.replace(spec.contents, packages=tuple(packages))
    return msgspec.structs.replace(spec, contents=contents)


def _reasons(service: Service, spec: ImageSpec) -> dict[str, str]:
    return {pin.name: pin.why for pin in _serving(service, spec).pins} if service.models else {}


def _tools(folder: Path) -> None:
    package = folder / "estiba" / "deploy" / "image" / "slim"
    package.mkdir(parents=True)
    for parent in (package.parent, package.parents[1], package.parents[2]):
        (parent / "__init__.py").touch()
    for path in sorted(_BUILD_TOOLS.glob("*.py")):
        shutil.copyfile(path, package / path.name)


def _settings(spec: ImageSpec, folder: Path) -> None:
    folder.mkdir()
    settings = msgspec.json.encode(spec.contents.settings)
    (folder / "server.json").write_bytes(msgspec.json.format(settings, indent=2) + b"\n")


def _models(service: Service, folder: Path) -> None:
    """Write a registry with the versions of all models, without creation times: equal models give equal bytes.

    Of most models that is one version. Those with a route have all that it names, and their aliases.
    """
    for model in service.models:
        manifest = artifact.read(model.path).manifest
        copy_tree(model.path, folder / records.artifact_folder(model.digest))
        version = records.Version(
            name=model.name,
            version=int(model.version),
            digest=model.digest,
            created=_EPOCH,
            metrics=manifest.metrics,
        )
        _write_record(folder / records.version_file(model.name, version.version), version)
        for name in model.aliases:
            alias = records.Alias(name=model.name, alias=name, version=version.version, updated=_EPOCH)
            _write_record(folder / records.alias_file(model.name, name), alias)


def _write_record(path: Path, record: records.Version | records.Alias) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(records.encode(record))


def _copy(source: Path, target: Path) -> None:
    with explained("read", source):
        if source.is_dir():
            copy_tree(source, target, image_options.is_excluded)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def _make_readable(folder: Path) -> None:
    """Let every user read the files, and run those that their owner may run, whatever the umask here is.

    A container runs as another user than the one who builds its image.
    """
    for path in (folder, *folder.rglob("*")):
        if path.exists() and not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def copy_tree(source: Path, target: Path, never: Callable[[Path], bool] = lambda path: False) -> None:
    """Copy a folder; symbolic links are copied as links.

    Unlike shutil.copytree it stops at the first file that cannot be copied, with that file's own error.

    Args:
        never: returns True for a file to leave out, or for a folder to leave out with everything below it.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        copy = target / path.name
        if never(path):
            continue
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.is_dir():
            copy_tree(path, copy, never)
        else:
            shutil.copy(path, copy)
