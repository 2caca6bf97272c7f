"""Write an image as an OCI layout, without a container engine; equal input gives equal bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from estiba.deploy.image.spec import ImageSpec
from estiba.deploy.plan.timing import HEALTH_COMMAND_TIMEOUT_SECONDS, HEALTH_INTERVAL_SECONDS, MAX_HEALTH_FAILURES

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

_NANOSECONDS = 10**9
"""In a second: the unit of health checks in the configuration of an image."""

_CREATED = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Layer:
    """One layer of a layout.

    Args:
        digest, size: of the compressed bytes. plain: the digest of the uncompressed tar file.
        made_by: a note for `docker history`.
    """

    digest: str
    size: int
    plain: str
    made_by: str


def add_folder(layout: Path, folder: Path, made_by: str, inside: str = "") -> Layer:
    """Add a folder to a layout as one layer: sorted names, one time, owner root.

    Args:
        inside: the path of the folder in the image; by default the root.
    """
    return _add(layout, made_by, lambda out: _tar(out, folder, inside))


def add_tar(layout: Path, content: IO[bytes], made_by: str) -> Layer:
    """Add a tar file, which may be compressed with gzip, as one layer without changes."""
    if content.read(2) == b"\x1f\x8b":
        content.seek(0)
        content = gzip.GzipFile(fileobj=content)  # type: ignore[assignment]
    else:
        content.seek(0)

    def copy(out: _Hashing) -> None:
        while part := content.read(1 << 20):
            out.write(part)

    return _add(layout, made_by, copy)


class _Hashing:
    """A writer that compresses (gzip without a time) and hashes the data before and after."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
        self.plain = hashlib.sha256()
        self.packed = hashlib.sha256()
        self.size = 0
        self.position = 0

    def write(self, data: bytes) -> int:
        self.plain.update(data)
        self.position += len(data)
        self._put(self._deflate.compress(data))
        return len(data)

    def tell(self) -> int:
        return self.position

    def finish(self) -> None:
        self._put(self._deflate.flush())

    def _put(self, data: bytes) -> None:
        self.packed.update(data)
        self.size += len(data)
        self._handle.write(data)


def _add(layout: Path, made_by: str, fill: Any) -> Layer:
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    unfinished = blobs / ".unfinished"
    with unfinished.open("wb") as handle:
        out = _Hashing(handle)
        fill(out)
        out.finish()
    unfinished.rename(blobs / out.packed.hexdigest())
    return Layer(f"sha256:{out.packed.hexdigest()}", out.size, f"sha256:{out.plain.hexdigest()}", made_by)


def _tar(out: _Hashing, folder: Path, inside: str) -> None:
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        above = [part for part in inside.split("/") if part]
        for n in range(len(above)):
            tar.addfile(_entry("/".join(above[: n + 1]), 0o755, tarfile.DIRTYPE))
        for path in sorted(folder.rglob("*")):
            name = "/".join([*above, path.relative_to(folder).as_posix()])
            if path.is_symlink():
                entry = _entry(name, 0o777, tarfile.SYMTYPE)
                entry.linkname = str(path.readlink())
                tar.addfile(entry)
            elif path.is_dir():
                tar.addfile(_entry(name, path.stat().st_mode & 0o7777, tarfile.DIRTYPE))
            else:
                entry = _entry(name, path.stat().st_mode & 0o7777, tarfile.REGTYPE)
                entry.size = path.stat().st_size
                with path.open("rb") as handle:
                    tar.addfile(entry, handle)


def _entry(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def finish(layout: Path, spec: ImageSpec, layers: Sequence[Layer], environment: Mapping[str, str]) -> str:
    """Write the configuration, manifest and index of a layout.

    Args:
        environment: further variables, such as those of the base image.

    Returns:
        The digest of the image's manifest, with its algorithm.
    """
    config = _put(layout, _json(_config(spec, layers, environment)))
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer.digest, "size": layer.size}
            for layer in layers
        ],
        "annotations": spec.labels,
    }
    written = _put(layout, _json(manifest))
    entry = {"mediaType": manifest["mediaType"], **written, "annotations": _names(spec.image)}
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [entry]}))
    # The format of `docker load` before Docker 25, which reads OCI layouts.
    paths = [f"blobs/sha256/{layer.digest.removeprefix('sha256:')}" for layer in layers]
    old = {"Config": f"blobs/sha256/{_hex(config)}", "RepoTags": [spec.image], "Layers": paths}
    (layout / "manifest.json").write_bytes(_json([old]))
    return str(written["digest"])


