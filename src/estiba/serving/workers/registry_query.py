"""Lookout: questions to a registry, each asked in a thread of its own.

A registry may be a bucket far away, and what it was asked may take minutes or hang. The event loop that accepts clients
waits for none of it, and a reference that hangs keeps no other from being looked up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from estiba.core.errors import EstibaError, Unavailable

Answer = TypeVar("Answer")

SLOW = 10.0
"""Seconds without an answer after which somebody should hear of it."""


class Question(Generic[Answer]):
    """Asked when made. Its thread cannot be stopped: an answer that comes when nobody waits any more is lost."""

    def __init__(self, ask: Callable[[], Answer], patience: float) -> None:
        """Begins.

        Args:
            patience: seconds after which it counts as answered by a failure.
        """
        self._ask = ask
        self._began = time.monotonic()
        self._patience = patience
        self._answers: list[Answer] = []
        self._failure: EstibaError | None = None
        self._thread = threading.Thread(target=self._run, name="registry", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answers.append(self._ask())
        except EstibaError as error:
            self._failure = error
        except Exception as error:  # a store's own errors: one bad reference must not end the server
            self._failure = EstibaError(f"{type(error).__name__}: {error}")

    @property
    def seconds(self) -> float:
        """How long ago it was asked."""
        return time.monotonic() - self._began

    @property
    def done(self) -> bool:
        return not self._thread.is_alive() or self.seconds > self._patience

    @property
    def silent(self) -> bool:
        """Whether it was not answered in time, neither with what was asked for nor with an error."""
        return self.done and not self._answers and self._failure is None

    def wait(self) -> None:
        """Until it is done, for who has nothing else to do."""
        while not self.done:
            self._thread.join(max(0.01, self._patience - self.seconds))

    @property
    def slow(self) -> bool:
        return not self.done and self.seconds > SLOW

    def answer(self) -> Answer:
        """What was answered, once it is done; raises EstibaError."""
        if self._failure is not None:
            raise self._failure
        if not self._answers:
            raise Unavailable(f"The registry did not answer within {self._patience:g} seconds.")
        return self._answers[0]
