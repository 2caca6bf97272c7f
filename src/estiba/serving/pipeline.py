"""Policies of serving that admit a request, cache its answer, observe what the model computed and take labels.

Serving defines these extension points and calls them; other packages implement them. A pipeline is built when the
configuration changes and replaced as a whole. Policies are plain synchronous calls on the event loop, so they must not
block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.model.coding.coder import Coded, Matrix
from estiba.model.inference.load import Model
from estiba.serving.exchange import Exchange
from estiba.serving.http.request import Request


class Unauthorized(EstibaError):
    """The request has no valid credentials. `challenge` is the value of WWW-Authenticate (RFC 9110, section 11.6.1)."""

    status = 401

    def __init__(self, message: str, *, hint: str | None = None, challenge: str = "Bearer") -> None:
        super().__init__(message, hint=hint)
        self.challenge = challenge


class Forbidden(EstibaError):
    """The caller is known and may not ask this. `challenge` is as for Unauthorized; empty sends none."""

    status = 403

    def __init__(self, message: str, *, hint: str | None = None, challenge: str = "") -> None:
        super().__init__(message, hint=hint)
        self.challenge = challenge


class TooManyRequests(EstibaError):
    """The caller exceeded a limit.

    Attributes:
        retry_after: whole seconds until a request may be admitted.
        policies: names of the limits that were exceeded, as the field RateLimit-Policy has them.
    """

    status = 429

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after: int = 1, policies: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.policies = policies


class Batch(NamedTuple):
    """One run of a model. `coded` and `raw` hold the rows of all exchanges, one after the other.

    A large request runs as several batches, each with a slice of its rows; their warnings are not repeated here.

    Args:
        raw: the model's answers, float64 of shape (rows, width), as the signature's head describes them.
        began_at, ended_at: on the clock of `time.perf_counter`.
        is_shadow: a copy for a candidate, whose answers nobody gets.
        is_cached: rows whose answers were known before; the model did not run.
    """

    model: Model
    exchanges: tuple[Exchange, ...]
    coded: Coded
    raw: Matrix
    began_at: float
    ended_at: float
    is_shadow: bool = False
    is_cached: bool = False


Admit = Callable[[Exchange], None]
"""Called before a prediction request is decoded. Raises EstibaError to refuse it, such as Unauthorized."""

Done = Callable[[Exchange, EstibaError | None], None]
"""Called with an exchange that may go on, or with the error that refuses it."""

Ask = Callable[[Exchange, Done], None]
"""A policy that may have to ask another process. It calls its second argument once, on the event loop, now or later."""

Observe = Callable[[Batch], None]
"""Called once per batch, after the model has run and before the answers are sent."""


class Computes(Protocol):
    """The batcher of a model, as a cache uses it."""

    model: Model

    def submit(self, exchange: Exchange) -> None:
        """Queue a decoded exchange for the model; raises Unavailable."""

    def reuse(self, exchange: Exchange, coded: Coded, raw: Matrix) -> None:
        """Count and observe rows whose answers were known."""


class Cache(Protocol):
    """Answers to rows that were asked before. Bodies that are decoded in a thread are never looked up."""

    def takes(self, model: Model) -> bool:
        """Return True if answers of a model are kept."""

    def answer(self, exchange: Exchange, batcher: Computes) -> None:
        """Answer a decoded exchange, now or later, and submit what is not known to the batcher.

        When it raises an error, it has done nothing with the exchange.
        """

    def skip(self, exchange: Exchange, model: Model) -> None:
        """Take note of an exchange that is not looked up."""

    def expire(self) -> None:
        """Refuse exchanges that wait for the run of another, and whose deadline has passed."""


class Feedback(Protocol):
    """Labels that become known for answered predictions. Called in threads; raises EstibaError."""

    def record(self, body: bytes, content_type: str, caller: str, *, skip_unknown: bool) -> dict[str, Any]:
        """Keep the labels of a body, all of them or none; returns how many as JSON."""

    def quality(self, model: str, *, since: float, window: float) -> dict[str, Any]:
        """The quality of a model by window as JSON. Both times are in seconds."""


class Drift(Protocol):
    """Differences between the rows that models are asked and those that they were trained on. Called in threads."""

    def drift(self, model: str, *, since: float) -> dict[str, Any]:
        """The drift of a model as JSON, with the windows of the last `since` seconds. Raises EstibaError."""


class Browsers(Protocol):
    """Pages of other origins that may ask from the browser (CORS)."""

    def headers(self, request: Request) -> bytes:
        """Header lines that every answer gets."""

    def preflight(self, request: Request) -> bytes | None:
        """More of them for the answer to a preflight request, which is admitted; None if it is no preflight."""


class Pipeline(NamedTuple):
    """The policies in force. Empty fields cost nothing.

    Args:
        gate: asked before a prediction request is decoded, after `admit`.
        charge: asked once its rows are known, before the cache and the model.
        detail: why a policy is not fully kept, for readiness checks; empty if it is.
        close: called when the worker ends.
    """

    admit: tuple[Admit, ...] = ()
    gate: Ask | None = None
    charge: Ask | None = None
    cache: Cache | None = None
    observe: tuple[Observe, ...] = ()
    feedback: Feedback | None = None
    drift: Drift | None = None
    browsers: Browsers | None = None
    detail: Callable[[], str] | None = None
    close: Callable[[], None] | None = None

    def of(self, model: Model) -> Pipeline:
        """The policies for a model: without the cache where that does not take it."""
        return self if self.cache is None or self.cache.takes(model) else self._replace(cache=None)


class Guard:
    """Calls policies whose failure must not fail a request. Logs a failure only when its reason changes."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._logged: dict[str, str] = {}

    def observe(self, pipeline: Pipeline, batch: Batch) -> None:
        """Pass a batch to every observer."""
        for observer in pipeline.observe:
            self._call("an observer failed", observer, batch)

    def ask(self, cache: Cache, exchange: Exchange, batcher: Computes) -> bool:
        """Ask the cache; False where it failed. Raises EstibaError where the batcher refuses the exchange."""
        try:
            cache.answer(exchange, batcher)
        except EstibaError:
            raise
        except Exception as error:
            self._report("the cache failed", error)
            return False
        return True

    def _call(self, message: str, policy: Callable[..., None], *arguments: object) -> None:
        try:
            policy(*arguments)
        except Exception as error:
            self._report(message, error)

    def _report(self, message: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        if self._logged.get(message) != reason:
            self._logged[message] = reason
            self._log.error(message, error=error)
