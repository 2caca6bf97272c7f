"""Write files and folders atomically: readers see all of them or nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from estiba.core.errors import Conflict, EstibaError, NotFound

TEMPORARY = ".tmp-"
"""The prefix of unfinished files and folders. Readers skip them; a killed writer leaves nothing else."""

STALE_SECONDS = 24 * 3600
"""The age after which the next writer removes an unfinished file or folder."""

_HINTS = {
    errno.ENOSPC: "The disk is full: free some space, or choose another path, and try again.",
    errno.EDQUOT: "Your quota on that disk is used up: free some space and try again.",
    errno.EFBIG: "The file would be larger than this disk or process may write: raise the limit (ulimit -f).",
    errno.EACCES: "Give this user the right to read and write there, or choose another path.",
    errno.EPERM: "Give this user the right to read and write there, or choose another path.",
    errno.EROFS: "That file system is mounted read-only: choose another path.",
    errno.ENOTDIR: "A file stands where a folder is needed: move it, or choose another path.",
    errno.EISDIR: "A folder stands where a file is needed: move it, or choose another path.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "Symbolic links are not followed here: use the real path.",
}


@contextmanager
def explained(what: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into an error that says what failed, where, why, and what to do.

    Args:
        what: the operation, such as "write" or "read"; the message begins "Cannot WHAT PATH".

    Raises:
        NotFound: the file does not exist. Conflict: it exists already. EstibaError: anything else.
    """
    try:
        yield
    except OSError as caught:
        error = _one(caught)
        message = f"Cannot {what} {path}: {error.strerror or error}."
        if isinstance(error, FileNotFoundError):
            raise NotFound(message, hint="Check the path.") from error
        if isinstance(error, FileExistsError):
            raise Conflict(message, hint="Another process has created it meanwhile; read it again.") from error
        hint = _HINTS.get(error.errno or 0, "Check that path and the disk it is on.")
        raise EstibaError(message, hint=hint) from error


def _one(error: OSError) -> OSError:
    """The first error, where shutil has collected those of a whole tree."""
    if not isinstance(error, shutil.Error) or not isinstance(error.args[0], list):
        return error
    source, target, message = error.args[0][0]
    number = re.match(r"\[Errno (\d+)\]", str(message))
    if number is None:
        return OSError(str(message))
    return OSError(int(number[1]), os.strerror(int(number[1])), source, None, target)


def place(target: Path, fill: Callable[[Path], None]) -> bool:
    """Create the folder `target` atomically: `fill` writes into a folder beside it, which is then renamed.

    All files are on disk (fsync) before the rename. If `fill` or the disk fails, nothing is left.

    Returns:
        False if `target` exists already; it is left as it is.

    Raises:
        EstibaError: the folder cannot be written (disk full, not permitted, read-only, a file in the way).
    """
    with explained("write", target):
        make_folder(target.parent)
        sweep(target.parent)
        unfinished = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            unfinished.mkdir()
            fill(unfinished)
            sync_tree(unfinished)
            return _rename(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _rename(unfinished: Path, target: Path) -> bool:
    try:
        unfinished.rename(target)
    except OSError as error:
        # POSIX refuses to rename onto a folder that is not empty with one of these two.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    sync(target.parent)
    return True


def make_folder(folder: Path) -> None:
    """Create a folder and its parents; an existing one is fine. Raises NotADirectoryError for a file in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def write_whole(target: Path, content: bytes | Callable[[IO[bytes]], None], mode: int | None = None) -> None:
    """Write the file `target` atomically, replacing an existing one. If the disk fails, nothing changes.

    Args:
        content: its bytes, or a function that writes them to an open file; if that fails, nothing changes either.
        mode: the file's permissions from its first byte on; None leaves them to the umask.

    Raises:
        EstibaError: the file cannot be written.
    """
    with explained("write", target):
        unfinished = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            with unfinished.open("xb") as handle:
                if mode is not None:
                    unfinished.chmod(mode)
                if callable(content):
                    content(handle)
                else:
                    handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            unfinished.replace(target)
            sync(target.parent)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def temporary(purpose: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder for temporary files that is removed after the block, even if a signal ends it.

    `tempfile.TemporaryDirectory` leaves its folder if a signal comes between creating and registering it.

    Args:
        purpose: part of its name, which begins with "estiba-". parent: where to make it; by default where TMPDIR says.

    Raises:
        EstibaError: no folder can be created.
    """
    folder = (parent or _temporary_place()) / f"estiba-{purpose}-{secrets.token_hex(8)}"
    try:
        with explained("make", folder):
            folder.mkdir(mode=0o700)
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        except BaseException:  # the signal came while it was being removed
            shutil.rmtree(folder, ignore_errors=True)
            raise


LOCK = "lock"
"""The file of an owned temporary folder that its process holds locked; it is unlocked however the process ends."""


@contextmanager
def owned_temporary(purpose: str) -> Iterator[Path]:
    """A folder as `temporary` makes it, for a process that may be killed while it uses it.

    Folders of the same purpose that killed processes of this user left are removed first.
    """
    _remove_abandoned(purpose)
    with temporary(purpose) as folder, explained("make", folder), (folder / LOCK).open("xb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _remove_abandoned(purpose: str) -> None:
    with suppress(OSError):
        for folder in _temporary_place().glob(f"estiba-{purpose}-*"):
            with suppress(OSError):
                if folder.lstat().st_uid == os.geteuid() and not folder.is_symlink() and _is_abandoned(folder / LOCK):
                    shutil.rmtree(folder)


def _is_abandoned(lock: Path) -> bool:
    """True if a lock exists and no process holds it. A process that has just made it holds it within a second."""
    handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return time.time() - os.fstat(handle).st_mtime > 1
    finally:
        os.close(handle)


def _temporary_place() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        hint = "Set TMPDIR to another folder. A read-only container needs: --tmpfs /tmp"
        raise EstibaError(f"No folder for temporary files can be created: {error.strerror}.", hint=hint) from error


def sweep(folder: Path) -> None:
    """Remove unfinished files that killed writers left in `folder` a day ago or earlier. Never fails."""
    with suppress(OSError):
        for path in folder.glob(f"{TEMPORARY}*"):
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > STALE_SECONDS:
                    discard(path)


def discard(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Write a file or folder to the disk before anything that follows (POSIX fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))
