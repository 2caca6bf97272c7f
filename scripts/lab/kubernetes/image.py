"""Writes an image of one layer that `ctr images import` and `docker load` read, without a daemon or a base image."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path


def layer(files: dict[str, Path]) -> bytes:
    """A tar of `{path in the image: file}`, the same bytes for the same files; folders above each path included."""
    folders: set[str] = set()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for target, source in sorted(files.items()):
            for folder in reversed(Path(target.lstrip("/")).parents):
                if str(folder) != "." and str(folder) not in folders:
                    folders.add(str(folder))
                    tar.addfile(entry(str(folder), tarfile.DIRTYPE))
            content = source.read_bytes()
            tar.addfile(entry(target.lstrip("/"), tarfile.REGTYPE, len(content)), io.BytesIO(content))
    return buffer.getvalue()


def entry(name: str, kind: bytes, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, size, 0o755
    return info


def write(archive: Path, name: str, content: bytes, config: Mapping[str, object]) -> None:
    """The archive that `docker save` would write: a layer, its configuration, and the list of both."""
    digest = hashlib.sha256(content).hexdigest()
    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "scripts/lab/kubernetes/image.py"}],
    }
    settings = json.dumps(described).encode()
    settings_name = hashlib.sha256(settings).hexdigest() + ".json"
    listed = [{"Config": settings_name, "RepoTags": [name], "Layers": [f"{digest}.tar"]}]
    with tarfile.open(archive, "w") as tar:
        for path, data in (
            (f"{digest}.tar", content),
            (settings_name, settings),
            ("manifest.json", json.dumps(listed).encode()),
        ):
            tar.addfile(entry(path, tarfile.REGTYPE, len(data)), io.BytesIO(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("name", help="such as example.test/web:1")
    parser.add_argument("files", nargs="*", metavar="FILE=/PATH/IN/IMAGE")
    parser.add_argument("--entrypoint", required=True)
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    asked = parser.parse_args()
    files = {target: Path(source) for source, _, target in (item.partition("=") for item in asked.files)}
    config = {"Entrypoint": [asked.entrypoint], "Env": ["PATH=/bin", *asked.env], "User": "10001"}
    write(asked.archive, asked.name, layer(files), config)


if __name__ == "__main__":
    main()
