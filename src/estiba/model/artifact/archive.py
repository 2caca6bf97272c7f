"""Write an artifact as one file, and read it back.

The file is an uncompressed tar (POSIX.1-2001) whose bytes are the same on every machine."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import IO

from estiba.core.errors import BadArtifact
from estiba.core.stores.disk import explained, write_whole
from estiba.model.artifact import artifact
from estiba.model.artifact.artifact import MANIFEST, Artifact

SUFFIX = ".estiba"

_MAX_MANIFEST_BYTES = 64 * 2**20
_AGAIN = "Export or copy it again: it may be cut short, compressed, or not an exported model."


def save(packed: Artifact, file: Path) -> None:
    """Write a verified artifact into one file: DIGEST/artifact.json, then its files by path.

    Raises:
        EstibaError: the file cannot be written; the file that was there before is untouched.
    """

    def fill(handle: IO[bytes]) -> None:
        with tarfile.open(fileobj=handle, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in [MANIFEST, *(entry.path for entry in packed.manifest.files)]:
                _add(tar, packed.path / name, f"{packed.digest}/{name}")

    write_whole(file, fill)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    # A fresh TarInfo has no owner, no time and the mode 0644.
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    with path.open("rb") as handle:
        tar.addfile(member, handle)


def load(file: Path, into: Path) -> Artifact:
    """Unpack a file that `save` wrote into a directory below `into`, named by the digest, and verify it.

    The manifest comes first and lists the files that may follow, with their sizes; any other member is refused before
    it is written.

    Raises:
        NotFound: there is no such file. BadArtifact: it is damaged, or not an artifact.
    """
    with explained("read", file), file.open("rb") as handle:
        try:
            with tarfile.open(fileobj=handle, mode="r:") as tar:
                return _unpack(tar, into, file)
        except (tarfile.TarError, EOFError) as error:
            raise BadArtifact(f"{file} is not a complete {SUFFIX} file: {error}.", hint=_AGAIN) from error


def _unpack(tar: tarfile.TarFile, into: Path, file: Path) -> Artifact:
    first = tar.next()
    digest, _, name = first.name.partition("/") if first else ("", "", "")
    if first is None or name != MANIFEST or not first.isreg() or first.issparse() or first.size > _MAX_MANIFEST_BYTES:
        raise BadArtifact(f"{file} does not begin with a manifest.", hint=_AGAIN)
    content = _content(tar, first).read()
    manifest = artifact.decode(content, digest, file)
    sizes = {f"{digest}/{entry.path}": entry.bytes for entry in manifest.files}

    def fill(folder: Path) -> None:
        (folder / MANIFEST).write_bytes(content)
        while member := tar.next():
            # A sparse member is long without a byte in the file: it would fill the disk before its digest is known.
            if not member.isreg() or member.issparse() or sizes.pop(member.name, -1) != member.size:
                raise BadArtifact(f"{file} contains {member.name!r}, which its manifest does not list.", hint=_AGAIN)
            _extract(_content(tar, member), folder / member.name.removeprefix(f"{digest}/"))

    return artifact.settle(into / digest, fill, file)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return tar.extractfile(member) or io.BytesIO()


def _extract(source: IO[bytes], target: Path) -> None:
    import shutil

    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as handle:
        shutil.copyfileobj(source, handle)
