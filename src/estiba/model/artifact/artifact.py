"""Read and write artifacts.

A packed model is a directory named by its digest, which is the same for the same inputs."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from estiba.core.errors import BadArtifact, BadProject, EstibaError, NotFound
from estiba.core.stores.disk import TEMPORARY, discard, explained, place
from estiba.core.suggest import shortened
from estiba.model.artifact.tail import Tail
from estiba.model.schema.signature import Scalar, Signature
from estiba.model.schema.signature_checks import check_sound

SCHEMA = 1
"""The newest manifest schema that this Estiba reads, and the one it writes."""

MANIFEST = "artifact.json"

MAX_PATH_CHARACTERS = 1000
"""Of the path of a file inside an artifact."""

CODE = "code"
"""The folder of an artifact with source files of the packer's own, which is put on the import path."""

Engine = Literal["onnx", "python"]
Format = Literal["onnx", "skops", "joblib", "xgboost", "lightgbm", "catboost"]

_SHOWN_CODE = 8
"""Files and functions that a message names."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_AGAIN = "Pack the model again, or copy the artifact again from its source."


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file: its path inside the artifact (with forward slashes), SHA-256 in hex, size in bytes."""

    path: str
    sha256: str
    bytes: int


class Parity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answers of the packed model to the golden rows, compared with those of the original.

    Args:
        rows: number of golden rows that were compared.
        max_abs_error: by output column, the largest absolute difference.
        labels_equal, labels_total: number of rows whose label agrees, and of all rows; both 0 without labels.
        tolerance: the largest absolute difference that was accepted.
    """

    rows: int
    max_abs_error: dict[str, float]
    labels_equal: int
    labels_total: int
    tolerance: float
    note: str = ""


class SourceCard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The source of the training data: `estiba.model.packing.training_result.Source` as the manifest keeps it."""

    name: str
    rows: int
    simulated: bool = False
    url: str = ""
    licence: str = ""
    notes: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of artifact.json. No time is in it, so that equal inputs give equal bytes.

    Args:
        engine: `onnx` (the kernel or ONNX Runtime) or `python` (the original estimator).
        model_file: path of the model inside the artifact; it is one of `files`.
        format: how `model_file` is encoded.
        framework: the library that trained it, with its version: "scikit-learn 1.9.1".
        metrics: held-out or cross-validated figures, finite.
        params: the settings worth showing.
        parity: the proof against the original; None when nothing was converted.
        libraries: exact version by name of each library on the load path.
        python: the version of Python that packed it.
        source: the origin of the training data.
        reason: why the python engine was chosen; empty otherwise.
        tail: the steps of a pipeline on the python engine that were converted; absent where there are none.
        by_value: functions and classes of the packer's own that the model file itself holds, as bytecode.
        files: every file but artifact.json itself, by path; `write` fills it in.
    """

    schema: int = SCHEMA
    name: str
    engine: Engine
    model_file: str
    format: Format
    framework: str
    signature: Signature
    metrics: dict[str, float] = {}
    params: dict[str, Scalar] = {}
    parity: Parity | None = None
    libraries: dict[str, str] = {}
    python: str = ""
    source: SourceCard | None = None
    reason: str = ""
    description: str = ""
    notes: str = ""
    by_value: tuple[str, ...] = ()
    tail: Tail | msgspec.UnsetType = msgspec.UNSET
    files: tuple[FileEntry, ...] = ()

    @property
    def engine_name(self) -> str:
        """The engine as people read it: `python + kernel` where some steps of a pipeline were converted."""
        return "python + kernel" if self.tail else self.engine

    @property
    def engine_summary(self) -> str:
        """The engine as people read it, with the steps that each part runs."""
        if not self.tail:
            return self.engine
        python, converted = ", ".join(self.tail.python_steps), ", ".join(self.tail.converted_steps)
        return f"{self.engine_name}: {python} in Python; {converted} converted"

    @property
    def code_files(self) -> tuple[str, ...]:
        """Paths of the source files of the packer's own."""
        return tuple(entry.path for entry in self.files if entry.path.startswith(f"{CODE}/"))

    @property
    def code_summary(self) -> str:
        """The code of the packer's own in a few words: the first source files, and what the model file holds."""
        held = [*self.code_files, *(f"{name} (in {self.model_file})" for name in self.by_value)]
        more = f" and {len(held) - _SHOWN_CODE} more" if len(held) > _SHOWN_CODE else ""
        return f"{', '.join(held[:_SHOWN_CODE])}{more}"


