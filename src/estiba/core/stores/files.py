"""Stores of named files in a folder or in object storage. A file appears with its whole content or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from estiba.core.errors import Conflict, EstibaError, MissingExtra, NotFound, Unavailable
from estiba.core.stores.disk import TEMPORARY, discard, explained, make_folder, place, sweep, sync

LOCK_TIMEOUT_SECONDS = 60.0
"""The time that a writer waits for the lock of another one on the same folder."""


class Store(Protocol):
    """The operations that a registry needs. Paths are relative and use forward slashes.

    Every method raises EstibaError (such as NotFound, Conflict and Unavailable) and nothing else.
    """

    url: str

    def read(self, path: str) -> bytes:
        """The content of one file. Raises NotFound."""
        ...

    def read_all(self, folder: str) -> dict[str, bytes]:
        """The content of the files right below `folder`, by name; empty if there is no such folder."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names right below `folder`, sorted; empty if there is no such folder."""
        ...

    def sizes(self, folder: str) -> dict[str, int]:
        """The size in bytes of all files below `folder`, by their path from there."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write a file that must not exist: of two writers, one gets Conflict."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Write a file; readers see the old or the new content."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file, or a folder with its content, if it exists."""
        ...

    def upload(self, source: Path, folder: str, names: Sequence[str]) -> None:
        """Copy files in the order of `names`, replacing existing ones. Readers rely on the last one."""
        ...

    def download(self, folder: str, names: Sequence[str], target: Path) -> None:
        """Copy files into a folder of this machine."""
        ...

    def local(self, folder: str) -> Path | None:
        """The path of `folder` on this machine; None if it must be downloaded."""
        ...

    def lock(self) -> AbstractContextManager[None]:
        """Lock out other writers, where the store can do that. `create` does not depend on it."""
        ...

    def stamp(self, folder: str) -> str:
        """A value that changes when anything below `folder` does. Cheap, for polling."""
        ...


def open_store(url: str | Path) -> Store:
    """A folder of this machine, or object storage by any URL that fsspec knows, such as s3://bucket/prefix.

    Raises:
        MissingExtra: fsspec, or the library for that kind of URL, is not installed.
        EstibaError: that kind of URL is unknown.
    """
    text = str(url).removeprefix("file://")
    if isinstance(url, Path) or "://" not in text:
        return Folder(Path(text).expanduser())
    return Remote(text)


def libraries(url: str) -> tuple[str, ...]:
    """Distributions, as installed here, that `open_store` needs for an address; none for a folder.

    Raises:
        as `open_store`.
    """
    from importlib import metadata

    store = open_store(url)
    if not isinstance(store, Remote):
        return ()
    module = store.kind.partition(".")[0]
    return tuple(sorted({"fsspec", *metadata.packages_distributions().get(module, [])[:1]}))


