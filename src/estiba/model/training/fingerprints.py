"""Record the inputs of a training, so that a model whose inputs did not change is not trained again."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from estiba.core.stores.disk import explained, make_folder, write_whole

MISSING = "missing"
"""Stands for the digest of a file that does not exist."""

UNSTABLE = "changed while it was read"
"""Stands for the digest of a file that was written during the training; it never equals anything."""

DATA = "$ESTIBA_DATA"
"""Prefix, in a fingerprint, of paths below the folder that this variable names."""


MAX_CLAIMS = 10_000
"""Trainings of a model whose digests are kept."""


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of one training and the version that it gave. Digests are SHA-256 in hex.

    Args:
        version, digest: the version and artifact that it gave.
        section: digest of the model's section of the project file.
        data: by declared name, the digest of the file that was found for it.
        files: by path below the project or `$ESTIBA_DATA`, the digest of each file that was read.
        folders: by path, the digest of the names in each folder that was listed.
        libraries: exact versions by distribution; `python` is that of the interpreter.
    """

    version: int
    digest: str
    section: str
    data: dict[str, str] = {}
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    libraries: dict[str, str] = {}
    python: str = ""


def fingerprint_file(folder: Path, name: str) -> Path:
    return folder / ".estiba" / "trained" / f"{name}.json"


def write(folder: Path, name: str, fingerprint: Fingerprint) -> None:
    """Write the fingerprint of a model below a project's folder. Raises EstibaError where that fails."""
    path = fingerprint_file(folder, name)
    with explained("write", path):
        make_folder(path.parent)
    content = msgspec.json.format(msgspec.json.encode(fingerprint, order="deterministic"), indent=2)
    write_whole(path, content + b"\n")


def read(folder: Path, name: str) -> Fingerprint | None:
    """The fingerprint of a model; None where there is none that can be read: then the model is trained again."""
    try:
        return msgspec.json.decode(fingerprint_file(folder, name).read_bytes(), type=Fingerprint)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return None


def claim(folder: Path, name: str, digest: str) -> None:
    """Record that an artifact was trained here, before it is in the registry. Raises EstibaError where that fails."""
    path = _claim_file(folder, name)
    with explained("write", path):
        make_folder(path.parent)
    before = [known for known in _claims(folder, name) if known != digest]
    write_whole(path, "".join(f"{known}\n" for known in [*before, digest][-MAX_CLAIMS:]).encode())


def claimed(folder: Path, name: str) -> set[str]:
    """The digests of all trainings here, so that an alias may move back to a version before the last."""
    fingerprint = read(folder, name)
    return {*_claims(folder, name), *([fingerprint.digest] if fingerprint is not None else [])}


def _claims(folder: Path, name: str) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        return _claim_file(folder, name).read_text().split()
    return []


def _claim_file(folder: Path, name: str) -> Path:
    return fingerprint_file(folder, name).with_suffix(".digest")


def change(fingerprint: Fingerprint, section: msgspec.Struct, folder: Path, names: Iterable[str]) -> str:
    """The first difference to the fingerprint, in words; empty where nothing changed.

    Args:
        section: the model's options now.
        names: the data files that it declares now.
    """
    return next(_changes(fingerprint, section, folder, names), "")


def _changes(fingerprint: Fingerprint, section: msgspec.Struct, folder: Path, names: Iterable[str]) -> Iterator[str]:
    if fingerprint.section != digest_options(section):
        yield "its section of the project file changed"
    for name in names:
        data_file = find_data(folder, name)
        yield from _differs(name, fingerprint.data.get(name, MISSING), digest_file(data_file) if data_file else MISSING)
    places = roots(folder)
    for key, before in fingerprint.files.items():
        yield from _differs(key, before, digest_file(_path(key, places)))
    for key, before in fingerprint.folders.items():
        if digest_folder(_path(key, places)) != before:
            yield f"what is in {key} changed"
    for name, before in fingerprint.libraries.items():
        if (now := version(name)) != before:
            yield f"{name} {before} became {now}"
    if fingerprint.python != platform.python_version():
        yield f"Python {fingerprint.python} became {platform.python_version()}"


def _differs(name: str, before: str, now: str) -> Iterator[str]:
    if before == now:
        return
    if before == MISSING:
        yield f"{name} is there now"
    else:
        yield f"{name} is gone" if now == MISSING else f"{name} changed"


def find_data(folder: Path, name: str) -> Path | None:
    """A data file of a project: in the folder that $ESTIBA_DATA names, else in the project's data folder."""
    shared = os.environ.get("ESTIBA_DATA")
    places = [Path(shared) / name] if shared else []
    return next((path.absolute() for path in [*places, folder / "data" / name] if path.is_file()), None)


