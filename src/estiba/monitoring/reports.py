"""Drift for the HTTP server: opens the store when it is first needed, and again after an error."""

from __future__ import annotations

import threading
from typing import Any

import msgspec

from estiba.core.errors import EstibaError, Unavailable
from estiba.monitoring.report import report
from estiba.state.database import LazyDatabase
from estiba.state.store import open_monitoring


class DriftReports:
    """Called in threads, one at a time."""

    def __init__(self, url: str) -> None:
        """Open nothing yet.

        Args:
            url: of the state store.
        """
        self._lock = threading.Lock()
        self._database = LazyDatabase(lambda: open_monitoring(url))

    def drift(self, model: str, *, since: float) -> dict[str, Any]:
        """The drift of a model as JSON; raises Unavailable where the store cannot be read."""
        with self._lock:
            try:
                return dict(msgspec.to_builtins(report(self._database.get(), model, since=since)))
            except EstibaError as error:
                if error.status < 500:
                    raise
                self._database.close()
                raise Unavailable("The windows of drift cannot be read now.") from error