class Folder:
    """A store in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = str(self.root)

    def read(self, path: str) -> bytes:
        with explained("read", self.root / path):
            return _read_regular(self.root / path)

    def read_all(self, folder: str) -> dict[str, bytes]:
        found = {}
        for name in self.names(folder):
            with explained("read", self.root / folder / name):
                # Another process may remove a file after the listing.
                try:
                    found[name] = _read_regular(self.root / folder / name)
                except FileNotFoundError:
                    continue
        return found

    def names(self, folder: str) -> list[str]:
        with explained("read", self.root / folder):
            try:
                found = os.listdir(self.root / folder)  # noqa: PTH208 - names, not paths
            except FileNotFoundError:
                return []
        return sorted(name for name in found if not name.startswith("."))

    def sizes(self, folder: str) -> dict[str, int]:
        top = self.root / folder
        with explained("read", top):
            return {
                path.relative_to(top).as_posix(): path.lstat().st_size
                for parent, _, names in os.walk(top)
                for path in (Path(parent, name) for name in names)
            }

    def create(self, path: str, data: bytes) -> None:
        with self._finished(path, data) as (finished, target):
            # A hard link, unlike a rename, refuses a name that exists, and shows the content at once.
            os.link(finished, target)
            sync(target.parent)

    def replace(self, path: str, data: bytes) -> None:
        with self._finished(path, data) as (finished, target):
            finished.replace(target)
            sync(target.parent)

    @contextmanager
    def _finished(self, path: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        """A complete file beside the target, and the target; the file is gone afterwards."""
        target = self.root / path
        with explained("write", target):
            make_folder(target.parent)
            sweep(target.parent)
            finished = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
            try:
                finished.write_bytes(data)
                sync(finished)
                yield finished, target
            finally:
                finished.unlink(missing_ok=True)

    def delete(self, path: str) -> None:
        target = self.root / path
        with explained("remove", target):
            if not target.is_dir():
                target.unlink(missing_ok=True)
                return
            # Renamed first: a reader finds all of it or nothing.
            doomed = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
            target.rename(doomed)
            discard(doomed)

    def upload(self, source: Path, folder: str, names: Sequence[str]) -> None:
        self.delete(folder)
        place(self.root / folder, lambda unfinished: _copy(source, unfinished, names))

    def download(self, folder: str, names: Sequence[str], target: Path) -> None:
        with explained("write", target):
            _copy(self.root / folder, target, names)

    def local(self, folder: str) -> Path | None:
        return self.root / folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        with explained("write", self.root / ".lock"):
            make_folder(self.root)
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _wait_for(handle, self.root)
            yield
        finally:
            os.close(handle)

    def stamp(self, folder: str) -> str:
        digest = hashlib.sha256()
        for parent, folders, names in os.walk(self.root / folder):
            folders.sort()
            for name in sorted(names):
                digest.update(_mark(os.path.join(parent, name)))  # noqa: PTH118 - polled, and Path is slow
        return digest.hexdigest()


def _read_regular(path: Path) -> bytes:
    """Read a regular file. A named pipe in its place would block the reader for ever, so it is an error.

    Raises:
        EstibaError: something else is there. OSError: the file cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise EstibaError(f"{path} is not a regular file.", hint="Remove it; the registry holds plain files only.")
        return file.read()


def _mark(path: str) -> bytes:
    try:
        seen = os.stat(path)  # noqa: PTH116 - polled, and Path is slow
    except OSError:
        return b""
    return f"{path} {seen.st_ino} {seen.st_mtime_ns} {seen.st_size}\n".encode(errors="surrogateescape")


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name, follow_symlinks=False)


def _wait_for(handle: int, root: Path) -> None:
    """Take the lock (flock), which the kernel releases when its process ends, in whatever way."""
    import fcntl

    give_up = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise EstibaError(f"Cannot lock {root}: {error.strerror}.", hint="Use a local disk.") from error
        if time.monotonic() > give_up:
            hint = "Wait for it to finish, or end it, then try again."
            raise Conflict(f"Another process has locked {root} for a minute.", hint=hint)
        time.sleep(0.01)