def roots(folder: Path) -> dict[str, Path]:
    """The folders whose files count, by the prefix of their paths in a fingerprint; the project's has none."""
    shared = os.environ.get("ESTIBA_DATA")
    return {**({DATA: Path(shared).absolute()} if shared else {}), "": folder.absolute()}


def inputs(folder: Path, fingerprint: Fingerprint | None, names: Iterable[str]) -> set[Path]:
    """Paths of the files whose change requires another training, whether they exist or not.

    A folder that was listed, except the project's own, stands for its files.

    Args:
        names: the data files that are declared.
    """
    places = roots(folder)
    paths = {root / name for root in (*places.values(), folder / "data") for name in names}
    if fingerprint is not None:
        paths |= {_path(key, places) for key in (*fingerprint.files, *fingerprint.folders)}
    return paths - {folder.absolute()}


def _path(key: str, places: Mapping[str, Path]) -> Path:
    if key.split("/", 1)[0] == DATA:
        return places.get(DATA, Path(MISSING)) / key.removeprefix(DATA).lstrip("/")
    return places[""] / key


def digest_options(section: msgspec.Struct) -> str:
    """The digest of a model's options. The port is not part of it: it does not change the model."""
    served = msgspec.structs.replace(section, port=None)
    return hashlib.sha256(msgspec.json.encode(served, order="deterministic")).hexdigest()


def digest_file(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return MISSING


def digest_folder(path: Path) -> str:
    """The digest of the names in a folder, without hidden ones and Python's caches."""
    try:
        names = sorted(name for name in os.listdir(path) if name[0] != "." and name != "__pycache__")  # noqa: PTH208
    except OSError:
        return MISSING
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()


def version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return MISSING


class Reads:
    """Record the files below some folders that this process reads, by the audit events of PEP 578.

    Not noted: hidden files and folders, Python's caches, installed libraries, and what this process wrote itself.
    A library that opens files by its own native code goes unnoticed; declared data files are noted in any case.
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        self._places = {key: str(path) + os.sep for key, path in places.items()}
        self._libraries = tuple(str(p) + os.sep for p in {sys.prefix, sys.base_prefix})
        self._seen: dict[str, tuple[str, object]] = {}
        self._folders: dict[str, str] = {}
        self._written: set[str] = set()
        self._on = True
        sys.addaudithook(self._notice)

    def stop(self) -> None:
        """Stop recording, and add the modules that came from the folders: their cached form may have been read."""
        self._on = False
        for module in list(sys.modules.values()):
            self._see(getattr(module, "__file__", None))

    def files(self) -> dict[str, str]:
        """The digest of each file that was read, by its path in a fingerprint."""
        kept = {path: entry for path, entry in self._seen.items() if path not in self._written}
        return {key: _settled(path, before) for path, (key, before) in kept.items()}

    def folders(self) -> dict[str, str]:
        return {key: digest_folder(Path(path)) for path, key in self._folders.items()}

    def _notice(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on or event not in ("open", "os.listdir", "os.scandir"):
            return
        if event == "open":
            self._see(args[0], writes=bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR)))
        elif "importlib" not in sys._getframe(1).f_code.co_filename:
            self._list(args[0])

    def _see(self, path: Any, *, writes: bool = False) -> None:
        path, key = self._place(path)
        if not key or path in self._seen:
            return
        if writes:
            self._written.add(path)
        else:
            self._seen[path] = (key, _look(path))

    def _list(self, path: Any) -> None:
        path, key = self._place(path)
        if key:  # the project's folder itself has no key: everything that looks for modules lists it
            self._folders[path] = key

    def _place(self, path: Any) -> tuple[str, str]:
        """The absolute path and its form in a fingerprint; both are empty where it does not count."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return "", ""
        absolute = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a Path here would raise events of its own
        if absolute.startswith(self._libraries):
            return absolute, ""
        for begin, root in self._places.items():
            if (absolute + os.sep).startswith(root):
                parts = absolute[len(root) :].split(os.sep)  # noqa: PTH206 - see above
                if any(part[:1] == "." or part in ("__pycache__", "site-packages") for part in parts):
                    return absolute, ""
                return absolute, "/".join(part for part in (begin, *parts) if part)
        return absolute, ""


def _look(path: str) -> object:
    """The size and modification time of a file; None where it does not exist."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns)


def _settled(path: str, before: object) -> str:
    digest = digest_file(Path(path))
    return digest if _look(path) == before else UNSTABLE
