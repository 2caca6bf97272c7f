"""Find changed files by polling their modification times and sizes.

A poll takes 10 to 20 microseconds a file, so that no library is needed, and no limit on watched files applies.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

POLL_SECONDS = 0.5
"""The interval between polls."""

MAX_DELAY_SECONDS = 5.0
"""The time after which changes are reported although more of them follow."""

_FOLDERS = {"__pycache__", ".git", ".estiba", ".venv", "venv", "node_modules", ".ipynb_checkpoints", ".mypy_cache"}
_FOLDERS |= {".pytest_cache", ".ruff_cache", ".hypothesis", ".idea", ".vscode"}

_FILES = re.compile(r"\..*\.sw.|.*~|#.*#|\.#.*|4913|.*\.(py[co]|log|pid|lock|tmp|db|sqlite3?)(-wal|-shm|-journal)?")
"""Files that editors, interpreters and running programs write for their own use."""

_Print = tuple[int, int, int]


class FileWatcher:
    """Watches files and folders, grouped by name."""

    def __init__(self, paths: Mapping[str, Sequence[Path]]) -> None:
        """Poll for the first time.

        Args:
            paths: by name, absolute paths of files, and of folders with all that is below them.
        """
        self._paths = {name: tuple(entries) for name, entries in paths.items()}
        self._seen = self._poll()
        self._changed: dict[str, set[Path]] = {}
        self._since = 0.0

    def set_paths(self, name: str, paths: Sequence[Path]) -> None:
        """Watch other paths for a name from now on."""
        self._paths[name] = tuple(paths)
        self._seen[name] = _prints(self._paths[name])
        self._changed.pop(name, None)

    def changes(self) -> dict[str, list[Path]]:
        """The paths that changed since the last report, by name, once no more changes follow."""
        now = self._poll()
        fresh = {name: _differing(self._seen.get(name, {}), prints) for name, prints in now.items()}
        self._seen = now
        if any(fresh.values()) and not self._changed:
            self._since = time.monotonic()
        for name, paths in fresh.items():
            if paths:
                self._changed.setdefault(name, set()).update(paths)
        if not self._changed or (any(fresh.values()) and time.monotonic() < self._since + MAX_DELAY_SECONDS):
            return {}
        changed, self._changed = self._changed, {}
        return {name: sorted(paths) for name, paths in changed.items()}

    def _poll(self) -> dict[str, dict[str, _Print]]:
        # Several names often share a folder: it is walked once.
        once = {paths: _prints(paths) for paths in set(self._paths.values())}
        return {name: once[paths] for name, paths in self._paths.items()}


def _differing(before: Mapping[str, _Print], now: Mapping[str, _Print]) -> set[Path]:
    if before == now:
        return set()
    return {Path(path) for path in before.keys() | now.keys() if before.get(path) != now.get(path)}


def _prints(paths: Sequence[Path]) -> dict[str, _Print]:
    prints: dict[str, _Print] = {}
    for path in paths:
        if path.is_dir():
            _walk(str(path), prints)
        else:
            with suppress(OSError):
                prints[str(path)] = _print(path.stat())
    return prints


def _walk(folder: str, prints: dict[str, _Print]) -> None:
    """Add the files below a folder, without virtual environments. With pathlib a poll takes four times as long."""
    if os.path.exists(f"{folder}/pyvenv.cfg"):  # noqa: PTH110
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _FOLDERS:
                        _walk(entry.path, prints)
                elif not _FILES.fullmatch(entry.name):
                    prints[entry.path] = _print(entry.stat())


def _print(status: os.stat_result) -> _Print:
    return status.st_mtime_ns, status.st_size, status.st_ino
