"""Close windows of drift and decide on them: in one server at a time, for all that share a state store."""

from __future__ import annotations

import os
import socket
import threading
import time

from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.monitoring import store
from estiba.monitoring.counter import flush_seconds
from estiba.monitoring.options import DriftOptions
from estiba.monitoring.store import Waiting
from estiba.monitoring.windows import adopted, judge
from estiba.state.database import Database, LazyDatabase
from estiba.state.store import open_monitoring

LEASE_LOOKS = 4
"""Looks for which a server that closes windows keeps others from it; it extends that at each look."""

MARGIN_SECONDS = 1.0
"""Age of counts that are taken into a window: younger ones may still be on their way to the store."""

OLDEST_HOURS = 168.0
"""Age at which a window is closed although it has too few rows to be compared."""

CLEAN_SECONDS = 3600.0


class DriftKeeper:
    """Closes the windows, in a thread of the supervisor."""

    def __init__(self, url: str, options: DriftOptions, log: Log | None = None) -> None:
        """Open nothing yet.

        Args:
            url: of the state store.
        """
        self._options = options
        self._log = log or Log()
        self._reason = ""
        self._faulty: dict[store.Version, str] = {}
        self._database = LazyDatabase(lambda: open_monitoring(url))
        self._holder = f"{socket.gethostname()}-{os.getpid()}"
        self._cleaned_at = -CLEAN_SECONDS
        self._pause = min(10.0, 2 * flush_seconds(options))

    def start(self) -> None:
        """Start the thread, which ends with the process."""
        threading.Thread(target=self._run, name="drift-windows", daemon=True).start()

    def close(self) -> None:
        """Close the store; the next look opens it again."""
        self._database.close()

    def tick(self, now: float | None = None) -> None:
        """Close the windows that are due; raises EstibaError where the store cannot be used.

        Args:
            now: in seconds since 1970; the time of the call by default.
        """
        database = self._database.get()
        at = int((time.time() if now is None else now) * 1e6)
        if not store.take_lease(database, self._holder, now=at, until=at + int(LEASE_LOOKS * self._pause * 1e6)):
            return
        with database.transaction(write=False) as reading:
            waiting = store.waiting(reading)
        for each in waiting:
            if self._is_due(each, at):
                self._close_one(database, each, at)
        if time.monotonic() >= self._cleaned_at + CLEAN_SECONDS:
            self._cleaned_at = time.monotonic()
            store.remove_old(database, now=at, slices_before=at - int(2 * OLDEST_HOURS * 3.6e9))
        database.checkpoint()

    def _run(self) -> None:
        while True:
            time.sleep(self._pause)
            try:
                self.tick()
                self._reason = ""
            except Exception as error:  # a fault in one window must not end the thread
                self.close()
                reason = error.message if isinstance(error, EstibaError) else f"{type(error).__name__}: {error}"
                if reason != self._reason:
                    self._log.warning("windows of drift cannot be closed now", reason=reason)
                self._reason = reason

    def _is_due(self, waiting: Waiting, at: int) -> bool:
        options, age = self._options, (at - waiting.first) / 3.6e9
        if age * 60 < options.minutes:
            return False
        if waiting.rows >= options.rows_of(waiting.version.model):
            return True
        return age >= (options.hours if waiting.rows >= options.min_rows else OLDEST_HOURS)

    def _close_one(self, database: Database, waiting: Waiting, at: int) -> None:
        """Close the window of a version; a fault of one, such as slices of another Estiba, holds up no other."""
        try:
            self._close_window(database, waiting, at)
        except EstibaError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if self._faulty.get(waiting.version) != reason:
                model = f"{waiting.version.model}@{waiting.version.version}"
                self._log.warning("a window of drift cannot be closed", model=model, reason=reason)
            self._faulty[waiting.version] = reason

    def _close_window(self, database: Database, waiting: Waiting, at: int) -> None:
        version, options = waiting.version, self._options
        end = min(waiting.last, at - int(MARGIN_SECONDS * 1e6))
        with database.transaction() as writing:
            reference = store.read_reference(writing, version)
            if reference is None:
                return
            window = store.gather(writing, version, reference.parts, begin=waiting.first, end=end)
            rows = 0 if window is None else window.rows(reference.parts)
            if window is None or not self._is_due(waiting._replace(rows=rows), at):
                return
            before = store.last_window(writing, version)
            result = judge(window, reference, before, options, options.ignored(version.model))
            store.write_window(writing, version, result, window, options.keep)
            if reference.output_source == "pending" and result.compared:
                # Answers to rows of training are sharper than those to others, so what is served first is the measure.
                first = adopted(reference, window, source="live", at=end, outputs_only=True)
                store.write_reference(writing, version, first, replace=True)
