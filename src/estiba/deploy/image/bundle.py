"""Export everything that images are built from into one archive, for machines without a network."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from estiba.core.errors import BadProject, EstibaError, NotFound
from estiba.core.stores.disk import explained, temporary, write_whole
from estiba.deploy.image import build_context, container_engine, sbom
from estiba.deploy.image.build import Event, temporary_context
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.plan.plan import Plan, Service

CONTENTS = "estiba-export.json"

_SCHEMA = 2
"""The version of the archives that are written; those of version 1 describe images in another form."""


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table of contents of an archive.

    Args:
        bases: by base image, the path of its file in the archive.
    """

    schema: int
    project: str
    services: tuple[str, ...]
    bases: dict[str, str]


@dataclass(frozen=True)
class Opened:
    """An archive that was unpacked.

    Args:
        bases: by base image, the file that `docker save` wrote of it.
    """

    contexts: tuple[BuildContext, ...]
    bases: Mapping[str, Path]


def export(plan: Plan, services: Sequence[Service], target: Path, style: str | None, on_event: Event) -> Listed:
    """Write an archive with the build contexts of services, their base images and bills of materials.

    Args:
        target: the archive; compressed if its name ends in .gz.

    Raises:
        BadProject: an image needs Debian packages, which no archive holds. EstibaError: the file cannot be written.
    """
    with temporary("export") as work:
        folder = work / "all"
        bases: dict[str, str] = {}
        for service in services:
            with temporary_context(plan, service, style, on_event) as context:
                _check(context)
                context.folder.rename(_make_folder(folder / "services") / service.name)
            moved = build_context.opened(folder / "services" / service.name)
            _write_bill(moved, folder / "sbom")
            base = moved.spec.contents.base
            bases.setdefault(base, f"bases/{base.replace('/', '_').replace(':', '_')}.tar")
        bases = _save_bases(folder, bases, on_event)
        listed = Listed(_SCHEMA, plan.project, tuple(service.name for service in services), bases)
        (folder / CONTENTS).write_bytes(msgspec.json.encode(listed))
        write_whole(target, lambda handle: _pack(handle, folder, target.suffix == ".gz"))
    return listed


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check(context: BuildContext) -> None:
    if context.spec.contents.packages:
        names = ", ".join(context.spec.contents.packages)
        hint = "Build that image on a machine with a network, and transfer it with `docker save`."
        raise BadProject(
            f"{context.spec.service} needs Debian packages, which an archive cannot contain: {names}.", hint=hint
        )


def _write_bill(context: BuildContext, folder: Path) -> None:
    text = sbom.cyclonedx(context.spec.image, sbom.parts(context))
    (_make_folder(folder) / f"{context.spec.service}.cdx.json").write_text(text)


def _save_bases(folder: Path, bases: Mapping[str, str], on_event: Event) -> dict[str, str]:
    """Save base images; without a container engine none is saved, and images can still be made of this Python."""
    try:
        engine = container_engine.find()
    except NotFound:
        return {}
    saved = {}
    for name, path in bases.items():
        on_event(name, "saving", "the base image")
        if not engine.has(name):
            engine.ask("pull", name)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        engine.save(name, folder / path)
        saved[name] = path
    return saved


def _pack(handle: IO[bytes], folder: Path, compressed: bool) -> None:
    """Write a tar file with sorted names, one time and one owner, so that equal contents give equal bytes."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    out = gzip.GzipFile(fileobj=handle, mode="wb", mtime=0, compresslevel=1) if compressed else handle
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                tar.add(path, path.relative_to(folder).as_posix(), filter=plain)
    if out is not handle:
        out.close()


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Unpack an archive for as long as the block runs.

    Raises:
        NotFound: there is no such file. EstibaError: it is not an archive of `estiba export`, or of another version.
    """
    with temporary("import") as folder:
        with explained("read", path):
            try:
                with tarfile.open(path) as tar:
                    tar.extractall(folder, filter="data")
                listed = msgspec.json.decode((folder / CONTENTS).read_bytes(), type=Listed)
            except (tarfile.TarError, EOFError, FileNotFoundError, msgspec.MsgspecError) as error:
                if isinstance(error, FileNotFoundError) and not path.exists():
                    raise
                hint = "Create one with: estiba export"
                raise EstibaError(
                    f"{path} is not an archive of `estiba export`: {str(error).splitlines()[0]}", hint=hint
                ) from error
        if listed.schema > _SCHEMA:
            raise EstibaError(f"{path} was created by a newer Estiba.", hint="Upgrade Estiba here.")
        if listed.schema < _SCHEMA:
            raise EstibaError(f"{path} was created by an older Estiba.", hint="Create it again with: estiba export")
        contexts = tuple(build_context.opened(folder / "services" / name) for name in listed.services)
        yield Opened(contexts, {name: folder / inside for name, inside in listed.bases.items()})


def provide_base(engine: Engine, archive: Opened, image: str, on_event: Callable[[str], None]) -> None:
    """Load a base image from the archive into a container engine that does not have it.

    Raises:
        NotFound: neither the engine nor the archive has it.
    """
    if engine.has(image):
        return
    if image not in archive.bases:
        hint = "Export again on a machine whose container engine has it, or build without an engine: --oci DIR."
        raise NotFound(f"The base image {image} is neither in the archive nor in {engine.program}.", hint=hint)
    on_event(f"loading {image}")
    engine.load(archive.bases[image])
