"""Keep the keys in force on this machine, for a server that is started while its state store cannot be reached.

Only for stores on other machines: an SQLite file is here itself. The snapshot holds hashes, as the store does. It is
used for a day, so that a key which was revoked meanwhile is not admitted for ever.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from estiba.core.errors import EstibaError
from estiba.core.stores.disk import explained
from estiba.gateway.keys import ApiKey
from estiba.state.options import SQLITE, shown

MAX_AGE_SECONDS = 86400.0
"""Age from which a snapshot is not used any more."""

CONFIRM_SECONDS = 60.0
"""Time between two confirmations that a snapshot is what the store has."""


class KeySnapshot:
    """The file with the keys of one state store. Errors of the disk are ignored: nothing depends on it."""

    def __init__(self, url: str) -> None:
        """Read and write nothing yet.

        Args:
            url: of the state store.
        """
        folder = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")  # noqa: PTH111 - never raises
        # A user without a home has no snapshot.
        is_kept = not url.startswith(SQLITE) and folder.startswith("/")
        name = hashlib.sha256(shown(url).encode()).hexdigest()[:32]
        self._file = Path(folder) / "estiba" / "keys" / f"{name}.json" if is_kept else None
        self._confirmed_at = -CONFIRM_SECONDS

    def write(self, keys: Iterable[ApiKey]) -> None:
        """Replace the snapshot by these keys."""
        if self._file is None:
            return
        with suppress(OSError, EstibaError), explained("write", self._file):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self._file.with_name(f"{self._file.name}.{os.getpid()}")
            fresh.touch(0o600)
            fresh.write_bytes(msgspec.json.encode(tuple(keys)))
            fresh.replace(self._file)
            self._confirmed_at = time.monotonic()

    def confirm(self) -> None:
        """Note that the store still has these keys."""
        if self._file is not None and time.monotonic() > self._confirmed_at + CONFIRM_SECONDS:
            self._confirmed_at = time.monotonic()
            with suppress(OSError):
                os.utime(self._file)

    def read(self) -> tuple[tuple[ApiKey, ...], float] | None:
        """The keys and the age of the snapshot in seconds; None without one that may be used."""
        if self._file is None:
            return None
        try:
            handle = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                about = os.fstat(handle)
                age = time.time() - about.st_mtime
                # A file that others can write would let them admit keys.
                private = about.st_uid == os.geteuid() and not stat.S_IMODE(about.st_mode) & 0o077
                if not private or not -1 < age < MAX_AGE_SECONDS:
                    return None
                return msgspec.json.decode(file.read(), type=tuple[ApiKey, ...]), age
        except (OSError, msgspec.MsgspecError):
            return None
