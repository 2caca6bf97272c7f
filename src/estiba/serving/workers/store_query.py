"""Query a registry or another store without blocking: each query runs in a daemon thread and has a timeout.

A registry may be a remote bucket, and a query may take minutes or hang. The event loop never waits for it, and one
reference that hangs does not delay others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Generic, TypeVar

from estiba.core.errors import EstibaError, Unavailable

Result = TypeVar("Result")

SLOW_SECONDS = 10.0
"""Time after which an unfinished query counts as slow."""


class StoreQuery(Generic[Result]):
    """A query that runs from its creation. Its thread cannot be stopped: a result after the timeout is ignored."""

    def __init__(self, function: Callable[[], Result], timeout: float, about: str = "The registry") -> None:
        """Start the thread.

        Args:
            timeout: seconds after which the query counts as failed.
            about: the store, as errors name it.
        """
        self._about = about
        self._timeout = timeout
        self._began_at = time.monotonic()
        self._future: Future[Result] = Future()
        threading.Thread(target=self._run, args=(function,), name="store", daemon=True).start()

    def _run(self, function: Callable[[], Result]) -> None:
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            self._future.set_result(function())
        except EstibaError as error:
            self._future.set_exception(error)
        except Exception as error:  # a store's own errors: one bad reference must not end the server
            self._future.set_exception(EstibaError(f"{type(error).__name__}: {error}"))

    @property
    def seconds(self) -> float:
        """Time since the query began."""
        return time.monotonic() - self._began_at

    @property
    def done(self) -> bool:
        """True if it has a result, failed or timed out."""
        return self._future.done() or self.seconds > self._timeout

    @property
    def timed_out(self) -> bool:
        """True if it has neither a result nor an error within its timeout."""
        return self.done and not self._future.done()

    @property
    def slow(self) -> bool:
        """True if it is not done after SLOW_SECONDS."""
        return not self.done and self.seconds > SLOW_SECONDS

    def wait(self) -> None:
        """Block until it is done."""
        while not self.done:
            try:
                self._future.exception(max(0.01, self._timeout - self.seconds))
            except (TimeoutError, CancelledError):
                continue

    def result(self) -> Result:
        """The result of a query that is done; raises EstibaError."""
        if not self._future.done():
            raise Unavailable(f"{self._about} did not answer within {self._timeout:g} seconds.")
        return self._future.result()
