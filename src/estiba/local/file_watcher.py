"""Watch: which files changed, found by looking at their times and sizes again and again.

A look takes 10 to 20 microseconds a file, so projects need no library for it, and meet no limit on watched files.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

POLL = 0.5
"""Seconds between looks."""

IMPATIENT = 5.0
"""Seconds after which changes are told although more of them come."""

_FOLDERS = {"__pycache__", ".git", ".estiba", ".venv", "venv", "node_modules", ".ipynb_checkpoints", ".mypy_cache"}
_FOLDERS |= {".pytest_cache", ".ruff_cache", ".hypothesis", ".idea", ".vscode"}

_FILES = re.compile(r"\..*\.sw.|.*~|#.*#|\.#.*|4913|.*\.(py[co]|log|pid|lock|tmp|db|sqlite3?)(-wal|-shm|-journal)?")
"""What editors, interpreters and running programs write for themselves."""

_Print = tuple[int, int, int]


class Watch:
    """Files and folders that belong to names."""

    def __init__(self, places: Mapping[str, Sequence[Path]]) -> None:
        """Takes the first look.

        Args:
            places: by name, files and folders, absolute; of folders all that is below them counts.
        """
        self._places = {name: tuple(paths) for name, paths in places.items()}
        self._seen = self._look()
        self._changed: dict[str, set[Path]] = {}
        self._since = 0.0

    def place(self, name: str, paths: Sequence[Path]) -> None:
        """Watches other places for a name from now on."""
        self._places[name] = tuple(paths)
        self._seen[name] = _prints(self._places[name])
        self._changed.pop(name, None)

    def changes(self) -> dict[str, list[Path]]:
        """What changed since it was last told, by name, once nothing changes any more."""
        now = self._look()
        fresh = {name: _differing(self._seen.get(name, {}), prints) for name, prints in now.items()}
        self._seen = now
        if any(fresh.values()) and not self._changed:
            self._since = time.monotonic()
        for name, paths in fresh.items():
            if paths:
                self._changed.setdefault(name, set()).update(paths)
        if not self._changed or (any(fresh.values()) and time.monotonic() < self._since + IMPATIENT):
            return {}
        told, self._changed = self._changed, {}
        return {name: sorted(paths) for name, paths in told.items()}

    def _look(self) -> dict[str, dict[str, _Print]]:
        # Several names often share a folder: it is walked once.
        once = {paths: _prints(paths) for paths in set(self._places.values())}
        return {name: once[paths] for name, paths in self._places.items()}


def _differing(before: Mapping[str, _Print], now: Mapping[str, _Print]) -> set[Path]:
    if before == now:
        return set()
    return {Path(path) for path in before.keys() | now.keys() if before.get(path) != now.get(path)}


def _prints(places: Sequence[Path]) -> dict[str, _Print]:
    found: dict[str, _Print] = {}
    for place in places:
        if place.is_dir():
            _walk(str(place), found)
        else:
            with suppress(OSError):
                found[str(place)] = _print(place.stat())
    return found


def _walk(folder: str, found: dict[str, _Print]) -> None:
    """Plain strings and os.scandir: with pathlib a look takes four times as long. Virtual environments are left out."""
    if os.path.exists(f"{folder}/pyvenv.cfg"):  # noqa: PTH110
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _FOLDERS:
                        _walk(entry.path, found)
                elif not _FILES.fullmatch(entry.name):
                    found[entry.path] = _print(entry.stat())


def _print(status: os.stat_result) -> _Print:
    return status.st_mtime_ns, status.st_size, status.st_ino
