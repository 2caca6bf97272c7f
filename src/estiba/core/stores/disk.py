"""Files and folders of this machine that appear whole or not at all."""

from __future__ import annotations

import errno
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
"""How names of unfinished files and folders begin. Readers skip them; a killed writer leaves nothing else."""

STALE_SECONDS = 24 * 3600
"""An unfinished file or folder this old belongs to nobody any more and is swept away by the next writer."""

_HINTS = {
    errno.ENOSPC: "The disk is full: free some space, or choose another place, and try again.",
    errno.EDQUOT: "Your quota on that disk is used up: free some space and try again.",
    errno.EFBIG: "The file would be larger than this disk or process may write: raise the limit (ulimit -f).",
    errno.EACCES: "Give this user the right to read and write there, or choose another place.",
    errno.EPERM: "Give this user the right to read and write there, or choose another place.",
    errno.EROFS: "That file system is mounted read-only: choose another place.",
    errno.ENOTDIR: "A file stands where a folder is needed: move it, or choose another place.",
    errno.EISDIR: "A folder stands where a file is needed: move it, or choose another place.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "Symbolic links are not followed here: use the real path.",
}


@contextmanager
def explained(what: str, path: Path) -> Iterator[None]:
    """Turns an OSError inside the block into an error that says what failed, where, why, and what to do.

    Args:
        what: the deed, as in "write" or "read"; the message begins "Cannot WHAT PATH".

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
            raise Conflict(message, hint="Another writer was faster; read it again.") from error
        hint = _HINTS.get(error.errno or 0, "Check that path and the disk it is on.")
        raise EstibaError(message, hint=hint) from error


def _one(error: OSError) -> OSError:
    """The reason itself, where several of a whole tree were gathered: the first, with its number."""
    if not isinstance(error, shutil.Error) or not isinstance(error.args[0], list):
        return error
    source, target, said = error.args[0][0]
    found = re.match(r"\[Errno (\d+)\]", str(said))
    return OSError(int(found[1]), os.strerror(int(found[1])), source, None, target) if found else OSError(str(said))


def place(target: Path, fill: Callable[[Path], None]) -> bool:
    """Makes the folder `target` appear whole: `fill` writes into a folder beside it, which is then renamed.

    Everything is on disk (fsync) before the name appears. If `fill` or the disk fails, nothing is left.

    Returns:
        False when `target` was there already, or another writer was faster; that one is left as it is.

    Raises:
        EstibaError: the place cannot be written (full, not permitted, read-only, a file in the way).
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
        # Renaming onto a folder that holds something is refused by POSIX with one of these two.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    sync(target.parent)
    return True


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it; there already is fine. A file in its place is an OSError that says so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def write_whole(target: Path, content: bytes | Callable[[IO[bytes]], None], mode: int | None = None) -> None:
    """Makes the file `target` appear whole, replacing what was there. If the disk fails, nothing changes.

    Args:
        content: its bytes, or what writes them into an open file; if that fails, nothing changes either.
        mode: the file's permissions from its first byte on; None leaves them to the umask.

    Raises:
        EstibaError: the place cannot be written.
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
    """A folder for temporary files that is gone after the block, whenever a signal ends it.

    The standard library's leaves its folder to a signal that comes between making it and remembering it.

    Args:
        purpose: part of its name, which begins with "estiba-". parent: where to make it; by default where TMPDIR says.

    Raises:
        EstibaError: no folder can be made.
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


def _temporary_place() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        hint = "Name another place with TMPDIR. A container that is read-only needs: --tmpfs /tmp"
        raise EstibaError(f"No folder for temporary files can be made: {error.strerror}.", hint=hint) from error


def sweep(folder: Path) -> None:
    """Removes what killed writers left in `folder` a day ago or earlier. Never fails."""
    with suppress(OSError):
        for path in folder.glob(f"{TEMPORARY}*"):
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > STALE_SECONDS:
                    discard(path)


def discard(path: Path) -> None:
    """Removes a file, a link or a whole folder; absent is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Asks the disk to keep a file or folder before anything that follows (POSIX fsync)."""
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