@dataclass(frozen=True)
class Artifact:
    """An artifact on this machine. `digest` is 64 hex digits, the name of the directory `path`."""

    path: Path
    digest: str
    manifest: Manifest

    def file(self, name: str) -> Path:
        """The path of one of the artifact's files.

        Raises:
            NotFound: the manifest names no such file.
        """
        if any(entry.path == name for entry in self.manifest.files):
            return self.path / name
        known = ", ".join(entry.path for entry in self.manifest.files)
        raise NotFound(f"The artifact {self.path} has no file {name!r}.", hint=f"It has: {known}.")

    @property
    def model(self) -> Path:
        return self.path / self.manifest.model_file


def write(root: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Artifact:
    """Write an artifact below `root` and return it; the same inputs give the same directory.

    The directory appears whole or not at all. If it is there already it is verified and reused, or written
    anew when it is damaged.

    Args:
        manifest: without `files`, which are filled in here.
        files: content by path inside the artifact; `manifest.model_file` is one of them.

    Raises:
        EstibaError: the manifest cannot be stored as it is (a number that is not finite, a path that leaves
            the artifact, no model file), or the directory cannot be written.
    """
    entries = tuple(FileEntry(path, _sha256(files[path]), len(files[path])) for path in sorted(files))
    content = encode(msgspec.structs.replace(manifest, files=entries))
    digest = _sha256(content)
    target = root / digest

    def fill(folder: Path) -> None:
        for path, data in {**files, MANIFEST: content}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)

    return settle(target, fill)


def settle(target: Path, fill: Callable[[Path], None], origin: Path | str = "") -> Artifact:
    """Put an artifact at `target`, a directory named by its digest, verified before the name appears.

    Args:
        fill: writes the artifact's files into the directory that it is given.
        origin: their source, for messages; `target` by default.

    Raises:
        BadArtifact: the files do not match the digest. EstibaError: the directory cannot be written.
    """

    def checked(folder: Path) -> None:
        fill(folder)
        _check(folder, target.name, origin or target)

    try:
        return read(target)
    except NotFound:
        pass
    except BadArtifact:
        with explained("replace", target):
            discard(target)
    created = place(target, checked)
    return read(target, verify=not created)


def read(path: Path, *, verify: bool = True) -> Artifact:
    """Open an artifact directory and verify it against its name before anything in it is loaded.

    Args:
        path: a directory named by its digest.
        verify: False skips the size and SHA-256 of each file, for a directory that was verified already.

    Raises:
        NotFound: there is no such directory.
        BadArtifact: it is damaged, foreign, a symbolic link, or made by a newer Estiba; names the file.
    """
    path = path.absolute()
    with explained("read", path):
        if path.is_symlink():
            hint = "Use the path of the directory that it points to."
            raise BadArtifact(f"{path} is a symbolic link.", hint=hint)
        if not path.exists():
            raise NotFound(f"There is no artifact at {path}.", hint="Check the path, or pack the model again.")
        if not path.is_dir():
            raise BadArtifact(f"{path} is not a directory.", hint=_AGAIN)
        return Artifact(path, path.name, _check(path, path.name, path, verify=verify))


def _check(folder: Path, digest: str, where: Path | str, *, verify: bool = True) -> Manifest:
    """Verify the files in `folder` and return the manifest. `where` names the folder in messages."""
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise BadArtifact(f"{where}/{MANIFEST} is missing or is not a plain file.", hint=_AGAIN)
    manifest = decode(path.read_bytes(), digest, where)
    if verify:
        _check_files(folder, manifest, where)
    return manifest


def encode(manifest: Manifest) -> bytes:
    """The canonical bytes of artifact.json: UTF-8, fields in the order of the type, mappings by key.

    Raises:
        EstibaError: they would not read back as the same manifest.
    """
    try:
        # Twice: the second pass writes 1 and 1.0 in a field of floats alike.
        manifest = _parse(_dump(manifest))
        problem = _fault(manifest)
    except (TypeError, msgspec.MsgspecError, OverflowError) as error:
        problem = f"{error}"
    if problem:
        hint = "Every number in metrics, params and parity must be finite, and paths stay inside the artifact."
        raise EstibaError(f"The manifest of {manifest.name!r} cannot be stored: {problem}", hint=hint)
    return msgspec.json.format(_dump(manifest), indent=2) + b"\n"


def _dump(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest, enc_hook=_plain, order="deterministic")


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's, without importing NumPy."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored in a manifest")