def _config(spec: ImageSpec, layers: Sequence[Layer], environment: Mapping[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "User": f"{spec.process.user}:0",
        "Env": [f"{name}={value}" for name, value in {**environment, **spec.variables}.items()],
        "WorkingDir": spec.process.workdir,
        "Labels": spec.labels,
        "StopSignal": spec.process.stop_signal,
    }
    if spec.process.port is not None:
        config["ExposedPorts"] = {f"{spec.process.port}/tcp": {}}
    if spec.process.entrypoint:
        config["Entrypoint"] = list(spec.process.entrypoint)
    if spec.process.command:
        config["Cmd"] = list(spec.process.command)
    if spec.process.health:
        config["Healthcheck"] = {
            "Test": ["CMD", *spec.process.health],
            "Interval": HEALTH_INTERVAL_SECONDS * _NANOSECONDS,
            "Timeout": HEALTH_COMMAND_TIMEOUT_SECONDS * _NANOSECONDS,
            "StartPeriod": round(spec.runtime.start_timeout * _NANOSECONDS),
            "Retries": MAX_HEALTH_FAILURES,
        }
    return {
        "created": _CREATED,
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.plain for layer in layers]},
        "history": [{"created": _CREATED, "created_by": layer.made_by} for layer in layers],
    }


def _put(layout: Path, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _hex(described: Mapping[str, Any]) -> str:
    return str(described["digest"]).removeprefix("sha256:")


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def pack(layout: Path, target: Path, name: str) -> None:
    """Write a layout as one tar file for `docker load` and `podman load`, with the given image name."""
    texts = {
        "manifest.json": _renamed(layout / "manifest.json", name),
        "index.json": _named(layout / "index.json", name),
    }
    with tarfile.open(target, "w") as tar:
        for path in sorted(layout.rglob("*")):
            inside = path.relative_to(layout).as_posix()
            if inside in texts:
                entry = _entry(inside, 0o644, tarfile.REGTYPE)
                entry.size = len(texts[inside])
                tar.addfile(entry, io.BytesIO(texts[inside]))
            elif path.is_file():
                tar.add(path, inside)


def _renamed(path: Path, name: str) -> bytes:
    described = json.loads(path.read_bytes())
    described[0]["RepoTags"] = [name]
    return _json(described)


def _named(path: Path, name: str) -> bytes:
    index = json.loads(path.read_bytes())
    index["manifests"][0]["annotations"] = _names(name)
    return _json(index)


def _names(image: str) -> dict[str, str]:
    """Annotations with the name of an image: the tag for skopeo and podman, all of it for containerd and docker."""
    return {"org.opencontainers.image.ref.name": image.rpartition(":")[2], "io.containerd.image.name": image}


@dataclass(frozen=True)
class Underlying:
    """A base image in a saved archive.

    Args:
        environment: variables that it sets. digest: of its configuration, with the algorithm.
    """

    path: Path
    layers: tuple[str, ...]
    environment: Mapping[str, str]
    digest: str

    @contextmanager
    def open(self) -> Iterator[Iterator[IO[bytes]]]:
        """Open the layers of the image, the lowest first."""
        with tarfile.open(self.path) as outer:
            yield (layer for name in self.layers if (layer := outer.extractfile(name)) is not None)


def base_image(path: Path) -> Underlying:
    """Read an archive of `docker save` or `skopeo copy ... docker-archive:`; else raise KeyError or ValueError."""
    with tarfile.open(path) as outer:
        manifest = outer.extractfile("manifest.json")
        assert manifest is not None
        described = json.loads(manifest.read())[0]
        configuration = outer.extractfile(described["Config"])
        assert configuration is not None
        content = configuration.read()
    config = json.loads(content)["config"]
    environment = dict(entry.split("=", 1) for entry in config.get("Env") or ())
    return Underlying(path, tuple(described["Layers"]), environment, f"sha256:{hashlib.sha256(content).hexdigest()}")


def unpack(base: Underlying, target: Path) -> None:
    """Unpack the layers of a base image into a folder, without owners and devices."""
    with base.open() as layers:
        for content in layers:
            with tarfile.open(fileobj=content) as tar:
                for entry in tar:
                    folder, _, name = entry.name.rpartition("/")
                    if name.startswith(".wh."):
                        removed = target / folder / name[4:]
                        removed.unlink(missing_ok=True) if not removed.is_dir() else None
                    elif entry.isreg() or entry.isdir() or entry.issym() or entry.islnk():
                        entry.mode = (entry.mode | 0o700) if entry.isdir() else entry.mode | 0o400
                        tar.extract(entry, target, set_attrs=True, filter=_without_owner)


def _without_owner(entry: tarfile.TarInfo, target: str) -> tarfile.TarInfo:
    return entry.replace(uid=None, gid=None, uname=None, gname=None, mtime=None, deep=False)  # type: ignore[arg-type]