class Remote:
    """A store in object storage, by fsspec. Exclusive creation is the storage's own (If-None-Match on S3)."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, self._root = _filesystem(self.url)
        self.kind = type(self._fs).__module__

    def read(self, path: str) -> bytes:
        with self._explained("read", path):
            return bytes(self._fs.cat_file(self._at(path)))

    def read_all(self, folder: str) -> dict[str, bytes]:
        paths = [f"{folder}/{name}" for name in self.names(folder)]
        with self._explained("read", folder):
            found = self._fs.cat([self._at(path) for path in paths], on_error="omit") if paths else {}
        return {path.rpartition("/")[2]: bytes(data) for path, data in sorted(found.items())}

    def names(self, folder: str) -> list[str]:
        with self._explained("list", folder):
            try:
                found = self._fs.ls(self._at(folder), detail=False)
            except FileNotFoundError:
                return []
        names = {path.rstrip("/").rpartition("/")[2] for path in found}
        return sorted(name for name in names if not name.startswith("."))

    def sizes(self, folder: str) -> dict[str, int]:
        return {path: int(info["size"]) for path, info in self._find(folder).items()}

    def create(self, path: str, data: bytes) -> None:
        with self._explained("create", path):
            self._fs.pipe_file(self._at(path), data, mode="create")

    def replace(self, path: str, data: bytes) -> None:
        with self._explained("write", path):
            self._fs.pipe_file(self._at(path), data)

    def delete(self, path: str) -> None:
        with self._explained("remove", path):
            if found := [self._at(path, name) for name in self._find(path)]:
                self._fs.rm(found)

    def upload(self, source: Path, folder: str, names: Sequence[str]) -> None:
        for name in names:
            with self._explained("write", f"{folder}/{name}"):
                self._fs.put_file(str(source / name), self._at(folder, name))

    def download(self, folder: str, names: Sequence[str], target: Path) -> None:
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with self._explained("read", f"{folder}/{name}"):
                self._fs.get_file(self._at(folder, name), str(target / name))

    def local(self, folder: str) -> Path | None:
        return None

    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()

    def stamp(self, folder: str) -> str:
        digest = hashlib.sha256()
        for path, info in sorted(self._find(folder).items()):
            marks = [info.get(key) for key in ("size", "ETag", "etag", "LastModified", "mtime", "created")]
            digest.update(f"{path} {marks}\n".encode())
        return digest.hexdigest()

    def _find(self, folder: str) -> dict[str, dict[str, Any]]:
        with self._explained("list", folder):
            top = self._at(folder)
            found = self._fs.find(top, detail=True)
        # A file is listed under its own path, so that the path below it is empty.
        return {path[len(top) :].lstrip("/"): info for path, info in found.items() if path.startswith(top)}

    def _at(self, *parts: str) -> str:
        return "/".join(part for part in (self._root, *parts) if part)

    @contextmanager
    def _explained(self, what: str, path: str) -> Iterator[None]:
        address = f"{self.url}/{path}"
        try:
            yield
        except (EstibaError, KeyboardInterrupt):
            raise
        except FileNotFoundError as error:
            raise NotFound(f"Cannot {what} {address}: {error}.", hint="Check the bucket and the path.") from error
        except PermissionError as error:
            hint = "Check the credentials and their permissions."
            raise EstibaError(f"Cannot {what} {address}: {error}.", hint=hint) from error
        except Exception as error:
            if _was_slower(error):
                raise Conflict(
                    f"{address} exists already.", hint="Another process has created it meanwhile."
                ) from error
            # Every library behind fsspec has errors of its own, with no common root.
            hint = "Check the address, the network and the credentials."
            raise Unavailable(f"Cannot {what} {address}: {error}", hint=hint) from error


def _was_slower(error: Exception) -> bool:
    """Tell if an exclusive creation lost to another writer, before it (412 on S3) or at the same time (409 on S3)."""
    answer = getattr(error.__cause__, "response", None) or {}
    code = answer.get("Error", {}).get("Code")
    return isinstance(error, FileExistsError) or code == "ConditionalRequestConflict"


def _filesystem(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    try:
        import fsspec

        # Listings must be fresh, and two registries in one process may speak to different endpoints.
        fs, root = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    except ImportError as error:
        if scheme in ("s3", "s3a") or error.name == "fsspec":
            raise MissingExtra(f"The library for {scheme}:// addresses ({error})", "s3") from error
        raise EstibaError(f"The library for {scheme}:// addresses is not installed.", hint=f"{error}.") from error
    except ValueError as error:
        hint = "Use a folder, or an address such as s3://bucket/prefix."
        raise EstibaError(f"The address {scheme}:// is not supported: {error}", hint=hint) from error
    return fs, root.rstrip("/")