def decode(content: bytes, digest: str, where: Path | str) -> Manifest:
    """Parse the bytes of artifact.json after comparing them with the digest.

    Args:
        where: the directory or address of the artifact, for messages.

    Raises:
        BadArtifact: the digest differs, the schema is newer, or the manifest is not valid.
    """
    name = f"{where}/{MANIFEST}"
    if not _DIGEST.fullmatch(digest):
        raise BadArtifact(f"{where} is not named by a digest (64 hex digits).", hint=_AGAIN)
    if _sha256(content) != digest:
        raise BadArtifact(f"{name} was changed: it does not match the digest {digest}.", hint=_AGAIN)
    try:
        schema = msgspec.json.decode(content, type=_SchemaOnly).schema
        if schema > SCHEMA:
            hint = "Install a newer version of Estiba, from where you got this one."
            raise BadArtifact(f"{name} was made by a newer Estiba (schema {schema}, known: {SCHEMA}).", hint=hint)
        manifest = _parse(content)
        problem = _fault(manifest) or _contradiction(manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = f"{error}"
    if problem:
        raise BadArtifact(f"{name} is not a manifest of Estiba: {shortened(problem)}", hint=_AGAIN)
    return manifest


class _SchemaOnly(msgspec.Struct):
    """The schema number of a manifest: the one key that no later schema may rename."""

    schema: int


def _parse(content: bytes) -> Manifest:
    return msgspec.json.decode(content, type=Manifest)


def _fault(manifest: Manifest) -> str:
    """Return the contradiction in a manifest that its types cannot express; an empty text where there is none."""
    paths = [entry.path for entry in manifest.files]
    for path in paths:
        if not _inside(path):
            return f"the path {path!r} leaves the artifact"
    if paths != sorted(set(paths)):
        return "its files are not in order, or one is named twice"
    if manifest.model_file not in paths:
        return f"the model file {manifest.model_file!r} is not one of its files"
    if manifest.tail and manifest.tail.file not in paths:
        return f"the file {manifest.tail.file!r} of its converted steps is not one of its files"
    return ""


def _contradiction(manifest: Manifest) -> str:
    """Return the contradiction in a manifest that packing would not have let through; empty where there is none."""
    if (manifest.engine == "onnx") != (manifest.format == "onnx"):
        return f"the engine {manifest.engine} does not run a model file in the format {manifest.format}"
    if manifest.engine != "onnx" and manifest.signature.is_tensors:
        return f"the engine {manifest.engine} does not run models of tensors"
    try:
        check_sound(manifest.signature)
    except BadProject as error:
        return f"{error.message}"
    return ""


def _inside(path: str) -> bool:
    """Check for a relative path with forward slashes that stays inside and is not reserved for Estiba's own files."""
    plain = PurePosixPath(path)
    odd = path != plain.as_posix() or plain.is_absolute() or ".." in plain.parts or "\\" in path or "\0" in path
    odd = odd or len(path) > MAX_PATH_CHARACTERS
    return not odd and path not in (".", MANIFEST) and not path.startswith(TEMPORARY)


def _check_files(folder: Path, manifest: Manifest, where: Path | str) -> None:
    expected = {entry.path: entry for entry in manifest.files}
    files = _walk(folder)
    for path in sorted({*expected, *files} - {MANIFEST}):
        if path not in files:
            raise BadArtifact(f"{where}/{path} is missing.", hint=_AGAIN)
        if not stat.S_ISREG(files[path].st_mode):
            raise BadArtifact(f"{where}/{path} is a symbolic link or a device, not a plain file.", hint=_AGAIN)
        if path not in expected:
            raise BadArtifact(f"{where}/{path} is not in the manifest.", hint=f"Remove that file. {_AGAIN}")
        if problem := _difference(folder / path, files[path].st_size, expected[path]):
            raise BadArtifact(f"{where}/{path} {problem}.", hint=_AGAIN)


def _walk(folder: Path) -> dict[str, os.stat_result]:
    """Every file below `folder` by path; links are not followed."""
    files = {}
    for parent, folders, names in os.walk(folder):
        for name in folders + names:
            status = Path(parent, name).lstat()
            if not stat.S_ISDIR(status.st_mode):
                files[Path(parent, name).relative_to(folder).as_posix()] = status
    return files


def _difference(path: Path, size: int, entry: FileEntry) -> str:
    if size != entry.bytes:
        return f"has {size} bytes instead of {entry.bytes}"
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return "" if digest == entry.sha256 else "was changed: its SHA-256 does not match the manifest"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
