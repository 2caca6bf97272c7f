"""Remove old rows of the log of predictions, a few at a time so that its writers never wait for long."""

from __future__ import annotations

import time

from estiba.core.errors import EstibaError
from estiba.state.database import Database
from estiba.state.store import open_log

LOOK_SECONDS = 60.0
"""Time between looks for rows that are too old."""

CHECKPOINT_SECONDS = 1.0
ROWS_AT_ONCE = 5_000
MAX_SECONDS = 0.2
"""Rows of one statement, and time for all of one look, as keys are read in the same thread."""


class LogKeeper:
    """Keeps the log of a server in bounds; one for each server, in the supervisor."""

    def __init__(self, url: str, keep_days: float) -> None:
        """Open nothing yet."""
        self._url = url
        self._keep_seconds = keep_days * 86400
        self._database: Database | None = None
        self._looked_at = self._checkpointed_at = -LOOK_SECONDS

    def tick(self) -> None:
        """Do what is due now. A log that cannot be used is tried again at the next look."""
        now = time.monotonic()
        try:
            if now >= self._looked_at + LOOK_SECONDS:
                self._looked_at = now
                self._remove_old(now + MAX_SECONDS)
            if self._database is not None and now >= self._checkpointed_at + CHECKPOINT_SECONDS:
                self._checkpointed_at = now
                self._database.checkpoint()
        except EstibaError:
            if self._database is not None:
                self._database.close()
            self._database = None

    def _remove_old(self, until: float) -> None:
        if self._database is not None and self._database.is_replaced():
            self._database.close()
            self._database = None
        if self._database is None:
            self._database = open_log(self._url)
        oldest = int((time.time() - self._keep_seconds) * 1e6)
        while time.monotonic() < until:
            with self._database.transaction() as writing:
                next_page = writing.execute(
                    "SELECT at FROM prediction WHERE at < ? ORDER BY at LIMIT 1 OFFSET ?", (oldest, ROWS_AT_ONCE)
                )
                border = int(next_page[0][0]) if next_page else oldest
                writing.execute("DELETE FROM prediction WHERE at < ?", (border,))
            if not next_page:
                return
        self._looked_at -= LOOK_SECONDS  # more is left: go on at the next tick
