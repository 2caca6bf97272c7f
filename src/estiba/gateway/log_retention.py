"""Remove old rows of the log of predictions, a few at a time so that its writers never wait for long."""

from __future__ import annotations

import threading
import time

from estiba.core.errors import EstibaError
from estiba.state.database import LazyDatabase
from estiba.state.store import open_log

LOOK_SECONDS = 60.0
"""Time between looks for rows that are too old."""

CHECKPOINT_SECONDS = 1.0
PAUSE_SECONDS = 0.01
"""Time for writers between two statements."""

ROWS_AT_ONCE = 5_000
"""Rows of one statement."""


class LogKeeper:
    """Keeps the log of a server in bounds; one for each server, in a thread of the supervisor."""

    def __init__(self, url: str, keep_days: float) -> None:
        """Open nothing yet."""
        self._keep_seconds = keep_days * 86400
        self._database = LazyDatabase(lambda: open_log(url))
        self._looked_at = -LOOK_SECONDS

    def start(self) -> None:
        """Start the thread, which ends with the process: a log that hangs must not hold up keys."""
        threading.Thread(target=self._run, name="log-retention", daemon=True).start()

    def tick(self) -> None:
        """Do what is due now. A log that cannot be used is tried again at the next look."""
        now = time.monotonic()
        try:
            if now >= self._looked_at + LOOK_SECONDS:
                self._looked_at = now
                self._remove_old()
            if self._database.opened is not None:
                self._database.opened.checkpoint()
        except EstibaError:
            self.close()

    def close(self) -> None:
        """Close the log; the next look opens it again."""
        self._database.close()

    def _run(self) -> None:
        while True:
            self.tick()
            time.sleep(CHECKPOINT_SECONDS)

    def _remove_old(self) -> None:
        database = self._database.get()
        oldest = int((time.time() - self._keep_seconds) * 1e6)
        while True:
            with database.transaction() as writing:
                page = "SELECT at FROM prediction WHERE at < ? ORDER BY at LIMIT 1 OFFSET ?"
                next_page = writing.execute(page, (oldest, ROWS_AT_ONCE))
                # All rows of one moment at once: those of a large batch share theirs, and may be more than a page.
                last = next_page[0][0] if next_page else oldest - 1
                writing.execute("DELETE FROM prediction WHERE at <= ?", (last,))
            if not next_page:
                break
            time.sleep(PAUSE_SECONDS)
        with database.transaction() as writing:
            writing.execute("DELETE FROM feedback WHERE predicted_at < ?", (oldest,))
