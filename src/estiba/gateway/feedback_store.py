"""Labels and quality for the HTTP server: opens the log when it is first needed, and again after an error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from estiba.core.errors import EstibaError, Unavailable
from estiba.gateway import feedback
from estiba.gateway.keys import ApiKey
from estiba.gateway.quality import quality
from estiba.state.database import Database, LazyDatabase
from estiba.state.store import open_log

Result = TypeVar("Result")


class FeedbackStore:
    """Called in threads, one at a time."""

    def __init__(self, url: str) -> None:
        """Open nothing yet.

        Args:
            url: of the state store.
        """
        self._models: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()
        self._database = LazyDatabase(lambda: open_log(url))

    def allow(self, keys: Iterable[ApiKey]) -> None:
        """Take labels from the holders of these keys, for the models that each may use."""
        self._models = {key.name: key.models for key in keys}

    def record(self, body: bytes, content_type: str, caller: str, *, skip_unknown: bool) -> dict[str, Any]:
        """Keep the labels of a request; returns how many.

        Raises:
            BadRequest, BadInput: what was sent is wrong. Unavailable: the log cannot be written; none was kept.
        """
        labels = feedback.read_labels(body, content_type)
        models = self._models.get(caller, ())
        kept = self._ask(
            lambda log: feedback.record(log, labels, source=caller, models=models, skip_unknown=skip_unknown)
        )
        return dict(msgspec.to_builtins(kept))

    def quality(self, model: str, *, since: float, window: float) -> dict[str, Any]:
        """The quality of a model by window; raises BadRequest, or Unavailable where the log cannot be read."""
        return dict(msgspec.to_builtins(self._ask(lambda log: quality(log, model, since=since, window=window))))

    def _ask(self, question: Callable[[Database], Result]) -> Result:
        with self._lock:
            try:
                return question(self._database.get())
            except EstibaError as error:
                if error.status < 500:
                    raise
                self._database.close()
                raise Unavailable("The log of predictions cannot be used now; no label was kept.") from error
